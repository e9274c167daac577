"""A frame tool of someone else: it knows the protocol's arguments and its one line, and writes PPM files, no more."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

SIDE = 56


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("video_path", "start_time", "end_time", "nframes", "resize", "factor", "save-root"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--clamp", action="store_true")
    args = parser.parse_args()
    count = int(args.nframes)
    Path(args.save_root).mkdir(parents=True, exist_ok=True)
    folder = tempfile.mkdtemp(dir=args.save_root)
    for number in range(count):
        grey = bytes([number]) * (3 * SIDE * SIDE)
        Path(folder, f"frame_{number:04d}.ppm").write_bytes(b"P6 %d %d 255\n" % (SIDE, SIDE) + grey)
    print(
        f"Frames saved to {folder}, total frames saved: {count}, "
        f"from {folder}/frame_0000.ppm to {folder}/frame_{count - 1:04d}.ppm"
    )


if __name__ == "__main__":
    main()
