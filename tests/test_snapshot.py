"""Manifests in and out of a store: trees of any depth, lists, the local state as a cache that is never believed."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest
from blake3 import blake3
from faults import Fault, FaultyStore

from mirror.envelope import CHUNKS, NODE, SEGMENT
from mirror.errors import DamageError, MirrorError, NotFound, TemporaryError
from mirror.keys import PACK, ObjectName
from mirror.manifest import ChangeLine, Entry, File, Piece, Ref, cut_entries, decode_node, encode, encode_node, encode_segment
from mirror.snapshot import ManifestReader, ManifestWriter, create_named, list_content
from mirror.state import State
from mirror.store.memory import MemoryStore
from mirror.workers import Background


@pytest.fixture
def state() -> Iterator[State]:
    state = State(None)
    yield state
    state.close()


def files(count: int, seed: int = 0) -> list[Entry]:
    random = Random(seed)
    names = sorted({b"%08x" % random.getrandbits(32) for _ in range(count)})
    return [File(name, 3, bytes(16), 0, blake3(name).digest()) for name in names]


def written(
    store: MemoryStore, entries: list[Entry], epoch: int = 0, known: dict[bytes, int] | None = None
) -> tuple[Ref, list[str]]:
    writer = ManifestWriter(store, epoch, known or {})
    root = writer.tree((writer.put(SEGMENT, piece) for piece in cut_entries(entries)), root_is_node=True)
    return root, writer.written


@pytest.mark.parametrize("count", [0, 1, 3000])
def test_a_manifest_comes_back(count: int) -> None:
    store = MemoryStore()
    entries = files(count)
    root, keys = written(store, entries)
    assert set(keys) == set(store.objects)
    reader = ManifestReader(store, None)
    assert list(reader.entries(root)) == entries
    assert (root.entries, root.plain) == (len(entries), 3 * len(entries))
    named = [ref.name.key() for ref, _ in reader.nodes(root, SEGMENT)]
    assert set(named) == set(keys)
    assert named[0] == root.name.key()


def test_a_tree_has_as_many_levels_as_it_needs() -> None:
    """Leaves enough for three levels of nodes: a node has about 256 refs."""
    store = MemoryStore()
    writer = ManifestWriter(store, 0, {})
    leaves = [Ref(b"%09d" % n, blake3(b"%d" % n).digest(), 0, 1, 2) for n in range(140_000)]
    root = writer.tree(leaves, root_is_node=True)
    reader = ManifestReader(store, None)
    level, _ = decode_node(reader.object(root.name, (NODE,))[1], "x")
    assert level == 3
    assert list(reader.leaves(root, SEGMENT)) == leaves
    assert (root.entries, root.plain) == (140_000, 280_000)
    changed = list(leaves)
    changed[70_000] = changed[70_000]._replace(digest=blake3(b"other").digest())
    before = set(store.objects)
    writer.tree(changed, root_is_node=True)
    assert len(set(store.objects) - before) <= 5, "one change makes one node a level new, or two where a cut moved"


def test_what_the_parent_has_is_named_and_not_written() -> None:
    store = MemoryStore()
    entries = files(8000)
    root, _ = written(store, entries)
    known = {ref.digest: ref.epoch for ref, _ in ManifestReader(store, None).nodes(root, SEGMENT)}
    again, keys = written(store, entries, epoch=9, known=dict(known))
    assert (again, keys) == (root, [])
    other, keys = written(store, entries[:-1], epoch=9, known=dict(known))
    assert other.epoch == 9
    assert 0 < len(keys) <= 3
    assert all(key.endswith(".9") for key in keys)
    assert list(ManifestReader(store, None).entries(other)) == entries[:-1]


@pytest.mark.parametrize("count", [0, 1, 64, 65, 5000, 40_000])
def test_long_chunk_lists_are_objects_of_their_own(count: int) -> None:
    store = MemoryStore()
    joined = b"".join(blake3(b"%d" % n).digest() for n in range(count))
    chunks, more = ManifestWriter(store, 4, {}).content(joined)
    assert (more is None) == (count <= 64)
    entry = File(b"a", 1 << 40, bytes(16), 0, chunks, more)
    assert b"".join(ManifestReader(store, None).chunk_ids(entry)) == joined
    assert bool(store.objects) == (count > 64)
    assert list_content(joined, more) == (chunks, more)
    if more:
        assert more.entries == count
        assert more.epoch == 4


def test_change_lists_and_names_of_any_length() -> None:
    store = MemoryStore()
    writer = ManifestWriter(store, 0, {})
    lines = [ChangeLine("+", b"%06d" % n, b"x" * (n % 50)) for n in range(10_000)]
    keys = [f"packs/{n}" for n in range(9000)]
    reader = ManifestReader(store, None)
    assert list(reader.changes(writer.changes(lines))) == lines
    assert list(reader.names(writer.names(keys))) == keys
    assert list(reader.changes(writer.changes([]))) == []
    assert list(reader.names(writer.names([]))) == []


# -- what may be wrong ------------------------------------------------------------------------------------------------


def test_objects_that_are_gone_or_spoilt(state: State) -> None:
    store = MemoryStore()
    entries = files(3000)
    root, _ = written(store, entries)
    leaf = list(ManifestReader(store, None).leaves(root, SEGMENT))[1]
    key = leaf.name.key()
    good = store.objects[key]
    reader = ManifestReader(store, state, remember=True)
    store.objects[key] = good[:-1]
    with pytest.raises(DamageError, match=key):
        list(reader.entries(root))
    del store.objects[key]
    with pytest.raises(NotFound):
        list(reader.entries(root))
    store.objects[key] = good
    assert list(reader.entries(root)) == entries


def test_what_is_remembered_is_not_fetched_and_not_believed(state: State) -> None:
    store = FaultyStore(MemoryStore())
    entries = files(3000)
    root, _ = written(store, entries)  # type: ignore[arg-type]
    reader = ManifestReader(store, state, remember=True)
    list(reader.entries(root))
    store.calls.clear()
    assert list(reader.entries(root)) == entries
    assert store.calls == []
    state.db.execute("UPDATE object SET payload = x'00' WHERE digest = ?", (root.digest,))
    assert list(reader.entries(root)) == entries
    assert store.calls == [("get", root.name.key())]
    store.calls.clear()
    assert list(reader.entries(root)) == entries
    assert store.calls == [], "what was spoilt on this host has been put right"


def node_of(store: MemoryStore, level: int, refs: list[Ref]) -> Ref:
    return ManifestWriter(store, 0, {}).put(
        NODE, Piece(encode_node(level, refs), refs[0].first, sum(ref.entries for ref in refs), sum(ref.plain for ref in refs))
    )


def segment_of(store: MemoryStore, *paths: bytes) -> Ref:
    entries = [File(path, 0, bytes(16), 0, b"") for path in paths]
    return ManifestWriter(store, 0, {}).put(SEGMENT, Piece(encode_segment([encode(e) for e in entries]), paths[0], len(paths), 0))


def test_trees_that_do_not_fit_together_are_damage() -> None:
    store = MemoryStore()
    ab, cd = segment_of(store, b"a", b"b"), segment_of(store, b"c", b"d")
    reader = ManifestReader(store, None)
    assert [e.path for e in reader.entries(node_of(store, 1, [ab, cd]))] == [b"a", b"b", b"c", b"d"]
    inner = node_of(store, 1, [ab])
    for bad in (
        node_of(store, 1, [cd, ab]),
        node_of(store, 1, [ab, ab]),
        node_of(store, 1, [ab._replace(entries=3)]),
        node_of(store, 1, [ab._replace(first=b"0")]),
        node_of(store, 3, [inner]),
        node_of(store, 2, [ab]),
        node_of(store, 1, [inner]),
    ):
        with pytest.raises(DamageError):
            list(reader.entries(bad))


def test_a_chunk_list_of_odd_length_is_damage() -> None:
    store = MemoryStore()
    more = ManifestWriter(store, 0, {}).put(CHUNKS, Piece(bytes(33), b"", 1, 0))
    with pytest.raises(DamageError):
        list(ManifestReader(store, None).chunk_ids(File(b"a", 99, bytes(16), 0, b"", more)))


# -- creating ---------------------------------------------------------------------------------------------------------

NAME = ObjectName(PACK, bytes(32), 0)


def test_an_object_is_created_once() -> None:
    store = MemoryStore()
    assert create_named(store, NAME, b"data")
    assert not create_named(store, NAME, b"data")


def test_a_pack_of_that_name_with_another_size_is_damage() -> None:
    store = MemoryStore()
    store.create(NAME.key(), b"")
    with pytest.raises(DamageError, match="it has 0 bytes, 4 are right; run `mirror verify`"):
        create_named(store, NAME, b"data")
    assert store.objects[NAME.key()] == b""


def test_a_conflict_that_means_try_again_is_tried_again() -> None:
    class Conflicts(MemoryStore):
        refusals = 3

        def create(self, key: str, data: bytes | bytearray | memoryview) -> bool:
            self.refusals -= 1
            return self.refusals < 0 and super().create(key, data)

    assert create_named(Conflicts(), NAME, b"data")
    never = Conflicts()
    never.refusals = 99
    with pytest.raises(TemporaryError, match="says that it exists, then that it does not"):
        create_named(never, NAME, b"data")


def test_a_failure_in_the_background_reaches_the_writer() -> None:
    store = FaultyStore(MemoryStore(), [Fault("create", nth=2)])
    background = Background(2, 4)
    writer = ManifestWriter(store, 0, {}, None, background)

    def write() -> None:
        for piece in cut_entries(files(8000)):
            writer.put(SEGMENT, piece)
        background.settle()

    with pytest.raises(MirrorError, match="cannot reach"):
        write()
    background.close()
