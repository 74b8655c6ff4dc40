"""A store in this process's memory, for tests: the whole protocol, nothing durable, nothing shared with another process.

>>> store = MemoryStore.named("doc")
>>> store.create("a", b"1"), store.create("a", b"2"), MemoryStore.named("doc").get("a", 10)
(True, False, b'1')
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

from mirror.errors import NotFound
from mirror.store import Data, Stat
from mirror.store.bounds import too_large, too_short


class MemoryStore:
    """A MaintainedStore in a dictionary. `objects` may be looked at, and spoilt, by tests."""

    _named: ClassVar[dict[str, MemoryStore]] = {}
    _naming: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str = "") -> None:
        self.objects: dict[str, bytes] = {}
        self._name = name
        self._lock = threading.Lock()

    @classmethod
    def named(cls, name: str) -> MemoryStore:
        """The one store of that name in this process, made when first asked for."""
        with cls._naming:
            return cls._named.setdefault(name, cls(name))

    @property
    def url(self) -> str:
        return f"memory://{self._name}"

    def get(self, key: str, limit: int) -> bytes:
        data = self._object(key)
        if len(data) > limit:
            raise too_large(self._where(key), len(data), limit)
        return data

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        data = self._object(key)
        if short := [end for _, end in ranges if end > len(data)]:
            raise too_short(self._where(key), max(short), len(data))
        return [data[start:end] for start, end in ranges]

    def size(self, key: str) -> int | None:
        data = self.objects.get(key)
        return None if data is None else len(data)

    def list(self, prefix: str) -> Iterator[Stat]:
        with self._lock:
            found = [Stat(key, len(data)) for key, data in self.objects.items() if key.startswith(prefix)]
        yield from found

    def create(self, key: str, data: Data) -> bool:
        with self._lock:
            if key in self.objects:
                return False
            self.objects[key] = bytes(data)
            return True

    def put_hint(self, key: str, data: Data) -> None:
        with self._lock:
            self.objects[key] = bytes(data)

    def sweep(self) -> int:
        return 0

    def free_bytes(self) -> tuple[int, int] | None:
        return None

    def delete(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self.objects.pop(key, None)

    def _object(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise NotFound(key) from None

    def _where(self, key: str) -> str:
        return f"{self.url}/{key}"
