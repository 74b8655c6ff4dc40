"""A store that a `mirror serve` holds on another machine: objects over HTTP, every request and every answer signed
(`mirror.webclient.signed`). docs/http.md is the protocol.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, Final, NamedTuple

from mirror.errors import DamageError, NotFound
from mirror.store import Data, Stat, StoreSpec
from mirror.store.bounds import too_large, too_short
from mirror.store.uploads import Progress, upload
from mirror.webclient import Answer
from mirror.webclient.client import PATIENCE_SECONDS
from mirror.webclient.pace import Pace, in_a_piece, in_stretches
from mirror.webclient.parts import content_length
from mirror.webclient.signed import SMALL, SignedClient, said

_PAGE: Final = 5000
_PAGE_BYTES: Final = 4 << 20
_DELETE: Final = 1000
_STREAM_BYTES: Final = 1 << 30
_EVENT_BYTES: Final = 1 << 20
_WRITE: Final = "cannot write"
_GOES_ON: Final = b": it goes on"  # what is said where nothing has happened for a while
ALIVE: Final = "alive"


class Told(NamedTuple):
    """An event of a publish: its number on the server, its name as in docs/events.md, its members. ALIVE, with number 0: there is
    none, and the publish goes on."""

    number: int
    name: str
    values: dict[str, Any]


class ServedStore:
    """A MaintainedStore at `http(s)://HOST/NAME`. spec.key_file: the client's key. UsageError, AuthError for a key that cannot be
    used, and for plain http to another machine without `insecure`. `patience_seconds` is a parameter for tests."""

    def __init__(self, spec: StoreSpec, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        self._client = SignedClient(
            spec.url,
            spec.key_file,
            insecure=spec.insecure,
            proxies=spec.proxies,
            connections=spec.transfers,
            answered=spec.answered,
            patience_seconds=patience_seconds,
        )
        self._reads, self._sends = Pace(), Pace()

    @property
    def url(self) -> str:
        return self._client.url

    def get(self, key: str, limit: int) -> bytes:
        return in_a_piece(partial(self._whole, key, limit), partial(self.size, key), partial(self._stretches, key, limit))

    def _whole(self, key: str, limit: int, resend: bool) -> bytes:
        """An object in one request."""
        try:
            answer = self._client.ask("GET", key, "cannot read", limit=max(limit, SMALL), resend=resend)
        except DamageError:
            size = self.size(key)
            raise too_large(self._client.where(key), size if size is not None else limit + 1, limit) from None
        if len(answer.body) > limit:
            raise too_large(self._client.where(key), len(answer.body), limit)
        return answer.body

    def get_ranges(self, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return [self._range(key, start, end) for start, end in ranges]

    def size(self, key: str) -> int | None:
        try:
            length = content_length(self._client.ask("HEAD", key, "cannot look at").headers)
        except NotFound:
            return None
        if length is None:
            raise self._client.odd("cannot look at", key)
        return length

    def list(self, prefix: str) -> Iterator[Stat]:
        after, more = "", True
        while more:
            query = f"-/list?prefix={prefix}&after={after}&limit={_PAGE}"
            page = self._client.told(self._client.ask("GET", query, "cannot list", limit=_PAGE_BYTES), "cannot list", prefix)
            try:
                found, more = [Stat(str(key), int(size)) for key, size in page["objects"]], page["more"] is True
            except (LookupError, TypeError, ValueError):
                raise self._client.odd("cannot list", prefix) from None
            if any(not (after < stat.key and stat.key.startswith(prefix)) for stat in found) or (more and not found):
                raise self._client.odd("cannot list", prefix)
            yield from found
            after = found[-1].key if found else after

    def create(self, key: str, data: Data) -> bool:
        return upload(_Sending(self._client, key, data), memoryview(data).nbytes, self._sends, self._client.where(key))

    def put_hint(self, key: str, data: Data) -> None:
        self._client.ask("PUT", key, _WRITE, body=data)

    def delete(self, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), _DELETE):
            body = json.dumps({"keys": list(keys[at : at + _DELETE])}).encode()
            self._client.ask("POST", "-/delete", "cannot delete", body=body, headers={"Content-Type": "application/json"})

    def sweep(self) -> int:
        what = "cannot clean up"
        found = self._client.told(self._client.ask("POST", "-/sweep", what, body=b""), what, "").get("removed")
        return found if type(found) is int else 0

    def free_bytes(self) -> tuple[int, int] | None:
        room = self._client.told(self._client.ask("GET", "-/free", "cannot look at"), "cannot look at", "")
        free, total = room.get("free"), room.get("total")
        return (free, total) if type(free) is int and type(total) is int else None

    # -- a tree, which is published there ----------------------------------------------------------------------------------

    def publish(self) -> bool:
        """Have what waits published, unless that is being done; False when the key has not the right to."""
        answer = self._client.ask("POST", "-/publish", "cannot publish", body=b"", accept=(200, 403))
        if answer.status == 403 and said(answer).get("kind") != "rights":
            raise self._client.refused(answer, "cannot publish")
        return answer.status == 200

    def follow(self, after: int) -> Iterator[Told]:
        """What is said of the publish behind number `after`, until it ends; nothing when there is none. Read as Server-Sent Events.
        TemporaryError when the stream breaks off."""
        what, path = "cannot follow the publish at", f"-/publish?after={after}"
        with self._client.stream(path, what, _STREAM_BYTES) as stream:
            yield from _events(stream.pieces)

    # -- parts of an object ------------------------------------------------------------------------------------------------

    def _range(self, key: str, start: int, end: int) -> bytes:
        if start >= end:
            size = self.size(key)
            if size is None:
                raise NotFound(key)
            if end > size:
                raise too_short(self._client.where(key), end, size)
            return b""
        return in_stretches(self._reads, start, end, partial(self._part, key)) or b""

    def _stretches(self, key: str, limit: int, size: int) -> bytes:
        """A whole object of this size, in parts."""
        if size > limit:
            raise too_large(self._client.where(key), size, limit)
        return self._range(key, 0, size)

    def _part(self, key: str, start: int, end: int, resend: bool) -> bytes:
        """A range in one request."""
        data, size = self._client.part(key, start, end, resend)
        if size < end:
            raise too_short(self._client.where(key), end, size)
        return data


def _events(pieces: Iterable[bytes]) -> Iterator[Told]:
    """The events of a stream; what is none is left out."""
    held = b""
    for piece in pieces:
        held += piece
        *blocks, held = held.split(b"\n\n")
        for block in blocks:
            if block == _GOES_ON:
                yield Told(0, ALIVE, {})
                continue
            fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if b": " in line)
            try:
                values = json.loads(fields.get(b"data", b""))
                number = int(fields.get(b"id", b""))
            except (ValueError, RecursionError):
                continue
            if isinstance(values, dict):
                yield Told(number, fields.get(b"event", b"").decode("ascii", "replace"), values)
        if len(held) > _EVENT_BYTES:
            return


class _Sending:
    """The requests about one object that is sent: a `Wire`."""

    def __init__(self, client: SignedClient, key: str, data: Data) -> None:
        self._client, self._key, self._data = client, key, memoryview(data).cast("B")

    def whole(self, resend: bool) -> bool:
        """See `Wire`."""
        asked = {"If-None-Match": "*"}
        answer = self._client.ask("PUT", self._key, _WRITE, body=self._data, headers=asked, accept=(201, 412), resend=resend)
        return answer.status == 201

    def have(self) -> Progress:
        """See `Wire`."""
        return self._progress(self._client.ask("GET", self._service, _WRITE))

    def add(self, start: int, end: int, resend: bool) -> Progress:
        """See `Wire`."""
        path, part = f"{self._service}&at={start}", self._data[start:end]
        answer = self._client.ask("PUT", path, _WRITE, body=part, accept=(201, 202, 409, 412), resend=resend)
        if answer.status == 409 and said(answer).get("kind") != "offset":
            raise self._client.refused(answer, _WRITE)
        if answer.status in (201, 412):
            return Progress(end, answer.status == 201)
        return self._progress(answer)

    @cached_property
    def _service(self) -> str:
        return f"-/part?key={self._key}&of={self._data.nbytes}&sha256={hashlib.sha256(self._data).hexdigest()}"

    def _progress(self, answer: Answer) -> Progress:
        """What an answer says of how far it has come."""
        found = said(answer)
        if found.get("result") == "already there":
            return Progress(self._data.nbytes, False)
        have = found.get("have")
        if type(have) is not int or not 0 <= have <= self._data.nbytes:
            raise self._client.odd(_WRITE, self._key)
        return Progress(have)
