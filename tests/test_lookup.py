"""The merged index: what is valid, where it is, who stores what; after prunes, re-runs and with more claims than memory holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random

import pytest

from mirror.chunking import ChunkId, chunk_id
from mirror.envelope import FRAGMENT, digest_of, seal
from mirror.errors import DamageError, NotFound
from mirror.index import StoredPack, decode_fragment, encode_fragments
from mirror.keys import INDEX, PACK, ObjectName
from mirror.lookup import ChunkIndex
from mirror.pack import PackBuilder, read_block
from mirror.state import State
from mirror.store.memory import MemoryStore


@pytest.fixture
def state() -> Iterator[State]:
    state = State(None)
    yield state
    state.close()


def content(number: int, size: int = 400_000) -> bytes:
    return Random(number).randbytes(size)


def stored(store: MemoryStore, chunks: Sequence[bytes], epoch: int = 0) -> tuple[str, str]:
    """A pack of these chunks and its fragment in the store; their keys."""
    builder = PackBuilder()
    for data in chunks:
        builder.add(chunk_id(data), data)
    pack = builder.finish()
    name = ObjectName(PACK, pack.digest, epoch)
    store.create(name.key(), bytes(pack.data))
    (payload,) = encode_fragments([StoredPack(name, len(pack.data), pack.blocks)])
    fragment = ObjectName(INDEX, digest_of(FRAGMENT, payload), epoch).key()
    store.create(fragment, seal(FRAGMENT, payload))
    return name.key(), fragment


def readable(store: MemoryStore, index: ChunkIndex, data: bytes) -> bool:
    """Whether the index has a place for a chunk, and its bytes are there."""
    id_ = chunk_id(data)
    place = index.places([id_]).get(id_)
    if place is None:
        return False
    (block,) = store.get_ranges(place.pack, [(place.slot.offset, place.slot.offset + place.slot.stored)])
    return read_block(block, place.pack).plain[place.offset : place.offset + place.length] == data


def never(key: str) -> bool:
    return False


def test_what_the_target_lists_is_known_and_nothing_else(state: State) -> None:
    store = MemoryStore()
    one, two = [content(1), content(2)], [content(2), content(3)]
    _, first = stored(store, one)
    stored(store, two)
    store.objects["index/README"] = b"no fragment"
    index = ChunkIndex(state, store)
    ids = [chunk_id(content(n)) for n in range(5)]
    assert index.missing(ids) == set(ids), "nothing is asked for before the first refresh"
    index.refresh(never)
    assert index.missing(ids) == {ids[0], ids[4]}
    assert all(readable(store, index, content(n)) for n in (1, 2, 3))
    del store.objects[first]
    index.refresh(never)
    assert index.missing(ids) == {ids[0], ids[1], ids[4]}
    assert readable(store, index, content(2)), "the other pack has it still"


def test_a_doomed_pack_or_fragment_is_no_place_though_it_is_there(state: State) -> None:
    store = MemoryStore()
    pack, _ = stored(store, [content(1)])
    _, fragment = stored(store, [content(2)])
    stored(store, [content(3)])
    index = ChunkIndex(state, store)
    index.refresh(never)
    index.refresh(lambda key: key in (pack, fragment))
    assert [readable(store, index, content(n)) for n in (1, 2, 3)] == [False, False, True]
    assert index.reuse([chunk_id(content(n)) for n in (1, 2, 3)]) == {chunk_id(content(3))}
    assert not {pack, fragment} & index.used


def test_the_place_of_a_doomed_pack_is_not_inherited_by_the_next_one(state: State) -> None:
    """Numbers of packs were given again while the blocks of the doomed pack were still filed under them: readers were sent to
    where the old pack's blocks had been, and called a good snapshot damaged."""
    store = MemoryStore()
    doomed, _ = stored(store, [content(n) for n in range(10, 18)])
    index = ChunkIndex(state, store)
    index.refresh(never)
    index.refresh(lambda key: key == doomed)
    stored(store, [content(n, 50_000) for n in range(20, 60)], epoch=7)
    index.refresh(lambda key: key == doomed)
    assert not any(readable(store, index, content(n)) for n in range(10, 18))
    assert all(readable(store, index, content(n, 50_000)) for n in range(20, 60))


