"""What a WebDAV server can promise to two who write at once: asked of itself, once, and written down where all runs find it.

Nothing that a server says of itself tells it. nginx takes `If-None-Match: *` on PUT and overwrites; rclone answers 201 to a second
MKCOL. So a folder of our own is made there, and each promise is tried: first one after the other, then by two at once, many times.

A race that nobody lost is no proof. So MKCOL comes first: where it refuses the second at all, it is one system call or under a lock
in every server that we know. MOVE with `Overwrite: F` is taken where MKCOL promises nothing (rclone, which holds a lock meanwhile).
`If-None-Match` is only noted: no server was found where it is the best there is.

The findings are an object of the store and not a member of mirror.json, since they describe the server, not the target: a copy on
another server must not inherit them. So they stand under the name by which the server calls itself, and another one is asked anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass

from mirror.envelope import check_format, sealed_json, unsealed_json
from mirror.errors import DamageError, MirrorError, NotFound, UsageError
from mirror.store.dav_server import DavServer, Made, Moved, server_name

RACES = 20
MKCOL, MOVE, ALONE = "mkcol", "move", "single-writer"
_FINDINGS_MAX = 1 << 16


@dataclass(frozen=True, slots=True)
class Findings:
    """What a server was seen to do. mkcol, move, put: of two who made a folder, moved a file without overwriting, put one with
    If-None-Match, exactly one was told that it had done so, whenever it was tried. server: its word for itself."""

    server: str
    mkcol: bool
    move: bool
    put: bool

    @property
    def way(self) -> str:
        """How objects are created there."""
        return MKCOL if self.mkcol else MOVE if self.move else ALONE


def recorded(server: DavServer, folder: str) -> Findings | None:
    """What was found out before; None for a server that nobody has asked. DamageError for findings that are spoilt."""
    path = _path(server, folder)
    where = server.where(path)
    try:
        body = unsealed_json(server.get(path, _FINDINGS_MAX), where)
        check_format(body, where)
        found = [body[name] for name in ("mkcol", "move", "put")]
        if not all(isinstance(each, bool) for each in found):
            raise KeyError
        return Findings(str(body["server"]), *found)
    except NotFound:
        return None
    except (DamageError, KeyError) as error:
        why = error.why if isinstance(error, DamageError) else "a member is missing"
        raise DamageError("cannot use", where=where, why=why, hint="remove it: then the server is asked again") from None


def record(server: DavServer, folder: str, found: Findings, stage: Callable[[bytes], str]) -> None:
    """Write the findings down. Two who do so at once write the same."""
    server.move(stage(sealed_json({"format": 1, **asdict(found)})), _path(server, folder), overwrite=False)


def _path(server: DavServer, folder: str) -> str:
    return f"{folder}{server_name(server.called)}.json"


def probe(server: DavServer, folder: str) -> Findings:
    """Ask the server, in a folder of our own below `folder`, which is removed again. UsageError when it cannot hold a store at
    all."""
    place = f"{folder}probe-{os.urandom(8).hex()}/"
    server.make_folders(f"{place}x")
    try:
        with ThreadPoolExecutor(2) as pool:
            asked = _Asked(server, place, pool)
            asked.check_files()
            return Findings(server.called, asked.mkcol(), asked.move(), asked.put())
    finally:
        _remove(server, place)


class _Asked:
    """One server that is being asked, in one folder."""

    def __init__(self, server: DavServer, place: str, pool: ThreadPoolExecutor) -> None:
        self._server, self._place, self._pool = server, place, pool

    def check_files(self) -> None:
        """UsageError unless files can be written, read, moved and found again."""
        path, moved = f"{self._place}file", f"{self._place}moved"
        with suppress(NotFound):
            status = self._server.put(path, b"0123456789")
            if status == 405:
                self._refuse("it takes no files (PUT: 405)", "is it a WebDAV server at this URL, for this user? nginx: dav_methods")
            if self._server.get(path, 100) != b"0123456789":
                self._refuse("it gives back other bytes than were put there", "is there a proxy that changes answers?")
            self._server.move(path, moved, overwrite=False)
            if self._server.size(path) is not None or self._server.size(moved) is None:
                self._refuse("it does not move files (MOVE)", "nginx: dav_methods PUT DELETE MKCOL MOVE")
            if self._server.get_range(moved, 3, 5) != b"34":
                self._refuse("it gives back other bytes than were put there", "is there a proxy that changes answers?")
            if [(each.name, each.is_folder, each.size) for each in self._server.list(self._place)] != [("moved", False, 10)]:
                self._refuse("it lists a folder otherwise than it is", "is there a cache in between? switch it off")
            return
        self._refuse("what was put there cannot be read", "is there a cache in between (nginx: open_file_cache)? switch it off")

    def mkcol(self) -> bool:
        """Whether of two who make a folder one makes it."""
        folder = f"{self._place}folder/"
        self._server.make(folder)
        if self._server.make(folder) is Made.MADE:
            return False

        def make(race: int, _: int) -> bool:
            return self._server.make(f"{self._place}race{race}/") is Made.MADE

        return self._one_wins(make)

    def move(self) -> bool:
        """Whether of two who give their files the same name one does so."""
        path, taken = f"{self._place}other", f"{self._place}moved"
        self._server.put(path, b"other")
        if self._server.move(path, taken, overwrite=False) is not Moved.TAKEN or self._server.get(taken, 100) != b"0123456789":
            return False
        if self._server.size(path) is None:
            return False
        for race in range(RACES):
            for side in range(2):
                self._server.put(f"{self._place}from{race}.{side}", b"%d" % side)

        def move(race: int, side: int) -> bool:
            moved = self._server.move(f"{self._place}from{race}.{side}", f"{self._place}to{race}", overwrite=False)
            return moved is Moved.DONE

        return self._one_wins(move, lambda race: self._server.get(f"{self._place}to{race}", 10))

    def put(self) -> bool:
        """Whether of two who put a file on condition that there is none one does so."""
        once = {"If-None-Match": "*"}
        taken = f"{self._place}moved"
        if self._server.put(taken, b"other", once) != 412 or self._server.get(taken, 100) != b"0123456789":
            return False

        def put(race: int, side: int) -> bool:
            return self._server.put(f"{self._place}put{race}", b"%d" % side, once) in (200, 201, 204)

        return self._one_wins(put, lambda race: self._server.get(f"{self._place}put{race}", 10))

    def _one_wins(self, act: Callable[[int, int], bool], left: Callable[[int], bytes] | None = None) -> bool:
        """Whether in no race both are told that they won, and what is left is the winner's. Where an answer is lost nobody may hear
        that he won, but not each time."""
        won = 0
        for race in range(RACES):
            told = list(self._pool.map(lambda side, race=race: act(race, side), range(2)))
            if told.count(True) == 2 or (left and told.count(True) and left(race) != b"%d" % told.index(True)):
                return False
            won += told.count(True)
        return won > RACES // 2

    def _refuse(self, why: str, hint: str) -> None:
        raise UsageError("cannot keep a mirror in", where=self._server.url, why=why, hint=hint)


def _remove(server: DavServer, place: str) -> None:
    """The folder with all in it; at once where the server does that, else piece by piece. What stays harms nobody."""
    with suppress(MirrorError, NotFound):
        try:
            server.remove(place)
        except MirrorError:
            for each in list(server.list(place)):
                server.remove(f"{place}{each.name}{'/' if each.is_folder else ''}")
            server.remove(place)
