"""Who publishes into a tree on S3, where nothing can be locked: a hint that its owner writes anew as long as it lives.

    with Lease(store, owner, seconds=30) as lease:
        lease.check()  # before each change of the live tree
        ...

Two hosts never have to agree on the time. The owner counts from before its last renewal that was answered: after `seconds` without
one it changes nothing any more (`check`). Whoever wants to take over watches the hint for twice as long, by the publisher's own
`seconds`: if it is written anew meanwhile, its owner lives (`Watch`). What the two cannot rule out, a request that was sent in time
and arrives late, is caught by its condition: If-Match.

`--take-over` does not wait. Who has lost the hint to another run sees that at its next renewal, a quarter of `seconds` later at the
most, and stops.

The clock goes on while a machine sleeps (CLOCK_BOOTTIME): a laptop that wakes up has lost its lease. What has run out is not
renewed any more, else whoever slept would go on beside the run that took over.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import isfinite
from typing import Final, NamedTuple

from mirror.errors import DamageError, InTheWayError, MirrorError, NotFound
from mirror.events import Job, Notice
from mirror.keys import LEASE_KEY
from mirror.store import WritableStore

SECONDS: Final = 30.0
_LEAST, _MOST = 1.0, 3600.0
_RENEWALS: Final = 4  # in the time of a lease
_LOOKS: Final = 8
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now() -> float:
    """Seconds on a clock that does not stop while the machine sleeps."""
    return time.clock_gettime(_CLOCK)


class Held(NamedTuple):
    """The hint as it was read. turn: another one each time that it is written; seconds: how long it holds."""

    owner: str
    turn: str
    seconds: float


def read_lease(store: WritableStore) -> Held | None:
    """Who says that it publishes; None where nobody does. A spoilt hint is nobody's."""
    try:
        body = json.loads(store.get(LEASE_KEY, 4096))
        seconds = float(body["seconds"])
        if not isfinite(seconds):
            return None
        return Held(str(body["owner"]), str(body["turn"]), min(max(seconds, _LEAST), _MOST))
    except (NotFound, ValueError, LookupError, TypeError, RecursionError, DamageError):
        return None


class Lease:
    """This run's lease, renewed by a thread of its own until it is closed."""

    def __init__(self, store: WritableStore, owner: str, seconds: float = SECONDS) -> None:
        self._store, self._owner, self._seconds = store, owner, seconds
        self._renewed = 0.0
        self._over = ""  # why
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self._turns: set[str] = set()  # the last that was answered, and those that were sent since

    def __enter__(self) -> Lease:
        self.renew()
        self._thread = threading.Thread(target=self._keep, name="mirror-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()

    def renew(self) -> None:
        """Write it anew. MirrorError when the store does not take it, InTheWayError when it has run out or somebody else has it."""
        began = now()
        if self._turns:
            self._still_ours()
        turn = os.urandom(12).hex()
        self._turns.add(turn)
        body = {"owner": self._owner, "turn": turn, "seconds": self._seconds}
        self._store.put_hint(LEASE_KEY, json.dumps(body).encode())
        self._renewed, self._turns = began, {turn}

    def _still_ours(self) -> None:
        """Whoever says `--take-over` writes it while we live."""
        self.check()
        held = read_lease(self._store)
        if held is not None and held.turn not in self._turns:
            self._over = f"run {held.owner} has taken over"
        self.check()

    def check(self) -> None:
        """InTheWayError when it has run out: another run may publish by now. Once so, always so."""
        if not self._over and now() - self._renewed > self._seconds:
            self._over = f"the lease could not be renewed for {self._seconds:.0f} s, so another run may have taken over"
        if self._over:
            raise InTheWayError(
                "stopped publishing into",
                where=self._store.url,
                why=self._over,
                hint="run the same command again: it finishes what is open",
            )

    def _keep(self) -> None:
        while not self._end.wait(self._seconds / _RENEWALS):
            with suppress(MirrorError):  # the next one may be answered; `check` knows how long ago that was
                self.renew()


class Watch:
    """Finds out whether the owner of an open publishing lives. clock, sleep: for tests."""

    def __init__(
        self,
        store: WritableStore,
        job: Job,
        clock: Callable[[], float] = now,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store, self._job, self._clock, self._sleep = store, job, clock, sleep
        self._said = False

    def is_dead(self, is_over: Callable[[], bool] = lambda: False) -> bool:
        """Whether nobody has renewed the lease for twice its time. True takes that long; False comes with the next renewal, or when
        there is nothing to wait for any more (is_over)."""
        first = read_lease(self._store)
        seconds = first.seconds if first else SECONDS
        began = self._clock()
        if not self._said:
            self._said = True  # once, however long one waits
            self._job.say(Notice("lease", f"a publishing is open: watching for {2 * seconds:.0f} s whether its run is alive"))
        while self._clock() - began <= 2 * seconds:
            self._sleep(max(0.05, seconds / _LOOKS))
            found = read_lease(self._store)
            if (found is not None and (first is None or found.turn != first.turn)) or is_over():
                return False
        return True
