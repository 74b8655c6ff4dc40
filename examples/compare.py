#!/usr/bin/env python3
"""Are two trees the same? `compare.py A B` prints each difference and exits 1 if there is any.

Knows nothing of `mirror`, on purpose: it is the second opinion of the quickstart. Compares names as bytes, kinds, content,
permission bits, owners, times to the nanosecond, link targets, and which names are hard links of one file.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterator

BLOCK = 1 << 20


def walk(top: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """(path below top, its own status) of everything, the top itself included; links are not followed."""
    yield b".", os.lstat(top)
    for folder, folders, files in os.walk(top, onerror=_raise):
        for name in folders + files:
            path = os.path.join(folder, name)
            yield os.path.relpath(path, top), os.lstat(path)


def _raise(error: OSError) -> None:
    raise error


def same_content(a: bytes, b: bytes) -> bool:
    """Whether two files hold the same bytes."""
    with open(a, "rb") as one, open(b, "rb") as two:
        while block := one.read(BLOCK):
            if block != two.read(BLOCK):
                return False
        return not two.read(1)


def differences(a: bytes, b: bytes) -> Iterator[str]:
    """One line for each thing in which the trees differ."""
    left, right = dict(walk(a)), dict(walk(b))
    groups: dict[tuple[int, int, int], bytes] = {}  # hard links: (side, device, inode) → first path
    for path in sorted(left.keys() | right.keys()):
        name = path.decode("utf-8", "backslashreplace")
        if path not in left or path not in right:
            yield f"{name}: only in {os.fsdecode(a if path in left else b)}"
            continue
        one, two = left[path], right[path]
        if stat.S_IFMT(one.st_mode) != stat.S_IFMT(two.st_mode):
            yield f"{name}: of another kind"
            continue
        for what, x, y in (
            ("mode", oct(one.st_mode), oct(two.st_mode)),
            ("owner", (one.st_uid, one.st_gid), (two.st_uid, two.st_gid)),
            ("time", one.st_mtime_ns, two.st_mtime_ns),
        ):
            if x != y:
                yield f"{name}: {what} {x}, {y}"
        here, there = os.path.join(a, path), os.path.join(b, path)
        if stat.S_ISLNK(one.st_mode):
            if os.readlink(here) != os.readlink(there):
                yield f"{name}: points elsewhere"
        elif stat.S_ISREG(one.st_mode):
            if groups.setdefault((0, one.st_dev, one.st_ino), path) != groups.setdefault((1, two.st_dev, two.st_ino), path):
                yield f"{name}: hard links differ"
            if one.st_size != two.st_size or not same_content(here, there):
                yield f"{name}: other content"


def main() -> int:
    """The command."""
    if len(sys.argv) != 3:
        print("usage: compare.py A B", file=sys.stderr)
        return 2
    a, b = map(os.fsencode, sys.argv[1:])
    found = 0
    for line in differences(a, b):
        print(line)
        found += 1
    paths = sum(1 for _ in walk(a))
    print(f"{found} differences" if found else f"identical: {paths} paths, content, modes, owners, times and links")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
