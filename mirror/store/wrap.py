"""Stores around a store: the same interface, one behaviour more. They nest in any order, and every method may be called from
any thread.

store = CountingStore(LimitedStore(open_store(spec), bytes_per_second=1_000_000))
before = store.counts
...
print(store.counts - before)
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields

from mirror.store import Data, MaintainedStore, Stat


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests by kind, and bytes. A range is a request: that is what an object store charges for. A listing and a deletion of many
    count once; a copy is made by a bucket itself. Adds and subtracts like a number.

    >>> Counts(get=2, bytes_down=10) + Counts(get=1) - Counts(get=2)
    Counts(get=1, range=0, size=0, list=0, create=0, hint=0, copy=0, delete=0, sweep=0, bytes_down=10, bytes_up=0)
    """

    get: int = 0
    range: int = 0
    size: int = 0
    list: int = 0
    create: int = 0
    hint: int = 0
    copy: int = 0
    delete: int = 0
    sweep: int = 0
    bytes_down: int = 0
    bytes_up: int = 0

    @property
    def by_kind(self) -> dict[str, int]:
        """The requests of each kind of which there was one, as reports have them."""
        return {name: count for name, count in asdict(self).items() if count and not name.startswith("bytes")}

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def __sub__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, each.name) - getattr(other, each.name) for each in fields(self)))

    @property
    def requests(self) -> int:
        """All requests together."""
        return self.get + self.range + self.size + self.list + self.create + self.hint + self.copy + self.delete + self.sweep


class WrappedStore:
    """A MaintainedStore that passes everything on; what wrappers (and the fault injector of the tests) are made from."""

    def __init__(self, inner: MaintainedStore) -> None:
        self.inner = inner

    @property
    def url(self) -> str:
        return self.inner.url

    def get(self, key: str, limit: int) -> bytes:
        return self.inner.get(key, limit)

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return self.inner.get_ranges(key, ranges)

    def size(self, key: str) -> int | None:
        return self.inner.size(key)

    def list(self, prefix: str) -> Iterator[Stat]:
        return self.inner.list(prefix)

    def create(self, key: str, data: Data) -> bool:
        return self.inner.create(key, data)

    def put_hint(self, key: str, data: Data) -> None:
        self.inner.put_hint(key, data)

    def sweep(self) -> int:
        return self.inner.sweep()

    def free_bytes(self) -> tuple[int, int] | None:
        return self.inner.free_bytes()

    def delete(self, keys: Sequence[str]) -> None:
        self.inner.delete(keys)


class CountingStore(WrappedStore):
    """Counts what is asked, when it is asked, and the bytes that really moved: a failed request counts, its bytes do not. Bytes
    of an object that lost its race did go up."""

    def __init__(self, inner: MaintainedStore) -> None:
        super().__init__(inner)
        self._counts = Counts()
        self._lock = threading.Lock()

    @property
    def counts(self) -> Counts:
        """Everything up to now."""
        return self._counts

    def _count(self, more: Counts) -> None:
        with self._lock:
            self._counts += more

    def get(self, key: str, limit: int) -> bytes:
        self._count(Counts(get=1))
        data = self.inner.get(key, limit)
        self._count(Counts(bytes_down=len(data)))
        return data

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self._count(Counts(range=len(ranges)))
        parts = self.inner.get_ranges(key, ranges)
        self._count(Counts(bytes_down=sum(map(len, parts))))
        return parts

    def size(self, key: str) -> int | None:
        self._count(Counts(size=1))
        return self.inner.size(key)

    def list(self, prefix: str) -> Iterator[Stat]:
        found = self.inner.list(prefix)  # NoListing costs no request
        self._count(Counts(list=1))
        return found

    def create(self, key: str, data: Data) -> bool:
        self._count(Counts(create=1))
        made = self.inner.create(key, data)
        self._count(Counts(bytes_up=_length(data)))
        return made

    def put_hint(self, key: str, data: Data) -> None:
        self._count(Counts(hint=1))
        self.inner.put_hint(key, data)
        self._count(Counts(bytes_up=_length(data)))

    def sweep(self) -> int:
        self._count(Counts(sweep=1))
        return self.inner.sweep()

    def delete(self, keys: Sequence[str]) -> None:
        self._count(Counts(delete=1))
        self.inner.delete(keys)


class LimitedStore(WrappedStore):
    """Holds object bytes, both ways together, to a rate: over any time longer than a second not more than rate × time, all threads
    together. A whole object goes at once when its turn has come. `clock` and `sleep` are parameters for tests."""

    def __init__(
        self,
        inner: MaintainedStore,
        bytes_per_second: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner)
        self._rate = bytes_per_second
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._paid_until = clock() - 1.0

    def _take(self, count: int) -> None:
        """Wait until `count` bytes may have moved. An idle second is saved up, no more."""
        with self._lock:
            now = self._clock()
            self._paid_until = max(self._paid_until, now - 1.0) + count / self._rate
            wait = self._paid_until - now
        if wait > 0:
            self._sleep(wait)

    def get(self, key: str, limit: int) -> bytes:
        data = self.inner.get(key, limit)
        self._take(len(data))  # the size is known only now: the next one waits
        return data

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self._take(sum(end - start for start, end in ranges))
        return self.inner.get_ranges(key, ranges)

    def create(self, key: str, data: Data) -> bool:
        self._take(_length(data))
        return self.inner.create(key, data)

    def put_hint(self, key: str, data: Data) -> None:
        self._take(_length(data))
        self.inner.put_hint(key, data)


def _length(data: Data) -> int:
    return data.nbytes if isinstance(data, memoryview) else len(data)
