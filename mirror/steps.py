"""What has to be changed in a live tree, path by path: the difference of what stands there and what is to stand there.

Owns the order of a publish (DESIGN section 7): folders, then assets, other files, pages and indexes last, unless the user says
another; and which deletions make room (a file where a folder must be, or the reverse), for these cannot wait until the snapshot
exists. Changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from mirror import log
from mirror.compare import same_content
from mirror.events import Job, Problem
from mirror.keys import parent_of
from mirror.manifest import Entry, File, Folder, Ref, Symlink
from mirror.names import following, of_run
from mirror.owners import Owners
from mirror.publishing import REST
from mirror.sides import differences
from mirror.site import FILE, SYMLINK
from mirror.site.filters import EXCLUDE, compile_rule
from mirror.site.live import Expected
from mirror.snapshot import ManifestReader
from mirror.spool import Spool
from mirror.target import Target

if TYPE_CHECKING:
    from mirror.lookup import ChunkIndex
    from mirror.site.standing import LivePlace, Standing
    from mirror.wholes import Wholes
    from mirror.workers import Crew

ASSETS, OTHERS, PAGES = range(3)
# Hints: of a path that could not be changed, and of one that could not be deleted at the end.
LEFT = "it was left as it is; the next sync looks again"
STAYS = "it is still there, and no later sync deletes it: see what it is, and remove it by hand"
_DEFAULT_RANKS = 3
# Pages name assets, so assets come first and what names them last; a service worker decides what a browser keeps of both.
_PAGES = frozenset(b"html htm xhtml xht xml json txt rss atom webmanifest php".split())
_ASSETS = frozenset(
    b"css js mjs map wasm png jpg jpeg gif webp avif svg ico bmp woff woff2 ttf otf eot mp3 mp4 m4a ogg webm wav pdf".split()
)
_WORKERS = (b"sw.js", b"service-worker.js")


class Step(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One path. before: what is expected there, None for nothing; after: what is to be there. seen: its inode and ctime, tag: its
    tag, if this run looked at it. room: a deletion that something else needs the place of. fault: why nothing may be done there."""

    before: Entry | None
    after: Entry | None
    seen: tuple[int, int] = (0, 0)
    room: bool = False
    fault: str = ""
    tag: str = ""

    @property
    def path(self) -> bytes:
        entry = self.after if self.after is not None else self.before
        assert entry is not None
        return entry.path


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Step).decode


def step_spool() -> Spool[Step]:
    """A spool for steps."""
    return Spool(_encode, _decode)


@dataclass
class Works:
    """What the parts of one publish share. epoch: of the run; crew: gives the worker processes; wholes: where large objects are
    kept that the live place copies itself, None where it cannot. history: whether what is displaced is kept."""

    target: Target
    reader: ManifestReader
    index: ChunkIndex
    live: LivePlace
    owners: Owners
    job: Job
    on_problem: Callable[[Problem], None]
    epoch: int
    crew: Callable[[], Crew]
    wholes: Wholes | None = None
    order: Order = field(default_factory=lambda: Order())
    history: bool = True
    _records: dict[int, log.Record] = field(default_factory=dict)

    def names(self, base: log.Record | None) -> dict[str, Any]:
        """Members for a record that follows `base`: what this run stored or found must be told there."""
        store, kept = self.target.store, self.wholes.keys() if self.wholes is not None else set()
        return following(store, base, of_run(self.index) | kept, log.Dooms(store, self.target.state), self._records)


def order_of(path: bytes) -> int:
    """When a file is published: ASSETS, OTHERS or PAGES.

    >>> order_of(b"a/style.css"), order_of(b"data.bin"), order_of(b"a/index.HTML"), order_of(b"sw.js")
    (0, 1, 2, 2)
    """
    name = path[path.rfind(b"/") + 1 :].lower()
    ending = name.rpartition(b".")[2] if b"." in name else b""
    if ending in _PAGES or name in _WORKERS:
        return PAGES
    return ASSETS if ending in _ASSETS else OTHERS


def folders_of(step: Step) -> tuple[bytes, ...]:
    """The folders whose time a step changes, or which it makes or describes."""
    path = step.path
    return (parent_of(path), path) if isinstance(step.after, Folder) else (parent_of(path),)


class Order:
    """When each file is published, as a rank from 0: by the first GLOB that matches it, in their order. What none matches comes
    where `...` stands among them, else behind them all, and there in the order of `order_of`.

    >>> order = Order(("*.css", "...", "app/*.do"))
    >>> [order.rank(path) for path in (b"a/b.css", b"a/b.js", b"b.bin", b"index.html", b"app/list.do")]
    [0, 1, 2, 3, 4]
    """

    def __init__(self, globs: Sequence[str] = ()) -> None:
        """UsageError for a glob that cannot be one."""
        rest = globs.index(REST) if REST in globs else len(globs)
        self._before = [compile_rule(EXCLUDE, glob, "--order") for glob in globs[:rest]]
        self._behind = [compile_rule(EXCLUDE, glob, "--order") for glob in globs[rest + 1 :]]
        self.ranks = len(self._before) + _DEFAULT_RANKS + len(self._behind)

    def rank(self, path: bytes) -> int:
        """When the file of this path is published."""
        if self.ranks == _DEFAULT_RANKS:
            return order_of(path)
        text = path.decode("utf-8", "surrogateescape")
        behind = len(self._before) + _DEFAULT_RANKS
        for first, globs in ((0, self._before), (behind, self._behind)):
            for at, glob in enumerate(globs):
                if glob.matches(text):
                    return first + at
        return len(self._before) + order_of(path)


