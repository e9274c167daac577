"""A video file -> exact RGB frames, by PyAV or decord.

In: a path, a window in seconds, a number of frames. Out: the chosen frames as pictures.
The rules of `docs/protocol.md`, section 5, are in `sampling`. What may be chosen stands here: this imports nothing.
"""

DECODERS = ("auto", "av", "decord")
# The two decoders of the reference, as PyAV stands for them: all frames are chosen by time, or a video of which decord
# gives no frames is refused.
LIKE_TORCHCODEC, LIKE_DECORD = "torchcodec", "like-decord"
BACKENDS = (*DECODERS, LIKE_TORCHCODEC, LIKE_DECORD)
# What the frame tool of the reference knows. `--format`, `av` and `like-decord` are additions of this project.
REFERENCE_OPTIONS = (
    "--help", "--video-path", "--video_path", "--start", "--start-time", "--start_time", "--end", "--end-time",
    "--end_time", "--nframes", "--resize", "--factor", "--backend", "--clamp", "--save-root", "--save-dir",
)  # fmt: skip
REFERENCE_BACKENDS = ("auto", "decord", "torchcodec")
# A file that holds less than this share of its length was cut off. No length is exact.
WHOLE_SHARE = 0.9
