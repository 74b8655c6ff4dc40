"""A store on a WebDAV server: `dav+https://HOST/PATH`.

An object is put under a temporary name and gets its own by MOVE, so nobody sees half of one. Objects that are named by what they
hold (packs, fragments of the index, manifests) are moved with `Overwrite: F`: should a server let two through at once, both have
brought the same. All others, above all the records of the log, have one creator, in the way that the server can promise it
(`dav_probe`): by rounds of MKCOL (`dav_claims`), or by MOVE where that holds a lock. Where neither does, writing is refused,
unless the caller vouches for being alone (`single_writer`).

What is not an object lies in `.mirror-dav/`, which no listing shows: temporary files, claims, findings. WebDAV says nothing of
durability: what a server has acknowledged is as safe as that server makes it, and most do not sync.

    store = DavStore(StoreSpec("dav+https://dav.example.org/mirrors/www"))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from mirror.errors import MirrorError, NotFound, TemporaryError, UsageError
from mirror.keys import ObjectName
from mirror.store import Data, Stat, StoreSpec
from mirror.store.bounds import too_short
from mirror.store.dav_access import login_for
from mirror.store.dav_claims import Claims
from mirror.store.dav_listing import Listed
from mirror.store.dav_probe import ALONE, MKCOL, Findings, probe, record, recorded
from mirror.store.dav_server import LOCK_SECONDS, DavServer, Moved
from mirror.store.leftovers import is_abandoned, temporary_name

OWN = ".mirror-dav/"
_TEMPORARY, _CLAIMS = f"{OWN}tmp/", f"{OWN}claims/"
_DEEPEST = 16  # folders of a store are three deep; a hostile server's need not end
_FOLDERS_AT_ONCE = 8
_HINT_TRIES = 4  # Apache replaces a file by removing it first: of two that do so at once, one is told that it is not there
_LARGE = 1 << 16
Names = list[str]  # in the class below `list` is a method


class DavStore:
    """A MaintainedStore below a URL of a WebDAV server. `lock_seconds`, for tests: how long another's lock is borne."""

    def __init__(self, spec: StoreSpec, *, lock_seconds: float = LOCK_SECONDS) -> None:
        self._server = DavServer(
            spec.url.removeprefix("dav+"),
            login_for(spec),
            insecure=spec.insecure,
            proxies=spec.proxies,
            connections=spec.transfers,
            answered=spec.answered,
            lock_seconds=lock_seconds,
        )
        self._claims = Claims(self._server, _CLAIMS, self._stage)
        self._alone = spec.single_writer
        self._way = ""
        self._asking = threading.Lock()

    @property
    def url(self) -> str:
        return self._server.url

    def get(self, key: str, limit: int) -> bytes:
        return self._server.get(_checked(key), limit)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        parts = []
        for start, end in ranges:
            part = self._server.get_range(_checked(key), start, end) if start < end else b""
            if len(part) != max(end - start, 0):
                raise too_short(self._server.where(key), end)
            parts.append(part)
        return parts

    def size(self, key: str) -> int | None:
        return self._server.size(_checked(key))

    def list(self, prefix: str) -> Iterator[Stat]:
        below: Names = []
        with suppress(NotFound):
            yield from self._objects(prefix, self._server.list(prefix), below)
        yield from self._walk(below)

    def _walk(self, folders: Sequence[str]) -> Iterator[Stat]:
        """What is below these folders. Some are asked about at once, for packs are in 256 of them; no more than these is held."""
        with ThreadPoolExecutor(_FOLDERS_AT_ONCE) as pool:
            for start in range(0, len(folders), _FOLDERS_AT_ONCE):
                some = folders[start : start + _FOLDERS_AT_ONCE]
                for folder, found in zip(some, pool.map(self._listed, some), strict=True):
                    below: Names = []
                    yield from self._objects(folder, found, below)
                    if folder.count("/") < _DEEPEST:
                        yield from self._walk(below)

    def _listed(self, folder: str) -> Sequence[Listed]:
        try:
            return list(self._server.list(folder))
        except NotFound:
            return []

    def _objects(self, folder: str, found: Iterable[Listed], below: Names) -> Iterator[Stat]:
        """The objects among what is in a folder; its folders are put into `below`."""
        for each in found:
            if not each.is_folder:
                yield self._stat(folder + each.name, each.size)
            elif f"{folder}{each.name}/" != OWN:
                below.append(f"{folder}{each.name}/")

    def _stat(self, key: str, size: int | None) -> Stat:
        if size is None:
            size = self._server.size(key) or 0  # not told in the listing
        return Stat(key, size)

    def create(self, key: str, data: Data) -> bool:
        is_content = ObjectName.parse(_checked(key)) is not None
        way = self._found_way()
        if way == MKCOL and not is_content:
            return self._claims.create(key, data)
        # Where it matters, what is there is not sent again only to be refused.
        if (way == ALONE or len(data) > _LARGE) and self._server.size(key) is not None:
            return False
        return self._move_in(self._stage(data), key, data)

    def put_hint(self, key: str, data: Data) -> None:
        _checked(key)
        self._found_way()
        self._server.make_folders(key)
        for _ in range(_HINT_TRIES):
            if self._server.move(self._stage(data), key, overwrite=True) is Moved.DONE:
                return
        raise self._not_moved(key)

    def sweep(self) -> int:
        """Removes temporary files of processes of this host that are gone, and those older than a day by their writer's clock (who
        is robbed of one puts it there again). Claims stay: they are what makes a late writer harmless."""
        removed = 0
        with suppress(NotFound):
            for each in list(self._server.list(_TEMPORARY)):
                if not each.is_folder and is_abandoned(each.name, _age(each.name)):
                    self._server.remove(_TEMPORARY + each.name)
                    removed += 1
        return removed

    def free_bytes(self) -> tuple[int, int] | None:
        return self._server.room()

    def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._server.remove(_checked(key))

    # -- creating

    def _stage(self, data: Data) -> str:
        """Put it under a temporary name, which is returned."""
        path = f"{_TEMPORARY}{temporary_name()}-{int(time.time()):x}"
        self._server.make_folders(path)
        if self._server.put(path, data) == 405:
            why = "the server refuses to store it (405)"
            raise TemporaryError(
                "cannot write", where=self._server.where(path), why=why, hint="is its disk full? look into its log"
            )
        return path

    def _move_in(self, temporary: str, key: str, data: Data) -> bool:
        """Give what was staged its name, unless something has it."""
        for _ in range(3):
            self._server.make_folders(key)
            moved = self._server.move(temporary, key, overwrite=False)
            if moved is Moved.DONE:
                return True
            if moved is Moved.TAKEN or self._server.size(key) is not None:
                # Perhaps ours, after a lost answer: the caller reads back.
                with suppress(MirrorError):
                    self._server.remove(temporary)
                return False
            self._server.forget_folders()
            if moved is Moved.GONE:
                temporary = self._stage(data)
        raise self._not_moved(key)

    def _not_moved(self, key: str) -> MirrorError:
        why = "the server does not move a file to its name (MOVE)"
        return TemporaryError("cannot write", where=self._server.where(key), why=why, hint="look into its log, then try again")

    def _found_way(self) -> str:
        """How objects are created here; the server is asked when nobody has done so. UsageError where there is no safe way."""
        with self._asking:
            if not self._way:
                self._server.make_folders(OWN + "x")
                found = recorded(self._server, OWN) or self._asked()
                if found.way == ALONE and not self._alone:
                    raise UsageError(
                        "cannot write safely to",
                        where=self.url,
                        why="of two runs that write at once this server lets both win (MKCOL and MOVE were tried)",
                        hint="keep the mirror elsewhere; or vouch with --single-writer that never two runs write there at once",
                    )
                self._way = found.way
            return self._way

    def _asked(self) -> Findings:
        found = probe(self._server, OWN)
        if found.way != ALONE or self._alone:
            record(self._server, OWN, found, self._stage)
        return found


def _age(temporary: str) -> float:
    """Seconds since a temporary file was begun; 0 where its name does not say."""
    try:
        return time.time() - int(temporary.rpartition("-")[2], 16)
    except ValueError:
        return 0.0


def _checked(key: str) -> str:
    if any(part in ("", ".", "..") for part in key.split("/")) or not key.isprintable() or key.startswith(OWN):
        raise UsageError("cannot use the key", where=repr(key), why="it is not the name of an object in a store")
    return key
