"""A store behind any web server that gives files: nginx, `python -m http.server`, a CDN, the public URL of a bucket. Read only.

Nothing is listed: `list` says so (NoListing), and readers take names from the log. Ranges are asked for; where the whole object
comes instead, it is kept for the next ranges of it, two packs or so in memory.

What such servers do wrong, and what is made of it here: a page in place of an object, with status 200, is an object that is not
there; so is a refusal (403), which is what a bucket that may not be listed says of a missing key, if anything else may be read;
HEAD that is not allowed, or does not tell a length, is asked as GET. A body that is cut, too long or packed is for the client.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Final, NoReturn

from mirror.errors import NoListing, NotFound, UsageError
from mirror.keys import MIRROR_KEY
from mirror.store import Data, Stat, StoreSpec
from mirror.store.bounds import too_large, too_short
from mirror.webclient import Answer
from mirror.webclient.answers import error_for
from mirror.webclient.client import PATIENCE_SECONDS, WebClient
from mirror.webclient.pace import Pace, in_a_piece, in_stretches
from mirror.webclient.parts import asked_part, content_length, content_range

_WHOLE: Final = 64 << 20  # bytes: the largest object that there may be, a pack
_HELD: Final = 64 << 20  # bytes of whole objects that are kept; two packs, as writers close them
_START: Final = 512  # bytes in which a page shows that it is one
_PAGE: Final = 1 << 20  # bytes of a page that stands for a missing object, however small that may be
_MORE: Final = 1 << 16  # bytes that an answer to a range may have too many: then the whole object is asked for


class WebStore:
    """A store below a URL, which only reads: what writes raises UsageError. `patience_seconds` is a parameter for tests."""

    def __init__(self, spec: StoreSpec, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._client = WebClient(
            spec.url,
            insecure=spec.insecure,
            proxies=spec.proxies,
            connections=spec.transfers + 2,
            answered=spec.answered,
            patience_seconds=patience_seconds,
        )
        # These only ever change once, so threads may race. seen: something may be read here; ranges: they are honoured.
        self._seen, self._ranges = False, True
        self._pace = Pace()
        self._held: OrderedDict[str, bytes] = OrderedDict()
        self._holding = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}

    @property
    def url(self) -> str:
        return self._client.url

    def get(self, key: str, limit: int) -> bytes:
        return in_a_piece(partial(self._whole, key, limit), partial(self.size, key), partial(self._stretches, key, limit))

    def _whole(self, key: str, limit: int, resend: bool) -> bytes:
        """An object in one request."""
        answer = self._ask("GET", key, "cannot read", max(limit, _PAGE), resend=resend)
        if _is_page(answer):
            raise NotFound(key)
        if (size := len(answer.body)) > limit:
            raise too_large(self._client.where(key), size, limit)
        self._seen = True
        return answer.body

    def _stretches(self, key: str, limit: int, size: int) -> bytes | None:
        """A whole object of this size, in parts; None where these cannot be had."""
        if size > limit:
            raise too_large(self._client.where(key), size, limit)
        return in_stretches(self._pace, 0, size, partial(self._stretch, key)) if self._ranges else None

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self._range(key, start, end) if start < end else b"" for start, end in ranges]

    def size(self, key: str) -> int | None:
        try:
            answer = self._ask("HEAD", key, "cannot look at", 0, accept=(200, 405, 501))
            length = content_length(answer.headers)
            if answer.status != 200 or length is None or _may_be_page(answer) or answer.headers.get("content-encoding"):
                return self._look_closer(key)
        except NotFound:
            return None
        self._seen = True
        return length

    def list(self, prefix: str) -> Iterator[Stat]:
        raise NoListing("cannot list", where=self.url, why="a web server does not say what it has",
                        hint="name the store itself, a folder or s3://bucket/prefix, where that can be reached")  # fmt: skip

    # -- what only a store that is written has ---------------------------------------------------------------------

    def create(self, key: str, data: Data) -> bool:
        self._refuse()

    def put_hint(self, key: str, data: Data) -> None:
        self._refuse()

    def delete(self, keys: Sequence[str]) -> None:
        self._refuse()

    def sweep(self) -> int:
        return 0

    def free_bytes(self) -> tuple[int, int] | None:
        return None

    def _refuse(self) -> NoReturn:
        raise UsageError("cannot write to", where=self.url, why="files behind a web server can only be read",
                         hint="write where they are: a folder, or s3://bucket/prefix")  # fmt: skip

    # -- requests --------------------------------------------------------------------------------------------------

    def _ask(
        self,
        method: str,
        key: str,
        what: str,
        limit: int,
        *,
        headers: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (200,),
        limits: Mapping[int, int] | None = None,
        resend: bool = True,
    ) -> Answer:
        """One request; NotFound also where a refusal means that."""
        most = {403: _WHOLE, **(limits or {})}
        answer = self._client.request(
            method, key, what=what, limit=limit, headers=headers, accept=(*accept, 403), limits=most, resend=resend
        )
        if answer.status == 403:
            if self._may_read():
                raise NotFound(key)
            raise error_for(403, answer.headers, answer.body, what, answer.url)
        return answer

    def _may_read(self) -> bool:
        """Whether anything here may be read; a worker may not have seen anything yet."""
        if not self._seen:
            answer = self._client.request("HEAD", MIRROR_KEY, what="cannot read", accept=range(100, 600))
            self._seen = answer.status == 200
        return self._seen

    def _look_closer(self, key: str) -> int | None:
        """The size of an object of which HEAD does not tell it; None where it is a page."""
        answer = self._ask("GET", key, "cannot look at", _START + _MORE, headers=asked_part(0, _START), accept=(200, 206, 416),
                           limits={200: _WHOLE})  # fmt: skip
        if answer.status == 206 and answer.headers.get("content-encoding"):
            return len(self.get(key, _WHOLE))
        if _is_page(answer):
            return None
        self._seen = True
        if answer.status == 200:
            return len(answer.body)
        part = content_range(answer.headers)
        return part.total if part and part.total is not None else len(self.get(key, _WHOLE))

    def _range(self, key: str, start: int, end: int) -> bytes:
        held = self._of_held(key)
        if held is None and self._ranges:
            part = in_stretches(self._pace, start, end, partial(self._stretch, key))
            if part is not None:
                return part
            held = self._of_held(key)
        if held is None:
            held = self._fetch(key)
        if len(held) < end:
            raise too_short(self._client.where(key), end)
        return held[start:end]

    def _stretch(self, key: str, start: int, end: int, resend: bool) -> bytes | None:
        """A range in one request; None where that cannot be had: the whole object is, or is to be, among those that are held."""
        most = {200: _WHOLE, 206: end - start + _MORE, 416: _WHOLE}
        asked = asked_part(start, end)
        answer = self._ask("GET", key, "cannot read", 0, headers=asked, accept=(200, 206, 416), limits=most, resend=resend)
        if answer.status == 200:
            if _is_page(answer):
                raise NotFound(key)
            self._ranges = False
            self._hold(key, answer.body)
        part = _part(answer, start, end) if answer.status == 206 else None
        self._seen = self._seen or part is not None
        return part

    # -- whole objects ---------------------------------------------------------------------------------------------

    def _fetch(self, key: str) -> bytes:
        """An object as a whole, transferred once however many threads want ranges of it."""
        with self._holding:
            lock = self._fetching.setdefault(key, threading.Lock())
        with lock:
            try:
                held = self._of_held(key)
                return held if held is not None else self._hold(key, self.get(key, _WHOLE))
            finally:
                with self._holding:
                    self._fetching.pop(key, None)

    def _of_held(self, key: str) -> bytes | None:
        with self._holding:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def _hold(self, key: str, data: bytes) -> bytes:
        with self._holding:
            self._held[key] = data
            while sum(map(len, self._held.values())) > _HELD and len(self._held) > 1:
                self._held.popitem(last=False)
        return data


def _part(answer: Answer, start: int, end: int) -> bytes | None:
    """The bytes that were asked for; None where these are others, or packed: then the whole object tells."""
    found = content_range(answer.headers)
    right = found and (found.start, found.end) == (start, end) and len(answer.body) == end - start
    return answer.body if right and not answer.headers.get("content-encoding") else None


def _may_be_page(answer: Answer) -> bool:
    return "html" in answer.headers.get("content-type", "").lower()


def _is_page(answer: Answer) -> bool:
    """Whether it is a page for people: no object of a store begins so."""
    return _may_be_page(answer) and answer.body[:_START].lstrip().startswith(b"<")
