"""Signatures of requests and answers: RFC 9421 with hmac-sha256, bodies by RFC 9530. Both ends of `mirror serve` use this module.

A request covers its method, path and query, the digest and length of its body, and `Range` and `If-None-Match` where it has them;
its parameters are the time, a nonce, and a key id, `NAME/FINGERPRINT`. The host is not covered: it changes behind a proxy. An
answer covers its status, what it says of its body, and the signature of the request: an old answer never passes for a new one. An
answer of more than `DIGESTED` bytes is a stream: its headers are signed, its body is not.

What is signed is written here, a text of a few lines. What others have signed is judged by `http-message-signatures`, since they
may write it in many ways; only an answer that is written just as ours are is believed without it.

Owns what is signed and every word that is said when it does not fit. Who may do what is decided elsewhere. `Nonces` is not for
several threads.

    >>> from mirror.access import ClientKey
    >>> key, nonces = ClientKey("nightly", bytes(32)), Nonces()
    >>> headers = sign_request(key, "GET", "http://h/www/mirror.json", {})
    >>> check_request(lambda name: key, nonces, "GET", "/www/mirror.json", headers).name
    'nightly'
    >>> check_request(lambda name: key, nonces, "GET", "/www/mirror.json", headers)
    Traceback (most recent call last):
    mirror.signing.Unsigned: this request was made before: each is answered once
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final
from urllib.parse import urlsplit

from mirror.access import ClientKey

WINDOW: Final = 300  # seconds that the clocks of the two ends may differ by
DIGESTED: Final = 1 << 20  # bytes of an answer whose body is signed with it
NONCES_KEPT: Final = 300_000  # of a window; some 25 MB
LABEL: Final = "mirror"
_ASKS, _ANSWERS = "mirror-request", "mirror-answer"
_KEY_ID: Final = re.compile(r"([a-z0-9][a-z0-9._-]{0,62})/([0-9a-f]{8})")
_NONCE: Final = re.compile(r"[A-Za-z0-9+/=_-]{16,64}")
_CONDITIONS: Final = ("range", "if-none-match")
_SAID_OF_BODY: Final = ("content-length", "content-digest", "content-range", "etag")
_SIGNATURE_OF_REQUEST: Final = f'"signature";req;key="{LABEL}"'
_MEMBER: Final = re.compile(rf"(?:^|,)[ \t]*{LABEL}=(:[A-Za-z0-9+/=]*:)[ \t]*(?:,|$)")
_PLAIN: Final = re.compile(r"([!-~]([ -~]*[!-~])?)?")  # a header's value that stands in a signature as it is
_URL: Final = re.compile("[!-~]+")
_DIGEST: Final = re.compile(r"sha-256=:([A-Za-z0-9+/]{43}=):")


class Unsigned(Exception):
    """A request that is not to be answered, or an answer that is not to be believed. kind is stable: not-signed, unknown-key,
    wrong-secret, altered, clock, replayed, busy. The text is a clause that says what is wrong."""

    def __init__(self, kind: str, why: str) -> None:
        self.kind = kind
        super().__init__(why)


def digest_of_body(body: bytes | bytearray | memoryview) -> str:
    """The Content-Digest of a body."""
    return digest_header(hashlib.sha256(body).digest())


def digest_header(sha256: bytes) -> str:
    """The Content-Digest of a body with this SHA-256."""
    return f"sha-256=:{base64.b64encode(sha256).decode()}:"


def digest_in(header: str) -> bytes | None:
    """The SHA-256 of a Content-Digest, None where it has none, or is more than that."""
    found = _DIGEST.fullmatch(header.strip())
    return base64.b64decode(found[1]) if found else None


# -- requests ----------------------------------------------------------------------------------------------------------


def sign_request(key: ClientKey, method: str, url: str, headers: Mapping[str, str], now: float | None = None) -> dict[str, str]:
    """The headers of a request with a signature, a new one each time. A body is covered by the Content-Digest and Content-Length
    among `headers`. Names come back in lower case. ValueError for what no header or URL has."""
    lower = {name.lower(): value for name, value in headers.items()}
    if not _URL.fullmatch(url):  # urlsplit would leave things out
        raise ValueError("it is no URL")
    parts = urlsplit(url)
    values = {"@method": method, "@path": parts.path or "/", "@query": f"?{parts.query}"}
    nonce = base64.b64encode(os.urandom(18)).decode()
    covered = [(f'"{name}"', values.get(name) or lower[name]) for name in _covered(lower)]
    return lower | _signed(key, covered, f'nonce="{nonce}";tag="{_ASKS}"', now)


def check_request(
    known: Callable[[str], ClientKey | None],
    nonces: Nonces,
    method: str,
    target: str,
    headers: Mapping[str, str],
    now: float | None = None,
) -> ClientKey:
    """Whose request this is. known: the key of a name, None where there is none; target: path and query as they were sent; headers:
    names in lower case. Unsigned says what is wrong. The body has still to be held against the Content-Digest."""
    if "signature-input" not in headers or "signature" not in headers:
        raise Unsigned("not-signed", "the request is not signed: name the file with the key, by --key-file or MIRROR_KEY_FILE")
    message = _Message(dict(headers), method=method, url=f"http://mirror{target}")
    asked = _Asked(known)
    parameters = _verified(message, asked, _ASKS, _covered(headers))
    moment = time.time() if now is None else now
    if abs(moment - int(parameters["created"])) > WINDOW:
        late = int(parameters["created"]) - moment
        how = f"{abs(late):.0f} seconds {'ahead of' if late > 0 else 'behind'} that of the server"
        there = f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M:%S} UTC"
        raise Unsigned("clock", f"the clock of the client is {how}, where it is {there}; {WINDOW} are allowed")
    nonce = parameters.get("nonce", "")
    if not _NONCE.fullmatch(nonce):
        raise Unsigned("not-signed", "the signature has no nonce of 16 to 64 characters")
    assert asked.key
    nonces.use(f"{asked.key.name} {nonce}", int(parameters["created"]), moment)
    return asked.key


@dataclass
class Nonces:
    """The nonces of a window, each to be used once. Kept by the minute in which they were made, so what is too old goes at once.
    most: when there are so many, nothing more is accepted until some are too old."""

    most: int = NONCES_KEPT
    _minutes: dict[int, set[int]] = field(default_factory=dict)

    def use(self, nonce: str, created: int, now: float) -> None:
        """Unsigned when it was used before, or when too many were."""
        for minute in [minute for minute in self._minutes if minute < (now - WINDOW) // 60]:
            del self._minutes[minute]
        short = int.from_bytes(hashlib.sha256(nonce.encode()).digest()[:8], "little")
        used = self._minutes.setdefault(created // 60, set())
        if short in used:
            raise Unsigned("replayed", "this request was made before: each is answered once")
        if sum(map(len, self._minutes.values())) >= self.most:
            raise Unsigned("busy", f"{self.most:,} requests were answered within some minutes, wait a little")
        used.add(short)


# -- answers -----------------------------------------------------------------------------------------------------------


def sign_answer(key: ClientKey, status: int, headers: MutableMapping[str, str], asked: Mapping[str, str]) -> None:
    """Put a signature among the headers of an answer. asked: the headers of the request, names in lower case."""
    headers.update(_signed(key, _values_of_answer(status, headers, asked), f'tag="{_ANSWERS}"'))


def check_answer(
    key: ClientKey, status: int, headers: Mapping[str, str], method: str, url: str, asked: Mapping[str, str], body: bytes | None
) -> None:
    """Unsigned unless this is the answer to that request, signed with the same key. asked: the headers that `sign_request` gave;
    body: None where it is a stream, or there is none."""
    lower = {name.lower(): value for name, value in headers.items()}
    if "signature-input" not in lower or "signature" not in lower:
        raise Unsigned("not-signed", "the remote does not sign its answers")
    if not _is_ours(key, status, lower, asked):
        parts = urlsplit(url)
        target = parts.path + (f"?{parts.query}" if parts.query else "")
        request = _Message(dict(asked), method=method, url=f"http://mirror{target}")
        message = _Message(lower, status_code=status, request=request)
        _verified(message, _Asked(lambda name: key if name == key.name else None), _ANSWERS, _covered_answer(lower))
    if body is None:
        return
    said = digest_in(lower.get("content-digest", ""))
    if said is None and (len(body) > DIGESTED or not body) and lower.get("content-length", "") == str(len(body)):
        return
    if said != hashlib.sha256(body).digest():
        raise Unsigned("altered", "the body of the answer is not what was signed: something on the way changed it")


# -- what we sign ------------------------------------------------------------------------------------------------------


def _signed(key: ClientKey, covered: list[tuple[str, str]], more: str, now: float | None = None) -> dict[str, str]:
    """The two headers of a signature. covered: components as they are named, with their values; more: last parameters. The library
    could do this as well, in 0.3 ms, after the 45 that it takes to load: whoever only asks never needs it. It judges what we
    write, at the other end."""
    created = int(time.time() if now is None else now)
    parameters = f"({' '.join(name for name, _ in covered)});created={created};{_key_and_rest(key, more)}"
    return {"signature-input": f"{LABEL}={parameters}", "signature": _signature(key, covered, parameters)}


def _key_and_rest(key: ClientKey, more: str) -> str:
    return f'keyid="{key.name}/{key.fingerprint}";alg="hmac-sha256";{more}'


def _signature(key: ClientKey, covered: list[tuple[str, str]], parameters: str) -> str:
    """The header `Signature`. ValueError for a value that would have to be written in another way (RFC 9421, 2.1)."""
    if not all(_PLAIN.fullmatch(value) for _, value in covered):
        raise ValueError("it has a header that cannot be signed as it is")
    text = "\n".join(f"{name}: {value}" for name, value in [*covered, ('"@signature-params"', parameters)])
    return f"{LABEL}=:{base64.b64encode(hmac.digest(key.secret, text.encode(), 'sha256')).decode()}:"


def _values_of_answer(status: int, headers: Mapping[str, str], asked: Mapping[str, str]) -> list[tuple[str, str]]:
    """What an answer covers. asked: the headers of the request, whose signature was checked, or made here."""
    said = [(f'"{name}"', headers[name]) for name in _SAID_OF_BODY if name in headers]
    signature = _MEMBER.search(asked["signature"])
    return [('"@status"', str(status)), *said, (_SIGNATURE_OF_REQUEST, signature[1] if signature else "")]


def _is_ours(key: ClientKey, status: int, headers: Mapping[str, str], asked: Mapping[str, str]) -> bool:
    """Whether an answer is signed just as `sign_answer` signs, with this key. False says nothing yet: it may be written in another
    way, and why it is not to be believed is for the library to find."""
    covered = _values_of_answer(status, headers, asked)
    said = headers["signature-input"].strip()
    begin, end = f"{LABEL}=({' '.join(name for name, _ in covered)});created=", ";" + _key_and_rest(key, f'tag="{_ANSWERS}"')
    created = said.removeprefix(begin).removesuffix(end)
    if said != begin + created + end or not (created.isascii() and created.isdigit()):
        return False
    try:
        signature = _signature(key, covered, said.removeprefix(f"{LABEL}="))
    except ValueError:
        return False
    return hmac.compare_digest(signature.encode(), headers["signature"].strip().encode())


# -- the library -------------------------------------------------------------------------------------------------------


class _Message:
    """A request or an answer as the library wants to see one: whoever has a status_code is an answer."""

    def __init__(self, headers: MutableMapping[str, str], **members: Any) -> None:
        self.headers = headers
        self.__dict__.update(members)


class _Asked:
    """Looks keys up for the library, and remembers what was found."""

    def __init__(self, known: Callable[[str], ClientKey | None]) -> None:
        self._known = known
        self.key: ClientKey | None = None
        self.name = self.fingerprint = ""

    def resolve_public_key(self, key_id: str) -> bytes | None:
        """The secret behind a key id, None where there is none."""
        found = _KEY_ID.fullmatch(key_id)
        self.name, self.fingerprint = (found[1], found[2]) if found else (key_id[:80], "")
        self.key = self._known(found[1]) if found else None
        return self.key.secret if self.key else None

    def fault(self, tag: str) -> Unsigned:
        """Why a signature did not fit, by what is known of its key. tag: whether it is that of a request or of an answer."""
        if self.key is None:
            return Unsigned("unknown-key", f"there is no key {self.name!r}")
        if self.fingerprint != self.key.fingerprint:
            why = f"both sign as {self.name}, with different secrets"
            client, server = (self.fingerprint, self.key.fingerprint)[:: 1 if tag == _ASKS else -1]
            return Unsigned("wrong-secret", f"{why}: that of the client has fingerprint {client}, that of the server {server}")
        return Unsigned(
            "altered", "the signature does not fit: something on the way, a proxy perhaps, changed path, query or headers"
        )


@cache
def _library() -> Any:
    # 45 ms with the cryptography that it brings, on a fast machine: not for whoever only asks.
    import http_message_signatures

    return http_message_signatures


@cache
def _verifier_class() -> Any:
    class Verifier(_library().HTTPMessageVerifier):  # type: ignore[misc]
        # The library would say "in the past". We say by how much, and an answer needs no clock: it names the request.
        def validate_created_and_expires(self, sig_input: Any, max_age: object = None) -> None:
            if type(sig_input.params.get("created")) is not int:
                raise _library().InvalidSignature("it does not say when it was made")

    return Verifier


def _verified(message: _Message, asked: _Asked, tag: str, covered: tuple[str, ...]) -> dict[str, Any]:
    """The parameters of the signature of a message. Unsigned."""
    library = _library()
    verifier = _verifier_class()(signature_algorithm=library.algorithms.HMAC_SHA256, key_resolver=asked)
    try:
        (found,) = verifier.verify(message, max_age=None, expect_tag=tag, require_components=covered)
    except library.HTTPMessageSignaturesException as error:
        if asked.name and (asked.key is None or _is_mismatch(error)):
            raise asked.fault(tag) from None
        why = " ".join(str(error).split())[:200]
        raise Unsigned("not-signed", f"the signature cannot be used: {why}") from None
    except ValueError:  # two of one tag
        raise Unsigned("not-signed", "there is more than one signature") from None
    parameters: dict[str, Any] = found.parameters
    return parameters


def _is_mismatch(error: Exception) -> bool:
    """Whether a signature is well formed and just does not fit."""
    from cryptography.exceptions import InvalidSignature

    return isinstance(error.__cause__, InvalidSignature)


def _covered(headers: Mapping[str, str]) -> tuple[str, ...]:
    """What a request with these headers (names in lower case) must cover."""
    body = ("content-digest", "content-length") if "content-digest" in headers else ()
    return ("@method", "@path", "@query", *body, *(name for name in _CONDITIONS if name in headers))


def _covered_answer(headers: Mapping[str, str]) -> tuple[str, ...]:
    return ("@status", *(name for name in _SAID_OF_BODY if name in headers), _SIGNATURE_OF_REQUEST)
