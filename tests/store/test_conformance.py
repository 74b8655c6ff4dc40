"""What every store promises, on every store: one suite.

The ground truth goes past the store: `Place.look` and `Place.plant` use the operating system, boto3 or the dictionary itself.
"""

from __future__ import annotations

import os
import pickle
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from davservers import DavServer
from faults import FaultyStore
from serving import Served

from mirror.errors import DamageError, NotFound
from mirror.store import MaintainedStore, Stat, StoreSpec
from mirror.store.memory import MemoryStore
from mirror.store.open import open_store
from mirror.store.wrap import CountingStore, LimitedStore, WrappedStore

KEY = "packs/ab/abcdef.0"
MiB = 1 << 20


@dataclass(frozen=True)
class Place:
    """A store and two ways past it: what is really there (key to content), and putting something there."""

    store: MaintainedStore
    spec: StoreSpec
    look: Callable[[], dict[str, bytes]]
    plant: Callable[[str, bytes], None]


def folder_place(root: Path) -> Place:
    def look() -> dict[str, bytes]:
        return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file() and ".mirror-tmp" not in p.parts}

    def plant(key: str, data: bytes) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)

    spec = StoreSpec(str(root))
    return Place(open_store(spec), spec, look, plant)


def s3_place(s3: Any, bucket: str, prefix: str) -> Place:
    start = f"{prefix}/".lstrip("/")

    def look() -> dict[str, bytes]:
        pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
        keys = [found["Key"] for page in pages for found in page.get("Contents", ())]
        return {key.removeprefix(start): s3.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}

    def plant(key: str, data: bytes) -> None:
        s3.client.put_object(Bucket=bucket, Key=start + key, Body=data)

    url = f"s3://{bucket}/{prefix}".rstrip("/")
    spec = StoreSpec(url, s3.endpoint_url, s3.region, static_credentials=True)
    return Place(open_store(spec), spec, look, plant)


def served_place(server: Served, name: str) -> Place:
    """A target of a live `mirror serve` that does not examine what comes. Its mirror.json is no object of the suite's."""
    root = server.init(name)

    def plant(key: str, data: bytes) -> None:
        (root / key).parent.mkdir(parents=True, exist_ok=True)
        (root / key).write_bytes(data)

    def look() -> dict[str, bytes]:
        every = (path for path in root.rglob("*") if path.is_file() and ".mirror-tmp" not in path.parts)
        return {str(path.relative_to(root)): path.read_bytes() for path in every if path.name != "mirror.json"}

    spec = server.spec(name, server.folder / "all.key")
    return Place(Without(open_store(spec), "mirror.json"), spec, look, plant)


class Without(WrappedStore):
    """A store of which one object is not seen in listings."""

    def __init__(self, inner: MaintainedStore, key: str) -> None:
        super().__init__(inner)
        self._key = key

    def list(self, prefix: str) -> Iterator[Stat]:
        return (stat for stat in self.inner.list(prefix) if stat.key != self._key)


def dav_place(server: DavServer) -> Place:
    folder = server.new_place("/deep")

    def look() -> dict[str, bytes]:
        return {key: data for key, data in server.files(f"{folder}/").items() if not key.startswith(".mirror-dav/")}

    spec = server.spec(folder)
    return Place(open_store(spec), spec, look, lambda key, data: server.plant(f"{folder}/{key}", data))


def memory_place(name: str) -> Place:
    spec = StoreSpec(f"memory://{name}")
    objects = MemoryStore.named(name).objects
    return Place(open_store(spec), spec, lambda: dict(objects), objects.__setitem__)


def wrapped(place: Place) -> Place:
    store = CountingStore(LimitedStore(FaultyStore(place.store), 10**12))
    return Place(store, place.spec, place.look, place.plant)


PLACES = ("folder", "memory", "served", "s3", "s3 bucket root", "wrapped folder", "wrapped s3", "dav nginx", "dav apache",
          "dav rclone", "dav weed")  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("served"), anything=True) as server:
        server.new_key("all", "read,append,prune")
        yield server


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    kind = request.param
    if kind.endswith("folder"):
        (tmp_path / "store").mkdir()
        found = folder_place(tmp_path / "store")
    elif kind == "served":
        found = served_place(request.getfixturevalue("server"), tmp_path.name)
    elif kind.startswith("dav"):
        found = dav_place(request.getfixturevalue("dav_servers")(kind.partition(" ")[2]))
    elif kind == "memory":
        found = memory_place(str(tmp_path))
    else:
        s3 = request.getfixturevalue("s3")
        found = (
            s3_place(s3, s3.server.new_bucket(), "") if kind == "s3 bucket root" else s3_place(s3, s3.bucket, f"{s3.prefix}/deep")
        )
    return wrapped(found) if kind.startswith("wrapped") else found


