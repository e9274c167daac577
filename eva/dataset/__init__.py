"""Annotation files, and where the videos that they name are.

In: a JSONL file, a table of one's own, a download address. Out: checked items, paths of videos.
Nothing here opens a video.
"""
