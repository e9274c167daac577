"""Annotation files, and where the videos that they name are.

In: an annotation file, a table of your own, a manifest of files. Out: checked items, paths of videos.
Nothing here opens a video.
"""
