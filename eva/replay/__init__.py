"""A result file played again: the replies in it take the model's place, and all else is the ordinary loop.

In: a result file, its questions, videos where there are any. Out: what differs from the file.
No server is asked, and no frame is decoded unless the frame tool is asked for.
"""
