"""One object, one creator, on a server whose only sure promise is that of two requests to make a folder one makes it.

PUT overwrites, and MOVE with `Overwrite: F` looks first and acts later wherever no lock is held in between (nginx with several
workers, Apache). MKCOL is `mkdir`: the kernel lets one through. But a folder says nothing of what its maker wants to write, and its
maker may die. So an object is agreed upon in rounds, each a folder `claims/KEY.1/`, `claims/KEY.2/`, … made in this order:

1. Make the first round that is not there: it is ours.
2. Look into all rounds before it, the newest first: if one has an `object`, that is what we have to write, not our own.
   But if there is the key itself by now, somebody was done before.
3. Put it into our round as `object`, complete at once: a temporary name, then MOVE.
4. Make the round behind ours. If that is there already, somebody may have looked into ours before step 3: begin again. If not,
   whoever comes later has to make a later round, and finds our `object` in step 2. So it is decided.
5. MOVE `object` to the key.

Whoever dies after step 4 has decided, and another writes it; who dies before has at most made others take one round more. Nobody
waits for anybody, nothing is ever taken back, and no clock is asked (law 10). The rounds stay, as two empty folders an object:
without them a run that slept since step 4 could not know that it is late. This is single-decree Paxos with one acceptor, the
server; `tests/store/test_dav_claims.py` goes through its interleavings, with deaths.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Protocol

from mirror.errors import DamageError, NotFound, TemporaryError
from mirror.store import Data
from mirror.store.dav_server import Made, Moved

PATIENCE_SECONDS = 60.0
_PAUSE_SECONDS = 0.05
_OBJECT_MAX = 1 << 26


class Requests(Protocol):
    """The requests that it takes; `DavServer` has them."""

    def get(self, path: str, limit: int) -> bytes:
        """The whole file. NotFound; DamageError when it is larger than `limit` bytes."""
        ...

    def size(self, path: str) -> int | None:
        """The file's size, None when there is none."""
        ...

    def make(self, folder: str) -> Made:
        """Make a folder: of all who ask, one is told MADE."""
        ...

    def make_folders(self, path: str) -> None:
        """Make the folders that a path is in."""
        ...

    def forget_folders(self) -> None:
        """Do not believe any more that folders are there."""
        ...

    def move(self, path: str, to: str, *, overwrite: bool) -> Moved:
        """Give a file another name, all of it at once."""
        ...

    def where(self, path: str) -> str:
        """The URL of a path, for messages."""
        ...


class Claims:
    """Creates objects in rounds. folder: where the rounds are; stage: puts bytes under a temporary name and gives that; sleep: a
    parameter for tests."""

    def __init__(
        self, server: Requests, folder: str, stage: Callable[[Data], str], sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._server, self._folder, self._stage, self._sleep = server, folder, stage, sleep

    def create(self, key: str, data: Data) -> bool:
        """As `WritableStore.create`. TemporaryError when others are faster for a whole minute."""
        give_up, pause, mine = time.monotonic() + PATIENCE_SECONDS, _PAUSE_SECONDS, 0
        while time.monotonic() < give_up:
            found = self._next(key, mine + 1, pause)
            if found is None:
                # Whoever has overtaken us may have written what he found in our round.
                return mine > 0 and self._holds(key, data)
            decided = self._seen(key, found - 1)
            # Asked behind that: what was decided may have been moved from where we looked.
            if found > 1 and self._server.size(key) is not None:
                return mine > 0 and self._holds(key, data)
            mine = found
            self._write(self._object(key, mine), data if decided is None else decided)
            if self._make(self._round(key, mine + 1)):
                moved = self._publish(key, mine)
                return (decided is None or decided == bytes(data)) and (moved or self._holds(key, data))
            self._sleep(pause * random.random())
            pause = min(pause * 2, 2.0)
        why = "others are creating it at the same time, again and again"
        raise TemporaryError("cannot write", where=self._server.where(key), why=why, hint="try again later")

    def _next(self, key: str, first: int, pause: float) -> int | None:
        """The number of the round that we made; None when the object is there meanwhile."""
        number, waited = first, False
        while not self._make(self._round(key, number)):
            if self._server.size(key) is not None:
                return None
            if not waited:  # most likely somebody is at it just now: let him finish
                self._sleep(pause * random.uniform(1.0, 2.0))
                if self._server.size(key) is not None:
                    return None
            number, waited = number + 1, True
        return number

    def _seen(self, key: str, newest: int) -> bytes | None:
        """What the newest round that has something to write has."""
        for number in range(newest, 0, -1):
            try:
                return self._server.get(self._object(key, number), _OBJECT_MAX)
            except NotFound:
                continue
        return None

    def _write(self, path: str, data: Data) -> None:
        for _ in range(3):
            # TAKEN: our own request, whose answer was lost. Nobody else writes into a round of ours.
            if self._server.move(self._stage(data), path, overwrite=False) in (Moved.DONE, Moved.TAKEN):
                return
            if self._server.size(path) is not None:
                return
        raise self._refusal(path)

    def _publish(self, key: str, number: int) -> bool:
        """Give the object its name. False when something has it: others found it decided and wrote it for us, our own answer was
        lost, or it was there before all this."""
        for _ in range(3):
            self._server.make_folders(key)
            moved = self._server.move(self._object(key, number), key, overwrite=False)
            if moved is Moved.DONE:
                return True
            if self._server.size(key) is not None:
                return False
            self._server.forget_folders()
        raise self._refusal(key)

    def _holds(self, key: str, data: Data) -> bool:
        """Whether this is what has the name now. So two are never told that they did it, but who brought the same."""
        try:
            return self._server.get(key, len(bytes(data))) == bytes(data)
        except (NotFound, DamageError):
            return False

    def _make(self, folder: str) -> bool:
        made = self._server.make(folder)
        if made is Made.ORPHAN:
            self._server.forget_folders()
            self._server.make_folders(folder)
            made = self._server.make(folder)
        return made is Made.MADE

    def _refusal(self, path: str) -> TemporaryError:
        why = "the server does not move a file to its name (MOVE)"
        return TemporaryError("cannot write", where=self._server.where(path), why=why, hint="look into its log, then try again")

    def _round(self, key: str, number: int) -> str:
        return f"{self._folder}{key}.{number}/"

    def _object(self, key: str, number: int) -> str:
        return f"{self._round(key, number)}object"
