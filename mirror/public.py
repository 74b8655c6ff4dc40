"""Whether the `.mirror/` of a live folder can be fetched by everybody: deleted pages and host names are in it.

One file of it is asked for, as a stranger would: once, without credentials, for at most ten seconds, and what comes is believed
only if it is ours. A server that answers everything with its start page is not mistaken for a leak, nor is one that is silent.

    if found := found_open("https://www.example.org", "/srv/www", store.url, uuid, job):
        print(found.url, found.hint)
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from mirror.envelope import unsealed_json
from mirror.errors import DamageError
from mirror.events import Job, Notice
from mirror.keys import MIRROR_KEY, STORE, STORE_KEY

_SECONDS = 10
_LARGEST = 1 << 20
_HEADERS = {"User-Agent": "mirror", "Cache-Control": "no-cache", "Accept-Encoding": "identity"}
_FORBIDDEN = (401, 403, 404, 405, 410, 451)


class Exposure(NamedTuple):
    """What was found. url: of the file; is_open: everybody can read it; unsure: why that cannot be told, else empty."""

    url: str
    is_open: bool = False
    unsure: str = ""

    @property
    def hint(self) -> str:
        """The next step where it is open."""
        path = re.sub(r"[^/]*$", "", urlsplit(self.url).path)
        return f"forbid it in the web server, in nginx: location ^~ {path} {{ return 404; }}"


def found_open(public: str, tree: str, store: str, uuid: str, job: Job) -> Exposure | None:
    """What everybody can fetch of a tree served at a URL; None where nothing is found, and where it cannot be told, which is said.
    tree: the live folder, empty for a target of another layout; store: its store's URL."""
    if not (tree and uuid):
        job.say(Notice("public-url", f"{public} is not asked: only a tree is to be served"))
        return None
    found = exposure(public, MIRROR_KEY if store == f"{tree}/{STORE}" else STORE_KEY, uuid)
    if found.unsure:
        job.say(Notice("public-url", f"whether {found.url} is hidden cannot be told: {found.unsure}"))
    return found if found.is_open else None


def exposure(public: str, name: str, uuid: str) -> Exposure:
    """Ask for `.mirror/NAME` below a public URL. It is ours if the uuid of the target is in it. Raises nothing."""
    url = f"{public.rstrip('/')}/{STORE}/{name}"
    request = urllib.request.Request(url, headers=_HEADERS)
    try:
        with urllib.request.build_opener(_SameHost).open(request, timeout=_SECONDS) as answer:
            body, whole = _body(answer)
    except urllib.error.HTTPError as error:
        error.close()
        return Exposure(url, unsure="" if error.code in _FORBIDDEN else _status(error))
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Exposure(url, unsure=f"there was no answer ({' '.join(str(reason).split())})")
    if uuid.encode() in body:
        return Exposure(url, is_open=True)
    if not whole:
        return Exposure(url, unsure="its answer did not end in time")
    return Exposure(url, unsure="the tree of another mirror is there: is that the right URL?" if _is_sealed(body) else "")


def _status(error: urllib.error.HTTPError) -> str:
    if 300 <= error.code < 400:
        host: str | None = None
        with suppress(ValueError):
            host = urlsplit(error.headers.get("Location", "")).hostname
        return f"it leads to another host ({host!r}): name that one" if host else f"it answered {error.code}"
    return f"it answered {error.code}"


def _body(answer: Any) -> tuple[bytes, bool]:
    """(the first MiB of an answer, or what of it came in time; whether that is all that was wanted)."""
    until, body = time.monotonic() + _SECONDS, b""
    while len(body) < _LARGEST:
        if time.monotonic() >= until:
            return body, False
        piece = answer.read1(_LARGEST - len(body))
        if not piece:
            break
        body += piece
    return body, True


def _is_sealed(body: bytes) -> bool:
    try:
        return "uuid" in unsealed_json(body, "")
    except DamageError:
        return False


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect on the same host (from http to https, say). Another host is another site."""

    def redirect_request(self, req: urllib.request.Request, *answer: Any) -> urllib.request.Request | None:
        to = urlsplit(str(answer[-1]))
        if to.scheme not in ("http", "https") or to.hostname != urlsplit(req.full_url).hostname or "@" in to.netloc:
            return None
        return super().redirect_request(req, *answer)
