"""Where a symbolic link leads, found without ever leaving the folder of a site (`--symlinks follow`).

Owns the way from a link to what it means. Every step is taken relative to an open folder, by a call that follows nothing; what a
link says is read and gone step by step. So a link that is swapped while we look leads nowhere else, and the path that comes out
holds no link: whoever opens it, step by step and following nothing, gets what was found here or an error, never anything outside.

A link may lead to a file or folder inside the site, by a relative or an absolute target. One that leads out, round in a circle,
nowhere, or into the store of a tree is astray.

    >>> within(b"/srv/www/css/a.css", (b"/srv/www",)), within(b"/srv/www2/a", (b"/srv/www",)), within(b"/srv/www", (b"/srv/www",))
    (b'css/a.css', None, b'')
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from mirror.keys import STORE
from mirror.site import SYMLINK, Found, Unread

KEEP, FOLLOW, SKIP = "keep", "follow", "skip"
SKIPPED: Final = "it is a link, and links are left out"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS_MAX: Final = 40  # on one way, as in Linux
_OUT: Final = "it leads out of the site"
_ROUND: Final = "it leads round in a circle"
_SLASHES: Final = re.compile(rb"/+")


class Astray(Exception):
    """A link that cannot be followed. why: a sentence without its end."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


class Reached(NamedTuple):
    """Where a path leads: a path of the site without links (no `/` at its end, empty for the root), and what is there."""

    path: bytes
    seen: os.stat_result


def within(target: bytes, roots: Sequence[bytes]) -> bytes | None:
    """What an absolute path is below one of the spellings of the root; None when it is elsewhere."""
    plain = _SLASHES.sub(b"/", target)
    for root in roots:
        prefix = root.rstrip(b"/") + b"/"
        if plain.startswith(prefix):
            return plain[len(prefix) :]
        if plain == root:
            return b""
    return None


def spellings(root: str) -> tuple[bytes, ...]:
    """The absolute paths by which links may name the root of a site."""
    return tuple(dict.fromkeys((os.fsencode(os.path.abspath(root)), os.fsencode(os.path.realpath(root)))))


def reach(root: int, roots: Sequence[bytes], path: bytes) -> Reached:
    """Follow all links of a path, the last one too. root: the open root; roots: its spellings. Astray; OSError, FileNotFoundError
    when the path itself is no longer there. Holds two descriptors at most."""
    way = _Way(root)
    ahead, links = path.split(b"/")[::-1], 0
    at_store = path.startswith(b"%s/" % STORE.encode())
    try:
        seen = os.fstat(root)
        while ahead:
            name = ahead.pop()
            if not name:
                continue
            if not stat.S_ISDIR(seen.st_mode):
                raise Astray("it leads through a file as if that were a folder")
            if name == b".":
                continue
            if name == b"..":
                if not way.names:
                    raise Astray(_OUT)
                seen = way.up()
                continue
            try:
                seen = way.look(name)
            except FileNotFoundError:
                if links:
                    raise Astray("it leads nowhere") from None
                raise
            if not stat.S_ISLNK(seen.st_mode):
                way.go(name, seen)
            else:
                links += 1
                if links > _LINKS_MAX:
                    raise Astray(_ROUND)
                target = os.readlink(name, dir_fd=way.fd)
                seen = os.fstat(way.fd)
                if target.startswith(b"/"):
                    below = within(target, roots)
                    if below is None:
                        raise Astray(_OUT)
                    seen, target = way.back(), below
                ahead += target.split(b"/")[::-1]
            if way.names[:1] == [STORE.encode()] and not at_store:
                raise Astray("it leads into the store of a tree")
        return Reached(b"/".join(way.names), seen)
    finally:
        way.close()


class _Way:
    """Where `reach` stands: the folder that is open, and the names from the root to there (a file's own as the last one)."""

    def __init__(self, root: int) -> None:
        self._root = root
        self.fd = root
        self.names: list[bytes] = []

    def look(self, name: bytes) -> os.stat_result:
        return os.stat(name, dir_fd=self.fd, follow_symlinks=False)

    def go(self, name: bytes, seen: os.stat_result) -> None:
        if stat.S_ISDIR(seen.st_mode):
            self._stand_at(os.open(name, _FOLDER, dir_fd=self.fd))
        self.names.append(name)

    def up(self) -> os.stat_result:
        """To the folder above. Not through its own `..`: it may have been moved meanwhile."""
        names = self.names[:-1]
        self._stand_at(open_folder(self._root, names))
        self.names = names
        return os.fstat(self.fd)

    def back(self) -> os.stat_result:
        """To the root."""
        self.close()
        return os.fstat(self.fd)

    def close(self) -> None:
        self._stand_at(self._root)
        self.names = []

    def _stand_at(self, fd: int) -> None:
        if self.fd != self._root:
            os.close(self.fd)
        self.fd = fd


def open_folder(root: int, names: Iterable[bytes]) -> int:
    """A new descriptor of a folder below an open root, gone to step by step; no link is followed. OSError."""
    fd = os.dup(root)
    for name in names:
        above = fd
        try:
            fd = os.open(name, _FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return fd


class Follower:
    """What one walk asks of its links. root: its open root, which it keeps open."""

    def __init__(self, root: int, path: str) -> None:
        self._root, self._roots = root, spellings(path)

    def reach(self, path: bytes) -> Reached:
        """See `reach`."""
        return reach(self._root, self._roots, path)

    def folder(self, path: bytes) -> tuple[int, bytes]:
        """(a new descriptor of the folder that a path leads to, its path without links, with `/`). Astray; OSError."""
        reached = self.reach(path)
        return open_folder(self._root, reached.path.split(b"/") if reached.path else ()), reached.path + b"/" * bool(reached.path)

    def names(self, entries: Iterable[os.DirEntry[str]], folder: bytes) -> Iterator[bytes]:
        """The names of a listing, with `/` behind those of folders and of links that lead to folders. folder: its path without
        links."""
        for entry in entries:
            name = os.fsencode(entry.name)
            is_folder = entry.is_dir(follow_symlinks=False)
            if not is_folder and entry.is_symlink():
                try:
                    is_folder = stat.S_ISDIR(self.reach(folder + name).seen.st_mode)
                except (Astray, OSError):
                    is_folder = False  # said when its turn comes
            yield name + b"/" if is_folder else name


def judged(here: Found | Unread, symlinks: str) -> Found | Unread:
    """What a source that cannot follow links gives out for one of its paths."""
    if not isinstance(here, Found) or here.kind != SYMLINK or symlinks == KEEP:
        return here
    if symlinks == SKIP:
        return Unread(here.path, "skipped", SKIPPED)
    return Unread(here.path, "link", "links of this source cannot be followed")
