"""A file system that does not answer, as a network disk whose server is gone: `python stuck_disk.py FOLDER WHAT`.

Mounts FOLDER (Linux, root) with one file, clip.mp4; prints `mounted`, then `stuck` whenever a question of the kind WHAT
("root": about the folder, "stat": about the file, "read": for its content) is left without an answer for ever. Whoever
asked cannot even be killed, until this process ends.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys

NAME = b"clip.mp4"
SIZE = 1_000_000
LOOKUP, FORGET, GETATTR, OPEN, READ, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 15, 26, 36, 42
ENOENT, ENOSYS = 2, 38
MOUNT_FLAGS = 2 | 4  # nosuid, nodev
DETACH = 2
LIBC = ctypes.CDLL(None, use_errno=True)


def mount(device: int, folder: str) -> None:
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    if LIBC.mount(b"stuck", os.fsencode(folder), b"fuse", MOUNT_FLAGS, options):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), folder)


def unmount(folder: str) -> None:
    LIBC.umount2(os.fsencode(folder), DETACH)


def attributes(node: int) -> bytes:
    mode = 0o40755 if node == 1 else 0o100644
    return struct.pack("<6Q10I", node, SIZE, 0, 1, 1, 1, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(code: int, node: int, body: bytes) -> bytes | int | None:
    """The reply's body, an error, or None: no reply is due."""
    if code in (FORGET, BATCH_FORGET, INTERRUPT):
        return None
    if code == INIT:
        return struct.pack("<4I2H2I2H8I", 7, 31, 0, 0, 0, 0, 4096, 1, *[0] * 10)
    if code == GETATTR:
        return struct.pack("<Q2I", 0, 0, 0) + attributes(node)
    if code == LOOKUP:
        found = body.rstrip(b"\0") == NAME
        return struct.pack("<4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2) if found else ENOENT
    return struct.pack("<Q2I", 1, 0, 0) if code == OPEN else ENOSYS


def is_stuck(what: str, code: int, node: int) -> bool:
    about_file = code == LOOKUP or (code == GETATTR and node != 1)
    return {"root": code == GETATTR and node == 1, "stat": about_file, "read": code == READ}[what]


def main() -> None:
    folder, what = sys.argv[1:]
    device = os.open("/dev/fuse", os.O_RDWR)
    mount(device, folder)
    print("mounted", flush=True)
    while True:
        request = os.read(device, 2**20)
        _, code, unique, node = struct.unpack("<2I2Q", request[:24])
        if is_stuck(what, code, node):
            print("stuck", flush=True)
            continue
        reply = answer(code, node, request[40:])
        if reply is not None:
            body, error = (b"", -reply) if isinstance(reply, int) else (reply, 0)
            os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


if __name__ == "__main__":
    main()
