"""The frame tool as the harness calls it: warm workers or a command per call, and the frame store.

In: a video and a call in numbers. Out: paths of frames on disk.
Only this room and `endpoint` leave the process.
"""

# The frame store, below the frame root.
STORE = "store"