def test_a_pack_that_two_fragments_list_outlives_either(state: State) -> None:
    store = MemoryStore()
    builder = PackBuilder()
    for n in range(8):
        builder.add(chunk_id(content(n)), content(n))
    pack = builder.finish()
    name = ObjectName(PACK, pack.digest, 0)
    store.create(name.key(), bytes(pack.data))
    fragments = []
    for blocks in (pack.blocks[:1], pack.blocks):
        (payload,) = encode_fragments([StoredPack(name, len(pack.data), blocks)])
        fragments.append(ObjectName(INDEX, digest_of(FRAGMENT, payload), 0).key())
        store.create(fragments[-1], seal(FRAGMENT, payload))
    index = ChunkIndex(state, store)
    index.refresh(never)
    assert all(readable(store, index, content(n)) for n in range(8))
    index.refresh(lambda key: key == fragments[0])
    assert all(readable(store, index, content(n)) for n in range(8))
    index.refresh(lambda key: key in fragments)
    assert not any(readable(store, index, content(n)) for n in range(8))


def test_a_fragment_taken_in_twice_counts_once(state: State) -> None:
    """A run that finds the very fragment that a dead one had written ended in a traceback."""
    store = MemoryStore()
    _, name = stored(store, [content(1)])
    digest = ObjectName.parse(name)
    assert digest
    payload = store.objects[name]
    index = ChunkIndex(state, store)
    index.refresh(never)
    from mirror.envelope import unseal

    fragment = decode_fragment(unseal(payload, (FRAGMENT,), digest.digest, name)[1], name)
    index.add(name, fragment)
    index.add(name, fragment)
    assert readable(store, index, content(1))


def test_a_damaged_fragment_is_told_or_raised(state: State) -> None:
    store = MemoryStore()
    stored(store, [content(1)])
    _, bad = stored(store, [content(2)])
    store.objects[bad] = store.objects[bad][:-1] + b"?"
    with pytest.raises(DamageError):
        ChunkIndex(state, store).refresh(never)
    other = State(None)
    told = []
    index = ChunkIndex(other, store)
    index.refresh(never, lambda name, error: told.append((name, type(error))))
    assert told == [(bad, DamageError)]
    assert readable(store, index, content(1))
    other.close()


def test_a_fragment_that_goes_between_listing_and_reading_is_not_found(state: State) -> None:
    class Vanishing(MemoryStore):
        def get(self, key: str, limit: int) -> bytes:
            raise NotFound(key)

    store = Vanishing()
    stored(store, [content(1)])
    with pytest.raises(NotFound):
        ChunkIndex(state, store).refresh(never, lambda name, error: None)


# -- claims -----------------------------------------------------------------------------------------------------------


def test_a_chunk_is_claimed_by_one_batch_and_again_by_the_same(state: State) -> None:
    store = MemoryStore()
    pack, fragment = stored(store, [content(1)])
    index = ChunkIndex(state, store)
    index.refresh(never)
    known, a, b = (chunk_id(content(n)) for n in (1, 2, 3))
    assert index.claim([known, a, a, b, a], 0) == bytes((0, 1, 0, 1, 0))
    assert index.claim([a, b], 1) == bytes((0, 0))
    assert index.claim([a, known, b], 0) == bytes((1, 0, 1)), "a batch that is run again stores its own"
    assert index.used == {pack, fragment}
    index.drop_claims()
    assert index.used == set()
    assert index.claim([a], 1) == bytes((1,))


def test_claims_past_the_memory_limit_get_the_same_answers(state: State) -> None:
    """So many claims that most are on disk against a dictionary that holds all."""
    random = Random(4)
    held, spilling = State(None), ChunkIndex(state, MemoryStore(), claims_held=50)
    plain = ChunkIndex(held, MemoryStore())
    for _ in range(300):
        ids = [ChunkId(random.randrange(900).to_bytes(32, "big")) for _ in range(random.randrange(1, 40))]
        batch = random.randrange(6)
        assert spilling.claim(ids, batch) == plain.claim(ids, batch)
    spilling.drop_claims()
    plain.drop_claims()
    ids = [ChunkId(number.to_bytes(32, "big")) for number in range(900)]
    assert spilling.claim(ids, 9) == plain.claim(ids, 9) == bytes((1,)) * 900
    assert spilling.claim(ids, 1) == bytes(900)
    held.close()


def test_more_ids_than_a_query_may_have(state: State) -> None:
    store = MemoryStore()
    chunks = [number.to_bytes(4, "big") for number in range(3000)]
    stored(store, chunks)
    index = ChunkIndex(state, store)
    index.refresh(never)
    ids = [chunk_id(data) for data in chunks]
    assert index.missing(ids) == set()
    assert len(index.places(ids)) == 3000
    assert index.reuse(ids) == set(ids)
