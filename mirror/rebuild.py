"""A folder made to be what a snapshot says: the writing half of a restore.

Takes the difference that a survey found, with the ends exchanged: what the snapshot has and the folder lacks is a Drop, what only
the folder has is an extra. Order: folders (with room made for files where folders stand), files through drafts, links, deletions,
and the folders' own metadata last, from the leaves up. What goes wrong with one path is that path's problem.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TypeVar

import msgspec

from mirror.errors import DurationLimitError, TemporaryError, UsageError
from mirror.events import Change, PhaseBegan, Problem
from mirror.intent import Done, Errand, Intent, wanted_of
from mirror.keys import parent_of, show
from mirror.manifest import Entry, File, Folder, Symlink, decode_entry, encode
from mirror.naming import conflicts, judged, without
from mirror.owners import OwnedFolder, Owners
from mirror.plan import CHANGED, DELETED, DESCRIBED, NEW, Counts, Drop, Fetch, Item, Put
from mirror.site import Filter
from mirror.site.probe import FolderNames
from mirror.site.writing import TEMPORARY, Description, FolderWriter, fingerprint_of
from mirror.spool import Spool
from mirror.store.wrap import Counts as Requests
from mirror.survey import LookOptions, Survey, look
from mirror.transfer import down
from mirror.transfer.down import why_not
from mirror.transfer.receive import Receiver, Task
from mirror.workers import Crew

_SMALL_BYTES, _SMALL_FILES = 32 << 20, 2000
_READY_HELD = 100_000
T = TypeVar("T")


class FolderOut:
    """A folder of this machine to restore into: it keeps all that a snapshot has. above: the folders over what is restored;
    comes_along: whether a path of the snapshot is restored as well."""

    not_there = "run as root"

    def __init__(
        self, url: str, intent: Intent, owners: Owners, above: dict[bytes, Folder], comes_along: Callable[[bytes], bool]
    ) -> None:
        self.url, self.intent = url, intent
        self._owners, self._above, self._comes_along = owners, above, comes_along
        self._instead: dict[bytes, bytes] = {}
        self._folders: Spool[Entry] = Spool(encode, decode_entry)

    def adapted(self, entry: Folder | File | Symlink) -> tuple[Entry | None, Problem | None]:
        """See `mirror.restore.Out`. Owners and modes that can be had here; hard links to files that come along."""
        if isinstance(entry, File) and entry.link and not self._comes_along(entry.link):
            first = self._instead.setdefault(entry.link, entry.path)
            entry = msgspec.structs.replace(entry, link=b"" if first == entry.path else first)
        entry = self._owners.applied(entry)
        if isinstance(entry, Folder):
            self._folders.append(entry)
        return entry, None

    def compare(self, wanted: Iterable[Entry], filter: Filter, on_problem: Callable[[Problem], None]) -> tuple[Survey, bool]:
        """See `mirror.restore.Out`."""
        filled = self._look_at_out()
        known = ((entry, None) for entry in wanted)
        return look(
            OwnedFolder(self.url, filter, self._owners), filter, known, LookOptions(self.intent.checksum, routes=None), on_problem
        ), filled

    def _look_at_out(self) -> bool:
        """Whether the folder holds anything. UsageError when it is none."""
        try:
            with os.scandir(self.url) as entries:
                return any(not TEMPORARY.search(os.fsencode(entry.name)) or self.intent.in_place for entry in entries)
        except FileNotFoundError:
            if not os.path.lexists(self.url):
                return False
            why = "it is a link to nowhere"
            raise UsageError("cannot restore into", where=self.url, why=why, hint="name the folder itself") from None
        except NotADirectoryError:
            raise UsageError("cannot restore into", where=self.url, why="it is no folder") from None
        except PermissionError as error:
            raise UsageError(
                "cannot restore into", where=self.url, why=error.strerror or str(error), hint="run as the owner of that folder"
            ) from None

    def check_space(self, wanted: int) -> None:
        """See `mirror.restore.Out`."""
        place = self.url
        while not os.path.exists(place):
            place = os.path.dirname(place)
        seen = os.statvfs(place)
        free = seen.f_bavail * seen.f_frsize
        if wanted > free and not self.intent.in_place:
            raise TemporaryError(
                "not enough free space at",
                where=self.url,
                why=f"{wanted >> 20:,} MiB are needed, {free >> 20:,} are free",
                hint="free some, or restore elsewhere; if much of it is holes of sparse files, say --in-place to try",
                kind="disk-full",
            )

    def write(self, errand: Errand) -> Done:
        """See `mirror.restore.Out`."""
        os.makedirs(self.url, exist_ok=True)
        failed = self._leave_out_collisions(errand)
        rebuild = Rebuild(self.url, self.intent, errand, self._folders, self._folder_above, failed)
        done = rebuild.run()
        return Done(done.files_written, done.files_kept, done.bytes_written, rebuild.deleted, done.requests)

    def _leave_out_collisions(self, errand: Errand) -> bool:
        """Where the filesystem takes two names for one, the second would replace the first without a word: it is left out of the
        plan, and told. Whether there was such a name. (What cannot be there at all, the writing tells.)"""
        within = os.path.join(self.url, f".mirror-tmp-{os.urandom(8).hex()}")
        try:
            # Where something is, what is there must tell: a part that is brought back touches nothing else.
            with FolderNames(self.url, bool(os.listdir(self.url)), within) as names:
                if not (names.folds_case or names.normalises):
                    return False
                with conflicts(_Comings(errand.survey.plan), lambda: self._all(errand), _NamesAlone(names)) as found:
                    for conflict in found:
                        errand.on_problem(conflict.problem("restore it elsewhere: `mirror cat`, or into another filesystem"))
                    if not len(found):
                        return False
                    errand.survey.plan = without(errand.survey.plan, found, Counts(), lambda item: isinstance(item, Drop))
                    every, self._folders = self._folders, Spool(encode, decode_entry)
                    with every:
                        self._folders.extend(entry for entry, lost in judged(every, lambda entry: entry.path, found) if not lost)
                    return True
        except PermissionError:
            return False  # whoever writes there opens it up first, or says that it cannot

    def _all(self, errand: Errand) -> Iterator[Entry]:
        """What of the snapshot is restored, and what is there as it is to be."""
        entries = errand.reading.entries(errand.record, self.intent.paths)
        return (entry for entry in entries if self._comes_along(entry.path))

    def lost(self) -> tuple[int, str]:
        """See `mirror.restore.Out`."""
        ignored = self._owners.ignored
        return ignored, f"owners were not restored for {ignored:,} entries: only root may give files away"

    def close(self) -> None:
        """See `mirror.restore.Out`."""
        self._folders.close()

    def _folder_above(self, path: bytes) -> Entry:
        """How a folder is to be that must be made though it is none of those that are restored."""
        return self._owners.applied(self._above.get(path) or Folder(path))


class _Comings:
    """The plan of a restore as naming.py reads plans: what is missing comes."""

    def __init__(self, plan: Spool[Item]) -> None:
        self._plan = plan

    def __iter__(self) -> Iterator[Item]:
        for item in self._plan:
            comes = isinstance(item, Drop) and not TEMPORARY.search(item.entry.path)
            yield Put(NEW if comes else DESCRIBED, item.entry, (0, 0))


@dataclass(frozen=True, slots=True)
class _NamesAlone:
    """The names of a folder, but for what cannot be there at all."""

    names: FolderNames
    together: bool = False

    @property
    def folds_case(self) -> bool:
        return self.names.folds_case

    @property
    def normalises(self) -> bool:
        return self.names.normalises

    def fault(self, path: bytes) -> str:
        return ""

    def same(self, one: bytes, other: bytes) -> bool:
        return self.names.same(one, other)


@dataclass
class Rebuild:
    """One folder, brought to one snapshot. folders: all that the snapshot wants there; other: describes a folder that must be made
    though it is none of them."""

    out: str
    intent: Intent
    errand: Errand
    folders: Spool[Entry]
    other: Callable[[bytes], Entry]
    failed: bool = False
    deleted: int = 0
    requests: Requests = field(default_factory=Requests)
    _opened: dict[bytes, int] = field(default_factory=dict)  # folders that were closed to this user, and their modes
    _made: Spool[Entry] = field(default_factory=lambda: Spool(encode, decode_entry))  # that are none of `folders`
    _unmade: set[bytes] = field(default_factory=set)  # folders that could not be made
    _cleared: set[bytes] = field(default_factory=set)  # files and links for which a folder had to go
    writer: FolderWriter = field(init=False)
    survey: Survey = field(init=False)
    _extra_folders: bool = False

    def run(self) -> Receiver:
        """Do it. OSError when the disk is full; DurationLimitError."""
        self.writer, self.survey = FolderWriter(self.out), self.errand.survey
        self._extra_folders = any(item.entry.path.endswith(b"/") for item in self.survey.plan if self.intent.is_extra(item))
        try:
            return self._run()
        finally:
            down.release()
            self._close_folders()
            self.writer.close()
            self._made.close()

    def _run(self) -> Receiver:
        self._folders()
        files = self.survey.counts.deleted + self.survey.counts.changed
        self.errand.job.say(PhaseBegan("transfer", files, self.errand.plain))
        small = self.errand.plain < _SMALL_BYTES and files < _SMALL_FILES
        reading = self.errand.reading
        with Crew(0 if small else self.intent.workers) as crew:
            receiver = Receiver(
                down.Job(
                    self.out, reading.target.spec.store, reading.index.path, reading.target.live if reading.target.tree else None
                ),
                crew,
                self.writer,
                reading.reader.chunk_ids,
                lambda ids: reading.index.places(ids),
                lambda: reading.look_again(self.errand.record),
                self.errand.job,
                self._problem,
                self.errand.on_unset,
                reading.live_paths if reading.target.tree else None,
            )
            receiver.run(self._tasks())
            self._rest(receiver)
        if self.intent.delete:
            self._delete()
        self._describe_folders()
        self._attempt(b"", self.writer.settle)
        return receiver

    # -- folders first -------------------------------------------------------------------------------------------

    def _folders(self) -> None:
        """Make every folder that something goes into, top down; leftovers of a dead run go."""
        ready: set[bytes] = set()
        self._open_up(b"")
        for item in self.survey.plan:
            path = item.entry.path
            if TEMPORARY.search(path) and not isinstance(item, Drop):
                self._attempt(path, partial(self.writer.remove, path))
                continue
            wanted = wanted_of(item)
            if wanted is None or not wanted.path:
                continue
            needed = wanted.path if isinstance(wanted, Folder) else parent_of(wanted.path)
            missing = []
            while needed and needed not in ready:
                missing.append(needed)
                needed = parent_of(needed)
            for folder in reversed(missing):
                self._make_ready(folder, folder == wanted.path)
                if len(ready) > _READY_HELD:
                    ready.clear()
                ready.add(folder)
            if self._extra_folders and isinstance(item, Drop) and not isinstance(wanted, Folder):
                self._may_stand_there(wanted.path)
        if self._cleared:
            for item in reversed(self.survey.plan):
                if self.intent.is_extra(item) and self._is_cleared(item.entry.path):
                    self._remove(item.entry)

    def _make_ready(self, path: bytes, listed: bool) -> None:
        """Make the folder, or make sure that this user can write into it; its mode is set at the end."""
        try:
            made = self.writer.make_folder(path, replace=self.intent.overwrite != "never")
            if made and not listed:
                self._made.append(self.other(path))
            if not made:
                self._open_up(path)
        except OSError as error:
            if path not in self._unmade:
                self._unmade.add(path)
                self._failed_at(path, error)

    def _open_up(self, path: bytes) -> None:
        if os.geteuid():
            folder = self.writer.folder(path)
            mode = stat.S_IMODE(os.fstat(folder).st_mode)
            if mode & 0o700 != 0o700:
                os.fchmod(folder, mode | 0o700)
                self._opened[path] = mode

    def _may_stand_there(self, path: bytes) -> None:
        """A file or link is to be where perhaps a folder stands: an empty one gives way; with --delete what is in it goes, too."""
        there = self._attempt(path, partial(self.writer.stat, path))
        if not isinstance(there, os.stat_result) or not stat.S_ISDIR(there.st_mode) or self.intent.overwrite == "never":
            return
        if self.intent.delete and not self.survey.incomplete:
            self._cleared.add(path)
            return
        try:
            self.writer.remove(path + b"/")
        except OSError:
            return  # not empty: whoever comes to write the file says so

    def _is_cleared(self, path: bytes) -> bool:
        while path := parent_of(path) if path[-1:] != b"/" else path[:-1]:
            if path.rstrip(b"/") in self._cleared:
                return True
        return False

    # -- files and links -----------------------------------------------------------------------------------------

    def _tasks(self) -> Iterator[Task]:
        for item in self.survey.plan:
            if self.intent.deadline is not None and time.monotonic() >= self.intent.deadline:
                raise DurationLimitError("stopped: --max-duration is reached", hint="run it again with --in-place to go on")
            wanted = wanted_of(item)
            if not isinstance(wanted, File) or not self.intent.may_replace(item):
                continue
            if isinstance(item, Put) and item.symbol == DESCRIBED and (wanted.link or not _was_linked(item)):
                continue
            self._say(NEW if isinstance(item, Drop) else CHANGED, wanted)
            if not wanted.link:
                yield Task(wanted, _description(wanted), self.intent.checksum and isinstance(item, Fetch))

    def _rest(self, receiver: Receiver) -> None:
        """Links, hard links, and files that are only described anew."""
        instead: dict[bytes, bytes] = {}
        for item in self.survey.plan:
            wanted = wanted_of(item)
            if wanted is None or not self.intent.may_replace(item):
                continue
            path, described = wanted.path, isinstance(item, Put) and item.symbol == DESCRIBED
            if described:
                self._say(DESCRIBED, wanted)
            elif not isinstance(wanted, File):  # those were told as they were sent
                self._say(NEW if isinstance(item, Drop) else CHANGED, wanted)
            if isinstance(wanted, Symlink):
                self._set(path, partial(self.writer.make_link, path, wanted.target, _description(wanted)))
            elif isinstance(wanted, File) and wanted.link:
                self._hard_link(wanted, receiver, instead)
            elif isinstance(wanted, File) and described and not (isinstance(item, Put) and _was_linked(item)):
                self._set(path, partial(self.writer.describe_file, path, _description(wanted)))

    def _hard_link(self, wanted: File, receiver: Receiver, instead: dict[bytes, bytes]) -> None:
        """Only to a file that is what this one is to be: the first of its group may have failed, or been left alone."""
        first = instead.get(wanted.link, wanted.link)
        try:
            if self._is_same(first, wanted):
                self.writer.make_hard_link(wanted.path, first)
                self._set(wanted.path, partial(self.writer.describe_file, wanted.path, _description(wanted)))
                return
        except FileNotFoundError:
            pass  # it went away meanwhile
        except OSError as error:
            self._failed_at(wanted.path, error)
            return
        receiver.run([Task(wanted, _description(wanted))])
        instead[wanted.link] = wanted.path  # later ones link to this one

    def _is_same(self, first: bytes, wanted: File) -> bool:
        there = self.writer.stat(first)
        if there is None or not stat.S_ISREG(there.st_mode) or there.st_size != wanted.size:
            return False
        if not self.intent.checksum:
            return wanted.mtime is None or there.st_mtime_ns == wanted.mtime
        with open(self.writer.read(first), "rb") as stream:
            return fingerprint_of(stream.fileno()) == wanted.fingerprint

    # -- last ----------------------------------------------------------------------------------------------------

    def _delete(self) -> None:
        if self.failed or self.survey.incomplete:
            self.errand.on_notice("nothing was deleted, since not everything could be read or written")
            return
        for item in reversed(self.survey.plan):
            if self.intent.is_extra(item) and not self._is_cleared(item.entry.path):
                self._remove(item.entry)

    def _remove(self, entry: Entry) -> None:
        self._say(DELETED, entry)
        try:
            try:
                self.writer.remove(entry.path)
            except PermissionError:
                self._open_up(parent_of(entry.path))
                self.writer.remove(entry.path)
        except (FileNotFoundError, IsADirectoryError):
            pass  # gone already: a folder of the snapshot took the place of this file, or somebody else was faster
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:  # what is in it is not ours to delete: left out by a rule, or a fifo
                self._failed_at(entry.path, error)
            return
        self.deleted += 1

    def _describe_folders(self) -> None:
        for entry in chain(reversed(self.folders), reversed(self._made)):
            if entry.path not in self._unmade:
                self._opened.pop(entry.path, None)
                self._set(entry.path, partial(self.writer.describe_folder, entry.path, _description(entry)))

    def _close_folders(self) -> None:
        """Give folders that had to be opened for this user their modes back."""
        while self._opened:
            path, mode = self._opened.popitem()
            with contextlib.suppress(FileNotFoundError):  # deleted since
                os.fchmod(self.writer.folder(path), mode)

    # -- small things --------------------------------------------------------------------------------------------

    def _set(self, path: bytes, call: Callable[[], list[str]]) -> None:
        for sentence in self._attempt(path, call) or ():
            self.errand.on_unset(path, sentence)

    def _attempt(self, path: bytes, call: Callable[[], T]) -> T | None:
        """Do it; an OSError is that path's problem."""
        try:
            return call()
        except OSError as error:
            self._failed_at(path, error)
            return None

    def _failed_at(self, path: bytes, error: OSError) -> None:
        self._problem(Problem(show(path), *why_not(error)))

    def _problem(self, problem: Problem) -> None:
        self.failed = True
        self.errand.on_problem(problem)

    def _say(self, symbol: str, entry: Entry) -> None:
        self.errand.job.say(Change(symbol, show(entry.path), entry.size if isinstance(entry, File) else 0))


def _was_linked(item: Put) -> bool:
    """Whether a file stands there as another name of one that it is not to be."""
    return isinstance(item.entry, File) and bool(item.entry.link)


def _description(entry: Entry) -> Description:
    if isinstance(entry, Symlink):
        return Description(entry.mtime, None, entry.uid, entry.gid)
    if isinstance(entry, Folder | File):
        return Description(entry.mtime, entry.mode, entry.uid, entry.gid, entry.xattrs)
    return Description()
