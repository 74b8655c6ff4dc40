"""Names: ids, object names with their epoch, and the paths of a site. Values in, values out, no IO.

Owns the spelling of every key in a store and the rule which paths a manifest may hold. Leaves what objects contain to
manifest, pack and index.

    >>> ObjectName(PACK, bytes(32), 17).key()
    'packs/00/0000000000000000000000000000000000000000000000000000000000000000.17'

Paths of a site are bytes, `/` between components, a folder's path ending in `/`, the root folder the empty path. Whole-path
byte order is the order of everything.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

from mirror.errors import UsageError

MANIFEST, PACK, INDEX, WHOLE = "manifests", "packs", "index", "whole"
MIRROR_KEY, LATEST_KEY, LEASE_KEY, LOG_PREFIX = "mirror.json", "latest.json", "lease.json", "log/"
STORE = ".mirror"  # the folder of a tree that holds its store; nothing of a site may be there
STORE_KEY = "store.json"  # in that folder instead of a store: where the store is

_OBJECT = re.compile(r"(manifests|packs)/([0-9a-f]{2})/([0-9a-f]{64})\.([0-9]{1,12})|(index)/([0-9a-f]{64})\.([0-9]{1,12})")
_WHOLE = re.compile(r"whole/([0-9a-f]{2})/([0-9a-f]{32})\.([0-9]{1,12})")
_RECORD = re.compile(r"log/([0-9]{12})\.json")
_SITE = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")


class ObjectName(NamedTuple):
    """A content-named object: where it lives (`manifests`, `packs`, `index`), its BLAKE3, the epoch of its writer."""

    place: str
    digest: bytes
    epoch: int

    def key(self) -> str:
        """The object's key in a store."""
        name = f"{self.digest.hex()}.{self.epoch}"
        return f"{self.place}/{name}" if self.place == INDEX else f"{self.place}/{name[:2]}/{name}"

    @classmethod
    def parse(cls, key: str) -> ObjectName | None:
        """The name behind a key, or None for anything that is not spelt exactly as `key` spells it."""
        match = _OBJECT.fullmatch(key)
        if not match:
            return None
        place = match[1] or match[5]
        name = cls(place, bytes.fromhex(match[3] or match[6]), int(match[4] or match[7]))
        return name if name.key() == key else None


def whole_key(content: bytes, epoch: int) -> str:
    """The key of a file kept as it is, by the 16 bytes of its content key."""
    name = f"{content.hex()}.{epoch}"
    return f"{WHOLE}/{name[:2]}/{name}"


def whole_content(key: str) -> bytes | None:
    """The content key of such a file, or None for another key."""
    match = _WHOLE.fullmatch(key)
    return bytes.fromhex(match[2]) if match and whole_key(bytes.fromhex(match[2]), int(match[3])) == key else None


def record_key(number: int) -> str:
    """The key of log record `number` (from 1)."""
    return f"{LOG_PREFIX}{number:012d}.json"


def record_number(key: str) -> int | None:
    """The number of a log record's key, or None for another key."""
    match = _RECORD.fullmatch(key)
    return int(match[1]) if match else None


def is_site_name(name: str) -> bool:
    """Whether `--site` may be this: lower-case letters, digits, dot and hyphen, at most 63, no hyphen or dot first."""
    return bool(_SITE.fullmatch(name))


def path_fault(path: bytes) -> str:
    """Why a manifest may not hold this path; empty when it may.

    A path that passes cannot leave the folder that it is joined to: no empty component, no `.`, no `..`, no NUL, not absolute.
    """
    if path == b"":
        return ""
    if b"\0" in path:
        return "it contains a NUL byte"
    if len(path) > 65_536:
        return "it is longer than 64 KiB"
    for part in (path[:-1] if path[-1:] == b"/" else path).split(b"/"):
        if part == b"":
            return "it has an empty component"
        if part == b"." or part == b"..":
            return f"it has the component {part.decode()!r}"
    return ""


def parent_of(path: bytes) -> bytes:
    """The folder that a path is in, ending in `/`; the empty path for something directly in the root.

    >>> parent_of(b"a/b/c"), parent_of(b"a/b/"), parent_of(b"a")
    (b'a/b/', b'a/', b'')
    """
    return path[: path.rfind(b"/", 0, -1) + 1]


def show(path: bytes) -> str:
    """A path for people: UTF-8, anything else as \\xNN; the root folder as `./`."""
    text = path.decode("utf-8", "backslashreplace") if path else "./"
    return text if text.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def segment_cut(path: bytes, mask: int) -> bool:
    """Whether a manifest is cut behind this path: the low bits of XXH3-64 of the path are zero. Part of format version 1."""
    return not xxh3_64_intdigest(path) & mask


# -- paths as users give them ------------------------------------------------------------------------------------------

_BEHIND_ALL = b"\xff" * 65_537  # no path is as long


def plain_path(path: bytes | str) -> bytes:
    """A path given by a user as it stands in a manifest, without the slash of a folder; empty for all.

    >>> plain_path("./docs/"), plain_path("/"), plain_path(".")
    (b'docs', b'', b'')
    """
    plain = os.fsencode(path).removeprefix(b"./").strip(b"/")
    return b"" if plain == b"." else plain


def spans_of(path: bytes | str) -> list[tuple[bytes, bytes]]:
    """The stretches of paths that a path given by a user covers: itself as a file, and what is below it as a folder."""
    plain = plain_path(path)
    only_folder = os.fsencode(path).endswith(b"/")
    if not plain:
        return [(b"", _BEHIND_ALL)]
    if fault := path_fault(plain):
        raise UsageError("cannot find", where=show(os.fsencode(path)), why=fault, hint="give paths as `mirror ls` prints them")
    below = (plain + b"/", plain + b"0")  # "0" is the byte after "/"
    return [below] if only_folder else [(plain, plain + b"\0"), below]


def joined(spans: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Spans in order, overlapping ones made one."""
    out: list[tuple[bytes, bytes]] = []
    for low, high in sorted(spans):
        if out and low < out[-1][1]:
            out[-1] = (out[-1][0], max(high, out[-1][1]))
        else:
            out.append((low, high))
    return out
