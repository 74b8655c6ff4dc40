"""Stores around stores: counting, limiting, and the fault injector that other tests rely on."""

from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from faults import Fault, FaultyStore

from mirror.errors import NotFound, TemporaryError
from mirror.store import StoreSpec
from mirror.store.memory import MemoryStore
from mirror.store.open import open_store
from mirror.store.wrap import CountingStore, Counts, LimitedStore


def test_requests_are_counted_by_kind_and_bytes_by_direction() -> None:
    store = CountingStore(MemoryStore())
    assert store.counts == Counts()
    store.create("a/b", b"12345")
    store.create("a/b", memoryview(b"1234567"))
    store.put_hint("latest", b"123")
    after_writing = store.counts
    assert after_writing == Counts(create=2, hint=1, bytes_up=15)
    store.get("a/b", 5)
    store.get_ranges("a/b", [(0, 1), (1, 3), (4, 5)])
    store.size("a/b")
    list(store.list("a/"))
    store.delete(["a/b", "c"])
    store.sweep()
    store.free_bytes()
    assert store.counts - after_writing == Counts(get=1, range=3, size=1, list=1, delete=1, sweep=1, bytes_down=9)
    assert store.counts.requests == 11


def test_a_failed_request_counts_and_its_bytes_do_not() -> None:
    faults = [Fault("create"), Fault("get_ranges")]
    store = CountingStore(FaultyStore(MemoryStore(), faults))
    with pytest.raises(TemporaryError):
        store.create("a", b"12345")
    with pytest.raises(NotFound):
        store.get("a", 1)
    with pytest.raises(TemporaryError):
        store.get_ranges("a", [(0, 1)])
    assert store.counts == Counts(create=1, get=1, range=1)


def test_counts_of_workers_add_up() -> None:
    one, other = Counts(get=1, bytes_down=10), Counts(get=2, create=3, bytes_up=5)
    assert pickle.loads(pickle.dumps(one)) + other == Counts(get=3, create=3, bytes_down=10, bytes_up=5)
    assert sum([one, other], Counts()) - one == other


def test_threads_do_not_lose_counts() -> None:
    store = CountingStore(MemoryStore())

    def work(number: int) -> None:
        for turn in range(200):
            store.create(f"{number}/{turn}", b"12")
            store.get(f"{number}/{turn}", 2)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    assert store.counts == Counts(get=3200, create=3200, bytes_up=6400, bytes_down=6400)


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def limited() -> tuple[LimitedStore, Clock]:
    clock = Clock()
    return LimitedStore(MemoryStore(), 1000, lambda: clock.now, clock.sleep), clock


def test_the_rate_holds_for_writes_and_reads(limited: tuple[LimitedStore, Clock]) -> None:
    store, clock = limited
    for number in range(10):
        store.create(f"{number}", bytes(500))
    assert clock.now == pytest.approx(1000 + 4)  # 5,000 bytes, the first second's worth at once
    store.put_hint("latest", bytes(1000))
    assert clock.now == pytest.approx(1000 + 5)
    for number in range(10):
        store.get(f"{number}", 500)
    assert clock.now == pytest.approx(1000 + 10)
    store.get_ranges("0", [(0, 250), (250, 500), (0, 500)])
    assert clock.now == pytest.approx(1000 + 11)


def test_an_object_larger_than_a_second_waits_its_whole_time(limited: tuple[LimitedStore, Clock]) -> None:
    store, clock = limited
    store.create("big", bytes(60_000))
    assert clock.now == pytest.approx(1000 + 59)


def test_idle_time_is_not_saved_up(limited: tuple[LimitedStore, Clock]) -> None:
    store, clock = limited
    clock.now += 3600
    store.create("a", bytes(10_000))
    assert clock.now == pytest.approx(4600 + 9)


def test_small_questions_are_free(limited: tuple[LimitedStore, Clock]) -> None:
    store, clock = limited
    for _ in range(1000):
        store.size("a")
        list(store.list(""))
        store.delete(["a"])
    assert clock.now == 1000


def test_threads_share_one_rate() -> None:
    store = LimitedStore(MemoryStore(), 1_000_000)
    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.create(str(n), bytes(75_000)), range(20)))
    assert 0.45 < time.monotonic() - start < 5  # 1.5 MB, the first megabyte at once


def test_the_spec_sets_the_rate() -> None:
    assert isinstance(open_store(StoreSpec("memory://limited", bandwidth=1000)), LimitedStore)
    assert isinstance(open_store(StoreSpec("memory://limited")), MemoryStore)


def test_a_lost_answer() -> None:
    inner = MemoryStore()
    store = FaultyStore(inner, [Fault("create", nth=2, when="after")])
    assert store.create("a", b"1")
    with pytest.raises(TemporaryError):
        store.create("b", b"2")
    assert inner.objects == {"a": b"1", "b": b"2"}
    assert store.create("b", b"2") is False
    assert store.calls == [("create", "a"), ("create", "b"), ("create", "b")]


def test_faults_by_key_and_for_every_call() -> None:
    store = FaultyStore(MemoryStore(), [Fault("create", nth=0, key="log/", error=lambda: TemporaryError("no log"))])
    assert store.create("packs/1", b"")
    for _ in range(3):
        with pytest.raises(TemporaryError, match="no log"):
            store.create("log/1", b"")
    assert [*store.list("")] == [("packs/1", 0)]


def test_a_delay_holds_up_only_its_own_call() -> None:
    store = FaultyStore(MemoryStore(), [Fault("create", error=None, delay_seconds=0.5)])
    slow = threading.Thread(target=store.create, args=("slow", b""))
    start = time.monotonic()
    slow.start()
    while not store.calls:
        time.sleep(0.001)
    assert store.create("quick", b"")
    assert time.monotonic() - start < 0.4
    slow.join()
    assert store.size("slow") == 0
