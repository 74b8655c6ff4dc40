"""Requests to a `mirror serve`: each is signed, and an answer is believed only if it is signed with the same key, for this request.

    client = SignedClient(url, key_file, insecure=False, proxies=DIRECT, connections=8)
    client.ask("GET", "mirror.json", "cannot read").body
    client.part("packs/...", 0, 1 << 20, resend=True)

The key comes from a file, never from the URL. A refusal of somebody else is told in his words, and is no answer. docs/http.md is
the protocol; patience and time-outs are those of `mirror.webclient.client`.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from mirror.access import read_client_key
from mirror.errors import AuthError, DamageError, MirrorError, NotFound, TargetMissingError, UsageError
from mirror.signing import Unsigned, check_answer, digest_of_body, sign_request
from mirror.webclient import Answer, BrokeOff, Payload, Stream
from mirror.webclient.address import base_url, shown_url
from mirror.webclient.client import PATIENCE_SECONDS, WebClient
from mirror.webclient.parts import asked_part, content_range
from mirror.webclient.proxies import Proxies

SMALL: Final = 64 << 10  # bytes that any answer may have, as a refusal has some
MOST: Final = 128 << 20  # bytes of the largest answer
_PASSING: Final = ("not-signed", "altered")  # may be a link that breaks
_PAUSES: Final = (0.2, 0.5, 1.0, 0.0)  # seconds before an answer that is not believed is asked for again
_TARGET: Final = re.compile(r"/[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_IS_IT_ONE: Final = "is it a `mirror serve`? what lies behind a plain web server is read without a key (MIRROR_KEY_FILE)"
_HINTS: Final = {
    "unknown-key": "ask for a key there: mirror key new NAME --rights read,append --keys FILE",
    "wrong-secret": "the key was made anew, or this is the key of another server: ask for it there",
    "clock": "see which of the two is wrong (date -u), and set that one, best by NTP",
    "rights": "ask there for a key with that right",
    "replayed": "something on the way sends requests twice",
}


class SignedClient:
    """A client of one target at `http(s)://HOST/NAME`. Any thread may use it. UsageError, AuthError for a key that cannot be used,
    and for plain http to another machine without `insecure`."""

    def __init__(
        self,
        url: str,
        key_file: str,
        *,
        insecure: bool,
        proxies: Proxies,
        connections: int,
        answered: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        if not _TARGET.fullmatch(urlsplit(base_url(url)).path):
            hint = "write https://HOST/NAME; what lies behind a plain web server is read without a key (MIRROR_KEY_FILE)"
            raise UsageError("cannot use", where=shown_url(url), why="it is not the URL of a target of a `mirror serve`", hint=hint)
        self._key = read_client_key(key_file)
        self._client = WebClient(
            url,
            sign=self._sign,
            insecure=insecure,
            proxies=proxies,
            connections=connections,
            answered=answered,
            patience_seconds=patience_seconds,
        )
        self._seen = False  # only ever goes from False to True: the server knows this target

    @property
    def url(self) -> str:
        """Of the target."""
        return self._client.url

    def where(self, path: str) -> str:
        """See `WebClient.where`."""
        return self._client.where(path)

    @contextmanager
    def stream(self, path: str, what: str, limit: int) -> Iterator[Stream]:
        """An answer whose body comes in pieces; its headers are signed."""
        with self._client.stream("GET", path, what=what, limit=limit) as stream:
            try:
                sent = {name.lower(): value for name, value in stream.sent.items()}
                check_answer(self._key, stream.status, stream.headers, "GET", stream.url, sent, None)
            except Unsigned as doubt:
                raise _unbelieved(stream.url, stream.status, doubt, what) from None
            yield stream

    def part(self, path: str, start: int, end: int, resend: bool) -> tuple[bytes, int]:
        """(the bytes [start, end) of what is at a path, one at least; how many it has). None of them where it ends before `end`.
        NotFound. resend: see `WebClient.request`."""
        what = "cannot read"
        limit = max(end - start, SMALL)
        answer = self.ask("GET", path, what, limit=limit, headers=asked_part(start, end), accept=(206, 416), resend=resend)
        part = content_range(answer.headers)
        if part is None or part.total is None:
            raise self.odd(what, path)
        if part.total < end:
            return b"", part.total
        if answer.status != 206 or (part.start, part.end) != (start, end) or len(answer.body) != end - start:
            raise self.odd(what, path)
        return answer.body, part.total

    def ask(
        self,
        method: str,
        path: str,
        what: str,
        *,
        limit: int = SMALL,
        body: Payload | None = None,
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
            if not resend and method == "PUT":
                raise BrokeOff(what, where=answer.url, why=str(doubt), hint=_IS_IT_ONE)
            time.sleep(pause)  # an answer that broke off within its headers looks like one that nobody signed
        if method == "HEAD" and answer.status not in (*accept, 404):  # the answer to GET says why
            return self.ask("GET", path, what, limit=MOST)
        if answer.status == 401:  # who does not know the key cannot sign
            raise self.refused(answer, what)
        if doubt is not None:
            raise _unbelieved(answer.url, answer.status, doubt, what)
        if answer.status in accept:
            self._seen = True
            return answer
        if answer.status == 404:
            self._absent(answer, method, path, what)
        raise self.refused(answer, what)

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

    def _absent(self, answer: Answer, method: str, path: str, what: str) -> None:
        """NotFound for an object that is not there; TargetMissingError where there is no such target."""
        if method == "HEAD" and not self._seen:  # the answer to HEAD does not say which of the two is missing
            self.ask("GET", path, what)
        found = said(answer)
        if found.get("kind") == "no-target":
            hint = "look at the URL, or have the target made there, with `mirror init`"
            raise TargetMissingError("cannot use", where=self.url, why=_text(found.get("detail")), hint=hint)
        self._seen = True
        raise NotFound(path)

    def refused(self, answer: Answer, what: str) -> MirrorError:
        """What a refusal means."""
        found = said(answer)
        kind = str(found.get("kind", ""))
        why = _text(found.get("detail")) or f"it answers {answer.status}"
        if answer.status in (401, 403):
            if not kind:
                why, hint = f"{why}, as no `mirror serve` does", "is it one? a proxy in front of it must ask for no password"
            else:
                hint = _HINTS.get(kind, "look at the key and its rights there")
            return AuthError(what, where=answer.url, why=why, hint=hint)
        if kind == "altered":
            return BrokeOff(what, where=answer.url, why=why, hint="something on the way changed it; try again")
        if answer.status == 422 or kind == "behind":
            return MirrorError(
                what, where=answer.url, why=f"the server does not accept it: {why}", hint="run the same command again"
            )
        if kind == "damage":
            return DamageError(what, where=answer.url, why=why, hint="repair the target on the server")
        if kind == "too-large":
            return UsageError(what, where=answer.url, why=why, hint="let the server take larger objects, with its --max-body")
        return UsageError(what, where=answer.url, why=why, hint="look at the log of the server")

    def told(self, answer: Answer, what: str, key: str) -> dict[str, Any]:
        """The JSON object of an answer."""
        found = _object(answer)
        if found is None:
            raise self.odd(what, key)
        return found

    def odd(self, what: str, key: str) -> MirrorError:
        """The error for an answer that says what none should."""
        where = self._client.where(key)
        return MirrorError(what, where=where, why="the answer is none that this program knows", hint="is the server a newer one?")


def _unbelieved(url: str, status: int, doubt: Unsigned, what: str) -> AuthError:
    """The error for an answer that is not believed."""
    hint = _IS_IT_ONE if doubt.kind == "not-signed" else _HINTS.get(doubt.kind, "look at what is between here and there")
    return AuthError(what, where=url, why=f"its answer ({status}) cannot be believed: {doubt}", hint=hint)


def said(answer: Answer) -> dict[str, Any]:
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
