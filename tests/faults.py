"""A store that fails on purpose, by script: for tests of retries, lost answers, crashes and slow networks.

    store = FaultyStore(MemoryStore(), [Fault("create", nth=3, when="after", error=TemporaryError("lost"))])

The third `create` acts and then raises: the caller never hears that it worked.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from mirror.errors import TemporaryError
from mirror.store import Data, MaintainedStore, Stat
from mirror.store.wrap import WrappedStore

T = TypeVar("T")
NO_ANSWER = TemporaryError("cannot reach", where="faulty://", why="a test says so")
Kind = Literal["get", "get_ranges", "size", "list", "create", "put_hint", "sweep", "delete"]


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to the nth call (from 1; 0: every one) of a kind whose key contains `key`: a delay, then an error (None: no
    error) before the store acts or after. `error` may be a function that gives the error, or does something first."""

    kind: Kind
    nth: int = 1
    when: Literal["before", "after"] = "before"
    error: BaseException | Callable[[], BaseException] | None = NO_ANSWER
    delay_seconds: float = 0.0
    key: str = ""


class FaultyStore(WrappedStore):
    """Passes everything on, but for its faults. `calls` is every call so far, in order: (kind, key or prefix)."""

    def __init__(self, inner: MaintainedStore, faults: Sequence[Fault] = ()) -> None:
        super().__init__(inner)
        self.faults = list(faults)
        self.calls: list[tuple[str, str]] = []
        self._seen: Counter[int] = Counter()
        self._lock = threading.Lock()

    def _act(self, kind: Kind, key: str, act: Callable[[], T]) -> T:
        with self._lock:
            self.calls.append((kind, key))
            due = []
            for number, fault in enumerate(self.faults):
                if fault.kind == kind and fault.key in key:
                    self._seen[number] += 1
                    if fault.nth in (0, self._seen[number]):
                        due.append(fault)
        self._strike(due, "before")
        result = act()
        self._strike(due, "after")
        return result

    @staticmethod
    def _strike(due: Sequence[Fault], when: str) -> None:
        for fault in due:
            if fault.when == when:
                time.sleep(fault.delay_seconds)
                if fault.error is not None:
                    raise fault.error() if callable(fault.error) else fault.error

    def get(self, key: str, limit: int) -> bytes:
        return self._act("get", key, lambda: self.inner.get(key, limit))

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return self._act("get_ranges", key, lambda: self.inner.get_ranges(key, ranges))

    def size(self, key: str) -> int | None:
        return self._act("size", key, lambda: self.inner.size(key))

    def list(self, prefix: str) -> Iterator[Stat]:
        return iter(self._act("list", prefix, lambda: [*self.inner.list(prefix)]))

    def create(self, key: str, data: Data) -> bool:
        return self._act("create", key, lambda: self.inner.create(key, data))

    def put_hint(self, key: str, data: Data) -> None:
        self._act("put_hint", key, lambda: self.inner.put_hint(key, data))

    def sweep(self) -> int:
        return self._act("sweep", "", self.inner.sweep)

    def delete(self, keys: Sequence[str]) -> None:
        self._act("delete", ",".join(keys), lambda: self.inner.delete(keys))
