"""What the packets of a video say without decoding: which frames there are, and where decoding may start."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.codec.context import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from eva.video.gaps import HEADER_BYTES, VP8
from eva.video.timeline import Timeline

# In these two containers, seeking leads to the right packet. In MPEG-TS it leads to a later one; the times of AVI and
# FLV are not exact. There, decoding starts at the file's start.
SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
VP9 = {"vp9", "libvpx-vp9"}
MAY_HIDE = VP8 | VP9  # frames
AV1 = {"av1", "libdav1d"}
BY_TIME_CODECS = {"av1", "vp9"}
BY_TIME_FORMATS = {"gif"}
H264_IDR = {5}
H264_SLICES = set(range(1, 6))
H264_EXTRAS = {6, 9, 12}  # supplemental information, delimiters, filler
HEVC_SLICES = set(range(32))
HEVC_RANDOM_ACCESS = set(range(16, 24))
HEVC_UNREFERENCED = set(range(0, 16, 2))  # not referred to within their temporal layer
# The byte of the decoder configuration that says how the lengths of NAL units are written.
LENGTH_BYTE = {"h264": 4, "hevc": 21}
HEVC_EXTRAS = {35, 38, 39, 40}  # delimiters, filler, supplemental information
MPEG4_PICTURE = b"\0\0\1\xb6"
MPEG4_B = 2


@dataclass(frozen=True)
class EntryPoint:
    """A keyframe. Decoding from it gives the same frames, from this one on, as decoding from the file's start."""

    index: int  # of the keyframe among all frames, in presentation order
    pts: int
    seek_to: int  # the time by which the container finds it


@dataclass(frozen=True)
class Survey:
    """The frames that the packets promise."""

    pts: tuple[int, ...]  # presentation times in ascending order
    one_each: bool  # every packet has a time of its own, so that the time identifies the frame
    missing: int  # frames after those that a cut-off file lists, but does not hold
    entries: tuple[EntryPoint, ...]  # in ascending order; none where only decoding from the start is exact
    shown_to: int  # the end of the last frame, by its own duration
    gap: bool  # packets are missing, so the decoder fills in


@dataclass(frozen=True)
class VideoIndex:
    """All that must be known of a video before frames of it are decoded.

    `pts` has the presentation time of each frame that the file holds; None: frames are identified by counting them.
    `gap`: packets are missing, and only one way of decoding gives the same pixels each time: every packet from the
    start of the file on, in one thread.
    """

    timeline: Timeline
    pts: tuple[int, ...] | None
    entries: tuple[EntryPoint, ...]
    gap: bool


@dataclass(frozen=True, slots=True)
class Note:
    """What must be known of one packet that shows a frame."""

    pts: int | None
    dts: int | None
    duration: int
    entry: bool


def is_chosen_by_time(container: InputContainer, stream: VideoStream) -> bool:
    """Whether decord cannot open such a video, so that the reference's second decoder chooses its frames by time.

    decord 0.6.0 has no decoder for AV1. It opens VP9, but once all its threads have work, it fails on the first packet
    with a hidden frame: in all but short videos and live recordings. That depends on the number of processors, which
    cannot be a rule, so all VP9 counts. decord also refuses a file that neither lists its frames nor says a length of
    at least one frame: streamed files, APNG, and GIF, whose length only a newer FFmpeg finds out.
    """
    if stream.codec_context.codec.canonical_name in BY_TIME_CODECS or container.format.name in BY_TIME_FORMATS:
        return True
    rate = stream.average_rate or stream.guessed_rate or 0
    return stream.frames < 1 and float(rate) * (container.duration or 0) / av.time_base < 1


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The stream's packets; they end where the file is cut off."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except FFmpegError:
        return


def note_packet(packet: Packet[VideoStream], context: CodecContext) -> Note | None:
    """The note of a packet; None for one that shows no frame, because it is hidden or an edit list cuts it off."""
    if packet.is_discard or not shows_frame(packet, context.name):
        return None
    return Note(packet.pts, packet.dts, packet.duration or 0, packet.is_keyframe and begins_anew(packet, context))


def make_survey(notes: list[Note], container: InputContainer, stream: VideoStream, *, gap: bool) -> Survey:
    """The survey from the notes of all packets that show a frame. `gap`: their numbers say that packets are missing."""
    pts = sorted(note.pts for note in notes if note.pts is not None)
    one_each = len(set(pts)) == len(notes) > 0
    shown_to = max((note.pts + note.duration for note in notes if note.pts is not None), default=0)
    if not one_each:
        return Survey(tuple(pts), False, 0, (), shown_to, gap)
    lost = _lost_dts(container, stream)
    if lost:
        return Survey(*_held(notes, lost), entries=(), shown_to=shown_to, gap=gap)
    return Survey(tuple(pts), True, 0, () if gap else tuple(_entries(notes, pts, container)), shown_to, gap)


def _entries(notes: list[Note], pts: list[int], container: InputContainer) -> Iterator[EntryPoint]:
    if container.format.name not in SEEKABLE:
        return
    index_of = {time: index for index, time in enumerate(pts)}
    for note in notes:
        # MP4 lists decoding times, Matroska presentation times.
        seek_to = note.dts if container.format.name.startswith("mov,") else note.pts
        if note.entry and note.pts is not None and seek_to is not None:
            yield EntryPoint(index_of[note.pts], note.pts, seek_to)


