"""What a user may choose: the decoder and the format of the frames; and what the harness and its workers both judge by.
A module that imports nothing heavy."""

BACKENDS = ("auto", "av", "decord")
# All are lossless. Of a film's frame at 1288x728: PNG takes 71 ms of CPU to write, 47 ms to read and 1.5 MB, BMP 5 ms,
# 8 ms and 2.8 MB.
FORMATS = ("png", "bmp")
# A file that holds less than this share of its length was cut off. No length is exact.
WHOLE_SHARE = 0.9
