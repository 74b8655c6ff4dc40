"""A store in a folder, durable: what `create` has acknowledged survives a power cut.

Own code because obstore's local store does not fsync. The order of one `create`: temporary file, write, fsync, hard link to the
final name (which fails when the name is taken, so nothing is ever overwritten), fsync of the folder and, once per process, of
each folder above it. Where hard links do not exist RENAME_NOREPLACE does it; where neither exists `create` refuses.

Folders are 0700 and files 0600: a mirror holds deleted pages and host names. Every step below the root goes from folder to
folder by descriptor with O_NOFOLLOW, so a symbolic link planted in the store leads nowhere. Temporary files live in
`.mirror-tmp/` of the root, which no listing shows, named after the process that writes them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     store = FolderStore(folder + "/store")
    ...     store.create("log/000000000001.json", b"{}"), store.create("log/000000000001.json", b"?"), list(store.list("log/"))
    (True, False, [Stat(key='log/000000000001.json', size=2)])
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from mirror.errors import DamageError, NotFound, TargetMissingError, UsageError
from mirror.store import Data, Stat
from mirror.store.bounds import too_large, too_short
from mirror.store.errnos import error_for
from mirror.store.leftovers import is_abandoned, temporary_name

TEMPORARY = ".mirror-tmp"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# O_NONBLOCK: opening a planted fifo must not hang; it means nothing on a regular file.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RENAME_NOREPLACE = 1

# Gives a temporary file its final name or raises FileExistsError: (temporary folder, its name, final folder, final name).
Publisher = Callable[[int, str, int, str], None]


def by_link(temporary: int, source: str, folder: int, name: str) -> None:
    """Publish by a hard link; the temporary name stays and is removed by the caller."""
    os.link(source, name, src_dir_fd=temporary, dst_dir_fd=folder, follow_symlinks=False)


def by_rename(temporary: int, source: str, folder: int, name: str) -> None:
    """Publish by renameat2(RENAME_NOREPLACE): Linux, for filesystems without hard links (FAT, many FUSE ones)."""
    import ctypes

    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    if renameat2(temporary, os.fsencode(source), folder, os.fsencode(name), _RENAME_NOREPLACE):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


class FolderStore:
    """A MaintainedStore in a folder. `publishers` are tried in order; they and `fsync` are parameters for tests of refusing
    filesystems and of the order of steps. A read of a missing root raises TargetMissingError; `create` makes the root, not what
    is above it."""

    def __init__(
        self, root: str, *, publishers: Sequence[Publisher] = (by_link, by_rename), fsync: Callable[[int], None] = os.fsync
    ) -> None:
        self.root = os.path.abspath(root)
        self._publishers = publishers
        self._sync = fsync
        # Folders whose own name is known to be on disk. Sets of strings are safe to share: at worst a folder is synced twice.
        self._durable: set[str] = set()
        self._seen = False

    @property
    def url(self) -> str:
        return self.root

    def get(self, key: str, limit: int) -> bytes:
        with self._file(key) as (file, size):
            if size > limit:
                raise too_large(self._where(key), size, limit)
            return _pread(file, 0, size)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        with self._file(key) as (file, size):
            if short := [end for _, end in ranges if end > size]:
                raise too_short(self._where(key), max(short), size)
            return [_pread(file, start, end) for start, end in ranges]

    def size(self, key: str) -> int | None:
        folders, name = self._parts(key)
        with self._errors("cannot look at", key):
            try:
                with self._folder(folders) as folder:
                    return self._regular(os.stat(name, dir_fd=folder, follow_symlinks=False), key)
            except FileNotFoundError:
                return None

    def list(self, prefix: str) -> Iterator[Stat]:
        folders = self._parts(f"{prefix}x")[0]
        with self._errors("cannot list", prefix):
            try:
                with self._folder(folders) as folder:
                    yield from self._walk(folder, prefix)
            except FileNotFoundError:
                return

    def create(self, key: str, data: Data) -> bool:
        folders, name = self._parts(key)
        with self._errors("cannot write", key), self._folder(folders, make=True) as folder:
            made = not _exists(folder, name) and self._create(folder, name, data, key)
            # Also when it was there: whoever relies on that object may do so only once its name is on disk.
            self._sync_folder(folder)
            return made

    @contextmanager
    def draft(self) -> Iterator[Draft]:
        """A temporary file of this store for an object that arrives in pieces. What was not published is gone at the end."""
        with self._errors("cannot write", TEMPORARY), self._temporary() as (temporary, source, file):
            yield Draft(self, temporary, source, file)

    def put_hint(self, key: str, data: Data) -> None:
        folders, name = self._parts(key)
        with (
            self._errors("cannot write", key),
            self._folder(folders, make=True) as folder,
            self._staged(data) as (temporary, source),
        ):
            os.replace(source, name, src_dir_fd=temporary, dst_dir_fd=folder)

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            folders, name = self._parts(key)
            with self._errors("cannot delete", key), suppress(FileNotFoundError), self._folder(folders) as folder:
                os.unlink(name, dir_fd=folder)

    def sweep(self) -> int:
        """Removes temporary files of processes of this host that are gone, and those older than a day."""
        removed = 0
        with self._errors("cannot clean up", TEMPORARY), suppress(FileNotFoundError), self._folder([TEMPORARY]) as folder:
            for entry in list(os.scandir(folder)):
                with suppress(FileNotFoundError):
                    if is_abandoned(entry.name, time.time() - entry.stat(follow_symlinks=False).st_mtime):
                        os.unlink(entry.name, dir_fd=folder)
                        removed += 1
        return removed

    def free_bytes(self) -> tuple[int, int] | None:
        with self._errors("cannot look at", ""):
            try:
                room = os.statvfs(self.root)
            except FileNotFoundError:  # not made yet: it will be on its parent's filesystem
                room = os.statvfs(os.path.dirname(self.root))
            return room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize

    # Names and folders

    def _where(self, key: str) -> str:
        return f"{self.root}/{key}".rstrip("/")

    def _parts(self, key: str) -> tuple[Sequence[str], str]:
        """The folders of a key and its last name."""
        *folders, name = parts = key.split("/")
        if any(part in ("", ".", "..") for part in parts) or "\0" in key or parts[0] == TEMPORARY:
            raise UsageError("cannot use the key", where=repr(key), why="it is not the name of an object in a store")
        return folders, name

    @contextmanager
    def _folder(self, folders: Sequence[str], make: bool = False) -> Iterator[int]:
        """A descriptor of a folder below the root, reached without following a link. make: durably make what is missing."""
        folder = self._open_root(make)
        try:
            path = ""
            for part in folders:
                path = f"{path}{part}/"
                below = self._step(folder, part, path, make)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _step(self, folder: int, part: str, path: str, make: bool) -> int:
        try:
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            if not make:
                raise
            with suppress(FileExistsError):
                os.mkdir(part, 0o700, dir_fd=folder)
            self._durable.discard(path)
            below = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
        # Whoever made it may not have synced it yet: each process does so once.
        if make and path not in self._durable:
            try:
                self._sync_folder(folder)
            except OSError:
                os.close(below)
                raise
            self._durable.add(path)
        return below

    def _open_root(self, make: bool) -> int:
        try:
            folder = os.open(self.root, _FOLDER)
        except FileNotFoundError:
            # A root that was there and is gone was unmounted: making it again would fill the wrong disk.
            if not make or self._seen:
                raise self._no_root("there is no such folder", "is it mounted?") from None
            try:
                with suppress(FileExistsError):
                    os.mkdir(self.root, 0o700)
            except FileNotFoundError:
                parent = os.path.dirname(self.root)
                raise self._no_root(
                    f"there is no folder {parent} to make it in", "is it mounted? else make that folder first"
                ) from None
            self._durable.discard("")
            folder = os.open(self.root, _FOLDER)
        except NotADirectoryError:
            raise self._no_root("it is not a folder", "give the path of a folder") from None
        if make and "" not in self._durable:
            with suppress(PermissionError):  # a parent we may not read cannot be synced; the store itself can
                parent_fd = os.open(os.path.dirname(self.root), _FOLDER)
                try:
                    self._sync_folder(parent_fd)
                finally:
                    os.close(parent_fd)
            self._durable.add("")
        self._seen = True
        return folder

    def _no_root(self, why: str, hint: str) -> TargetMissingError:
        return TargetMissingError("cannot use", where=self.root, why=why, hint=hint)

    def _sync_folder(self, folder: int) -> None:
        try:
            self._sync(folder)
        except OSError as error:
            # Filesystems that cannot sync a folder say so like this; they order names by themselves or not at all.
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):
                raise

    # Reading

    @contextmanager
    def _file(self, key: str) -> Iterator[tuple[int, int]]:
        """An object's descriptor and size. NotFound; DamageError when something else than a file has its name."""
        folders, name = self._parts(key)
        with self._errors("cannot read", key):
            try:
                with self._folder(folders) as folder:
                    file = os.open(name, _READ, dir_fd=folder)
            except FileNotFoundError:
                raise NotFound(key) from None
            try:
                yield file, self._regular(os.fstat(file), key)
            finally:
                os.close(file)

    def _regular(self, found: os.stat_result, key: str) -> int:
        if not stat.S_ISREG(found.st_mode):
            raise DamageError("cannot use", where=self._where(key), why="it is not a regular file", hint="look who put it there")
        return found.st_size

    def _walk(self, folder: int, prefix: str) -> Iterator[Stat]:
        below = []
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif entry.is_file(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        yield Stat(prefix + entry.name, entry.stat(follow_symlinks=False).st_size)
        for name in below:
            if prefix == "" and name == TEMPORARY:
                continue
            try:
                child = os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            except FileNotFoundError:
                continue
            try:
                yield from self._walk(child, f"{prefix}{name}/")
            finally:
                os.close(child)

    # Writing

    def _create(self, folder: int, name: str, data: Data, key: str) -> bool:
        with self._staged(data) as (temporary, source):
            return self._publish(temporary, source, folder, name, key)

    def _publish(self, temporary: int, source: str, folder: int, name: str, key: str) -> bool:
        """Give a durable temporary file its name; False when that is taken."""
        for publish in self._publishers:
            try:
                publish(temporary, source, folder, name)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                # EPERM is what link(2) says on FAT; from a rename it means what it says.
                if error.errno not in _NOT_HERE and not (error.errno == errno.EPERM and publish is not self._publishers[-1]):
                    raise
        raise UsageError(
            "cannot write",
            where=self._where(key),
            why="without hard links and RENAME_NOREPLACE one object could overwrite another, and this filesystem has neither",
            hint="keep the mirror on another filesystem",
        )

    @contextmanager
    def _staged(self, data: Data) -> Iterator[tuple[int, str]]:
        """A durable temporary file with this content: its folder and name. Removed at the end, if it still has that name."""
        with self._temporary() as (temporary, name, file):
            _write_all(file, data)
            self._sync(file)
            yield temporary, name

    @contextmanager
    def _temporary(self) -> Iterator[tuple[int, str, int]]:
        """A new temporary file: its folder, its name and its descriptor. Removed at the end, if it still has that name."""
        name = temporary_name()
        with self._folder([TEMPORARY], make=True) as temporary:
            file = os.open(name, _WRITE, 0o600, dir_fd=temporary)
            try:
                yield temporary, name, file
            finally:
                os.close(file)
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=temporary)

    @contextmanager
    def _errors(self, what: str, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise error_for(error, what, self._where(key)) from error


class Draft:
    """An object that arrives in pieces, in a temporary file of its store. For one thread at a time. `size`: bytes written so
    far."""

    def __init__(self, store: FolderStore, temporary: int, name: str, file: int, size: int = 0) -> None:
        self._store, self._temporary, self._name, self._file = store, temporary, name, file
        self.size = size

    def write(self, data: Data) -> None:
        """Add bytes at the end."""
        with self._store._errors("cannot write", TEMPORARY):
            _write_all(self._file, data)
        self.size += len(data)

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end), as far as there are any."""
        with self._store._errors("cannot read", TEMPORARY):
            return _pread(self._file, start, min(end, self.size))

    def drop(self) -> None:
        """Remove the temporary file; what was published stays."""
        with self._store._errors("cannot clean up", TEMPORARY), suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._temporary)

    def publish(self, key: str) -> bool:
        """Make it the object of this key, as `create` does: durable when this returns, False when there is one."""
        store = self._store
        folders, name = store._parts(key)
        with store._errors("cannot write", key):
            store._sync(self._file)
            with store._folder(folders, make=True) as folder:
                made = not _exists(folder, name) and store._publish(self._temporary, self._name, folder, name, key)
                store._sync_folder(folder)
                return made


_NOT_HERE = (errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _pread(file: int, start: int, end: int) -> bytes:
    """The bytes [start, end). A file that shrinks meanwhile gives fewer: whoever asked checks what the bytes mean."""
    data = os.pread(file, end - start, start) if end > start else b""
    while len(data) < end - start and (more := os.pread(file, end - start - len(data), start + len(data))):
        data += more
    return data


def _write_all(file: int, data: Data) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
