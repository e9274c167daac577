"""One sample: the loop of rounds, a tool call, its images, its transcript, its record.

In: an item. Out: a record.
The model and the frame tool are passed in.
"""
