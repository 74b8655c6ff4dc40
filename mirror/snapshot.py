"""Manifest objects in and out of a store: trees of segments, chunk lists, change lists, lists of names.

Reading goes through the local state (an object's content may be remembered, its bytes are hashed again on every use), then the
store; whatever comes in has been checked by `envelope.unseal`. Writing creates objects under the epoch of the run; an object
that the parent snapshot already has is named again instead of written.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from blake3 import blake3

from mirror.chunking import ChunkId
from mirror.envelope import CHANGES, CHUNKS, NAMES, NODE, OBJECT_MAX, SEGMENT, Kind, digest_of, seal, unseal
from mirror.errors import DamageError, TemporaryError
from mirror.keys import MANIFEST, ObjectName, show
from mirror.manifest import (
    INLINE_CHUNKS,
    ChangeLine,
    Entry,
    Piece,
    Ref,
    WithContent,
    cut_ids,
    cut_refs,
    decode_changes,
    decode_names,
    decode_node,
    decode_segment,
    encode_changes,
    encode_names,
    split_ids,
)
from mirror.state import State
from mirror.store import ReadableStore, WritableStore

if TYPE_CHECKING:
    from mirror.workers import Background  # what it needs takes 25 ms to import, which a reader need not spend

_LEAF_LINES = 4096  # lines of one leaf of a change list or list of names


class ManifestReader:
    """Reads manifests of one target. `remember` keeps what was fetched in the local state (segments of the newest snapshot)."""

    def __init__(self, store: ReadableStore, state: State | None, *, remember: bool = False) -> None:
        self._store, self._state, self._remember = store, state, remember and state is not None

    def object(self, name: ObjectName, kinds: tuple[Kind, ...]) -> tuple[Kind, bytes]:
        """(kind, payload) of an object. NotFound; DamageError."""
        if self._state is not None:
            known = self._state.payload(name.digest)
            if known and known[0] in kinds:
                return known
        key = name.key()
        kind, payload = unseal(self._store.get(key, OBJECT_MAX), kinds, name.digest, f"{self._store.url}/{key}")
        if self._remember and self._state is not None:
            self._state.keep_payloads([(name.digest, kind, payload)])
        return kind, payload

    def leaves(self, root: Ref, leaf: Kind) -> Iterator[Ref]:
        """The refs of the leaves below a root, in order; each node is fetched once and held while its children go by."""
        kind, payload = self.object(root.name, (NODE, leaf))
        if kind == leaf:
            yield root
            return
        yield from (ref for ref, kind in self._below(payload, root, leaf) if kind == leaf)

    def nodes(self, root: Ref, leaf: Kind) -> Iterator[tuple[Ref, Kind]]:
        """Every object of a tree, root first: (ref, kind). Leaves are named, not fetched (but for a root that is one)."""
        kind, payload = self.object(root.name, (NODE, leaf))
        yield root, kind
        if kind == NODE:
            yield from self._below(payload, root, leaf)

    def _below(self, payload: bytes, root: Ref, leaf: Kind, above: int = 0) -> Iterator[tuple[Ref, Kind]]:
        """All below a node, checked: a small tree that names one child again and again would have no end (law 9). What a node lists
        must add up to what its own ref counts, and the first paths of a manifest ascend."""
        where = f"{self._store.url}/{root.name.key()}"
        level, refs = decode_node(payload, where)
        fault = ""
        if above and level != above - 1:
            fault = "its level does not fit the one above it"
        elif sum(ref.entries for ref in refs) != root.entries or (above and not refs) or not all(ref.entries > 0 for ref in refs):
            fault = "what it lists does not add up to what is said of it"
        elif leaf == SEGMENT and any(one.first >= other.first for one, other in pairwise(refs)):
            fault = "its paths are out of order"
        if fault:
            raise DamageError("cannot use the node", where=where, why=fault)
        for ref in refs:
            if level == 1:
                yield ref, leaf
                continue
            _, child = self.object(ref.name, (NODE,))
            yield ref, NODE
            yield from self._below(child, ref, leaf, level)

    def segment(self, ref: Ref) -> list[Entry]:
        """The entries of one segment."""
        _, payload = self.object(ref.name, (SEGMENT,))
        entries = decode_segment(payload, f"{self._store.url}/{ref.name.key()}")
        if len(entries) != ref.entries or (entries and entries[0].path != ref.first):
            raise DamageError(
                "cannot use the segment", where=f"{self._store.url}/{ref.name.key()}", why="it is not what its node says"
            )
        return entries

    def entries(self, root: Ref) -> Iterator[Entry]:
        """All entries of a manifest, in order; one segment in memory."""
        last = None
        for ref in self.leaves(root, SEGMENT):
            entries = self.segment(ref)
            if last is not None and entries and entries[0].path <= last:
                raise DamageError(
                    "cannot use the manifest", where=f"{self._store.url}/{root.name.key()}", why="its segments are out of order"
                )
            last = entries[-1].path if entries else last
            yield from entries

    def at(self, root: Ref, paths: Iterable[bytes]) -> Iterator[Entry]:
        """The entries of just these paths, which ascend; those that are not there are left out. Only segments that may have some
        are fetched."""
        wanted = iter(paths)
        path = next(wanted, None)
        refs: Iterator[Ref | None] = chain(self.leaves(root, SEGMENT), [None])
        for ref, after in pairwise(refs):
            assert ref is not None
            while path is not None and path < ref.first:
                path = next(wanted, None)
            if path is None:
                return
            if after is not None and after.first <= path:
                continue
            entries = {entry.path: entry for entry in self.segment(ref)}
            while path is not None and (after is None or path < after.first):
                if path in entries:
                    yield entries[path]
                path = next(wanted, None)

    def chunk_ids(self, entry: WithContent) -> Iterator[ChunkId]:
        """The ids of an entry's content, in order, whatever their number."""
        if entry.more is None:
            yield from split_ids(entry.chunks)
            return
        if entry.more.entries > entry.size:
            raise DamageError("cannot use the chunk list", where=show(entry.path), why="it has more chunks than the file has bytes")
        for leaf in self.leaves(entry.more, CHUNKS):
            _, payload = self.object(leaf.name, (CHUNKS,))
            if len(payload) != leaf.entries * 32:
                raise DamageError("cannot use the chunk list", where=show(entry.path), why="its length is not what is said of it")
            yield from split_ids(payload)

    def content_key(self, entry: WithContent) -> bytes:
        """Equal just where the chunk lists are equal, as `content_key` of their ids. A list of several leaves costs its nodes: they
        name the leaves' epochs, so their digests change when the same list is written again after a prune."""
        if entry.more is None:
            return content_key(entry.chunks)
        return _content_key(leaf.digest for leaf in self.leaves(entry.more, CHUNKS))

    def changes(self, root: Ref) -> Iterator[ChangeLine]:
        """The lines of a change list."""
        for leaf in self.leaves(root, CHANGES):
            yield from decode_changes(self.object(leaf.name, (CHANGES,))[1], leaf.name.key())

    def names(self, root: Ref) -> Iterator[str]:
        """The keys of a list of names."""
        for leaf in self.leaves(root, NAMES):
            yield from decode_names(self.object(leaf.name, (NAMES,))[1], leaf.name.key())


