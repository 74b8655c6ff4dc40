"""How a big object is put together: which parts are sent, which the service copies from the version that is there. Pure.

The rules are S3's: at most 10,000 parts, each of at least 5 MiB but for the last one, copied ones from any offset. So a stretch
that changed and is shorter than 5 MiB takes along some of the unchanged bytes behind it.

    >>> MiB = 1 << 20
    >>> parts_of(100 * MiB + 1, [Unchanged(1, 0, 100 * MiB)])
    [Sent(at=0, length=5242880), Unchanged(at=5242880, old=5242879, length=99614721)]
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from mirror.site import Unchanged

PART_LEAST: Final = 5 << 20
PARTS_MOST: Final = 10_000
PART_BYTES: Final = 16 << 20  # of a sent part, as long as 10,000 of them are enough
COPY_MOST: Final = (
    1 << 30
)  # S3 takes 5 GiB, but answers when it is done, and nobody waits for that long; several at once are faster


class Sent(NamedTuple):
    """A part whose bytes are sent: `length` of them from offset `at` of the new content."""

    at: int
    length: int


def part_bytes(size: int) -> int:
    """How long the parts of an object of `size` bytes are, when all of it is sent."""
    return max(PART_BYTES, -(-size // PARTS_MOST))


def parts_of(size: int, unchanged: Iterable[Unchanged]) -> list[Sent | Unchanged]:
    """The parts of an object of `size` bytes, in order, without gaps. Runs that are too short to be copied are sent. ValueError for
    runs that overlap or lie outside."""
    runs = _joined(size, unchanged)
    least = PART_LEAST
    while True:
        parts = list(_cut(size, (run for run in runs if run.length >= least)))
        if len(parts) <= PARTS_MOST:
            return parts
        least *= 2  # longer runs only: fewer, and longer stretches between them


def _joined(size: int, unchanged: Iterable[Unchanged]) -> list[Unchanged]:
    joined: list[Unchanged] = []
    end = 0
    for run in sorted(unchanged):
        if run.length <= 0 or run.at < end or run.old < 0 or run.at + run.length > size:
            raise ValueError(f"unchanged runs overlap or lie outside: {run}")
        end = run.at + run.length
        last = joined[-1] if joined else None
        if last and last.at + last.length == run.at and last.old + last.length == run.old:
            joined[-1] = last._replace(length=last.length + run.length)
        else:
            joined.append(run)
    return joined


def _cut(size: int, runs: Iterable[Unchanged]) -> Iterator[Sent | Unchanged]:
    at = 0  # where the stretch that must be sent begins
    for run in runs:
        start = run.at if run.at == at else max(run.at, at + PART_LEAST)  # sent: none, or at least 5 MiB
        taken = start - run.at
        if run.length - taken < PART_LEAST:
            continue  # what is left of it is too short, and is sent
        yield from _sent(at, start - at, size)
        for low, length in _pieces(run.length - taken, COPY_MOST):
            yield Unchanged(start + low, run.old + taken + low, length)
        at = run.at + run.length
    yield from _sent(at, size - at, size)


def _sent(at: int, length: int, size: int) -> Iterator[Sent]:
    if length:
        yield from (Sent(at + low, piece) for low, piece in _pieces(length, part_bytes(size)))


def _pieces(length: int, most: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of even pieces: none is shorter than half of `most`, which is far above the least."""
    count = -(-length // most)
    for number in range(count):
        low, high = length * number // count, length * (number + 1) // count
        yield low, high - low


def checked(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The chunks; OSError when they are not `size` bytes."""
    have = 0
    for chunk in chunks:
        have += len(chunk)
        if have > size:
            break
        yield chunk
    if have != size:
        raise OSError(errno.EIO, f"its content is {'longer' if have > size else 'shorter'} than the {size:,} bytes that were said")


def in_parts(chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
    """The chunks put together as parts."""
    length, held, have = part_bytes(size), [], 0
    for chunk in checked(chunks, size):
        rest = memoryview(chunk)
        while rest:
            some = rest[: length - have]
            held.append(some)
            have += len(some)
            rest = rest[len(some) :]
            if have == length:
                yield b"".join(held)
                held, have = [], 0
    if have:
        yield b"".join(held)
