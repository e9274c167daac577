#!/usr/bin/env python3
"""The same call by torchcodec, where it is installed: exact frames, OpenCV, PNG files in a folder."""

from __future__ import annotations

import baseline_tool
import numpy as np
from numpy.typing import NDArray
from torchcodec.decoders import VideoDecoder


class Reader:
    """torchcodec, with those methods of decord that the baseline calls."""

    def __init__(self, path: str) -> None:
        self._decoder = VideoDecoder(path, dimension_order="NHWC")

    def get_avg_fps(self) -> float:
        return float(self._decoder.metadata.average_fps)

    def __len__(self) -> int:
        return len(self._decoder)

    def get_batch(self, indices: list[int]) -> Batch:
        return Batch(self._decoder.get_frames_at(indices).data.numpy())


class Batch:
    def __init__(self, frames: NDArray[np.uint8]) -> None:
        self._frames = frames

    def asnumpy(self) -> NDArray[np.uint8]:
        return self._frames


if __name__ == "__main__":
    baseline_tool.main(Reader)
