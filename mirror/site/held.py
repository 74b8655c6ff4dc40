"""Folders that a filter leaves out unless something below them is let in, and what was left out below them meanwhile.

Owns the order: a scan is strictly ascending, so nothing below such a folder may come out before we know whether it does.
What waits is on disk when it is long (a folder of a million pictures, a filter that wants pages).
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from mirror.site import Excluded, Found
from mirror.spool import Spool

_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(tuple[bytes, str]).decode


class Held:
    """What waits in one scan. folders: those that are undecided, outermost first; empty means that nothing waits."""

    __slots__ = ("_waiting", "folders")

    def __init__(self) -> None:
        self.folders: list[Found] = []
        self._waiting: Spool[tuple[bytes, str]] = Spool(_encode, _decode)  # an excluded path and its rule; a folder and nothing

    def hold(self, folder: Found) -> None:
        """Keep a folder back."""
        self.folders.append(folder)
        self._waiting.append((folder.path, ""))

    def exclude(self, path: bytes, rule: str) -> Iterator[Excluded]:
        """Say that a path is left out: at once if nothing waits."""
        if self.folders:
            self._waiting.append((path, rule))
        else:
            yield Excluded(path, rule)

    def release(self) -> Iterator[Found | Excluded]:
        """Something is let in: all that waits comes out before it."""
        folders = {folder.path: folder for folder in self.folders}
        for path, rule in self._waiting:
            if rule:
                yield Excluded(path, rule)
            elif path in folders:
                yield folders[path]
        self._waiting.close()
        self.folders.clear()

    def leave(self, path: bytes) -> Iterator[Found | Excluded]:
        """A folder ends. If it waited, it does not come out; what was left out below it does, as soon as nothing else waits."""
        if self.folders and self.folders[-1].path == path:
            self.folders.pop()
            if not self.folders:
                yield from self.release()

    def close(self) -> None:
        """Give back memory and disk."""
        self.folders.clear()
        self._waiting.close()
