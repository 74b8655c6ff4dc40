"""The targets that a server holds: folders below its root that `mirror init` made, each with its store and what may come into it.

    holding = Holding("/srv/mirrors", cache)
    held = holding.find("www")          None: there is no such target
    held.receive("packs/…", draft, hash, rights)

Owns which keys may be written, by whom, and what is asked before something gets its name. Knows nothing of HTTP. `Held` may be used
by several threads; records go through one thread of its own, in which the index is kept.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from heapq import nsmallest
from pathlib import Path
from typing import Final, Protocol

from mirror import log
from mirror.access import APPEND, PRUNE
from mirror.errors import DamageError, MirrorError, NotFound
from mirror.index import Fragment
from mirror.keys import LATEST_KEY, MIRROR_KEY, STORE, STORE_KEY, ObjectName, path_fault, record_number
from mirror.log import RECORD_MAX, Record
from mirror.making import PACKED, read_info
from mirror.manifest import Entry, File, Page
from mirror.received import note
from mirror.serve.examine import MOST, Examiner, Hash, Read, Rejected
from mirror.serve.parts import Parts, Whole
from mirror.serve.records import Clerk
from mirror.site import Content, SiteSpec
from mirror.site.live import is_ours
from mirror.site.open import open_site
from mirror.store import MaintainedStore, Stat
from mirror.store.fs import Draft, FolderStore
from mirror.unfinished import unfinished

HINT_MAX: Final = 4096
_MIRRORS: Final = ((MIRROR_KEY,), (STORE, MIRROR_KEY))  # where a target has its mirror.json
FORESEEN_MOST: Final = 8  # fragments and segments that wait to be looked at, of a target
FORESEEN_IDS: Final = 16_384  # of the chunks of such a segment; an id takes 100 bytes
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of an object. made: False when there was one of that key already; record: number and kind, of a record."""

    made: bool
    record: tuple[int, str] | None = None


class Gate(Protocol):
    """What may be seen of a store, what may come into it, and what may go."""

    def knows(self, key: str) -> bool:
        """Whether an object of this key can be one of the store's; others are not to be seen."""
        ...

    def most(self, key: str) -> int:
        """The bytes that an object of this key may have. Rejected for a key that nothing may have."""
        ...

    def examine(self, key: str, read: Read, size: int, hashed: bytes, rights: Container[str]) -> tuple[int, str] | None:
        """Rejected unless these bytes may be the object of this key; (number, kind) of a record."""
        ...

    def may_go(self, keys: Sequence[str]) -> None:
        """Rejected unless all of these objects may be deleted."""
        ...

    def close(self) -> None:
        """Give back what is held."""
        ...


