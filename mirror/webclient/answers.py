"""What a failed request means: the one place where urllib3's exceptions and HTTP statuses become ours. Pure.

>>> str(error_for(503, {}, b"", "cannot read", "https://www.example.org/mirror.json"))
'cannot read https://www.example.org/mirror.json: the server answers 503, again and again; try again later'
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import NamedTuple
from urllib.parse import urlsplit

from mirror.errors import AuthError, InTheWayError, MirrorError, TemporaryError, UsageError
from mirror.webclient.address import led_to, shown_url

PASSING = (408, 425, 429, 500, 502, 503, 504)  # asked again, these may become answers
REDIRECTS = (301, 302, 303, 307, 308)
_SAID = 300
_TUNNEL = re.compile(r"Tunnel connection failed: ([0-9]{3}[ A-Za-z-]{0,100})")  # http.client's words
_UNTRUSTED = "its certificate is not trusted"


class Failure(NamedTuple):
    """A request that got no answer. kind: `connect` nothing was sent, `proxy` nor to the proxy, `login` that the proxy wants to be
    told, `timeout`, `broken` in the middle, `tls` the other side is not trusted or speaks no TLS, `never` it cannot be asked at
    all; cause: the operating system's or TLS's word for it."""

    kind: str
    cause: str = ""

    @property
    def passing(self) -> bool:
        """Whether asking again may help."""
        return self.kind in ("connect", "proxy", "timeout", "broken")


def failure(error: BaseException) -> Failure:
    """What an exception that left urllib3 says."""
    from urllib3 import exceptions as known

    if isinstance(error, known.ProxyError):
        tunnel = _TUNNEL.search(str(error))
        if not tunnel:
            return Failure("proxy", _cause(error))
        return Failure("login") if tunnel[1].startswith("407") else Failure("connect", f"the proxy says {tunnel[1]}")
    if isinstance(error, (known.NewConnectionError, known.ConnectTimeoutError)):
        return Failure("connect", _cause(error))
    if isinstance(error, (known.TimeoutError, TimeoutError)):
        return Failure("timeout", "timed out")
    if isinstance(error, known.SSLError):
        text = str(error)
        if "EOF" in text:  # cut in the middle, which says nothing of trust
            return Failure("broken", "the connection was closed")
        return Failure("tls", _tls_cause(text))
    if isinstance(error, (known.ProtocolError, ConnectionError)):
        return Failure("broken", _cause(error))
    return Failure("never", _cause(error))


def no_answer(found: Failure, what: str, url: str) -> MirrorError:
    """The error for a request that got no answer."""
    where = shown_url(url)
    if found.kind == "tls":
        hint = "is the URL right, and its certificate valid and known to this machine?"
        if found.cause.startswith(_UNTRUSTED):  # OpenSSL reads the variable
            hint = "if it is your own certificate, name the PEM file with it, or with its authority's, in SSL_CERT_FILE"
        return UsageError(what, where=where, why=f"no safe connection to the server ({found.cause})", hint=hint, kind="tls")
    if found.kind == "login":
        return _login_wanted(what, url)
    if found.kind == "proxy":
        hint = f"check {_variable(url)}, or say in NO_PROXY that this server is asked without a proxy"
        return TemporaryError(what, where=where, why=f"no connection to the proxy ({found.cause})", hint=hint)
    if found.kind == "never":
        return UsageError(what, where=where, why=f"that cannot be asked for ({found.cause})", hint="check the URL")
    why = {
        "connect": f"no connection to the server ({found.cause})",
        "timeout": "the server does not answer (timed out)",
        "broken": f"the connection broke off ({found.cause})",
    }[found.kind]
    return TemporaryError(what, where=where, why=why, hint="check the URL and the network, or try again later")


def error_for(status: int, headers: Mapping[str, str], body: bytes, what: str, url: str) -> MirrorError:
    """The error for an answer that is not one of those expected. 404 is for the caller: NotFound is a matter of course."""
    where = shown_url(url)
    said = _said(headers, body)
    if status == 407:
        return _login_wanted(what, url)
    if status in (401, 403):
        why = f"the server does not allow it ({status}{said})"
        return AuthError(what, where=where, why=why, hint="check the key or the rights there")
    if status in REDIRECTS:
        return redirected(headers, what, url)
    if status == 429:
        return TemporaryError(what, where=where, why=f"the server is asked too often (429{said})", hint=_later(headers))
    if status in (413, 507):
        why = f"there is no room for it (507{said})" if status == 507 else f"it is too large for the server (413{said})"
        if status == 507:
            return TemporaryError(what, where=where, why=why, hint="make room there, then run again", kind="disk-full")
        return MirrorError(what, where=where, why=why, hint="allow larger bodies there (nginx: client_max_body_size)")
    if status in PASSING:
        return TemporaryError(what, where=where, why=f"the server answers {status}{said}, again and again", hint=_later(headers))
    if status == 423:
        return InTheWayError(what, where=where, why=f"it is locked there (423{said})", hint="wait until the other run is done")
    if status in (405, 501):
        return UsageError(what, where=where, why=f"this server cannot do that ({status}{said})", hint="is it the right URL?")
    return MirrorError(what, where=where, why=f"the server answers {status}{said}", hint="is it the right URL?")


def _login_wanted(what: str, url: str) -> AuthError:
    why, hint = "the proxy wants another name and password (407)", f"give them in {_variable(url)}: http://NAME:PASSWORD@HOST:PORT"
    return AuthError(what, where=shown_url(url), why=why, hint=hint, kind="proxy")


def _variable(url: str) -> str:
    return "HTTPS_PROXY" if url.startswith("https:") else "HTTP_PROXY"


def redirected(headers: Mapping[str, str], what: str, url: str, why: str = "") -> MirrorError:
    """The error for a redirect that is not followed."""
    to = led_to(url, headers.get("location", ""))
    place = shown_url(to) if to else "nowhere that could be asked"
    hint = "name that place itself, if you trust it"
    if to and urlsplit(to).path == urlsplit(url).path:  # from http to https, most likely: what is to be written is shorter
        there, here = (shown_url(f"{urlsplit(each).scheme}://{urlsplit(each).netloc}") for each in (to, url))
        hint = f"write {there} in place of {here}, if you trust it"
    return UsageError(what, where=shown_url(url), why=f"it redirects to {place}{why and f', {why}'}", hint=hint)


def asked_to_wait(headers: Mapping[str, str]) -> float:
    """The seconds that Retry-After asks for, as a number or as a date; 0 where it says nothing that can be read."""
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:9]), 10**6))
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0


def _later(headers: Mapping[str, str]) -> str:
    wait = asked_to_wait(headers)
    return f"try again in {wait:.0f} s, the server says" if wait >= 1 else "try again later"


def _said(headers: Mapping[str, str], body: bytes) -> str:
    """What the server says about it in words, where it does so in a form for programs (RFC 9457, or plain text)."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    text = ""
    if kind in ("application/problem+json", "application/json"):
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            return ""
        if isinstance(found, dict):
            text = next((found[name] for name in ("detail", "title", "message") if isinstance(found.get(name), str)), "")
    elif kind == "text/plain":
        text = body[: 4 * _SAID].decode("utf-8", "replace")
    text = " ".join("".join(each if each.isprintable() else " " for each in text).split()).rstrip(".")
    return f": {text[:_SAID]}" if text else ""


