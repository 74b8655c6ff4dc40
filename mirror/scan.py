"""A site against the parent's manifest: two sorted streams merged into a plan. One pass, bounded memory.

Owns the question "may this file's content have changed?" and what a filter protects. A file is the same when its size and mtime
are the parent's and, where the last scan of this host is remembered, its inode and ctime as well (npm gives every file one
mtime; ctime still tells). An unproven one (read within 2 s of its last change) is remembered as (0, 0) and looked at again.

Reads nothing but the two streams; says its problems to a callback. An incomplete scan is the caller's to judge:
`Comparison.incomplete`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import msgspec
import zstandard

from mirror.chunking import chunk_class
from mirror.events import Problem
from mirror.keys import show
from mirror.manifest import Entry, File, Folder, Page, Symlink
from mirror.plan import CHANGED, DESCRIBED, NEW, Counts, Drop, Fetch, Item, Put
from mirror.site import FILE, FOLDER, Excluded, Found, Seen, Unread
from mirror.site.routes import NOTHING, Published, Routes

Known = tuple[Entry, tuple[int, int] | None]  # a parent's entry and its validator at the last scan; None: not remembered
UNPROVEN = (0, 0)
# A path of the last scan, field by field as in Found, so that one comparison in C tells that nothing happened to it.
_Expected = tuple[
    bytes, str, int, int | None, int | None, int | None, int | None, str, str, bytes, bytes, tuple[int, int], None
]  # fmt: skip
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[_Expected])
_MEMORY_MAX = 64 << 20
_ROUTED = b"R"  # a memory that was made with header routes begins so, and with their digest; zstd begins otherwise
_DIGEST = 16
_TOLD = 1000


class _Zstd(threading.local):
    """One for each thread: a program may run two syncs at once, and zstd's are not to be shared."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()
_NOT_HERE = ("special", "name", "link", "skipped")  # kinds of Unread that are no part of the site, whatever the parent has there


class Remembered:
    """A segment of the parent as the last scan saw it. `load` gives its entries, which a quiet night never asks for. stale: it saw
    them with other header routes, so each is looked at closely, and remembered anew."""

    __slots__ = ("expected", "load", "stale")

    def __init__(self, expected: Sequence[object], load: Callable[[], list[Known]], stale: bool = False) -> None:
        self.expected, self.load, self.stale = expected, load, stale

    @classmethod
    def read(cls, memory: bytes, count: int, entries: Callable[[], list[Entry]], routes: Routes | None = None) -> Remembered | None:
        """From `memory_of`'s bytes; None when they are not of a segment of `count` entries. routes: of this scan, None when headers
        are not its business."""
        made_with = b""
        if memory[:1] == _ROUTED:
            made_with, memory = memory[1 : 1 + _DIGEST], memory[1 + _DIGEST :]
        try:
            expected = _decoder.decode(_zstd.decompressor.decompress(memory, max_output_size=_MEMORY_MAX))
        except (zstandard.ZstdError, msgspec.MsgspecError):
            return None
        if len(expected) != count:
            return None
        stale = routes is not None and routes.digest != made_with

        def load() -> list[Known]:
            return [(entry, path[11]) for entry, path in zip(entries(), expected, strict=True)]

        return cls((None,) * count if stale else expected, load, stale)


def memory_of(entries: Iterable[Entry], validators: Iterable[tuple[int, int]], routes: Routes | None = None) -> bytes:
    """What the next scan expects of these entries, for `Remembered.read`: 1 µs an entry, 35 bytes. routes: those that the entries'
    headers come from."""
    made_with = _ROUTED + routes.digest if routes and routes.digest else b""
    return made_with + _zstd.compressor.compress(
        _encoder.encode([_expected(e, v) for e, v in zip(entries, validators, strict=True)])
    )


def _expected(entry: Entry, validator: tuple[int, int]) -> _Expected:
    if type(entry) is File and validator != UNPROVEN and not entry.xattrs:
        return (entry.path, FILE, entry.size, entry.mtime, entry.mode, entry.uid, entry.gid, entry.user, entry.group,
                b"", entry.link, validator, None)  # fmt: skip
    if type(entry) is Folder and not entry.xattrs:
        return (entry.path, FOLDER, 0, entry.mtime, entry.mode, entry.uid, entry.gid, entry.user, entry.group,
                b"", b"", validator, None)  # fmt: skip
    # Nothing that a scan can see: these are always looked at more closely.
    return (entry.path, "", 0, None, None, None, None, "", "", b"", b"", validator, None)


