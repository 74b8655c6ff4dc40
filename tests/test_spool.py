"""Spool and Sorter against a list and `sorted`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.errors import TemporaryError
from mirror.spool import KeySorter, Sorter, Spool


@given(st.lists(st.binary(max_size=200)), st.sampled_from([0, 100, 1000, 1 << 20]), st.booleans())
def test_a_spool_is_a_list(values: list[bytes], memory: int, bulk: bool) -> None:
    with Spool[bytes](memory=memory) as spool:
        if bulk:
            spool.extend(values)
        else:
            for value in values:
                spool.append(value)
        assert len(spool) == len(values)
        assert list(spool) == values
        assert list(reversed(spool)) == values[::-1]
        assert list(spool) == values
        assert list(zip(spool, reversed(spool), strict=True)) == list(zip(values, reversed(values), strict=True))


def test_it_can_grow_after_it_was_read_and_an_iterator_keeps_to_what_was_there() -> None:
    with Spool[bytes](memory=50) as spool:
        spool.extend([b"a" * 20, b"b" * 20])
        early = iter(spool)
        assert next(early) == b"a" * 20
        spool.extend([b"c" * 20] * 10)
        assert list(early) == [b"b" * 20]
        assert len(list(spool)) == 12


def test_values_of_a_type_come_back_as_such() -> None:
    with Spool(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(tuple[str, int]).decode, memory=100) as spool:
        spool.extend((str(n), n) for n in range(1000))
        assert list(reversed(spool))[:2] == [("999", 999), ("998", 998)]


def test_memory_does_not_grow_with_the_records() -> None:
    with Spool[bytes](memory=1 << 20) as spool, Sorter(entries=5_000) as sorter:
        tracemalloc.start()
        for n in range(100_000):
            spool.append(b"%0100d" % n)
            sorter.add(b"%07d" % (n * 7919 % 100_000), b"%050d" % n)
        for _ in spool:
            pass
        assert [key for key, _ in sorter] == [b"%07d" % n for n in range(100_000)]
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    # 100,000 keys of the comparison itself are 4 MB and more; all records would be 30 MB.
    assert peak < 16 << 20


def test_what_is_on_disk_cannot_be_seen(tmp_path: Path) -> None:
    with Spool[bytes](folder=str(tmp_path), memory=0) as spool:
        spool.append(b"x")
        assert list(tmp_path.iterdir()) == []
        assert list(spool) == [b"x"]


@given(
    st.lists(st.tuples(st.binary(max_size=3), st.binary(max_size=20)), max_size=300),
    st.sampled_from([1, 2, 7, 1000]),
    st.booleans(),
)
def test_a_sorter_is_a_stable_sort(pairs: list[tuple[bytes, bytes]], entries: int, bulk: bool) -> None:
    with Sorter(entries=entries) as sorter:
        if bulk:
            sorter.extend(pairs)
        else:
            for key, value in pairs:
                sorter.add(key, value)
        wanted = sorted(pairs, key=lambda pair: pair[0])
        assert list(sorter) == wanted
        assert list(sorter) == wanted


@given(st.lists(st.binary(max_size=3), max_size=300), st.sampled_from([1, 2, 7, 1000]))
def test_keys_alone_are_sorted(keys: list[bytes], entries: int) -> None:
    with KeySorter(entries=entries) as sorter:
        sorter.extend(keys)
        assert list(sorter) == sorted(keys)
        assert list(sorter) == sorted(keys)


def test_many_runs_are_merged_in_levels_and_few_files_are_open() -> None:
    descending = [(b"%06d" % n, b"") for n in range(10_000, 0, -1)]
    with Sorter(entries=1) as sorter:
        before = len(list(Path("/proc/self/fd").iterdir()))
        sorter.extend(descending)  # 10,000 runs of one
        assert len(list(Path("/proc/self/fd").iterdir())) - before < 200
        assert list(sorter) == descending[::-1]


def test_large_values_are_spilled_by_size() -> None:
    with Sorter(size=1 << 20) as sorter:
        for n in range(20, 0, -1):
            sorter.add(b"%02d" % n, bytes(300_000))
        assert [(key, len(value)) for key, value in sorter] == [(b"%02d" % n, 300_000) for n in range(1, 21)]


def test_a_full_disk_is_a_temporary_error_that_names_folder_and_next_step(tmp_path: Path) -> None:
    script = """
        import resource, sys
        from mirror.errors import TemporaryError
        from mirror.spool import Spool
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))  # the nearest thing to a full disk
        with Spool(folder=sys.argv[1], memory=1 << 16) as spool:
            try:
                for _ in range(100):
                    spool.append(bytes(1 << 16))
            except TemporaryError as error:
                print(error)
                assert error.exit_code == 5
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert str(tmp_path) in done.stdout
    assert "TMPDIR" in done.stdout


def test_a_missing_folder_is_a_temporary_error(tmp_path: Path) -> None:
    with Spool[bytes](folder=str(tmp_path / "none"), memory=0) as spool:
        with pytest.raises(TemporaryError, match="none"):
            spool.append(b"x")
