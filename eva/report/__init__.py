"""The page: rows, details, charts, thumbnails, and the live view.

In: result and cache files. Out: one HTML file, or a local server.
Text of models and annotators is data here, never markup.
"""
