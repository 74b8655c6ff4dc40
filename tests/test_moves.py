"""Moves: equal content gone in one place and come in another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.compare import same_content
from mirror.manifest import ChangeLine, File, Folder, Page, Symlink
from mirror.moves import Moves, Row, row, row_spool
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW
from mirror.snapshot import ManifestReader, ManifestWriter, content_key
from mirror.state import State
from mirror.store.memory import MemoryStore

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other work may be going on here


@pytest.fixture(scope="module")
def state() -> Iterator[State]:
    state = State(None)
    yield state
    state.close()


def told(state: State, rows: list[Row]) -> tuple[int, list[tuple[ChangeLine, int]]]:
    with row_spool() as spool:
        spool.extend(rows)
        moves = Moves(state)
        try:
            return moves.pair(spool), list(moves.lines(spool))
        finally:
            moves.close()


def test_a_renamed_file_is_one_line(state: State) -> None:
    rows = [Row(DELETED, b"a", 5, b"x"), Row(NEW, b"b", 5, b"x"), Row(CHANGED, b"c", 5, b"x"), Row(DESCRIBED, b"d/", 0, b"")]
    assert told(state, rows) == (
        1,
        [(ChangeLine(MOVED, b"b", b"a"), 5), (ChangeLine(CHANGED, b"c"), 5), (ChangeLine(DESCRIBED, b"d/"), 0)],
    )


def test_a_move_backwards_in_order_is_one_too(state: State) -> None:
    assert told(state, [Row(NEW, b"a", 5, b"x"), Row(DELETED, b"b", 5, b"x")]) == (1, [(ChangeLine(MOVED, b"a", b"b"), 5)])


def test_copies_are_no_moves_and_each_gone_file_moves_once(state: State) -> None:
    rows = [Row(NEW, b"a", 5, b"x"), Row(NEW, b"b", 5, b"x"), Row(DELETED, b"c", 5, b"x")]
    count, lines = told(state, rows)
    assert count == 1
    assert Counter(line.symbol for line, _ in lines) == {MOVED: 1, NEW: 1}
    rows = [Row(DELETED, b"a", 5, b"x"), Row(DELETED, b"b", 5, b"x"), Row(NEW, b"c", 5, b"x")]
    count, lines = told(state, rows)
    assert count == 1
    assert Counter(line.symbol for line, _ in lines) == {MOVED: 1, DELETED: 1}


@pytest.fixture
def reader() -> ManifestReader:
    return ManifestReader(MemoryStore("moves"), None)


def test_empty_files_folders_and_links_do_not_move(state: State, reader: ManifestReader) -> None:
    file = File(b"a", 0, bytes(16), 0, b"")
    ends = [(DELETED, file), (NEW, file), (DELETED, Folder(b"d/")), (NEW, Symlink(b"l", b"t"))]
    rows = [row(symbol, entry, reader.content_key) for symbol, entry in ends]
    assert all(not each.content for each in rows)
    count, lines = told(state, rows)
    assert count == 0
    assert [line.symbol for line, _ in lines] == [DELETED, NEW, DELETED, NEW]


@pytest.mark.parametrize("count", [3, 65, 9000])
def test_equal_chunk_lists_are_the_same_content_and_nothing_else_is(count: int) -> None:
    """Past a leaf of ids the digest of a list changes with its epoch: a big file renamed after a prune was told as deleted and new.
    A fingerprint decides nothing: two files may have the same one, even by intent."""
    store = MemoryStore("moves")
    reader = ManifestReader(store, None)
    ids = b"".join(blake3(b"%d" % n).digest() for n in range(count))
    other = blake3(b"other").digest() + ids[32:]

    def file(joined: bytes, epoch: int) -> File:
        return File(b"a", 5, bytes(16), 1, *ManifestWriter(store, epoch, {}).content(joined))

    assert reader.content_key(file(ids, 0)) == reader.content_key(file(ids, 7)) == content_key(ids)
    assert reader.content_key(file(other, 7)) == content_key(other) != content_key(ids)
    assert same_content(file(ids, 0), file(ids, 7), reader)
    assert not same_content(file(ids, 0), file(other, 0), reader)
    page = Page(b"p", "http://h/", 200, 3, bytes(16), 0, ids[:96])
    assert reader.content_key(page) == content_key(ids[:96])


def test_a_gone_file_whose_chunk_list_is_damaged_did_not_move() -> None:
    store = MemoryStore("moves")
    _, more = ManifestWriter(store, 0, {}).content(blake3(b"1").digest() * 9000)
    assert more
    key = more.name.key()
    store.objects[key] = store.objects[key][:-1] + b"?"
    assert row(DELETED, File(b"a", 5, bytes(16), 1, b"", more), ManifestReader(store, None).content_key).content == b""


paths = st.binary(min_size=1, max_size=3).map(lambda name: name.replace(b"/", b"_"))


@calm
@given(st.dictionaries(paths, st.tuples(st.sampled_from((NEW, CHANGED, DELETED, DESCRIBED)), st.sampled_from((b"", b"x", b"y")))))
def test_every_path_is_accounted_for(state: State, given_: dict[bytes, tuple[str, bytes]]) -> None:
    rows = [Row(symbol, path, 1, content) for path, (symbol, content) in sorted(given_.items())]
    count, lines = told(state, rows)
    came, gone = (
        Counter(content for symbol, content in given_.values() if symbol == which and content) for which in (NEW, DELETED)
    )
    assert count == (came & gone).total()
    said = [line for line, _ in lines]
    assert [line.path for line in said] == sorted(line.path for line in said)
    moved = [line for line in said if line.symbol == MOVED]
    assert len(moved) == count
    assert sorted([line.path for line in said] + [line.moved_from for line in moved]) == sorted(given_)
    for line in moved:
        assert given_[line.path][1] == given_[line.moved_from][1]
        assert (given_[line.path][0], given_[line.moved_from][0]) == (NEW, DELETED)
