"""Step three of a publish: the live tree is changed, path by path, in the order of steps.py.

Every change is conditional on what is expected at its path. What is something else stays as it is, and that is this item's own
failure. Whoever takes over from a run that died (`recover`) does the same from what the records say: drafts and live files are
read before they are believed, and content that is nowhere ready is obtained again.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from mirror.compare import same_content
from mirror.events import Advanced, PhaseBegan, Problem
from mirror.items import Items
from mirror.keys import parent_of, show
from mirror.manifest import Entry, File, Folder, Ref, Symlink, decode_entry, encode
from mirror.owners import Owners
from mirror.site.live import LiveTree, Unexpected, is_ours
from mirror.site.standing import Standing
from mirror.site.writing import Description, fingerprint_of
from mirror.spool import KeySorter, Spool
from mirror.steps import STAYS, Step, Steps, Works, expected_of, is_as_known
from mirror.transfer.down import why_not

_TOLD = 256  # files between two events
_GONE = (FileNotFoundError, NotADirectoryError)


def description(entry: Entry, owners: Owners) -> Description:
    """The metadata to set for an entry here; what it is published with as well, for places that keep that (a folder does not)."""
    if isinstance(entry, (File, Folder)):  # a union would be made anew for each of many files
        uid, gid = owners.numbers(entry)
        if isinstance(entry, Folder):
            return Description(entry.mtime, owners.mode(entry), uid, gid, owners.xattrs(entry))
        xattrs = owners.xattrs(entry) if entry.xattrs else ()
        return Description(entry.mtime, owners.mode(entry), uid, gid, xattrs, entry.media_type, entry.headers)
    if isinstance(entry, Symlink):
        return Description(entry.mtime, None, *owners.numbers(entry))
    return Description()


@dataclass
class LiveChanges:
    """The changes of one publish into a folder. number: of its record, under which things are kept aside. obtain: makes the draft
    of a file whose content is not staged, False when it can be had from nowhere. items: what became of the single paths."""

    works: Works
    live: LiveTree
    number: int
    obtain: Callable[[File], bool]
    recover: bool = False
    items: Items = field(init=False)
    _done: int = 0
    _ready: bytes | None = None  # the folder that is known to be there and open to us

    def __post_init__(self) -> None:
        self.items = Items(self.works.on_problem, lambda path: f"it is kept in {self.live.move_aside(path, self.number)}")

    def run(self, steps: Steps, manifest: Ref) -> None:
        """Do them all, and make them durable. OSError when the disk is full."""
        job = self.works.job
        job.say(PhaseBegan("write", sum(map(len, (*steps.files, steps.hard_links)))))
        for step in reversed(steps.rooms):
            self.items.attempt(step, self._make_room)
        for step in steps.folders:
            self.items.attempt(step, self._folder)
        for spool in steps.files:
            self._each(spool, self._file)
        self._each(steps.hard_links, self._hard_link)
        job.say(Advanced(self._done % _TOLD))
        self.describe_folders(steps.folders_changed, manifest)
        self.live.settle()

    def _each(self, spool: Spool[Step], change: Callable[[Step], None]) -> None:
        for step in spool:
            self.items.attempt(step, change)
            self._done += 1
            if not self._done % _TOLD:
                self.works.job.say(Advanced(_TOLD))

    # -- room and folders ----------------------------------------------------------------------------------------

    def _make_room(self, step: Step) -> None:
        self.remove(step)
        self.items.removed.extend([step.path])

    def remove(self, step: Step) -> bool:
        """Remove what a step says, if it is there; whether it was. A folder that holds things that are not ours stays."""
        path, live = step.path, self.live
        if is_ours(path):
            raise Unexpected("that is where the store of the tree is")
        try:
            if isinstance(step.before, Folder):
                self._open_up(parent_of(path))
                live.writer.remove(path)
                return True
            there = live.stat(path)
            if there is None or (self.recover and stat.S_ISDIR(there.st_mode)):
                return False  # a run before this one was here
            expected = expected_of(step)
            if expected is None:
                raise Unexpected("it is nothing that a tree can hold")
            self._open_up(parent_of(path))
            return live.take_away(path, expected)
        except _GONE:
            return False
        except OSError as error:
            if isinstance(step.before, Folder) and error.errno in (39, 17):  # ENOTEMPTY, EEXIST: not ours to delete
                return False
            raise

    def remove_all(self, steps: Iterable[Step]) -> None:
        """Remove what these steps say, if it is there."""
        for step in steps:
            self.items.attempt(step, self._remove_late, STAYS)

    def _remove_late(self, step: Step) -> None:
        if self.recover:
            self.leftover(step)
        self.remove(step)

    def remove_hollow(self, steps: Steps, manifest: Ref) -> None:
        """Sources without folders (S3) do not say when one is empty."""
        if next(self.works.reader.at(manifest, [b""]), None) is not None:
            return
        for step in reversed(steps.gone):
            above = parent_of(step.path)
            while above:
                try:
                    self.live.writer.remove(above)
                except OSError:
                    break
                above = parent_of(above)

    def stand_as_written(self, entries: Iterable[File]) -> Iterator[tuple[File, bool]]:
        """Each entry, and whether the live file is what it says."""
        for entry, there in self.live.each((entry.path, entry) for entry in entries):
            known = isinstance(there, Standing) and is_as_known(there, entry)
            yield entry, known and (not self.recover or self.is_there(entry.path, entry))

    def _folder(self, step: Step) -> None:
        path, writer = step.path, self.live.writer
        assert step.after is not None
        if not path:
            return  # the tree itself; it is described at the end like all folders
        self._prepare(parent_of(path))
        if writer.make_folder(path, replace=False):
            what = description(step.after, self.works.owners)
            if what.mode is not None and what.mode & 0o700 == 0o700:  # at once: people look at the tree meanwhile
                writer.describe_folder(path, what._replace(mtime=None))
        else:
            self._open_up(path)

    def _prepare(self, folder: bytes) -> None:
        """Make sure that a folder is there and can be written into. Sources without folders (S3) name none."""
        if folder == self._ready:
            return
        writer = self.live.writer
        try:
            writer.folder(folder)
        except FileNotFoundError:
            self._prepare(parent_of(folder))
            writer.make_folder(folder, replace=False)
            os.fchmod(writer.folder(folder), 0o755)
        self._open_up(folder)
        self._ready = folder

    def _open_up(self, folder: bytes) -> None:
        if os.geteuid():
            fd = self.live.writer.folder(folder)
            mode = stat.S_IMODE(os.fstat(fd).st_mode)
            if mode & 0o700 != 0o700:
                os.fchmod(fd, mode | 0o700)  # all folders that were touched are described anew at the end

    def describe_folders(self, changed: Iterable[bytes], manifest: Ref) -> None:
        """Set times and modes of these folders, in which something was changed, from the leaves up."""
        works = self.works
        with KeySorter() as touched, Spool[bytes]() as known:
            touched.extend(path for path in changed if not is_ours(path))
            known.extend(path for path, _ in groupby(touched))
            with Spool[Entry](encode, decode_entry) as folders:
                folders.extend(e for e in works.reader.at(manifest, known) if isinstance(e, Folder))
                for entry in reversed(folders):
                    try:
                        sentences = self.live.writer.describe_folder(entry.path, description(entry, works.owners))
                        self.items.unset += bool(sentences)
                    except OSError as error:
                        if not isinstance(error, _GONE):
                            why_not(error)
                        self.items.unset += 1
        self._ready = None

    # -- files and links -----------------------------------------------------------------------------------------

    def _file(self, step: Step) -> None:
        live, before, after, path = self.live, step.before, step.after, step.path
        self._prepare(parent_of(path))
        if step.before is None and type(after) is File and not self.recover:
            # All there is to do for most files, without a look at the draft before; 33,000 of them took 0.2 s longer with it.
            try:
                live.put(path, None)
            except FileNotFoundError:
                pass  # no draft: it is obtained
            else:
                return
        if isinstance(after, Symlink):
            self._symlink(step, after)
            return
        if not isinstance(after, File):
            raise Unexpected("it is nothing that a tree can hold")
        if self.recover and self.is_there(path, after) and not self._is_linked_as_before(step):
            self._set(path, after)
            self.leftover(step)
            return
        if isinstance(before, File) and same_content(before, after, self.works.reader):
            expected = expected_of(step)
            assert expected is not None
            live.check(path, expected)
            if not self._shares_inode(step):
                self._set(path, after)
                self.leftover(step)
                return
            if not self.recover or live.staging.stat(path) is None:  # a draft that is there is of a run that died
                live.stage_copy(path, path)
                self._describe_draft(path, after)
        if self.recover and not self._draft_is(path, after):
            self.leftover(step)
            if not self.obtain(after):
                raise Unexpected("its new content can be had from nowhere any more")
        elif live.staging.stat(path) is None and not self.obtain(after):
            raise Unexpected("its new content can be had from nowhere any more")
        live.put(path, expected_of(step))

    def _shares_inode(self, step: Step) -> bool:
        """Whether what stands there is another name of a file that it is no name of any more."""
        before = step.before
        if not isinstance(before, File) or not before.link:
            return False
        there = self.live.stat(step.path)
        return there is not None and there.st_nlink > 1

    def _is_linked_as_before(self, step: Step) -> bool:
        """Whether what stands there is still the file of the hard link that it was."""
        before = step.before
        if not isinstance(before, File) or not before.link:
            return False
        first, there = self.live.stat(before.link), self.live.stat(step.path)
        return first is not None and there is not None and (first.st_dev, first.st_ino) == (there.st_dev, there.st_ino)

    def _symlink(self, step: Step, after: Symlink) -> None:
        live, path = self.live, step.path
        if self.recover:
            there = live.stat(path)
            if there is not None and stat.S_ISLNK(there.st_mode) and live.target(path) == after.target:
                self.leftover(step)
                return
            self.leftover(step)
        live.staging.link(path, after.target, description(after, self.works.owners))
        live.put(path, expected_of(step))

    def _hard_link(self, step: Step) -> None:
        live, after, path = self.live, step.after, step.path
        assert isinstance(after, File)
        self._prepare(parent_of(path))
        first, there = live.stat(after.link), live.stat(path)
        right = first is not None and stat.S_ISREG(first.st_mode) and first.st_size == after.size and not is_ours(after.link)
        right = right and (after.mtime is None or (first is not None and first.st_mtime_ns == after.mtime))
        if not right or (self.recover and not self.is_there(after.link, after)):
            self._apart(step, after)
            return
        if first is not None and there is not None and (first.st_dev, first.st_ino) == (there.st_dev, there.st_ino):
            self.leftover(step)
            return
        if self.recover:
            self.leftover(step)
        live.stage_hard_link(path, after.link)
        live.put(path, expected_of(step))

    def _apart(self, step: Step, after: File) -> None:
        """A hard link whose first name is not what it should be: somebody was there, and no sync looks at it until it changes. It
        stands as a file of its own until then, else it would fail every night, and with it all deletions."""
        if self.recover:
            self.leftover(step)
        if not self.obtain(after):
            raise Unexpected("the file that it is a hard link to is not what it should be, and its content can be had from nowhere")
        self.live.put(step.path, expected_of(step))

    def _set(self, path: bytes, after: File) -> None:
        self.items.unset += bool(self.live.writer.describe_file(path, description(after, self.works.owners)))

    def _describe_draft(self, path: bytes, after: File) -> None:
        fd = self.live.staging.open(path)
        assert fd is not None
        try:
            self.items.unset += bool(self.live.writer.describe(fd, description(after, self.works.owners)))
        finally:
            os.close(fd)

    # -- after a run that died -----------------------------------------------------------------------------------

    def is_there(self, path: bytes, entry: File) -> bool:
        """Whether the live file is what an entry says, its content read."""
        there = self.live.stat(path)
        if there is None or not stat.S_ISREG(there.st_mode) or there.st_size != entry.size:
            return False
        if entry.mtime is not None and there.st_mtime_ns != entry.mtime:
            return False
        try:
            fd = self.live.writer.read(path)
        except PermissionError:
            return False
        try:
            return fingerprint_of(fd) == entry.fingerprint
        finally:
            os.close(fd)

    def _draft_is(self, path: bytes, entry: Entry | None) -> bool:
        """Whether the draft of a path is what an entry says, its content read."""
        staging = self.live.staging
        if isinstance(entry, Symlink):
            seen = staging.stat(path)
            folder, name = staging.place(path)
            return seen is not None and stat.S_ISLNK(seen.st_mode) and os.readlink(name, dir_fd=folder) == entry.target
        if not isinstance(entry, File):
            return False
        fd = staging.open(path)
        if fd is None:
            return False
        try:
            return os.fstat(fd).st_size == entry.size and fingerprint_of(fd) == entry.fingerprint
        finally:
            os.close(fd)

    def leftover(self, step: Step) -> None:
        """Remove the draft of a path. After a run that died it may be what that run displaced: if it is neither the old nor the new
        content, it is somebody's work, and kept."""
        live, path = self.live, step.path
        if live.staging.stat(path) is None:
            return
        if self.recover and not self._draft_is(path, step.after) and not self._draft_is(path, step.before):
            hint = f"it is kept in {live.move_aside(path, self.number)}"
            self.works.on_problem(Problem(show(path), "drift", "a run that died displaced what nobody had seen", hint))
            return
        live.staging.drop(path)
