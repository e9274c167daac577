"""One run: its options, the check before it, what plays the samples, and their schedule.

In: the command line. Out: every sample played once.
`eval-eva.py` holds the order of the steps.
"""
