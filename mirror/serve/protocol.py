"""Requests to answers: who asks, what of, within which limits. docs/http.md says what there is to ask for.

Every answer to a request whose signature fits is signed with the same key, refusals too. A body goes from the connection to a
temporary file piece by piece, a large object from the file to the connection likewise: a client costs one piece of memory, whatever
it sends or asks for. What blocks (files, digests, checks) runs in threads; what counts (nonces, limits, what is said) is touched by
the event loop alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mirror.access import APPEND, PUBLISH, READ, ClientKey, GrantedKey, KeyFile
from mirror.errors import MirrorError, NotFound
from mirror.keys import LATEST_KEY, MIRROR_KEY, record_number
from mirror.log import IMPORT
from mirror.serve.complaints import Complaints
from mirror.serve.examine import Hash, Rejected
from mirror.serve.holding import Held, Holding, Imported, NotHeld
from mirror.serve.listening import cut_off
from mirror.serve.parts import Misplaced, Whole
from mirror.serve.publications import Terms
from mirror.serve.ranges import stretch
from mirror.serve.refusals import Refusal, as_json, problem, refusal
from mirror.serve.trees import Trees
from mirror.signing import DIGESTED, Nonces, Unsigned, check_request, digest_in, digest_of_body, sign_answer
from mirror.store.fs import Draft

PIECE: Final = 256 << 10
PAGE_MOST: Final = 10_000  # keys of a page of a listing
DELETE_MOST: Final = 1000
ASKED_MOST: Final = 1 << 20  # bytes of a JSON body
_LEFT_OVER: Final = 128 << 20  # bytes of a refused body that are read and thrown away, so that the answer arrives
_SLOWEST: Final = 8 << 10  # bytes a second that a body must come with, on the whole
_TARGET: Final = re.compile(r"/([A-Za-z0-9][A-Za-z0-9._-]{0,99})(?:/([A-Za-z0-9._/-]{0,300}))?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_OBJECT_METHODS: Final = ("GET", "HEAD", "PUT")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Limits:
    """body: bytes of an object; uploads: bodies that arrive at once; checks: objects that are examined at once; seconds: how long a
    client may be silent within a request or an answer; floor: bytes that must stay free on the disk, of which a share in
    percent."""

    body: int = 128 << 20
    uploads: int = 32
    checks: int = 4
    seconds: float = 30.0
    floor: int = 256 << 20
    floor_percent: float = 0.0


@dataclass(slots=True)
class _Ask:
    """One request. target: path and query as they were sent; key: whose it is, once that is known; left: bytes of its body that
    were not taken."""

    request: Request
    target: str
    headers: dict[str, str]
    key: GrantedKey | None = None
    held: Held | None = None
    name: str = ""
    path: str = ""
    left: int = 0
    digest: bytes | None = None
    rights: frozenset[str] = field(default_factory=frozenset)

    @property
    def method(self) -> str:
        return str(self.request.method)


class Protocol:
    """An ASGI application. say: told (kind, text) of refusals and of new records, in the thread of the event loop."""

    def __init__(
        self, holding: Holding, keys: KeyFile, limits: Limits, say: Callable[[str, str], None], publishing: Terms | None = None
    ) -> None:
        self._holding, self._keys, self._limits, self._say = holding, keys, limits, say
        self._trees = Trees(publishing or Terms((), {}), say, self._in_thread)
        self._complaints = Complaints(lambda text: say("refused", text))
        self._nonces = Nonces()
        self._threads = ThreadPoolExecutor(16, thread_name_prefix="files")
        # Apart, and few: each thread that unpacks blocks keeps memory for it, some 5 MB.
        self._checks = ThreadPoolExecutor(limits.checks, thread_name_prefix="checks")
        self._uploads = 0
        self.answers = self.refusals = self.imported = 0

    def begin(self, begun: Callable[[], None]) -> None:
        """In the event loop, when the first are let in: publishes that a server before this one left open go on."""
        begun()
        self._trees.begin(self._holding)

    async def end(self) -> None:
        """In the event loop, before it ends: nothing is published any more."""
        await self._trees.end()

    def close(self) -> None:
        """Wait for what is being done, and say what is still to be said."""
        self._threads.shutdown()
        self._checks.shutdown()
        self._complaints.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        seconds = self._limits.seconds

        async def patient_send(message: Any) -> None:
            await asyncio.wait_for(send(message), seconds)  # who does not read his answer is cut off

        async def patient_receive() -> Any:
            return await asyncio.wait_for(receive(), seconds)

        raw = bytes(scope.get("raw_path", b"")) + (b"?" + scope["query_string"] if scope["query_string"] else b"")
        headers: dict[str, str] = {}
        for name, value in scope["headers"]:
            headers[name.decode("latin-1")] = _joined(headers.get(name.decode("latin-1")), value.decode("latin-1"))
        ask = _Ask(Request(scope, patient_receive), raw.decode("latin-1"), headers)
        response = await self._answer(ask)
        await self._swallow(ask, response)
        try:
            await response(scope, patient_receive, patient_send)
        except (TimeoutError, NotFound, MirrorError):  # too slow a reader; or the object went away within the answer
            cut_off(scope)

    async def _answer(self, ask: _Ask) -> Response:
        """The signed answer to a request; a refusal is one."""
        self.answers += 1
        try:
            try:
                response = await self._do(ask)
            except (Unsigned, Rejected, NotHeld, Misplaced, MirrorError, NotFound, TimeoutError) as error:
                raise refusal(error) from None
        except Refusal as refused:
            if refused.kind != "no-object":  # a question like any other
                self._tell(ask, refused)
            response = problem(refused)
        except ClientDisconnect:
            response = Response(status_code=400)  # nobody will read it
        except Exception as error:  # noqa: BLE001 - one request's failure is one request's failure
            self._say("failed", f"{_shown(ask.method)} {_shown(ask.target)}: {type(error).__name__}: {_shown(str(error))}")
            response = problem(Refusal(500, "error", "this should not have happened; the log of the server says more"))
        if ask.key:
            _sign(ask, response)
        return response

    def _tell(self, ask: _Ask, refused: Refusal) -> None:
        self.refusals += 1
        who = ask.request.client.host if ask.request.client else "?"
        key = ask.key.name if ask.key else ""
        text = f"{who}{key and f' as {key}'}: {_shown(ask.method)} {_shown(ask.target)}: {refused.why} ({refused.kind})"
        self._complaints.tell(who, f"{key} {refused.kind}", text)

    # -- who, and what of ------------------------------------------------------------------------------------------------

    async def _do(self, ask: _Ask) -> Response:
        self._identify(ask)
        match = _TARGET.fullmatch(ask.target.partition("?")[0])
        if not match:
            raise Refusal(404, "no-target", "there is nothing of that name: it is /NAME/KEY, and nothing in it is quoted with %")
        ask.name, ask.path = match[1], match[2] or ""
        ask.held = await self._in_thread(self._holding.find, ask.name)
        if ask.held is None:
            why = f"there is no target {ask.name} here; it is made on that machine: mirror init ROOT/{ask.name}"
            raise Refusal(404, "no-target", why)
        if ask.path.startswith("-/"):
            return await self._service(ask, ask.held)
        if ask.target.partition("?")[1]:
            raise Refusal(400, "bad-request", "an object is asked for without a query")
        if ask.method not in _OBJECT_METHODS:
            raise Refusal(405, "method", f"an object takes {', '.join(_OBJECT_METHODS)}")
        if not ask.path:
            return as_json({"name": ask.name}) if ask.method != "PUT" else problem(Refusal(405, "method", "that is no object"))
        if ask.method == "PUT":
            return await self._put(ask, ask.held)
        return await self._get(ask, ask.held)

    def _identify(self, ask: _Ask) -> None:
        """Whose request it is. Unsigned, Refusal."""
        headers = ask.headers
        if "transfer-encoding" in headers:
            raise Refusal(411, "length", "a body must say its length", close=True)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 15:
            raise Refusal(400, "bad-request", "its Content-Length is none", close=True)
        ask.left = int(length)
        if ask.left and "content-digest" not in headers and "signature" in headers:
            raise Unsigned("not-signed", "it has a body and no Content-Digest")
        try:
            keys = self._keys.keys()
        except MirrorError as error:  # no fault of who asks
            raise Refusal(500, "auth", f"the server cannot use its file of keys: {error.why}") from None
        found: ClientKey = check_request(
            lambda name: keys[name].key if name in keys else None, self._nonces, ask.method, ask.target, headers
        )
        ask.key = keys[found.name]
        ask.rights = frozenset(ask.key.rights)
        if "content-digest" in headers:
            ask.digest = digest_in(headers["content-digest"])
            if ask.digest is None:
                raise Refusal(400, "bad-request", "its Content-Digest is no sha-256")
        needed = READ if ask.method in ("GET", "HEAD") else ""
        if needed and needed not in ask.rights:
            raise Refusal(403, "rights", f"the key {ask.key.name} has not the right {needed}")

    # -- objects -----------------------------------------------------------------------------------------------------------

    async def _get(self, ask: _Ask, held: Held) -> Response:
        key = ask.path
        size = await self._in_thread(held.store.size, key) if held.knows(key) else None
        if size is None:
            raise NotFound(key)
        headers = {"accept-ranges": "bytes", "content-type": _media_type(key), "cache-control": "private, no-transform"}
        if key in (LATEST_KEY, MIRROR_KEY) or record_number(key) is not None:
            data = await self._in_thread(held.store.get, key, 1 << 20)
            size, headers["etag"] = len(data), f'"{hashlib.sha256(data).hexdigest()[:32]}"'
        else:
            headers["etag"] = f'"{key.rpartition("/")[2]}"'
        if headers["etag"] in [each.strip() for each in ask.headers.get("if-none-match", "").split(",")]:
            return Response(status_code=304, headers=headers)
        start, end, status = stretch(ask.headers.get("range", ""), size)
        if status == 416:
            return Response(status_code=416, headers=headers | {"content-range": f"bytes */{size}"})
        if status == 206:
            headers["content-range"] = f"bytes {start}-{end - 1}/{size}"
        headers["content-length"] = str(end - start)
        if ask.method == "HEAD":
            return Response(status_code=status, headers=headers)
        if end - start <= DIGESTED:
            body = (await self._in_thread(held.store.get_ranges, key, [(start, end)]))[0]
            return Response(body, status, headers)
        return StreamingResponse(self._pieces(held, key, start, end), status, headers)

    async def _pieces(self, held: Held, key: str, start: int, end: int) -> AsyncIterator[bytes]:
        for at in range(start, end, PIECE):
            yield (await self._in_thread(held.store.get_ranges, key, [(at, min(end, at + PIECE))]))[0]

    async def _put(self, ask: _Ask, held: Held) -> Response:
        key, condition = ask.path, ask.headers.get("if-none-match")
        most = min(held.may_come(key, ask.rights), self._limits.body)
        if condition != "*" and not (condition is None and key == LATEST_KEY):
            raise Refusal(428, "condition", "objects are created, never overwritten: say If-None-Match: *")
        if "content-length" not in ask.headers or ask.digest is None:
            raise Refusal(411, "length", "an object comes with Content-Length and Content-Digest")
        if ask.left > most:
            raise Refusal(413, "too-large", f"it has {ask.left:,} bytes, at most {most:,} are taken", close=ask.left > _LEFT_OVER)
        if condition is None:
            data = await self._whole(ask)
            await self._in_thread(held.hint, key, data)
            return as_json({"result": "imported"}, 200)
        if await self._in_thread(held.store.size, key) is not None:
            return as_json({"result": "already there"}, 412)
        async with self._arrival(held, ask.left):
            return await self._import(ask, held, key)

    async def _import(self, ask: _Ask, held: Held, key: str) -> Response:
        """The body into a draft, the draft through the gate."""
        async with AsyncExitStack() as stack:
            draft, name = await self._arrived(ask, held, stack)
            return self._told(ask, await self._check(held.receive, key, draft, name, ask.rights))

    async def _arrived(self, ask: _Ask, held: Held, stack: AsyncExitStack) -> tuple[Draft, Hash]:
        """The body in a temporary file, which goes with the stack, and its hash. Refusal unless it is what was signed."""
        draft = await self._in_thread(_entered, stack, held.store.draft())
        name, sha256, length = Hash(), hashlib.sha256(), ask.left

        def take(piece: bytes) -> None:
            draft.write(piece)
            name.update(piece)
            sha256.update(piece)

        try:  # not to be taken for an error of the draft: a TimeoutError is an OSError
            async with asyncio.timeout(60 + length / _SLOWEST):
                async for piece in self._body(ask):
                    await self._in_thread(take, piece)
        except TimeoutError as error:
            raise refusal(error) from None
        if draft.size != length or sha256.digest() != ask.digest:
            raise Refusal(400, "altered", "the body is not what its Content-Digest says")
        return draft, name

    def _told(self, ask: _Ask, done: Imported) -> Response:
        """The answer for an object that has come."""
        self.imported += done.made
        if done.made and done.record and ask.key:
            self._say("appended", f"{ask.name}: record {done.record[0]} ({done.record[1]}) by the key {ask.key.name}")
            if ask.held and ask.held.tree and PUBLISH in ask.rights and done.record[1] == IMPORT:
                self._trees.publish(ask.held)
        return as_json({"result": "imported" if done.made else "already there"}, 201 if done.made else 412)

    # -- parts of objects: `mirror.serve.parts` ------------------------------------------------------------------------------

    async def _part(self, ask: _Ask, held: Held) -> Response:
        """How much of an object is there, or a part of it."""
        if ask.method not in ("GET", "HEAD", "PUT"):
            raise Refusal(405, "method", "it takes GET, HEAD, PUT")
        assert ask.key
        whole = _whole_of(ask.request.query_params, ask.key.name)
        if ask.method != "PUT":
            there = await self._in_thread(held.store.size, whole.key) if held.knows(whole.key) else None
            if there is not None:
                return as_json({"result": "already there", "have": there})
            return as_json({"result": "partly there", "have": await self._in_thread(held.parts.have, whole)})
        at = _number(ask.request.query_params.get("at", ""), "at")
        most = min(held.may_come(whole.key, ask.rights), self._limits.body)
        if whole.key == LATEST_KEY:
            raise Refusal(400, "bad-request", "the hint is replaced in a piece")
        if "content-length" not in ask.headers or ask.digest is None:
            raise Refusal(411, "length", "a part comes with Content-Length and Content-Digest")
        if whole.size > most:
            raise Refusal(413, "too-large", f"it has {whole.size:,} bytes, at most {most:,} are taken", close=ask.left > _LEFT_OVER)
        if at + ask.left > whole.size or (ask.left == 0 and at < whole.size):
            raise Refusal(400, "bad-request", "a part has a byte at least, and ends within the object", close=ask.left > _LEFT_OVER)
        if await self._in_thread(held.store.size, whole.key) is not None:
            return as_json({"result": "already there"}, 412)
        have = await self._in_thread(held.parts.have, whole)
        if at != have:
            raise Misplaced(at, have)
        async with self._arrival(held, whole.size - at + ask.left):
            return await self._add(ask, held, whole, at)

    async def _add(self, ask: _Ask, held: Held, whole: Whole, at: int) -> Response:
        """The body into a draft, and what is in that behind the parts before it."""
        if at == 0:
            await self._in_thread(held.parts.make_room, whole, self._limits.uploads)
        async with AsyncExitStack() as stack:
            add = self._check if at + ask.left == whole.size else self._in_thread
            draft, _ = await self._arrived(ask, held, stack)
            done = await add(held.receive_part, whole, at, draft, ask.rights)
        return self._told(ask, done) if isinstance(done, Imported) else as_json({"result": "partly there", "have": done}, 202)

    @asynccontextmanager
    async def _arrival(self, held: Held, size: int) -> AsyncIterator[None]:
        """While something of so many bytes arrives. Refusal when there is no room for it, or too many do."""
        await self._check_room(held, size)
        if self._uploads >= self._limits.uploads:
            raise Refusal(503, "busy", f"{self._uploads} objects are arriving", wait=1)
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1

    async def _check_room(self, held: Held, more: int) -> None:
        room = await self._in_thread(held.store.free_bytes)
        floor = max(self._limits.floor, int(room[1] * self._limits.floor_percent / 100)) if room else 0
        if room and room[0] - more < floor:
            raise Refusal(507, "disk-full", f"{room[0]:,} bytes are free, and {floor:,} are to stay so")

    # -- what is no object ---------------------------------------------------------------------------------------------------

    async def _service(self, ask: _Ask, held: Held) -> Response:
        what, query = ask.path.removeprefix("-/"), ask.request.query_params
        if what == "part":
            return await self._part(ask, held)
        services = {"list": "GET", "free": "GET", "sweep": "POST", "delete": "POST", "live": "GET", "publish": "POST"}
        if what not in services or (what in ("live", "publish") and not held.tree):
            raise Refusal(404, "no-object", "there is no such service")
        if what == "publish" and ask.method == "GET":
            return self._trees.follow(held, query.get("after", "0"), ask.key.name if ask.key else "")
        if ask.method != services[what] and (ask.method, services[what]) != ("HEAD", "GET"):
            raise Refusal(405, "method", f"it takes {services[what]}")
        if what == "publish":
            await self._whole(ask)
            return await self._trees.asked(held, ask.rights)
        if what == "live":
            return await self._trees.live(held, query.get("path", ""), ask.headers.get("range", ""), body=ask.method == "GET")
        if what == "list":
            return await self._list(held, query.get("prefix", ""), query.get("after", ""), query.get("limit", "1000"))
        if what == "free":
            room = await self._in_thread(held.store.free_bytes)
            return as_json({"free": room[0], "total": room[1]} if room else {})
        if what == "sweep":
            if APPEND not in ask.rights:
                raise Rejected("the key has not the right append", "rights")
            await self._whole(ask)
            return as_json({"removed": await self._in_thread(held.store.sweep)})
        keys = _keys_in(await self._whole(ask))
        await self._in_thread(held.delete, keys, ask.rights)
        return as_json({"deleted": len(keys)})

    async def _list(self, held: Held, prefix: str, after: str, limit: str) -> Response:
        if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:6]) <= PAGE_MOST):
            raise Refusal(400, "bad-request", f"a page has from 1 to {PAGE_MOST:,} objects")
        if prefix and not prefix.endswith("/"):
            raise Refusal(400, "bad-request", "a prefix ends in /")
        page, more = await self._in_thread(held.page, prefix, after, int(limit))
        return as_json({"objects": [list(stat) for stat in page], "more": more})

    # -- bodies ----------------------------------------------------------------------------------------------------------------

    async def _body(self, ask: _Ask) -> AsyncIterator[bytes]:
        """The body in pieces of about PIECE bytes."""
        held = bytearray()
        async for data in ask.request.stream():
            ask.left -= len(data)
            held += data
            if len(held) >= PIECE:
                yield bytes(held)
                held.clear()
        if held:
            yield bytes(held)

    async def _whole(self, ask: _Ask) -> bytes:
        """A small body. Refusal when it is large, or not what was signed."""
        if ask.left > ASKED_MOST:
            raise Refusal(413, "too-large", f"it has {ask.left:,} bytes, at most {ASKED_MOST:,} are taken", close=True)
        async with asyncio.timeout(self._limits.seconds):
            data = b"".join([piece async for piece in self._body(ask)])
        if data and hashlib.sha256(data).digest() != ask.digest:
            raise Refusal(400, "altered", "the body is not what its Content-Digest says")
        return data

    async def _swallow(self, ask: _Ask, response: Response) -> None:
        """Read what is left of a body that was refused: whoever still sends would not see the answer."""
        if not ask.left or "connection" in response.headers:
            return
        if ask.left > (_LEFT_OVER if ask.key else ASKED_MOST):
            response.headers["connection"] = "close"
            return
        try:
            async with asyncio.timeout(60 + ask.left / _SLOWEST):
                async for _ in self._body(ask):
                    pass
        except (TimeoutError, ClientDisconnect, RuntimeError):
            response.headers["connection"] = "close"

    async def _check(self, function: Callable[..., T], *arguments: Any) -> T:
        """The same in one of the few threads that examine objects."""
        return await asyncio.get_running_loop().run_in_executor(self._checks, function, *arguments)

    async def _in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)


def _entered(stack: AsyncExitStack, context: Any) -> Any:
    """Enter a context in this thread, to be left with the stack."""
    return stack.enter_context(context)


def _sign(ask: _Ask, response: Response) -> None:
    assert ask.key
    headers = {name.lower(): value for name, value in response.headers.items()}
    body = getattr(response, "body", b"")
    if body and not isinstance(response, StreamingResponse):
        headers["content-digest"] = digest_of_body(body)
    sign_answer(ask.key.key, response.status_code, headers, ask.headers)
    for name in ("content-digest", "signature", "signature-input"):
        if name in headers:
            response.headers[name] = headers[name]


def _whole_of(query: Mapping[str, str], client: str) -> Whole:
    """Which object parts of it are meant by. Refusal."""
    digest = query.get("sha256", "")
    if not _SHA256.fullmatch(digest):
        raise Refusal(400, "bad-request", "sha256 is that of the whole object, 64 hexadecimal digits")
    return Whole(client, query.get("key", ""), _number(query.get("of", ""), "of"), bytes.fromhex(digest))


def _number(text: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 15):
        raise Refusal(400, "bad-request", f"{name} is a number of bytes")
    return int(text)


def _keys_in(body: bytes) -> list[str]:
    try:
        keys = json.loads(body)["keys"]
    except (ValueError, LookupError, TypeError, RecursionError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(keys) > DELETE_MOST:
        raise Refusal(400, "bad-request", f'it takes {{"keys": [...]}}, at most {DELETE_MOST:,} of them')
    return keys


def _media_type(key: str) -> str:
    return "application/json" if key.endswith(".json") else "application/octet-stream"


def _joined(before: str | None, value: str) -> str:
    return value if before is None else f"{before}, {value}"


def _shown(text: str) -> str:
    return "".join(each if each.isascii() and each.isprintable() else "?" for each in text)[:200]
