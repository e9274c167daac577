"""Whether frames are missing between the packets of a video: H.264 and HEVC number their frames.

A decoder that misses a frame fills in other pixels. They depend on what else was decoded, and on the number of threads,
so such a video is decoded in one way only.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from av.codec.context import CodecContext
from numpy.typing import NDArray

VP8 = {"vp8", "libvpx"}
# The profiles whose parameter sets say more about colours.
H264_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
HEVC_SPS, HEVC_PPS = 33, 34
HEVC_IRAP = range(16, 24)
HEVC_BEGINS_ANEW = range(16, 21)  # counts from 0 again
HEVC_IDR = (19, 20)
HEVC_LEADING = range(6, 10)
# The part of a NAL unit that holds its numbers.
HEADER_BYTES = 64
# The part of an H.264 slice that nearly always suffices for its frame_num: its type, and eight bytes.
WINDOW_BYTES = 9
NOTED_AT_ONCE = 4096
MAX_FRAME_NUM_BITS = 16

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int64]


class Bits:
    """The bits of a NAL unit from the byte `start` on, read number by number. Raises ValueError after its end."""

    def __init__(self, unit: bytes, *, start: int) -> None:
        payload = unit.replace(b"\0\0\3", b"\0\0")[start:]
        self._value, self._left = int.from_bytes(payload, "big"), 8 * len(payload)

    def read(self, count: int) -> int:
        """An unsigned number of `count` bits."""
        self._left -= count
        if self._left < 0:
            raise ValueError("the NAL unit ends too early")
        return self._value >> self._left & ((1 << count) - 1)

    def golomb(self) -> int:
        """An unsigned Exp-Golomb number."""
        zeros = 0
        while not self.read(1):
            zeros += 1
        return (1 << zeros) - 1 + self.read(zeros)

    def skip_golombs(self, count: int) -> None:
        for _ in range(count):
            self.golomb()


@dataclass
class H264Numbers:
    """frame_num grows by one from one reference frame to the next."""

    frame_num_bits: int
    plane_bits: int
    _last: int | None = None  # of the last reference frame
    _gap: bool = False
    _waiting: list[bytes] = field(default_factory=list)

    @property
    def gap(self) -> bool:
        self._note_waiting()
        return self._gap

    def note(self, unit: bytes) -> None:
        """Take the first slice of a picture into account."""
        self._waiting.append(unit)
        if len(self._waiting) == NOTED_AT_ONCE:
            self._note_waiting()

    def _note_waiting(self) -> None:
        units, self._waiting = self._waiting, []
        if units:
            heads = b"".join(unit[:WINDOW_BYTES].ljust(WINDOW_BYTES, b"\0") for unit in units)
            lengths = np.array([len(unit) for unit in units])
            self.note_all(np.frombuffer(heads, np.uint8).reshape(-1, WINDOW_BYTES), lengths, units.__getitem__)

    def note_all(self, heads: Bytes, lengths: Integers, unit_at: Callable[[int], bytes]) -> None:
        """Take the first slices of many pictures into account: the first WINDOW_BYTES of each, their lengths, and what
        gives the HEADER_BYTES of one."""
        numbers, known = self._read_all(heads, lengths)
        for place in np.flatnonzero(~known).tolist():
            try:
                numbers[place] = self._read(unit_at(place))
            except ValueError:  # it ends too early
                self._gap = True
        self._follow(heads[:, 0], numbers)

    def _read(self, unit: bytes) -> int:
        bits = Bits(unit, start=1)
        bits.skip_golombs(3)
        bits.read(self.plane_bits)
        return bits.read(self.frame_num_bits)

    def _read_all(self, heads: Bytes, lengths: Integers) -> tuple[Integers, NDArray[np.bool_]]:
        """What `_read` gives for each, and where it is known: where no byte is escaped, and the window is enough."""
        escaped = ((heads[:, 1:-2] | heads[:, 2:-1]) == 0) & (heads[:, 3:] == 3)
        known = (lengths >= WINDOW_BYTES) & ~escaped.any(axis=1)
        value = np.ascontiguousarray(heads[:, 1:]).view(">u8").ravel().astype(np.uint64)
        used = np.full(len(value), self.plane_bits + self.frame_num_bits)
        for _ in range(3):  # a Golomb number has as many bits after its first 1 as it has zeros before it
            length = np.frexp((value >> np.uint64(32)).astype(np.float64))[1]
            bits = 2 * (32 - length) + 1
            used += bits
            value <<= np.minimum(bits, 63).astype(np.uint64)
        known &= used <= 64
        value <<= np.uint64(self.plane_bits)
        return (value >> np.uint64(64 - self.frame_num_bits)).astype(np.int64), known

    def _follow(self, kinds: NDArray[np.uint8], numbers: Integers) -> None:
        """Compare each number with that of the last reference frame before it."""
        first = 0 if self._last is None else self._last
        refers = np.concatenate(([self._last is not None], kinds & 0x60 != 0))
        numbers = np.concatenate(([first], numbers))
        place = np.maximum.accumulate(np.where(refers, np.arange(len(refers)), -1))
        steps = (numbers[1:] - numbers[place[:-1]]) & ((1 << self.frame_num_bits) - 1)
        self._gap |= bool(np.any((steps > 1) & (kinds & 0x1F != 5) & (place[:-1] >= 0)))
        self._last = int(numbers[place[-1]]) if place[-1] >= 0 else None


@dataclass
class HevcNumbers:
    """Between two pictures at which counting starts anew, the order counts of all pictures are evenly spaced."""

    order_bits: int
    extra_bits: int
    output_bits: int
    _near: int = 0  # the order count that completes the next one
    _orders: list[int] = field(default_factory=list)
    _closed_gap: bool = False

    @property
    def gap(self) -> bool:
        return self._closed_gap or not _evenly_spaced(self._orders)

    def note(self, unit: bytes) -> None:
        """Take the first slice of a picture into account."""
        kind, layer = unit[0] >> 1 & 0x3F, unit[1] & 7
        if kind in HEVC_BEGINS_ANEW:
            self._closed_gap, self._orders, self._near = self.gap, [], 0
        order = 0 if kind in HEVC_IDR else self._complete(self._low_bits(unit, kind))
        self._orders.append(order)
        if layer == 1 and kind not in HEVC_LEADING and (kind > 15 or kind % 2):
            self._near = order

    def _low_bits(self, unit: bytes, kind: int) -> int:
        bits = Bits(unit, start=2)
        bits.read(2 if kind in HEVC_IRAP else 1)
        bits.golomb()
        bits.read(self.extra_bits)
        bits.golomb()
        bits.read(self.output_bits)
        return bits.read(self.order_bits)

    def _complete(self, low: int) -> int:
        span = 1 << self.order_bits
        return self._near + (low - self._near + span // 2) % span - span // 2


Numbers = H264Numbers | HevcNumbers


class GapFinder:
    """Follows the numbers of a stream's pictures in file order; where they have no numbers, their times."""

    def __init__(self, context: CodecContext) -> None:
        self._numbers = numbers_of(context)
        self._unreadable = False
        # These codecs have no numbers. The pixels of damaged VP8 depend on the number of threads, and a decoder of
        # MPEG-4 leaves out frames after the damage.
        self._by_times = context.name in VP8 | {"mpeg4"}
        self._pts = array("q")

    def note(self, first_slice: bytes | None, pts: int | None) -> None:
        """Take the next picture into account."""
        if self._by_times and pts is not None:
            self._pts.append(pts)
        try:
            if self._numbers is not None and first_slice is not None:
                self._numbers.note(first_slice)
        except (ValueError, LookupError):
            self._unreadable = True

    @property
    def found(self) -> bool:
        numbered = self._numbers is not None and self._numbers.gap
        return self._unreadable or numbered or _is_uneven(np.sort(np.array(self._pts, np.int64)))


