"""Chunks out of live files: what packs have not of a file that is put together from both.

A donor is a live file and the class by which it was cut when somebody looked. It is cut again, so a chunk is found wherever it is
now; and it is proved when it is taken, since a live file may change at any moment.

    found = located(site, donors, {id_, ...})
    for piece in taken(site, found, [(id_, at), ...]): ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from mirror.chunking import ChunkId, chunk_id, identify
from mirror.errors import NotFound
from mirror.site.ahead import Opener


class Donor(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A live file, and the class of its chunks."""

    path: bytes
    class_: int


class Stretch(NamedTuple):
    """Where a chunk is: the live file, its offset and its length there."""

    path: bytes
    at: int
    length: int


class Taken(NamedTuple):
    """A chunk for offset `at` of the file that is put together; data: None where it is there no more."""

    at: int
    data: bytes | None


def located(live: Opener, donors: Iterable[Donor], wanted: set[ChunkId]) -> dict[ChunkId, Stretch]:
    """Where those of the wanted chunks are that the donors have now."""
    found: dict[ChunkId, Stretch] = {}
    for donor in donors:
        if len(found) == len(wanted):
            break
        at = 0

        def take(id_: ChunkId, data: bytes | memoryview, path: bytes = donor.path) -> None:
            nonlocal at
            if id_ in wanted and id_ not in found:
                found[id_] = Stretch(path, at, len(data))
            at += len(data)

        try:
            content = live.open(donor.path)
        except (NotFound, OSError):
            continue
        with content.stream:
            try:
                identify(content.stream.read, content.size, donor.class_, take)
            except OSError:
                continue
    return found


def taken(live: Opener, found: dict[ChunkId, Stretch], asked: Iterable[tuple[ChunkId, int]]) -> Iterator[Taken]:
    """The chunks that were located, for these offsets, each proved; donor by donor."""
    by_path: dict[bytes, list[tuple[ChunkId, int]]] = {}
    for id_, at in asked:
        by_path.setdefault(found[id_].path, []).append((id_, at))
    for path, some in by_path.items():
        try:
            content = live.open(path)
        except (NotFound, OSError):
            yield from (Taken(at, None) for _, at in some)
            continue
        with content.stream as stream:
            for id_, at in some:
                try:
                    stream.seek(found[id_].at)
                    data = stream.read(found[id_].length)
                except OSError:
                    data = b""
                yield Taken(at, data if chunk_id(data) == id_ else None)
