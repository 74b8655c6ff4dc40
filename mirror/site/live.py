"""The live folder of a tree, which people read while it is changed: one name at a time, each change conditional.

Owns what is staged below `.mirror/staged/` (one draft a path, on the filesystem of the tree, so that a rename puts it into place),
what is kept aside below `.mirror/aside/`, and the changes themselves. Where the kernel has RENAME_EXCHANGE, what a rename
displaced is looked at afterwards; if it is not what was expected it is put back, and nobody's work is lost. Elsewhere (macOS, some
network filesystems) a look before the rename has to do. OSErrors pass as they are.

    live = LiveTree("/srv/www")
    fd = live.staging.begin(b"a.html"); os.write(fd, b"..."); os.close(fd)
    live.put(b"a.html", None)  # nothing may stand there
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from blake3 import blake3

from mirror.keys import STORE, parent_of
from mirror.site import FILE, FOLDER, SYMLINK, SiteSpec
from mirror.site.standing import OTHER, Standing
from mirror.site.writing import Description, FolderWriter

if TYPE_CHECKING:
    from mirror.site.standing import LivePlace

T = TypeVar("T")
_STAGED, _ASIDE = "staged", "aside"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NOREPLACE, _EXCHANGE = 1, 2
_NOT_HERE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_COPY = 8 << 20
_libc = ctypes.CDLL(None, use_errno=True)
_renameat2 = getattr(_libc, "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)


class Unexpected(Exception):
    """Something else stands there than was expected; it was left there. why: a phrase. kept: what was displaced is in the staging
    place of that path and could not go back."""

    def __init__(self, why: str, kept: bool = False) -> None:
        super().__init__(why)
        self.why, self.kept = why, kept


class Expected(NamedTuple):
    """What is to stand at a path before a change: kind, size in bytes, mtime in ns (None: any), a link's target, and inode and
    ctime where they were seen ((0, 0): not)."""

    kind: str
    size: int = 0
    mtime: int | None = None
    target: bytes = b""
    seen: tuple[int, int] = (0, 0)


def is_ours(path: bytes) -> bool:
    """Whether a path is the store of a tree, or in it: nothing of a site may go there.

    >>> is_ours(b".mirror/log/1"), is_ours(b".mirror"), is_ours(b".mirrorignore"), is_ours(b"a/.mirror/")
    (True, True, False, False)
    """
    return path == b".mirror" or path.startswith(b".mirror/")


def rename_noting(source: tuple[int, bytes], goal: tuple[int, bytes], flags: int) -> bool:
    """renameat2 of (folder, name) to (folder, name); False where the kernel or the filesystem has none."""
    if _renameat2 is None:
        return False
    if not _renameat2(source[0], source[1], goal[0], goal[1], flags):
        return True
    code = ctypes.get_errno()
    if code in _NOT_HERE:
        return False
    raise OSError(code, os.strerror(code))


class Staging:
    """The drafts of a tree, one a path: `.mirror/staged/<digit>/<hash of the path>`. For one thread; several processes may have it
    open as long as they write drafts of different paths."""

    def __init__(self, root: str) -> None:
        """root: of the tree. Makes the folders, 0700."""
        self.path = os.path.join(root, STORE, _STAGED)
        self._shards: list[int] = []
        above = _made(os.path.join(root, STORE), _STAGED)
        try:
            for digit in "0123456789abcdef":
                with contextlib.suppress(FileExistsError):
                    os.mkdir(digit, 0o700, dir_fd=above)
                self._shards.append(os.open(digit, _FOLDER, dir_fd=above))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(above)

    def close(self) -> None:
        """Give the descriptors back."""
        while self._shards:
            os.close(self._shards.pop())

    def place(self, path: bytes) -> tuple[int, bytes]:
        """(folder, name) of a path's draft."""
        digest = blake3(path).digest(16)
        return self._shards[digest[0] >> 4], digest.hex().encode()

    def begin(self, path: bytes) -> int:
        """A new, empty draft, mode 0600, instead of one that may be there: its descriptor."""
        folder, name = self.place(path)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            return os.open(name, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            os.unlink(name, dir_fd=folder)
            return os.open(name, flags, 0o600, dir_fd=folder)

    def begin_apart(self, path: bytes) -> int:
        """The same under a name that nobody takes for a draft until `complete`: while a publishing is open, what is found as a
        draft is either whole or somebody's work."""
        return self.begin(path + b"\0")

    def complete(self, path: bytes) -> None:
        """Make what `begin_apart` began the draft of a path."""
        (source, begun), (goal, name) = self.place(path + b"\0"), self.place(path)
        os.rename(begun, name, src_dir_fd=source, dst_dir_fd=goal)

    def link(self, path: bytes, target: bytes, what: Description) -> None:
        """A symbolic link as the draft. Owner and time are set as far as that can be done."""
        self.drop(path)
        folder, name = self.place(path)
        os.symlink(target, name, dir_fd=folder)
        with contextlib.suppress(OSError, OverflowError):
            if what.uid is not None or what.gid is not None:
                ids = (-1 if what.uid is None else what.uid, -1 if what.gid is None else what.gid)
                os.chown(name, *ids, dir_fd=folder, follow_symlinks=False)
        with contextlib.suppress(OSError, OverflowError):
            if what.mtime is not None:
                os.utime(name, ns=(what.mtime, what.mtime), dir_fd=folder, follow_symlinks=False)

    def open(self, path: bytes) -> int | None:
        """A descriptor of a path's draft for reading and describing; None when there is none, or it is no file."""
        folder, name = self.place(path)
        try:
            fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR, errno.ENXIO):
                return None
            if error.errno != errno.EACCES:
                raise
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return None

    def stat(self, path: bytes) -> os.stat_result | None:
        """lstat of a path's draft."""
        folder, name = self.place(path)
        try:
            return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def drop(self, path: bytes) -> None:
        """Remove a path's draft, if there is one."""
        folder, name = self.place(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=folder)

    def _names(self) -> Iterator[tuple[int, str]]:
        for shard in self._shards:
            yield from ((shard, name) for name in os.listdir(shard))

    def sweep(self) -> int:
        """Remove every draft; how many there were. Not while a publishing is open."""
        removed = 0
        for shard, name in self._names():
            os.unlink(name, dir_fd=shard)
            removed += 1
        return removed

    def size(self) -> int:
        """Bytes of all drafts."""
        return sum(os.stat(name, dir_fd=shard, follow_symlinks=False).st_size for shard, name in self._names())


