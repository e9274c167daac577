"""A video file -> exact RGB frames, by PyAV or decord.

In: a path, a window in seconds, a number of frames. Out: the chosen frames as pictures.
The rules of `docs/protocol.md`, section 5, are in `sampling`.
"""
