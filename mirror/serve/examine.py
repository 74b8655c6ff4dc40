"""Objects on arrival: is it what its name says, and may it be in a store? Asked before the object gets its name.

A pack is decoded block by block, from the temporary file where it lies: one block in memory, whatever it claims. Its footer is not
decoded but held against the one that its blocks should have. A fragment must tell the truth about its packs, chunk by chunk, for
other clients reuse what it lists. A manifest object is decoded, so its paths are such as a manifest may hold. Nothing is looked up
in other objects but packs: those may still be on their way, and whoever accepts a record looks whether they came.

`Examiner` may be used by several threads.
"""

from __future__ import annotations

import struct
import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from blake3 import blake3

from mirror import envelope
from mirror.chunking import MAX_CHUNK, chunk_id
from mirror.envelope import CHANGES, CHUNKS, FRAGMENT, HEADER_SIZE, NAMES, NODE, OBJECT_MAX, RAW, SEGMENT, read_header, unseal
from mirror.errors import DamageError, MirrorError, NotFound
from mirror.index import Fragment, open_fragment, stored_place
from mirror.keys import INDEX, MANIFEST, PACK, ObjectName
from mirror.manifest import LEAF_IDS, NODE_REFS, SEGMENT_ENTRIES, Entry, decode_changes, decode_names, decode_node, decode_segment
from mirror.pack import (
    BLOCK_CHUNKS,
    HEAD_SIZE,
    PACK_CHUNKS,
    PACK_MAX,
    FooterLine,
    Slot,
    footer_payload,
    read_block,
    read_block_head,
    read_footer_payload,
)
from mirror.store import ReadableStore

MOST: Final = {PACK: PACK_MAX, INDEX: OBJECT_MAX, MANIFEST: OBJECT_MAX}  # bytes of an object, by its place
_TAIL: Final = OBJECT_MAX + 64  # holds any footer
_KEPT: Final = 8 << 20  # bytes of what is known of packs, 36 a chunk; a fragment comes every 128 MiB or 30 s
_MANIFEST: Final = (SEGMENT, NODE, CHUNKS, CHANGES, NAMES)
_ARRAY32: Final = 0xDD

Read = Callable[[int, int], bytes]


class Rejected(Exception):
    """What arrived is not accepted. The text is a clause that says why. kind is stable: rejected, rights, behind, altered."""

    def __init__(self, why: str, kind: str = "rejected") -> None:
        self.kind = kind
        super().__init__(why)


class PackContents(NamedTuple):
    """What is in a pack: its blocks, and the chunks of all of them in order. starts: number of the first chunk of each block."""

    size: int
    slots: tuple[Slot, ...]
    starts: tuple[int, ...]
    ids: bytes
    lengths: array[int]

    @property
    def cost(self) -> int:
        """Bytes of memory, about."""
        return 200 + len(self.ids) + 4 * len(self.lengths) + 200 * len(self.slots)

    def chunks_of(self, block: int) -> Iterator[tuple[int, int, bytes]]:
        """(offset in the plain bytes, length, id) of each chunk of a block."""
        offset = 0
        end = self.starts[block + 1] if block + 1 < len(self.starts) else len(self.lengths)
        for number in range(self.starts[block], end):
            yield offset, self.lengths[number], self.ids[32 * number : 32 * number + 32]
            offset += self.lengths[number]


def read_pack(read: Read, size: int, where: str) -> PackContents:
    """A pack, every block of it decoded. DamageError where anything in it is not as a pack is."""
    if size > PACK_MAX:
        raise DamageError("cannot use the pack", where=where, why=f"it has {size} bytes, at most {PACK_MAX} are allowed")
    kind, codec = read_header(read(0, HEADER_SIZE), where)
    if kind != envelope.PACK or codec != RAW:
        raise DamageError("cannot use the pack", where=where, why="it does not begin as a pack does")
    told, tail = read_footer_payload(read(max(0, size - _TAIL), size), where)
    lines: list[FooterLine] = []
    ids, count, at = bytearray(), 0, HEADER_SIZE
    while at < size - tail:
        head = read_block_head(read(at, at + HEAD_SIZE), where)
        count += head.chunks
        if not 0 < head.chunks <= BLOCK_CHUNKS or count > PACK_CHUNKS + BLOCK_CHUNKS or at + head.span > size - tail:
            raise DamageError("cannot use the pack", where=where, why="its blocks have too many chunks, or none, or no end")
        block = read_block(read(at, at + head.span), where)
        if not all(0 < length <= MAX_CHUNK for length in block.lengths):
            raise DamageError("cannot use the pack", where=where, why="it has a chunk of a length that no chunk has")
        for chunk in block.chunks():
            ids += chunk_id(chunk)
        lines.append(FooterLine(at, head.span, head.plain, head.checksum, list(block.lengths)))
        at += head.span
    if at != size - tail or not lines:
        raise DamageError("cannot use the pack", where=where, why="its blocks do not end where its footer begins")
    if footer_payload(lines) != told:
        raise DamageError("cannot use the pack", where=where, why="its footer does not say what its blocks are")
    starts, lengths = [], array("I")
    for line in lines:
        starts.append(len(lengths))
        lengths.extend(line.lengths)
    slots = tuple(Slot(line.offset, line.stored, line.plain) for line in lines)
    return PackContents(size, slots, tuple(starts), bytes(ids), lengths)


