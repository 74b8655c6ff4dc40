"""A folder as a place to write a tree into: what restore needs of the file system, and nothing that leaves the folder.

Every name is resolved relative to an open folder and never through a link (O_NOFOLLOW at each component), so neither a hostile
manifest nor a link that lies in the way can lead a write outside. Files are written under a temporary name beside their
destination and renamed, so a reader sees the old or the new one. OSErrors pass as they are: what they mean for a path is the
caller's to say.

    writer = FolderWriter("/srv/restored")
    draft = writer.draft(b"docs/a.html")
    os.write(draft.fd, b"...")
    writer.describe(draft.fd, Description(mtime=0, mode=0o644)); os.close(draft.fd)
    writer.put(draft, b"docs/a.html")
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import stat
from typing import NamedTuple

from xxhash import xxh3_128

from mirror.keys import parent_of, path_fault

TEMPORARY = re.compile(rb"(?:^|/)\.mirror-tmp-[0-9a-f]{16}\Z")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_HELD = 32
# A manifest may hold numbers and names that no system takes: Python says so before the system is asked.
_UNSETTABLE = (OSError, OverflowError, ValueError)
_libc = ctypes.CDLL(None, use_errno=True)


def _token() -> bytes:
    """As secrets.token_hex(8), whose import takes 8 ms: hmac, hashlib, random."""
    return os.urandom(8).hex().encode()


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class Description(NamedTuple):
    """Metadata to set; None (or empty) leaves that alone. mtime: ns; mode: 07777 bits; uid, gid: numbers. media_type, headers: how
    it is published, fingerprint: of its content, to be noted, for sites that keep that; a folder does not."""

    mtime: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    media_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    fingerprint: bytes = b""


class Draft(NamedTuple):
    """A temporary file: open descriptor and its name beside the destination."""

    fd: int
    name: bytes


def write_at(fd: int, data: bytes | memoryview, at: int) -> None:
    """Write all of it. One call may write a part and say so only by its result: a disk that is nearly full does."""
    rest = memoryview(data)
    while rest:
        done = os.pwrite(fd, rest, at)
        rest, at = rest[done:], at + done


def fingerprint_of(fd: int) -> bytes:
    """The XXH3-128 of an open file's whole content, wherever its position is."""
    whole = xxh3_128()
    at = 0
    while data := os.pread(fd, 1 << 20, at):
        whole.update(data)
        at += len(data)
    return whole.digest()


def file_fault(path: bytes) -> str:
    """Why no file can be written at a path, wherever that is; empty where one can."""
    if fault := path_fault(path):
        return fault
    if not path or path.endswith(b"/"):
        return "it is a folder's"
    return "its name is that of a temporary file" if TEMPORARY.search(path) else ""


