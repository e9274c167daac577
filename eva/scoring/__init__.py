"""Figures: accuracy, intervals, published figures, comparisons of two results.

In: outcomes. Out: numbers, and the lines that people read.
Nothing here starts a run.
"""
