"""What a file's description is on an object: its media type, its headers, its time. Pure.

    >>> headers_of(b"a.css", Description(mtime=1_500_000_000))
    ({'ContentType': 'text/css', 'Metadata': {'mtime': '1.5'}}, ())

What a manifest says is not trusted: only known headers are set, never access rights, and only printable ASCII.
"""

from __future__ import annotations

from typing import Any, Final

from mirror.keys import show
from mirror.site.mediatypes import media_type
from mirror.site.writing import Description

# As a manifest spells them, and boto3's name.
_HEADERS: Final = {
    "cache-control": "CacheControl",
    "content-disposition": "ContentDisposition",
    "content-encoding": "ContentEncoding",
    "content-language": "ContentLanguage",
    "x-amz-storage-class": "StorageClass",
    "x-amz-website-redirect-location": "WebsiteRedirectLocation",
}
# boto3's name, and obstore's for those that it can set.
OBSTORE: Final = {
    "CacheControl": "Cache-Control",
    "ContentDisposition": "Content-Disposition",
    "ContentEncoding": "Content-Encoding",
    "ContentLanguage": "Content-Language",
    "ContentType": "Content-Type",
}


def headers_of(path: bytes, what: Description) -> tuple[dict[str, Any], tuple[str, ...]]:
    """boto3's arguments for a file's description, and what of it cannot be set, as sentences."""
    named = what.media_type if _is_clean(what.media_type) else ""
    headers: dict[str, Any] = {
        "ContentType": named or media_type(path),
        "Metadata": {} if what.mtime is None else {"mtime": time_text(what.mtime)},
    }
    if what.fingerprint:
        headers["Metadata"]["xxh3"] = what.fingerprint.hex()
    unset = []
    for name, value in what.headers:
        if (known := _HEADERS.get(name.lower())) and _is_clean(value):
            headers[known] = value
        else:
            unset.append(f"its header {show(name.encode('utf-8', 'backslashreplace'))} cannot be set on an object")
    return headers, tuple(unset)


def _is_clean(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable()


def time_text(mtime: int) -> str:
    """A time in ns as rclone writes it: seconds, and as many decimals as there are.

    >>> time_text(1_700_000_000_123_450_000), time_text(0), time_text(-1)
    ('1700000000.12345', '0', '-0.000000001')
    """
    seconds, rest = divmod(abs(mtime), 1_000_000_000)
    decimals = f".{rest:09}".rstrip("0").rstrip(".")
    return f"{'-' if mtime < 0 else ''}{seconds}{decimals}"


def parse_fingerprint(text: str | None) -> bytes:
    """The fingerprint behind its note; b"" for other text.

    >>> parse_fingerprint("00" * 16) == bytes(16), parse_fingerprint("zz")
    (True, b'')
    """
    try:
        found = bytes.fromhex(text or "")
    except ValueError:
        return b""
    return found if len(found) == 16 else b""


def parse_time(text: str) -> int | None:
    """The ns behind `time_text`; None for other text.

    >>> parse_time("1700000000.12345"), parse_time("-0.000000001"), parse_time("now")
    (1700000000123450000, -1, None)
    """
    plain = text.removeprefix("-")
    seconds, _, decimals = plain.partition(".")
    if not (f"{seconds}{decimals}".isascii() and f"{seconds}{decimals}".isdigit() and seconds) or len(plain) > 40:
        return None
    value = int(seconds) * 1_000_000_000 + int(decimals[:9].ljust(9, "0"))
    return -value if text.startswith("-") else value
