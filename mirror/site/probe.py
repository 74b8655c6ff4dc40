"""What the filesystem of a folder makes of names, found by trying: a few empty files in a folder of our own, removed again.

No list of filesystems would do: case counts or not by folder (ext4), by mount option (NTFS, vfat), by volume (APFS). Where nothing
may be written (a dry run), only what can be seen is known: whether case counts.

    with FolderNames("/srv/www") as names:
        names.folds_case, names.fault(b"a:b")
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from mirror.keys import STORE, show

_PROBE: Final = "probe"  # below `.mirror/`; whoever tries has the lock of the tree
_NAME_MAX: Final = 255
_ODD: Final = re.compile(rb'["*:<>?\\\\|\x01-\x1f\x7f]')  # what some filesystem or other does not allow
_COMPOSED: Final = "é"  # one code point; decomposed it is two
_REFUSED: Final = (errno.EINVAL, errno.EILSEQ, errno.ENOENT, errno.EACCES, errno.ENAMETOOLONG)  # what it says then


class FolderNames:
    """The names of one folder; see `mirror.naming.Names`. look_only: try nothing. within: a folder that is not there, in which to
    try; by default it is in the store of a tree. Close it. OSError when nothing can be written."""

    together = False

    def __init__(self, root: str, look_only: bool = False, within: str = "") -> None:
        self._root, self._look_only = root, look_only
        self._folder = within or os.path.join(root, STORE, _PROBE)
        self._made = False
        self._known: dict[bytes, bool] = {}  # names of few kinds

    def __enter__(self) -> FolderNames:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove what was tried. May be called twice."""
        if self._made:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._made = False

    @cached_property
    def folds_case(self) -> bool:
        """Whether names that differ in case alone are one. Without trying: whether a name that is there is so in capitals, too."""
        return self._is_seen_in_both() if self._look_only else self.same(b"a", b"A")

    def _is_seen_in_both(self) -> bool:
        with contextlib.suppress(OSError):
            there = set(os.listdir(self._root))
            for name in there:
                other = name.swapcase()
                if name.isascii() and other != name and other not in there:
                    return os.path.lexists(os.path.join(self._root, other))
        return False

    @cached_property
    def normalises(self) -> bool:
        """Whether another Unicode form of a name finds the same file."""
        return self.same(_COMPOSED.encode(), "e\u0301".encode())

    def same(self, one: bytes, other: bytes) -> bool:
        """Whether two names are one; where nothing may be tried, if case alone sets them apart and it does not count."""
        if self._look_only:
            texts = [name.decode("utf-8", "surrogateescape").casefold() for name in (one, other)]
            return self.folds_case and texts[0] == texts[1]
        with self._tried(one) as kept:
            return bool(kept) and os.path.lexists(self._place(other))

    def fault(self, path: bytes) -> str:
        """Why nothing can have this path there: a name that is too long, or that the filesystem refuses or spells otherwise."""
        for name in path.removesuffix(b"/").split(b"/"):
            if len(name) > self._name_max:
                return f"a name in it has {len(name):,} bytes, {self._name_max:,} can be there"
            if not name.isalnum() and (why := self._refusal(name)):
                return why
        return ""

    @cached_property
    def _name_max(self) -> int:
        with contextlib.suppress(OSError, ValueError):
            return os.pathconf(self._root, "PC_NAME_MAX")
        return _NAME_MAX

    def _refusal(self, name: bytes) -> str:
        for odd in _ODD.findall(name):
            if not self._can_be(b"a%sb" % odd):
                return f"the filesystem there allows no {show(odd)} in names"
        last = name[-1:]
        if last in (b".", b" ") and not self._can_be(b"a" + last):
            return f"the filesystem there keeps no {'dot' if last == b'.' else 'space'} at the end of names"
        if not _is_text(name) and not self._can_be(b"a\xffb"):
            return "it is no UTF-8, and the filesystem there allows nothing else"
        return ""

    def _can_be(self, name: bytes) -> bool:
        if self._look_only:
            return True
        if name not in self._known:
            with self._tried(name) as kept:
                self._known[name] = kept
        return self._known[name]

    @contextlib.contextmanager
    def _tried(self, name: bytes) -> Iterator[bool]:
        """A file of this name for a moment; whether it could be made and is listed under that name (or another form of it)."""
        place = self._place(name)
        try:
            os.close(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError as error:
            if error.errno not in _REFUSED:
                raise
            yield False
            return
        try:
            listed = os.listdir(os.fsencode(self._folder))
            # Listed in another case or form it is still the same name; with letters missing it is not.
            yield len(listed) == 1 and _letters(name) == _letters(listed[0])
        finally:
            os.unlink(place)

    def _place(self, name: bytes) -> bytes:
        if not self._made:
            shutil.rmtree(self._folder, ignore_errors=True)  # of a run that died
            os.mkdir(self._folder, 0o700)
            self._made = True
        return os.path.join(os.fsencode(self._folder), name)


def _letters(name: bytes) -> str:
    """A name in lower case and one form of Unicode."""
    return unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape").casefold())


def _is_text(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True