def numbers_of(context: CodecContext) -> Numbers | None:
    """What follows the numbers of this stream's pictures; None where they have no numbers that can be read."""
    config = context.extradata or b""
    readers: dict[str, Callable[[bytes], Numbers]] = {"h264": _h264_numbers, "hevc": _hevc_numbers}
    if context.name not in readers or not config or config[0] != 1:
        return None
    try:
        return readers[context.name](config)
    except (ValueError, LookupError):
        return None


def _h264_numbers(config: bytes) -> H264Numbers:
    bits = Bits(config[8 : 8 + int.from_bytes(config[6:8], "big")], start=1)
    profile, _ = bits.read(8), bits.read(16)
    bits.golomb()
    planes = profile in H264_HIGH_PROFILES and _read_colours(bits)
    frame_num_bits = bits.golomb() + 4
    if frame_num_bits > MAX_FRAME_NUM_BITS:
        raise ValueError("the sequence parameter set is damaged")
    return H264Numbers(frame_num_bits, plane_bits=2 if planes else 0)


def _read_colours(bits: Bits) -> bool:
    """Whether the colour planes are coded separately."""
    chroma = bits.golomb()
    planes = chroma == 3 and bits.read(1) == 1
    bits.skip_golombs(2)
    bits.read(1)
    if bits.read(1):
        for place in range(12 if chroma == 3 else 8):
            if bits.read(1):
                _skip_scaling_list(bits, 16 if place < 6 else 64)
    return planes


def _skip_scaling_list(bits: Bits, size: int) -> None:
    scale = 8
    for _ in range(size):
        number = bits.golomb()
        scale = (scale + (number + 1 >> 1 if number % 2 else -(number >> 1))) % 256
        if scale == 0:
            return


def _hevc_numbers(config: bytes) -> HevcNumbers:
    units = dict(_parameter_sets(config))
    sps, pps = Bits(units[HEVC_SPS], start=2), Bits(units[HEVC_PPS], start=2)
    pps.skip_golombs(2)
    pps.read(1)
    output_bits, extra_bits = pps.read(1), pps.read(3)
    return HevcNumbers(_order_bits(sps), extra_bits, output_bits)


def _parameter_sets(config: bytes) -> Iterator[tuple[int, bytes]]:
    at = 23
    for _ in range(config[22]):
        kind, count, at = config[at] & 0x3F, int.from_bytes(config[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            end = at + 2 + int.from_bytes(config[at : at + 2], "big")
            yield kind, config[at + 2 : end]
            at = end


def _order_bits(sps: Bits) -> int:
    sps.read(4)
    layers = sps.read(3)
    sps.read(1 + 96)
    present = [(sps.read(1), sps.read(1)) for _ in range(8 if layers else 0)][:layers]
    for profile, level in present:
        sps.read(88 * profile + 8 * level)
    sps.golomb()
    if sps.golomb() == 3 and sps.read(1):
        raise ValueError("separate colour planes are not supported")
    sps.skip_golombs(2)
    if sps.read(1):
        sps.skip_golombs(4)
    sps.skip_golombs(2)
    return sps.golomb() + 4


def _evenly_spaced(numbers: list[int]) -> bool:
    return len({later - number for number, later in pairwise(sorted(numbers))}) < 2


def _is_uneven(pts: Integers) -> bool:
    """Whether a frame is shown for far longer than usual, as where packets are missing."""
    steps = np.sort(np.diff(pts))
    return len(steps) > 0 and bool(steps[-1] > 1.5 * steps[(len(steps) - 1) // 2] + 1)
