"""A folder of this machine as a `LinkingSite`: a thin layer over `mirror.site.writing.FolderWriter`, which never leaves the root.

A version of a file is known by its inode, change time and size. "Nothing is there" is decided by link(2), which cannot overwrite.
That a version is still the one expected is looked at just before the rename: between two writers that both come this way it holds,
since one lock is in front; against strangers there is an instant.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mirror.keys import parent_of, path_fault
from mirror.site import ANYTHING, CONDITIONS, FOLDERS, LINKS, MODES, OWNERS, TIMES, Filter, LinkingSite, Lost, Seen, There, Written
from mirror.site.files import FolderSite
from mirror.site.filters import Matcher
from mirror.site.parts import checked
from mirror.site.walk import mtime_of
from mirror.site.writing import Description, Draft, FolderWriter, file_fault, write_at

_NAME_MOST = 255  # bytes, on every Linux file system that has a limit of its own
_FOLDER_MODE = 0o755  # until somebody describes it


class WritableFolder(FolderSite):
    """See the module. The folder itself is made by the first write."""

    keeps = frozenset({FOLDERS, LINKS, TIMES, MODES, OWNERS, CONDITIONS})

    def __init__(self, path: str, *, filter: Filter | None = None) -> None:
        super().__init__(path, filter=filter)
        self._lock = threading.Lock()
        self._writer: FolderWriter | None = None

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        """See `Site.scan`; a folder that is not there yet is empty."""
        if os.path.lexists(self._root):
            yield from super().scan(matcher)

    def fault(self, path: bytes) -> str:
        """See `WritableSite.fault`."""
        if fault := file_fault(path):
            return fault
        return f"a name in it is longer than {_NAME_MOST} bytes" if max(map(len, path.split(b"/"))) > _NAME_MOST else ""

    def look(self, path: bytes) -> There | None:
        """See `WritableSite.look`."""
        if not os.path.lexists(self._root):
            return None
        with self._writing() as writer:
            seen = writer.stat(path)
        if seen is None or not stat.S_ISREG(seen.st_mode):
            return None
        return There(_tag(seen), seen.st_size, mtime_of(seen))

    def put(
        self, path: bytes, size: int, chunks: Iterable[bytes], what: Description, expected: str | None = ANYTHING
    ) -> Written | Lost:
        """See `WritableSite.put`."""
        self._allow(path)
        with self._writing() as writer:
            _make_folders(writer, parent_of(path))
            draft = writer.draft(path)
            try:
                at = 0
                for chunk in checked(chunks, size):
                    write_at(draft.fd, chunk, at)
                    at += len(chunk)
                unset = writer.describe(draft.fd, what)
                os.fsync(draft.fd)
                lost = self._place_draft(writer, draft, path, expected)
                if lost is None:
                    os.fsync(writer.folder(parent_of(path)))
                    return Written(_tag(os.fstat(draft.fd)), tuple(unset))
                writer.drop(path, draft.name)
                return lost
            except BaseException:
                writer.drop(path, draft.name)
                raise
            finally:
                os.close(draft.fd)

    def _place_draft(self, writer: FolderWriter, draft: Draft, path: bytes, expected: str | None) -> Lost | None:
        """Give a draft its name if what is there is what is expected."""
        if expected is None:
            folder = writer.folder(parent_of(path))
            try:
                os.link(draft.name, path[len(parent_of(path)) :], src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                return Lost(_there(writer.stat(path)))
            writer.drop(path, draft.name)
            return None
        if expected != ANYTHING and ((there := _there(writer.stat(path))) is None or there.tag != expected):
            return Lost(there)
        writer.put(draft, path)
        return None

    def remove(self, path: bytes, expected: str | None = ANYTHING) -> Written | Lost:
        """See `WritableSite.remove`."""
        if fault := path_fault(path):
            raise OSError(errno.EINVAL, fault)
        if not os.path.lexists(self._root):
            return Written()
        with self._writing() as writer:
            seen = writer.stat(path)
            if expected != ANYTHING:
                there = _there(seen)
                if (there.tag if there else None) != expected:
                    return Lost(there)
            if seen is not None:
                writer.remove(path)
                os.fsync(writer.folder(parent_of(path)))
        return Written()

    def make_folder(self, path: bytes) -> bool:
        """See `TreeSite.make_folder`."""
        if fault := path_fault(path):
            raise OSError(errno.EINVAL, fault)
        with self._writing() as writer:
            return _make_folders(writer, path)

    def make_link(self, path: bytes, target: bytes, what: Description) -> Written:
        """See `LinkingSite.make_link`."""
        self._allow(path)
        with self._writing() as writer:
            _make_folders(writer, parent_of(path))
            unset = writer.make_link(path, target, what)
            os.fsync(writer.folder(parent_of(path)))
        return Written("", tuple(unset))

    def describe(self, path: bytes, what: Description) -> Written:
        """See `LinkingSite.describe`."""
        with self._writing() as writer:
            is_folder = not path or path.endswith(b"/")
            unset = writer.describe_folder(path, what) if is_folder else writer.describe_file(path, what)
        return Written("", tuple(unset))

    def sweep(self) -> int:
        """See `WritableSite.sweep`. Nothing: what a dead writer left is seen by a scan (TEMPORARY), and removed by who scans."""
        return 0

    def close(self) -> None:
        """See `WritableSite.close`."""
        with self._lock:
            if self._writer:
                self._writer.close()
                self._writer = None

    def _allow(self, path: bytes) -> None:
        if fault := self.fault(path):
            raise OSError(errno.EINVAL, fault)

    @contextmanager
    def _writing(self) -> Iterator[FolderWriter]:
        """The writer, which is for one thread at a time; the root is made when it is not there."""
        with self._lock:
            if self._writer is None:
                os.makedirs(self._root, exist_ok=True)
                self._writer = FolderWriter(self._root)
            yield self._writer


def _make_folders(writer: FolderWriter, path: bytes) -> bool:
    """Make a folder and those above it, with rights for readers. Whether it was made."""
    made = False
    end = 0
    while end < len(path):
        end = path.index(b"/", end) + 1
        made = writer.make_folder(path[:end], replace=False)
        if made:
            os.fchmod(writer.folder(path[:end]), _FOLDER_MODE)
    return made


def _there(seen: os.stat_result | None) -> There | None:
    return None if seen is None else There(_tag(seen), seen.st_size, mtime_of(seen))


def _tag(seen: os.stat_result) -> str:
    return f"{seen.st_ino:x}-{seen.st_ctime_ns:x}-{seen.st_size:x}"


if TYPE_CHECKING:
    _PROMISE: type[LinkingSite] = WritableFolder
