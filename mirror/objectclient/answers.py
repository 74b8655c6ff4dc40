"""What obstore's exceptions mean: the one place where they become ours. Pure: an exception in, a verdict or an error out.

obstore tells what happened only in text: the HTTP status, the service's own XML error, and in a "Debug source" part how far the
request got. `Verdict` is that text read once; `error_for` words it. Nothing of a query string is repeated, for that is where
signatures and tokens travel.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from mirror.errors import AuthError, MirrorError, TargetMissingError, TemporaryError, UsageError

# How far a request got, by obstore's HttpError: sent again by obstore itself are only Connect and Request, and for reads
# Timeout and Interrupted; a body that breaks off and a create that timed out are not.
_NO_BUCKET_CODES = ("NoSuchBucket", "ContainerNotFound")
_TRANSPORT = ("Connect", "Request", "Timeout", "Interrupted")


# For an exception that says nothing but its name.
_STATUS_OF = {
    "FileNotFoundError": 404,
    "NotFoundError": 404,
    "AlreadyExistsError": 409,
    "PreconditionError": 412,
    "PermissionDeniedError": 403,
    "UnauthenticatedError": 401,
}


@dataclass(frozen=True, slots=True)
class Verdict:
    """One failed request. status: HTTP status, 0 when no answer came; code: the service's own word for it (`NoSuchBucket`);
    message: the service's sentence; transport: how far a request got that was not answered; cause: the operating system's word
    for that."""

    status: int = 0
    code: str = ""
    message: str = ""
    transport: str = ""
    cause: str = ""
    skew_seconds: int | None = None
    name: str = ""

    @property
    def answered(self) -> bool:
        """Whether the server said something: it is there."""
        return bool(self.status or self.code)

    @property
    def absent(self) -> bool:
        """Whether the object is not there, though its bucket is."""
        return self.status == 404 and self.code not in _NO_BUCKET_CODES

    @property
    def temporary(self) -> bool:
        """Whether asking again later may help."""
        return self.status in (408, 409, 425, 429) or (self.status >= 500 and self.status != 501) or self.transport in _TRANSPORT


def verdict(error: BaseException) -> Verdict:
    """What an exception that left obstore says."""
    text, _, debug = str(error).partition("\n\nDebug source:")
    status = int(found[1]) if (found := re.search(r"status code: (\d{3})", text)) else 0
    code = found[1] or found[2] if (found := re.search(r"<Code>([^<]{1,80})</Code>|\(code: (\w{1,80})\)", text)) else ""
    message = found[1].strip() if (found := re.search(r"<Message>([^<]{1,400})</Message>", text)) else ""
    transport = found[1] if not status and (found := re.search(r"HttpError \{\s*kind: (\w+)", debug)) else ""
    name = type(error).__name__
    if "without LOCATION" in text:
        status, code = 301, "PermanentRedirect"
    if not code and "bucket does not exist" in text:  # Google says it in words
        code = "NoSuchBucket"
    if not (status or code):
        status = _STATUS_OF.get(name, 0)
    return Verdict(status, code, message or _first_line(text), transport, _cause(debug), _skew(text), name)


def client_verdict(error: BaseException) -> Verdict:
    """What an exception that left boto3 says, in the same words."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        said = response.get("Error", {})
        status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        code = str(said.get("Code", ""))
        skew = _skew("".join(f"<{name}>{said[name]}</{name}>" for name in ("RequestTime", "ServerTime") if name in said))
        return Verdict(
            status, "" if code == str(status) else code, str(said.get("Message", "")), "", "", skew, type(error).__name__
        )
    name, text = type(error).__name__, _first_line(str(error))
    if name in ("ConnectTimeoutError", "ReadTimeoutError"):
        return Verdict(0, "", text, "Timeout", "timed out", None, name)
    if name in ("EndpointConnectionError", "SSLError", "ProxyConnectionError"):
        return Verdict(0, "", text, "Connect", "its certificate is not trusted" if name == "SSLError" else "", None, name)
    if name in ("ConnectionClosedError", "HTTPClientError", "ResponseStreamingError", "ConnectionError"):
        return Verdict(0, "", text, "Interrupted", "", None, name)
    if name == "ResponseParserError":
        return Verdict(0, "", text, "Unknown", "", None, name)
    return Verdict(0, "", text, "", "", None, name)


def error_for(found: Verdict, what: str, where: str, bucket: str) -> MirrorError:
    """The error that a user sees. `what` is what could not be done, `where` the object's URL, `bucket` the place that must
    exist."""
    for codes, answer in _BY_CODE:
        if found.code in codes:
            return answer.error(found, what, where, bucket)
    if found.status in (401, 403):
        return _REFUSED.error(found, what, where, bucket)
    if found.status == 404:
        return _NO_BUCKET.error(found, what, where, bucket)
    if found.status == 501:
        return _CANNOT.error(found, what, where, bucket)
    if found.status == 400 and not found.code:
        return MirrorError(
            what, where=where, why="the server takes the request for a bad one (400)", hint="check --endpoint-url and --region"
        )
    if found.transport:
        return _no_answer(found, what, where)
    if found.temporary:
        why = f"the server answers {found.status}{f' ({found.code})' if found.code else ''}, again and again"
        return TemporaryError(what, where=where, why=why, hint="try again later")
    label = found.code or found.name
    return MirrorError(what, where=where, why=f"{found.message} ({label})" if label not in found.message else found.message)


