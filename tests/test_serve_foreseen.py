"""Segments that a `mirror serve` looks at when they come: what it found then does not outlive what it rests on, and spares a record
nothing but time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Served
from test_serve import things
from test_serve_hostile import Good, changed

from mirror.envelope import NODE, digest_of, seal, unseal
from mirror.keys import MANIFEST, ObjectName, record_key
from mirror.manifest import decode_node, encode_node


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture
def good(server: Served, tmp_path: Path) -> Good:
    """Each segment of it is one that is looked at when it comes."""
    return Good(server, tmp_path, long=False)


def test_the_good_one_is_accepted(good: Good) -> None:
    good.send("packs/", "index/", "manifests/", "log/")
    assert things(good.there) == good.objects


def test_an_index_that_went_is_missed(good: Good) -> None:
    good.send("packs/", "index/", "manifests/")
    (key,) = good.keys("index/")
    (good.there / key).unlink()
    good.refused(record_key(1), good.objects[record_key(1)], "content of .* is not here")
    good.send("index/", "log/")


def test_a_segment_that_went_is_missed(good: Good) -> None:
    good.send("packs/", "index/", "manifests/")
    for key in good.keys("manifests/"):
        (good.there / key).unlink()
        good.refused(record_key(1), good.objects[record_key(1)], "which is not here")
        assert good.store.create(key, good.objects[key])
    good.send("log/")


@pytest.mark.parametrize("lie", ["first", "entries"])
def test_a_node_that_lies_of_a_segment(lie: str, good: Good) -> None:
    good.send("packs/", "index/", "manifests/")
    told = good.record["manifest"]
    assert isinstance(told, dict)
    root = ObjectName(MANIFEST, bytes.fromhex(told["blake3"]), 0).key()
    level, (ref, *rest) = decode_node(unseal(good.objects[root], (NODE,), None, root)[1], root)
    lying = ref._replace(first=ref.first + b"x") if lie == "first" else ref._replace(entries=ref.entries + 1)
    payload = encode_node(level, [lying, *rest])
    name = ObjectName(MANIFEST, digest_of(NODE, payload), 0)
    assert good.store.create(name.key(), seal(NODE, payload))
    more = {**told, "blake3": name.digest.hex(), "count": told["count"] + (lie == "entries")}
    good.refused(record_key(1), changed(good, manifest=more), "is not what the node above it says")
    good.send("log/")
