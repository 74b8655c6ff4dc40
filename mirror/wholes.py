"""Large files that a tree in a bucket keeps whole: displaced, copied by the service, never sent through this host.

A file of more than 10 MiB that goes from the live tree would have to be read and packed; here one request copies it to
`.mirror/whole/`, under its content key. Nothing of it is checked then but the note that was put with it; whoever reads it proves
every chunk. Doomed names are passed over, like those of packs.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mirror import log, names
from mirror.keys import STORE, WHOLE, whole_content, whole_key
from mirror.manifest import File
from mirror.site import Lost
from mirror.site.writing import Description
from mirror.store import ReadableStore

if TYPE_CHECKING:
    from mirror.site import CopyingSite

LEAST: Final = 10 << 20  # bytes; what is smaller is read and packed with its neighbours


@dataclass
class Wholes:
    """The whole files of one tree. site: the live place; doomed: whether a key is; epoch: of this run."""

    site: CopyingSite
    store: ReadableStore
    doomed: Callable[[str], bool]
    epoch: int
    kept: int = 0  # bytes that this run has kept
    _known: dict[bytes, str] | None = field(default=None)

    def keep(self, entry: File, content: bytes) -> bool:
        """Keep what stands at an entry's path, which is noted to be its content (`content`: its content key); False for a small
        file, or when it was replaced this moment. One request for a GiB."""
        if entry.size < LEAST:
            return False
        if self.has(content):
            return True
        key = whole_key(content, self.epoch)
        what = Description(entry.mtime, media_type=entry.media_type, fingerprint=entry.fingerprint)
        try:
            done = self.site.copy(entry.path, path_of(key), what, None)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EAGAIN):
                raise
            return False
        if not isinstance(done, Lost):
            self.kept += entry.size
        self._listed()[content] = key
        return True

    def has(self, content: bytes) -> bool:
        """Whether a file with this content key is kept."""
        return content in self._listed()

    def path(self, content: bytes) -> bytes | None:
        """Where, as a path of the live place."""
        key = self._listed().get(content)
        return path_of(key) if key is not None else None

    def keys(self) -> set[str]:
        """The keys of those that this run asked for, or kept."""
        return set(self._known.values()) if self._known is not None else set()

    def _listed(self) -> dict[bytes, str]:
        if self._known is None:
            self._known = listed(self.store, self.doomed)
        return self._known


def listed(store: ReadableStore, doomed: Callable[[str], bool], head: log.Record | None = None) -> dict[bytes, str]:
    """Content key → key of each whole file that a store has. They are large, so they are few. head: tells of them where a store
    cannot be listed."""
    found = ((whole_content(key), key) for key in names.wholes(store, head) if not doomed(key))
    return {content: key for content, key in found if content is not None}


def size_of_all(store: ReadableStore) -> int:
    """Bytes of all whole files."""
    return sum(stat.size for stat in store.list(f"{WHOLE}/"))


def path_of(key: str) -> bytes:
    """A key of the store as a path of the live place that it lies in."""
    return f"{STORE}/{key}".encode()
