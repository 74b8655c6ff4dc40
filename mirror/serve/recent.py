"""What was asked for lately, within a number of bytes: blocks, parts of the manifest, lengths of chunks.

Any thread may ask. Who asks for what another thread is just making waits for that one: fifty visitors to one page unpack one block.

    >>> recent = Recent[str, bytes](100)
    >>> recent.get("a", lambda: (b"made", 4)), recent.get("a", lambda: (b"not made again", 14))
    (b'made', b'made')
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Values by key, the ones that were not asked for the longest dropped first. most: bytes of all together."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._held: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._making: dict[K, Future[V]] = {}
        self.weight = 0  # bytes held

    def get(self, key: K, make: Callable[[], tuple[V, int]]) -> V:
        """The value of a key; when there is none, what `make` gives: (value, its bytes). One that is heavier than all may be is
        given and not held. What `make` raises is raised for all who wait for it, and nothing is held."""
        with self._lock:
            if found := self._held.get(key):
                self._held.move_to_end(key)
                return found[0]
            others = self._making.get(key)
            if others is None:
                own = self._making[key] = Future()
        if others is not None:
            return others.result()
        try:
            value, weight = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            own.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._put(key, value, weight)
        own.set_result(value)
        return value

    def look(self, key: K) -> V | None:
        """The value of a key if there is one."""
        with self._lock:
            found = self._held.get(key)
            return found[0] if found else None

    def put(self, key: K, value: V, weight: int) -> None:
        """Hold a value, in place of what is held under this key."""
        with self._lock:
            self._put(key, value, weight)

    def _put(self, key: K, value: V, weight: int) -> None:
        if before := self._held.pop(key, None):
            self.weight -= before[1]
        if weight > self._most:
            return
        self._held[key] = value, weight
        self.weight += weight
        while self.weight > self._most:
            _, (_, least) = self._held.popitem(last=False)
            self.weight -= least