def test_what_is_created_is_there_whole(place: Place) -> None:
    assert place.store.create(KEY, b"content") is True
    assert place.look() == {KEY: b"content"}
    assert place.store.get(KEY, 7) == b"content"
    assert place.store.size(KEY) == 7


def test_what_others_put_there_is_read(place: Place) -> None:
    place.plant(KEY, b"planted")
    assert place.store.get(KEY, 100) == b"planted"
    assert place.store.size(KEY) == 7
    assert place.store.get_ranges(KEY, [(0, 3)]) == [b"pla"]
    assert list(place.store.list("")) == [Stat(KEY, 7)]


def test_creating_twice_changes_nothing(place: Place) -> None:
    assert place.store.create(KEY, b"first") is True
    assert place.store.create(KEY, b"second, longer") is False
    assert place.store.create(KEY, b"first") is False
    assert place.look() == {KEY: b"first"}


def test_what_others_put_there_is_not_overwritten(place: Place) -> None:
    place.plant(KEY, b"theirs")
    assert place.store.create(KEY, b"ours") is False
    assert place.look() == {KEY: b"theirs"}


def test_of_64_threads_one_creates(place: Place) -> None:
    contents = [f"from thread {number}".encode() for number in range(64)]
    with ThreadPoolExecutor(64) as pool:
        made = list(pool.map(lambda content: place.store.create("log/000000000001.json", content), contents))
    assert made.count(True) == 1
    assert made.count(False) == 63
    assert place.look() == {"log/000000000001.json": contents[made.index(True)]}


def test_two_openings_of_one_place_race_too(place: Place) -> None:
    other = open_store(place.spec)
    with ThreadPoolExecutor(16) as pool:
        made = list(pool.map(lambda n: (place.store, other)[n % 2].create(KEY, b"%d" % n), range(16)))
    assert made.count(True) == 1
    assert other.get(KEY, 100) == b"%d" % made.index(True)


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: memoryview(bytearray(b"<" + data + b">"))[1:-1]])
def test_every_kind_of_bytes(place: Place, kind: Callable[[bytes], Any]) -> None:
    assert place.store.create(KEY, kind(b"abc"))
    place.store.put_hint("latest.json", kind(b"def"))
    assert place.look() == {KEY: b"abc", "latest.json": b"def"}


def test_empty_object(place: Place) -> None:
    assert place.store.create(KEY, b"")
    assert place.look() == {KEY: b""}
    assert place.store.get(KEY, 0) == b""
    assert place.store.size(KEY) == 0
    assert place.store.get_ranges(KEY, [(0, 0)]) == [b""]
    assert list(place.store.list("packs/")) == [Stat(KEY, 0)]
    assert place.store.create(KEY, b"x") is False
    with pytest.raises(DamageError):
        place.store.get_ranges(KEY, [(0, 1)])


def test_forty_megabytes(place: Place) -> None:
    data = os.urandom(MiB) * 40 + b"end"
    assert place.store.create(KEY, data)
    assert place.look() == {KEY: data}
    assert place.store.get(KEY, 41 * MiB) == data
    assert place.store.get_ranges(KEY, [(40 * MiB, 40 * MiB + 3), (5, 30 * MiB)]) == [b"end", data[5 : 30 * MiB]]
    assert place.store.create(KEY, data) is False


def test_what_is_not_there(place: Place) -> None:
    assert place.store.create(KEY, b"{}")
    for key in ("packs/ab/missing", "missing"):
        assert place.store.size(key) is None
        with pytest.raises(NotFound):
            place.store.get(key, 100)
        with pytest.raises(NotFound):
            place.store.get_ranges(key, [(0, 1)])


def test_size_of_a_missing_object_when_nothing_was_asked_before(place: Place) -> None:
    assert place.store.size("missing") is None
    assert place.store.size("missing") is None


def test_a_larger_object_than_allowed_is_not_read(place: Place) -> None:
    place.plant(KEY, bytes(1000))
    assert len(place.store.get(KEY, 1000)) == 1000
    with pytest.raises(DamageError, match=r"it has 1000 bytes, more than the 999") as caught:
        place.store.get(KEY, 999)
    assert f"{place.store.url}/{KEY}" in str(caught.value)


def test_ranges_come_in_the_order_asked(place: Place) -> None:
    data = bytes(range(256)) * 40
    place.plant(KEY, data)
    asked = [(9000, 9100), (0, 1), (1, 2), (2, 2), (5000, 10240), (10, 2000), (15, 16), (9000, 9100)]
    assert place.store.get_ranges(KEY, asked) == [data[start:end] for start, end in asked]
    assert place.store.get_ranges(KEY, []) == []
    assert all(type(part) is bytes for part in place.store.get_ranges(KEY, asked))


