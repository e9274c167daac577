"""What the packets of a video say without decoding: which frames there are, and where decoding may start."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import av
import numpy as np
from av.codec.context import CodecContext
from av.container import InputContainer
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from eva.errors import ReadError
from eva.video.gaps import HEADER_BYTES, VP8, Integers
from eva.video.timeline import Timeline

# In these two containers, seeking leads to the right packet. In MPEG-TS it leads to a later one; the times of AVI and
# FLV are not exact. There, decoding starts at the file's start.
SEEKABLE = {"mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"}
VP9 = {"vp9", "libvpx-vp9"}
MAY_HIDE = VP8 | VP9  # frames
AV1 = {"av1", "libdav1d"}
BY_TIME_CODECS = {"av1", "vp9"}
MPEG_TS = "mpegts"
BY_TIME_FORMATS = {"gif", "ivf"}
# decord takes the bytes of a row of RGB, which are padded to a multiple of 32, for width x channels.
PADDED_WIDTH = 32
RGB_CHANNELS = 3
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
NO_TIME = -(2**63)


@dataclass(frozen=True)
class EntryPoint:
    """A keyframe. Decoding from it gives the same frames, from this one on, as decoding from the file's start."""

    index: int  # of the keyframe among all frames, in presentation order
    pts: int
    seek_to: int  # the time by which the container finds it


@dataclass(frozen=True)
class Survey:
    """The frames that the packets promise."""

    pts: Integers  # presentation times in ascending order
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
    pts: array[int] | None
    entries: tuple[EntryPoint, ...]
    gap: bool


@dataclass(frozen=True)
class Notes:
    """What must be known of the packets that show a frame, in file order. A time may be NO_TIME."""

    pts: Integers
    dts: Integers
    entries: NDArray[np.bool_]
    shown_to: int  # the end of the last frame, by its own duration


class NoteTaker:
    """Takes notes of packets, in arrays: an object for each would take more time and memory than reading them."""

    def __init__(self, context: CodecContext) -> None:
        self._context, self._codec = context, context.name
        self._pts, self._dts, self._entries = array("q"), array("q"), array("b")
        self._shown_to: int | None = None

    def note(self, packet: Packet[VideoStream]) -> None:
        """Take a packet into account, unless it shows no frame, because it is hidden or an edit list cuts it off."""
        if packet.is_discard or not shows_frame(packet, self._codec):
            return
        pts, dts = packet.pts, packet.dts
        self._pts.append(NO_TIME if pts is None else pts)
        self._dts.append(NO_TIME if dts is None else dts)
        self._entries.append(packet.is_keyframe and begins_anew(memoryview(packet), self._context))
        if pts is not None:
            end = pts + (packet.duration or 0)
            self._shown_to = end if self._shown_to is None else max(self._shown_to, end)

    def notes(self) -> Notes:
        """The notes so far."""
        pts, dts = (np.array(column, np.int64) for column in (self._pts, self._dts))
        return Notes(pts, dts, np.array(self._entries, np.bool_), self._shown_to or 0)


def is_chosen_by_time(container: InputContainer, stream: VideoStream, width: int) -> bool:
    """Whether decord cannot use such a video, so that the reference's second decoder chooses its frames by time.

    `width` is that of the picture as it is shown. decord 0.6.0 has no decoder for AV1. It opens VP9, but once all its
    threads have work, it fails on the first packet with a hidden frame: in all but short videos and live recordings.
    That depends on the number of processors, which cannot be a rule, so all VP9 counts. decord also refuses a file that
    neither lists its frames nor says an average rate and a length of at least one frame: streamed files, Theora in Ogg,
    APNG, and GIF and IVF, of which only a newer FFmpeg finds that out. And it fails on the rows of some narrow
    pictures, and where no frame has a time.
    """
    codec = stream.codec_context.codec.canonical_name
    if codec in BY_TIME_CODECS or container.format.name in BY_TIME_FORMATS or is_undated(container, stream):
        return True
    return not _says_length(container, stream) or _misreads_rows(width)


def is_undated(container: InputContainer, stream: VideoStream) -> bool:
    """Whether no packet has a presentation time. A newer FFmpeg makes times up, which are not in order."""
    return container.format.name == "avi" and stream.codec_context.codec.canonical_name == "h264"


def _says_length(container: InputContainer, stream: VideoStream) -> bool:
    """Whether decord finds out how many frames there are."""
    if container.format.name == MPEG_TS:  # an older FFmpeg knows the rate of MPEG-1 there
        return True
    rate = stream.average_rate or 0
    return stream.frames > 0 or float(rate) * (container.duration or 0) / av.time_base >= 1


