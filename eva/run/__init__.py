"""One run: its flags, the check before it, what runs the samples, and their schedule.

In: the command line. Out: each sample run once, and a summary.
`eval-eva.py` holds the order of the steps.
"""
