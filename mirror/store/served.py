"""A store that a `mirror serve` holds on another machine: objects over HTTP, every request and every answer signed.

The key comes from a file that the spec names, never from the URL. What an answer says counts only if it is signed with the same key
and for this very request; a refusal of somebody else is told in his words, and is no answer. Patience and time-outs are those of
`mirror.webclient`. docs/http.md is the protocol.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from mirror.access import read_client_key
from mirror.errors import AuthError, DamageError, MirrorError, NotFound, TargetMissingError, TemporaryError, UsageError
from mirror.signing import Unsigned, check_answer, digest_of_body, sign_request
from mirror.store import Data, Stat, StoreSpec
from mirror.store.bounds import too_large, too_short
from mirror.webclient import Answer, Payload
from mirror.webclient.address import base_url, shown_url
from mirror.webclient.client import PATIENCE_SECONDS, WebClient
from mirror.webclient.parts import asked_part, content_length, content_range

_PAGE: Final = 5000
_PAGE_BYTES: Final = 4 << 20
_DELETE: Final = 1000
PACK_MOST: Final = 128 << 20  # bytes of the largest object
_LEAST_STRETCH: Final = 1 << 20  # bytes of a range for which there is patience
_SMALL: Final = 64 << 10  # bytes that any answer may have, as a refusal has some
_PASSING: Final = ("not-signed", "altered")  # may be a link that breaks
_PAUSES: Final = (0.2, 0.5, 1.0, 0.0)  # seconds before an answer that is not believed is asked for again
_TARGET: Final = re.compile(r"/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HINTS: Final = {
    "unknown-key": "ask for a key there: mirror key new NAME --rights read,append --keys FILE",
    "wrong-secret": "the key was made anew, or this is the key of another server: ask for it there",
    "clock": "see which of the two is wrong (date -u), and set that one, best by NTP",
    "rights": "ask there for a key with that right",
    "replayed": "something on the way sends requests twice",
}


class ServedStore:
    """A MaintainedStore at `http(s)://HOST/NAME`. spec.key_file: the client's key. UsageError, AuthError for a key that cannot be
    used, and for plain http to another machine without `insecure`. `patience_seconds` is a parameter for tests."""

    def __init__(self, spec: StoreSpec, *, patience_seconds: float = PATIENCE_SECONDS) -> None:
        if not _TARGET.fullmatch(urlsplit(base_url(spec.url)).path):
            hint = "write https://HOST/NAME; what lies behind a plain web server is read without a key (MIRROR_KEY_FILE)"
            raise UsageError(
                "cannot use", where=shown_url(spec.url), why="it is not the URL of a target of a `mirror serve`", hint=hint
            )
        self._key = read_client_key(spec.key_file)
        self._client = WebClient(
            spec.url,
            sign=self._sign,
            insecure=spec.insecure,
            proxies=spec.proxies,
            connections=spec.transfers,
            answered=spec.answered,
            patience_seconds=patience_seconds,
        )
        self._seen = False  # only ever goes from False to True: the server knows this target

    @property
    def url(self) -> str:
        return self._client.url

    def get(self, key: str, limit: int) -> bytes:
        what = "cannot read"
        try:
            answer = self._ask("GET", key, what, limit=max(limit, _SMALL))
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
            length = content_length(self._ask("HEAD", key, "cannot look at").headers)
        except NotFound:
            return None
        if length is None:
            raise self._odd("cannot look at", key)
        return length

    def list(self, prefix: str) -> Iterator[Stat]:
        after, more = "", True
        while more:
            query = f"-/list?prefix={prefix}&after={after}&limit={_PAGE}"
            page = self._told(self._ask("GET", query, "cannot list", limit=_PAGE_BYTES), "cannot list", prefix)
            try:
                found, more = [Stat(str(key), int(size)) for key, size in page["objects"]], page["more"] is True
            except (LookupError, TypeError, ValueError):
                raise self._odd("cannot list", prefix) from None
            if any(not (after < stat.key and stat.key.startswith(prefix)) for stat in found) or (more and not found):
                raise self._odd("cannot list", prefix)
            yield from found
            after = found[-1].key if found else after

    def create(self, key: str, data: Data) -> bool:
        answer = self._ask("PUT", key, "cannot write", body=data, headers={"If-None-Match": "*"}, accept=(201, 412))
        return answer.status == 201

    def put_hint(self, key: str, data: Data) -> None:
        self._ask("PUT", key, "cannot write", body=data)

    def delete(self, keys: Sequence[str]) -> None:
        for at in range(0, len(keys), _DELETE):
            body = json.dumps({"keys": list(keys[at : at + _DELETE])}).encode()
            self._ask("POST", "-/delete", "cannot delete", body=body, headers={"Content-Type": "application/json"})

    def sweep(self) -> int:
        found = self._told(self._ask("POST", "-/sweep", "cannot clean up", body=b""), "cannot clean up", "").get("removed")
        return found if type(found) is int else 0

    def free_bytes(self) -> tuple[int, int] | None:
        room = self._told(self._ask("GET", "-/free", "cannot look at"), "cannot look at", "")
        free, total = room.get("free"), room.get("total")
        return (free, total) if type(free) is int and type(total) is int else None

    # -- one request -------------------------------------------------------------------------------------------------------

    def _range(self, key: str, start: int, end: int) -> bytes:
        """A range, in smaller parts once a large one broke off: what has come is not asked for again."""
        if start >= end:
            size = self.size(key)
            if size is None:
                raise NotFound(key)
            if end > size:
                raise too_short(self._client.where(key), end, size)
            return b""
        parts, at, stretch = [], start, end - start
        while at < end:
            until = min(end, at + stretch)
            last = until - at <= _LEAST_STRETCH
            try:
                parts.append(self._part(key, at, until, resend=last))
            except TemporaryError:
                if last:
                    raise
                stretch = max(_LEAST_STRETCH, (until - at) // 2)  # a link that cuts lets less pass
                continue
            at = until
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _part(self, key: str, start: int, end: int, *, resend: bool) -> bytes:
        """A range in one request. resend: see `WebClient.request`."""
        what = "cannot read"
        limit = max(end - start, _SMALL)
        answer = self._ask("GET", key, what, limit=limit, headers=asked_part(start, end), accept=(206, 416), resend=resend)
        part = content_range(answer.headers)
        if part is None or part.total is None:
            raise self._odd(what, key)
        if part.total < end:
            raise too_short(self._client.where(key), end, part.total)
        if answer.status != 206 or (part.start, part.end) != (start, end) or len(answer.body) != end - start:
            raise self._odd(what, key)
        return answer.body

    def _ask(
        self,
        method: str,
        path: str,
        what: str,
        *,
        limit: int = _SMALL,
        body: Data | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Collection[int] = (200,),
        resend: bool = True,
    ) -> Answer:
        """A signed answer of one of these statuses. NotFound; what else was said, as an error."""
        refusals = (400, 403, 404, 405, 409, 411, 413, 422, 428)
        for pause in _PAUSES:
            answer = self._client.request(
                method, path, what=what, limit=limit, body=body, headers=headers, accept=(*accept, 401, *refusals), resend=resend
            )
            doubt = self._doubt(answer, method) if answer.status != 401 else None
            if doubt is None or doubt.kind not in _PASSING:
                break
            time.sleep(pause)  # an answer that broke off within its headers looks like one that nobody signed
        if method == "HEAD" and answer.status not in (*accept, 404):  # the answer to GET says why
            return self._ask("GET", path, what, limit=PACK_MOST)
        if answer.status == 401:  # who does not know the key cannot sign
            raise self._refused(answer, what)
        if doubt is not None:
            raise self._unbelieved(answer, doubt, what)
        if answer.status in accept:
            self._seen = True
            return answer
        if answer.status == 404:
            self._absent(answer, method, path, what)
        raise self._refused(answer, what)

    def _sign(self, method: str, url: str, headers: Mapping[str, str], body: Payload | None) -> Mapping[str, str]:
        """The headers to be added to a request."""
        added = {} if body is None else {"Content-Digest": digest_of_body(body)}
        signed = sign_request(self._key, method, url, {**headers, **added})
        return {**added, "Signature": signed["signature"], "Signature-Input": signed["signature-input"]}

    def _doubt(self, answer: Answer, method: str) -> Unsigned | None:
        """Why an answer is not to be believed; None when it is signed with our key, and for this request."""
        sent = {name.lower(): value for name, value in answer.sent.items()}
        body = None if method == "HEAD" or answer.status == 304 else answer.body
        try:
            check_answer(self._key, answer.status, answer.headers, method, answer.url, sent, body)
        except Unsigned as doubt:
            return doubt
        return None

    def _unbelieved(self, answer: Answer, doubt: Unsigned, what: str) -> AuthError:
        """The error for such an answer."""
        hint = _HINTS.get(doubt.kind, "look at what is between here and there")
        if doubt.kind == "not-signed":
            hint = "is it a `mirror serve`? what lies behind a plain web server is read without a key (MIRROR_KEY_FILE)"
        return AuthError(what, where=answer.url, why=f"its answer ({answer.status}) cannot be believed: {doubt}", hint=hint)

    def _absent(self, answer: Answer, method: str, path: str, what: str) -> None:
        """NotFound for an object that is not there; TargetMissingError where there is no such target."""
        if method == "HEAD" and not self._seen:  # the answer to HEAD does not say which of the two is missing
            self._ask("GET", path, what)
        said = _said(answer)
        if said.get("kind") == "no-target":
            hint = "look at the URL, or have the target made there, with `mirror init`"
            raise TargetMissingError("cannot use", where=self.url, why=_text(said.get("detail")), hint=hint)
        self._seen = True
        raise NotFound(path)

    def _refused(self, answer: Answer, what: str) -> MirrorError:
        """What a refusal means."""
        said = _said(answer)
        kind = str(said.get("kind", ""))
        why = _text(said.get("detail")) or f"it answers {answer.status}"
        if answer.status in (401, 403):
            if not kind:
                why, hint = f"{why}, as no `mirror serve` does", "is it one? a proxy in front of it must ask for no password"
            else:
                hint = _HINTS.get(kind, "look at the key and its rights there")
            return AuthError(what, where=answer.url, why=why, hint=hint)
        if kind == "altered":
            return TemporaryError(what, where=answer.url, why=why, hint="something on the way changed it; try again")
        if answer.status == 422 or kind == "behind":
            return MirrorError(
                what, where=answer.url, why=f"the server does not accept it: {why}", hint="run the same command again"
            )
        if kind == "damage":
            return DamageError(what, where=answer.url, why=why, hint="repair the target on the server")
        if kind == "too-large":
            return UsageError(what, where=answer.url, why=why, hint="let the server take larger objects, with its --max-body")
        return UsageError(what, where=answer.url, why=why, hint="look at the log of the server")

    def _told(self, answer: Answer, what: str, key: str) -> dict[str, Any]:
        """The JSON object of an answer."""
        found = _object(answer)
        if found is None:
            raise self._odd(what, key)
        return found

    def _odd(self, what: str, key: str) -> MirrorError:
        where = self._client.where(key)
        return MirrorError(what, where=where, why="the answer is none that this program knows", hint="is the server a newer one?")


def _said(answer: Answer) -> dict[str, Any]:
    """What a refusal says for programs; nothing where it says nothing."""
    return _object(answer) or {}


def _object(answer: Answer) -> dict[str, Any] | None:
    """The JSON object that an answer is; None where it is none."""
    try:
        found = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _text(text: object) -> str:
    """Words of a server, as they may be shown."""
    return "".join(each if each.isprintable() else " " for each in text)[:500] if isinstance(text, str) else ""
