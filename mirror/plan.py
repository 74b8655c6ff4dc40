"""What a run is going to do: a frozen, sorted difference of two manifests, and the guard over its deletions. Pure.

A plan is a sequence of items in order of path. Paths without an item stay as the parent has them.

    Put     the entry is known in full: a folder, a link, a file described anew
    Fetch   a file whose content must be read
    Drop    a path of the parent that is gone

The items are written to a spool (`encode`, `decode`), so a plan is as long as it needs to be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from mirror.manifest import Entry, File

NEW, CHANGED, DELETED, SAME, MOVED, DESCRIBED = "+", "*", "-", "=", ">", "."


class Put(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="p"):
    """An entry that is complete. symbol: + * or . (only described anew). before: the parent's entry of that path."""

    symbol: str
    entry: Entry
    validator: tuple[int, int]
    before: Entry | None = None


class Fetch(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="f"):
    """A file to read. entry: its description, content empty, class chosen. before: the parent's entry of that path."""

    entry: File
    validator: tuple[int, int]
    before: Entry | None = None


class Drop(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="d"):
    """A path of the parent that is gone. excluded: the source may have it, a filter leaves it out (--delete-excluded)."""

    entry: Entry
    excluded: bool = False


Item = Put | Fetch | Drop

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Item)


def encode(item: Item) -> bytes:
    """An item's bytes in a spool."""
    return _encoder.encode(item)


def decode(data: bytes) -> Item:
    """The item behind `encode`'s bytes."""
    item: Item = _decoder.decode(data)
    return item


@dataclass(slots=True)
class Counts:
    """How many paths a plan adds, changes, deletes …, and the bytes to be read. parent: entries of the parent snapshot."""

    parent: int = 0
    scanned: int = 0
    added: int = 0
    changed: int = 0
    described: int = 0
    deleted: int = 0
    same: int = 0
    protected: int = 0
    fetch_files: int = 0
    fetch_bytes: int = 0


class DeletionLimit(NamedTuple):
    """`--max-delete`: a number, or a share of the parent's entries in percent; both None: the default rule."""

    number: int | None = None
    percent: float | None = None

    def allows(self, deleted: int, parent: int) -> bool:
        """Whether so many deletions may go ahead.

        The default stops above 25 % of the parent's entries and above 256, and above 50 % in any case.

        >>> DeletionLimit().allows(256, 600), DeletionLimit().allows(257, 1000), DeletionLimit().allows(6, 10)
        (True, False, False)
        """
        if self.number is not None:
            return deleted <= self.number
        if self.percent is not None:
            return deleted * 100 <= parent * self.percent
        return not ((deleted > 256 and deleted * 4 > parent) or deleted * 2 > parent)

    def __str__(self) -> str:
        if self.number is not None:
            return f"{self.number}"
        if self.percent is not None:
            return f"{self.percent:g} %"
        return "25 % and 256, or 50 %"


def batches(sizes: int, files: int) -> bool:
    """Whether a batch of `files` files and `sizes` plain bytes is full."""
    return sizes >= BATCH_BYTES or files >= BATCH_FILES


# A batch is redone as a whole after a kill; two in flight plus 128 MiB not yet in a fragment stay below the 256 MiB that a
# restarted run may redo, hence 64 MiB and not the 128 MiB that packing alone would like.
BATCH_BYTES = 64 << 20
BATCH_FILES = 16_384
