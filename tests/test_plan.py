"""Plans: items on a spool, when a batch is full, and how many deletions are too many."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.manifest import Entry, File, Folder, Page, Redirect, Ref, Symlink
from mirror.plan import BATCH_BYTES, BATCH_FILES, DeletionLimit, Drop, Fetch, Item, Put, batches, decode, encode

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other work may be going on here
FILE = File(b"a", 5, bytes(16), 0, bytes(32), None, 7, 0o644, 1, 2, "u", "g", b"z", ((b"k", b"v"),), "text/html", (("a", "b"),))
LONG = File(b"a", 5, bytes(16), 1, b"", Ref(b"", bytes(32), 3, 65, 0))
ENTRIES: tuple[Entry, ...] = (
    FILE,
    LONG,
    Folder(b"", None, None),
    Folder(b"d/", -1, 0o7777, 0, 0, "root", "root", ((b"user.x", b"\0"),)),
    Symlink(b"l", b"\xff../..", 1),
    Page(b"p", "http://h/", 200, 3, bytes(16), 0, bytes(32)),
    Redirect(b"r", "http://h/r", 301, "http://h/"),
)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: type(entry).__name__)
def test_an_item_comes_back_from_its_bytes(entry: Entry) -> None:
    items: list[Item] = [Put("+", entry, (1, -2)), Put(".", entry, (0, 0), entry), Drop(entry), Drop(entry, True)]
    items += [Fetch(FILE, (5, 6)), Fetch(FILE, (0, 0), entry)]
    assert [decode(encode(item)) for item in items] == items


def test_a_batch_is_full_by_bytes_or_by_files() -> None:
    assert not batches(BATCH_BYTES - 1, BATCH_FILES - 1)
    assert batches(BATCH_BYTES, 1)
    assert batches(0, BATCH_FILES)


DEFAULT = DeletionLimit()


@pytest.mark.parametrize(
    ("limit", "deleted", "parent", "allowed"),
    [
        (DEFAULT, 0, 0, True), (DEFAULT, 0, 10, True), (DEFAULT, 5, 10, True), (DEFAULT, 6, 10, False), (DEFAULT, 1, 1, False),
        (DEFAULT, 256, 512, True), (DEFAULT, 256, 511, False), (DEFAULT, 257, 1028, True), (DEFAULT, 257, 1027, False),
        (DEFAULT, 250_000, 1_000_000, True), (DEFAULT, 250_001, 1_000_000, False),
        (DeletionLimit(0), 0, 5, True), (DeletionLimit(0), 1, 5_000, False), (DeletionLimit(7), 7, 7, True),
        (DeletionLimit(7), 8, 9_000, False),
        (DeletionLimit(percent=10), 10, 100, True), (DeletionLimit(percent=10), 11, 100, False),
        (DeletionLimit(percent=100), 5, 5, True),
        (DeletionLimit(percent=0), 0, 5, True), (DeletionLimit(percent=0), 1, 5, False), (DeletionLimit(percent=2.5), 1, 40, True),
        (DeletionLimit(percent=2.5), 2, 79, False),
    ],
)  # fmt: skip
def test_how_many_deletions_are_too_many(limit: DeletionLimit, deleted: int, parent: int, allowed: bool) -> None:
    assert limit.allows(deleted, parent) is allowed


@calm
@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_more_deletions_are_never_more_allowed(deleted: int, parent: int) -> None:
    for limit in (DEFAULT, DeletionLimit(5000), DeletionLimit(percent=3)):
        assert limit.allows(deleted, parent) >= limit.allows(deleted + 1, parent)
        assert limit.allows(0, parent)


def test_a_limit_says_itself() -> None:
    assert [str(limit) for limit in (DEFAULT, DeletionLimit(5), DeletionLimit(percent=2.5))] == [
        "25 % and 256, or 50 %",
        "5",
        "2.5 %",
    ]