def sweep_staged(root: str) -> None:
    """Remove all drafts of a tree; makes nothing where none were ever made."""
    if os.path.isdir(os.path.join(root, STORE, _STAGED)):
        staging = Staging(root)
        try:
            staging.sweep()
        finally:
            staging.close()


class LiveTree:
    """The live folder, a `LivePlace`. For one thread, and for one run at a time: whoever uses it holds the tree's lock."""

    files_only = False

    def __init__(self, root: str) -> None:
        self.root = self.url = root
        self.spec = SiteSpec(root)
        self.writer = FolderWriter(root)
        try:
            self.staging = Staging(root)
        except BaseException:
            self.writer.close()
            raise

    def close(self) -> None:
        """Give the descriptors back."""
        self.staging.close()
        self.writer.close()

    def __enter__(self) -> LiveTree:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _place(self, path: bytes) -> tuple[int, bytes]:
        above = parent_of(path)
        return self.writer.folder(above), path[len(above) :]

    def stat(self, path: bytes) -> os.stat_result | None:
        """lstat of a live path, None when nothing is there."""
        return self.writer.stat(path)

    def standing(self, path: bytes) -> Standing | None:
        """See `LivePlace.standing`."""
        there = self.stat(path)
        if there is None:
            return None
        # A file of several names changes its ctime when another of them does.
        seen = (there.st_ino, there.st_ctime_ns) if there.st_nlink == 1 else (0, 0)
        if stat.S_ISLNK(there.st_mode):
            return Standing(SYMLINK, 0, there.st_mtime_ns, seen=seen, target=self.target(path))
        kind = FILE if stat.S_ISREG(there.st_mode) else FOLDER if stat.S_ISDIR(there.st_mode) else OTHER
        return Standing(kind, there.st_size, there.st_mtime_ns, stat.S_IMODE(there.st_mode), seen)

    def each(self, items: Iterable[tuple[bytes | None, T]]) -> Iterator[tuple[T, Standing | OSError | None]]:
        """See `LivePlace.each`."""
        for path, item in items:
            try:
                yield item, self.standing(path) if path is not None else None
            except OSError as error:
                yield item, error

    def sweep(self) -> None:
        """See `LivePlace.sweep`."""
        self.staging.sweep()

    def target(self, path: bytes) -> bytes:
        """What a live symbolic link says."""
        folder, name = self._place(path)
        return os.readlink(name, dir_fd=folder)

    def is_empty(self) -> bool:
        """Whether the tree holds nothing but its store."""
        with os.scandir(self.root) as entries:
            return all(entry.name in (STORE, "lost+found") for entry in entries)

    # -- changes -------------------------------------------------------------------------------------------------

    def put(self, path: bytes, expected: Expected | None) -> None:
        """Give a path's draft its name, if what stands there is what is expected (None: nothing); that is gone afterwards.
        Unexpected; OSError."""
        place, draft = self._place(path), self.staging.place(path)
        if expected is None:
            self._put_new(draft, place)
            return
        self._check(place, expected)
        ours = _stat(draft)
        try:
            exchanged = rename_noting(draft, place, _EXCHANGE)
        except FileNotFoundError:
            raise Unexpected("it was taken away meanwhile") from None
        if not exchanged:
            os.rename(draft[1], place[1], src_dir_fd=draft[0], dst_dir_fd=place[0])
            return
        why = _difference(draft, expected, moved=True)
        if why:
            rename_noting(draft, place, _EXCHANGE)
            raise Unexpected(why, kept=_stat(draft).st_ino != ours.st_ino)
        os.unlink(draft[1], dir_fd=draft[0])

    def _put_new(self, draft: tuple[int, bytes], place: tuple[int, bytes]) -> None:
        try:
            if rename_noting(draft, place, _NOREPLACE):
                return
        except FileExistsError:
            raise Unexpected("something stands there that no snapshot has") from None
        if self._is_there(place):
            raise Unexpected("something stands there that no snapshot has")
        os.rename(draft[1], place[1], src_dir_fd=draft[0], dst_dir_fd=place[0])

    @staticmethod
    def _is_there(place: tuple[int, bytes]) -> bool:
        try:
            _stat(place)
        except FileNotFoundError:
            return False
        return True

    def take_away(self, path: bytes, expected: Expected) -> bool:
        """Remove a file or link if it is what is expected; False when nothing is there. Unexpected; OSError."""
        place, draft = self._place(path), self.staging.place(path)
        if not self._is_there(place):
            return False
        self._check(place, expected)
        self.staging.drop(path)
        os.rename(place[1], draft[1], src_dir_fd=place[0], dst_dir_fd=draft[0])
        why = _difference(draft, expected, moved=True)
        if why:
            try:
                self._put_new(draft, place)
            except Unexpected:
                raise Unexpected(why, kept=True) from None
            raise Unexpected(why)
        os.unlink(draft[1], dir_fd=draft[0])
        return True

    def check(self, path: bytes, expected: Expected) -> None:
        """Unexpected when something else stands there."""
        self._check(self._place(path), expected)

    def _check(self, place: tuple[int, bytes], expected: Expected) -> None:
        try:
            why = _difference(place, expected)
        except FileNotFoundError:
            why = "it was taken away"
        if why:
            raise Unexpected(why)

    def stage_hard_link(self, path: bytes, first: bytes) -> None:
        """Make another name of a live file the draft of `path`."""
        self.staging.drop(path)
        source, draft = self._place(first), self.staging.place(path)
        os.link(source[1], draft[1], src_dir_fd=source[0], dst_dir_fd=draft[0], follow_symlinks=False)

    def stage_copy(self, path: bytes, of: bytes) -> None:
        """Make a copy of the live file `of` the draft of `path`; its metadata is still to be set."""
        source = self.writer.read(of)
        try:
            draft = self.staging.begin_apart(path)
            try:
                copy_all(source, draft)
            finally:
                os.close(draft)
        finally:
            os.close(source)
        self.staging.complete(path)

    def settle(self) -> None:
        """Make everything written so far durable."""
        self.writer.settle()

    # -- what is not ours ----------------------------------------------------------------------------------------

    def keep_aside(self, path: bytes, number: int) -> str:
        """Copy a live file or link to `.mirror/aside/<number>/<path>`; where that is, below the tree."""
        folder, name, where = self._aside(path, number)
        try:
            source_folder, source = self._place(path)
            if stat.S_ISLNK(os.stat(source, dir_fd=source_folder, follow_symlinks=False).st_mode):
                os.symlink(os.readlink(source, dir_fd=source_folder), name, dir_fd=folder)
                return where
            fd = self.writer.read(path)
            try:
                copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
                try:
                    copy_all(fd, copy)
                    seen = os.fstat(fd)
                    os.utime(copy, ns=(seen.st_mtime_ns, seen.st_mtime_ns))
                    os.fsync(copy)
                finally:
                    os.close(copy)
            finally:
                os.close(fd)
        finally:
            os.close(folder)
        return where

    def move_aside(self, path: bytes, number: int) -> str:
        """Keep what is in the staging place of a path, which is nobody's draft, in the same way."""
        folder, name, where = self._aside(path, number)
        draft = self.staging.place(path)
        try:
            os.rename(draft[1], name, src_dir_fd=draft[0], dst_dir_fd=folder)
        finally:
            os.close(folder)
        return where

    def _aside(self, path: bytes, number: int) -> tuple[int, bytes, str]:
        """(folder, name that is free in it, the same for people)."""
        folder = _made(os.path.join(self.root, STORE), _ASIDE)
        above = parent_of(path)
        try:
            for part in [b"%d" % number, *filter(None, above.split(b"/"))]:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o700, dir_fd=folder)
                below = os.open(part, _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = below
            name, count = path[len(above) :], 1
            while self._is_there((folder, name)):
                count += 1
                name = path[len(above) :] + b".%d" % count
        except BaseException:
            os.close(folder)
            raise
        return folder, name, f"{STORE}/{_ASIDE}/{number}/{os.fsdecode(above + name)}"


def copy_all(source: int, goal: int) -> None:
    """Copy an open file into another, empty one: within the kernel where it can."""
    at = 0
    try:
        while done := os.copy_file_range(source, goal, 1 << 30, at, at):
            at += done
    except OSError as error:
        if at or error.errno not in (*_NOT_HERE, errno.EXDEV, errno.EBADF, errno.EPERM):
            raise
    while data := os.pread(source, _COPY, at):
        rest = memoryview(data)
        while rest:
            done = os.pwrite(goal, rest, at)
            rest, at = rest[done:], at + done


def _made(above: str, name: str) -> int:
    """A descriptor of the folder `name` in `above`, made 0700 when missing; a link is not followed."""
    folder = os.open(above, _FOLDER)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
        return os.open(name, _FOLDER, dir_fd=folder)
    finally:
        os.close(folder)


def _stat(place: tuple[int, bytes]) -> os.stat_result:
    return os.stat(place[1], dir_fd=place[0], follow_symlinks=False)


def _difference(place: tuple[int, bytes], expected: Expected, *, moved: bool = False) -> str:
    """How what stands there differs from what is expected; empty when it does not. moved: a rename has changed its ctime."""
    there = _stat(place)
    if expected.kind == SYMLINK:
        if not stat.S_ISLNK(there.st_mode) or os.readlink(place[1], dir_fd=place[0]) != expected.target:
            return "it is not the link that was there"
        return ""
    if expected.kind != FILE or not stat.S_ISREG(there.st_mode):
        return "it is no file any more"
    if there.st_size != expected.size or (expected.mtime is not None and there.st_mtime_ns != expected.mtime):
        return "it was changed behind our back"
    inode, ctime = expected.seen
    if inode and (there.st_ino != inode or (not moved and there.st_ctime_ns != ctime)):
        return "it was replaced behind our back"
    return ""


if TYPE_CHECKING:
    _PROMISE: type[LivePlace] = LiveTree