@pytest.mark.parametrize("asked", [[(0, 11)], [(9, 12)], [(10, 11)], [(50, 60)], [(0, 5), (8, 11)], [(0, 3), (3, 12), (100, 200)]])
def test_a_range_behind_the_end_is_damage(place: Place, asked: list[tuple[int, int]]) -> None:
    place.plant(KEY, b"0123456789")
    with pytest.raises(DamageError) as caught:
        place.store.get_ranges(KEY, asked)
    assert f"{place.store.url}/{KEY}" in str(caught.value)


def test_a_listing_of_more_than_a_page(place: Place) -> None:
    count = 150 if place.store.url.startswith("dav") else 1100  # WebDAV has no pages, and each costs some requests
    keys = {f"packs/{number % 7:02x}/{number:064x}.0" for number in range(count)}
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda key: place.store.create(key, key[:9].encode()), keys))
    found = list(place.store.list(""))
    assert len(found) == count
    assert set(found) == {Stat(key, 9) for key in keys}
    assert {key for key, _ in place.store.list("packs/03/")} == {key for key in keys if key.startswith("packs/03/")}


def test_prefixes_end_at_a_slash(place: Place) -> None:
    for key in ("log/1", "log/2/3", "logs/4", "log.json", "packs/ab/5", "packs/abc/6", "index/7"):
        place.plant(key, b"x")

    def keys(prefix: str) -> set[str]:
        return {key for key, _ in place.store.list(prefix)}

    assert keys("log/") == {"log/1", "log/2/3"}
    assert keys("packs/ab/") == {"packs/ab/5"}
    assert keys("packs/") == {"packs/ab/5", "packs/abc/6"}
    assert keys("nothing/") == set()
    assert keys("packs/ab/nothing/") == set()
    assert keys("") == set(place.look())


def test_a_listing_may_be_left_and_may_overlap_another(place: Place) -> None:
    for number in range(20):
        place.plant(f"log/{number}", b"x")
    first, second = place.store.list("log/"), place.store.list("log/")
    next(first)
    assert len(list(second)) == 20
    assert len(list(place.store.list("log/"))) == 20


def test_deleting(place: Place) -> None:
    keys = [f"packs/0{number % 3}/{number}" for number in range(30)]
    for key in keys:
        place.plant(key, b"x")
    place.store.delete([*keys[:29], "packs/00/never-there", "nowhere/at/all"])
    assert set(place.look()) == {keys[29]}
    place.store.delete(keys[:2])
    place.store.delete([])
    place.store.delete([keys[29]])
    assert list(place.store.list("")) == []
    assert place.store.create(keys[0], b"again") is True


def test_a_hint_replaces(place: Place) -> None:
    place.store.put_hint("latest.json", b"a long first hint")
    place.store.put_hint("latest.json", b"second")
    assert place.look() == {"latest.json": b"second"}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: place.store.put_hint("latest.json", b"%d" % n * 1000), range(8)))
    assert place.look()["latest.json"] in [b"%d" % n * 1000 for n in range(8)]


def test_nothing_is_left_beside_the_objects(place: Place) -> None:
    place.store.create(KEY, b"1")
    place.store.create(KEY, b"2")
    place.store.put_hint("latest.json", b"3")
    assert place.store.sweep() == 0
    assert {key for key, _ in place.store.list("")} == {KEY, "latest.json"}


def test_free_bytes(place: Place) -> None:
    room = place.store.free_bytes()
    if room is not None:
        free, total = room
        assert 0 < free <= total
    assert (room is None) == (not place.store.url.startswith(("/", "http://")))


def test_the_url_has_no_slash_at_its_end(place: Place) -> None:
    assert not place.store.url.endswith("/")
    again = open_store(replace(place.spec, url=place.spec.url + "/"))
    assert again.url == place.store.url
    place.plant(KEY, b"x")
    assert again.get(KEY, 1) == b"x"


def test_a_spec_survives_pickling(place: Place) -> None:
    place.store.create(KEY, b"x")
    spec = pickle.loads(pickle.dumps(place.spec))
    assert spec == place.spec
    assert open_store(spec).get(KEY, 1) == b"x"


@pytest.fixture
def umask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


@pytest.mark.usefixtures("umask")
def test_a_folder_is_private_whatever_the_umask(tmp_path: Path) -> None:
    root = tmp_path / "new"
    store = folder_place(root).store
    store.create(KEY, b"x")
    store.put_hint("latest.json", b"x")
    modes = {str(p.relative_to(tmp_path)): stat.S_IMODE(p.stat().st_mode) for p in [root, *root.rglob("*")]}
    assert modes == {
        "new": 0o700,
        "new/packs": 0o700,
        "new/packs/ab": 0o700,
        f"new/{KEY}": 0o600,
        "new/latest.json": 0o600,
        "new/.mirror-tmp": 0o700,
    }
