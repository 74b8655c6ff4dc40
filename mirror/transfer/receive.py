"""The coordinator of a transfer down: files to batches, batches to workers, drafts of huge files to their end.

Files are taken in path order, since neighbours share blocks; a batch holds 64 MiB. A file larger than that is cut into parts
for several workers: its draft is made here and renamed here when all parts are there. What a worker finds damaged is looked for
once more after `look_again` says that the head has moved; then it is damage.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
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
from mirror.workers import Crew

_ASK_FILES = 2048
_ASK_BYTES = 16 << 20
_PART_IDS = 1024


class Task(NamedTuple):
    """A file to bring into the tree: its entry, the metadata to set, whether a same one may stay (--checksum)."""

    entry: File
    what: Description
    compare: bool = False


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

    failed: paths that could not be written. unset: sentences about metadata, by path."""

    job_spec: down.Job
    crew: Crew
    writer: FolderWriter
    ids: Callable[[File], Iterator[ChunkId]]
    places: Callable[[Iterable[ChunkId]], dict[ChunkId, Location]]
    look_again: Callable[[], bool]
    job: Job
    on_problem: Callable[[Problem], None]
    on_unset: Callable[[bytes, str], None]
    requests: Counts = field(default_factory=Counts)
    bytes_written: int = 0
    files_written: int = 0
    files_kept: int = 0
    failed: int = 0
    _second: list[Task] = field(default_factory=list)
    _whys: dict[bytes, str] = field(default_factory=dict)
    _tasks: dict[bytes, Task] = field(default_factory=dict)
    _parts: dict[bytes, _Parts] = field(default_factory=dict)
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)

    def run(self, tasks: Iterable[Task]) -> None:
        """Write them all. OSError ENOSPC when the disk is full."""
        try:
            self._round(tasks)
            again, self._second = self._second, []
            if again and self.look_again():
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
            ((self.job_spec, files) for files in self._batches(tasks)),
            on_begin=lambda number: self.job.say(BatchSent(number)),
        )
        for number, outcome in outcomes:
            files, size = self._sizes.pop(number)
            self.requests += outcome.counts
            self.bytes_written += outcome.bytes_written
            for result in outcome.files:
                self._result(result)
            self.job.say(BatchStored(number, outcome.bytes_written))
            self.job.say(Advanced(files, size))
        for parts in list(self._parts.values()):
            self._finish_parts(parts)

    # -- batches -------------------------------------------------------------------------------------------------

    def _batches(self, tasks: Iterable[Task]) -> Iterator[list[down.Wanted]]:
        batch: list[down.Wanted] = []
        size = number = 0
        for wanted, length in self._wanted(tasks):
            if batch and (size + length > BATCH_BYTES or len(batch) >= BATCH_FILES):
                yield self._planned(number, batch, size)
                batch, size, number = [], 0, number + 1
            batch.append(wanted)
            size += length
        if batch:
            yield self._planned(number, batch, size)

    def _planned(self, number: int, batch: list[down.Wanted], size: int) -> list[down.Wanted]:
        self._sizes[number] = (sum(not wanted.draft for wanted in batch), size)
        self.job.say(BatchPlanned(number, len(batch), size))
        return batch

    def _wanted(self, tasks: Iterable[Task]) -> Iterator[tuple[down.Wanted, int]]:
        """Files with the places of their chunks, and the bytes to write; places are asked for many files at once."""
        held: list[Task] = []
        size = 0
        for task in tasks:
            if task.entry.size > BATCH_BYTES:
                yield from self._located(held)
                held, size = [], 0
                yield from self._huge(task)
                continue
            held.append(task)
            size += task.entry.size
            if len(held) >= _ASK_FILES or size >= _ASK_BYTES:
                yield from self._located(held)
                held, size = [], 0
        yield from self._located(held)

    def _located(self, tasks: list[Task]) -> Iterator[tuple[down.Wanted, int]]:
        lists = [list(self.ids(task.entry)) for task in tasks]
        places = self.places(id_ for ids in lists for id_ in ids)
        for task, ids in zip(tasks, lists, strict=True):
            entry = task.entry
            pieces, end = _pieces(ids, places, 0)
            if pieces is None or end != entry.size:
                self._later(
                    task,
                    "the index has no place for a part of it"
                    if pieces is None
                    else f"its chunks have {end} bytes, the manifest says {entry.size}",
                )
                continue
            self._tasks[entry.path] = task
            yield down.Wanted(entry.path, entry.size, entry.fingerprint, task.what, pieces, compare=task.compare), entry.size

    def _huge(self, task: Task) -> Iterator[tuple[down.Wanted, int]]:
        entry = task.entry
        try:
            draft = self.writer.draft(entry.path)
            os.truncate(draft.fd, entry.size)
        except OSError as error:
            self._problem(entry.path, *down.why_not(error))
            return
        parts = self._parts[entry.path] = _Parts(task, draft)
        at = 0
        for ids in _groups(self.ids(entry), _PART_IDS):
            pieces, end = _pieces(ids, self.places(ids), at)
            if pieces is None or end > entry.size:
                self._fail_parts(parts, "the index has no place for a part of it, or its chunks are too long")
                break
            for some in _by_size(pieces):
                parts.left += 1
                yield down.Wanted(entry.path, entry.size, b"", task.what, some, draft.name), sum(p.place.length for p in some)
            at = end
        if at != entry.size:
            self._fail_parts(parts, f"its chunks have {at} bytes, the manifest says {entry.size}")
        parts.all_sent = True

    # -- results -------------------------------------------------------------------------------------------------

    def _result(self, result: down.Written) -> None:
        if result.part:
            parts = self._parts.get(result.path)
            if parts is None:
                return
            parts.left -= 1
            if result.problem:
                self._fail_parts(parts, result.why)
            self._finish_parts(parts)
            return
        task = self._tasks.pop(result.path)
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


def _pieces(ids: list[ChunkId], places: dict[ChunkId, Location], at: int) -> tuple[list[down.Piece] | None, int]:
    pieces = []
    for id_ in ids:
        place = places.get(id_)
        if place is None:
            return None, at
        pieces.append(down.Piece(id_, place, at))
        at += place.length
    return pieces, at


def _groups(ids: Iterable[ChunkId], most: int) -> Iterator[list[ChunkId]]:
    held: list[ChunkId] = []
    for id_ in ids:
        held.append(id_)
        if len(held) >= most:
            yield held
            held = []
    if held:
        yield held


def _by_size(pieces: list[down.Piece]) -> Iterator[list[down.Piece]]:
    held: list[down.Piece] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += piece.place.length
        if size >= BATCH_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held
