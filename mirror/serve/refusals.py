"""What is refused, and the answers that say so: one place where exceptions of ours become statuses, kinds and words (RFC 9457).

docs/http.md lists the kinds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from mirror.errors import AuthError, DamageError, MirrorError, NotFound, TemporaryError, UsageError
from mirror.serve.examine import Rejected
from mirror.serve.holding import NotHeld
from mirror.serve.parts import Misplaced
from mirror.signing import Unsigned


class Refusal(Exception):
    """An answer that is none. kind is stable; why: a clause. wait: seconds behind which it may be asked again; close: the
    connection ends with it; more: what else the answer says, for programs."""

    def __init__(
        self,
        status: int,
        kind: str,
        why: str,
        *,
        wait: int = 0,
        close: bool = False,
        more: Mapping[str, object] | None = None,
    ) -> None:
        self.status, self.kind, self.why, self.wait, self.close = status, kind, why, wait, close
        self.more = more or {}
        super().__init__(why)


def refusal(error: Exception) -> Refusal:
    """What an exception of ours is as an answer."""
    if isinstance(error, Unsigned):
        return Refusal(503 if error.kind == "busy" else 401, error.kind, str(error), wait=5 if error.kind == "busy" else 0)
    if isinstance(error, Rejected):
        return Refusal({"rights": 403, "behind": 409, "altered": 400}.get(error.kind, 422), error.kind, str(error))
    if isinstance(error, Misplaced):
        return Refusal(409, "offset", str(error), more={"have": error.have})
    if isinstance(error, NotHeld):
        return Refusal(409, "not-held", str(error))
    if isinstance(error, NotFound):
        return Refusal(404, "no-object", "there is no such object")
    if isinstance(error, TimeoutError):
        return Refusal(408, "too-slow", "the body did not come in time", close=True)
    if isinstance(error, UsageError):
        return Refusal(400, "bad-request", error.why)
    if isinstance(error, TemporaryError):
        full = error.kind == "disk-full"
        return Refusal(507 if full else 503, error.kind, error.why, wait=0 if full else 5)
    if isinstance(error, DamageError):
        return Refusal(409, "damage", error.why)
    assert isinstance(error, MirrorError)
    return Refusal(500, "auth" if isinstance(error, AuthError) else "error", error.why)


def problem(refused: Refusal) -> Response:
    """A refusal as RFC 9457 has it."""
    body: dict[str, object] = {"title": "refused", "status": refused.status, "kind": refused.kind, "detail": refused.why}
    if refused.status in (409, 422):
        body |= {"result": "rejected", "why": refused.why}
    body |= refused.more
    response = as_json(body, refused.status)
    response.headers["content-type"] = "application/problem+json"
    if refused.wait:
        response.headers["retry-after"] = str(refused.wait)
    if refused.status == 401:
        response.headers["www-authenticate"] = "Signature"
    if refused.close:
        response.headers["connection"] = "close"
    return response


def as_json(body: object, status: int = 200) -> Response:
    """An answer for programs."""
    return Response(json.dumps(body).encode(), status, {"cache-control": "no-store"}, "application/json")
