"""Which snapshot is served: the one that was named, or always the newest.

Owns the target as it is open for serving. `Reading` belongs to one thread, so a thread of its own has it, and answers the one
question that needs it: where else in a live tree a content may be. Whether there is a newer snapshot is asked of the store
directly, at most once in a few seconds, by a visitor who happens to come; the others go on with the one that is known.

A store that cannot be asked is no reason to stop: what is known is served on.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from mirror import log
from mirror.errors import MirrorError, NotFound
from mirror.events import Event, Job, Notice, Stamped
from mirror.keys import record_key
from mirror.manifest import WithContent
from mirror.pick import Reading, pick
from mirror.serve.paths import View
from mirror.site import Site
from mirror.site.open import open_site
from mirror.store import ReadableStore
from mirror.target import TargetSpec

LATEST: Final = "latest"
LOOK_SECONDS: Final = 3.0


class Snapshots:
    """The target of one run, and the snapshot of it that is served. Any thread may ask. say: told events, by any thread. Raises
    what opening a target and picking a snapshot raise. Close it."""

    def __init__(self, spec: TargetSpec, at: str, say: Callable[[Event], None]) -> None:
        self._at, self._say = at, say
        self._thread = ThreadPoolExecutor(1, "mirror-reading")
        self._reading: Reading | None = None
        try:
            self._record = self._ask(lambda: self._open(spec))
        except BaseException:
            self.close()
            raise
        self.view = _view(self._record)
        self._looking = threading.Lock()
        self._looked = time.monotonic()
        self._unreachable = ""

    def _open(self, spec: TargetSpec) -> log.Record:
        relay = Job("serve", [lambda stamped: self._relay(stamped)])
        # Apart from what `cat` and its like keep: a server would have it for weeks, and they would work without.
        self._reading = Reading(spec, relay, name="serving")
        self._head = self._reading.head
        return self._reading.pick(self._at)

    def _relay(self, stamped: Stamped) -> None:
        self._say(stamped.event)

    def _ask(self, question: Callable[[], Any]) -> Any:
        return self._thread.submit(question).result()

    @property
    def _open_reading(self) -> Reading:
        assert self._reading is not None
        return self._reading

    @property
    def store(self) -> ReadableStore:
        """The target's store."""
        return self._open_reading.store

    @property
    def url(self) -> str:
        """The target, for people."""
        return self._open_reading.target.url

    @property
    def site(self) -> str:
        """The name of the target's site."""
        return self._open_reading.target.site

    def live(self) -> Site | None:
        """The live place of a tree."""
        target = self._open_reading.target
        return open_site(target.live) if target.tree else None

    def look(self) -> View:
        """What is to be served now: the newest snapshot as of a few seconds ago, unless another was named."""
        if self._at != LATEST or time.monotonic() - self._looked < LOOK_SECONDS or not self._looking.acquire(blocking=False):
            return self.view
        try:
            self._newer()
            self._unreachable = ""
        except (MirrorError, NotFound) as error:
            if str(error) != self._unreachable:
                self._unreachable = str(error)
                self._say(Notice("not-looked", f"it could not be asked whether there is a newer snapshot: {error}"))
        finally:
            self._looked = time.monotonic()
            self._looking.release()
        return self.view

    def _newer(self) -> None:
        number = self._head.number if self._head else 0
        if self.store.size(record_key(number + 1)) is None:
            return
        head = log.read_head(self.store, number)
        record = pick(self.store, head, LATEST)
        self._head = head
        if record.number != self.view.number:
            self._record, self.view = record, _view(record)
            self._say(Notice("serving", f"snapshot {record.number} is served from now on"))

    def elsewhere(self, number: int, entry: WithContent, asked: int) -> Sequence[bytes] | None:
        """More paths of the live tree that may have the content of an entry of snapshot `number`; asked: how often this was asked
        for the same visitor before. None when there is nowhere left to look."""
        return self._ask(lambda: self._paths(number, entry, asked))  # type: ignore[no-any-return]

    def _paths(self, number: int, entry: WithContent, asked: int) -> Sequence[bytes] | None:
        reading = self._open_reading
        if asked and not reading.look_again(log.read_record(self.store, number)):
            return None
        return reading.live_paths(entry)

    def close(self) -> None:
        """Give everything back."""
        reading, self._reading = self._reading, None
        if reading is not None:
            self._ask(reading.close)
        self._thread.shutdown(wait=True, cancel_futures=True)


def _view(record: log.Record) -> View:
    source = record.body.get("source", {})
    return View(record.number, record.manifest, os.fsencode(source.get("path", "")) if isinstance(source, dict) else b"")
