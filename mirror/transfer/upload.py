"""From a site to live objects: one file each, in any thread. What is sent is what was read before, or nothing.

A publish into a bucket stages nothing, so a file is read a second time when it is sent. Its fingerprint says whether it still is
what the manifest says; if not, nothing becomes visible (`NotThere`).

A large object of which some stays as it is is put together by the service (`CopyingSite.put_changed`). The manifest has the ids of
its chunks but not their lengths. Those of chunks that the new content has as well are known from reading it, those in packs from
the index; from both ends of the file on, that gives offsets, up to the first chunk that nobody knows. What lies between two such
is sent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import xxhash

from mirror.chunking import ChunkId, identify
from mirror.errors import NotFound
from mirror.manifest import File
from mirror.site import Content, CopyingSite, Lost, Site, Unchanged, Written
from mirror.site.writing import Description
from mirror.transfer import runs

_READ: Final = 4 << 20
_UNKNOWN: Final = ChunkId(bytes(32))  # in place of chunks whose lengths nobody knows


class NotThere(Exception):
    """The site does not have the content any more that was read. kind: of problem; why: a phrase; tag: of what is replaced."""

    def __init__(self, kind: str, why: str, tag: str = "") -> None:
        super().__init__(why)
        self.kind, self.why, self.tag = kind, why, tag


def send(site: Site, out: CopyingSite, entry: File, what: Description, expected: str | None) -> Written | Lost:
    """Put an entry's content, from the file of the same path. NotThere; OSError and MirrorError as `put` raises them."""
    content = _open(site, entry)
    with content.stream:
        return out.put(entry.path, entry.size, _proved(content, entry), what, expected)


def send_changed(
    site: Site,
    out: CopyingSite,
    entry: File,
    what: Description,
    expected: str,
    old: tuple[list[ChunkId], int],
    lengths: Mapping[ChunkId, int],
) -> Written | Lost:
    """The same over the version `expected`, whose chunk ids and size are `old`: what stays is not sent. lengths: of its chunks, as
    far as packs have them."""
    content = _open(site, entry)
    with content.stream:
        if not _can_seek(content):
            return out.put(entry.path, entry.size, _proved(content, entry), what, expected)
        new: list[tuple[ChunkId, int]] = []
        try:
            size, fingerprint, _ = identify(
                content.stream.read, content.size, entry.class_, lambda id_, data: new.append((id_, len(data)))
            )
        except OSError as error:
            raise NotThere("unreadable", error.strerror or str(error)) from error
        if (size, fingerprint) != (entry.size, entry.fingerprint):
            raise NotThere("changed", _CHANGED)
        found = list(runs.unchanged(placed(*old, {**lengths, **dict(new)}), new))

        def part(at: int, length: int) -> Iterator[bytes]:
            try:
                content.stream.seek(at)
                while length and (data := content.stream.read(min(length, _READ))):
                    length -= len(data)
                    yield data
            except OSError as error:
                raise NotThere("unreadable", error.strerror or str(error)) from error
            if site.recheck(entry.path, content):  # what was copied up to here and what was read are of one version
                raise NotThere("changed", _CHANGED)

        return out.put_changed(entry.path, entry.size, _within(found, old[1]), part, what, expected)


_CHANGED: Final = "it changed after it was read; its previous version stays, the next sync takes the new one"


def _open(site: Site, entry: File) -> Content:
    try:
        content = site.open(entry.path)
    except NotFound:
        raise NotThere("vanished", "it was gone when it was to be sent") from None
    except OSError as error:
        raise NotThere("unreadable", error.strerror or str(error)) from error
    if content.size != entry.size:
        content.stream.close()
        raise NotThere("changed", _CHANGED)
    return content


def _can_seek(content: Content) -> bool:
    """Sites promise no more than that it can be read from its beginning to its end."""
    return bool(getattr(content.stream, "seekable", bool)())


def _proved(content: Content, entry: File) -> Iterator[bytes]:
    whole, left = xxhash.xxh3_128(), entry.size
    try:
        while left and (data := content.stream.read(min(left, _READ))):
            left -= len(data)
            whole.update(data)
            yield data
    except OSError as error:
        raise NotThere("unreadable", error.strerror or str(error)) from error
    if left or whole.digest() != entry.fingerprint:
        raise NotThere("changed", _CHANGED)


def _within(found: Iterable[Unchanged], size: int) -> Iterator[Unchanged]:
    """Only what the old version can have."""
    return (run for run in found if run.old + run.length <= size)


def placed(ids: list[ChunkId], size: int, lengths: Mapping[ChunkId, int]) -> list[tuple[ChunkId, int]]:
    """(id, length) of a file's chunks from both ends on, and one stretch of the unknown between them.

    >>> a, b, c = (ChunkId(letter * 32) for letter in (b"a", b"b", b"c"))
    >>> [length for _, length in placed([a, b, c], 100, {a: 10, c: 30})]
    [10, 60, 30]
    """
    first, last = 0, len(ids)
    while first < last and ids[first] in lengths:
        first += 1
    while last > first and ids[last - 1] in lengths:
        last -= 1
    head = [(id_, lengths[id_]) for id_ in ids[:first]]
    tail = [(id_, lengths[id_]) for id_ in ids[last:]]
    rest = size - sum(length for _, length in head) - sum(length for _, length in tail)
    if rest < 0 or (rest and first == last):
        return []  # lengths that do not fit the size: nothing is known
    return [*head, *([(_UNKNOWN, rest)] if rest else []), *tail]
