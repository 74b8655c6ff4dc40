"""The walk of a folder in key order: what is there, unread.

Owns order, bounded memory and what is said of entries that cannot be looked at. Leaves opening files to `mirror.site.files` and
which paths count to `mirror.site.filters`.

Rules:
- Depth first, one listing at a time. A folder's name compares with `/` appended, so siblings sorted by name make whole-path order.
- Every name is resolved relative to an open folder, never through a link: a folder swapped for a link while we look is not
  followed, and no path is too long for the kernel. At most 64 folders are held open, whatever the depth.
- Links are entries of their own, or left out, or (`--symlinks follow`) found out about by `mirror.site.follow`; a folder that is
  in it already is not entered once more.
- Memory: the names of the folders on the way down, at most 100,000 each; longer listings are sorted in runs on disk.

Measured warm on 2 cores: 4 to 6 µs an entry, of which lstat is 2 to 3.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Final

from mirror.errors import SourceError
from mirror.keys import parent_of, path_fault
from mirror.site import FILE, FOLDER, SYMLINK, Found, Seen, Unread
from mirror.site.filters import IGNORE_FILE, IGNORE_FILE_MAX, Matcher
from mirror.site.follow import FOLLOW, KEEP, SKIP, SKIPPED, Astray, Follower, open_folder
from mirror.site.hardlinks import HardLinks
from mirror.site.held import Held
from mirror.spool import KeySorter

LISTING_MAX: Final = 100_000  # names of one folder held in memory
FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HELD_OPEN: Final = 64
_LONG: Final = 65_000  # only below such a prefix can a path be too long for a manifest
_SLASH: Final = 0x2F
TIME_MAX: Final = 2**63 - 1  # ns; some filesystems keep times of which a manifest holds no number
_KINDS: Final = {
    stat.S_IFIFO: "it is a fifo",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFCHR: "it is a character device",
    stat.S_IFBLK: "it is a block device",
}


class _Frame:
    """A folder on the way down: its open descriptor (-1 while given back), what is left of its listing, and who it is. real: its
    path without links; followed: a link leads to it, or to a folder above it."""

    __slots__ = ("fd", "followed", "identity", "ignoring", "length", "names", "real", "sorter")

    def __init__(self, fd: int, length: int, seen: os.stat_result, real: bytes = b"", followed: bool = False) -> None:
        self.fd, self.length, self.identity = fd, length, (seen.st_dev, seen.st_ino)
        self.real, self.followed = real, followed
        self.names: Iterator[bytes] = iter(())
        self.sorter: KeySorter | None = None
        self.ignoring = False


class Walk:
    """One scan. `run` once, then `close`."""

    def __init__(self, root: str, matcher: Matcher, xattrs: bool, symlinks: str = KEEP) -> None:
        self._root, self._matcher, self._xattrs, self._symlinks = root, matcher, xattrs, symlinks
        self._follow: Follower | None = None
        self._frames: list[_Frame] = []
        self._prefix = b""  # the path of the innermost frame
        self._held = Held()
        self._links = HardLinks()
        self._users, self._groups = _Owners(_user_name), _Owners(_group_name)

    def run(self) -> Iterator[Seen]:
        """See `Site.scan`. Closing the iterator gives everything back."""
        try:
            yield from self._enter_root()
            users, groups, held = self._users, self._groups, self._held.folders
            lstat, make, plain = os.lstat, tuple.__new__, stat.S_IFREG
            while self._frames:
                frame, prefix, fd = self._frames[-1], self._prefix, self._frames[-1].fd
                matcher = self._matcher if self._matcher.is_active_in(prefix) else None
                careful = self._xattrs or len(prefix) > _LONG
                for name in frame.names:
                    tentative = False
                    if matcher and (rule := matcher.decide(prefix + name)):
                        tentative = name[-1] == _SLASH and matcher.looks_below(rule)
                        if not tentative:
                            yield from self._held.exclude(prefix + name, rule)
                            continue
                    if name[-1] == _SLASH:
                        yield from self._enter(name, tentative)
                        if self._frames[-1] is not frame:
                            break
                        continue
                    try:
                        seen = lstat(name, dir_fd=fd)
                    except OSError as error:
                        yield from self._out(_lost(prefix + name, error))
                        continue
                    mode, uid, gid = seen.st_mode, seen.st_uid, seen.st_gid
                    mtime = seen.st_mtime_ns
                    if mode & 0o170000 != plain or seen.st_nlink != 1 or careful or held or not -TIME_MAX <= mtime <= TIME_MAX:
                        yield from self._out(self._look(name, seen))
                        continue
                    # tuple.__new__: the constructor with keywords costs 1 µs more an entry.
                    yield make(
                        Found,
                        (
                            prefix + name, FILE, seen.st_size, mtime, mode & 0o7777, uid, gid, users[uid], groups[gid],
                            b"", b"", (seen.st_ino, seen.st_ctime_ns), None,
                        ),
                    )  # fmt: skip
                else:
                    yield from self._leave()
        finally:
            while self._frames:
                _drop(self._frames.pop())
            self._links.close()
            self._held.close()

    # ------------------------------------------------------------------ single entries

    def _look(self, name: bytes, seen: os.stat_result) -> Seen:
        """What an entry is that is no folder."""
        path, fd = self._prefix + name, self._frames[-1].fd
        if fault := path_fault(path) if len(path) > _LONG else "":
            return Unread(path, "name", fault)
        kind = stat.S_IFMT(seen.st_mode)
        if kind == stat.S_IFDIR:
            return Unread(path, "vanished", "it turned into a folder while the scan looked")
        if kind not in (stat.S_IFREG, stat.S_IFLNK):
            return _special(path, kind)
        if kind == stat.S_IFLNK and self._symlinks != KEEP:
            return Unread(path, "skipped", SKIPPED) if self._symlinks == SKIP else self._followed(path, name)
        try:
            target = os.readlink(name, dir_fd=fd) if kind == stat.S_IFLNK else b""
            attributes = _read_xattrs(fd, name) if self._xattrs else None
        except OSError as error:
            return _lost(path, error)
        if kind == stat.S_IFLNK:
            return self._found(path, SYMLINK, seen, attributes)._replace(target=target)
        found = self._found(path, FILE, seen, attributes)
        found = found._replace(size=seen.st_size, validator=(seen.st_ino, seen.st_ctime_ns))
        if seen.st_nlink == 1 or self._frames[-1].followed:  # what is met twice is no group
            return found
        return found._replace(link=self._links.first(seen.st_dev, seen.st_ino, seen.st_nlink, path))

    def _followed(self, path: bytes, name: bytes) -> Seen:
        """The file that a link leads to, under the link's path."""
        assert self._follow
        try:
            reached = self._follow.reach(self._frames[-1].real + name)
            if stat.S_ISDIR(reached.seen.st_mode):
                return Unread(path, "vanished", "it turned into a folder while the scan looked")
            if not stat.S_ISREG(reached.seen.st_mode):
                return _special(path, stat.S_IFMT(reached.seen.st_mode))
            attributes = None
            if self._xattrs:
                above = parent_of(reached.path)
                folder = open_folder(self._frames[0].fd, above.split(b"/")[:-1])
                try:
                    attributes = _read_xattrs(folder, reached.path[len(above) :])
                finally:
                    os.close(folder)
        except Astray as error:
            return Unread(path, "link", error.why)
        except OSError as error:
            return _lost(path, error)
        seen = reached.seen
        return self._found(path, FILE, seen, attributes)._replace(size=seen.st_size, validator=(seen.st_ino, seen.st_ctime_ns))

    def _found(self, path: bytes, kind: str, seen: os.stat_result, attributes: dict[bytes, bytes] | None) -> Found:
        uid, gid, mode = seen.st_uid, seen.st_gid, stat.S_IMODE(seen.st_mode)
        return Found(
            path, kind, 0, mtime_of(seen), mode, uid, gid, self._users[uid], self._groups[gid], xattrs=attributes
        )  # fmt: skip

    def _out(self, *seen: Seen) -> Iterator[Seen]:
        """Let something out, after the folders above it that were held back."""
        if self._held.folders:
            yield from self._held.release()
        yield from seen

    # ------------------------------------------------------------------ folders

    def _enter_root(self) -> Iterator[Seen]:
        fd = _open_root(self._root)
        frame = _Frame(fd, 0, os.fstat(fd))
        self._frames.append(frame)
        if self._symlinks == FOLLOW:
            self._follow = Follower(fd, self._root)
        if failure := self._list(frame):
            raise _refusal(self._root, failure) from failure
        yield self._found(b"", FOLDER, os.fstat(fd), self._folder_xattrs(fd))
        yield from self._begin(frame, None)

    def _enter(self, name: bytes, tentative: bool) -> Iterator[Seen]:
        """Look at a folder and, if it can be listed, make it the innermost frame."""
        path, above = self._prefix + name, self._frames[-1]
        if fault := path_fault(path) if len(path) > _LONG else "":
            yield from self._out(Unread(path, "name", fault))
            return
        real, followed = above.real + name, above.followed
        try:
            try:
                # Without its slash: with one, a link that was swapped in would be followed.
                fd = os.open(name[:-1], FOLDER_FLAGS, dir_fd=above.fd)
            except OSError as error:
                if self._follow is None or error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                fd, real = self._linked_folder(real)
                followed = True
        except Astray as error:
            yield from self._out(Unread(path, "link", error.why))
            return
        except OSError as error:
            yield from self._out(*self._closed_folder(path, name[:-1], error))
            return
        seen = os.fstat(fd)
        frame = _Frame(fd, len(self._prefix), seen, real, followed)
        self._frames.append(frame)
        self._prefix = path
        if len(self._frames) > _HELD_OPEN + 1:  # the root stays open
            given_back = self._frames[-_HELD_OPEN - 1]
            if given_back.fd >= 0:
                os.close(given_back.fd)
                given_back.fd = -1
        failure = self._list(frame)
        found = self._found(path, FOLDER, seen, self._folder_xattrs(fd))
        if tentative and not failure:
            self._held.hold(found)
        else:
            yield from self._out(found)
        yield from self._begin(frame, failure)

    def _linked_folder(self, path: bytes) -> tuple[int, bytes]:
        """The folder that a link leads to, open, and its path without links. path: of the link, with `/`."""
        assert self._follow
        fd, real = self._follow.folder(path)
        seen = os.fstat(fd)
        if (seen.st_dev, seen.st_ino) in (frame.identity for frame in self._frames):
            os.close(fd)
            raise Astray("it leads round in a circle, to a folder that it is in")
        return fd, real

    def _begin(self, frame: _Frame, error: OSError | None) -> Iterator[Seen]:
        """Say what is wrong with a folder's listing, and read the rules that it brings."""
        why = _why(error) if error else ""
        try:
            rules = _read_ignore_file(frame.fd) if self._matcher.reads_ignore_files else None
        except OSError as failure:
            # Without its rules nobody knows what of this folder is meant: take nothing of it, delete nothing of it.
            frame.names = iter(())
            why = f"its {IGNORE_FILE.decode()} cannot be read: {_why(failure)}"
        else:
            if rules is not None:
                frame.ignoring = True
                self._matcher.enter(self._prefix, rules)
        if why:
            yield from self._out(Unread(self._prefix, "incomplete", why))

    def _closed_folder(self, path: bytes, name: bytes, error: OSError) -> list[Seen]:
        """What to say of a folder that cannot be opened."""
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            why = "it is no longer there" if error.errno == errno.ENOENT else "it is no folder any more"
            return [Unread(path, "vanished", why)]
        try:
            seen = os.lstat(name, dir_fd=self._frames[-1].fd)
        except OSError:
            return [Unread(path, "incomplete", _why(error))]
        if stat.S_ISLNK(seen.st_mode):
            return [Unread(path, "incomplete", _why(error))]
        return [self._found(path, FOLDER, seen, None), Unread(path, "incomplete", _why(error))]

    def _list(self, frame: _Frame) -> OSError | None:
        """Read the folder's names, in order, into the frame. What stopped it, if something did; what came before is kept."""
        listed: list[bytes] = []
        failure: OSError | None = None
        try:
            with os.scandir(frame.fd) as entries:
                names = self._follow.names(entries, frame.real) if self._follow else _names(entries)
                # Not list(islice(…)): what came before an error is kept.
                for name in islice(names, LISTING_MAX):
                    listed.append(name)
                if len(listed) == LISTING_MAX:
                    frame.sorter = KeySorter()
                    frame.sorter.extend(listed)
                    listed.clear()
                    frame.sorter.extend(names)
        except OSError as error:
            failure = error
        if frame.sorter:
            frame.names = iter(frame.sorter)
        else:
            listed.sort()
            frame.names = iter(listed)
        return failure

    def _leave(self) -> Iterator[Seen]:
        frame, left = self._frames.pop(), self._prefix
        if frame.ignoring:
            self._matcher.leave()
        if self._frames and self._frames[-1].fd < 0:
            self._frames[-1].fd = self._reopen(frame.fd)
        self._prefix = left[: frame.length]
        _drop(frame)
        return self._held.leave(left)

    def _reopen(self, child: int) -> int:
        """The descriptor of the innermost frame again; -1 when the folder was moved: all that is left of it will say so."""
        wanted = self._frames[-1].identity
        for above in (True, False):
            try:
                fd = os.open("..", FOLDER_FLAGS, dir_fd=child) if above else self._open_from_root()
            except OSError:
                continue
            seen = os.fstat(fd)
            if (seen.st_dev, seen.st_ino) == wanted:
                return fd
            os.close(fd)
        return -1

    def _open_from_root(self) -> int:
        return open_folder(self._frames[0].fd, self._frames[-1].real.split(b"/")[:-1])

    def _folder_xattrs(self, fd: int) -> dict[bytes, bytes] | None:
        try:
            return _read_xattrs(fd, b"") if self._xattrs else None
        except OSError:
            return None


