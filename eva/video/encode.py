"""Pixels -> a picture file without loss."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

# height x width x 3
Rgb = NDArray[np.uint8]


def encode(rgb: Rgb, picture_format: str) -> bytes:
    """An RGB picture as the bytes of a file in one of choices.FORMATS."""
    _, data = cv2.imencode(f".{picture_format}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return data.tobytes()
