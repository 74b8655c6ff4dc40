"""A site against the parent's entries: what is read again, what is taken over, what goes, what a filter keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.manifest import Entry, File, Folder, Page, Redirect
from mirror.plan import CHANGED, DESCRIBED, NEW, Drop, Fetch, Item, Put
from mirror.scan import UNPROVEN, Comparison, Known, Remembered, described, described_file, memory_of
from mirror.site import FILE, FOLDER, SYMLINK, Excluded, Found, Seen, Unread

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other work may be going on here
V, W = (7, 100), (7, 101)  # validators: inode and ctime
ETAG, OTHER = (55, 0), (56, 0)


def found(path: bytes = b"f", **other: Any) -> Found:
    kind = FOLDER if path[-1:] in (b"/", b"") else FILE
    values: dict[str, Any] = {"size": 5 if kind == FILE else 0, "mtime": 10, "mode": 0o644, "validator": V}
    return Found(path, kind, **(values | other))


def entry(path: bytes = b"f", **other: Any) -> Any:
    if path[-1:] in (b"/", b""):
        return Folder(path, **({"mtime": 10, "mode": 0o644} | other))
    return File(
        path, **({"size": 5, "fingerprint": bytes(16), "class_": 0, "chunks": bytes(32), "mtime": 10, "mode": 0o644} | other)
    )


def told(known: list[Known], remembered: bool) -> Iterator[Known | Remembered]:
    """The parent entry by entry, or as segments of a scan that this host remembers."""
    if not remembered or any(validator is None for _, validator in known):
        yield from known
        return
    for at in range(0, len(known), 3):
        some = known[at : at + 3]
        memory = memory_of([e for e, _ in some], [v for _, v in some if v is not None])
        segment = Remembered.read(memory, len(some), lambda some=some: [e for e, _ in some])  # type: ignore[misc]
        assert segment is not None
        yield segment


def compared(seen: list[Seen], known: list[Known], remembered: bool = True, **how: Any) -> tuple[list[Item], Comparison, list[Any]]:
    validators: list[Any] = []
    comparison = Comparison(on_validators=validators.extend, **how)
    items = list(comparison.run(seen, told(known, remembered)))
    return items, comparison, validators


def kinds(items: list[Item]) -> list[str]:
    return [item.symbol if type(item) is Put else type(item).__name__ for item in items]


# -- is it the same? --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("remembered", [False, True], ids=["entries", "segments"])
@pytest.mark.parametrize(
    ("here", "before", "outcome"),
    [
        # with the last scan remembered: inode and ctime decide, and the time is looked at as well
        ({}, V, "same"), ({"validator": W}, V, "Fetch"), ({"validator": (8, 100)}, V, "Fetch"), ({"mtime": 11}, V, "Fetch"),
        ({"size": 6}, V, "Fetch"), ({"mode": 0o600}, V, "."), ({"uid": 3}, V, "."),
        ({"user": "u"}, V, "."), ({"link": b"a"}, V, "."),
        ({"xattrs": {b"k": b"v"}}, V, "."), ({"xattrs": {}}, V, "same"),
        # unproven: looked at again, whatever it says
        ({}, UNPROVEN, "Fetch"), ({"validator": UNPROVEN}, V, "Fetch"), ({"validator": UNPROVEN}, UNPROVEN, "Fetch"),
        # nothing remembered: size and time decide, as in rsync
        ({"validator": W}, None, "same"), ({"mtime": 11}, None, "Fetch"), ({"size": 6}, None, "Fetch"),
        ({"mode": 0o600}, None, "."),
        ({"mtime": None}, None, "Fetch"), ({"validator": UNPROVEN}, None, "same"),
        # objects: the ETag says it all
        ({"validator": ETAG}, ETAG, "same"), ({"validator": OTHER}, ETAG, "Fetch"), ({"validator": ETAG, "mtime": 11}, ETAG, "."),
        ({"validator": ETAG, "size": 6}, ETAG, "Fetch"), ({"validator": ETAG}, None, "same"), ({"validator": ETAG}, V, "Fetch"),
        # another kind
        ({"kind": SYMLINK, "target": b"t", "size": 0}, V, "*"),
    ],
    ids=str,
)  # fmt: skip
def test_whether_a_file_is_the_same(here: dict[str, Any], before: Any, outcome: str, remembered: bool) -> None:
    seen = found(**{k: v for k, v in here.items() if k != "kind"})._replace(kind=here.get("kind", FILE))
    items, comparison, validators = compared([seen], [(entry(), before)], remembered)
    assert kinds(items) == ([] if outcome == "same" else [outcome])
    counts = comparison.counts
    assert (counts.parent, counts.scanned) == (1, 1)
    assert (counts.same, counts.changed, counts.described) == (outcome == "same", outcome in ("Fetch", "*"), outcome == ".")
    assert validators == ([seen.validator] if outcome == "same" else [])
    if outcome == "Fetch":
        assert items == [Fetch(described_file(seen, 0), seen.validator, entry())]
        assert (counts.fetch_files, counts.fetch_bytes) == (1, seen.size)
    if outcome == ".":
        assert items == [Put(DESCRIBED, described_file(seen, 0, entry()), seen.validator, entry())]


@pytest.mark.parametrize("before", [V, None, UNPROVEN])
def test_a_checksum_run_reads_every_file(before: Any) -> None:
    items, _, _ = compared([found(b"d/"), found()], [(entry(b"d/"), V), (entry(), before)], checksum=True)
    assert kinds(items) == ["Fetch"]


def test_where_inodes_change_at_each_mount_the_ctime_decides() -> None:
    moved = found(validator=(9, V[1]))
    assert kinds(compared([moved], [(entry(), V)])[0]) == ["Fetch"]
    assert kinds(compared([moved], [(entry(), V)], ignore_inode=True)[0]) == []
    assert kinds(compared([found(validator=(9, 101))], [(entry(), V)], ignore_inode=True)[0]) == ["Fetch"]


@pytest.mark.parametrize("remembered", [False, True])
def test_folders_and_links(remembered: bool) -> None:
    link = Found(b"l", SYMLINK, mtime=10, target=b"t", validator=V)
    assert kinds(compared([found(b"d/")], [(entry(b"d/"), V)], remembered)[0]) == []
    assert kinds(compared([found(b"d/", validator=W)], [(entry(b"d/"), V)], remembered)[0]) == []
    assert kinds(compared([found(b"d/", mode=0o700)], [(entry(b"d/"), V)], remembered)[0]) == [DESCRIBED]
    assert kinds(compared([link], [(described(link), V)], remembered)[0]) == []
    assert kinds(compared([link._replace(target=b"u")], [(described(link), V)], remembered)[0]) == [CHANGED]
    assert kinds(compared([link._replace(mtime=11)], [(described(link), V)], remembered)[0]) == [CHANGED]
    assert kinds(compared([found(b"l")], [(described(link), V)], remembered)[0]) == ["Fetch"]


@pytest.mark.parametrize("other", [Page(b"f", "u", 200, 5, bytes(16), 0, bytes(32)), Redirect(b"f", "u", 301, "v")])
def test_a_file_where_a_page_was_is_read(other: Entry) -> None:
    items, _, _ = compared([found()], [(other, None)])
    assert items == [Fetch(described_file(found(), 0), V, other)]


def test_a_file_keeps_its_class_while_it_grows() -> None:
    items, _, _ = compared([found(size=9 << 20)], [(entry(), V)])
    assert [item.entry.class_ for item in items if type(item) is Fetch] == [0]
    items, _, _ = compared([found(size=9 << 20)], [])
    assert [item.entry.class_ for item in items if type(item) is Fetch] == [1]


# -- what goes, and what does not -------------------------------------------------------------------------------------


def test_what_is_gone_is_dropped_in_order() -> None:
    known: list[Known] = [(entry(path), V) for path in (b"", b"a", b"d/", b"d/x", b"e", b"z")]
    items, comparison, validators = compared([found(b""), found(b"c"), found(b"e")], known)
    assert [(type(item).__name__, item.entry.path) for item in items] == [
        ("Drop", b"a"), ("Fetch", b"c"), ("Drop", b"d/"), ("Drop", b"d/x"), ("Drop", b"z"),
    ]  # fmt: skip
    counts = comparison.counts
    assert (counts.parent, counts.deleted, counts.added, counts.same, counts.scanned) == (6, 4, 1, 2, 3)
    assert validators == [V, V]
    assert comparison.found_any


def test_an_emptied_site_has_nothing_but_its_root() -> None:
    items, comparison, _ = compared([found(b"")], [(entry(b""), V), (entry(), V)])
    assert kinds(items) == ["Drop"]
    assert not comparison.found_any
    assert not compared([], [])[1].found_any
    assert compared([found()], [])[1].found_any


@pytest.mark.parametrize("delete", [False, True])
def test_excluded_paths_are_protected(delete: bool) -> None:
    known: list[Known] = [(entry(path), V) for path in (b"a", b"b/", b"b/x", b"c", b"d.tmp")]
    seen: list[Seen] = [Excluded(b"a", "a"), Excluded(b"b/", "b/"), found(b"c")]
    items, comparison, validators = compared(seen, known, protects=lambda path: path.endswith(b".tmp"), delete_excluded=delete)
    if delete:
        assert [item.entry.path for item in items] == [b"a", b"b/", b"b/x", b"d.tmp"]
        assert all(type(item) is Drop and item.excluded for item in items)
        assert comparison.counts.protected == 0
    else:
        assert items == []
        assert comparison.counts.protected == 4
        assert validators == [UNPROVEN, UNPROVEN, UNPROVEN, V, UNPROVEN]


def test_the_shield_of_an_excluded_folder_ends_with_it() -> None:
    known: list[Known] = [(entry(path), V) for path in (b"b/", b"b/x", b"b0", b"c/", b"c/x")]
    items, _, _ = compared([Excluded(b"b/", "b"), found(b"c/")], known)
    assert [item.entry.path for item in items] == [b"b0", b"c/x"]


@pytest.mark.parametrize(
    ("kind", "stays"), [("unreadable", True), ("vanished", True), ("incomplete", True), ("special", False), ("name", False)]
)
def test_what_could_not_be_looked_at(kind: str, stays: bool) -> None:
    problems = []
    items, comparison, validators = compared([Unread(b"f", kind, "why")], [(entry(), V)], on_problem=problems.append)
    assert [(problem.path, problem.kind, problem.why) for problem in problems] == [("f", kind, "why")]
    assert kinds(items) == ([] if stays else ["Drop"])
    assert validators == ([UNPROVEN] if stays else [])
    assert comparison.incomplete == (kind == "incomplete")
    assert compared([Unread(b"f", kind, "why")], [])[0] == []


def test_a_folder_that_could_be_seen_and_not_listed() -> None:
    """It gives its Found and then an Unread of the same path; the parent's entries below go by, and nothing may be deleted."""
    known: list[Known] = [(entry(b"d/"), V), (entry(b"d/x"), V)]
    items, comparison, _ = compared([found(b"d/"), Unread(b"d/", "incomplete", "why")], known)
    assert kinds(items) == ["Drop"]
    assert comparison.incomplete


