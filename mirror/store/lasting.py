"""Temporary files of a store in a folder that outlive who writes them: for objects that come in parts, over a link that breaks.

The caller names such a file, beginning with `PREFIX`. It is held by one at a time (`flock`: of threads, processes and, where that
works, hosts). What is in it is the beginning of what is to come, whatever was killed when, as it is only ever added to at its end.
It goes when it is dropped, and as any other temporary file when nobody has held it for a day (`FolderStore.sweep`).

    with LastingDrafts(store).hold("part-…") as draft:
        draft.write(more)
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from mirror.store.fs import TEMPORARY, Draft, FolderStore

PREFIX: Final = "part-"  # no host's name begins so (`leftovers`), so only age makes such a file abandoned
_OPEN: Final = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LastingDrafts:
    """Those of one store. Any thread may use it; every method raises what those of the store do."""

    def __init__(self, store: FolderStore) -> None:
        self._store = store

    @contextmanager
    def hold(self, name: str) -> Iterator[Draft]:
        """The file of this name, made if there is none; its `size` says what is there. Waits for whoever holds it. It stays, unless
        it is dropped."""
        with self._store._errors("cannot write", TEMPORARY), self._store._folder([TEMPORARY], make=True) as folder:
            file = self._held(folder, name)
            try:
                os.utime(file)  # so that no sweep takes it away meanwhile
                yield Draft(self._store, folder, name, file, os.fstat(file).st_size)
            finally:
                os.close(file)

    def size(self, name: str) -> int:
        """The bytes that are there, 0 where there is no such file."""
        with self._store._errors("cannot look at", TEMPORARY), suppress(FileNotFoundError):
            with self._store._folder([TEMPORARY]) as folder:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                return found.st_size if _is_ours(found) else 0
        return 0

    def ages(self, prefix: str) -> dict[str, float]:
        """The seconds since each file whose name begins so was held, by name."""
        found: dict[str, float] = {}
        with self._store._errors("cannot look at", TEMPORARY), suppress(FileNotFoundError):
            with self._store._folder([TEMPORARY]) as folder:
                for entry in list(os.scandir(folder)):
                    if entry.name.startswith(prefix):
                        with suppress(FileNotFoundError):
                            found[entry.name] = time.time() - entry.stat(follow_symlinks=False).st_mtime
        return found

    def discard(self, name: str) -> None:
        """Remove a file, unless somebody holds it."""
        with self._store._errors("cannot clean up", TEMPORARY), suppress(FileNotFoundError, BlockingIOError):
            with self._store._folder([TEMPORARY]) as folder:
                file = os.open(name, _OPEN, dir_fd=folder)
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(name, dir_fd=folder)
                finally:
                    os.close(file)

    def _held(self, folder: int, name: str) -> int:
        """A descriptor of the file, which nobody else holds."""
        while True:
            file = os.open(name, _OPEN | os.O_CREAT, 0o600, dir_fd=folder)
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                mine = os.fstat(file)
                with suppress(FileNotFoundError):
                    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    if _is_ours(mine) and (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                        return file
                    if not _is_ours(there):  # it has the name of an object as well: who gave it that was killed before the end
                        os.unlink(name, dir_fd=folder)
            except BaseException:
                os.close(file)
                raise
            os.close(file)  # gone while we waited


def _is_ours(found: os.stat_result) -> bool:
    """Whether nothing but a temporary file can be meant: an object must never be written to."""
    return stat.S_ISREG(found.st_mode) and found.st_nlink <= 1