def mtime_of(seen: os.stat_result) -> int:
    """The mtime in ns; the nearest that a manifest can hold."""
    return max(-TIME_MAX, min(seen.st_mtime_ns, TIME_MAX))


def _names(entries: Iterable[os.DirEntry[str]]) -> Iterator[bytes]:
    """The names of a listing as bytes (an open folder is listed as text), with `/` behind those of folders."""
    encoding, errors = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()
    for entry in entries:
        name = entry.name.encode(encoding, errors)
        yield name + b"/" if entry.is_dir(follow_symlinks=False) else name


def check_root(root: str) -> None:
    """SourceError when this is no folder that can be listed."""
    fd = _open_root(root)
    try:
        with os.scandir(fd) as entries:
            next(entries, None)
    except OSError as error:
        raise _refusal(root, error) from error
    finally:
        os.close(fd)


def _open_root(root: str) -> int:
    try:
        return os.open(root, FOLDER_FLAGS & ~os.O_NOFOLLOW)
    except OSError as error:
        raise _refusal(root, error) from error


def _refusal(root: str, error: OSError) -> SourceError:
    why, hint = _why(error), ""
    if error.errno == errno.ENOENT:
        why, hint = "it does not exist", "is it mounted?"
    elif error.errno == errno.ENOTDIR:
        why, hint = "it is not a folder", "give the folder it is in"
    elif error.errno == errno.EACCES:
        hint = "run as a user who may read it"
    return SourceError("cannot read the source", where=root, why=why, hint=hint)


