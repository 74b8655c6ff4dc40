"""Moves: equal content gone in one place and come in another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.manifest import ChangeLine, File, Folder, Page, Ref, Symlink
from mirror.moves import Moves, Row, content_key, row, row_spool
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW
from mirror.state import State

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


def test_empty_files_folders_and_links_do_not_move(state: State) -> None:
    file = File(b"a", 0, bytes(16), 0, b"")
    rows = [row(DELETED, file), row(NEW, file), row(DELETED, Folder(b"d/")), row(NEW, Symlink(b"l", b"t"))]
    assert all(not each.content for each in rows)
    count, lines = told(state, rows)
    assert count == 0
    assert [line.symbol for line, _ in lines] == [DELETED, NEW, DELETED, NEW]


def test_the_same_chunk_list_is_the_same_content_whatever_its_epoch() -> None:
    """Past 4,096 ids the digest of a list changes with its epoch: a big file renamed after a prune was told as deleted and new."""

    def long(epoch: int, digest: bytes = bytes(32), fingerprint: bytes = bytes(16)) -> File:
        return File(b"a", 5, fingerprint, 1, b"", Ref(b"", digest, epoch, 6500, 0))

    assert content_key(long(0)) == content_key(long(7, bytes(31) + b"1")) != content_key(long(0, fingerprint=b"1" * 16))
    page = Page(b"p", "http://h/", 200, 3, bytes(16), 0, bytes(32))
    assert content_key(page) == content_key(File(b"q", 3, bytes(16), 2, bytes(32)))


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
