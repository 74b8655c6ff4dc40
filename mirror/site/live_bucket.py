"""The live prefix of a tree on S3. Nothing is staged there: a PUT is whole or not at all.

What is noted with each object (`x-amz-meta-mtime`, and the fingerprint as `x-amz-meta-xxh3`) lets one HEAD tell whether it still is
what a manifest says: whoever puts another file there does not know the note. Questions are asked ahead, many at once.

    live = LiveBucket(SiteSpec("s3://bucket/www"))
    live.standing(b"index.html").tag
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mirror.keys import STORE
from mirror.site import ANYTHING, FILE, Lost, SiteSpec, There, Written
from mirror.site.bucket_writing import WritableBucket
from mirror.site.standing import Standing
from mirror.site.writing import Description

if TYPE_CHECKING:
    from mirror.site.standing import LivePlace

T = TypeVar("T")
_AHEAD: Final = 4  # questions waiting for each thread
_BEHIND: Final = STORE + chr(ord("/") + 1)  # sorts behind all that is in the store


class LiveBucket:
    """A `LivePlace` in a bucket. threads: requests in flight."""

    files_only = True

    def __init__(self, spec: SiteSpec, threads: int = 8) -> None:
        self.spec, self.threads = spec, threads
        self.site = _Guarded(spec)
        self.url = self.site.url

    def guard(self, check: Callable[[], None] | None) -> None:
        """What is called before each write from now on; what it raises stops the write."""
        self.site.check_first = check

    def close(self) -> None:
        """Give the connections back."""
        self.site.close()

    def __enter__(self) -> LiveBucket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def is_empty(self) -> bool:
        """See `LivePlace.is_empty`. One request: for what sorts behind the store, as nearly all names do; else two."""
        if self.site.first_key(_BEHIND) is not None:
            return False
        first = self.site.first_key()
        return first is None or first.startswith(f"{STORE}/")

    def standing(self, path: bytes) -> Standing | None:
        """See `LivePlace.standing`. One request."""
        return standing_of(self.site.look(path))

    def each(self, items: Iterable[tuple[bytes | None, T]]) -> Iterator[tuple[T, Standing | OSError | None]]:
        """See `LivePlace.each`."""
        waiting: deque[tuple[T, Future[Standing | OSError | None] | None]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            try:
                for path, item in items:
                    waiting.append((item, pool.submit(self._ask, path) if path is not None else None))
                    if len(waiting) > self.threads * _AHEAD:
                        yield _answered(*waiting.popleft())
                while waiting:
                    yield _answered(*waiting.popleft())
            finally:
                pool.shutdown(cancel_futures=True)

    def _ask(self, path: bytes) -> Standing | OSError | None:
        try:
            return self.standing(path)
        except OSError as error:
            return error

    def keep_aside(self, path: bytes, number: int) -> str:
        """See `LivePlace.keep_aside`. The service copies it."""
        there = self.site.look(path)
        count = 1
        while True:
            where = f"{STORE}/aside/{number}/".encode() + path + (b".%d" % count if count > 1 else b"")
            what = Description(there.mtime if there else None)
            if not isinstance(self.site.copy(path, where, what, None), Lost):
                return where.decode("utf-8", "surrogateescape")
            count += 1

    def settle(self) -> None:
        """See `LivePlace.settle`. What the service has answered is durable."""

    def sweep(self) -> None:
        """See `LivePlace.sweep`. Unfinished uploads, older than a day."""
        self.site.sweep()


class _Guarded(WritableBucket):
    """A bucket that asks before each write whether it still may."""

    check_first: Callable[[], None] | None = None

    def put(
        self, path: bytes, size: int, chunks: Iterable[bytes], what: Description, expected: str | None = ANYTHING
    ) -> Written | Lost:
        self._may()
        return super().put(path, size, chunks, what, expected)

    def copy(self, source: bytes, path: bytes, what: Description, expected: str | None = ANYTHING) -> Written | Lost:
        self._may()
        return super().copy(source, path, what, expected)

    def remove(self, path: bytes, expected: str | None = ANYTHING) -> Written | Lost:
        self._may()
        return super().remove(path, expected)

    def _complete(self, upload: dict[str, Any], **more: Any) -> Any:
        self._may()  # all that was sent before is nowhere to be seen
        return super()._complete(upload, **more)

    def _may(self) -> None:
        if self.check_first is not None:
            self.check_first()


def standing_of(there: There | None) -> Standing | None:
    """What a site's answer says in the words of a live tree."""
    if there is None:
        return None
    return Standing(FILE, there.size, there.mtime, tag=there.tag, fingerprint=there.fingerprint)


def _answered(item: T, future: Future[Standing | OSError | None] | None) -> tuple[T, Standing | OSError | None]:
    return item, future.result() if future is not None else None


if TYPE_CHECKING:
    _PROMISE: type[LivePlace] = LiveBucket
