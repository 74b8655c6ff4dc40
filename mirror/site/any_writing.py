"""Whatever fsspec can write, as a `TreeSite`: whole files, folders where the place has them, and nothing else.

Where a file system renames by itself (it has a `mv` of its own: local, sftp, smb, ftp), a file is written under a temporary name
and renamed. Where `mv` would be fsspec's copy and delete (object services, memory), one call puts the whole file under its name; a
long one is collected in a temporary file of this host first, so that no unproved byte and no half a file gets that name.

No times and no conditions: fsspec has no word for them.
"""

from __future__ import annotations

import errno
import posixpath
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from mirror.errors import MirrorError, UsageError
from mirror.keys import parent_of, path_fault
from mirror.site import ANYTHING, FOLDERS, Lost, Seen, SiteSpec, There, TreeSite, Written
from mirror.site.anyfs import AnySite, os_error, read_info
from mirror.site.filters import Matcher
from mirror.site.parts import checked
from mirror.site.writing import Description, file_fault

_WHOLE: Final = 8 << 20  # bytes; files up to here are held in memory
_MADE_HELD: Final = 10_000  # folders known to be there


class WritableAny(AnySite):
    """See the module. A place that can only be read is refused, at the latest by the first write (UsageError)."""

    keeps = frozenset({FOLDERS})

    def __init__(self, spec: SiteSpec) -> None:
        try:
            super().__init__(spec)
        except MirrorError as error:
            error.what = "cannot open"  # it is no source
            raise
        from fsspec import AbstractFileSystem
        from fsspec.archive import AbstractArchiveFileSystem

        if isinstance(self._fs, AbstractArchiveFileSystem):
            raise self._read_only()

        self._renames = type(self._fs).mv is not AbstractFileSystem.mv
        self._made: set[str] = set()

    @property
    def identity(self) -> dict[str, str]:
        """See `Site.identity`: a folder of this machine is one by whatever name it is reached."""
        from fsspec.implementations.local import LocalFileSystem

        return {"path": self._root} if isinstance(self._fs, LocalFileSystem) else super().identity

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        """See `Site.scan`; a root that is not there yet is empty."""
        try:
            self.list(b"").close()
        except FileNotFoundError:
            return
        except OSError:
            pass  # the scan itself says it better
        yield from super().scan(matcher)

    def fault(self, path: bytes) -> str:
        """See `WritableSite.fault`."""
        return file_fault(path)

    def look(self, path: bytes) -> There | None:
        """See `WritableSite.look`."""
        with self._acting(path):
            try:
                entry = self._fs.info(self.place(path))
            except (FileNotFoundError, NotADirectoryError):
                return None
        info = read_info(entry)
        return There("", info.size, info.mtime) if info.kind == "file" else None

    def put(
        self, path: bytes, size: int, chunks: Iterable[bytes], what: Description, expected: str | None = ANYTHING
    ) -> Written | Lost:
        """See `WritableSite.put`."""
        _unconditional(expected)
        self._allow(path)
        place = self.place(path)
        pieces = checked(chunks, size)
        if size <= _WHOLE:
            data = b"".join(pieces)
            with self._acting(path):
                self._ready(path, place)
                self._name_at_last(place, lambda name: self._fs.pipe_file(name, data), size)
            return Written()
        with tempfile.NamedTemporaryFile() as kept:
            for piece in pieces:
                kept.write(piece)
            kept.flush()
            with self._acting(path):
                self._ready(path, place)
                self._name_at_last(place, lambda name: self._fs.put_file(kept.name, name), size)
        return Written()

    def _ready(self, path: bytes, place: str) -> None:
        """Make the folder that a file goes into. OSError when a folder stands where the file is to be."""
        above = posixpath.dirname(place)
        if above not in self._made:
            self._fs.makedirs(above, exist_ok=True)
            if len(self._made) >= _MADE_HELD:
                self._made.clear()
            self._made.add(above)
        if self._fs.isdir(place):
            raise IsADirectoryError(errno.EISDIR, "it is a folder", path)

    def _name_at_last(self, place: str, write: Callable[[str], object], size: int) -> None:
        if not self._renames:
            write(place)
            self._check(place, size)
            return
        name = f"{posixpath.dirname(place)}/.mirror-tmp-{secrets.token_hex(8)}"
        try:
            write(name)
            self._check(name, size)
            try:
                self._fs.mv(name, place)
            except Exception:
                if not self._fs.exists(place):
                    raise
                # Some (ftp, smb) do not rename over a file that is there.
                self._fs.rm_file(place)
                self._fs.mv(name, place)
        except BaseException:
            with suppress(Exception):
                self._fs.rm_file(name)
            raise

    def _check(self, place: str, size: int) -> None:
        """See that it is there: fsspec's base class takes what is written for a place that cannot be, and says nothing."""
        self._fs.invalidate_cache(posixpath.dirname(place))
        try:
            there = read_info(self._fs.info(place)).size
        except FileNotFoundError:
            raise self._read_only() from None
        if there != size:
            raise OSError(errno.EIO, f"{there:,} bytes are there of the {size:,} that were written")

    def remove(self, path: bytes, expected: str | None = ANYTHING) -> Written | Lost:
        """See `WritableSite.remove`."""
        _unconditional(expected)
        if fault := path_fault(path):
            raise OSError(errno.EINVAL, fault)
        place = self.place(path)
        with self._acting(path), suppress(FileNotFoundError):
            if not path.endswith(b"/"):
                self._fs.rm_file(place)
            elif self._fs.isdir(place):
                self._made.clear()
                if self._fs.ls(place, detail=False):
                    raise OSError(errno.ENOTEMPTY, "it is not empty")
                self._fs.rmdir(place)
        return Written()

    def make_folder(self, path: bytes) -> bool:
        """See `TreeSite.make_folder`. Object services have none: there it does nothing."""
        if fault := path_fault(path):
            raise OSError(errno.EINVAL, fault)
        place = self.place(path)
        with self._acting(path):
            if self._fs.isdir(place):
                return False
            self._fs.makedirs(place, exist_ok=True)
        return True

    def sweep(self) -> int:
        """See `WritableSite.sweep`. Nothing: what a dead writer left is seen by a scan (TEMPORARY), and removed by who scans."""
        return 0

    def close(self) -> None:
        """See `WritableSite.close`. Nothing is held open."""

    def _read_only(self) -> UsageError:
        return UsageError("cannot write to", where=self._url, why="it can only be read", hint="name another place")

    def _allow(self, path: bytes) -> None:
        if fault := self.fault(path):
            raise OSError(errno.EINVAL, fault)

    @contextmanager
    def _acting(self, path: bytes) -> Iterator[None]:
        """Around calls of fsspec: one at a time where that is needed, and their errors ours."""
        with self._turn:
            try:
                yield
            except NotImplementedError as error:
                raise self._read_only() from error
            except OSError:
                raise
            except Exception as error:
                raise os_error(error) from error
            finally:
                self._fs.invalidate_cache(self.place(parent_of(path)) if parent_of(path) else self._root)


def _unconditional(expected: str | None) -> None:
    if expected != ANYTHING:
        raise ValueError("fsspec has no conditions: `keeps` says so")


if TYPE_CHECKING:
    _PROMISE: type[TreeSite] = WritableAny
