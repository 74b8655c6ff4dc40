"""What this host remembers: kept, forgotten, thrown away when spoilt, and never needed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.envelope import NODE, SEGMENT, digest_of
from mirror.state import State, open_state


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    state = State(tmp_path / "cache")
    yield state
    state.close()


def test_facts_are_kept_between_runs(tmp_path: Path) -> None:
    first = State(tmp_path / "a" / "b")
    assert first.lasting
    assert first.fact("head") == ""
    first.remember("head", "5")
    first.remember("head", "6")
    first.close()
    second = State(tmp_path / "a" / "b")
    assert second.fact("head") == "6"
    second.close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_without_a_folder_all_is_gone_at_the_end() -> None:
    state = State(None)
    folder = state.folder
    assert not state.lasting
    state.remember("head", "5")
    assert folder.exists()
    state.close()
    assert not folder.exists()


@pytest.mark.parametrize("content", [b"", b"no database at all" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_spoilt_file_is_thrown_away(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.sqlite").write_bytes(content)
    state = State(tmp_path)
    assert state.fact("head") == ""
    state.remember("head", "5")
    assert state.is_whole()
    state.close()


def test_a_file_of_another_version_or_with_other_tables_is_thrown_away(tmp_path: Path) -> None:
    for change in ("PRAGMA user_version=99", "DROP TABLE fact"):
        state = State(tmp_path)
        state.remember("head", "5")
        state.db.execute(change)
        state.close()
        state = State(tmp_path)
        assert state.fact("head") == ""
        state.close()


def test_a_file_cut_in_the_middle_is_told(tmp_path: Path) -> None:
    state = State(tmp_path)
    state.keep_payloads((digest_of(SEGMENT, b"%d" % n), SEGMENT, b"%d" % n * 300) for n in range(2000))
    state.close()
    file = tmp_path / "state.sqlite"
    data = bytearray(file.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 40_000] = bytes(40_000)
    file.write_bytes(data)
    state = State(tmp_path)
    assert not state.is_whole()
    state.discard()
    state.close()
    assert not file.exists()


def test_a_place_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    state = open_state(tmp_path / "file" / "cache")
    assert not state.lasting
    assert "not a directory" in state.why_not
    state.remember("head", "5")
    state.close()


def test_a_busy_file_is_not_thrown_away(tmp_path: Path) -> None:
    first = State(tmp_path)
    first.remember("head", "5")
    first.db.execute("BEGIN IMMEDIATE")
    second = State(tmp_path)
    assert second.fact("head") == "5"
    second.close()
    first.db.execute("COMMIT")
    assert first.fact("head") == "5"
    first.close()


def test_writes_happen_together_or_not_at_all(state: State) -> None:
    def interrupted() -> None:
        with state.together():
            state.remember("a", "1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert state.fact("a") == ""
    with state.together():
        state.remember("a", "1")
        state.remember("b", "2")
    assert (state.fact("a"), state.fact("b")) == ("1", "2")


def test_payloads_are_hashed_again_and_put_right(state: State) -> None:
    digest = digest_of(SEGMENT, b"good")
    assert state.payload(digest) is None
    state.keep_payloads([(digest, SEGMENT, b"good")])
    assert state.payload(digest) == (SEGMENT, b"good")
    state.db.execute("UPDATE object SET payload = ?", (b"bad",))
    assert state.payload(digest) is None
    state.keep_payloads([(digest, SEGMENT, b"good")])
    assert state.payload(digest) == (SEGMENT, b"good")
    state.db.execute("UPDATE object SET kind = ?", (NODE,))
    assert state.payload(digest) is None


def test_only_what_the_newest_snapshot_needs_is_kept(state: State) -> None:
    digests = [digest_of(SEGMENT, b"%d" % n) for n in range(5)]
    state.keep_payloads((digest, SEGMENT, b"%d" % n) for n, digest in enumerate(digests))
    for digest in digests:
        state.keep_scanned("one", digest, b"seen")
        state.keep_scanned("two", digest, b"seen")
    state.keep_only(iter(digests[1:3]))
    assert [state.payload(digest) is not None for digest in digests] == [False, True, True, False, False]
    assert [state.scanned("two", digest) for digest in digests] == [None, b"seen", b"seen", None, None]
    state.keep_only([])
    assert state.scanned("one", digests[1]) is None


def test_found_files_must_be_as_they_were(state: State) -> None:
    assert not state.has_found("one")
    state.keep_found("one", [(b"a", 5, 7, 1, 2, b"record"), (b"b", 5, 7, 1, 2, b"other")])
    assert state.has_found("one")
    assert not state.has_found("two")
    assert state.found("one", b"a", 5, 7, (1, 2)) == b"record"
    for path, size, mtime, validator in ((b"c", 5, 7, (1, 2)), (b"a", 6, 7, (1, 2)), (b"a", 5, 8, (1, 2)), (b"a", 5, 7, (0, 2))):
        assert state.found("one", path, size, mtime, validator) is None
    assert state.found("two", b"a", 5, 7, (1, 2)) is None
    state.keep_found("one", [(b"a", 6, 8, 3, 4, b"newer")])
    assert state.found("one", b"a", 6, 8, (3, 4)) == b"newer"
    state.keep_found("one", ((b"%d" % number, 1, 2, 3, 4, b"many") for number in range(5000)))
    assert [state.found("one", b"%d" % number, 1, 2, (3, 4)) for number in (0, 4095, 4096, 4999, 5000)] == [b"many"] * 4 + [None]
    state.db.execute("UPDATE found SET rows = x'c1' WHERE rowid = 1")
    state.keep_found("one", [])
    assert state.found("one", b"b", 5, 7, (1, 2)) is None
    assert state.found("one", b"a", 6, 8, (3, 4)) == b"newer"
    state.forget_found("one")
    assert not state.has_found("one")


def test_numbers_of_64_bits_fit(state: State) -> None:
    low, high = -(2**63), 2**63 - 1
    state.keep_found("one", [(b"a", high, low, high, low, b"record")])
    assert state.found("one", b"a", high, low, (high, low)) == b"record"


def test_sqlite_is_new_enough_for_what_is_asked_of_it() -> None:
    assert sqlite3.sqlite_version_info >= (3, 24), "ON CONFLICT DO UPDATE"