def _cause(error: BaseException) -> str:
    """The innermost reason in an exception's chain that says something."""
    found, seen = "", 0
    at: BaseException | None = error
    while at is not None and seen < 10:
        reason = getattr(at, "reason", None)
        if isinstance(at, OSError) and at.strerror:
            found = at.strerror
        at, seen = reason if isinstance(reason, BaseException) else at.__cause__ or at.__context__, seen + 1
    text = found or str(error.args[0] if error.args else error)
    text = " ".join(text.rpartition("object at 0x")[2].split()) if "object at 0x" in text else " ".join(text.split())
    if "resolve" in text:
        return "the name of the host is not known"
    if "timed out" in text:
        return "timed out"
    return (text[:1].lower() + text[1:]).rstrip(".")[:200] or type(error).__name__


def _tls_cause(text: str) -> str:
    for part, meaning in (
        ("CERTIFICATE_VERIFY_FAILED", _UNTRUSTED),
        ("doesn't match", "its certificate is for another host"),
        ("WRONG_VERSION_NUMBER", "it speaks no TLS: http or https?"),
        ("record layer failure", "it speaks no TLS: http or https?"),
    ):
        if part in text:
            detail = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0].strip(" '\")")
            return f"{meaning}: {detail[:120]}" if detail and part == "CERTIFICATE_VERIFY_FAILED" else meaning
    return " ".join(text.split())[:200]
