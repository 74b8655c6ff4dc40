"""One pack, read whole and checked against its name, itself and the index. What a worker of `verify` does; changes nothing.

A pack that is what its name says was written so; its blocks are decoded and its chunks identified all the same, for whoever
wrote it may have been wrong. One that is not is taken apart block by block, so only chunks that are really gone count as lost.

    scrubbed = scrub(ask, tell, StoreSpec("/backup/www"), Expected(key, size, blocks, ids, places))
    scrubbed.why, len(scrubbed.lost) // 32
"""

from __future__ import annotations

import struct
from collections import defaultdict
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

from blake3 import blake3

from mirror.chunking import chunk_id
from mirror.errors import DamageError, NotFound
from mirror.keys import ObjectName
from mirror.pack import PACK_MAX, Slot, read_block, read_footer
from mirror.store import StoreSpec
from mirror.store.open import open_store
from mirror.store.wrap import CountingStore, Counts
from mirror.workers import Ask, Tell

PLACE = struct.Struct("<III")  # block, offset, length
_ID = 32


class Expected(NamedTuple):
    """A pack as the index has it; picklable. ids, places: of the chunks that the index has in it, by block and offset, joined."""

    key: str
    size: int
    blocks: list[Slot]
    ids: bytes
    places: bytes


class Scrubbed(NamedTuple):
    """What was found. why: what is wrong with the pack, empty if nothing is. lost: ids of chunks that it does not give, joined."""

    key: str
    read: int
    why: str
    lost: bytes
    counts: Counts


@lru_cache(maxsize=2)
def _store(spec: StoreSpec) -> CountingStore:
    return CountingStore(open_store(spec))


def release() -> None:
    """Give back what scrubs in this process have opened: another run may have other credentials."""
    _store.cache_clear()


def scrub(ask: Ask, tell: Tell, spec: StoreSpec, pack: Expected) -> Scrubbed:
    """Read one pack and check all of it. Errors of the store that are not damage are raised."""
    store = _store(spec)
    before = store.counts
    try:
        data = store.get(pack.key, PACK_MAX)
    except NotFound:
        return Scrubbed(pack.key, 0, "it is not there", pack.ids, store.counts - before)
    except DamageError as error:
        return Scrubbed(pack.key, 0, error.why, pack.ids, store.counts - before)
    why, lost = check(data, pack)
    return Scrubbed(pack.key, len(data), why, lost, store.counts - before)


def check(data: bytes, pack: Expected) -> tuple[str, bytes]:
    """(what is wrong with the pack's bytes, ids that they do not give). Pure."""
    name = ObjectName.parse(pack.key)
    assert name
    faults = []
    if len(data) != pack.size:
        faults.append(f"it has {len(data):,} bytes, {pack.size:,} are right")
    elif blake3(data).digest() != name.digest:
        faults.append("its bytes are not what its name says")
    lengths: list[list[int]] | None = None
    try:
        lines = read_footer(data, pack.key)
    except DamageError as error:
        faults.append(error.why)
    else:
        lengths = [line.lengths for line in lines]
        if [(line.offset, line.stored, line.plain) for line in lines] != [tuple(slot) for slot in pack.blocks]:
            faults.append("its footer and the index list other blocks")
            lengths = None
    lost, spoilt = _missing(data, pack, lengths)
    if spoilt:
        faults.append(f"{spoilt:,} of its {len(pack.blocks):,} blocks are damaged")
    elif lost and not faults:
        faults.append("the index lists other chunks than it has")
    return "; ".join(faults), lost


def _missing(data: bytes, pack: Expected, lengths: list[list[int]] | None) -> tuple[bytes, int]:
    """(ids of chunks that cannot be had, number of blocks that cannot be used). lengths: of chunks, as the footer has them."""
    wanted: defaultdict[int, list[tuple[bytes, int, int]]] = defaultdict(list)
    for at, (block, offset, length) in enumerate(PLACE.iter_unpack(pack.places)):
        wanted[block].append((pack.ids[at * _ID : at * _ID + _ID], offset, length))
    view, lost, spoilt = memoryview(data), [], 0
    for number, slot in enumerate(pack.blocks):
        try:
            block = read_block(view[slot.offset : slot.offset + slot.stored], pack.key)
            if len(block.plain) != slot.plain or (lengths is not None and list(block.lengths) != lengths[number]):
                raise DamageError("cannot use a block", where=pack.key, why="its lengths are not those of the footer")
        except DamageError:
            spoilt += 1
            lost += [id_ for id_, _, _ in wanted[number]]
            continue
        starts = dict(zip(accumulate(block.lengths, initial=0), block.lengths, strict=False))
        for id_, offset, length in wanted[number]:
            if starts.get(offset) != length or chunk_id(memoryview(block.plain)[offset : offset + length]) != id_:
                lost.append(id_)
    lost += [id_ for number, chunks in wanted.items() if number >= len(pack.blocks) for id_, _, _ in chunks]
    return b"".join(lost), spoilt


def in_part(digest: bytes, part: tuple[int, int] | None) -> bool:
    """Whether a pack falls into part k of n, always the same one.

    >>> [in_part(bytes([200]) + bytes(31), (k, 3)) for k in (1, 2, 3)], in_part(bytes(32), None)
    ([False, False, True], True)
    """
    return part is None or (int.from_bytes(digest[:8], "big") * part[1] >> 64) + 1 == part[0]