def _lost_dts(container: InputContainer, stream: VideoStream) -> list[int]:
    """The decoding times of the frames that an MP4 lists beyond the file's end, in descending order."""
    lost: list[int] = []
    if container.format.name.startswith("mov,"):
        listed = stream.index_entries
        for place in range(len(listed) - 1, -1, -1):
            entry = listed[place]
            if entry.pos + entry.size <= container.size:
                break
            lost.append(entry.timestamp)
    return lost


def _held(notes: list[Note], lost: list[int]) -> tuple[tuple[int, ...], bool, int]:
    """(pts, one_each, missing) of a file that was cut off.

    No frame is shown before its decoding time. So the numbers of frames that are shown before the first decoding time
    of a lost frame are right. A lost one may be among the few frames after it, so these count as lost, too.
    """
    first_lost = lost[-1]
    whole = [note for note in notes if note.dts is not None and note.dts < first_lost]
    held = sorted(note.pts for note in whole if note.pts is not None and note.pts < first_lost)
    return tuple(held), bool(held), len(lost) + len(whole) - len(held)


def shows_frame(packet: Packet[VideoStream], codec: str) -> bool:
    """False for a VP8 or VP9 frame that only helps to predict others; see their bitstream specifications."""
    if codec not in MAY_HIDE:
        return True
    first, last = memoryview(packet)[0], memoryview(packet)[-1]
    if codec in VP8:
        return bool(first >> 4 & 1)
    if last & 0xE0 == 0xC0:  # a superframe shows its last frame
        return True
    shift = 0 if first >> 4 & 3 != 3 else 1  # profile 3 has one more header bit
    shown_again, shown = first >> 3 - shift & 1, first >> 1 - shift & 1
    return bool(shown_again or shown)


def begins_anew(packet: Packet[VideoStream], context: CodecContext) -> bool:
    """Whether nothing shown from this keyframe on refers to anything before it.

    Containers mark other frames as keyframes, too: in H.264, pictures at which decoding may start, but across which
    later pictures may refer (open GOP). HEVC forbids such references for pictures shown after the keyframe.
    """
    if context.name in MAY_HIDE | AV1:
        return True
    if context.name == "h264":
        slices = {unit[0] & 0x1F for unit in _units(packet, context) if unit[0] & 0x1F in H264_SLICES}
        return bool(slices) and slices <= H264_IDR
    if context.name == "hevc":
        slices = {unit[0] >> 1 & 0x3F for unit in _units(packet, context) if unit[0] >> 1 & 0x3F in HEVC_SLICES}
        return bool(slices) and slices <= HEVC_RANDOM_ACCESS
    return False


def is_disposable(packet: Packet[VideoStream], context: CodecContext) -> bool:
    """Whether no other frame refers to this packet's, so that the others are decoded the same without it.

    True only for codecs whose packets are marked so, and for which the tests prove it exact. In VP8, VP9 and AV1 a
    frame to which no other refers may still change the state by which later frames are decoded.
    """
    if context.name == "h264":
        return _is_disposable_h264([unit[0] for unit in _units(packet, context)])
    if context.name == "hevc":
        # With several temporal layers, a higher one may refer to a picture that is marked within its own layer.
        layers = int.from_bytes((context.extradata or b"")[21:22], "big") >> 3 & 7
        units = {unit[0] >> 1 & 0x3F for unit in _units(packet, context)}
        return layers == 1 and bool(units & HEVC_UNREFERENCED) and units <= HEVC_UNREFERENCED | HEVC_EXTRAS
    if context.name == "mpeg4":
        return _is_disposable_mpeg4(bytes(packet))
    return False


def _is_disposable_h264(units: list[int]) -> bool:
    """All slices are unreferenced (nal_ref_idc 0), and other units are extras only; no parameter sets."""
    slices = [unit for unit in units if unit & 0x1F in H264_SLICES]
    extras = {unit & 0x1F for unit in units} - H264_SLICES
    return bool(slices) and not any(unit & 0x60 for unit in slices) and extras <= H264_EXTRAS


def _is_disposable_mpeg4(data: bytes) -> bool:
    """One picture, of type B: two bits after its start code say the type."""
    at = data.find(MPEG4_PICTURE)
    alone = at >= 0 and data.find(MPEG4_PICTURE, at + 1) < 0
    return alone and len(data) > at + 4 and data[at + 4] >> 6 == MPEG4_B


def first_slice(packet: Packet[VideoStream], context: CodecContext) -> bytes | None:
    """The first bytes of the first slice of an H.264 or HEVC picture; None where no slice is found."""
    if context.name not in LENGTH_BYTE:
        return None
    for unit in _units(packet, context):
        kind, slices = (unit[0] & 0x1F, H264_SLICES) if context.name == "h264" else (unit[0] >> 1 & 0x3F, HEVC_SLICES)
        if kind in slices:
            return bytes(unit[:HEADER_BYTES])
    return None


def _units(packet: Packet[VideoStream], context: CodecContext) -> Iterator[memoryview]:
    """Each NAL unit, and what follows it. The decoder configuration says how the units' lengths are written."""
    config, length_byte = context.extradata or b"", LENGTH_BYTE[context.name]
    if len(config) <= length_byte or config[0] != 1:
        return  # the units have no lengths
    size = (config[length_byte] & 3) + 1
    data, at = memoryview(packet), 0
    while at + size < len(data):
        yield data[at + size :]
        at += size + int.from_bytes(data[at : at + size], "big")