class FolderWriter:
    """Writes below one folder, which must exist. For one thread."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._held: dict[bytes, int] = {b"": os.open(root, _FOLDER & ~os.O_NOFOLLOW)}

    def close(self) -> None:
        """Give the descriptors back."""
        for fd in self._held.values():
            os.close(fd)
        self._held = {}

    def folder(self, path: bytes) -> int:
        """A descriptor of the folder `path` (ends in `/`, or empty), valid until the next call. OSError when a component is
        missing, no folder, or a link."""
        missing = []
        while (fd := self._held.get(path)) is None:
            missing.append(path)
            path = parent_of(path)
        for below in reversed(missing):
            fd = os.open(below[len(path) : -1], _FOLDER, dir_fd=fd)
            if len(self._held) >= _HELD:
                oldest = next(key for key in self._held if key not in (b"", path))
                os.close(self._held.pop(oldest))
            self._held[below] = fd
            path = below
        return fd

    def _place(self, path: bytes) -> tuple[int, bytes]:
        path = path.removesuffix(b"/")
        above = parent_of(path)
        return self.folder(above), path[len(above) :]

    def stat(self, path: bytes) -> os.stat_result | None:
        """lstat of a path, None when it is not there."""
        if not path:
            return os.fstat(self._held[b""])
        try:
            fd, name = self._place(path)
            return os.stat(name, dir_fd=fd, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None

    # -- files ---------------------------------------------------------------------------------------------------

    def draft(self, path: bytes, size: int = 0) -> Draft:
        """A new temporary file beside `path`, mode 0600, of so many bytes (a hole)."""
        fd, _ = self._place(path)
        name = b".mirror-tmp-" + _token()
        draft = Draft(os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=fd), name)
        try:
            if size:
                os.truncate(draft.fd, size)
        except OSError:
            os.close(draft.fd)
            os.unlink(name, dir_fd=fd)
            raise
        return draft

    def reopen(self, path: bytes, name: bytes) -> int:
        """A descriptor of a draft made earlier (perhaps by another process)."""
        fd, _ = self._place(path)
        return os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)

    def describe(self, fd: int, what: Description) -> list[str]:
        """Set an open file's metadata; what could not be set, as sentences. Owner first: it takes set-id bits away."""
        failed = []
        doing = "owner"
        try:
            if what.uid is not None or what.gid is not None:
                os.fchown(fd, -1 if what.uid is None else what.uid, -1 if what.gid is None else what.gid)
        except _UNSETTABLE as error:
            failed.append(f"its {doing} could not be set ({_reason(error)})")
        try:
            for key, value in what.xattrs:
                doing = f"attribute {key.decode(errors='backslashreplace')}"
                os.setxattr(fd, key, value)
            doing = "mode"
            if what.mode is not None:
                os.fchmod(fd, what.mode)
            doing = "times"
            if what.mtime is not None:
                os.utime(fd, ns=(what.mtime, what.mtime))
        except _UNSETTABLE as error:
            failed.append(f"its {doing} could not be set ({_reason(error)})")
        return failed

    def put(self, draft: Draft, path: bytes) -> None:
        """Rename a draft (its descriptor closed or not) to its destination, replacing a file or link there."""
        fd, name = self._place(path)
        os.rename(draft.name, name, src_dir_fd=fd, dst_dir_fd=fd)

    def drop(self, path: bytes, draft_name: bytes) -> None:
        """Remove a draft that is not wanted any more."""
        with contextlib.suppress(OSError):
            os.unlink(draft_name, dir_fd=self._place(path)[0])

    # -- everything else -----------------------------------------------------------------------------------------

    def make_folder(self, path: bytes, *, replace: bool = True) -> bool:
        """Make a folder (mode 0700 for now); a file or link of that name gives way if `replace`. False when it is there already."""
        fd, name = self._place(path)
        try:
            os.mkdir(name, 0o700, dir_fd=fd)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                return False
            if not replace:
                raise
            os.unlink(name, dir_fd=fd)
            os.mkdir(name, 0o700, dir_fd=fd)
        return True

    def make_link(self, path: bytes, target: bytes, what: Description) -> list[str]:
        """Put a symbolic link there, replacing a file or link; what could not be set."""
        if not target or b"\0" in target:
            raise OSError(errno.EINVAL, "a link that says nothing, or a NUL byte, cannot be")
        fd, name = self._place(path)
        temporary = b".mirror-tmp-" + _token()
        os.symlink(target, temporary, dir_fd=fd)
        failed = []
        try:
            if what.uid is not None or what.gid is not None:
                os.chown(
                    temporary,
                    -1 if what.uid is None else what.uid,
                    -1 if what.gid is None else what.gid,
                    dir_fd=fd,
                    follow_symlinks=False,
                )
            if what.mtime is not None:
                os.utime(temporary, ns=(what.mtime, what.mtime), dir_fd=fd, follow_symlinks=False)
        except _UNSETTABLE as error:
            failed.append(f"its owner or times could not be set ({_reason(error)})")
        try:
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            os.unlink(temporary, dir_fd=fd)
            raise
        return failed

    def make_hard_link(self, path: bytes, first: bytes) -> None:
        """Make `path` another name of the file `first`, replacing a file or link there."""
        source = self.stat(first)
        if source is None or not stat.S_ISREG(source.st_mode):
            raise FileNotFoundError(errno.ENOENT, "the file that it is a hard link to is not there")
        there = self.stat(path)
        if there is not None and (there.st_dev, there.st_ino) == (source.st_dev, source.st_ino):
            return
        temporary = b".mirror-tmp-" + _token()
        source_fd = os.dup(self._place(first)[0])
        try:
            fd, name = self._place(path)
            os.link(first[len(parent_of(first)) :], temporary, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
        finally:
            os.close(source_fd)
        try:
            os.rename(temporary, name, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            os.unlink(temporary, dir_fd=fd)
            raise

    def describe_folder(self, path: bytes, what: Description) -> list[str]:
        """Set a folder's metadata where it differs; what could not be set."""
        fd = self.folder(path)
        now = os.fstat(fd)
        differs = Description(
            None if what.mtime == now.st_mtime_ns else what.mtime,
            None if what.mode == stat.S_IMODE(now.st_mode) else what.mode,
            None if what.uid == now.st_uid else what.uid,
            None if what.gid == now.st_gid else what.gid,
            what.xattrs,
        )
        if (differs.uid is not None or differs.gid is not None) and differs.mode is None:
            differs = differs._replace(mode=what.mode)  # chown may have taken bits away
        return self.describe(fd, differs)

    def describe_file(self, path: bytes, what: Description) -> list[str]:
        """Set the metadata of a file that is there; what could not be set."""
        try:
            handle = self.read(path)
        except PermissionError:
            self._make_readable(path)
            handle = self.read(path)
        try:
            return self.describe(handle, what)
        finally:
            os.close(handle)

    def read(self, path: bytes) -> int:
        """A descriptor of what is there, for reading. OSError when it is a link."""
        fd, name = self._place(path)
        return os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)

    def _make_readable(self, path: bytes) -> None:
        """Give the owner of a file rights that its mode takes away (0000, 0200); its mode is about to be set."""
        fd, name = self._place(path)
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        try:
            os.chmod(f"/proc/self/fd/{handle}", 0o600)  # just that file, whatever has its name by now; a link refuses
        finally:
            os.close(handle)

    def remove(self, path: bytes) -> None:
        """Remove a file or link, or a folder that is empty (path ends in `/`)."""
        fd, name = self._place(path)
        if path.endswith(b"/"):
            self._forget(path)
            os.rmdir(name, dir_fd=fd)
        else:
            os.unlink(name, dir_fd=fd)

    def _forget(self, path: bytes) -> None:
        for key in [key for key in self._held if key.startswith(path)]:
            os.close(self._held.pop(key))

    def settle(self) -> None:
        """Make everything written so far durable (syncfs: one call instead of 0.3 ms a file)."""
        if _libc.syncfs(self._held[b""]):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self.root)

    def free_bytes(self) -> int:
        """Bytes that this user may still write."""
        seen = os.statvfs(self.root)
        return seen.f_bavail * seen.f_frsize
