"""`mirror restore`: bring a snapshot, or a part of it, back into a folder.

    report = restore(TargetSpec(StoreSpec("/backup/www")), "/srv/www", RestoreOptions(at="2026-11-20T03:00"))

The same difference as sync, ends exchanged: the folder is scanned, compared with the snapshot, and only what differs is
written. Order: folders, files (through drafts), links, deletions, and the folders' own metadata last, from the leaves up. The
target is only read.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import msgspec

from mirror.errors import DeletionGuardError, InterruptedRunError, TemporaryError, UsageError
from mirror.events import Change, Job, Notice, PhaseBegan, Problem, ProblemFound, ProblemReport, RunStarted
from mirror.keys import parent_of, plain_path, show
from mirror.log import Record
from mirror.manifest import Entry, File, Folder, Page, Redirect, decode_entry, encode
from mirror.owners import Owners
from mirror.pick import Reading
from mirror.plan import CHANGED, DELETED, DESCRIBED, NEW, DeletionLimit, Drop, Fetch, Put
from mirror.rebuild import Intent, Rebuild, wanted_of
from mirror.site import Filter, Seen, Site
from mirror.site.files import FolderSite
from mirror.site.filters import Matcher
from mirror.site.writing import TEMPORARY
from mirror.spool import Spool
from mirror.store.errnos import error_for
from mirror.survey import LookOptions, Survey, check_ends, look
from mirror.target import TargetSpec, folder_of, is_folder_url


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


def restore(target: TargetSpec, out: str, options: RestoreOptions | None = None, job: Job | None = None) -> RestoreReport:
    """Bring the snapshot back into the folder `out`; raises the errors of `mirror.errors`, reports problems of single paths."""
    options = options or RestoreOptions()
    job = job or Job("restore")
    began = time.monotonic()
    if not is_folder_url(out):
        raise UsageError("cannot restore into", where=out, why="it is no local folder")
    folder = str(folder_of(out))
    check_ends(folder, target.store.url, "cannot restore into")
    owners = Owners(options.numeric_ids, options.chown, options.chmod)
    try:
        with Reading(target, job) as reading:
            record = reading.pick(options.at)
            job.say(RunStarted("restore", f"{reading.store.url} snapshot {record.number}", folder, options.dry_run))
            deadline = began + options.max_duration if options.max_duration is not None else None
            report = _Run(reading, record, folder, options, owners, job, deadline).run()
    except KeyboardInterrupt:
        hint = "what is complete stays; run it again with --in-place to go on"
        raise InterruptedRunError("interrupted", hint=hint) from None
    except OSError as error:
        raised = error_for(error, "cannot write to", folder)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raised.hint = "make room there, then run it again with --in-place to go on"
        raise raised from error
    report.seconds = time.monotonic() - began
    return report


class _Empty:
    """A site that is not there yet, for the comparison with a folder still to be made."""

    url = ""
    identity: dict[str, str] = {}  # noqa: RUF012 - never changed

    def scan(self, matcher: object = None) -> Iterator[Seen]:
        yield from ()


class _Run:
    """One restore."""

    def __init__(
        self, reading: Reading, record: Record, out: str, options: RestoreOptions, owners: Owners, job: Job, deadline: float | None
    ) -> None:
        self.reading, self.record, self.out, self.options, self.owners, self.job = reading, record, out, options, owners, job
        self.report = RestoreReport(reading.store.url, out, reading.target.site, record.number, options.dry_run)
        self.matcher = Matcher(replace(options.filter, ignore_files=False)) if options.filter.rules else None
        self.folders: Spool[Entry] = Spool(encode, decode_entry)
        paths = tuple(plain_path(path) for path in options.paths)
        self.above = {entry.path: entry for entry in reading.at_paths(record, _above(paths)) if isinstance(entry, Folder)}
        self.intent = Intent(
            paths, b"" in self.above, options.delete, options.overwrite, options.checksum, options.workers, deadline
        )
        self.instead: dict[bytes, bytes] = {}
        self.unset = self.bytes_wanted = 0
        self.unset_first = ""
        self.extra_folders = False

    def run(self) -> RestoreReport:
        report, options = self.report, self.options
        self.job.say(PhaseBegan("scan"))
        filled = self._look_at_out()
        with self.folders, self._compare() as survey:
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
            self._check_space()
            if len(survey.plan):
                self._write(survey)
            self._say_unset()
        return report

    def _write(self, survey: Survey) -> None:
        report, reading = self.report, self.reading
        os.makedirs(self.out, exist_ok=True)
        rebuild = Rebuild(
            reading,
            self.record,
            self.out,
            self.intent,
            survey,
            self.folders,
            self._folder_above,
            self.bytes_wanted,
            self.extra_folders,
            self.job,
            self._problem,
            self._not_set,
            self._notice,
        )
        done = rebuild.run()
        report.deleted = rebuild.deleted
        report.files_written, report.files_kept, report.bytes_written = done.files_written, done.files_kept, done.bytes_written
        requests = reading.store.counts + done.requests
        report.requests = {k: v for k, v in asdict(requests).items() if v and not k.startswith("bytes")}
        report.bytes_read = requests.bytes_down

    def _folder_above(self, path: bytes) -> Entry:
        """How a folder is to be that must be made though it is none of those that are restored."""
        return self.owners.applied(self.above.get(path) or Folder(path))

    # -- before anything is written ------------------------------------------------------------------------------

    def _look_at_out(self) -> bool:
        """Whether the folder holds anything. UsageError when it is none."""
        try:
            with os.scandir(self.out) as entries:
                return any(not TEMPORARY.search(os.fsencode(entry.name)) or self.options.in_place for entry in entries)
        except FileNotFoundError:
            if not os.path.lexists(self.out):
                return False
            why = "it is a link to nowhere"
            raise UsageError("cannot restore into", where=self.out, why=why, hint="name the folder itself") from None
        except NotADirectoryError:
            raise UsageError("cannot restore into", where=self.out, why="it is no folder") from None
        except PermissionError as error:
            raise UsageError(
                "cannot restore into", where=self.out, why=error.strerror or str(error), hint="run as the owner of that folder"
            ) from None

    def _compare(self) -> Survey:
        # With --delete-excluded nothing in the folder is protected: what the rules leave out is not wanted, so it is extra.
        filter = Filter(ignore_files=False) if self.options.delete_excluded else self.options.filter
        known = ((entry, None) for entry in self._wanted())
        site: Site = _OwnedSite(self.out, filter, self.owners) if os.path.isdir(self.out) else _Empty()  # type: ignore[assignment]
        return look(site, filter, known, LookOptions(self.options.checksum), self._problem)

    def _wanted(self) -> Iterator[Entry]:
        """The snapshot's entries as they are to be in the folder: owners and modes that can be had here."""
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
                if entry.link and not self._comes_along(entry.link):
                    first = self.instead.setdefault(entry.link, entry.path)
                    entry = msgspec.structs.replace(entry, link=b"" if first == entry.path else first)
            entry = self.owners.applied(entry)
            if isinstance(entry, Folder):
                self.folders.append(entry)
            yield entry

    def _comes_along(self, path: bytes) -> bool:
        """Whether a path of the snapshot is part of this restore."""
        return self.intent.chosen(path) and not (self.matcher and self.matcher.protects(path))

    def _count(self, survey: Survey) -> None:
        counts, report = survey.counts, self.report
        report.added, report.changed, report.described, report.same = counts.deleted, counts.changed, counts.described, counts.same
        for item in survey.plan:
            if self.intent.is_extra(item):
                report.extra += 1
                self.extra_folders = self.extra_folders or item.entry.path.endswith(b"/")
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
            where=self.out,
            why=f"{report.extra:,} of {survey.counts.scanned:,} entries would be deleted, the limit is {options.max_delete}",
            hint=f"if that is right, accept it once: {options.command} --max-delete {report.extra}",
        )

    def _check_space(self) -> None:
        place = self.out
        while not os.path.exists(place):
            place = os.path.dirname(place)
        seen = os.statvfs(place)
        free = seen.f_bavail * seen.f_frsize
        if self.bytes_wanted > free and not self.options.in_place:
            raise TemporaryError(
                "not enough free space at",
                where=self.out,
                why=f"{self.bytes_wanted >> 20:,} MiB are needed, {free >> 20:,} are free",
                hint="free some, or restore elsewhere; if much of it is holes of sparse files, say --in-place to try",
                kind="disk-full",
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


def _above(paths: tuple[bytes, ...]) -> list[bytes]:
    """The folders over some paths, the root among them."""
    found = {b""}
    for path in paths:
        while path := parent_of(path):
            found.add(path)
            path = path[:-1]
    return sorted(found)
