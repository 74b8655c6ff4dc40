"""What a served site is made of, without HTTP: places of chunks as the index comes in, paths in a manifest, what is held."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mirror.chunking import ChunkId, chunk_id
from mirror.envelope import FRAGMENT, NODE, digest_of, seal
from mirror.errors import DamageError, NotFound, TemporaryError
from mirror.index import StoredPack, encode_fragments
from mirror.keys import INDEX, MANIFEST, PACK, ObjectName
from mirror.manifest import Entry, File, Folder, Redirect, Ref, Symlink, cut_entries, encode_node
from mirror.pack import Block, Slot
from mirror.serve.paths import AddSlash, Objects, Paths, View
from mirror.serve.places import Places
from mirror.serve.recent import Recent
from mirror.snapshot import ManifestWriter
from mirror.store import Stat
from mirror.store.memory import MemoryStore


class Scripted(MemoryStore):
    """Says what it is asked, and waits, or fails, where a test wants that."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.before: Callable[[str], None] = lambda key: None

    def get(self, key: str, limit: int) -> bytes:
        self.asked.append(key)
        self.before(key)
        return super().get(key, limit)


def id_of(number: int) -> ChunkId:
    return chunk_id(b"%d" % number)


def fragment(store: MemoryStore, numbers: range, name: int = 0, blocks: int = 3) -> str:
    """A fragment that lists these chunks, in one pack of some blocks; its key."""
    ids = [id_of(number) for number in numbers]
    share = -(-len(ids) // blocks)
    parts = [ids[at : at + share] for at in range(0, len(ids), share)]
    made = [Block(Slot(16 + 1000 * n, 900, 100 * len(part)), part, [100] * len(part)) for n, part in enumerate(parts)]
    (payload,) = encode_fragments([StoredPack(ObjectName(PACK, bytes([name]) * 32, 0), 1000 * blocks + 16, made)])
    return put(store, payload)


def put(store: MemoryStore, payload: bytes) -> str:
    key = ObjectName(INDEX, digest_of(FRAGMENT, payload), 0).key()
    store.create(key, seal(FRAGMENT, payload))
    return key


@pytest.fixture
def store() -> Scripted:
    return Scripted()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def places(store: Scripted, told: list[str]) -> Iterator[Places]:
    with closing(Places(store, told.append)) as found:
        yield found


# -- places


def test_every_chunk_is_found_where_it_is(store: Scripted, places: Places) -> None:
    for name, numbers in enumerate((range(5000), range(5000, 5001), range(6000, 9000), range(8000, 8500))):
        fragment(store, numbers, name)
    places.begin()
    for number in (*range(0, 9000, 37), 5000, 4999, 6000, 8999):
        found = list(places.find(id_of(number)))
        names = {0: number < 5000, 1: number == 5000, 2: 6000 <= number < 9000, 3: 8000 <= number < 8500}
        assert sorted(place.pack[9:11] for place in found) == [f"{name:02x}" for name, has in names.items() if has], number
        for place in found:
            count = {0: 5000, 1: 1, 2: 3000, 3: 500}[int(place.pack[9:11], 16)]
            at = number - {0: 0, 1: 5000, 2: 6000, 3: 8000}[int(place.pack[9:11], 16)]
            share = -(-count // 3)
            assert (place.slot.offset, place.offset, place.length) == (16 + 1000 * (at // share), at % share * 100, 100)
    assert list(places.find(id_of(10_000))) == []


def test_ids_that_are_no_hashes_are_found_too(store: Scripted, places: Places) -> None:
    """All within a narrow stretch, where a guess goes far astray."""
    ids = [ChunkId(bytes([7] * 28) + number.to_bytes(4, "big")) for number in range(0, 20_000, 2)]
    made = Block(Slot(16, 10, len(ids)), ids, [1] * len(ids))
    (payload,) = encode_fragments([StoredPack(ObjectName(PACK, bytes(32), 0), 100, [made])])
    put(store, payload)
    places.begin()
    for at in (0, 1, 4999, 9998, 9999):
        assert [place.offset for place in places.find(ids[at])] == [at]
    for missing in (1, 9999, 19_999, 20_001):
        assert list(places.find(ChunkId(bytes([7] * 28) + missing.to_bytes(4, "big")))) == []
    assert list(places.find(ChunkId(bytes(32)))) == list(places.find(ChunkId(b"\xff" * 32))) == []


def test_a_chunk_is_found_while_the_rest_of_the_index_is_still_to_come(store: Scripted, places: Places) -> None:
    """Nothing waits for what it does not need: one fragment never comes, and the chunks of the others are there."""
    keys = [fragment(store, range(n * 100, n * 100 + 100), n) for n in range(4)]
    come = threading.Event()

    def before(key: str) -> None:
        if key == keys[3]:
            assert come.wait(30)

    store.before = before
    places.begin()
    for n in range(3):
        assert next(places.find(id_of(n * 100 + 50))).pack[9:11] == f"{n:02x}"
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(lambda: list(places.find(id_of(350))))
        time.sleep(0.05)
        assert not late.done()
        come.set()
        assert len(late.result(30)) == 1


def test_what_cannot_be_fetched_is_no_damage_and_is_tried_again(store: Scripted, places: Places, told: list[str]) -> None:
    key, other = fragment(store, range(100), 0), fragment(store, range(100, 200), 1)
    failing = [True]

    def before(asked: str) -> None:
        if asked == key and failing[0]:
            raise TemporaryError("cannot read", where=asked, why="a test says so")

    store.before = before
    places.begin()
    with pytest.raises(TemporaryError):
        list(places.find(id_of(50)))
    assert next(places.find(id_of(150))).pack.startswith("packs/01")
    failing[0] = False
    since = time.monotonic()
    assert places.refresh(since)
    assert len(list(places.find(id_of(50)))) == 1
    assert (told, store.asked.count(other)) == ([], 1)


def test_a_fragment_that_is_spoilt_or_gone_costs_what_it_lists(store: Scripted, places: Places, told: list[str]) -> None:
    good, spoilt, gone = (fragment(store, range(n, n + 50), n) for n in (0, 100, 200))
    store.objects[spoilt] = store.objects[spoilt][:-1] + b"x"

    def before(key: str) -> None:
        if key == gone:
            raise NotFound(key)

    store.before = before
    places.begin()
    assert len(list(places.find(id_of(10)))) == 1
    assert list(places.find(id_of(110))) == list(places.find(id_of(210))) == []
    assert len(told) == 1
    assert spoilt in told[0]
    assert good not in told[0]


def test_what_came_since_is_found_after_a_look(store: Scripted, places: Places) -> None:
    fragment(store, range(10), 0)
    places.begin()
    since = time.monotonic()
    assert list(places.find(id_of(50))) == []
    fragment(store, range(50, 60), 1)
    asked = len(store.asked)
    assert places.refresh(since)
    assert len(list(places.find(id_of(50)))) == 1
    assert len(store.asked) == asked + 1  # what is known is not read again
    assert places.refresh(since)  # somebody has looked since: another look would say nothing more
    assert not places.refresh(time.monotonic())


def test_many_who_look_in_vain_ask_the_store_once(store: Scripted, places: Places) -> None:
    listings = []
    listed = store.list

    def list_(prefix: str) -> Iterator[Stat]:
        listings.append(prefix)
        return listed(prefix)

    store.list = list_  # type: ignore[method-assign]
    places.begin()
    places.settle()
    since = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: places.refresh(since), range(8)))
    assert len(listings) == 2


@pytest.mark.parametrize(
    "place", [(1, 0, 0, 100), (0, 3, 0, 100), (0, 0, 0, 0), (0, 0, 1, 10**6), (0, 0, 2**32 - 1, 1), (2**32 - 1, 0, 0, 1)]
)
def test_a_place_that_cannot_be_is_none(store: Scripted, places: Places, place: tuple[int, ...]) -> None:
    ids = bytes(id_of(1))
    row = b"".join(value.to_bytes(4, "little") for value in place)
    payload = msgspec.msgpack.encode(([(bytes(32), 0, 1000, [(16, 100, 200)])], ids, row))
    put(store, payload)
    places.begin()
    assert list(places.find(id_of(1))) == []


def test_memory_does_not_grow_with_the_index(store: Scripted, places: Places) -> None:
    """Two hundred thousand chunks: the places are in a file, not here."""
    import tracemalloc

    for n in range(4):
        fragment(store, range(n * 50_000, n * 50_000 + 50_000), n)
    tracemalloc.start()
    try:
        places.begin()
        places.settle()
        assert len(list(places.find(id_of(123_456)))) == 1
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1 << 20, held


# -- paths


def stored(store: MemoryStore, entries: list[Entry]) -> Ref:
    writer = ManifestWriter(store, 0, {})
    from mirror.envelope import SEGMENT

    pieces = cut_entries(sorted(entries, key=lambda entry: entry.path))
    return writer.tree((writer.put(SEGMENT, piece) for piece in pieces), root_is_node=True)


def file(path: bytes) -> File:
    return File(path, 1, bytes(16), 0, bytes(32))


def paths_of(store: MemoryStore) -> Paths:
    return Paths(Objects(store, 1 << 20), 8 << 20)


def test_a_path_in_a_large_manifest_costs_three_objects(store: Scripted) -> None:
    """Sixty thousand entries in one flat folder and in many: each is found, nothing else is, and nothing needless is read."""
    entries: list[Entry] = [file(b"flat/%06d" % n) for n in range(30_000)]
    entries += [file(b"deep/%d/%d/%d.html" % (n % 50, n % 7, n)) for n in range(30_000)]
    entries += [Folder(b""), Folder(b"flat/"), Folder(b"hollow/")]
    root = stored(store, entries)
    known = {entry.path for entry in entries}
    dice = random.Random(1)
    for path in [*dice.sample(sorted(known), 40), b"flat/", b"hollow/", b""]:
        cold = paths_of(store)
        store.asked.clear()
        found = cold.at(root, path)
        assert found is not None
        assert found.path == path
        assert len(store.asked) <= 3
    warm = paths_of(store)
    for path in (b"flat/x", b"flat/0000010", b"a", b"zzz", b"deep/5", b"flat", b"hollow"):
        assert (warm.at(root, path) is not None) == (path in known)
    for path, there in {b"flat/": True, b"deep/": True, b"deep/5/": True, b"hollow/": True, b"fla/": False, b"z/": False}.items():
        assert warm.has_folder(root, path) is there, path


def test_an_empty_manifest_has_nothing(store: Scripted) -> None:
    root = stored(store, [])
    assert paths_of(store).at(root, b"index.html") is None
    assert paths_of(store).find(View(1, root), b"") is None


def test_folders_that_only_their_files_tell_of(store: Scripted) -> None:
    """A site that came out of a bucket has files and nothing else; a name may be a file and a folder."""
    root = stored(store, [file(b"a/b/c"), file(b"a/index.html"), file(b"both"), file(b"both/x"), file(b"both.html")])
    view, paths = View(1, root), paths_of(store)
    found = {path: paths.find(view, path) for path in (b"a", b"a/", b"a/b", b"a/b/c", b"both", b"both/x", b"both/")}
    assert found[b"a"] == AddSlash(b"a/")
    assert found[b"a/b"] == AddSlash(b"a/b/")
    assert [getattr(found[path], "path", None) for path in (b"a/", b"a/b/c", b"both", b"both/x", b"both/")] == [
        b"a/index.html", b"a/b/c", b"both", b"both/x", None,
    ]  # fmt: skip


def test_links_never_lead_out_and_always_end(store: Scripted) -> None:
    links = {b"up": b"..", b"upup": b"../../x", b"a/up": b"..", b"a/out": b"../../x", b"abs": b"/x", b"own": b"/srv/www/x",
             b"other": b"/srv/www2/x", b"root": b"/srv/www/", b"loop": b"loop", b"far": b"a/" * 3000 + b"x", b"": b""}  # fmt: skip
    chain = [Symlink(b"l%03d" % n, b"l%03d" % (n + 1)) for n in range(60)]
    double = [Symlink(b"d%02d" % n, b"d%02d/../d%02d" % (n + 1, n + 1)) for n in range(40)]
    entries = [
        file(b"x"),
        file(b"a/y"),
        file(b"l060"),
        file(b"index.html"),
        file(b".mirror/secret"),
        Symlink(b"store", b".mirror/secret"),
    ]
    entries += [Symlink(path, goal) for path, goal in links.items() if path] + chain + double  # type: ignore[arg-type]
    root = stored(store, entries)  # type: ignore[arg-type]
    view, paths = View(1, root, b"/srv/www"), paths_of(store)

    def leads(path: bytes) -> Any:
        return getattr(paths.find(view, path), "path", None)

    assert leads(b"own") == leads(b"a/up/x") == b"x"
    assert leads(b"root/") == b"index.html"
    for path in (b"up", b"upup", b"a/out", b"abs", b"other", b"loop", b"far", b"l000", b"store", b"up/x", b"d00"):
        assert leads(path) is None, path
    assert leads(b"l021") == b"l060"
    assert paths.find(View(1, root), b"own") is None  # a site that was no folder has no place of its own


def test_a_redirect_is_one(store: Scripted) -> None:
    entry = Redirect(b"old", "http://a/old", 301, "/new")
    assert paths_of(store).find(View(1, stored(store, [entry])), b"old") == entry


def test_a_manifest_that_is_not_what_it_says_is_damage(store: Scripted) -> None:
    """Nodes that name one another, or each in its own level, or backwards, end in a sentence."""

    def node(level: int, refs: list[Ref]) -> Ref:
        payload = encode_node(level, refs)
        name = ObjectName(MANIFEST, digest_of(NODE, payload), 0)
        store.create(name.key(), seal(NODE, payload))
        return Ref(refs[0].first, name.digest, 0, sum(ref.entries for ref in refs), 0)

    good = stored(store, [file(b"a"), file(b"b")])
    same_level = node(1, [good])
    too_low = node(3, [good])
    backwards = node(2, [good._replace(first=b"b"), good._replace(first=b"a")])
    lost = good._replace(digest=bytes(32))
    for root in (same_level, too_low, backwards):
        with pytest.raises(DamageError):
            paths_of(store).at(root, b"a")
    with pytest.raises(NotFound):
        paths_of(store).at(lost, b"a")


# -- what is held


def test_what_is_held_stays_within_its_bytes() -> None:
    recent: Recent[int, bytes] = Recent(1000)
    for number in range(100):
        assert recent.get(number, lambda number=number: (b"%d" % number, 90)) == b"%d" % number  # type: ignore[misc]
        assert recent.weight <= 1000
    assert recent.look(99) == b"99"
    assert recent.look(0) is None
    recent.get(89, lambda: (b"", 0))
    recent.get(100, lambda: (b"", 990))
    assert (recent.look(99), recent.weight) == (None, 990)
    assert recent.get(101, lambda: (b"too heavy", 1001)) == b"too heavy"
    assert (recent.look(101), recent.look(100)) == (None, b"")
    recent.put(100, b"other", 10)
    assert (recent.look(100), recent.weight) == (b"other", 10)


def test_what_many_ask_for_is_made_once() -> None:
    recent: Recent[str, int] = Recent(100)
    made = []
    together = threading.Barrier(8)

    def make() -> tuple[int, int]:
        made.append(1)
        time.sleep(0.05)
        return 7, 1

    def ask(_: int) -> int:
        together.wait()
        return recent.get("a", make)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == [7] * 8
    assert len(made) == 1


def test_a_failure_is_told_to_all_who_wait_and_not_held(tmp_path: Path) -> None:
    recent: Recent[str, int] = Recent(100)
    together = threading.Barrier(4)

    def make() -> tuple[int, int]:
        time.sleep(0.05)
        raise DamageError("cannot read", where="x")

    def ask(_: int) -> str:
        together.wait()
        try:
            return str(recent.get("a", make))
        except DamageError as error:
            return str(error)

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(ask, range(4))) == {"cannot read x"}
    assert recent.get("a", lambda: (1, 1)) == 1