class _Parent:
    """Where the comparison is in the parent's entries."""

    __slots__ = ("_entries", "_load", "_source", "at", "end", "expected", "stale")

    def __init__(self, known: Iterable[Known | Remembered]) -> None:
        self._source = iter(known)
        self.expected: Sequence[object] = ()
        self.at = self.end = 0
        self.stale = False  # some of it was remembered with other header routes
        self._entries: list[Known] | None = None
        self._load: Callable[[], list[Known]] = list

    def fill(self) -> bool:
        """Go on to the next segment that has an entry left; False at the end."""
        while self.at >= self.end:
            item = next(self._source, None)
            if item is None:
                return False
            self.at = 0
            if type(item) is Remembered:
                self.expected, self._load, self._entries = item.expected, item.load, None
                self.stale = self.stale or item.stale
            else:
                self.expected, self._entries = (None,), [item]  # type: ignore[list-item]
            self.end = len(self.expected)
        return True

    def peek(self) -> Known | None:
        """The next entry, None at the end."""
        if self.at >= self.end and not self.fill():
            return None
        if self._entries is None:
            self._entries = self._load()
        return self._entries[self.at]


@dataclass
class Comparison:
    """How a scan is compared, and what came out beside the plan.

    checksum: look at every content. ignore_inode: ctime alone (file systems that number files anew at each mount). protects:
    whether the filters exclude a path that the source no longer has. on_validators: gets each surviving parent
    entry's validator, in order. on_scanned: is told of every thousand paths. routes: what files are published with; None: that is
    not looked at, and stays as the parent has it.
    """

    protects: Callable[[bytes], bool] | None = None
    checksum: bool = False
    ignore_inode: bool = False
    delete_excluded: bool = False
    routes: Routes | None = None
    on_problem: Callable[[Problem], None] = lambda problem: None
    on_validators: Callable[[Iterable[tuple[int, int]]], None] = lambda validators: None
    on_scanned: Callable[[int], None] = lambda count: None
    counts: Counts = field(default_factory=Counts)
    incomplete: bool = False
    validators_moved: bool = False
    _has_root: bool = False
    _shield: bytes = b""  # everything below this excluded or unread folder keeps its parent's entries

    def run(self, seen: Iterable[Seen], known: Iterable[Known | Remembered]) -> Iterator[Item]:
        """The plan, in order of path."""
        parent, looks = _Parent(known), self.checksum
        quiet: list[tuple[int, int]] = []  # validators of entries found as they were, since the last other one of the segment
        for here in seen:
            at = parent.at
            if at >= parent.end:
                self._found_quiet(parent, quiet)
                if not parent.fill() and type(here) is Found:
                    # What a first sync consists of: by the long way each of its paths takes half as long again.
                    self._scanned(here.path)
                    yield self._new(here)
                    continue
                at = parent.at
            if at < parent.end and here == parent.expected[at] and not looks:
                # What a quiet night consists of, by itself: 0.3 µs an entry, and its entry is not even decoded.
                parent.at = at + 1
                quiet.append(here[11])  # type: ignore[misc]
                continue
            self._found_quiet(parent, quiet)
            yield from self._closely(here, parent)
        self._found_quiet(parent, quiet)
        while (ahead := parent.peek()) is not None:
            parent.at += 1
            yield from self._gone(ahead[0])
        self.validators_moved = self.validators_moved or parent.stale

    def _closely(self, here: Seen, parent: _Parent) -> Iterator[Item]:
        path = here.path
        while (ahead := parent.peek()) is not None and ahead[0].path < path:
            parent.at += 1
            yield from self._gone(ahead[0])
        there = ahead is not None and ahead[0].path == path
        parent.at += there
        if not isinstance(here, Found):
            self._note(here)
            if there and ahead is not None:
                yield from self._kept_or_gone(here, ahead[0])
            return
        self._scanned(path)
        if there and ahead is not None:
            yield from self._both(here, *ahead)
        else:
            yield self._new(here)

    def _found_quiet(self, parent: _Parent, validators: list[tuple[int, int]]) -> None:
        """Note that the last so many entries of this segment are as they were, and empty the list."""
        number = len(validators)
        if not number:
            return
        self.counts.parent += number
        self.counts.same += number
        self.on_validators(validators)
        validators.clear()
        self._scanned(parent.expected[parent.at - number][0], number)  # type: ignore[index]

    def _scanned(self, first: bytes, number: int = 1) -> None:
        """So many paths more were looked at, of which this one is the first."""
        before = self.counts.scanned
        self.counts.scanned = now = before + number
        if not first:
            self._has_root = True
        for _ in range(now // _TOLD - before // _TOLD):
            self.on_scanned(_TOLD)

    @property
    def found_any(self) -> bool:
        """Whether the scan found anything beside the root folder."""
        return self.counts.scanned > self._has_root

    # -- one path ------------------------------------------------------------------------------------------------

    def _note(self, here: Excluded | Unread) -> None:
        if type(here) is Unread:
            if here.kind == "incomplete":
                self.incomplete = True
            self.on_problem(Problem(show(here.path), here.kind, here.why))
        elif here.path[-1:] == b"/":
            self._shield = here.path

    def _kept_or_gone(self, here: Excluded | Unread, entry: Entry) -> Iterator[Item]:
        self.counts.parent += 1
        leaves = type(here) is Excluded and self.delete_excluded
        if leaves or (type(here) is Unread and here.kind in _NOT_HERE):
            self.counts.deleted += 1
            yield Drop(entry, excluded=leaves)
            return
        self.counts.protected += type(here) is Excluded
        self._stays(UNPROVEN)

    def _gone(self, entry: Entry) -> Iterator[Item]:
        self.counts.parent += 1
        excluded = bool(self._shield) and entry.path.startswith(self._shield)
        excluded = excluded or (self.protects is not None and self.protects(entry.path))
        if excluded and not self.delete_excluded:
            self.counts.protected += 1
            self._stays(UNPROVEN)
            return
        self.counts.deleted += 1
        yield Drop(entry, excluded=excluded)

    def _stays(self, validator: tuple[int, int], before: tuple[int, int] | None = None) -> None:
        if validator != before:
            self.validators_moved = True
        self.on_validators([validator])

    def _new(self, here: Found) -> Item:
        self.counts.added += 1
        if here.kind != FILE:
            return Put(NEW, described(here), here.validator)
        return self._fetch(here, None)

    def _fetch(self, here: Found, before: Entry | None) -> Fetch:
        self.counts.fetch_files += 1
        self.counts.fetch_bytes += here.size
        class_ = chunk_class(here.size, before.class_ if isinstance(before, File | Page) else None)
        return Fetch(described_file(here, class_, published=self._published(here.path, before)), here.validator, before)

    def _published(self, path: bytes, before: Entry | None) -> Published:
        if self.routes is not None:
            return self.routes.of(path)
        return (before.media_type, before.headers) if isinstance(before, File | Page) else NOTHING

    def _both(self, here: Found, entry: Entry, validator: tuple[int, int] | None) -> Iterator[Item]:
        self.counts.parent += 1
        if here.kind == FILE and type(entry) is File:
            if not self._same_content(here, entry, validator):
                self.counts.changed += 1
                yield self._fetch(here, entry)
                return
            published = self._published(here.path, entry)
            if _same_description(here, entry) and published == (entry.media_type, entry.headers):
                self.counts.same += 1
                self._stays(here.validator, validator)
                return
            self.counts.described += 1
            yield Put(DESCRIBED, described_file(here, entry.class_, entry, published), here.validator, entry)
            return
        fresh = described(here) if here.kind != FILE else None
        if fresh == entry:
            self.counts.same += 1
            self._stays(here.validator, validator)
        elif fresh is None:
            self.counts.changed += 1
            yield self._fetch(here, entry)
        else:
            symbol = DESCRIBED if type(fresh) is type(entry) and type(fresh) is Folder else CHANGED
            self.counts.described += symbol == DESCRIBED
            self.counts.changed += symbol == CHANGED
            yield Put(symbol, fresh, here.validator, entry)

    def _same_content(self, here: Found, entry: File, validator: tuple[int, int] | None) -> bool:
        if here.size != entry.size or self.checksum:
            return False
        if validator is None:
            return here.mtime is not None and here.mtime == entry.mtime
        if validator == UNPROVEN or here.validator == UNPROVEN:
            return False
        if here.validator[1] == 0:  # an object: its ETag says it all
            return here.validator == validator
        same = here.validator[1] == validator[1] if self.ignore_inode else here.validator == validator
        return same and here.mtime == entry.mtime


def described(here: Found) -> Folder | Symlink:
    """The entry that describes a folder or link."""
    if here.kind == FOLDER:
        return Folder(here.path, here.mtime, here.mode, here.uid, here.gid, here.user, here.group, _xattrs(here))
    return Symlink(here.path, here.target, here.mtime, here.uid, here.gid, here.user, here.group)


def described_file(here: Found, class_: int, content: File | None = None, published: Published = NOTHING) -> File:
    """The entry that describes a file; its content is `content`'s, or still to be filled in. published: its media type, headers."""
    known = (content.fingerprint, content.class_, content.chunks, content.more) if content else (b"", class_, b"", None)
    return File(
        here.path, here.size, *known, here.mtime, here.mode, here.uid, here.gid, here.user, here.group,
        here.link, _xattrs(here), *published,
    )  # fmt: skip


def _xattrs(here: Found) -> tuple[tuple[bytes, bytes], ...]:
    return tuple(sorted(here.xattrs.items())) if here.xattrs else ()


def _same_description(here: Found, entry: File) -> bool:
    return (
        here.mtime == entry.mtime
        and here.mode == entry.mode
        and here.uid == entry.uid
        and here.gid == entry.gid
        and here.user == entry.user
        and here.group == entry.group
        and here.link == entry.link
        and _xattrs(here) == entry.xattrs
    )
