"""What a user, or a model, may choose of the frame tool; and what the harness and its workers both judge by.
A module that imports nothing heavy."""

DECODERS = ("auto", "av", "decord")
# The two decoders of the reference, as PyAV stands for them: all frames are chosen by time, or a video of which decord
# gives no frames is refused.
LIKE_TORCHCODEC, LIKE_DECORD = "torchcodec", "like-decord"
BACKENDS = (*DECODERS, LIKE_TORCHCODEC, LIKE_DECORD)
# All are lossless. Of a film's frame at 1288x728: PNG takes 71 ms of CPU to write, 47 ms to read and 1.5 MB, BMP 5 ms,
# 8 ms and 2.8 MB.
FORMATS = ("png", "bmp")
# What the frame tool of the reference knows. `--format`, `av` and `like-decord` are additions of this project.
REFERENCE_OPTIONS = (
    "--help", "--video-path", "--video_path", "--start", "--start-time", "--start_time", "--end", "--end-time",
    "--end_time", "--nframes", "--resize", "--factor", "--backend", "--clamp", "--save-root", "--save-dir",
)  # fmt: skip
REFERENCE_BACKENDS = ("auto", "decord", "torchcodec")
# A file that holds less than this share of its length was cut off. No length is exact.
WHOLE_SHARE = 0.9
