"""Drafts of many files at once, for whoever has no site to read them from: out of packs, or as copies of live files that hold the
same.

A draft lies in the staging place as a restored file lies in its folder, so what brings files down brings drafts as well
(transfer/receive.py): batches in order of path, each block of a pack unpacked once a batch, every chunk proved, several processes.

A draft that a run before this one left is read; if it is right, it stays.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

import msgspec

from mirror import log
from mirror.compare import same_content
from mirror.copies import ANYWHERE, CHANGED_SINCE, Copies
from mirror.events import PROBLEMS_KEPT, PhaseBegan, Problem
from mirror.keys import show
from mirror.lacking import Lacking
from mirror.manifest import File, Ref
from mirror.publish_folder import description
from mirror.site.live import LiveTree, is_ours
from mirror.site.open import open_site
from mirror.site.writing import FolderWriter
from mirror.snapshot import ManifestReader
from mirror.spool import Spool
from mirror.steps import Step, Works
from mirror.store.errnos import error_for
from mirror.store.wrap import Counts
from mirror.transfer import down
from mirror.transfer.receive import Receiver, Task
from mirror.workers import Crew

_LARGE_BYTES, _LARGE_FILES = 48 << 20, 4000  # from which worker processes pay


@dataclass
class Drafts:
    """The drafts of one publish. lost: why there is none of a file, (problem kind, why) by path as people see it; the first 10,000.
    files, size: that were written, and their bytes; unset: drafts whose metadata could not be set as it should be. lacking: which
    live files have single chunks that no pack has; None where a content is in packs or in one live file as a whole."""

    works: Works
    live: LiveTree
    dooms: log.Dooms
    files: int = 0
    size: int = 0
    unset: int = 0
    requests: Counts = field(default_factory=Counts)
    lost: dict[str, tuple[str, str]] = field(default_factory=dict)
    lacking: Lacking | None = None
    _failed: dict[str, tuple[str, str]] = field(default_factory=dict)  # by name of the draft

    def make(self, steps: Spool[Step], newest: Ref | None, old: Ref) -> None:
        """Make a draft of each file whose content is to change. What can be had from nowhere is in `lost`. TemporaryError when the
        disk is full. newest: the manifest of what is live, None where nothing is; old: the one that the files are of."""
        works, staging = self.works, self.live.staging
        count, size = extent(steps, works.reader)
        works.job.say(PhaseBegan("transfer", count, size))
        crew = works.crew() if size >= _LARGE_BYTES or count >= _LARGE_FILES else Crew(0)
        spec = works.target.spec.store  # the limit holds for all processes together
        spec = replace(spec, bandwidth=spec.bandwidth // max(crew.processes, 1))
        copies = Copies(open_site(self.live.spec), works.reader, works.target.state.db)
        if newest is not None and self.lacking is None:
            copies.look(old, newest, CHANGED_SINCE)
        writer = FolderWriter(staging.path)
        looked = False

        def look_again() -> bool:
            nonlocal looked
            if looked or newest is None or self.lacking is not None:
                return False
            looked = True
            works.index.refresh(self.dooms, lambda key, error: None)  # what is wrong there was said before
            copies.look(old, newest, ANYWHERE)
            return True

        receiver = Receiver(
            down.Job(staging.path, spec, works.index.path, self.live.spec),
            crew,
            writer,
            works.reader.chunk_ids,
            works.index.places,
            look_again,
            works.job,
            self._fail,
            self._not_set,
            copies.paths if self.lacking is None else None,
        )
        try:
            receiver.run(self._tasks(steps))
        except OSError as error:
            raise error_for(error, "cannot write", staging.path) from error
        finally:
            down.release()
            writer.close()
        self.files, self.size, self.requests = receiver.files_written, receiver.bytes_written, receiver.requests
        if self._failed:
            self._settle_failed(steps)

    def _tasks(self, steps: Iterable[Step]) -> Iterator[Task]:
        works, staging = self.works, self.live.staging
        for step in steps:
            path = step.path
            if not is_fresh(step, works.reader):
                staging.drop(path)  # of a run that died: nobody may take it for one of this run
                continue
            after = step.after
            assert isinstance(after, File)
            seen = staging.stat(path)
            there = seen is not None and stat.S_ISREG(seen.st_mode) and seen.st_size == after.size
            if seen is not None and not there:
                staging.drop(path)
            donors = self.lacking.donors(after) if self.lacking is not None else ()
            yield Task(msgspec.structs.replace(after, path=self._name(path)), description(after, works.owners), there, donors)

    def _name(self, path: bytes) -> bytes:
        """Where a path's draft is, below the staging place."""
        _, name = self.live.staging.place(path)
        return name[:1] + b"/" + name

    def _fail(self, problem: Problem) -> None:
        self._failed[problem.path] = (problem.kind, problem.why)

    def _not_set(self, name: bytes, sentence: str) -> None:
        self.unset += 1

    def _settle_failed(self, steps: Iterable[Step]) -> None:
        """What failed is known by the names of drafts: by which paths?"""
        for step in steps:
            path = step.path
            why = self._failed.get(show(self._name(path)))
            if why is not None:
                self.live.staging.drop(path)
                if len(self.lost) < PROBLEMS_KEPT:
                    self.lost[show(path)] = why


def is_fresh(step: Step, reader: ManifestReader) -> bool:
    """Whether a path is to get a content that it does not have."""
    before, after = step.before, step.after
    if not isinstance(after, File) or after.link or is_ours(after.path):
        return False
    return before is None or not same_content(before, after, reader)


def extent(steps: Iterable[Step], reader: ManifestReader) -> tuple[int, int]:
    """(files, plain bytes) of drafts that are needed."""
    count = size = 0
    for step in steps:
        if is_fresh(step, reader):
            assert isinstance(step.after, File)
            count, size = count + 1, size + step.after.size
    return count, size
