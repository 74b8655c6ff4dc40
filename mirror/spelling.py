"""How the values of options are spelt: sizes, durations, percentages, numbers, choices. Pure: text in, value out; a ValueError says
what the text is not.

Flags, `MIRROR_*` variables and mirror.toml are spelt alike, since all of them come here. `VALUES` says which option takes what, so
a configuration file can be checked as a whole before anybody asks for a value; an option that is not in it takes any text.

    >>> size("10M"), duration("1h30m"), VALUES["part"]("3/7")
    (10485760, 5400.0, (3, 7))
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeVar

_N = TypeVar("_N", int, float)
HASHES: Final = ("xxh128", "blake3", "sha256")
ON_ERROR: Final = ("continue", "stop")
MOST_GRACE: Final = 1000  # snapshots: each takes up to 170 bytes of a record, which has 1 MiB at most
MOST_ORDER: Final = 100  # globs
DELETE: Final = ("after", "never")
RIGHTS: Final = ("read", "append", "publish", "prune")
LEAST_MEMORY: Final = 8 << 20
OVERWRITE: Final = ("always", "if-newer", "never")
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SECONDS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_YES: Final = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([KMGTP]?)(?:i?B)?", re.IGNORECASE)
_DURATION: Final = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?[smhdw])+|[0-9]+(?:\.[0-9]+)?")
_PERCENT: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%")
_PART: Final = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")
CASE_CONFLICT: Final = ("error", "skip")
SYMLINKS: Final = ("keep", "follow", "skip")
# The headers that a file may be published with, and what a value of each looks like where not every text will do.
HEADERS: Final[Mapping[str, tuple[str, str]]] = {
    "cache-control": ("", ""),
    "content-disposition": ("", ""),
    "content-encoding": (r"[\w.+-]+(, ?[\w.+-]+)*", "gzip"),
    "content-language": (r"[\w-]+(, ?[\w-]+)*", "en-GB"),
    "content-type": (r"[\w!#$&^.+-]+/[\w!#$&^.+-]+( ?;.*)?", "text/html; charset=utf-8"),
    "x-amz-storage-class": (r"[A-Z0-9_]+", "STANDARD_IA"),
    "x-amz-website-redirect-location": (r"(/|https?://).*", "/new.html or https://www.example.org/new.html"),
}
_HEADER_MAX: Final = 2048  # characters of a value; S3 takes 2 KB of a redirect and 8 KB of all headers together
_ROUTE: Final = re.compile(rf"(.*?): ?({'|'.join(HEADERS)}) ?:(.*)", re.IGNORECASE | re.DOTALL)
_LIKE_ROUTE: Final = re.compile(r".+?: ?([\w-]+) ?:")


class Route(NamedTuple):
    """A header for the files that a pattern matches. name: in lower case."""

    pattern: str
    name: str
    value: str


class Amount(NamedTuple):
    """A number (of paths, of bytes), or a percentage: one of the two is None."""

    number: int | None = None
    percent: float | None = None


def size(text: str) -> int:
    """Bytes: `512`, `512k`, `10M`, `1GiB`, `1.5g`; units are powers of 1024. ValueError for anything else.

    >>> size("10M"), size("1.5GiB"), size("0")
    (10485760, 1610612736, 0)
    """
    match = _SIZE.fullmatch(text.strip())
    if not match:
        raise ValueError("it is no size such as 512k, 10M or 1.5GiB")
    return int(float(match[1]) * _UNITS[match[2].upper()]) if "." in match[1] else int(match[1]) * _UNITS[match[2].upper()]


def duration(text: str) -> float:
    """Seconds: `90`, `90s`, `45m`, `26h`, `7d`, `1h30m`. ValueError for anything else.

    >>> duration("26h"), duration("1h30m"), duration("0.5s")
    (93600.0, 5400.0, 0.5)
    """
    if not _DURATION.fullmatch(text.strip()):
        raise ValueError("it is no duration such as 90s, 45m, 26h or 7d")
    return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)([smhdw]?)", text))


def some_bytes(text: str) -> int:
    """Bytes, more than none. ValueError for anything else."""
    return _more_than_none(size(text))


def some_time(text: str) -> float:
    """Seconds, more than none. ValueError for anything else."""
    return _more_than_none(duration(text))


def _more_than_none(found: _N) -> _N:
    if found <= 0:
        raise ValueError("it must be more than 0")
    return found


def lease(text: str) -> float:
    """Seconds of a lease, from one second to an hour. ValueError for anything else."""
    seconds = duration(text)
    if not 1 <= seconds <= 3600:
        raise ValueError("a lease holds from 1s to 1h")
    return seconds


def percent(text: str) -> float:
    """The number before a `%`, 0 to 100. ValueError for anything else."""
    match = _PERCENT.fullmatch(text.strip())
    if not match or float(match[1]) > 100:
        raise ValueError("it is no percentage from 0% to 100%")
    return float(match[1])


def whole(text: str, least: int = 0) -> int:
    """A whole number, at least `least`. ValueError for anything else."""
    if not text.strip().isascii() or not text.strip().isdigit() or int(text) < least:
        raise ValueError(f"it is no whole number from {least} up")
    return int(text)


def choice(text: str, choices: Sequence[str]) -> str:
    """One of some words. ValueError for anything else."""
    if text not in choices:
        raise ValueError(f"it is none of {', '.join(choices)}")
    return text


def yes_or_no(text: str) -> bool:
    """`1 true yes on`, `0 false no off`, in any case. ValueError for anything else."""
    if text.strip().lower() not in _YES:
        raise ValueError("it is neither yes nor no")
    return _YES[text.strip().lower()]


def paths(text: str) -> Amount:
    """So many paths: `100`, `10%`. ValueError for anything else.

    >>> paths("100"), paths("10%")
    (Amount(number=100, percent=None), Amount(number=None, percent=10.0))
    """
    if text.strip().endswith("%"):
        return Amount(percent=percent(text))
    if not (text.isascii() and text.isdigit()):
        raise ValueError("it is neither a number of paths nor a percentage such as 10%")
    return Amount(int(text))


def room(text: str) -> Amount:
    """So much of a disk: bytes as `size`, or `5%`. ValueError for anything else."""
    return Amount(percent=percent(text)) if text.strip().endswith("%") else Amount(size(text))


def part(text: str) -> tuple[int, int]:
    """`3/7`: the third of seven. ValueError for anything else."""
    match = _PART.fullmatch(text.strip())
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError("it is no part such as 3/7")
    return int(match[1]), int(match[2])


def deletion(text: str) -> str | bool:
    """What `delete` may say: `after` or `never` of a sync; of a restore, where it is a switch, yes or no. ValueError otherwise.

    >>> deletion("never"), deletion("1")
    ('never', True)
    """
    try:
        return text if text in DELETE else yes_or_no(text)
    except ValueError:
        raise ValueError(f"it is none of {', '.join(DELETE)}, or for a restore yes or no") from None


def grace(text: str) -> int:
    """So many snapshots, at most a thousand. ValueError for anything else."""
    number = whole(text)
    if number > MOST_GRACE:
        raise ValueError(f"it is more than {MOST_GRACE:,} snapshots")
    return number


def route(text: str) -> Route:
    """`GLOB: Name: value`: a header for the files that match. ValueError for anything else.

    >>> route("*.css: Cache-Control: max-age=31536000")
    Route(pattern='*.css', name='cache-control', value='max-age=31536000')
    """
    match = _ROUTE.fullmatch(text)
    if not match:
        raise ValueError(_no_route(text))
    pattern, name, value = match[1].strip(), match[2].lower(), match[3].strip()
    if not pattern or pattern.startswith(("#", "!")):
        raise ValueError("its pattern matches nothing: write one as in .gitignore, such as *.css")
    if not value or not value.isascii() or not value.isprintable():
        raise ValueError(f"the value of {match[2]} is {'empty' if not value else 'not printable ASCII'}")
    if len(value) > _HEADER_MAX:
        raise ValueError(f"the value of {match[2]} has more than {_HEADER_MAX:,} characters")
    form, example = HEADERS[name]
    if form and not re.fullmatch(form, value, re.ASCII):
        raise ValueError(f"{value!r} is no value of {match[2]}, such as {example}")
    return Route(pattern, name, value)


def _no_route(text: str) -> str:
    named = _LIKE_ROUTE.match(text)
    if not named:
        return "it is no route such as '*.css: Cache-Control: max-age=86400'"
    from difflib import get_close_matches

    near = get_close_matches(named[1].lower(), HEADERS, n=1)
    return f"the header {named[1]} cannot be set" + (f" (did you mean {near[0]}?)" if near else f", but {', '.join(HEADERS)}")


def web_address(text: str) -> str:
    """`https://www.example.org/docs`: where a site is served. ValueError for anything else, and for one with credentials in it.

    >>> web_address("https://www.example.org/docs/")
    'https://www.example.org/docs'
    """
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(text.strip())
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right or not text.isprintable() or " " in text.strip() or not text.isascii() or parts.query or parts.fragment:
        raise ValueError("it is no URL such as https://www.example.org")
    if "@" in parts.netloc:
        raise ValueError("it is not to have credentials in it: it is asked as everybody could")
    return text.strip().rstrip("/")


def address(text: str) -> tuple[str, int]:
    """`HOST:PORT`: where to listen. ValueError for anything else.

    >>> address("127.0.0.1:8080"), address("[::1]:0")
    (('127.0.0.1', 8080), ('::1', 0))
    """
    host, colon, port = text.strip().rpartition(":")
    inner = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_port = port.isascii() and port.isdigit() and int(port[:6]) < 65_536
    if not colon or not inner or (":" in inner and inner == host) or not is_port:
        raise ValueError("it is no address such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080")
    return inner, int(port)


def rights(text: str) -> tuple[str, ...]:
    """`read,append`: rights of a key in their order, each once. ValueError for anything else.

    >>> rights("append, read")
    ('read', 'append')
    """
    said = [word.strip() for word in text.split(",")]
    for word in said:
        if word not in RIGHTS:
            raise ValueError(f"{word!r} is no right: they are {', '.join(RIGHTS)}")
    return tuple(right for right in RIGHTS if right in said)


def as_site(text: str) -> str | bool:
    """What `site` may say: of `serve`, where it is a switch, yes or no; elsewhere the name of a site, which says nothing here."""
    try:
        return yes_or_no(text)
    except ValueError:
        return text


def memory(text: str) -> int:
    """Bytes to be held in memory, at least 8 MiB. ValueError for anything else."""
    count = size(text)
    if count < LEAST_MEMORY:
        raise ValueError("it is less than 8M")
    return count


def shown(text: str) -> str:
    """A value in quotes for messages, without the credentials of a URL."""
    return repr(re.sub(r"//[^/]*@", "//…@", text))


VALUES: Final[Mapping[str, Callable[[str], object]]] = {
    "bwlimit": size,
    "case_conflict": partial(choice, choices=CASE_CONFLICT),
    "delete": deletion,
    "delete_grace": grace,
    "hash": partial(choice, choices=HASHES),
    "header": route,
    "lease": lease,
    "listen": address,
    "max_age": duration,
    "max_delete": paths,
    "max_duration": duration,
    "max_transfer": size,
    "memory": memory,
    "min_free": room,
    "on_error": partial(choice, choices=ON_ERROR),
    "overwrite": partial(choice, choices=OVERWRITE),
    "part": part,
    "public_url": web_address,
    "symlinks": partial(choice, choices=SYMLINKS),
    "transfers": partial(whole, least=1),
    "workers": whole,
}
