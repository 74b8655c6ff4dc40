"""Whether a file that a scan suspects has really changed: its content read and held against its entry. Writes nothing.

A scan tells from size, times and inode which files may have changed. Who only looks (`diff SRC TARGET`, `verify --against`) reads
those whose size is the same, and says what a sync would find.

    >>> Verdict("*").changed, Verdict("=").changed, Verdict(".", fields=("mode",)).changed
    (True, False, False)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from mirror.chunking import ChunkId, identify
from mirror.errors import NotFound
from mirror.events import Problem
from mirror.keys import show
from mirror.manifest import Entry, File, Folder, Page, Symlink
from mirror.plan import CHANGED, DESCRIBED, NEW, SAME, Fetch
from mirror.site import Site
from mirror.snapshot import ManifestReader, list_content

_CONTENT = ("size", "fingerprint", "class_", "chunks", "more")
_WORDS = {"mtime": "time", "uid": "owner", "gid": "group", "user": "owner's name", "group": "group's name",
          "link": "hard link", "target": "link target", "xattrs": "extended attributes", "media_type": "media type"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a suspected file is: symbol + * . or =. fields: what of its description differs. problem: why it could not be read.
    read: bytes read for it."""

    symbol: str
    fields: tuple[str, ...] = ()
    problem: Problem | None = None
    read: int = 0

    @property
    def changed(self) -> bool:
        """Whether the content is another."""
        return self.symbol == CHANGED


def settle(site: Site, item: Fetch) -> Verdict:
    """What the file of a plan's Fetch really is. Read only where its size is that of the entry before."""
    before = item.before
    if before is None:
        return Verdict(NEW)
    if not isinstance(before, File | Page) or before.size != item.entry.size:
        return Verdict(CHANGED)
    try:
        content = site.open(item.entry.path)
        with content.stream:
            size, fingerprint, joined = identify(content.stream.read, content.size, before.class_, _dropped)
    except NotFound:
        return Verdict(SAME, problem=Problem(show(item.entry.path), "vanished", "it was gone when it was to be read"))
    except OSError as error:
        return Verdict(SAME, problem=Problem(show(item.entry.path), "unreadable", error.strerror or str(error)))
    if size != before.size or fingerprint != before.fingerprint or not same_list(before, joined):
        return Verdict(CHANGED, read=size)
    fields = tuple(description(before, item.entry))
    return Verdict(DESCRIBED if fields else SAME, fields, read=size)


def _dropped(id_: ChunkId, data: bytes | memoryview) -> None:
    """Only the ids count here."""


def same_list(entry: File | Page, joined: bytes) -> bool:
    """Whether an entry's chunks are just these ids."""
    chunks, more = list_content(joined, entry.more)
    if entry.more is None or more is None:
        return entry.more is None and more is None and entry.chunks == chunks
    return entry.more.digest == more.digest


def same_content(one: Entry, other: Entry, reader: ManifestReader) -> bool:
    """Whether two entries hold the same bytes, cut in the same way."""
    if not (isinstance(one, File | Page) and isinstance(other, File | Page)) or one.size != other.size:
        return False
    if one.more is None or other.more is None:
        return one.more is None and other.more is None and one.chunks == other.chunks
    if one.more.digest == other.more.digest:
        return True
    # A list of several leaves that was written again, after a prune, has another digest; its fingerprint proposes that, the leaves
    # decide.
    return one.fingerprint == other.fingerprint and reader.content_key(one) == reader.content_key(other)


def same_entry(one: Entry, other: Entry, reader: ManifestReader) -> bool:
    """Whether two entries say the same. The epoch of a chunk list is no part of that: a list written again is the same list."""
    if one == other:
        return True
    if type(one) is not type(other) or not isinstance(one, File | Page) or one.more is None or not same_content(one, other, reader):
        return False
    return msgspec.structs.replace(one, more=None) == msgspec.structs.replace(other, more=None)


def description(one: Entry, other: Entry) -> Iterator[str]:
    """In which words the descriptions of two entries of one kind differ; contents aside."""
    if type(one) is not type(other):
        yield "kind"
        return
    fields = [name for name in one.__struct_fields__ if name not in _CONTENT and getattr(one, name) != getattr(other, name)]
    yield from (_WORDS.get(name, name) for name in fields)


def symbol_of(one: Entry, other: Entry, reader: ManifestReader) -> str:
    """How a path changed that two snapshots have, as sync calls it: `.` when only its description did."""
    if type(one) is type(other) and (type(one) is Folder or same_content(one, other, reader)):
        return DESCRIBED
    return CHANGED


def kind_of(entry: Entry) -> str:
    """An entry's kind in one word; a page is a file."""
    return {Folder: "folder", Symlink: "link", File: "file", Page: "file"}.get(type(entry), "redirect")
