"""The files of a run: cache, result, and the meta file beside each.

In: records. Out: lines on disk, and what is read back from them.
Only this room writes result files; it reads those of the reference too.
"""
