"""What a site was at one time: entries, the objects they are written in, and where those are cut. Pure.

A manifest is its entries in ascending order of whole-path bytes, cut into segments; nodes list segments (or nodes), up to
one root. The cuts hang on hashes of the paths around them, so that a manifest that differs in one place differs in one segment.
docs/format.md has every field; snapshot.py moves the objects in and out of a store.

    >>> entry = Folder(path=b"docs/", mtime=0, mode=0o755)
    >>> decode_segment(encode_segment([encode(entry)]), "x") == [entry]
    True
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import lt
from typing import NamedTuple

import msgspec

from mirror.chunking import ChunkId, Fingerprint
from mirror.errors import DamageError
from mirror.keys import MANIFEST, ObjectName, path_fault, segment_cut

INLINE_CHUNKS = 64  # a longer list of chunks is an object of its own
SEGMENT_MASK, SEGMENT_ENTRIES, SEGMENT_BYTES = 1023, 4096, 1 << 20
NODE_MASK, NODE_REFS = 255, 1024
LEAF_IDS = 4096  # ids of one leaf of a chunk list
ID = 32


class Ref(NamedTuple):
    """A manifest object as another one names it, with the first path below it, and the entries and plain bytes there."""

    first: bytes
    digest: bytes
    epoch: int
    entries: int
    plain: int

    @property
    def name(self) -> ObjectName:
        return ObjectName(MANIFEST, self.digest, self.epoch)


class Folder(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="d"):
    """A folder; its path ends in `/`, the root's is empty. mtime: ns since 1970 or None; mode: 07777 bits or None."""

    path: bytes
    mtime: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    user: str = ""
    group: str = ""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


class Symlink(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="l"):
    """A symbolic link and what it says, wherever that leads."""

    path: bytes
    target: bytes
    mtime: int | None = None
    uid: int | None = None
    gid: int | None = None
    user: str = ""
    group: str = ""


class File(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="f"):
    """A file. Its content is `chunks` (32-byte ids in order, joined) or, past 64 of them, the list object `more`.

    link: the first path of the hard-link group that this file belongs to, empty for that first one and for files alone.
    """

    path: bytes
    size: int
    fingerprint: bytes
    class_: int
    chunks: bytes
    more: Ref | None = None
    mtime: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    user: str = ""
    group: str = ""
    link: bytes = b""
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    media_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


class Page(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="p"):
    """A page of a live web site: content as in File, and how the server answered. blanked: fingerprint without volatile parts."""

    path: bytes
    url: str
    status: int
    size: int
    fingerprint: bytes
    class_: int
    chunks: bytes
    more: Ref | None = None
    mtime: int | None = None
    etag: str = ""
    last_modified: str = ""
    media_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    links: tuple[str, ...] = ()
    blanked: bytes = b""


class Redirect(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="r"):
    """A URL that answers with another one."""

    path: bytes
    url: str
    status: int
    location: str
    mtime: int | None = None


Entry = Folder | Symlink | File | Page | Redirect
WithContent = File | Page

# A list within a list within a list, where a reader skips what it does not know, ends in the second of these; text that is no
# UTF-8 in the third.
_UNREADABLE = (msgspec.MsgspecError, RecursionError, UnicodeDecodeError)
_FOLDER_ENDS = (b"/", b"")
_encoder = msgspec.msgpack.Encoder()
_segment_decoder = msgspec.msgpack.Decoder(list[Entry])
_entry_decoder = msgspec.msgpack.Decoder(Entry)
_node_decoder = msgspec.msgpack.Decoder(tuple[int, list[Ref]])


class ChangeLine(NamedTuple):
    """One path of a change list: `+ * - > .` and, for a moved one, where it came from."""

    symbol: str
    path: bytes
    moved_from: bytes = b""


_changes_decoder = msgspec.msgpack.Decoder(list[ChangeLine])
_names_decoder = msgspec.msgpack.Decoder(list[str])


def encode(entry: Entry) -> bytes:
    """An entry's bytes within a segment."""
    return _encoder.encode(entry)


def decode_entry(data: bytes) -> Entry:
    """The entry behind `encode`'s bytes, ours (spools): not checked further."""
    entry: Entry = _entry_decoder.decode(data)
    return entry


def _array(parts: list[bytes]) -> bytes:
    return b"\xdd" + len(parts).to_bytes(4, "big") + b"".join(parts)


def encode_segment(entries: list[bytes]) -> bytes:
    """A segment's payload from encoded entries: a msgpack array, always with the 32-bit header."""
    return _array(entries)


def decode_segment(payload: bytes, where: str) -> list[Entry]:
    """A segment's entries, checked: DamageError unless each path may be in a manifest and they ascend strictly."""
    try:
        entries = _segment_decoder.decode(payload)
    except _UNREADABLE as error:
        raise DamageError("cannot read the segment", where=where, why=str(error)) from error
    fault = _fault(entries)
    if fault:
        raise DamageError("cannot use the segment", where=where, why=fault)
    return entries