def clean(text: str) -> str:
    """Text without the query strings and user names of URLs: signatures and tokens travel there."""
    return re.sub(r"(\w+://)[^\s/@]+@", r"\1", re.sub(r"\?[^\s\"'<>)]+", "", text))


@dataclass(frozen=True, slots=True)
class _Answer:
    """How a kind of failure is worded; `{bucket}`, `{code}` and `{message}` are filled in."""

    type: type[MirrorError]
    why: str
    hint: str
    kind: str = ""

    def error(self, found: Verdict, what: str, where: str, bucket: str) -> MirrorError:
        code = found.code or str(found.status)
        message = clean(found.message).rstrip(".")
        skew = _minutes(found.skew_seconds) if found.skew_seconds is not None else "more than the server allows, mostly 15 minutes"
        values = {"bucket": bucket, "code": code, "message": message, "skew": skew}
        return self.type(what, where=where, why=self.why.format(**values), hint=self.hint.format(**values), kind=self.kind)


_NO_BUCKET = _Answer(
    TargetMissingError, "there is no bucket {bucket} ({code})", "check the name, or create it first: aws s3 mb s3://{bucket}"
)
_REFUSED = _Answer(
    AuthError,
    "these credentials may not do that ({code})",
    "allow them to list {bucket} and to get and put its objects, or use others (AWS_ACCESS_KEY_ID, --profile)",
)
_CANNOT = _Answer(
    UsageError,
    "this server cannot do what a mirror needs ({code})",
    "it must honour If-None-Match on PUT, so that no object is overwritten: use another server",
)
_REGION = _Answer(UsageError, "the bucket {bucket} is in another region ({message})", "give its region with --region")
_BY_CODE: tuple[tuple[tuple[str, ...], _Answer], ...] = (
    (_NO_BUCKET_CODES, _NO_BUCKET),
    (("InvalidBucketName",), _Answer(UsageError, "{bucket} cannot be the name of a bucket", "check the URL")),
    (
        ("InvalidAccessKeyId",),
        _Answer(AuthError, "the server does not know this access key", "check AWS_ACCESS_KEY_ID, or --profile"),
    ),
    (
        ("SignatureDoesNotMatch",),
        _Answer(
            AuthError, "the secret key does not belong to the access key ({code})", "check AWS_SECRET_ACCESS_KEY, or --profile"
        ),
    ),
    (
        ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"),
        _Answer(AuthError, "the session of these credentials has ended ({code})", "log in again"),
    ),
    (
        ("RequestTimeTooSkewed", "RequestExpired"),
        _Answer(
            AuthError, "the clock of this machine and the server's differ by {skew}", "set the clock (NTP), then run again", "clock"
        ),
    ),
    (("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"), _REGION),
    (("NotImplemented",), _CANNOT),
    # Without a status: what a bulk deletion says of one key.
    (("AccessDenied",), _REFUSED),
    (
        ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage"),
        _Answer(TemporaryError, "the store is full ({code})", "make room there, then run again", "disk-full"),
    ),
)


def _no_answer(found: Verdict, what: str, where: str) -> MirrorError:
    hint = "check --endpoint-url and the network, or try again later"
    if found.transport == "Timeout" or "timed out" in found.cause:
        why = "the server does not answer (timed out)"
    elif found.transport == "Connect":
        why = f"no connection to the server ({found.cause or 'it cannot be reached'})"
        if "certificate" in found.cause.lower() or "InvalidContentType" in found.cause:
            return UsageError(what, where=where, why=why, hint="check --endpoint-url: http or https?", kind="tls")
    elif found.transport == "Unknown":
        return MirrorError(what, where=where, why="what answers there does not speak S3", hint="check --endpoint-url")
    else:
        why = f"the connection broke off ({found.cause or 'no whole answer'})"
    return TemporaryError(what, where=where, why=why, hint=hint)


def _cause(debug: str) -> str:
    """The innermost reason that obstore's debug text gives."""
    for pattern in (
        r'message: "([^"]{1,200})"',
        r'error: "([^"]{1,200})"',
        r"(invalid peer certificate[^\"]{0,120}|InvalidContentType)",
    ):
        if found := re.findall(pattern, debug):
            return str(found[-1]).lower() if pattern[0] == "m" else str(found[-1])
    if "InvalidCertificate" in debug:
        return "its certificate is not trusted"
    if "TimedOut" in debug or "Elapsed" in debug:
        return "timed out"
    return ""


def _skew(text: str) -> int | None:
    """How far the clocks are apart, where the error document gives both times."""
    request, server = (re.search(rf"<{name}>([^<]+)</{name}>", text) for name in ("RequestTime", "ServerTime"))
    if not request or not server:
        return None
    try:
        return int(abs((_time(request[1]) - _time(server[1])).total_seconds()))
    except ValueError:
        return None


def _time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _minutes(seconds: int) -> str:
    return (
        f"{seconds // 60} minutes"
        if seconds < 7200
        else f"{seconds // 3600} hours"
        if seconds < 172_800
        else f"{seconds // 86_400} days"
    )


def _first_line(text: str) -> str:
    return clean(text.split("\n", 1)[0])[:300]
