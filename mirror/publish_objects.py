"""Step three of a publish into a bucket: the live objects are changed, in the order of steps.py, many of one order at a time.

Each PUT is whole or not at all, so nothing was staged. Content comes, in this order: from the object itself, when only its
description changes; from another object that has it (moved or duplicated files are copied by the service); from the site; from what
the store keeps. Every change is conditional on the tag that was seen; without a look (an empty prefix) on nothing being there.

Whoever takes over asks once more what stands at each path: an object is noted to be the new one, or the one that was expected, or
it is somebody else's.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from mirror import log
from mirror.compare import same_content
from mirror.displace import is_unpacked
from mirror.errors import MirrorError
from mirror.events import Advanced, Notice, PhaseBegan
from mirror.items import Items
from mirror.manifest import File, Ref
from mirror.site import Lost, Site, Written
from mirror.site.live import Unexpected
from mirror.site.live_bucket import LiveBucket, standing_of
from mirror.site.writing import Description
from mirror.spool import Spool
from mirror.steps import LEFT, STAYS, Step, Steps, Works, is_as_known, step_spool
from mirror.transfer.deliver import Delivery, Order
from mirror.transfer.upload import NotThere, send, send_changed
from mirror.wholes import LEAST

if TYPE_CHECKING:
    from mirror.chunking import ChunkId

_COPY_FROM: Final = 16 << 10  # bytes from which another object's content is copied: a smaller one is sent with the request itself
_SEARCH_FROM: Final = 1 << 20  # bytes from which a new file is looked for among all that the tree has
_FLIGHT_BYTES: Final = 64 << 20
_AHEAD: Final = 4  # requests waiting for each thread
_TOLD: Final = 256


class _Under(NamedTuple):
    """A change on its way."""

    step: Step
    future: Future[Written | Lost]


def described(entry: File) -> Description:
    """What is put with an object."""
    return Description(entry.mtime, media_type=entry.media_type, headers=entry.headers, fingerprint=entry.fingerprint)


@dataclass
class ObjectChanges:
    """The changes of one publish. number: of its record, under which things are kept aside. site: the source, None where there is
    none. items: what became of the single paths."""

    works: Works
    live: LiveBucket
    number: int
    site: Site | None
    recover: bool = False
    items: Items = field(init=False)
    _hint: str = LEFT
    _outdated: int = 0
    _under: deque[_Under] = field(default_factory=deque)
    _bytes: int = 0
    _done: int = 0
    _pool: ThreadPoolExecutor | None = None

    def __post_init__(self) -> None:
        self.items = Items(self.works.on_problem)

    # -- all of them ---------------------------------------------------------------------------------------------

    def run(self, steps: Steps, manifest: Ref) -> None:
        """Do them all."""
        job = self.works.job
        job.say(PhaseBegan("write", sum(map(len, steps.files))))
        self._find_copies(steps, manifest)
        for step in reversed(steps.rooms):
            self.items.attempt(step, self._make_room, self._hint)
        for spool in steps.files:
            with self._at_once(), step_spool() as left:
                for step in spool:
                    self.items.attempt(step, self._begin, self._hint)
                    self._land(self.live.threads * _AHEAD, left)
                self._land(0, left)
                self._from_store(left)
        job.say(Advanced(self._done % _TOLD))
        if self._outdated:
            text = f"{self._outdated:,} files are not what they were when that run read them: its snapshot is incomplete"
            job.say(Notice("outdated", text))
        if self.live.site.hollow:
            text = f"{self.live.site.hollow:,} files took the place of folders: SeaweedFS may delete such a file two minutes later"
            job.say(Notice("hollow", f"{text}, unless it is told not to (docs/hosting.md); `mirror verify` finds out"))
        for table in ("has", "sought"):
            self.works.target.state.db.execute(f"DROP TABLE IF EXISTS temp.{table}")

    @contextmanager
    def _at_once(self) -> Iterator[None]:
        self._pool = ThreadPoolExecutor(self.live.threads, thread_name_prefix="mirror-put")
        try:
            yield
        finally:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None
            self._under.clear()
            self._bytes = 0

    # -- one object ----------------------------------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        before, after = step.before, step.after
        if not isinstance(after, File):
            raise Unexpected("it is nothing that a bucket can hold")
        if fault := self.live.site.fault(step.path):
            self.items.fail(step.path, "name", fault, "rename it in the source, or leave it out with --exclude")
            return
        same = before is not None and same_content(before, after, self.works.reader)
        if same and isinstance(before, File) and described(before) == described(after):
            self._done += 1
            return
        act = self._act(step, after, same)
        if after.size >= LEAST:  # it has threads of its own for its parts
            future: Future[Written | Lost] = Future()
            try:
                future.set_result(act())
            except (NotThere, Unexpected, OSError, MirrorError) as error:
                future.set_exception(error)
            self._under.append(_Under(step, future))
            return
        assert self._pool is not None
        self._bytes += after.size
        self._under.append(_Under(step, self._pool.submit(act)))

    def _act(self, step: Step, after: File, same: bool) -> Callable[[], Written | Lost]:
        """What a thread does for one object; all that needs the local state is asked before."""
        what, site, out = described(after), self.site, self.live.site
        sources = [after.path] if same else self._copies(after)
        parts = self._parts(step, after) if site is not None and not same and not sources else None

        def act() -> Written | Lost:
            expected = self._expected(step, after, same) if self.recover else step.tag or None
            if isinstance(expected, Written):
                return expected
            for source in sources:
                try:
                    return out.copy(source, after.path, what, expected)
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.EAGAIN):
                        raise
            try:
                if site is None:
                    raise NotThere("unwritable", "its new content can be had from nowhere any more")
                if parts is not None and expected is not None:
                    return send_changed(site, out, after, what, expected, *parts)
                return send(site, out, after, what, expected)
            except NotThere as error:
                error.tag = expected or ""
                raise

        return act

    def _expected(self, step: Step, after: File, same: bool) -> str | Written | None:
        """After a run that died: the tag that the change is to be conditional on; Written when it has happened already."""
        there = standing_of(self.live.site.look(step.path))
        if there is None:
            if step.before is not None:
                raise Unexpected("it was taken away")
            return None
        if not same and is_as_known(there, after):
            return Written(there.tag)
        if is_as_known(there, after) or (isinstance(step.before, File) and is_as_known(there, step.before)):
            return there.tag
        raise Unexpected("something else stands there" if step.before is None else "it was changed behind our back")

    def _parts(self, step: Step, after: File) -> tuple[tuple[list[ChunkId], int], dict[ChunkId, int]] | None:
        before = step.before
        if not isinstance(before, File) or min(before.size, after.size) < LEAST:
            return None
        ids = list(self.works.reader.chunk_ids(before))
        return (ids, before.size), {id_: place.length for id_, place in self.works.index.places(ids).items()}

    # -- what others have ----------------------------------------------------------------------------------------

    def _find_copies(self, steps: Steps, manifest: Ref) -> None:
        """Note which objects have which content: those that will be deleted, and for large files all that the manifest has. Not
        those that are overwritten: two files that change places would be copied into each other at the same time."""
        db, key = self.works.target.state.db, self.works.reader.content_key
        for table in ("has (content BLOB, path BLOB, PRIMARY KEY (content, path))", "sought (content BLOB PRIMARY KEY)"):
            db.execute(f"DROP TABLE IF EXISTS temp.{table.partition(' ')[0]}")
            db.execute(f"CREATE TEMP TABLE {table} WITHOUT ROWID")
        for step in steps.all:
            if isinstance(step.before, File) and step.after is None and not step.room and step.before.size >= self._least:
                db.execute("INSERT OR IGNORE INTO has VALUES (?, ?)", (key(step.before), step.path))
            if step.before is None and isinstance(step.after, File) and step.after.size >= _SEARCH_FROM:
                db.execute("INSERT OR IGNORE INTO sought VALUES (?)", (key(step.after),))
        if not db.execute("SELECT EXISTS (SELECT 1 FROM sought)").fetchone()[0]:
            return
        for entry in self.works.reader.entries(manifest):
            if isinstance(entry, File) and entry.size >= _SEARCH_FROM:
                row = key(entry), entry.path
                if db.execute("SELECT 1 FROM sought WHERE content = ?", row[:1]).fetchone():
                    db.execute("INSERT OR IGNORE INTO has VALUES (?, ?)", row)

    @property
    def _least(self) -> int:
        return _COPY_FROM if self.site is not None else 1

    def _copies(self, after: File) -> list[bytes]:
        """Objects that may have the content of a new one. The service is told to copy only what is noted to have it."""
        if after.size < self._least:
            return []
        content = self.works.reader.content_key(after)
        query = "SELECT path FROM has WHERE content = ? LIMIT 3"
        found = [path for (path,) in self.works.target.state.db.execute(query, (content,)) if path != after.path]
        kept = self.works.wholes.path(content) if self.works.wholes is not None and after.size >= LEAST else None
        return [*found, *([kept] if kept is not None else [])]

    def _from_store(self, left: Spool[Step]) -> None:
        """Put what the site had not: from packs, if they have it."""
        works = self.works
        if not len(left):
            return
        # What this publish has displaced itself is in packs that the index has not been told of.
        works.index.refresh(log.Dooms(works.target.store, works.target.state), lambda key, error: None)
        orders: Spool[Order] = Spool(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Order).decode)
        with orders:
            for step in left:
                after, (kind, _, why) = step.after, step.fault.partition(" ")
                assert isinstance(after, File)
                if not is_unpacked(works, after):
                    orders.append(Order(after, described(after), step.tag or None))
                elif self.recover and self.site is not None:
                    self._outdated += 1  # the run that takes over brings what the site has now, in a publishing of its own
                    self.items.leave(step.path)
                else:
                    self.items.fail(step.path, kind, why)
            delivery = Delivery(
                works.target.store,
                self.live.site,
                lambda: works.index,
                works.reader.chunk_ids,
                lambda: False,
                works.job,
                lambda problem: None,
                lambda path, sentence: None,
                self.live.threads,
                on_failed=self.items.fail,
            )
            delivery.run(orders)

    # -- results -------------------------------------------------------------------------------------------------

    def _land(self, most: int, left: Spool[Step] | None = None) -> None:
        """Wait until at most so many changes are on their way. left: takes those whose content the site has not."""
        while self._under and (len(self._under) > most or self._bytes > _FLIGHT_BYTES):
            step, future = self._under.popleft()
            after = step.after
            self._bytes -= after.size if isinstance(after, File) and after.size < LEAST else 0
            self.items.attempt(step, partial(self._landed, future=future, left=left), self._hint)

    def _landed(self, step: Step, *, future: Future[Written | Lost], left: Spool[Step] | None) -> None:
        try:
            outcome = future.result()
        except NotThere as error:
            assert left is not None
            left.append(msgspec.structs.replace(step, fault=f"{error.kind} {error.why}", tag=error.tag))
            return
        if isinstance(outcome, Lost):
            raise Unexpected("it was changed behind our back" if outcome.there else "it was taken away meanwhile")
        self.items.unset += bool(outcome.unset)
        if step.after is None:
            return
        self._done += 1
        if not self._done % _TOLD:
            self.works.job.say(Advanced(_TOLD))

    # -- deletions -----------------------------------------------------------------------------------------------

    def _make_room(self, step: Step) -> None:
        outcome = self._remove(step)
        if isinstance(outcome, Lost):
            raise Unexpected("it was changed behind our back")
        self.items.removed.extend([step.path])

    def remove_all(self, steps: Iterable[Step]) -> None:
        """Remove what these steps say, if it is there."""
        self._hint = STAYS
        with self._at_once():
            for step in steps:
                self.items.attempt(step, self._begin_removal, self._hint)
                self._land(self.live.threads * _AHEAD)
            self._land(0)

    def _begin_removal(self, step: Step) -> None:
        assert self._pool is not None
        self._under.append(_Under(step, self._pool.submit(self._remove, step)))

    def _remove(self, step: Step) -> Written | Lost:
        """In any thread."""
        tag, site = step.tag, self.live.site
        if self.recover:
            found = site.look(step.path)
            there = standing_of(found)
            if there is None:
                return Written()  # a run before this one was here
            if not (isinstance(step.before, File) and is_as_known(there, step.before)):
                return Lost(found)
            tag = there.tag
        return site.remove(step.path, tag) if tag else Written()

    # -- what closing asks ---------------------------------------------------------------------------------------

    def stand_as_written(self, entries: Iterable[File]) -> Iterator[tuple[File, bool]]:
        """Each entry, and whether its object is what it says."""
        for entry, there in self.live.each((entry.path, entry) for entry in entries):
            yield entry, not isinstance(there, OSError) and there is not None and is_as_known(there, entry)

    def describe_folders(self, changed: Iterable[bytes], manifest: Ref) -> None:
        """There are none."""

    def remove_hollow(self, steps: Steps, manifest: Ref) -> None:
        """There are none."""
