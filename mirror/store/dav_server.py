"""The requests of WebDAV (RFC 4918) to all below one URL, and what their answers mean. Owns no rule of a store.

Paths are relative to the URL and as they are, not quoted; a folder's ends in `/`. What a server holds for somebody else's lock
(423; the WebDAV library of Go, which rclone and SeaweedFS use, locks each name for as long as a request about it takes) is asked
for again for some seconds. All else that passes is asked for again by `mirror.webclient`.

What servers do differently, as measured: docs/adr/0008-who-creates-an-object-on-webdav.md.
"""

from __future__ import annotations

import base64
import random
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import partial
from urllib.parse import quote, urlsplit

from mirror.errors import AuthError, DamageError, MirrorError, NotFound, TargetMissingError
from mirror.store import Data
from mirror.store.bounds import too_large
from mirror.store.dav_listing import BYTES_MAX, WANTED, Listed, autoindex, multistatus, no_listing, responses
from mirror.webclient import Answer, Payload, Sign
from mirror.webclient.address import base_url
from mirror.webclient.answers import error_for
from mirror.webclient.client import DIRECT, WebClient
from mirror.webclient.pace import Pace, in_a_piece, in_stretches
from mirror.webclient.parts import asked_part, content_length
from mirror.webclient.proxies import Proxies

LOCK_SECONDS = 20.0
_WHOLE_MAX = 1 << 27  # where a part was asked for: twice a pack
_INDEX_MAX = 1 << 27  # nginx's listing in JSON, which is read as one
_DONE = (200, 201, 204)
_NO_PROPFIND = (405, 501)
_ASKING = {"Content-Type": "application/xml; charset=utf-8"}


class Moved(Enum):
    """What became of a MOVE. UNCLEAR: nothing of that kind, there may be no folder to move it to, or no right."""

    DONE = "done"
    TAKEN = "something has that name"
    GONE = "there is nothing to be moved"
    UNCLEAR = "unclear"


class Made(Enum):
    """What became of a MKCOL. ORPHAN: there is no folder to make it in."""

    MADE = "made"
    THERE = "there already"
    ORPHAN = "orphan"


