"""Where a file is cut into chunks, and what names them. Pure: bytes in, cuts and ids out.

FastCDC (Xia et al. 2020, as in fastcdc-rs and pyfastcdc: normalisation 1, seed 0) by class: the average is 16 KiB for
files below 8 MiB, 64 KiB below 4 GiB, 512 KiB above; the minimum is a quarter of the average, the maximum four times it. The
boundaries are part of format version 1, pinned by tests. Design section 4 has the measurements behind the sizes.

A file keeps its class while it grows or shrinks, until it is outgrown fourfold: otherwise a file that hovers around
8 MiB would be cut anew, and sent whole, every other night.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NewType

from blake3 import blake3
from pyfastcdc import FastCDC
from xxhash import xxh3_128, xxh3_128_digest

ChunkId = NewType("ChunkId", bytes)  # BLAKE3-256 of a chunk's plain bytes
Fingerprint = NewType("Fingerprint", bytes)  # XXH3-128 of a whole file, big-endian as `xxhsum -H2` prints it

AVERAGES = (16 << 10, 64 << 10, 512 << 10)  # class 0, 1, 2
LIMITS = (8 << 20, 4 << 30)  # a new file below the first is class 0, below the second class 1
MAX_CHUNK = 4 * AVERAGES[-1]
_WHOLE = 4 << 20  # files up to this size are read in one call
WINDOW = 4 << 20  # bytes looked at together; at least MAX_CHUNK


def chunk_class(size: int, before: int | None = None) -> int:
    """The class of a file of `size` bytes; `before` is the class that the path has had.

    >>> chunk_class(7 << 20), chunk_class(9 << 20), chunk_class(9 << 20, before=0), chunk_class(33 << 20, before=0)
    (0, 1, 0, 1)
    """
    fresh = sum(size >= limit for limit in LIMITS)
    if before is None or before == fresh or not 0 <= before < len(AVERAGES):
        return fresh
    if before < fresh:  # it grew
        return before if size < 4 * LIMITS[before] else fresh
    return before if size >= LIMITS[before - 1] // 4 else fresh


_CUTTERS = tuple(FastCDC(average) for average in AVERAGES)


def cut(data: bytes | memoryview, class_: int) -> Iterator[memoryview]:
    """The chunks of a whole file held in memory. An empty file has none; one below the minimum is one chunk."""
    if len(data) <= AVERAGES[class_] // 4:
        if data:
            yield memoryview(data)
        return
    for piece in _CUTTERS[class_].cut_buf(data):
        yield piece.data


def cut_stream(read: Callable[[int], bytes], class_: int) -> Iterator[bytes]:
    """The same chunks for a file of any size, `read(n)` giving its next at most n bytes, b"" at its end.

    A cut depends on at most the maximum chunk size behind the previous one, so a window that still holds that much, or the
    file's end, cuts as the whole file would. Memory: one WINDOW and one chunk.
    """
    largest = 4 * AVERAGES[class_]
    window = b""
    ended = False
    while not ended:
        parts = [window]
        have = len(window)
        while have < WINDOW + largest:
            piece = read(WINDOW)
            if not piece:
                ended = True
                break
            parts.append(piece)
            have += len(piece)
        window = b"".join(parts)
        done = 0
        if window:
            for chunk in cut(window, class_):
                if not ended and have - done < largest:
                    break
                done += len(chunk)
                yield bytes(chunk)
        window = window[done:]


def chunk_id(data: bytes | memoryview, key: bytes | None = None) -> ChunkId:
    """BLAKE3-256 of a chunk's plain bytes; keyed (32 bytes) where mirror.json says `blake3-keyed`."""
    return ChunkId(blake3(data).digest() if key is None else blake3(data, key=key).digest())


def identify(
    read: Callable[[int], bytes], expected: int, class_: int, take: Callable[[ChunkId, bytes | memoryview], None]
) -> tuple[int, Fingerprint, bytes]:
    """(bytes read, fingerprint, joined chunk ids) of an open file of `expected` bytes, `read(n)` giving its next at most n
    bytes; each chunk is handed to `take`. OSError as `read` raises it."""
    ids: list[bytes] = []
    head = b""
    if expected <= _WHOLE:
        head = read(expected)
        if len(head) == expected:
            for piece in cut(head, class_):
                id_ = chunk_id(piece)
                ids.append(id_)
                take(id_, piece)
            return len(head), Fingerprint(xxh3_128_digest(head)), b"".join(ids)
    # Large, cut short, or a stream that gives less than was asked for. Never past the size it had: a log that grows while it is
    # read has no end.
    whole = xxh3_128()
    size = 0

    def rest(count: int) -> bytes:
        nonlocal head, size
        data, head = (head, b"") if head else (read(min(count, expected - size)), b"")
        whole.update(data)
        size += len(data)
        return data

    for chunk in cut_stream(rest, class_):
        id_ = chunk_id(chunk)
        ids.append(id_)
        take(id_, chunk)
    return size, Fingerprint(whole.digest()), b"".join(ids)
