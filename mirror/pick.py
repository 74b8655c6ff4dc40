"""Which snapshot is meant, and a target opened for reading it.

    with Reading(TargetSpec(StoreSpec("/backup/www"))) as reading:
        record = reading.pick("2026-11-20T03:00")
        for entry in reading.entries(record, [b"docs"]):
            ...

Owns the words for a snapshot, and the rule of readers: nothing here ever changes a target, and no lock is taken, so a prune may
go by at any moment. What cannot be read is looked for again while the head of the log has moved; a doomed place is no place.
Only when the head stands still is it damage, unless the snapshot itself was forgotten meanwhile.

A number means that record, `latest` the newest live snapshot, `tag:NAME` the newest live one with that tag. A time means the newest
live one whose scan had started by then, in the local zone unless an offset is given. It covers all that it names: `2026-11-20`
the whole day, `2026-11-20T03:00` that minute to its end, so whatever `snapshots` prints finds the snapshot it stands beside.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timedelta
from itertools import chain, islice, pairwise

from mirror import log
from mirror.chunking import ChunkId
from mirror.copies import ANYWHERE, OWN, Copies
from mirror.envelope import SEGMENT
from mirror.errors import DamageError, InTheWayError, NotFound, TargetMissingError, UsageError
from mirror.events import Job, Notice
from mirror.keys import joined, record_key, show, spans_of
from mirror.lookup import GONE, ChunkIndex
from mirror.manifest import Entry, Ref, WithContent
from mirror.names import fragments
from mirror.site.open import open_site
from mirror.snapshot import ManifestReader
from mirror.state import State
from mirror.store import ReadableStore
from mirror.target import TargetSpec, open_target
from mirror.transfer import fetch
from mirror.wholes import listed

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(Z|[+-]\d\d:?\d\d)?)?")
_RELOADS = 20  # of an index whose fragments vanish while it is read: as many prunes in a row


# -- words for a snapshot ---------------------------------------------------------------------------------------------


def pick(store: ReadableStore, head: log.Record | None, at: str) -> log.Record:
    """The live snapshot that `at` means as of `head`. TargetMissingError where there is none at all, UsageError where not that."""
    if head is None or not head.body["live"]:
        why = "all were forgotten" if head is not None and head.number > 1 else "nothing was mirrored into it yet"
        hint = "run `mirror sync SRC TARGET` first"
        if head is not None and head.kind in (log.PUBLISHING, log.TAKEOVER):
            why = "its first sync did not end"
        if head is not None and head.body.get("waits"):
            why, hint = f"record {head.body['waits']} waits to be published", "run `mirror publish TARGET` first"
        raise TargetMissingError("there is no snapshot in", where=store.url, why=why, hint=hint)
    if at == "latest":
        return _snapshot(store, head, head.live[-1])
    if at.isascii() and at.isdigit():
        return _numbered(store, head, int(at))
    if at.startswith("tag:"):
        name = at.removeprefix("tag:")
        tagged = (r for r in live_snapshots(store, head) if isinstance(tags := r.body.get("tags"), list) and name in tags)
        found = next(tagged, None)
        if found is None:
            raise _none(store, head, f"no live snapshot has the tag {name!r}")
        return found
    end = end_of(at)
    found = next((r for r in live_snapshots(store, head) if r.started < end), None)
    if found is None:
        raise _none(store, head, f"no live snapshot had been started by {at}")
    return found


def live_snapshots(store: ReadableStore, head: log.Record | None) -> Iterator[log.Record]:
    """The live snapshots as of a head, newest first, each read when it is asked for."""
    if head is not None:
        yield from (_snapshot(store, head, number) for number in reversed(head.live))


def end_of(at: str) -> datetime:
    """The end of the day, minute, second or fraction that `at` names; local zone without an offset. UsageError for other text.

    >>> end_of("2026-11-20T03:00Z").isoformat()
    '2026-11-20T03:01:00+00:00'
    """
    match = _TIME.fullmatch(at)
    try:
        if not match:
            raise ValueError
        day, clock, offset = match.groups()
        if clock is None:
            return (datetime.fromisoformat(day) + timedelta(days=1)).astimezone()
        moment = datetime.fromisoformat(f"{day}T{clock}{offset or ''}")
        digits = len(clock.partition(".")[2])
        unit = timedelta(minutes=1) if len(clock) == 5 else timedelta(microseconds=10 ** (6 - digits))
        return (moment if offset else moment.astimezone()) + unit
    except (ValueError, OverflowError):
        raise UsageError("cannot tell which snapshot is meant by", where=repr(at),
                         hint="say a number, latest, tag:NAME, 2026-11-20 or 2026-11-20T03:00") from None  # fmt: skip


def ranges_text(numbers: Iterable[int], most: int = 6) -> str:
    """Ascending numbers for people; past `most` ranges the first and last of them.

    >>> ranges_text([1, 2, 3, 7, 9, 10]), ranges_text(range(1, 100, 2), 4)
    ('1-3, 7, 9-10', '1, 3, … 97, 99')
    """
    parts = [f"{first}-{last}" if last > first else f"{first}" for first, last in log.ranges(numbers)]
    if len(parts) <= most:
        return ", ".join(parts)
    return f"{', '.join(parts[: most // 2])}, … {', '.join(parts[-(most // 2) :])}"


def _numbered(store: ReadableStore, head: log.Record, number: int) -> log.Record:
    if number in head.live:
        return _snapshot(store, head, number)
    if not 1 <= number <= head.number:
        raise _none(store, head, f"there is no snapshot {number}")
    record = _record(store, number)
    if record.kind == log.SNAPSHOT:
        raise _none(store, head, f"snapshot {number} was forgotten")
    raise _none(store, head, f"record {number} is no snapshot but of kind {record.kind}")


def _snapshot(store: ReadableStore, head: log.Record, number: int) -> log.Record:
    record = head if number == head.number else _record(store, number)
    if record.kind != log.SNAPSHOT:
        raise DamageError("cannot use the record", where=f"{store.url}/{record_key(number)}",
                          why=f"record {head.number} calls it a live snapshot, and it is of kind {record.kind}")  # fmt: skip
    return record


def _record(store: ReadableStore, number: int) -> log.Record:
    try:
        return log.read_record(store, number)
    except NotFound:
        raise DamageError("cannot read the record", where=f"{store.url}/{record_key(number)}",
                          why="it is not there, and later ones are", hint="run `mirror verify`") from None  # fmt: skip


def _none(store: ReadableStore, head: log.Record, why: str) -> UsageError:
    return UsageError("cannot use the snapshot of", where=store.url, why=why, hint=f"live are {ranges_text(head.live)}")


# -- a target for reading ---------------------------------------------------------------------------------------------


class Reading:
    """A target open for a verb that only reads. Close it, or use it as a context manager.

    head: the newest record that can be read, None for an empty log; spoilt: what is wrong with a newer one. target.state is what
    syncs of this host remember: it is only read, since a sync may be running. What reading itself keeps (index, dooms) is in
    `state`, a file of its own that one run at a time has; others do without.
    """

    def __init__(self, spec: TargetSpec, job: Job | None = None, *, name: str = "reading") -> None:
        self._name, self._job = name, job
        with ExitStack() as stack:
            self.target = stack.enter_context(open_target(spec, dry_run=True))
            self.store = self.target.store
            self.reader = ManifestReader(self.store, self.target.state)
            self.spoilt: DamageError | None = None
            self.head = self._read_head(int(self.target.state.fact("head") or 0))
            self._exit = stack.pop_all()
        self._state: State | None = None
        self._dooms: log.Dooms | None = None
        self._index: ChunkIndex | None = None
        self._copies: Copies | None = None
        self._depth = OWN
        if job is not None:
            job.site = self.target.site

    def __enter__(self) -> Reading:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back."""
        self._exit.close()

    def pick(self, at: str) -> log.Record:
        """The snapshot that `at` means. With a spoilt newest record only a number is clear enough."""
        if self.spoilt is not None and not at.isdigit():
            older = f"older ones are {ranges_text(self.head.live)}" if self.head and self.head.live else "run `mirror verify`"
            raise DamageError(self.spoilt.what, where=self.spoilt.where, why=self.spoilt.why,
                              hint=f"name a snapshot by its number (--at N): {older}") from self.spoilt  # fmt: skip
        return pick(self.store, self.head, at)

    # -- entries -------------------------------------------------------------------------------------------------

    def entries(self, record: log.Record, paths: Sequence[bytes | str] = ()) -> Iterator[Entry]:
        """The entries of a snapshot in order: all, or those of some files and folders with what is below them. UsageError for a
        path that cannot be one or is not in the snapshot, before the first entry."""
        wanted = [spans_of(path) for path in paths]
        with self.steady(record):
            for path, spans in zip(paths, wanted, strict=True):
                if next(self._within(record.manifest, spans), None) is None:
                    raise UsageError("cannot find", where=show(os.fsencode(path)), hint="`mirror ls` shows what is there",
                                     why=f"it is not in snapshot {record.number} of {self.store.url}")  # fmt: skip
            if wanted:
                yield from self._within(record.manifest, joined(chain.from_iterable(wanted)))
            else:
                yield from self.reader.entries(record.manifest)

    def at_paths(self, record: log.Record, paths: Iterable[bytes]) -> Iterator[Entry]:
        """The entries of just these paths, without what is below them; those that are not in the snapshot are left out."""
        with self.steady(record):
            yield from self._within(record.manifest, sorted((path, path + b"\0") for path in paths))

    def _within(self, root: Ref, spans: Sequence[tuple[bytes, bytes]]) -> Iterator[Entry]:
        """The entries with low ≤ path < high for one of the ascending spans; only segments that may have some are fetched."""
        left = list(reversed(spans))
        last: bytes | None = None
        refs: Iterator[Ref | None] = chain(self.reader.leaves(root, SEGMENT), [None])
        for ref, after in pairwise(refs):
            assert ref is not None
            while left and left[-1][1] <= ref.first:
                left.pop()
            if not left:
                return
            if after is not None and after.first <= left[-1][0]:
                continue
            for entry in self.reader.segment(ref):
                if last is not None and entry.path <= last:
                    where = f"{self.store.url}/{root.name.key()}"
                    raise DamageError("cannot use the manifest", where=where, why="its segments are out of order")
                last = entry.path
                while left and left[-1][1] <= entry.path:
                    left.pop()
                if left and left[-1][0] <= entry.path:
                    yield entry

    # -- contents ------------------------------------------------------------------------------------------------

    def contents(self, record: log.Record, ids: Iterable[ChunkId]) -> Iterator[bytes]:
        """The chunks of these ids in their order, proved. DamageError when one can be had from nowhere."""
        stream = iter(ids)
        while window := list(islice(stream, fetch.WINDOW_IDS)):
            done = 0
            while done < len(window):
                try:
                    for chunk in fetch.contents(self.store, self.index, window[done:]):
                        done += 1
                        yield chunk
                except fetch.Unreadable as error:
                    if not self.look_again(record):
                        raise unreadable(self.store, error) from error

    def content(self, record: log.Record, entry: WithContent) -> Iterator[bytes]:
        """The chunks of one file, proved: from packs or, of a tree, from the live folder. DamageError when they can be had from
        nowhere."""
        if not self.target.tree:
            yield from self.contents(record, self.reader.chunk_ids(entry))
            return
        done = 0
        while True:
            try:
                for chunk in self._content(entry, done):
                    done += 1
                    yield chunk
                return
            except fetch.Unreadable as error:
                if not self.look_again(record):
                    raise unreadable(self.store, error) from error

    def _content(self, entry: WithContent, done: int) -> Iterator[bytes]:
        """The chunks behind the first `done`, from one place. Unreadable."""
        asked = self.reader.chunk_ids(entry)
        packed = True
        while packed and (some := list(islice(asked, fetch.WINDOW_IDS))):
            packed = not self.index.missing(some)
        if packed:
            yield from fetch.contents(self.store, self.index, islice(self.reader.chunk_ids(entry), done, None))
            return
        yield from self.live_content(entry, done)

    def live_content(self, entry: WithContent, done: int = 0) -> Iterator[bytes]:
        """The chunks of one file behind the first `done`, proved, from the live tree. Unreadable when none of the paths that are
        known (`look_again` finds more) has them."""
        copy = self.copies.open(entry)
        if copy is None:
            raise fetch.Unreadable("", f"no pack has {show(entry.path)}, nor has the live tree")
        given = done
        for chunk in copy.chunks(self.reader.chunk_ids(entry), done):
            given += 1
            yield chunk
        if given < len(copy.lengths):
            raise fetch.Unreadable("", f"the live copy of {show(entry.path)} changed while it was read")

    @property
    def copies(self) -> Copies:
        """Where in the live tree content may be."""
        if self._copies is None:
            wholes = self._wholes if self.target.in_bucket else dict
            self._copies = Copies(open_site(self.target.live), self.reader, self.state.db, wholes)
        return self._copies

    def _wholes(self) -> dict[bytes, str]:
        return listed(self.store, self.dooms, self.head)

    def live_paths(self, entry: WithContent) -> tuple[bytes, ...]:
        """The paths of the live tree to look for a file in, as far as was asked for."""
        return self.copies.paths(entry)

    @property
    def state(self) -> State:
        """What this verb keeps on this host between runs; a temporary one where that is not possible."""
        if self._state is None:
            self._state = self._exit.enter_context(apart(self.target.spec, self._name, self.target.uuid))
        return self._state

    @property
    def dooms(self) -> log.Dooms:
        """Which object names are doomed, as of the head."""
        if self._dooms is None:
            self._dooms = log.Dooms(self.store, self.state)
            self._learn()
        return self._dooms

    @property
    def index(self) -> ChunkIndex:
        """Where chunks are, as of the head. Fragments that are damaged are said (Notice) and left out."""
        if self._index is None:
            self._index = ChunkIndex(self.state, self.store)
            self._refresh()
        return self._index

    # -- the rule of readers -------------------------------------------------------------------------------------

    @contextmanager
    def steady(self, *records: log.Record) -> Iterator[None]:
        """Around reads of snapshots' manifests. An object that is gone is damage while they live: no prune may doom it."""
        try:
            yield
        except NotFound as error:
            for record in records:
                self.look_again(record)
            raise DamageError("cannot read", where=f"{self.store.url}/{error}", why="it is not there, and a live snapshot needs it",
                              hint="run `mirror verify`") from error  # fmt: skip

    def look_again(self, record: log.Record) -> bool:
        """After something could not be read. True: the head has moved, index and dooms are fresh, try again. False: it is damage.
        InTheWayError when the snapshot was forgotten meanwhile."""
        before = self.head
        self.head = self._read_head(before.number if before else 0)
        if self.head is None or record.number not in self.head.live:
            raise InTheWayError("cannot read on from", where=self.store.url, hint="`mirror snapshots` lists those that are left",
                                why=f"snapshot {record.number} was forgotten meanwhile")  # fmt: skip
        moved = before is None or before.digest != self.head.digest
        if not moved and not self.target.tree:
            return False
        if moved and self._dooms is not None:
            self._learn()
        if self._index is not None:
            moved = self._refresh() or moved  # of a tree the index may move ahead of the head
        if not moved:
            if self._depth == ANYWHERE:
                return False
            self._depth += 1
        newest = log.newest_snapshot(self.store, self.head) if self.target.tree else None
        if newest is not None:
            self.copies.look(record.manifest, newest.standing, self._depth)
        return True

    def _read_head(self, known: int) -> log.Record | None:
        self.spoilt = None
        try:
            return log.read_head(self.store, known)
        except DamageError as error:
            self.spoilt = error
        for number in reversed(log.numbers(self.store)):
            try:
                record = log.read_record(self.store, number)
            except (DamageError, NotFound):
                continue
            self._say("damage", f"{self.spoilt}; going by record {record.number}")
            return record
        raise self.spoilt

    def _learn(self) -> None:
        assert self._dooms is not None
        try:
            self._dooms.learn(self.head)
        except NotFound as error:
            self._say("damage", f"{self.store.url}/{error} is not there: what was pruned is not fully known")
        except DamageError as error:
            self._say("damage", f"{error}: what was pruned is not fully known")

    def _refresh(self) -> bool:
        assert self._index is not None
        known = None
        for _ in range(_RELOADS):
            stands = known is not None and known == self.head
            try:
                keys = fragments(self.store, self.head)
                return self._index.refresh(
                    self.dooms, lambda key, error: self._say("damage", str(error)), keys, gone_is_damage=stands
                )
            except NotFound as error:  # a fragment went between listing and reading: a prune that this head does not know
                if stands:
                    raise unreadable(self.store, fetch.Unreadable(str(error), GONE)) from error
                known = self.head
                self.head = self._read_head(known.number if known else 0)
                self._learn()
        raise InTheWayError(
            "cannot read the index of", where=self.store.url, why="it is pruned all the time", hint="try again later"
        )

    def _say(self, kind: str, text: str) -> None:
        if self._job is not None:
            self._job.say(Notice(kind, text))


def unreadable(store: ReadableStore, error: fetch.Unreadable) -> DamageError:
    """The error that a user sees for content that is damaged."""
    where = f"{store.url}/{error.pack}" if error.pack else store.url
    return DamageError(
        "cannot read content from", where=where, why=error.why, hint="run `mirror verify`: it names what is affected"
    )


@contextmanager
def apart(spec: TargetSpec, name: str, uuid: str) -> Iterator[State]:
    """The state that a reading verb has for itself, apart from that of syncs; a temporary one while another run has it."""
    with ExitStack() as stack:
        folder = spec.cache / name / uuid if spec.cache else None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
                descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                stack.callback(os.close, descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                state = State(folder)
                if not state.is_whole():
                    state.discard()
                    state.close()
                    state = State(folder)
            except (OSError, sqlite3.Error):
                state = State(None)
        else:
            state = State(None)
        stack.callback(state.close)
        yield state