class DavServer:
    """All below one URL of a WebDAV server. url: http(s)://HOST/PATH; login: name and password, empty to say none; insecure: plain
    http to another machine is accepted; proxies, answered: see `WebClient`. called: what the server calls itself, known behind the
    first `make`. Any thread may use it."""

    def __init__(
        self,
        url: str,
        login: tuple[str, str] = ("", ""),
        *,
        insecure: bool = False,
        proxies: Proxies = DIRECT,
        connections: int = 8,
        answered: bool = False,
        lock_seconds: float = LOCK_SECONDS,
    ) -> None:
        self._web = base_url(url)
        parts = urlsplit(self._web)
        # From the host's root on: a folder's own URL ends in a slash, which the client's would not.
        root = f"{parts.scheme}://{parts.netloc}"
        self._client = WebClient(
            root, sign=_basic(*login), insecure=insecure, proxies=proxies, connections=connections, answered=answered
        )
        self._pace = Pace()
        self._folder = f"{parts.path}/".lstrip("/")
        self._lock_seconds = lock_seconds
        # These only ever change once, so threads may race.
        self._lists, self._short_destination = True, False
        self._known: set[str] = set()
        self.called = ""

    @property
    def url(self) -> str:
        """As people name it: `dav+https://HOST/PATH`."""
        return f"dav+{self._web}"

    def where(self, path: str) -> str:
        """The URL of a path, as people name it."""
        return f"{self.url}/{quote(path)}".rstrip("/")

    # -- reading

    def get(self, path: str, limit: int) -> bytes:
        """The whole file. NotFound; DamageError when it is larger than `limit` bytes."""
        return in_a_piece(partial(self._whole, path, limit), partial(self.size, path), partial(self._stretches, path, limit))

    def _whole(self, path: str, limit: int, resend: bool) -> bytes:
        try:
            return self._ask("GET", path, what="cannot read", limit=limit, resend=resend).body
        except DamageError:
            size = self.size(path)
            if size is None or size <= limit:
                raise
            raise too_large(self.where(path), size, limit) from None

    def _stretches(self, path: str, limit: int, size: int) -> bytes:
        if size > limit:
            raise too_large(self.where(path), size, limit)
        return self.get_range(path, 0, size)

    def get_range(self, path: str, start: int, end: int) -> bytes:
        """The bytes [start, end), fewer where the file ends before. NotFound."""
        whole: list[bytes] = []

        def ask(start: int, end: int, resend: bool) -> bytes | None:
            asked = asked_part(start, end)
            answer = self._ask(
                "GET", path, what="cannot read", limit=_WHOLE_MAX, headers=asked, accept=(200, 206, 416), resend=resend
            )
            if answer.status == 200:  # all of it: an empty file, of which no part can be named, or a server without parts
                whole.append(answer.body)
                return None
            return answer.body[: end - start] if answer.status == 206 else b""

        part = in_stretches(self._pace, start, end, ask)
        return whole[0][start:end] if part is None else part

    def size(self, path: str) -> int | None:
        """The file's size in bytes, None when there is none."""
        answer = self._ask("HEAD", path, what="cannot look at", accept=(200, 404, 405, 410))
        if answer.status != 200:
            return None
        length = content_length(answer.headers)
        if length is None:  # Apache says it of no empty file
            try:
                length = self._told(path).get("getcontentlength")
            except NotFound:
                return None
        if length is None:
            why = "the server does not say how large it is"
            raise MirrorError("cannot look at", where=self.where(path), why=why, hint="is there a proxy that changes answers?")
        return length

    def list(self, folder: str) -> Iterator[Listed]:
        """What is in a folder. NotFound; DamageError for an answer that is no listing."""
        where = self.where(folder)
        if self._lists:
            with (
                self._named(folder),
                self._client.stream(
                    "PROPFIND", self._path(folder), what="cannot list", limit=BYTES_MAX,
                    headers=_ASKING | {"Depth": "1"}, body=WANTED, accept=(207, *_NO_PROPFIND),
                ) as answer,
            ):  # fmt: skip
                if answer.status == 207:
                    yield from multistatus(answer.pieces, f"/{self._path(folder)}", where)
                    return
        index = self._ask("GET", folder, what="cannot list", limit=_INDEX_MAX, accept=(200, 403, 405))
        if index.status != 200 or not index.headers.get("content-type", "").startswith("application/json"):
            raise no_listing(where)
        self._lists = False
        yield from autoindex(index.body, where)

    def room(self) -> tuple[int, int] | None:
        """(free, total) bytes, where the server tells a quota."""
        try:
            told = self._told("")
        except NotFound:
            return None
        free = told.get("quota-available-bytes")
        return None if free is None else (free, free + told.get("quota-used-bytes", 0))

    def _told(self, path: str) -> dict[str, int]:
        """The numbers that the server knows of one file or folder, none where it knows no PROPFIND. NotFound."""
        asked = _ASKING | {"Depth": "0"}
        answer = self._ask("PROPFIND", path, what="cannot look at", headers=asked, body=WANTED, accept=(207, *_NO_PROPFIND))
        found = responses([answer.body], self.where(path)) if answer.status == 207 else iter(())
        return next((told.numbers for told in found), {})

    # -- writing

    def put(self, path: str, data: Data, headers: Mapping[str, str] | None = None) -> int:
        """Write the file, over what was there, whole or not as the server does it. The status: 412 for a refused condition; 405
        where it will not, which the library of Go says of a full disk, too; else it is written."""
        kind = {"Content-Type": "application/octet-stream", **(headers or {})}
        accept = (*_DONE, 405, 412)
        answer = self._ask("PUT", path, what="cannot write", headers=kind, body=data, accept=(*accept, 409))
        if answer.status == 409:  # somebody has removed the folder
            self.forget_folders()
            self.make_folders(path)
            answer = self._ask("PUT", path, what="cannot write", headers=kind, body=data, accept=accept)
        return answer.status

    def move(self, path: str, to: str, *, overwrite: bool) -> Moved:
        """Give a file another name. overwrite: also where something has that name; else the server is asked not to."""
        asked = {"Overwrite": "T" if overwrite else "F"}
        longer, shorter = (asked | {"Destination": place} for place in (f"{self._web}/{quote(to)}", f"/{self._path(to)}"))
        accept = (*_DONE, 403, 404, 409, 410, 412)
        if not self._short_destination:
            answer = self._ask("MOVE", path, what="cannot write", headers=longer, accept=(*accept, 400, 502))
            if answer.status not in (400, 502):
                return _moved(answer.status)
        # Behind a proxy the server does not know itself by the name that we have for it. RFC 4918 allows a path alone.
        answer = self._ask("MOVE", path, what="cannot write", headers=shorter, accept=(*accept, 400))
        if answer.status != 400:
            self._short_destination = True
            return _moved(answer.status)
        # Apache does not. So the 502 was of a proxy that had lost it for a moment, or it means what it says.
        try:
            return _moved(self._ask("MOVE", path, what="cannot write", headers=longer, accept=accept).status)
        except MirrorError as error:
            error.hint = "is a proxy in front of it? Apache: RequestHeader edit Destination ^https: http: early"
            raise

    def make(self, folder: str) -> Made:
        """Make a folder, if there is one to make it in."""
        answer = self._ask("MKCOL", folder, what="cannot make", accept=(201, 403, 405, 409))
        if answer.status == 403:
            # Apache says that to the loser of a race, and 405 from then on; all say it where nobody may write.
            answer = self._ask("MKCOL", folder, what="cannot make", accept=(201, 405, 409))
        self.called = answer.headers.get("server", "")
        return {201: Made.MADE, 405: Made.THERE, 409: Made.ORPHAN}[answer.status]

    def make_folders(self, path: str) -> None:
        """Make the folders that a path is in, as far as they are missing, from the URL's own on but nothing above that."""
        folder = path[: path.rstrip("/").rfind("/") + 1]
        if folder in self._known:
            return
        if self.make(folder) is Made.ORPHAN:
            if not folder:
                why = "there is no folder to make it in"
                raise TargetMissingError("cannot use", where=self.url, why=why, hint="check the URL, or make that folder first")
            self.make_folders(folder)
            self.make(folder)
        self._known.add(folder)

    def forget_folders(self) -> None:
        """Somebody else may have removed folders: look again."""
        self._known.clear()

    def remove(self, path: str) -> None:
        """Remove a file, or a folder with all in it; none is no error."""
        self._ask("DELETE", path, what="cannot delete", headers={"Depth": "infinity"}, accept=(*_DONE, 404, 410))

    def _ask(
        self,
        method: str,
        path: str,
        *,
        what: str,
        accept: Collection[int] = (200,),
        limit: int = 1 << 20,
        headers: Mapping[str, str] | None = None,
        body: Data | None = None,
        resend: bool = True,
    ) -> Answer:
        give_up, pause = time.monotonic() + self._lock_seconds, 0.02
        while True:
            with self._named(path):
                answer = self._client.request(
                    method,
                    self._path(path),
                    what=what,
                    limit=limit,
                    headers=headers,
                    body=body,
                    accept=(*accept, 423),
                    resend=resend,
                )
            if answer.status != 423:
                return answer
            if time.monotonic() + pause > give_up:
                raise error_for(423, answer.headers, answer.body, what, self.where(path))
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(pause * 2, 1.0)

    def _path(self, path: str) -> str:
        return self._folder + quote(path)

    @contextmanager
    def _named(self, path: str) -> Iterator[None]:
        """The client's errors, about the place that was asked for."""
        try:
            yield
        except MirrorError as error:
            error.where = self.where(path)
            if isinstance(error, AuthError) and error.kind != "proxy":
                error.hint = "check MIRROR_DAV_USER and MIRROR_DAV_PASSWORD (or ~/.netrc), and what that user may do there"
            raise


def server_name(called: str) -> str:
    """A server's word for itself, as part of a file's name.

    >>> server_name("nginx/1.22.1"), server_name("Apache/2.4 (Debian)"), server_name("")
    ('nginx-1.22.1', 'apache-2.4-debian', 'unnamed')
    """
    return re.sub(r"[^a-z0-9.]+", "-", called.lower()).strip("-.")[:60] or "unnamed"


def _moved(status: int) -> Moved:
    if status in _DONE:
        return Moved.DONE
    return {412: Moved.TAKEN, 404: Moved.GONE, 410: Moved.GONE}.get(status, Moved.UNCLEAR)


def _basic(user: str, password: str) -> Sign:
    """What is said of us with each request, be it nothing: who signs follows no redirect, not even when reading. Else a run would
    read from one server and be told by another that it must not write."""
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    header = {"Authorization": f"Basic {login}"} if user or password else {}

    def sign(method: str, url: str, headers: Mapping[str, str], body: Payload | None) -> Mapping[str, str]:
        return header

    return sign