class _Owners(dict[int, str]):
    """Number → name of a user or group, asked once each."""

    def __init__(self, ask: Callable[[int], str]) -> None:
        super().__init__()
        self._ask = ask

    def __missing__(self, number: int) -> str:
        self[number] = name = self._ask(number)
        return name


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _group_name(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return ""


def _why(error: OSError) -> str:
    if error.errno == errno.EBADF:
        return "its folder was moved while the scan looked"
    return (error.strerror or str(error)).lower()


def _special(path: bytes, kind: int) -> Unread:
    return Unread(path, "special", _KINDS.get(kind, "it is neither file, folder nor link"))


def _lost(path: bytes, error: OSError) -> Unread:
    """What to say of an entry that was listed and cannot be looked at."""
    if error.errno == errno.ENOENT:
        return Unread(path, "vanished", "it is no longer there")
    return Unread(path, "unreadable", _why(error))


def _drop(frame: _Frame) -> None:
    if frame.fd >= 0:
        os.close(frame.fd)
    if frame.sorter:
        frame.sorter.close()


def _read_ignore_file(folder: int) -> bytes | None:
    """The folder's `.mirrorignore`, None when there is none. OSError when it cannot be read, is a link or too long."""
    try:
        fd = os.open(IGNORE_FILE, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, dir_fd=folder)
    except FileNotFoundError:
        return None
    try:
        seen = os.fstat(fd)
        if stat.S_ISDIR(seen.st_mode):
            return None
        if not stat.S_ISREG(seen.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if seen.st_size > IGNORE_FILE_MAX:
            raise OSError(errno.EFBIG, f"it is larger than {IGNORE_FILE_MAX} bytes")
        with open(fd, "rb", closefd=False) as file:
            return file.read(IGNORE_FILE_MAX)
    finally:
        os.close(fd)


def _read_xattrs(folder: int, name: bytes) -> dict[bytes, bytes]:
    """The extended attributes of an entry itself. There is no fgetxattr-at; /proc gives a short path to an open folder."""
    path = b"/proc/self/fd/%d/%s" % (folder, name) if name else b"/proc/self/fd/%d" % folder
    follow = not name
    try:
        names = os.listxattr(path, follow_symlinks=follow)
        return {os.fsencode(key): os.getxattr(path, key, follow_symlinks=follow) for key in names}
    except OSError as error:
        if error.errno in (errno.ENOTSUP, errno.ENODATA):
            return {}
        raise
