"""A live tree held against the newest snapshot: what was changed, taken away or added behind our back. Reads, changes nothing.

What is read gives also which contents the tree really holds, for the question whether an older snapshot is whole: its files are in
packs, or they stand in the live tree, under their own path or another.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass

from blake3 import blake3

from mirror import log
from mirror.chunking import AVERAGES, ChunkId, chunk_class, identify
from mirror.compare import kind_of, same_list
from mirror.errors import DamageError, NoListing, NotFound
from mirror.events import Advanced, Job, Problem
from mirror.keys import STORE, show
from mirror.manifest import Entry, File, Page, Ref, Symlink
from mirror.site import FILE, FOLDER, Excluded, Filter, Found, Seen, SiteSpec, Unread
from mirror.site.ahead import AT_ONCE, Ahead, Opener
from mirror.site.filters import Matcher
from mirror.site.open import open_site
from mirror.snapshot import ManifestReader, content_key
from mirror.steps import bare_steps
from mirror.store import ReadableStore
from mirror.unfinished import unfinished
from mirror.wholes import path_of

_KINDS = {FILE: "file", FOLDER: "folder"}


@dataclass
class LiveCheck:
    """One look at one live tree. reads: whether a path's content is to be read; else size and time decide. busy: whether a path is
    just being published or deleted, so that it may be either. files_only: it is a bucket, which has no folders and links, and tells
    no times in a listing."""

    live: SiteSpec
    reader: ManifestReader
    db: sqlite3.Connection
    number: int
    reads: Callable[[bytes], bool]
    busy: Callable[[bytes], bool]
    on_problem: Callable[[Problem], None]
    job: Job
    files_only: bool = False
    files: int = 0

    def run(self, newest: Ref) -> None:
        """Compare all of it."""
        self.db.execute("CREATE TEMP TABLE IF NOT EXISTS standing (content BLOB PRIMARY KEY) WITHOUT ROWID")
        self._site, self._whole = open_site(self.live), True
        with ExitStack() as stack:
            self._opener: Opener = self._site
            if self.files_only:  # an object service answers slowly, and many questions at once
                self._opener = stack.enter_context(closing(Ahead(self._site, self._foreseen(newest))))
            self._compare(newest)

    def _foreseen(self, newest: Ref) -> Iterator[bytes]:
        """The small files that will be read, in their order."""
        for entry in self._entries(newest):
            if isinstance(entry, File) and entry.size <= AT_ONCE and self.reads(entry.path):
                yield entry.path

    def _compare(self, newest: Ref) -> None:
        matcher = Matcher(Filter((("exclude", f"/{STORE}"),), ignore_files=False))
        try:
            seen = self._site.scan(matcher)
        except NoListing:
            for known in self._entries(newest):
                self._ask_for(known)
            return
        entries = self._entries(newest)
        entry = next(entries, None)
        for here in seen:
            while entry is not None and entry.path < here.path:
                self._missing(entry)
                entry = next(entries, None)
            there = entry is not None and entry.path == here.path
            self._look(here, entry if there else None)
            if there:
                entry = next(entries, None)
        while entry is not None:
            self._missing(entry)
            entry = next(entries, None)

    def _ask_for(self, entry: Entry) -> None:
        """Look at a file of a place that cannot be listed, so nobody knows what else is there."""
        assert isinstance(entry, File)
        size = entry.size
        if not self.reads(entry.path):
            try:
                content = self._site.open(entry.path)
                content.stream.close()
                size = content.size
            except NotFound:
                self._missing(entry)
                return
            except OSError as error:
                self.on_problem(Problem(show(entry.path), "unreadable", error.strerror or str(error)))
                return
        self._look(Found(entry.path, FILE, size), entry)

    def look_at_wholes(self, wholes: dict[bytes, str], damaged: Callable[[str, str], None]) -> None:
        """Take in what a bucket keeps whole; each is read, as its name does not say how its chunks are cut, for each way to cut.
        damaged: told of each that is not what its name says (key, why)."""
        for content, key in wholes.items():
            if not self.reads(path_of(key)) or self._is_whole(path_of(key), content):
                self.db.execute("INSERT OR IGNORE INTO standing VALUES (?)", (content,))
            else:
                damaged(key, "its content is not what its name says")

    def _is_whole(self, path: bytes, content: bytes) -> bool:
        for class_ in range(len(AVERAGES)):
            try:
                found = self._site.open(path)
                with found.stream:
                    _, _, joined = identify(found.stream.read, found.size, class_, _dropped)
            except (NotFound, OSError):
                return False
            self.job.say(Advanced(0, found.size))
            if content_key(joined) == content:
                return True
        return False

    def has(self, joined: bytes) -> bool:
        """Whether the tree holds the content of these joined chunk ids."""
        return self.has_key(content_key(joined))

    def has_key(self, content: bytes) -> bool:
        """The same of a `content_key`."""
        return self.db.execute("SELECT 1 FROM standing WHERE content = ?", (content,)).fetchone() is not None

    def _entries(self, newest: Ref) -> Iterator[Entry]:
        try:
            entries = self.reader.entries(newest)
            yield from (entry for entry in entries if not self.files_only or isinstance(entry, File))
        except (DamageError, NotFound):
            self._whole = False  # it is told where the manifests are checked; what is missing or extra cannot be said

    def _missing(self, entry: Entry) -> None:
        if not self.busy(entry.path):
            self._differs(entry.path, f"the live tree has it no more, snapshot {self.number} has it")

    def _look(self, here: Seen, entry: Entry | None) -> None:
        if isinstance(here, Excluded):
            return
        if isinstance(here, Unread):
            if here.kind != "special" or entry is not None:
                self.on_problem(Problem(show(here.path), here.kind if here.kind != "special" else "differs", here.why))
            return
        known: File | Page | None = entry if isinstance(entry, File | Page) else None
        content = b""
        if here.kind == FILE:
            self.files += 1
            content = self._content(here, known)
            self.db.execute("INSERT OR IGNORE INTO standing VALUES (?)", (content,))
        if self.busy(here.path):
            return
        if entry is None:
            if self._whole:
                self.on_problem(Problem(show(here.path), "extra", f"the live tree has it, snapshot {self.number} does not"))
        elif (why := self._difference(here, entry, content)) and self._whole:
            self._differs(here.path, why)

    def _difference(self, here: Found, entry: Entry, content: bytes) -> str:
        kind = _KINDS.get(here.kind, "link")
        if kind != kind_of(entry):
            return f"it is a {kind}, in snapshot {self.number} it is a {kind_of(entry)}"
        if isinstance(entry, Symlink) and entry.target != here.target:
            return f"it leads to {show(here.target)}, in snapshot {self.number} to {show(entry.target)}"
        read = self.reads(here.path) or not self.files_only
        if isinstance(entry, File | Page) and read and content != self.reader.content_key(entry):
            return f"its content was changed behind our back: it is not that of snapshot {self.number}"
        if self.reads(here.path) or not isinstance(entry, File):
            return ""
        if self.files_only and here.size != entry.size:
            return f"its size is not that of snapshot {self.number}: it was changed behind our back (it was not read)"
        if not self.files_only and entry.mtime not in (None, here.mtime):
            return f"its time is not that of snapshot {self.number}: was it changed behind our back? (it was not read)"
        return ""

    def _content(self, here: Found, entry: File | Page | None) -> bytes:
        """What a live file holds, as `content_key`; empty when it could not be read."""
        if not self.reads(here.path):
            return self.reader.content_key(entry) if entry is not None and here.size == entry.size else b""
        try:
            content = self._opener.open(here.path)
            with content.stream:
                class_ = entry.class_ if entry is not None else chunk_class(content.size, None)
                size, _, joined = identify(content.stream.read, content.size, class_, _dropped)
        except NotFound:
            return b""
        except OSError as error:
            self.on_problem(Problem(show(here.path), "unreadable", error.strerror or str(error)))
            return b""
        self.job.say(Advanced(1, size))
        if entry is not None and size == entry.size and same_list(entry, joined):
            return self.reader.content_key(entry)
        return content_key(joined)

    def _differs(self, path: bytes, why: str) -> None:
        self.on_problem(Problem(show(path), "differs", why))


def _dropped(id_: ChunkId, data: bytes | memoryview) -> None:
    """Only the ids count here."""


def busy_paths(
    store: ReadableStore, head: log.Record | None, reader: ManifestReader, db: sqlite3.Connection, files_only: bool
) -> Callable[[bytes], bool]:
    """Whether the log says of a path that it is just being changed, by a run that goes on or died."""
    found = unfinished(store, head)
    if found is None:
        return lambda path: False
    old = found.body.get("expected" if found.kind == log.PUBLISHING else "deletes")
    db.execute("CREATE TEMP TABLE busy (path BLOB PRIMARY KEY) WITHOUT ROWID")
    with bare_steps(reader, log.ref_of(old) if old else None, found.standing, files_only) as steps:
        db.executemany("INSERT OR IGNORE INTO busy VALUES (?)", ((step.path,) for step in steps.all))
    return lambda path: db.execute("SELECT 1 FROM busy WHERE path = ?", (path,)).fetchone() is not None


def path_digest(path: bytes) -> bytes:
    """By what a path belongs to a part of a verify."""
    return blake3(path).digest()