class ManifestWriter:
    """Creates manifest objects under one epoch. `known` (digest → epoch) are objects of a live snapshot, named instead of
    written. background: creates happen there; nothing may name the objects before the caller has settled it."""

    def __init__(
        self,
        store: WritableStore,
        epoch: int,
        known: dict[bytes, int],
        state: State | None = None,
        background: Background | None = None,
    ) -> None:
        self._store, self._epoch, self._known, self._state = store, epoch, known, state
        self._background = background
        self.written: list[str] = []

    def put(self, kind: Kind, piece: Piece) -> Ref:
        """Create one object (or name the known one); its ref."""
        digest = digest_of(kind, piece.payload)
        epoch = self._known.get(digest)
        if epoch is None:
            epoch = self._epoch
            name = ObjectName(MANIFEST, digest, epoch)
            create = partial(create_named, self._store, name, seal(kind, piece.payload))
            if self._background:
                self._background.add(create)
            else:
                create()
            self._known[digest] = epoch
            self.written.append(name.key())
        if self._state is not None:
            self._state.keep_payloads([(digest, kind, piece.payload)])
        return Ref(piece.first, digest, epoch, piece.entries, piece.plain)

    def tree(self, refs: Iterable[Ref], *, root_is_node: bool) -> Ref:
        """The root over leaves that `put` returned: nodes, level by level, until one is left. root_is_node: even over a single
        leaf."""
        below, level = list(refs), 0
        while (level == 0 and (root_is_node or len(below) != 1)) or len(below) > 1:
            level += 1
            below = [self.put(NODE, piece) for piece in cut_refs(level, below)]
            if not below:  # nothing at all: one empty node
                return self.put(NODE, Piece(_EMPTY_NODE, b"", 0, 0))
        return below[0]

    def content(self, joined: bytes) -> tuple[bytes, Ref | None]:
        """(chunks, more) of an entry from its joined ids: inline, or as a list of its own."""
        if len(joined) <= INLINE_CHUNKS * 32:
            return joined, None
        return b"", self.tree((self.put(CHUNKS, piece) for piece in cut_ids(joined)), root_is_node=False)

    def changes(self, lines: Iterable[ChangeLine]) -> Ref:
        """A change list."""
        return self.tree(self._leaves(CHANGES, lines, encode_changes), root_is_node=True)

    def names(self, keys: Iterable[str]) -> Ref:
        """A list of names."""
        return self.tree(self._leaves(NAMES, keys, encode_names), root_is_node=True)

    def _leaves(self, kind: Kind, lines: Iterable[object], encode: object) -> Iterator[Ref]:
        held: list[object] = []
        size = 0
        for line in lines:
            held.append(line)
            size += 16 + (len(line) if isinstance(line, str) else sum(map(len, line)))  # type: ignore[call-overload]
            if len(held) >= _LEAF_LINES or size >= 1 << 20:
                yield self.put(kind, Piece(encode(held), b"", len(held), 0))  # type: ignore[operator]
                held, size = [], 0
        if held:
            yield self.put(kind, Piece(encode(held), b"", len(held), 0))  # type: ignore[operator]