class Verifying:
    """The gate of a target: only what is whole, true and in its place comes in, and only what a prune named goes. tree: whether the
    store is that of a tree."""

    def __init__(self, store: MaintainedStore, uuid: str, cache: Path | None, tree: bool = False) -> None:
        self._store, self._uuid, self._cache, self._tree = store, uuid, cache, tree
        self._examiner = Examiner(store)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="records")
        self._clerk: Clerk | None = None
        self._newest_prune = 0
        self._foreseeing = threading.BoundedSemaphore(FORESEEN_MOST)

    def knows(self, key: str) -> bool:
        """See `Gate`."""
        return key in (MIRROR_KEY, LATEST_KEY) or record_number(key) is not None or ObjectName.parse(key) is not None

    def most(self, key: str) -> int:
        """See `Gate`."""
        if key == LATEST_KEY:
            return HINT_MAX
        if record_number(key) is not None:
            return RECORD_MAX
        name = ObjectName.parse(key)
        if name is None:
            why = "a target is made where the server is, with `mirror init`" if key == MIRROR_KEY else "no object has this key"
            raise Rejected(why)
        return MOST[name.place]

    def examine(self, key: str, read: Read, size: int, hashed: bytes, rights: Container[str]) -> tuple[int, str] | None:
        """See `Gate`."""
        if key == LATEST_KEY:
            return None
        number = record_number(key)
        if number is not None:
            data = read(0, size)
            record = self._thread.submit(self._judge, number, data, rights).result()
            if record is None and self._store.size(key) is None:
                raise Rejected("the log goes on beyond it, and it is not there: have `mirror verify` look at the target")
            return (record.number, record.kind) if record else None
        name = ObjectName.parse(key)
        assert name
        if name.epoch > self._newest_prune:
            self._newest_prune = self._thread.submit(self._epoch).result()
            if name.epoch > self._newest_prune:
                raise Rejected(f"its epoch is {name.epoch}, and the newest prune record is {self._newest_prune}", "behind")
        found = self._examiner.examine(name, read, size, hashed)
        if found is not None:
            self._foresee(name, found)
        return None

    def may_go(self, keys: Sequence[str]) -> None:
        """See `Gate`."""
        doomed = self._thread.submit(lambda: self._records().doomed(keys)).result()
        if len(doomed) < len(keys):
            spared = next(key for key in keys if key not in doomed)
            raise Rejected(f"no prune record has named {spared}")

    def close(self) -> None:
        """See `Gate`."""
        if self._clerk:
            self._thread.submit(self._clerk.close).result()
        self._thread.shutdown()

    def _foresee(self, name: ObjectName, found: Fragment | list[Entry]) -> None:
        """Have what a record will be asked about looked at while the client is still busy. It is only a hint: what is left out, or
        fails, is done when the record comes."""
        if isinstance(found, list):
            files = [entry for entry in found if isinstance(entry, File | Page)]
            if any(file.more for file in files) or sum(len(file.chunks) for file in files) > FORESEEN_IDS * 32:
                return
            ids = {file.chunks[at : at + 32] for file in files for at in range(0, len(file.chunks), 32)}
            task = partial(Clerk.foresee, name=name, entries=len(found), first=found[0].path if found else b"", ids=ids)
        else:
            task = partial(Clerk.learn, name=name, fragment=found)
        if not self._foreseeing.acquire(blocking=False):
            return

        def foresee() -> None:
            try:
                task(self._records())
            except (MirrorError, sqlite3.DatabaseError):
                return  # whatever it is, the record meets it again
            finally:
                self._foreseeing.release()

        self._thread.submit(foresee)

    def _judge(self, number: int, data: bytes, rights: Container[str]) -> Record | None:
        try:
            return self._records().judge(number, data, rights)
        except sqlite3.DatabaseError:  # what is kept on this host may be spoilt at any time, and costs time alone
            self._records().close(discard=True)
            self._clerk = None
            return self._records().judge(number, data, rights)

    def _records(self) -> Clerk:
        self._clerk = self._clerk or Clerk(self._store, self._uuid, self._cache, self._tree)
        return self._clerk

    def _epoch(self) -> int:
        head = self._records().head()
        return head.epoch if head else 0


class Held:
    """One target of a server. tree: the live folder; empty for layout packed."""

    def __init__(self, name: str, store: FolderStore, gate: Gate, tree: str = "") -> None:
        self.name, self.store, self._gate, self.tree = name, store, gate, tree
        self._live = open_site(SiteSpec(tree)) if tree else None
        self.parts = Parts(store)

    def waits(self) -> bool:
        """Whether something is to be published, or a publish to be finished."""
        head = log.read_head(self.store) if self.tree else None
        return head is not None and (bool(head.body.get("waits")) or unfinished(self.store, head) is not None)

    def is_open(self) -> bool:
        """Whether a publish was begun and has not ended."""
        return bool(self.tree) and unfinished(self.store, log.read_head(self.store)) is not None

    def live(self, path: bytes) -> Content:
        """A file of the live tree, open. NotFound, also for what is no plain file; Rejected for what is no path of a site."""
        if self._live is None:
            raise Rejected("only a tree has live files")
        if fault := path_fault(path):
            raise Rejected(f"that is no path of a file: {fault}")
        if is_ours(path):
            raise NotFound("")
        try:
            return self._live.open(path)
        except OSError:
            raise NotFound("") from None

    def knows(self, key: str) -> bool:
        """Whether an object of this key may be asked for."""
        return self._gate.knows(key)

    def may_come(self, key: str, rights: Container[str]) -> int:
        """The bytes that an object of this key may have. Rejected when nobody, or not this key's owner, may write it."""
        if APPEND not in rights:
            raise Rejected("the key has not the right append", "rights")
        return self._gate.most(key)

    def receive(self, key: str, draft: Draft, hashed: Hash, rights: Container[str]) -> Imported:
        """Examine what lies in the draft and make it the object of this key. Rejected."""
        if self.store.size(key) is not None:
            return Imported(False)
        record = self._gate.examine(key, draft.read, draft.size, hashed.digest(), rights)
        if self.store.size(key) is not None:  # somebody else's came meanwhile
            return Imported(False)
        if self.tree:
            note(self.store, key)
        return Imported(draft.publish(key), record)

    def receive_part(self, whole: Whole, at: int, part: Draft, rights: Container[str]) -> Imported | int:
        """Add a part of an object: the bytes that are there now; with the last one as `receive`. Misplaced; Rejected."""

        def finish(draft: Draft, hashed: Hash) -> Imported:
            return self.receive(whole.key, draft, hashed, rights)

        done = self.parts.add(whole, at, part, finish)
        return Imported(False) if done is None else done

    def hint(self, key: str, data: bytes) -> None:
        """Replace the hint. Rejected for another key."""
        if key != LATEST_KEY:
            raise Rejected("only the hint latest.json is ever overwritten: say If-None-Match: *")
        self.store.put_hint(key, data)

    def page(self, prefix: str, after: str, most: int) -> tuple[list[Stat], bool]:
        """(the first objects below a prefix whose keys come after that one, in order; whether there are more)."""
        seen = (stat for stat in self.store.list(prefix) if stat.key > after and self._gate.knows(stat.key))
        found = nsmallest(most + 1, seen)
        return found[:most], len(found) > most

    def delete(self, keys: Sequence[str], rights: Container[str]) -> None:
        """Delete objects that a prune record has named. Rejected."""
        if PRUNE not in rights:
            raise Rejected("the key has not the right prune", "rights")
        self._gate.may_go(keys)
        self.store.delete(keys)

    def close(self) -> None:
        """Give back what is held."""
        self._gate.close()


