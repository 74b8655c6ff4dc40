"""What is in a target: `snapshots`, `ls`, `cat`, `sums`, and from differ.py `diff`. They read, they never change anything.

    for entry in ls(TargetSpec(StoreSpec("/backup/www")), "latest", ["docs"]):
        print(entry.path)

Those that are iterators open the target when the first value is asked for, and close it after the last (or with `close`). Paths
may be bytes, or text as a command line gives it; folders mean all that is below them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from blake3 import blake3

from mirror import log
from mirror.compare import kind_of
from mirror.differ import diff, diff_site
from mirror.errors import DamageError, UsageError
from mirror.events import Advanced, Job, Notice, PhaseBegan, Problem, ProblemFound, RunStarted
from mirror.hold import hold_of
from mirror.keys import record_key, show
from mirror.manifest import Entry, File, Page, Symlink, fingerprint_hex, split_ids
from mirror.pick import Reading
from mirror.target import TargetSpec
from mirror.transfer.fetch import WINDOW_BYTES, WINDOW_IDS

__all__ = ["ALGORITHMS", "SnapshotLine", "cat", "diff", "diff_site", "ls", "snapshots", "source_text", "sums"]

XXH128 = "xxh128"


class _Hasher(Protocol):
    def update(self, data: bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


_HASHERS: dict[str, Callable[[], _Hasher]] = {"blake3": blake3, "sha256": hashlib.sha256}
ALGORITHMS = (XXH128, *_HASHERS)


@dataclass(frozen=True, slots=True)
class SnapshotLine:
    """One live snapshot. time: of its record; started: of its scan; source: `host:path` or a URL; added … deleted: against its
    parent; problems: how many there were; complete: nothing was left out; rollback_of: what a
    rollback brought back, 0 for others."""

    number: int
    time: datetime
    started: datetime
    source: str
    tags: tuple[str, ...]
    entries: int
    bytes: int
    added: int
    changed: int
    moved: int
    deleted: int
    problems: int
    complete: bool
    rollback_of: int = 0


def snapshots(target: TargetSpec, job: Job | None = None) -> list[SnapshotLine]:
    """The live snapshots, oldest first; none is no error. A record that cannot be read is said as a problem and left out."""
    job = job or Job("snapshots")
    with Reading(target, job) as reading:
        job.say(RunStarted("snapshots", "", reading.store.url))
        found = []
        if reading.spoilt is not None:
            job.say(ProblemFound(Problem(reading.spoilt.where, "damaged", reading.spoilt.why)))
        if hold := hold_of(reading.head):
            job.say(Notice("held", f"a sync stops here (exit 11), until one with --release: {hold}"))
        live = reading.head.live if reading.head else log.Live()
        there = log.Live.of(number for number in log.numbers(reading.store) if number in live)
        for number in there:
            try:
                found.append(_line(reading.pick(str(number))))
            except DamageError as error:
                job.say(ProblemFound(Problem(record_key(number), "damaged", error.why, error.hint)))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                job.say(ProblemFound(Problem(record_key(number), "damaged", f"a member is malformed ({error})")))
        if missing := len(live) - len(there):
            first = next(number for number in live if number not in there)
            why = f"it is not there, nor are {missing - 1:,} other records of live snapshots" if missing > 1 else "it is not there"
            job.say(ProblemFound(Problem(record_key(first), "damaged", why, "run `mirror verify`")))
        return found


def _line(record: log.Record) -> SnapshotLine:
    body, totals = record.body, record.body.get("totals", {})
    return SnapshotLine(
        number=record.number,
        time=record.time,
        started=record.started,
        source=source_text(body.get("source", {})),
        tags=tuple(body.get("tags", ())),
        entries=record.manifest.entries,
        bytes=record.manifest.plain,
        added=int(totals.get("added", 0)),
        changed=int(totals.get("changed", 0)),
        moved=int(totals.get("moved", 0)),
        deleted=int(totals.get("deleted", 0)),
        problems=int(body.get("problem_count", 0)),
        complete=bool(body.get("complete", True)),
        rollback_of=int(body.get("rollback_of", 0)),
    )


def source_text(source: dict[str, str]) -> str:
    """Where a snapshot came from, for people.

    >>> source_text({"site": "www", "host": "web1", "path": "/srv/www"}), source_text({"url": "s3://b/p"})
    ('web1:/srv/www', 's3://b/p')
    """
    place = source.get("url") or source.get("path", "")
    return f"{source['host']}:{place}" if "host" in source else place


def ls(target: TargetSpec, at: str = "latest", paths: Sequence[bytes | str] = (), job: Job | None = None) -> Iterator[Entry]:
    """The entries of a snapshot in order of path: all, or those at and below `paths`. UsageError for a path that is not in it."""
    job = job or Job("ls")
    with Reading(target, job) as reading:
        job.say(RunStarted("ls", "", reading.store.url))
        yield from reading.entries(reading.pick(at), paths)


def cat(target: TargetSpec, at: str, path: bytes | str, job: Job | None = None) -> Iterator[bytes]:
    """The content of one file, piece by piece, each proved. UsageError for what is no file, DamageError when one cannot be had."""
    job = job or Job("cat")
    with Reading(target, job) as reading:
        record = reading.pick(at)
        job.say(RunStarted("cat", "", reading.store.url))
        entry = next(reading.entries(record, [path]))
        if not isinstance(entry, File | Page):
            hint = f"it leads to {show(entry.target)}" if isinstance(entry, Symlink) else "`mirror ls` lists what is in it"
            raise UsageError("cannot print", where=show(entry.path), why=f"it is no file but a {kind_of(entry)}", hint=hint)
        with reading.steady(record):
            yield from reading.content(record, entry)


def sums(target: TargetSpec, at: str = "latest", algorithm: str = XXH128, job: Job | None = None) -> Iterator[tuple[str, bytes]]:
    """(hex digest, path) of each file of a snapshot, in order of path. xxh128 comes from the manifest; blake3 and sha256 read all
    contents. A damaged file is said as a problem and left out."""
    job = job or Job("sums")
    if algorithm not in ALGORITHMS:
        raise UsageError("cannot compute sums", why=f"{algorithm!r} is not known", hint=f"known are {', '.join(ALGORITHMS)}")
    with Reading(target, job) as reading:
        record = reading.pick(at)
        job.say(RunStarted("sums", "", reading.store.url))
        files = (entry for entry in reading.entries(record) if isinstance(entry, File | Page))
        if algorithm == XXH128:
            yield from ((fingerprint_hex(entry.fingerprint), entry.path) for entry in files)
            return
        job.say(PhaseBegan("read", record.manifest.entries, record.manifest.plain))
        for group in _groups(files):
            yield from _Sums(reading, record, _HASHERS[algorithm], job).of(group)


def _groups(files: Iterable[File | Page]) -> Iterator[list[File | Page]]:
    """Files whose chunks fit one window together, so that neighbours in a pack are read together; a long list of chunks alone."""
    held: list[File | Page] = []
    ids = size = 0
    for entry in files:
        count = WINDOW_IDS + 1 if entry.more else len(entry.chunks) // 32
        if held and (ids + count > WINDOW_IDS or size + entry.size > WINDOW_BYTES):
            yield held
            held, ids, size = [], 0, 0
        held.append(entry)
        ids, size = ids + count, size + entry.size
    if held:
        yield held


@dataclass
class _Sums:
    """The digests of groups of files whose contents are read."""

    reading: Reading
    record: log.Record
    hasher: Callable[[], _Hasher]
    job: Job

    def of(self, group: list[File | Page]) -> Iterator[tuple[str, bytes]]:
        try:
            digests = list(self._digests(group))
        except DamageError as error:
            if len(group) > 1:  # one of them: the others are all right
                for entry in group:
                    yield from self.of([entry])
                return
            hint = "`mirror verify` names all that is affected"
            self.job.say(ProblemFound(Problem(show(group[0].path), "damaged", f"{error.what} {error.where}: {error.why}", hint)))
            return
        self.job.say(Advanced(len(group), sum(entry.size for entry in group)))
        yield from zip(digests, (entry.path for entry in group), strict=True)

    def _digests(self, group: list[File | Page]) -> Iterator[str]:
        if group[0].more or self.reading.target.tree:
            for entry in group:
                yield self._digest(entry, self._long(entry))
            return
        lists = [split_ids(entry.chunks) for entry in group]
        chunks = self.reading.contents(self.record, (id_ for ids in lists for id_ in ids))
        for entry, ids in zip(group, lists, strict=True):
            yield self._digest(entry, (next(chunks) for _ in ids))

    def _long(self, entry: File | Page) -> Iterator[bytes]:
        with self.reading.steady(self.record):
            yield from self.reading.content(self.record, entry)

    def _digest(self, entry: File | Page, chunks: Iterable[bytes]) -> str:
        digest, size = self.hasher(), 0
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
        if size != entry.size:
            raise DamageError(
                "cannot use", where=show(entry.path), why=f"its chunks have {size} bytes together, the entry says {entry.size}"
            )
        return digest.hexdigest()