class Examiner:
    """Examines what arrives for one store. What it finds in packs is remembered for the fragment that comes behind them, in bounded
    memory; a pack that is no longer remembered is read again."""

    def __init__(self, store: ReadableStore, kept: int = _KEPT) -> None:
        self._store, self._most = store, kept
        self._packs: OrderedDict[str, PackContents] = OrderedDict()
        self._kept = 0
        self._remembering = threading.Lock()
        # What a hostile object of 4 MiB can be decoded to is much: one at a time. Honest ones take a millisecond.
        self._decoding = threading.Lock()

    def examine(self, name: ObjectName, read: Read, size: int, hashed: bytes) -> Fragment | list[Entry] | None:
        """Rejected unless the bytes behind `read` are an object of this name. hashed: the BLAKE3 of all its bytes. Gives what a
        fragment or a segment has: whoever needs that next need not decode it again."""
        key = name.key()
        if size > MOST[name.place]:
            raise Rejected(f"it has {size:,} bytes, and an object in {name.place}/ at most {MOST[name.place]:,}")
        try:
            if name.place == PACK:
                if hashed != name.digest:
                    raise Rejected("its content is not what its name says")
                self._remember(key, read_pack(read, size, key))
                return None
            data = read(0, size)
            with self._decoding:
                if name.place == INDEX:
                    return self._fragment(unseal(data, (FRAGMENT,), name.digest, key)[1], key)
                return _manifest_object(data, name, key)
        except MirrorError as error:
            raise Rejected(error.why) from None

    def _fragment(self, payload: bytes, key: str) -> Fragment:
        """A fragment; Rejected unless all that it says of chunks is so."""
        fragment = open_fragment(payload, key)  # its places are held against what they should be, a chunk at a time
        rows: dict[int, dict[int, list[tuple[bytes, bytes]]]] = {}
        last = b""
        for (number, block, *_), place, id_ in fragment.rows():
            if id_ < last:
                raise Rejected("its ids are out of order")
            last = id_
            rows.setdefault(number, {}).setdefault(block, []).append((place, id_))
        if any(number >= len(fragment.packs) for number in rows):
            raise Rejected("it places a chunk in a pack that it does not list")
        for number, line in enumerate(fragment.packs):
            pack = line.name.key()
            try:
                contents = self._contents(pack)
            except NotFound:
                raise Rejected(f"it lists {pack}, which is not there") from None
            if contents.size != line.size or contents.slots != tuple(line.blocks):
                raise Rejected(f"it says of {pack} what that pack is not")
            _check_rows(contents, number, rows.get(number, {}), pack)
        return fragment

    def _contents(self, key: str) -> PackContents:
        """What is in a pack of the store. NotFound."""
        with self._remembering:
            if key in self._packs:
                self._packs.move_to_end(key)
                return self._packs[key]
        size = self._store.size(key)
        if size is None:
            raise NotFound(key)
        found = read_pack(lambda start, end: self._store.get_ranges(key, [(start, end)])[0], size, key)
        self._remember(key, found)
        return found

    def _remember(self, key: str, contents: PackContents) -> None:
        with self._remembering:
            if key not in self._packs:
                self._packs[key] = contents
                self._kept += contents.cost
            while self._kept > self._most and len(self._packs) > 1:
                self._kept -= self._packs.popitem(last=False)[1].cost


def _check_rows(contents: PackContents, number: int, rows: dict[int, list[tuple[bytes, bytes]]], pack: str) -> None:
    """Rejected unless each of these chunks is in the pack, just there. number: of the pack in the fragment; rows: by block, (place
    as it is stored, id)."""
    for block, wanted in rows.items():
        there = (
            {stored_place(number, block, offset, length): id_ for offset, length, id_ in contents.chunks_of(block)}
            if block < len(contents.starts)
            else {}
        )
        for place, id_ in wanted:
            if there.get(place) != id_:
                raise Rejected(f"it says that a chunk is in {pack} that is not there")


def _manifest_object(data: bytes, name: ObjectName, key: str) -> list[Entry] | None:
    """The entries of a segment; None for what is true and no segment."""
    kind, payload = unseal(data, _MANIFEST, name.digest, key)
    if kind == SEGMENT:
        if len(payload) < 5 or payload[0] != _ARRAY32 or struct.unpack_from(">I", payload, 1)[0] > SEGMENT_ENTRIES:
            raise Rejected(f"a segment is an array of at most {SEGMENT_ENTRIES:,} entries")
        return decode_segment(payload, key)
    if kind == NODE:
        if len(decode_node(payload, key)[1]) > NODE_REFS:
            raise Rejected(f"a node lists at most {NODE_REFS:,} objects")
    elif kind == CHUNKS:
        if not payload or len(payload) % 32 or len(payload) > 32 * LEAF_IDS:
            raise Rejected(f"a list of chunks has up to {LEAF_IDS:,} ids of 32 bytes")
    elif kind == CHANGES:
        decode_changes(payload, key)
    else:
        decode_names(payload, key)
    return None


class Hash:
    """The BLAKE3 of what goes by, for `Examiner.examine`."""

    def __init__(self) -> None:
        self._blake3 = blake3()

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """So much more."""
        self._blake3.update(data)

    def digest(self) -> bytes:
        """32 bytes."""
        return self._blake3.digest()
