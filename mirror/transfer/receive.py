"""The coordinator of a transfer down: files to batches, batches to workers, drafts of huge files to their end.

Files are taken in path order, since neighbours share blocks; a batch holds 64 MiB. A file larger than that is cut into parts
for several workers: its draft is made here and renamed here when all parts are there. What a worker finds damaged is looked for
once more after `look_again` says that the head has moved; then it is damage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from mirror.chunking import ChunkId
from mirror.events import Advanced, BatchPlanned, BatchSent, BatchStored, Job, Problem
from mirror.keys import show
from mirror.lookup import Location
from mirror.manifest import File
from mirror.plan import BATCH_BYTES, BATCH_FILES
from mirror.site.writing import Description, Draft, FolderWriter
from mirror.store.wrap import Counts
from mirror.transfer import down
from mirror.transfer.donors import Donor
from mirror.workers import Crew

_ASK_IDS = 1024
_PART_IDS = 65_536  # of one batch; files of ours have 16,384 at most in its 64 MiB


class Task(NamedTuple):
    """A file to bring into the tree: its entry, the metadata to set, whether a same one may stay (--checksum). donors: live files
    that have what packs have not of it."""

    entry: File
    what: Description
    compare: bool = False
    donors: tuple[Donor, ...] = ()


@dataclass
class _Parts:
    """A huge file on its way: its draft, how many parts are not back yet."""

    task: Task
    draft: Draft
    left: int = 0
    all_sent: bool = False
    failed: bool = False


@dataclass
class Receiver:
    """One transfer. ids: the chunk ids of an entry; places: where chunks are; look_again: whether the index is fresher now.

    live: paths of a live tree that may have what packs have not. failed: paths that could not be written. unset: sentences about
    metadata, by path."""

    job_spec: down.Job
    crew: Crew
    writer: FolderWriter
    ids: Callable[[File], Iterator[ChunkId]]
    places: Callable[[Iterable[ChunkId]], dict[ChunkId, Location]]
    look_again: Callable[[], bool]
    job: Job
    on_problem: Callable[[Problem], None]
    on_unset: Callable[[bytes, str], None]
    live: Callable[[File], tuple[bytes, ...]] | None = None
    requests: Counts = field(default_factory=Counts)
    bytes_written: int = 0
    files_written: int = 0
    files_kept: int = 0
    failed: int = 0
    _second: list[Task] = field(default_factory=list)
    _whys: dict[bytes, str] = field(default_factory=dict)
    _tasks: dict[int, dict[bytes, Task]] = field(default_factory=dict)
    _parts: dict[bytes, _Parts] = field(default_factory=dict)
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def run(self, tasks: Iterable[Task]) -> None:
        """Write them all. OSError ENOSPC when the disk is full."""
        try:
            self._round(tasks)
            again, self._second = self._second, []
            while again and self.look_again():
                self._round(again)
                again, self._second = self._second, []
            for task in again:
                self._problem(task.entry.path, "damaged", self._whys[task.entry.path])
        finally:
            for parts in self._parts.values():
                os.close(parts.draft.fd)
                self.writer.drop(parts.task.entry.path, parts.draft.name)

    def _round(self, tasks: Iterable[Task]) -> None:
        outcomes = self.crew.run(
            down.run_batch,
            ((self.job_spec, down.encode_batch(files)) for files in self._batches(tasks)),
            on_begin=lambda number: self.job.say(BatchSent(number)),
        )
        for number, outcome in outcomes:
            files, size = self._sizes.pop(number)
            self.requests += outcome.counts
            self.bytes_written += outcome.bytes_written
            self.files_written += outcome.written
            tasks_of = self._tasks.pop(number)
            for result in outcome.files:
                self._result(result, tasks_of)
            self.job.say(BatchStored(number, outcome.bytes_written))
            self.job.say(Advanced(files, size))
        for parts in list(self._parts.values()):
            self._finish_parts(parts)

    # -- batches -------------------------------------------------------------------------------------------------

    def _batches(self, tasks: Iterable[Task]) -> Iterator[list[down.Wanted]]:
        batch: list[down.Wanted] = []
        held: dict[bytes, Task] = {}
        size = number = 0
        for task in tasks:
            in_parts = _is_huge(task.entry) and not task.donors and not self._is_only_live(task.entry)
            for wanted, length in self._huge(task) if in_parts else self._whole(task):
                if batch and (size + length > BATCH_BYTES or len(batch) >= BATCH_FILES):
                    yield self._planned(number, batch, size, held)
                    batch, size, number, held = [], 0, number + 1, {}
                batch.append(wanted)
                size += length
                held[wanted.path] = task
        if batch:
            yield self._planned(number, batch, size, held)

    def _planned(self, number: int, batch: list[down.Wanted], size: int, held: dict[bytes, Task]) -> list[down.Wanted]:
        self._sizes[number] = (sum(not wanted.draft for wanted in batch), size)
        self._tasks[number] = held
        self.job.say(BatchPlanned(number, len(batch), size))
        return batch

    def _whole(self, task: Task) -> Iterator[tuple[down.Wanted, int]]:
        entry = task.entry
        ids = entry.chunks if entry.more is None else b"".join(self.ids(entry))
        live = self.live(entry) if self.live else ()
        wanted = down.Wanted(
            entry.path,
            entry.size,
            entry.fingerprint,
            task.what,
            ids,
            compare=task.compare,
            live=live,
            class_=entry.class_,
            donors=task.donors,
        )
        yield wanted, entry.size

    def _is_only_live(self, entry: File) -> bool:
        """Whether a file is in no packs, or was looked for there in vain: then it is copied as a whole."""
        if self.live is None:
            return False
        if entry.path in self._whys:
            return True
        some = list(islice(self.ids(entry), _ASK_IDS))
        return len(self.places(some)) < len(set(some))

    def _huge(self, task: Task) -> Iterator[tuple[down.Wanted, int]]:
        entry = task.entry
        try:
            draft = self.writer.draft(entry.path, entry.size)
        except OSError as error:
            self._problem(entry.path, *down.why_not(error))
            return
        parts = self._parts[entry.path] = _Parts(task, draft)
        start = at = 0
        part: list[ChunkId] = []
        for ids in _groups(self.ids(entry), _ASK_IDS):
            found = self.places(ids)
            for id_ in ids:
                place = found.get(id_)
                if place is None or at + place.length > entry.size:
                    self._fail_parts(parts, "the index has no place for a part of it, or its chunks are too long")
                    parts.all_sent = True
                    return
                part.append(id_)
                at += place.length
                if at - start >= BATCH_BYTES or len(part) >= _PART_IDS or at == entry.size:
                    parts.left += 1
                    yield down.Wanted(entry.path, entry.size, b"", task.what, b"".join(part), draft.name, start), at - start
                    part, start = [], at
        if at != entry.size:
            self._fail_parts(parts, f"its chunks have {at} bytes, the manifest says {entry.size}")
        parts.all_sent = True

    # -- results -------------------------------------------------------------------------------------------------

    def _result(self, result: down.Written, tasks: dict[bytes, Task]) -> None:
        if result.part:
            parts = self._parts.get(result.path)
            if parts is None:
                return
            parts.left -= 1
            if result.problem:
                self._fail_parts(parts, result.why)
            self._finish_parts(parts)
            return
        task = tasks[result.path]
        if result.problem == "damaged":
            self._later(task, result.why)
        elif result.problem:
            self._problem(result.path, result.problem, result.why)
        else:
            self.files_written += not result.kept
            self.files_kept += result.kept
        for sentence in result.unset:
            self.on_unset(result.path, sentence)

    def _fail_parts(self, parts: _Parts, why: str) -> None:
        if not parts.failed:
            parts.failed = True
            self._later(parts.task, why)

    def _finish_parts(self, parts: _Parts) -> None:
        if parts.left or not parts.all_sent:
            return
        path = parts.task.entry.path
        self._parts.pop(path, None)
        try:
            if parts.failed:
                self.writer.drop(path, parts.draft.name)
                return
            for sentence in self.writer.describe(parts.draft.fd, parts.task.what):
                self.on_unset(path, sentence)
            self.writer.settle()
            self.writer.put(parts.draft, path)
            self.files_written += 1
            self.job.say(Advanced(1, 0))
        except OSError as error:
            self.writer.drop(path, parts.draft.name)
            self._problem(path, *down.why_not(error))
        finally:
            os.close(parts.draft.fd)

    def _later(self, task: Task, why: str) -> None:
        self._whys[task.entry.path] = why
        self._second.append(task)

    def _problem(self, path: bytes, kind: str, why: str) -> None:
        self.failed += 1
        self.on_problem(Problem(show(path), kind, why))


def _is_huge(entry: File) -> bool:
    return entry.size > BATCH_BYTES or (entry.more is not None and entry.more.entries > _PART_IDS)


def _groups(ids: Iterable[ChunkId], most: int) -> Iterator[list[ChunkId]]:
    held: list[ChunkId] = []
    for id_ in ids:
        held.append(id_)
        if len(held) >= most:
            yield held
            held = []
    if held:
        yield held
