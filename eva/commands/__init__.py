"""The commands: their flags, what they print, their exit codes.

In: the words of a command line. Out: an exit code, and text on the standard streams.
The scripts in the checkout and `python -m eva` call the same functions.
"""
