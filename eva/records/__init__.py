"""The files of a run: cache, result, and the meta file beside each.

In: records (schema.py). Out: lines on disk, and the records that any such line holds.
Only this room writes caches and results; it reads those of the reference too.
"""
