"""`mirror restore`: bring a snapshot, or a part of it, back into a folder, a bucket, or whatever fsspec can write.

    report = restore(TargetSpec(StoreSpec("/backup/www")), "/srv/www", RestoreOptions(at="2026-11-20T03:00"))

The same difference as sync, ends exchanged: OUT is scanned, compared with the snapshot, and only what differs is written: by
`mirror.rebuild` into a folder, which keeps all that a snapshot has, by `mirror.refill` into the other places. The target is only
read.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Protocol

from mirror.errors import DeletionGuardError, InterruptedRunError, UsageError
from mirror.events import Change, Job, Notice, PhaseBegan, Problem, ProblemFound, ProblemReport, RunStarted
from mirror.intent import Done, Errand, Intent, wanted_of
from mirror.keys import parent_of, plain_path, show
from mirror.log import Record
from mirror.manifest import Entry, File, Folder, Page, Redirect, Symlink
from mirror.owners import Owners
from mirror.pick import Reading
from mirror.plan import CHANGED, DELETED, DESCRIBED, NEW, DeletionLimit, Drop, Fetch, Put
from mirror.rebuild import FolderOut
from mirror.refill import SiteOut, check_apart
from mirror.site import MODES, Filter, SiteSpec
from mirror.site.filters import Matcher
from mirror.site.open import open_writable
from mirror.store.errnos import error_for
from mirror.store.open import folder_of, is_folder_url
from mirror.survey import Survey, check_all_ends
from mirror.target import TargetSpec


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """paths: what to bring back, all when empty. at: which snapshot. delete: extra files go. chown: USER[:GROUP]; chmod:
    [D|F]OCTAL,…; transfers: requests to an OUT that is no folder in flight."""

    paths: tuple[bytes, ...] = ()
    at: str = "latest"
    in_place: bool = False
    dry_run: bool = False
    delete: bool = False
    overwrite: str = "always"
    checksum: bool = False
    strict_metadata: bool = False
    numeric_ids: bool = False
    chown: str = ""
    chmod: str = ""
    max_delete: DeletionLimit = DeletionLimit()
    filter: Filter = Filter(ignore_files=False)
    delete_excluded: bool = False
    workers: int = 2
    transfers: int = 8
    max_duration: float | None = None
    command: str = "mirror restore"


@dataclass
class RestoreReport(ProblemReport):
    """What a restore did. bytes_written: of files; bytes_read: of the target; files: written; kept: found the same by
    --checksum."""

    target: str = ""
    out: str = ""
    site: str = ""
    snapshot: int = 0
    dry_run: bool = False
    entries: int = 0
    bytes: int = 0
    added: int = 0
    changed: int = 0
    described: int = 0
    deleted: int = 0
    extra: int = 0
    same: int = 0
    files_written: int = 0
    files_kept: int = 0
    bytes_written: int = 0
    bytes_read: int = 0
    seconds: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    notices: list[str] = field(default_factory=list)
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)


def restore(
    target: TargetSpec, out: str | SiteSpec, options: RestoreOptions | None = None, job: Job | None = None
) -> RestoreReport:
    """Bring the snapshot back into `out`; raises the errors of `mirror.errors`, reports problems of single paths."""
    options = options or RestoreOptions()
    job = job or Job("restore")
    began = time.monotonic()
    spec = out if isinstance(out, SiteSpec) else SiteSpec(out)
    where = str(folder_of(spec.url)) if is_folder_url(spec.url) else spec.url
    check_all_ends(where, target, "cannot restore into")
    try:
        with Reading(target, job) as reading:
            run = _Run(reading, reading.pick(options.at), spec, options, job, began)
            job.say(RunStarted("restore", f"{reading.store.url} snapshot {run.record.number}", run.out.url, options.dry_run))
            with closing(run.out):
                report = run.run()
    except KeyboardInterrupt:
        hint = "what is complete stays; run it again with --in-place to go on"
        raise InterruptedRunError("interrupted", hint=hint) from None
    except OSError as error:
        raised = error_for(error, "cannot write to", where)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raised.hint = "make room there, then run it again with --in-place to go on"
        raise raised from error
    report.seconds = time.monotonic() - began
    return report


class Out(Protocol):
    """Where a restore goes. It may be asked of one restore only."""

    not_there: str  # what helps when a description could not be restored
    intent: Intent

    @property
    def url(self) -> str:
        """As a person would call it."""
        ...

    def adapted(self, entry: Folder | File | Symlink) -> tuple[Entry | None, Problem | None]:
        """What of an entry is to be there, None for nothing, and what is wrong with that. Entries come in order."""
        ...

    def compare(self, wanted: Iterable[Entry], filter: Filter, on_problem: Callable[[Problem], None]) -> tuple[Survey, bool]:
        """The difference to what is there, and whether anything is there. UsageError when nothing can be written there."""
        ...

    def check_space(self, wanted: int) -> None:
        """TemporaryError where so many bytes do not fit."""
        ...

    def write(self, errand: Errand) -> Done:
        """Do it. OSError when there is no room; DurationLimitError."""
        ...

    def lost(self) -> tuple[int, str]:
        """Of how many entries something was not restored, and what: one sentence."""
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


class _Run:
    """One restore."""

    def __init__(self, reading: Reading, record: Record, spec: SiteSpec, options: RestoreOptions, job: Job, began: float) -> None:
        self.reading, self.record, self.options, self.job = reading, record, options, job
        self.matcher = Matcher(replace(options.filter, ignore_files=False)) if options.filter.rules else None
        paths = tuple(plain_path(path) for path in options.paths)
        above = {entry.path: entry for entry in reading.at_paths(record, _above(paths)) if isinstance(entry, Folder)}
        deadline = began + options.max_duration if options.max_duration is not None else None
        self.intent = Intent(
            paths, b"" in above, options.delete, options.overwrite, options.checksum, options.workers, deadline, options.in_place
        )
        self.out = self._open(spec, above)
        self.intent = self.out.intent
        self.report = RestoreReport(reading.store.url, self.out.url, reading.target.site, record.number, options.dry_run)
        self.unset = self.bytes_wanted = 0
        self.unset_first = ""

    def _open(self, spec: SiteSpec, above: dict[bytes, Folder]) -> Out:
        options = self.options
        owners = Owners(options.numeric_ids, options.chown, options.chmod)
        if is_folder_url(spec.url):
            return FolderOut(str(folder_of(spec.url)), self.intent, owners, above, self._comes_along)
        # The rules are those of this run; what stands there has none of its own.
        site = open_writable(replace(spec, filter=Filter(ignore_files=False)))
        check_apart(site, self.reading.target.spec.store.url)
        if (options.chown or options.chmod) and MODES not in site.keeps:
            flag = "--chown" if options.chown else "--chmod"
            raise UsageError(f"cannot use {flag}", why=f"{site.url} keeps no owners or modes", hint="leave it out")
        return SiteOut(site, self.intent, options.transfers)

    def _comes_along(self, path: bytes) -> bool:
        """Whether a path of the snapshot is part of this restore."""
        return self.intent.chosen(path) and not (self.matcher and self.matcher.protects(path))

    def run(self) -> RestoreReport:
        """Compare, guard, show or do."""
        report, options = self.report, self.options
        self.job.say(PhaseBegan("scan"))
        # With --delete-excluded nothing in OUT is protected: what the rules leave out is not wanted, so it is extra.
        filter = Filter(ignore_files=False) if options.delete_excluded else options.filter
        survey, filled = self.out.compare(self._wanted(), filter, self._problem)
        with survey:
            self._count(survey)
            if filled and not options.in_place and not options.dry_run:
                raise UsageError(
                    "cannot restore into",
                    where=self.out.url,
                    why=self._would(),
                    hint="add --in-place if that is right, or name an empty folder",
                )
            self._guard(survey)
            if options.dry_run:
                self._show(survey)
                return report
            self.out.check_space(self.bytes_wanted)
            if len(survey.plan):
                self._write(survey)
            self._say_unset()
        return report

    def _write(self, survey: Survey) -> None:
        report = self.report
        if self.bytes_wanted:
            _ = self.reading.index  # where it cannot be had, that is said before anything is written
        done = self.out.write(
            Errand(self.reading, self.record, survey, self.bytes_wanted, self.job, self._problem, self._not_set, self._notice)
        )
        requests = self.reading.store.counts + done.requests
        report.requests = requests.by_kind
        report.bytes_read, report.deleted = requests.bytes_down, done.deleted
        report.files_written, report.files_kept, report.bytes_written = done.files_written, done.files_kept, done.bytes_written

    # -- before anything is written ------------------------------------------------------------------------------

    def _wanted(self) -> Iterator[Entry]:
        """The snapshot's entries as they are to be in OUT."""
        for entry in self.reading.entries(self.record, self.options.paths):
            if self.matcher and self.matcher.protects(entry.path):
                continue
            self.report.entries += 1
            if isinstance(entry, Redirect):
                self._problem(Problem(show(entry.path), "special", "a redirect is no file"))
                continue
            if isinstance(entry, Page):
                entry = File(entry.path, entry.size, entry.fingerprint, entry.class_, entry.chunks, entry.more, entry.mtime)
            if isinstance(entry, File):
                self.report.bytes += entry.size
            adapted, problem = self.out.adapted(entry)
            if problem:
                self._problem(problem)
            if adapted is not None:
                yield adapted

    def _count(self, survey: Survey) -> None:
        counts, report = survey.counts, self.report
        report.added, report.changed, report.described, report.same = counts.deleted, counts.changed, counts.described, counts.same
        for item in survey.plan:
            if self.intent.is_extra(item):
                report.extra += 1
            elif not self.intent.may_replace(item):
                described = isinstance(item, Put) and item.symbol == DESCRIBED
                report.described -= described
                report.changed -= not described
            elif (
                isinstance(wanted := wanted_of(item), File)
                and not wanted.link
                and not (isinstance(item, Put) and item.symbol == DESCRIBED)
            ):
                self.bytes_wanted += wanted.size

    def _would(self) -> str:
        report = self.report
        return (
            f"it is not empty: {report.added:,} entries would be added, {report.changed:,} replaced, "
            f"{report.described:,} described anew, and {report.extra:,} others {'deleted' if self.options.delete else 'left alone'}"
        )

    def _guard(self, survey: Survey) -> None:
        options, report = self.options, self.report
        if not options.delete or survey.incomplete or options.max_delete.allows(report.extra, survey.counts.scanned):
            return
        raise DeletionGuardError(
            "stopped before anything was written",
            where=self.out.url,
            why=f"{report.extra:,} of {survey.counts.scanned:,} entries would be deleted, the limit is {options.max_delete}",
            hint=f"if that is right, accept it once: {options.command} --max-delete {report.extra}",
        )

    def _show(self, survey: Survey) -> None:
        for item in survey.plan:
            if self.intent.is_extra(item):
                if self.options.delete:
                    self._say(DELETED, item.entry)
            elif (wanted := wanted_of(item)) is not None and self.intent.may_replace(item):
                symbol = NEW if isinstance(item, Drop) else CHANGED if isinstance(item, Fetch) else item.symbol
                self._say(symbol, wanted)

    # -- small things --------------------------------------------------------------------------------------------

    def _say(self, symbol: str, entry: Entry) -> None:
        self.job.say(Change(symbol, show(entry.path), entry.size if isinstance(entry, File) else 0))

    def _problem(self, problem: Problem) -> None:
        self.report.add(problem)
        self.job.say(ProblemFound(problem))

    def _notice(self, text: str) -> None:
        self.report.notices.append(text)
        self.job.say(Notice("restore", text))

    def _not_set(self, path: bytes, sentence: str) -> None:
        self.unset += 1
        self.unset_first = self.unset_first or f"{show(path)}: {sentence}"

    def _say_unset(self) -> None:
        """One counted notice; with --strict-metadata a problem that makes the exit code 23."""
        lost, sentence = self.out.lost()
        if lost:
            self._notice(sentence)
        if self.unset:
            self._notice(f"metadata of {self.unset:,} entries could not be set, first {self.unset_first}")
        if self.options.strict_metadata and (lost + self.unset):
            why = f"metadata of {lost + self.unset:,} entries was not restored"
            self._problem(Problem(self.out.url, "metadata", why, f"{self.out.not_there}, or leave out --strict-metadata"))


def _above(paths: tuple[bytes, ...]) -> list[bytes]:
    """The folders over some paths, the root among them."""
    found = {b""}
    for path in paths:
        while path := parent_of(path):
            found.add(path)
            path = path[:-1]
    return sorted(found)
