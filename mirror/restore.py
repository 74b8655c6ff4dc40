"""`mirror restore`: bring a snapshot, or a part of it, back into a folder.

    report = restore(TargetSpec(StoreSpec("/backup/www")), "/srv/www", RestoreOptions(at="2026-11-20T03:00"))

The same difference as sync, ends exchanged: the folder is scanned, compared with the snapshot, and only what differs is
written. Order: folders, files (through drafts), links, deletions, and the folders' own metadata last, from the leaves up. The
target is only read.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial

from mirror.errors import (
    DeletionGuardError,
    InterruptedRunError,
    TemporaryError,
    UsageError,
    worst_exit,
)
from mirror.events import Change, Job, Notice, PhaseBegan, Problem, ProblemFound, RunStarted
from mirror.keys import parent_of, show
from mirror.log import Record
from mirror.manifest import Entry, File, Folder, Page, Redirect, Symlink, decode_entry, encode
from mirror.owners import Owners
from mirror.pick import Reading
from mirror.plan import CHANGED, DELETED, DESCRIBED, NEW, DeletionLimit, Drop, Fetch, Item, Put
from mirror.site import Filter, Seen, Site
from mirror.site.files import FolderSite
from mirror.site.writing import TEMPORARY, Description, FolderWriter
from mirror.spool import Spool
from mirror.store.wrap import Counts as Requests
from mirror.survey import LookOptions, Survey, check_ends, look
from mirror.target import TargetSpec, folder_of, is_folder_url
from mirror.transfer import down
from mirror.transfer.down import why_not
from mirror.transfer.receive import Receiver, Task
from mirror.workers import Crew

_SMALL_BYTES, _SMALL_FILES = 32 << 20, 2000


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """paths: what to bring back, all when empty. at: which snapshot. delete: extra files go. chown: USER[:GROUP]; chmod:
    [D|F]OCTAL,…"""

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
    max_duration: float | None = None
    command: str = "mirror restore"


@dataclass
class RestoreReport:
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
    problems: list[Problem] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or what the problems make of the run."""
        return worst_exit({problem.exit_code for problem in self.problems} - {0})


def restore(target: TargetSpec, out: str, options: RestoreOptions | None = None, job: Job | None = None) -> RestoreReport:
    """Bring the snapshot back into the folder `out`; raises the errors of `mirror.errors`, reports problems of single paths."""
    options = options or RestoreOptions()
    job = job or Job("restore")
    began = time.monotonic()
    if not is_folder_url(out):
        raise UsageError("cannot restore into", where=out, why="it is no local folder")
    folder = str(folder_of(out))
    check_ends(folder, target.store.url)
    owners = Owners(options.numeric_ids, options.chown, options.chmod)
    try:
        with Reading(target, job) as reading:
            record = reading.pick(options.at)
            job.say(RunStarted("restore", f"{reading.store.url} snapshot {record.number}", folder, options.dry_run))
            run = _Run(reading, record, folder, options, owners, job)
            report = run.run()
    except KeyboardInterrupt:
        hint = "what is complete stays; run it again with --in-place to go on"
        raise InterruptedRunError("interrupted", hint=hint) from None
    except OSError as error:
        raise TemporaryError(
            "cannot write to",
            where=folder,
            why=error.strerror or str(error),
            hint="free some space, then run it again with --in-place to go on",
            kind="disk-full",
        ) from error
    report.seconds = time.monotonic() - began
    return report


class _Empty:
    """A site that is not there yet, for the comparison with a folder still to be made."""

    url = ""
    identity: dict[str, str] = {}  # noqa: RUF012 - never changed

    def scan(self, matcher: object = None) -> Iterator[Seen]:
        yield from ()