def expected_of(step: Step) -> Expected | None:
    """What has to stand at the path of a step before it is changed."""
    before = step.before
    if isinstance(before, Symlink):
        return Expected(SYMLINK, target=before.target, seen=step.seen)
    if isinstance(before, File):
        return Expected(FILE, before.size, before.mtime, seen=step.seen)
    return None


def is_as_known(there: Standing, entry: File) -> bool:
    """Whether what stands there looks like an entry's file, unread. Of an object its note says it: no stranger knows that."""
    if there.kind != FILE or there.size != entry.size or entry.mtime not in (None, there.mtime):
        return False
    return not there.tag or there.fingerprint == entry.fingerprint


def changes(reader: ManifestReader, old: Ref | None, new: Ref) -> Iterator[tuple[Entry | None, Entry | None]]:
    """(before, after) of each path that differs, in order; all of `new` when there is no `old`."""
    if old is None:
        return ((None, entry) for entry in reader.entries(new))
    return differences(reader, old, new)


def _file(entry: Entry | None) -> File | None:
    return entry if isinstance(entry, File) else None


def displaces(before: Entry | None, after: Entry | None, reader: ManifestReader) -> bool:
    """Whether content goes when `after` takes the place of `before`."""
    return isinstance(before, File) and before.size > 0 and (after is None or not same_content(before, after, reader))


class Rooms:
    """Which paths must go before others can come: add all differences in order, then ask. In memory: paths that changed their
    kind, and those that begin like the path just added."""

    def __init__(self) -> None:
        self._files: set[bytes] = set()  # that give way to a folder
        self._folders: set[bytes] = set()  # that give way to a file or link
        self._near: list[tuple[bytes, bool]] = []  # paths of files that the folder of the same name may still follow

    def add(self, before: Entry | None, after: Entry | None) -> None:
        """Take in the difference at one path."""
        entry = after if after is not None else before
        assert entry is not None
        path = entry.path
        while self._near and path > self._near[-1][0] + b"/":
            self._near.pop()
        if not isinstance(entry, Folder):
            if (before is None) != (after is None):
                self._near.append((path, after is not None))
            return
        for name, comes in reversed(self._near):
            if name + b"/" == path and comes and after is None:
                self._folders.add(path)
            elif name + b"/" == path and not comes and before is None:
                self._files.add(name)

    def makes_room(self, path: bytes) -> bool:
        """Whether what is deleted at this path makes room for something that comes."""
        if path in self._files:
            return True
        if not self._folders:
            return False
        end = path.find(b"/") + 1
        while end:
            if path[:end] in self._folders:
                return True
            end = path.find(b"/", end) + 1
        return False

    def is_cleared(self, path: bytes) -> bool:
        """Whether the folder that stands where a file or link is to come goes before it."""
        return path + b"/" in self._folders


class Steps:
    """The steps of a publish, sorted by what they do; each kind in order of path. Close it."""

    def __init__(self, order: Order, files_only: bool = False) -> None:
        self._order, self._files_only = order, files_only
        self.rooms = step_spool()  # deletions that make room
        self.folders = step_spool()  # new ones
        self.files = tuple(step_spool() for _ in range(order.ranks))  # files and links by rank
        self.hard_links = step_spool()
        self.gone = step_spool()  # deletions for later
        self.all = step_spool()
        self.folders_changed: Spool[bytes] = Spool()  # that are made or have something changed in them, some of them repeatedly
        self._last: bytes | None = None

    @classmethod
    def of(cls, steps: Iterable[Step], order: Order, files_only: bool = False) -> Steps:
        """Sort them. files_only: hard links are files of their own there."""
        found = cls(order, files_only)
        try:
            for step in steps:
                found.add(step)
        except BaseException:
            found.close()
            raise
        return found

    def add(self, step: Step) -> None:
        """Take one step, in order of path."""
        data = _encode(step)
        self.all.append_encoded(data)
        for folder in folders_of(step):
            if folder != self._last:
                self.folders_changed.append_encoded(folder)
                self._last = folder
        after = step.after
        if after is None:
            (self.rooms if step.room else self.gone).append_encoded(data)
        elif isinstance(after, Folder):
            if not isinstance(step.before, Folder):
                self.folders.append_encoded(data)
        elif isinstance(after, File) and after.link and not self._files_only:
            self.hard_links.append_encoded(data)
        else:
            self.files[self._order.rank(after.path)].append_encoded(data)

    def close(self) -> None:
        """Give the disk back."""
        for spool in (self.rooms, self.folders, *self.files, self.hard_links, self.gone, self.all):
            spool.close()
        self.folders_changed.close()

    def __enter__(self) -> Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def bare_steps(reader: ManifestReader, old: Ref | None, new: Ref, files_only: bool, order: Order | None = None) -> Steps:
    """The steps from one manifest to another, as they follow from the two alone, in a live place that may have files only."""
    rooms = Rooms()
    with step_spool() as raw:
        for before, after in changes(reader, old, new):
            rooms.add(before, after)
            raw.append(Step(before, after))
        return Steps.of((with_room(step, rooms) for step in seen_by(raw, files_only)), order or Order(), files_only)


def seen_by(steps: Iterable[Step], files_only: bool) -> Iterator[Step]:
    """The steps as a live place sees them that may have files only."""
    for step in steps:
        if not files_only:
            yield step
        elif isinstance(step.before, File) or isinstance(step.after, File):
            yield msgspec.structs.replace(step, before=_file(step.before), after=_file(step.after))


def with_room(step: Step, rooms: Rooms) -> Step:
    """The step, marked when it is a deletion that makes room."""
    if step.after is None and rooms.makes_room(step.path):
        return msgspec.structs.replace(step, room=True)
    return step
