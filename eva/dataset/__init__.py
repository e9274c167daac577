"""Annotation files and videos: what is known of datasets, where they come from, and where they are.

In: the catalog of known datasets, an annotation file, a table of your own. Out: checked items, paths of videos.
Nothing here opens a video.
"""