def test_every_thousand_paths_are_told() -> None:
    said = []
    known: list[Known] = [(entry(b"%05d" % n), V) for n in range(2500)]
    compared([found(b"%05d" % n) for n in range(2500)], known, on_scanned=lambda *some: said.append(some[0]))
    assert said == [1000, 1000]


# -- the last scan's memory -------------------------------------------------------------------------------------------


def test_a_quiet_night_does_not_even_decode_the_parent() -> None:
    entries = [entry(b""), entry(b"a"), entry(b"d/")]

    def never() -> list[Entry]:
        raise AssertionError("the entries were asked for")

    segment = Remembered.read(memory_of(entries, [V, V, V]), 3, never)
    assert segment is not None
    comparison = Comparison()
    assert list(comparison.run([found(b""), found(b"a"), found(b"d/")], [segment])) == []
    assert comparison.counts.same == 3
    assert not comparison.validators_moved


@pytest.mark.parametrize("memory", [b"", b"noise", memory_of([entry()], [V])[:-2], memory_of([entry(), entry(b"g")], [V, V])])
def test_a_memory_that_does_not_fit_is_none(memory: bytes) -> None:
    assert Remembered.read(memory, 1, lambda: [entry()]) is None


paths = st.sampled_from((b"", b"a", b"a/", b"a/b", b"a-b", b"a/b/", b"a/b/c", b"b", b"c/", b"\xff"))
sizes, clocks = st.integers(0, 1), st.sampled_from((10, 11))