@dataclass
class _Run:
    reading: Reading
    record: Record
    out: str
    options: RestoreOptions
    owners: Owners
    job: Job
    report: RestoreReport = field(default_factory=RestoreReport)
    folders: Spool[Entry] = field(default_factory=lambda: Spool(encode, decode_entry))
    unset: int = 0
    unset_first: str = ""
    bytes_wanted: int = 0
    _requests: Requests = field(default_factory=Requests)

    def run(self) -> RestoreReport:
        report, options = self.report, self.options
        report.target, report.out, report.site = self.reading.store.url, self.out, self.reading.target.site
        report.snapshot, report.dry_run = self.record.number, options.dry_run
        self.job.say(PhaseBegan("scan"))
        filled = self._look_at_out()
        with self.folders, self._compare(filled) as survey:
            self._count(survey)
            if filled and not options.in_place and not options.dry_run:
                raise UsageError(
                    "cannot restore into",
                    where=self.out,
                    why=self._would(),
                    hint="add --in-place if that is right, or name an empty folder",
                )
            self._guard(survey)
            if options.dry_run:
                self._show(survey)
                return report
            self._check_space(survey, filled)
            os.makedirs(self.out, exist_ok=True)
            writer = FolderWriter(self.out)
            try:
                self._carry_out(survey, writer)
            finally:
                writer.close()
        report.requests = {k: v for k, v in asdict(self._requests).items() if v and not k.startswith("bytes")}
        report.bytes_read = self._requests.bytes_down
        return report

    # -- before anything is written ------------------------------------------------------------------------------

    def _look_at_out(self) -> bool:
        """Whether the folder holds anything. UsageError when it is none."""
        try:
            with os.scandir(self.out) as entries:
                return any(not TEMPORARY.search(os.fsencode(entry.name)) or self.options.in_place for entry in entries)
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            raise UsageError("cannot restore into", where=self.out, why="it is no folder") from None
        except PermissionError as error:
            raise UsageError(
                "cannot restore into", where=self.out, why=error.strerror or str(error), hint="run as the owner of that folder"
            ) from None

    def _compare(self, filled: bool) -> Survey:
        known = ((entry, None) for entry in self._wanted())
        site: Site = _OwnedSite(self.out, self.options.filter, self.owners) if os.path.isdir(self.out) else _Empty()  # type: ignore[assignment]
        judge = LookOptions(self.options.checksum, delete_excluded=self.options.delete_excluded)
        return look(site, self.options.filter, known, judge, self._problem)

    def _wanted(self) -> Iterator[Entry]:
        """The snapshot's entries as they are to be in the folder: owners and modes that can be had here."""
        for entry in self.reading.entries(self.record, self.options.paths):
            self.report.entries += 1
            if isinstance(entry, Redirect):
                self._problem(Problem(show(entry.path), "special", "a redirect is no file"))
                continue
            if isinstance(entry, Page):
                entry = File(entry.path, entry.size, entry.fingerprint, entry.class_, entry.chunks, entry.more, entry.mtime)
            if isinstance(entry, File):
                self.report.bytes += entry.size
            entry = self.owners.applied(entry)
            if isinstance(entry, Folder):
                self.folders.append(entry)
            yield entry

    def _count(self, survey: Survey) -> None:
        counts, report = survey.counts, self.report
        report.added, report.changed, report.described, report.same = counts.deleted, counts.changed, counts.described, counts.same
        for item in survey.plan:
            report.extra += self._is_extra(item)
            if isinstance(wanted := _wanted_of(item), File) and not wanted.link:
                self.bytes_wanted += wanted.size

    def _is_extra(self, item: Item) -> bool:
        path = item.entry.path
        if isinstance(item, Drop) or item.before is not None or not path or TEMPORARY.search(path):
            return False
        chosen = [p.strip(b"/") for p in self.options.paths]
        return not chosen or any(path.startswith(p + b"/") or path == p for p in chosen)

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
            where=self.out,
            why=f"{report.extra:,} of {survey.counts.scanned:,} entries would be deleted, the limit is {options.max_delete}",
            hint=f"if that is right, accept it once: {options.command} --max-delete {report.extra}",
        )

    def _check_space(self, survey: Survey, filled: bool) -> None:
        place = self.out
        while not os.path.exists(place):
            place = os.path.dirname(place)
        seen = os.statvfs(place)
        free = seen.f_bavail * seen.f_frsize
        if self.bytes_wanted > free and not filled:
            raise TemporaryError(
                "not enough free space at",
                where=self.out,
                why=f"{self.bytes_wanted >> 20:,} MiB are needed, {free >> 20:,} are free",
                hint="free some, or restore elsewhere",
                kind="disk-full",
            )

    def _show(self, survey: Survey) -> None:
        for item in survey.plan:
            if self._is_extra(item):
                if self.options.delete:
                    self._say(DELETED, item.entry)
            elif (wanted := _wanted_of(item)) is not None:
                symbol = NEW if isinstance(item, Drop) else CHANGED if isinstance(item, Fetch) else item.symbol
                self._say(symbol, wanted)

    # -- writing -------------------------------------------------------------------------------------------------

    def _carry_out(self, survey: Survey, writer: FolderWriter) -> None:
        self._requests = self.reading.store.counts
        if not len(survey.plan):
            return
        self._folders(survey, writer)
        self.job.say(PhaseBegan("transfer", survey.counts.deleted + survey.counts.changed, self.bytes_wanted))
        small = self.bytes_wanted < _SMALL_BYTES and survey.counts.deleted + survey.counts.changed < _SMALL_FILES
        with Crew(0 if small else self.options.workers) as crew:
            receiver = Receiver(
                down.Job(self.out, self.reading.target.spec.store, self.reading.index.path),
                crew,
                writer,
                self.reading.reader.chunk_ids,
                lambda ids: self.reading.index.places(ids),
                lambda: self.reading.look_again(self.record),
                self.job,
                self._problem,
                self._not_set,
            )
            receiver.run(self._tasks(survey))
            self._rest(survey, writer, receiver)
        self.report.files_written, self.report.files_kept = receiver.files_written, receiver.files_kept
        self.report.bytes_written = receiver.bytes_written
        failed = receiver.failed or any(problem.exit_code for problem in self.report.problems)
        if self.options.delete:
            self._delete(survey, writer, bool(failed))
        self._describe_folders(writer)
        self._attempt(b"", writer.settle)
        self._requests = self.reading.store.counts + receiver.requests
        self._say_unset()

    def _folders(self, survey: Survey, writer: FolderWriter) -> None:
        """Make every folder that something goes into, top down; leftovers of a dead run go."""
        ready = {b""}
        for item in survey.plan:
            if TEMPORARY.search(item.entry.path) and not isinstance(item, Drop):
                self._attempt(item.entry.path, partial(writer.remove, item.entry.path))
                continue
            wanted = _wanted_of(item)
            if wanted is None or not wanted.path:
                continue
            needed = wanted.path if isinstance(wanted, Folder) else parent_of(wanted.path)
            missing = []
            while needed not in ready:
                missing.append(needed)
                needed = parent_of(needed)
            for path in reversed(missing):
                self._attempt(path, partial(_make_ready, writer, path))
                if len(ready) > 100_000:
                    ready = {b""}
                ready.add(path)

    def _tasks(self, survey: Survey) -> Iterator[Task]:
        for item in survey.plan:
            wanted = _wanted_of(item)
            if not isinstance(wanted, File) or not self._may_replace(item):
                continue
            if isinstance(item, Put) and item.symbol == DESCRIBED and (wanted.link or not _was_linked(item)):
                continue
            if wanted.link and not isinstance(item, Fetch):
                continue
            self._say(NEW if isinstance(item, Drop) else CHANGED, wanted)
            if wanted.link:
                continue
            yield Task(wanted, _description(wanted), self.options.checksum and isinstance(item, Fetch))

    def _rest(self, survey: Survey, writer: FolderWriter, receiver: Receiver) -> None:
        """Links, hard links, and files that are only described anew."""
        instead: dict[bytes, bytes] = {}
        for item in survey.plan:
            wanted = _wanted_of(item)
            if wanted is None or not self._may_replace(item):
                continue
            path = wanted.path
            if isinstance(wanted, Symlink):
                self._say(NEW if isinstance(item, Drop) else CHANGED, wanted)
                made = self._attempt(path, partial(writer.make_link, path, wanted.target, _description(wanted)))
                for sentence in made or ():
                    self._not_set(path, sentence)
            elif isinstance(wanted, File) and wanted.link:
                self._hard_link(wanted, writer, receiver, instead)
            elif isinstance(item, Put) and item.symbol == DESCRIBED:
                self._say(DESCRIBED, wanted)
                if isinstance(wanted, File) and not _was_linked(item):
                    for sentence in self._attempt(path, partial(writer.describe_file, path, _description(wanted))) or ():
                        self._not_set(path, sentence)

    def _hard_link(self, wanted: File, writer: FolderWriter, receiver: Receiver, instead: dict[bytes, bytes]) -> None:
        first = instead.get(wanted.link, wanted.link)
        try:
            writer.make_hard_link(wanted.path, first)
        except FileNotFoundError:
            # The first of its group is not part of this restore, or failed: this one carries the content, later ones link to it.
            receiver.run([Task(wanted, _description(wanted))])
            instead[wanted.link] = wanted.path
        except OSError as error:
            self._problem(Problem(show(wanted.path), *why_not(error)))

    def _delete(self, survey: Survey, writer: FolderWriter, failed: bool) -> None:
        if failed or survey.incomplete:
            self._notice("nothing was deleted, since not everything could be read or written")
            return
        for item in reversed(survey.plan):
            if self._is_extra(item):
                self._say(DELETED, item.entry)
                self._attempt(item.entry.path, partial(writer.remove, item.entry.path))
                self.report.deleted += 1

    def _describe_folders(self, writer: FolderWriter) -> None:
        for entry in reversed(self.folders):
            failed = self._attempt(entry.path, partial(writer.describe_folder, entry.path, _description(entry)))
            for sentence in failed or ():
                self._not_set(entry.path, sentence)

    # -- small things --------------------------------------------------------------------------------------------

    def _may_replace(self, item: Item) -> bool:
        if isinstance(item, Drop) or item.before is None or self.options.overwrite == "always":
            return True
        if self.options.overwrite == "never":
            return False
        there, wanted = getattr(item.entry, "mtime", None), getattr(item.before, "mtime", None)
        return there is None or wanted is None or wanted > there

    def _attempt(self, path: bytes, call: Callable[[], object]) -> list[str] | None:
        """Do it; an OSError is that path's problem."""
        try:
            result = call()
        except FileNotFoundError as error:
            self._problem(Problem(show(path), "unwritable", f"the folder that it is in could not be made ({error.strerror})"))
            return None
        except OSError as error:
            self._problem(Problem(show(path), *why_not(error)))
            return None
        return result if isinstance(result, list) else None

    def _say(self, symbol: str, entry: Entry) -> None:
        self.job.say(Change(symbol, show(entry.path), entry.size if isinstance(entry, File) else 0))

    def _problem(self, problem: Problem) -> None:
        self.report.problems.append(problem)
        self.job.say(ProblemFound(problem))

    def _notice(self, text: str) -> None:
        self.report.notices.append(text)
        self.job.say(Notice("restore", text))

    def _not_set(self, path: bytes, sentence: str) -> None:
        self.unset += 1
        self.unset_first = self.unset_first or f"{show(path)}: {sentence}"

    def _say_unset(self) -> None:
        """One counted notice; with --strict-metadata a problem that makes the exit code 23."""
        if self.owners.ignored:
            self._notice(f"owners were not restored for {self.owners.ignored:,} entries: only root may give files away")
        if self.unset:
            self._notice(f"metadata of {self.unset:,} entries could not be set, first {self.unset_first}")
        if self.options.strict_metadata and (self.unset or self.owners.ignored):
            self._problem(
                Problem(
                    self.out,
                    "metadata",
                    f"metadata of {self.unset + self.owners.ignored:,} entries was not restored",
                    "run as root, or without --strict-metadata",
                )
            )


