"""The bytes of a served file without HTTP: any stretch of it, from wherever it can be had, and never a wrong one."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest
from byhand import forget, head_of, prune
from mirrors import in_memory, mirror, noise, target_in, three_nights, write
from visits import serving

from mirror.errors import DamageError
from mirror.manifest import File
from mirror.serve.contents import PIECE, Contents
from mirror.serve.paths import Objects, Paths
from mirror.serve.places import Places
from mirror.store.fs import FolderStore
from mirror.store.memory import MemoryStore

BIG, SMALL, ZEROS = noise(9_000_000, 1), noise(300_000, 2), bytes(200_000)


@dataclass
class Opened:
    """A target in memory, open for serving."""

    store: MemoryStore
    contents: Contents
    paths: Paths
    places: Places

    def entry(self, path: bytes) -> File:
        found = self.paths.at(head_of(self.store).manifest, path)
        assert isinstance(found, File)
        return found

    def read(self, entry: File, start: int = 0, end: int | None = None) -> bytes:
        return b"".join(self.contents.pieces(entry, start, entry.size if end is None else end, lambda entry, asked: None))


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opened]:
    target, store = in_memory(str(tmp_path))
    for name, data in {"big": BIG, "small": SMALL, "zeros": ZEROS, "empty": b"", "one": b"1"}.items():
        write(tmp_path / "site" / name, data)
    mirror(tmp_path / "site", target)
    with ExitStack() as stack:
        objects = Objects(store, 1 << 20)
        places = stack.enter_context(closing(Places(store, lambda why: None)))
        places.begin()
        yield Opened(store, Contents(store, objects, places, 4 << 20), Paths(objects, 1 << 20), places)


@pytest.mark.parametrize(("name", "data"), [(b"big", BIG), (b"small", SMALL), (b"zeros", ZEROS), (b"empty", b""), (b"one", b"1")])
def test_any_stretch(opened: Opened, name: bytes, data: bytes) -> None:
    """Also once the lengths of its chunks are known, and before."""
    entry, dice = opened.entry(name), random.Random(1)
    for _ in range(30):
        start = dice.randrange(len(data) + 1)
        end = min(len(data), start + dice.choice((0, 1, 1000, PIECE, 10**6)))
        assert opened.read(entry, start, end) == data[start:end], (start, end)
    assert opened.read(entry) == data
    for piece in opened.contents.pieces(entry, 0, len(data), lambda entry, asked: None):
        assert len(piece) <= PIECE + (256 << 10)


@pytest.mark.parametrize("more", [-1, 1, 10**15])
@pytest.mark.parametrize("name", [b"big", b"small", b"one"])
def test_a_size_that_is_not_the_chunks_is_damage(opened: Opened, name: bytes, more: int) -> None:
    """And whatever was given until then is what is there."""
    entry = opened.entry(name)
    lying = msgspec.structs.replace(entry, size=entry.size + more)
    given: list[bytes] = []
    with pytest.raises(DamageError, match="the entry says that it has"):
        given.extend(opened.contents.pieces(lying, 0, lying.size, lambda entry, asked: None))
    assert {b"big": BIG, b"small": SMALL, b"one": b"1"}[name].startswith(b"".join(given))
    with pytest.raises(DamageError):
        opened.read(lying, lying.size - 1, lying.size) if more > 0 else opened.read(lying)


def test_no_changed_byte_of_a_pack_is_given(opened: Opened) -> None:
    """Wherever in a pack it is changed: a file is right as far as it is given."""
    sources = {b"big": BIG, b"small": SMALL, b"zeros": ZEROS}
    packs, dice, damaged = [key for key in opened.store.objects if key.startswith("packs/")], random.Random(2), 0
    for _ in range(25):
        pack = dice.choice(packs)
        whole = opened.store.objects[pack]
        data = bytearray(whole)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        opened.store.objects[pack] = bytes(data)
        objects = Objects(opened.store, 1 << 20)
        contents = Contents(opened.store, objects, opened.places, 4 << 20)
        for name, source in sources.items():
            given = bytearray()
            try:
                for piece in contents.pieces(opened.entry(name), 0, len(source), lambda entry, asked: None):
                    given += piece
                assert given == source
            except DamageError:
                damaged += 1
                assert source.startswith(given)
        opened.store.objects[pack] = whole
        if damaged > 3:
            break
    assert damaged > 3


def test_a_prune_that_goes_by_is_not_noticed(tmp_path: Path) -> None:
    """All packs and fragments are written anew and the old ones go while visitors come; older snapshots are forgotten."""
    target = target_in(tmp_path)
    nights = three_nights(tmp_path, target)
    files = {path for path, item in nights[2].items() if item.kind == "file" and path.startswith(b"pages/")}
    store = FolderStore(target.store.url)
    with serving(target.store.url) as newest, serving(target.store.url, "--at", "1", "--memory", "8M") as first:
        assert newest.get("/").status == first.get("/").status == 200
        forget(store, [1, 2])
        assert prune(store, repack=True)
        for path in sorted(files):
            assert newest.get("/" + path.decode()).body == (tmp_path / "site" / path.decode()).read_bytes()
        assert newest.get("/big.bin").body == (tmp_path / "site" / "big.bin").read_bytes()
        assert first.get("/big.bin").status == 500  # what was forgotten is gone; it is said
        assert first.wait_for("notice", "damage")
    assert newest.summary["failures"] == 0