class NotHeld(Exception):
    """There is a folder of that name, and it cannot be used. The text says why."""


class Holding:
    """All the targets below a root. gates: what makes the gate of a store; a parameter for tests of the protocol alone."""

    def __init__(
        self, root: str, cache: Path | None, gates: Callable[[MaintainedStore, str, Path | None, bool], Gate] = Verifying
    ) -> None:
        self.root = os.path.abspath(root)
        self._cache, self._gates = cache, gates
        self._finding = threading.Lock()
        self._held: dict[str, tuple[tuple[int, int], Held]] = {}

    def find(self, name: str) -> Held | None:
        """The target of that name, None where there is none. NotHeld."""
        if not _NAME.fullmatch(name):
            return None
        folder = os.path.join(self.root, name)
        tree, store = "", folder
        try:
            found = os.stat(os.path.join(folder, MIRROR_KEY))
            if os.path.lexists(os.path.join(folder, STORE, MIRROR_KEY)):  # the site of a tree may have a mirror.json of its own
                raise FileNotFoundError
        except OSError:
            tree, store = folder, os.path.join(folder, STORE)
            try:
                found = os.stat(os.path.join(store, MIRROR_KEY))
            except OSError:
                if os.path.lexists(os.path.join(store, STORE_KEY)):
                    raise NotHeld("it is a tree whose store is elsewhere: sync into it where it is") from None
                return None
        same = (found.st_ino, found.st_mtime_ns)  # a target that was made anew is another one
        with self._finding:
            known = self._held.get(name)
            if known and known[0] == same:
                return known[1]
            if known:
                known[1].close()
            held = self._open(name, store, tree)
            self._held[name] = same, held
            return held

    def names(self) -> list[str]:
        """The targets that there are now."""
        try:
            folders = sorted(name for name in os.listdir(self.root) if _NAME.fullmatch(name))
        except OSError:
            return []
        places = ((name, os.path.join(self.root, name)) for name in folders)
        return [name for name, at in places if any(os.path.isfile(os.path.join(at, *where)) for where in _MIRRORS)]

    def _open(self, name: str, folder: str, tree: str) -> Held:
        store = FolderStore(folder)
        try:
            info = read_info(store)
        except DamageError as error:
            raise NotHeld(f"its mirror.json is damaged: {error.why}") from None
        except MirrorError as error:
            raise NotHeld(error.why) from None
        if info is None or (info["layout"] == PACKED) == bool(tree):
            raise NotHeld("it is the store of a tree that is elsewhere: sync into it where it is")
        cache = self._cache / "served" / str(info["uuid"]) if self._cache else None
        return Held(name, store, self._gates(store, str(info["uuid"]), cache, bool(tree)), tree)

    def close(self) -> None:
        """Give back what is held."""
        for _, held in self._held.values():
            held.close()
