"""Owners and modes of restored entries: what a snapshot says, what may be set here, and what the user asked for instead.

Names win over numbers (the same user may have another number on the new host) unless `numeric`; a name that is not known here
falls back to its number. Only root may give files away: for anyone else owners are neither compared nor set, and counted once.

What somebody else has described (a client, over HTTP) is never taken at its word here: `of_strangers`.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Iterator
from functools import cached_property

import msgspec

from mirror.errors import UsageError
from mirror.manifest import File, Folder, Symlink
from mirror.site import Filter, Found, Seen
from mirror.site.files import FolderSite
from mirror.site.filters import Matcher

_KNOWN_MAX = 4096  # owners that are remembered; a manifest may name a different one for each path
_PLAIN_FILE, _PLAIN_FOLDER = 0o644, 0o755  # for sources that know no modes
_MODE = re.compile(r"([DF]?)([0-7]{3,4})")
_SET_ID = 0o6000
_OWN_ATTRIBUTES = b"user."  # of the others, some give rights: capabilities, access lists


class Owners:
    """numeric: numbers as they are. chown: `USER`, `USER:GROUP` or `:GROUP`, for all entries. chmod: `[D|F]OCTAL`, comma-separated.

    ignored: entries whose owner would have differed. UsageError for names and modes that cannot be."""

    def __init__(self, numeric: bool, chown: str, chmod: str, strangers: bool = False) -> None:
        self.ignored = 0
        self._numeric, self._strangers = numeric, strangers
        self._root = os.geteuid() == 0 and not strangers
        self._users: dict[str, int | None] = {}
        self._groups: dict[str, int | None] = {}
        user, _, group = chown.partition(":")
        self._uid = self._asked(user, self._user)
        self._gid = self._asked(group, self._group)
        self._known: dict[tuple[str, int | None, str, int | None], tuple[int | None, int | None]] = {}
        self._modes: dict[str, int] = {}
        for part in filter(None, chmod.split(",")):
            match = _MODE.fullmatch(part)
            if not match:
                raise UsageError("cannot use --chmod", where=repr(part), hint="say an octal mode such as 644, or D755,F644")
            for kind in match[1] or "DF":
                self._modes[kind] = int(match[2], 8)

    @classmethod
    def of_strangers(cls) -> Owners:
        """For what somebody else has described: it belongs to who writes it, whoever that is, and he can read it; no set-id bits,
        and no extended attributes but `user.*`. Else whoever has a key could make root's programs where root publishes, and
        files that nobody else could ever replace."""
        return cls(False, "", "", strangers=True)

    @staticmethod
    def _asked(name: str, look: object) -> int | None:
        if not name:
            return None
        number = int(name) if name.isdigit() else look(name)  # type: ignore[operator]
        if number is None:
            raise UsageError(
                "cannot use --chown", where=repr(name), why="that name is not known here", hint="give a number instead"
            )
        return int(number)

    def _user(self, name: str) -> int | None:
        if name not in self._users:
            try:
                self._users[name] = pwd.getpwnam(name).pw_uid
            except (KeyError, ValueError):
                self._users[name] = None
        return self._users[name]

    def _group(self, name: str) -> int | None:
        if name not in self._groups:
            try:
                self._groups[name] = grp.getgrnam(name).gr_gid
            except (KeyError, ValueError):
                self._groups[name] = None
        return self._groups[name]

    @cached_property
    def _mine(self) -> tuple[int, int]:
        return os.geteuid(), os.getegid()

    def applied(self, entry: Folder | File | Symlink) -> Folder | File | Symlink:
        """The entry as it is to be here: uid and gid to set (None: leave alone), no names, a mode."""
        uid, gid = self.numbers(entry)
        if isinstance(entry, Symlink):
            return msgspec.structs.replace(entry, uid=uid, gid=gid, user="", group="")
        return msgspec.structs.replace(entry, uid=uid, gid=gid, user="", group="", mode=self.mode(entry))

    def numbers(self, entry: Folder | File | Symlink) -> tuple[int | None, int | None]:
        """The uid and gid to set for an entry here; None: leave alone."""
        named = entry.user, entry.uid, entry.group, entry.gid
        known = self._known.get(named)
        if known is None:
            uid = self._uid if self._uid is not None else self._number(entry.user, entry.uid, self._user)
            gid = self._gid if self._gid is not None else self._number(entry.group, entry.gid, self._group)
            known = uid, gid
            if len(self._known) < _KNOWN_MAX:
                self._known[named] = known
        uid, gid = known
        if not self._root:
            self.ignored += uid is not None and uid != self._mine[0]
            uid = gid = None
        return uid, gid

    def mode(self, entry: Folder | File) -> int:
        """The mode that an entry is to have here."""
        plain, kind = (_PLAIN_FOLDER, "D") if isinstance(entry, Folder) else (_PLAIN_FILE, "F")
        mode = self._modes.get(kind, plain if entry.mode is None else entry.mode)
        if not self._strangers:
            return mode
        # Who publishes has to read it again: a mode of 0 is no lock for the root that synced it, and one for him.
        return mode & ~_SET_ID | (0 if os.geteuid() == 0 else 0o700 if isinstance(entry, Folder) else 0o400)

    def xattrs(self, entry: File | Folder) -> tuple[tuple[bytes, bytes], ...]:
        """The extended attributes that an entry is to have here."""
        if not self._strangers:
            return entry.xattrs
        return tuple(each for each in entry.xattrs if each[0].startswith(_OWN_ATTRIBUTES))

    def _number(self, name: str, number: int | None, look: object) -> int | None:
        if name and not self._numeric:
            known = look(name)  # type: ignore[operator]
            if known is not None:
                return int(known)
        return number

    def seen(self, here: Seen) -> Seen:
        """A path of the folder in the same terms."""
        if type(here) is not Found:
            return here
        if not self._root:
            return here._replace(uid=None, gid=None, user="", group="")
        return here._replace(user="", group="")


class OwnedFolder(FolderSite):
    """A folder to restore into, its owners seen as far as they can be set. One that is not there yet is empty."""

    def __init__(self, path: str, filter: Filter, owners: Owners) -> None:
        super().__init__(path, filter=filter)
        self._owners = owners

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        """See `Site.scan`."""
        if os.path.isdir(self.url):
            yield from map(self._owners.seen, super().scan(matcher))