class _OwnedSite(FolderSite):
    """The folder to restore into, its owners seen as far as they can be set."""

    def __init__(self, path: str, filter: Filter, owners: Owners) -> None:
        super().__init__(path, filter=filter)
        self._owners = owners

    def scan(self, matcher: object = None) -> Iterator[Seen]:
        yield from map(self._owners.seen, super().scan(matcher))  # type: ignore[arg-type]


def _wanted_of(item: Item) -> Entry | None:
    """The snapshot's entry of a planned path; None for what the snapshot does not have."""
    return item.entry if isinstance(item, Drop) else item.before


def _was_linked(item: Put) -> bool:
    """Whether a file stands there as another name of one that it is not to be."""
    return isinstance(item.entry, File) and bool(item.entry.link)


def _description(entry: Entry) -> Description:
    if isinstance(entry, Symlink):
        return Description(entry.mtime, None, entry.uid, entry.gid)
    if isinstance(entry, Folder | File):
        return Description(entry.mtime, entry.mode, entry.uid, entry.gid, entry.xattrs)
    return Description()


def _make_ready(writer: FolderWriter, path: bytes) -> None:
    """Make the folder, or make sure that this user can write into it; its mode is set at the end."""
    if not writer.make_folder(path) and os.geteuid():
        mode = stat.S_IMODE(os.fstat(writer.folder(path)).st_mode)
        if mode & 0o700 != 0o700:
            os.fchmod(writer.folder(path), mode | 0o700)