def _misreads_rows(width: int) -> bool:
    """Whether decord reads another number of channels than three out of the length of a row."""
    row = -(-width // PADDED_WIDTH) * PADDED_WIDTH * RGB_CHANNELS
    return row % width == 0 and row // width != RGB_CHANNELS


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The stream's packets; they end where the file is cut off, or where FFmpeg cannot read on in it. Raises ReadError
    where it is not the file that is at fault."""
    try:
        for packet in container.demux(stream):
            if packet.size:
                yield packet
    except MemoryError as error:
        raise ReadError("this machine has no memory for the packets of a video") from error
    except FFmpegError:
        return


def make_survey(notes: Notes, container: InputContainer, stream: VideoStream, *, gap: bool) -> Survey:
    """The survey from the notes of all packets that show a frame. `gap`: their numbers say that packets are missing."""
    pts = np.sort(notes.pts[notes.pts != NO_TIME])
    one_each = len(pts) == len(notes.pts) > 0 and bool(np.all(pts[1:] > pts[:-1]))
    if not one_each:
        return Survey(pts, False, 0, (), notes.shown_to, gap)
    lost = _lost_dts(container, stream)
    if lost:
        return Survey(*_held(notes, lost), entries=(), shown_to=notes.shown_to, gap=gap)
    return Survey(pts, True, 0, () if gap else tuple(_entries(notes, pts, container)), notes.shown_to, gap)


def _entries(notes: Notes, pts: Integers, container: InputContainer) -> Iterator[EntryPoint]:
    if container.format.name not in SEEKABLE:
        return
    # MP4 lists decoding times, Matroska presentation times.
    seek_to = notes.dts if container.format.name.startswith("mov,") else notes.pts
    places = np.flatnonzero(notes.entries & (seek_to != NO_TIME))
    indices = np.searchsorted(pts, notes.pts[places])
    for row in zip(indices.tolist(), notes.pts[places].tolist(), seek_to[places].tolist(), strict=True):
        yield EntryPoint(*row)


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


def _held(notes: Notes, lost: list[int]) -> tuple[Integers, bool, int]:
    """(pts, one_each, missing) of a file that was cut off.

    No frame is shown before its decoding time. So the numbers of frames that are shown before the first decoding time
    of a lost frame are right. A lost one may be among the few frames after it, so these count as lost, too.
    """
    first_lost = lost[-1]
    whole = (notes.dts != NO_TIME) & (notes.dts < first_lost)
    held = np.sort(notes.pts[whole & (notes.pts < first_lost)])
    return held, len(held) > 0, len(lost) + int(whole.sum()) - len(held)


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


def begins_anew(packet: memoryview, context: CodecContext) -> bool:
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
        return _is_disposable_h264([unit[0] for unit in _units(memoryview(packet), context)])
    if context.name == "hevc":
        # With several temporal layers, a higher one may refer to a picture that is marked within its own layer.
        layers = int.from_bytes((context.extradata or b"")[21:22], "big") >> 3 & 7
        units = {unit[0] >> 1 & 0x3F for unit in _units(memoryview(packet), context)}
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
    for unit in _units(memoryview(packet), context):
        kind, slices = (unit[0] & 0x1F, H264_SLICES) if context.name == "h264" else (unit[0] >> 1 & 0x3F, HEVC_SLICES)
        if kind in slices:
            return bytes(unit[:HEADER_BYTES])
    return None


def length_size(context: CodecContext) -> int:
    """In how many bytes the lengths of NAL units are written, as the decoder configuration says it; 0: not at all."""
    config, length_byte = context.extradata or b"", LENGTH_BYTE[context.name]
    return (config[length_byte] & 3) + 1 if len(config) > length_byte and config[0] == 1 else 0


def is_whole(data: memoryview, context: CodecContext) -> bool:
    """Whether the lengths of the NAL units add up to the length of the packet."""
    size, at = length_size(context), 0
    while at + size < len(data):
        at += size + int.from_bytes(data[at : at + size], "big")
    return at == len(data)


def _units(data: memoryview, context: CodecContext) -> Iterator[memoryview]:
    """Each NAL unit, and what follows it."""
    size, at = length_size(context), 0
    while size and at + size < len(data):
        yield data[at + size :]
        at += size + int.from_bytes(data[at : at + size], "big")
