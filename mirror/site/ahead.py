"""A site that answers slowly, asked ahead: files that will be opened in a known order are fetched while others are worked on.

Only for sites that give a small file whole when it is opened (`mirror.site.objects`). What was not foreseen, or comes out of order,
is opened as ever.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, Protocol

from mirror.site import Content, Site

THREADS: Final = 8
_AHEAD: Final = 24  # files fetched and not yet asked for; each has at most 1 MiB


AT_ONCE: Final = 1 << 20  # bytes up to which a site gives a file whole when it is opened


class Opener(Protocol):
    """What opens files: a site, or one that was asked ahead."""

    def open(self, path: bytes) -> Content:
        """See `Site.open`."""
        ...


class Ahead:
    """`open` of a site. foreseen: small files in the order in which they will be opened. Close it."""

    def __init__(self, site: Site, foreseen: Iterable[bytes]) -> None:
        self._site = site
        self._rest = iter(foreseen)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="mirror-get")
        self._waiting: deque[tuple[bytes, Future[Content]]] = deque()

    def open(self, path: bytes) -> Content:
        """See `Site.open`."""
        if any(waits == path for waits, _ in self._waiting):
            while self._waiting[0][0] != path:
                _drop(self._waiting.popleft()[1])
        for each in islice(self._rest, _AHEAD - len(self._waiting)):
            self._waiting.append((each, self._pool.submit(self._site.open, each)))
        if self._waiting and self._waiting[0][0] == path:
            return self._waiting.popleft()[1].result()
        return self._site.open(path)

    def close(self) -> None:
        """Give back what was fetched and never asked for."""
        self._pool.shutdown(cancel_futures=True)
        while self._waiting:
            _drop(self._waiting.popleft()[1])


def _drop(future: Future[Content]) -> None:
    if not future.cancel() and not future.exception():
        future.result().stream.close()