def _fault(entries: list[Entry]) -> str:
    """What is wrong with decoded entries; whole columns at a time: 0.6 µs an entry, a loop over the same tests takes 3 µs."""
    paths = [entry.path for entry in entries]
    if not all(map(lt, paths, paths[1:])):
        return "its paths are out of order"
    joined = b"\0".join([b"", *paths])
    if (
        joined.count(b"\0") != len(paths)
        or any(bad in joined for bad in (b"/.", b"//", b"\0.", b"\0/"))
        or max(map(len, paths), default=0) > 4096
    ):
        for path in paths:
            if path_fault(path):
                return f"the path {path!r} is not allowed: {path_fault(path)}"
    if [path[-1:] in _FOLDER_ENDS for path in paths] != [type(entry) is Folder for entry in entries]:
        return "a path does not fit the kind of its entry"
    contents = [entry for entry in entries if type(entry) is File or type(entry) is Page]
    if any(
        len(e.chunks) % ID or len(e.chunks) > INLINE_CHUNKS * ID or not 0 <= e.class_ <= 2 or not 0 <= e.size < 2**63
        or len(e.fingerprint) != 16
        for e in contents
    ):  # fmt: skip
        return "an entry's content is malformed"
    links = [entry.link for entry in contents if type(entry) is File and entry.link]
    return next((f"the hard link's path {link!r} is not allowed" for link in links if path_fault(link)), "")


def encode_node(level: int, refs: list[Ref]) -> bytes:
    """A node's payload: its level (1 above leaves) and what it lists, in order."""
    return _encoder.encode((level, refs))


def decode_node(payload: bytes, where: str) -> tuple[int, list[Ref]]:
    """(level, refs) of a node. DamageError when it is malformed."""
    try:
        level, refs = _node_decoder.decode(payload)
    except _UNREADABLE as error:
        raise DamageError("cannot read the node", where=where, why=str(error)) from error
    if not 1 <= level <= 8 or any(len(ref.digest) != 32 or ref.epoch < 0 for ref in refs):
        raise DamageError("cannot use the node", where=where, why="it is malformed")
    return level, refs


def encode_changes(lines: list[ChangeLine]) -> bytes:
    """The payload of a leaf of a change list."""
    return _encoder.encode(lines)


def decode_changes(payload: bytes, where: str) -> list[ChangeLine]:
    """The lines of a leaf of a change list. DamageError when it is malformed."""
    try:
        return _changes_decoder.decode(payload)
    except _UNREADABLE as error:
        raise DamageError("cannot read the change list", where=where, why=str(error)) from error


def encode_names(keys: list[str]) -> bytes:
    """The payload of a leaf of a list of object keys (what a prune record dooms)."""
    return _encoder.encode(keys)


def decode_names(payload: bytes, where: str) -> list[str]:
    """The keys of a leaf of a list of names. DamageError when it is malformed."""
    try:
        return _names_decoder.decode(payload)
    except _UNREADABLE as error:
        raise DamageError("cannot read the list of names", where=where, why=str(error)) from error


def split_ids(joined: bytes) -> list[ChunkId]:
    """The ids of joined 32-byte ids."""
    return [ChunkId(joined[at : at + ID]) for at in range(0, len(joined), ID)]


class Piece(NamedTuple):
    """A leaf or node ready to be stored: its payload and what its ref will say."""

    payload: bytes
    first: bytes
    entries: int
    plain: int


def cut_entries(entries: Iterable[Entry]) -> Iterator[Piece]:
    """Segments from entries in order: cut behind a path whose hash says so, at 4,096 entries or 1 MiB in any case."""
    parts: list[bytes] = []
    first, size, plain = b"", 0, 0
    for entry in entries:
        data = _encoder.encode(entry)
        if not parts:
            first = entry.path
        parts.append(data)
        size += len(data)
        if type(entry) is File or type(entry) is Page:
            plain += entry.size
        if segment_cut(entry.path, SEGMENT_MASK) or len(parts) >= SEGMENT_ENTRIES or size >= SEGMENT_BYTES:
            yield Piece(encode_segment(parts), first, len(parts), plain)
            parts, size, plain = [], 0, 0
    if parts:
        yield Piece(encode_segment(parts), first, len(parts), plain)


def cut_refs(level: int, refs: Iterable[Ref]) -> Iterator[Piece]:
    """Nodes of `level` over refs in order: cut behind a ref whose digest says so, at 1,024 or 1 MiB of paths in any case."""
    held: list[Ref] = []
    size = 0
    for ref in refs:
        held.append(ref)
        size += len(ref.first)
        if not ref.digest[0] & NODE_MASK or len(held) >= NODE_REFS or size >= SEGMENT_BYTES:
            yield _node_piece(level, held)
            held, size = [], 0
    if held:
        yield _node_piece(level, held)


def _node_piece(level: int, refs: list[Ref]) -> Piece:
    return Piece(encode_node(level, refs), refs[0].first, sum(ref.entries for ref in refs), sum(ref.plain for ref in refs))


def cut_ids(joined: bytes) -> Iterator[Piece]:
    """Leaves of a chunk list: cut behind an id whose last ten bits are zero, at 4,096 ids in any case."""
    start = 0
    for at in range(0, len(joined), ID):
        end = at + ID
        if not (joined[end - 1] | (joined[end - 2] & 3)) or end - start >= LEAF_IDS * ID or end == len(joined):
            yield Piece(joined[start:end], b"", (end - start) // ID, 0)
            start = end


def fingerprint_hex(fingerprint: Fingerprint | bytes) -> str:
    """As `xxhsum -H2` prints it."""
    return fingerprint.hex()