@st.composite
def seen_path(draw: st.DrawFn, path: bytes) -> Seen:
    what = draw(st.integers(0, 9))
    if what == 0:
        return Excluded(path, "rule")
    if what == 1:
        return Unread(path, draw(st.sampled_from(("unreadable", "special", "vanished"))), "why")
    here = found(
        path, mtime=draw(clocks), mode=draw(st.sampled_from((0o644, 0o600))), validator=draw(st.sampled_from((V, W, UNPROVEN)))
    )
    return here if here.kind == FOLDER else here._replace(size=draw(sizes))


@calm
@given(st.data())
def test_every_path_is_decided_once_however_the_parent_is_told(data: st.DataObject) -> None:
    """Entry by entry and in remembered segments: the same plan, the same counts, a validator for each entry without an item."""
    seen = [data.draw(seen_path(path)) for path in sorted(data.draw(st.sets(paths)))]
    known: list[Known] = []
    for path in sorted(data.draw(st.sets(paths))):
        size = {} if path[-1:] in (b"/", b"") else {"size": data.draw(sizes)}
        known.append((entry(path, mtime=data.draw(clocks), **size), data.draw(st.sampled_from((V, W, UNPROVEN)))))
    how = {"checksum": data.draw(st.booleans()), "delete_excluded": data.draw(st.booleans())}
    one, first, validators = compared(seen, known, False, **how)
    two, second, others = compared(seen, known, True, **how)
    assert one == two
    assert validators == others
    assert msgspec.to_builtins(vars(first)["counts"]) == msgspec.to_builtins(vars(second)["counts"])
    planned = [item.entry.path for item in one]
    assert planned == sorted(set(planned))
    counts = first.counts
    before = {e.path for e, _ in known}
    here = {s.path for s in seen if isinstance(s, Found)}
    assert counts.parent == len(known) == len(validators) + len(before & set(planned))
    assert counts.added == len(here - before)
    assert {item.entry.path for item in one if type(item) is Drop} <= before - here
    assert counts.scanned == len(here)
    assert {item.entry.path for item in one if type(item) is Put and item.symbol == NEW} <= here - before
    assert counts.added + counts.changed + counts.described + counts.same == len(here)
