"""A folder as a site: the fast path.

Owns the opening of a folder's files. Leaves the walk in key order to `mirror.site.walk`, and which paths count to
`mirror.site.filters`.

A file is opened relative to its folder, and that folder component by component from the root, never through a link: whoever swaps
a folder for a link while we read sends us nowhere. With `--symlinks follow` a path may go through links; then it is found out first
what it is without them (`mirror.site.follow`), and that is opened, in the same way.

    >>> [seen.path for seen in FolderSite("/srv/www").scan()]  # doctest: +SKIP
    [b'', b'css/', b'css/site.css', b'index.html']
"""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
import time
from collections.abc import Iterator
from typing import Final

from mirror.errors import NotFound
from mirror.keys import parent_of
from mirror.site import Content, Filter, Seen
from mirror.site.filters import Matcher
from mirror.site.follow import FOLLOW, KEEP, Astray, reach, spellings
from mirror.site.walk import FOLDER_FLAGS, Walk, check_root, mtime_of

# O_NONBLOCK: a fifo that was swapped in must not hang us.
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_HELD_OPEN: Final = 16
_TRUSTED_SECONDS: Final = 1.0


class FolderSite:
    """A folder of this machine as a `Site`. `path` may itself be a link; what becomes of links below it, `symlinks` says."""

    def __init__(self, path: str, *, filter: Filter | None = None, xattrs: bool = False, symlinks: str = KEEP) -> None:
        self._root = os.path.abspath(path)
        self._filter = filter or Filter()
        self._xattrs = xattrs
        self._symlinks = symlinks
        self._local = threading.local()  # open folders for `open`, per thread

    @property
    def url(self) -> str:
        return self._root

    @property
    def identity(self) -> dict[str, str]:
        return {"host": os.uname().nodename, "path": self._root}

    def check(self) -> None:
        """See `Site.check`."""
        check_root(self._root)

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        """See `Site.scan`. A folder that cannot be listed gives its Found and then an Unread of the same path."""
        return Walk(self._root, matcher or Matcher(self._filter), self._xattrs, self._symlinks).run()

    def open(self, path: bytes) -> Content:
        folders: _Folders | None = getattr(self._local, "folders", None)
        if folders is None:
            folders = self._local.folders = _Folders(self._root)
        try:
            try:
                fd = folders.open_file(path)
            except OSError as error:
                if self._symlinks != FOLLOW or error.errno not in (errno.ELOOP, errno.ENOTDIR):
                    raise
                fd = folders.open_file(self._without_links(path))
        except Astray as error:
            raise OSError(errno.ELOOP, error.why) from error
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                raise NotFound(path) from error
            if error.errno == errno.ELOOP:
                raise OSError(errno.ELOOP, "it turned into a link") from error
            raise
        try:
            seen = os.fstat(fd)
            if not stat.S_ISREG(seen.st_mode):
                raise OSError(errno.EINVAL, "it is no regular file any more")
            stream = io.FileIO(fd, "rb")
        except BaseException:
            os.close(fd)
            raise
        return Content(stream, seen.st_size, mtime_of(seen), (seen.st_ino, seen.st_ctime_ns))

    def _without_links(self, path: bytes) -> bytes:
        root = os.open(self._root, FOLDER_FLAGS & ~os.O_NOFOLLOW)
        try:
            return reach(root, spellings(self._root), path).path
        finally:
            os.close(root)

    def recheck(self, path: bytes, content: Content) -> str:
        seen = os.fstat(content.stream.fileno())
        if seen.st_size != content.size:
            return f"its size changed from {content.size} to {seen.st_size} while it was read"
        if mtime_of(seen) != content.mtime or seen.st_ctime_ns != content.validator[1]:
            return "it was changed while it was read"
        return ""


class _Folders:
    """The last few folders that files were opened in, at most 16. For one thread.

    Forgotten after a second, so that a folder that was moved away and replaced is noticed.
    """

    def __init__(self, root: str) -> None:
        self._root = root
        self._open: dict[bytes, int] = {}
        self._until = 0.0

    def open_file(self, path: bytes) -> int:
        if time.monotonic() > self._until:
            self.close()
        folder = parent_of(path)
        name = path[len(folder) :]
        known = self._open.get(folder)
        if known is not None:
            try:
                return os.open(name, _FILE_FLAGS, dir_fd=known)
            except FileNotFoundError:
                self.close()  # perhaps only our idea of the folder is old
        return os.open(name, _FILE_FLAGS, dir_fd=self._folder(folder))

    def _folder(self, folder: bytes) -> int:
        if not self._open:
            self._open[b""] = os.open(self._root, FOLDER_FLAGS & ~os.O_NOFOLLOW)
            self._until = time.monotonic() + _TRUSTED_SECONDS
        missing = []
        while (fd := self._open.get(folder)) is None:
            missing.append(folder)
            folder = parent_of(folder)
        for path in reversed(missing):
            if len(self._open) >= _HELD_OPEN:
                for old in [known for known in self._open if known not in (b"", folder)]:
                    os.close(self._open.pop(old))
            fd = self._open[path] = os.open(path[len(folder) : -1], FOLDER_FLAGS, dir_fd=fd)
            folder = path
        return fd

    def close(self) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()