_EMPTY_NODE = b"\x92\x01\x90"


class _Nowhere:
    """A store for digests only: everything is there already."""

    url = ""

    def create(self, key: str, data: bytes | bytearray | memoryview) -> bool:
        return True


def list_content(joined: bytes, like: Ref | None = None) -> tuple[bytes, Ref | None]:
    """(chunks, more) that an entry with these joined ids would have; nothing is written. like: a list to be compared with: a long
    one names its leaves by their epoch, which is that of the list, so the digests are equal just when the ids are."""
    return ManifestWriter(_Nowhere(), like.epoch if like else 0, {}).content(joined)  # type: ignore[arg-type]


def content_key(joined: bytes) -> bytes:
    """16 bytes that are equal just where the chunk lists, given as joined ids, are equal."""
    if len(joined) <= INLINE_CHUNKS * 32:
        return _content_key([digest_of(CHUNKS, joined)])
    return _content_key(digest_of(CHUNKS, piece.payload) for piece in cut_ids(joined))


def _content_key(leaves: Iterable[bytes]) -> bytes:
    return blake3(b"".join(leaves)).digest(16)


def create_named(store: WritableStore, name: ObjectName, data: bytes | bytearray) -> bool:
    """Create an object that is named by its content; False when it is there already. An object of that name with another size
    (a zero-length one bit kopia#1879) is damage: it is never overwritten, so the run must say so."""
    key = name.key()
    for _ in range(5):
        if store.create(key, data):
            return True
        size = store.size(key)
        if size is None:
            continue  # some services say "conflict" and mean "try again"
        if size != len(data) and name.place == "packs":
            raise DamageError(
                "cannot use the object",
                where=f"{store.url}/{key}",
                why=f"it has {size} bytes, {len(data)} are right",
                hint="run `mirror verify`, then move that object away",
            )
        return False
    raise TemporaryError(
        "cannot create the object",
        where=f"{store.url}/{key}",
        why="the store says that it exists, then that it does not",
        hint="try again",
    )
