"""How a site is published into a tree, as the user wants it: `--order`, `--delete`, `--no-history`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from drive import cli
from mirrors import BEGINNING, mirror, settle, target_in, tree, write
from trees import MAKE, Night, Walk, all_restore, clean, differing, live, publish, restored

from mirror.contents import snapshots
from mirror.errors import MirrorError, UsageError
from mirror.events import Event, Job, SnapshotCommitted, Stamped
from mirror.log import read_record
from mirror.making import Making
from mirror.plan import DeletionLimit
from mirror.publishing import PublishOptions
from mirror.site import Filter, SiteSpec
from mirror.steps import Order
from mirror.store import StoreSpec
from mirror.store.open import open_store
from mirror.survey import LookOptions
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec
from mirror.verify import verify

ALL = DeletionLimit(percent=100)


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return target_in(tmp_path, "live")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    for name in ("a.css", "b.js", "data.bin", "index.html", "list.do", "sub/z.css", "sub/page.html"):
        write(site / name, name.encode() * 40)
    settle(site)
    return site


def chosen(site: Path, target: TargetSpec, **options: Any) -> SyncReport:
    report = publish(site, target, publish=PublishOptions(**options), max_delete=ALL)
    assert report.problems == [], report.problems
    return report


def edit(site: Path, text: bytes) -> None:
    for path in sorted(site.rglob("*")):
        if path.is_file():
            path.write_bytes(text + path.name.encode())
            os.utime(path, ns=(BEGINNING + len(text), BEGINNING + len(text)))
    settle(site)


# -- order


def arrivals(site: Path, target: TargetSpec, order: tuple[str, ...]) -> list[str]:
    """The files of a site in the order in which they come into the live tree, by the calls of the one function that does it."""
    found: list[str] = []

    def profile(frame: FrameType, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_qualname == "LiveTree.put":
            found.append(frame.f_locals["path"].decode())

    edit(site, b"once more ")
    sys.setprofile(profile)
    try:
        chosen(site, target, order=order)
    finally:
        sys.setprofile(None)
    return found


def test_the_order_of_a_publish_by_default(site: Path, target: TargetSpec) -> None:
    chosen(site, target)
    assert arrivals(site, target, ()) == ["a.css", "b.js", "sub/z.css", "data.bin", "list.do", "index.html", "sub/page.html"]


def test_globs_come_first_and_the_rest_by_default(site: Path, target: TargetSpec) -> None:
    chosen(site, target)
    order = arrivals(site, target, ("sub/", "*.do"))
    assert order == ["sub/page.html", "sub/z.css", "list.do", "a.css", "b.js", "data.bin", "index.html"]


def test_the_rest_may_stand_anywhere(site: Path, target: TargetSpec) -> None:
    chosen(site, target)
    order = arrivals(site, target, ("*.bin", "...", "/index.html", "list.*"))
    assert order == ["data.bin", "a.css", "b.js", "sub/z.css", "sub/page.html", "index.html", "list.do"]


def test_ranks_of_an_order() -> None:
    order = Order(("b*", "...", "c*", "b.css"))
    assert [order.rank(path) for path in (b"b.css", b"x.css", b"x.bin", b"x.html", b"c.css")] == [0, 1, 2, 3, 4]
    assert order.ranks == 6
    assert Order(("caf\N{LATIN SMALL LETTER E WITH ACUTE}*",)).rank(b"caf\xc3\xa9.html") == 0
    assert Order(("*.a",)).rank(b"\xff.a") == 0


@pytest.mark.parametrize(
    ("order", "why"),
    [
        (("",), "it can match nothing"),
        (("!a",), "it can match nothing"),
        (("a", "a"), "it is given twice"),
        (("...", "..."), "it is given twice"),
        (tuple(map(str, range(101))), "at most 100 globs of 1,000 characters are possible"),
        (("x" * 1001,), "at most 100 globs of 1,000 characters are possible"),
    ],
)
def test_an_order_that_cannot_be(site: Path, target: TargetSpec, order: tuple[str, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        publish(site, target, publish=PublishOptions(order=order))
    assert not Path(target.store.url).exists(), "nothing may be made"


# -- what a packed target has not


@pytest.mark.parametrize(
    ("options", "flag"), [({"order": ("a",)}, "--order"), ({"grace": 1}, "--delete-grace"), ({"history": False}, "--no-history")]
)
def test_a_packed_target_has_no_live_files(site: Path, tmp_path: Path, options: dict[str, Any], flag: str) -> None:
    target = target_in(tmp_path)
    with pytest.raises(UsageError, match=f"cannot use {flag}"):
        mirror(site, target, making=Making("packed", "www"), publish=PublishOptions(**options))
    assert not Path(target.store.url).exists(), "nothing may be made"
    mirror(site, target)
    with pytest.raises(UsageError, match=f"cannot use {flag}"):
        mirror(site, target, making=Making(), publish=PublishOptions(**options))


def test_graces_that_cannot_be(site: Path, target: TargetSpec) -> None:
    for options, why in [
        ({"grace": -1}, "0 to 1,000"),
        ({"grace": 1001}, "0 to 1,000"),
        ({"grace": 1, "never_delete": True}, "never"),
    ]:
        with pytest.raises(UsageError, match=why):
            publish(site, target, publish=PublishOptions(**options))
    assert not Path(target.store.url).exists()


# -- deletions


@pytest.mark.parametrize("layout", ["packed", "tree"])
def test_never_delete(site: Path, tmp_path: Path, layout: str) -> None:
    target = target_in(tmp_path, layout)
    never = {"making": Making(layout, "www"), "publish": PublishOptions(never_delete=True)}
    first = publish(site, target, **never)
    whole = tree(site)
    for name in ("a.css", "index.html", "sub/z.css", "sub/page.html"):
        (site / name).unlink()
    (site / "sub").rmdir()
    settle(site)
    report = publish(site, target, dry_run=True, **never)
    assert (report.deleted, report.kept) == (0, 5)
    report = publish(site, target, **never)
    assert (report.problems, report.deleted, report.kept) == ([], 0, 5)
    again = publish(site, target, **never)
    assert (again.snapshot, again.kept) == (0, 5), "nothing is new, nothing goes"
    write(site / "new.html", b"new")
    settle(site)
    report = publish(site, target, **never)
    assert (report.snapshot > 0, report.added, report.deleted, report.kept) == (True, 1, 0, 5)
    everything = whole | tree(site)
    nights = {first.snapshot: whole, report.snapshot: everything}
    all_restore(target, nights, tmp_path)
    if layout == "tree":
        assert not (wrong := differing(live(target), everything)), wrong
    assert verify(target).problems == []
    gone = publish(site, target, max_delete=ALL, making=Making(layout, "www"))
    assert (gone.deleted, gone.kept) == (5, 0)
    all_restore(target, nights | {gone.snapshot: tree(site)}, tmp_path)


@pytest.mark.parametrize("layout", ["packed", "tree"])
def test_what_stands_in_the_way_goes_all_the_same(site: Path, tmp_path: Path, layout: str) -> None:
    target = target_in(tmp_path, layout)
    never = {"making": Making(layout, "www"), "publish": PublishOptions(never_delete=True)}
    publish(site, target, **never)
    (site / "a.css").unlink()
    write(site / "a.css" / "inside", b"a folder now")
    for name in ("z.css", "page.html"):
        (site / "sub" / name).unlink()
    (site / "sub").rmdir()
    write(site / "sub", b"a file now")
    (site / "b.js").unlink()
    settle(site)
    report = publish(site, target, **never)
    assert report.problems == []
    wanted = set(tree(site)) | {b"b.js"}
    assert set(restored_paths(target, report.snapshot, tmp_path)) == wanted
    if layout == "tree":
        assert set(live(target)) == wanted
    assert verify(target).problems == []


def restored_paths(target: TargetSpec, at: int, folder: Path) -> Night:
    return restored(target, at, folder / "out")


@pytest.mark.parametrize("layout", ["packed", "tree"])
def test_a_hard_link_that_is_never_deleted_keeps_its_content(site: Path, tmp_path: Path, layout: str) -> None:
    target = target_in(tmp_path, layout)
    never = {"making": Making(layout, "www"), "publish": PublishOptions(never_delete=True)}
    (site / "link.css").hardlink_to(site / "a.css")
    settle(site)
    publish(site, target, **never)
    before = (site / "a.css").read_bytes()
    (site / "link.css").unlink()
    write(site / "a.css", b"another content", BEGINNING + 5)
    settle(site)
    report = publish(site, target, **never)
    back = tmp_path / "back"
    from mirror.restore import RestoreOptions, restore

    assert restore(target, str(back), RestoreOptions(at=str(report.snapshot), workers=0)).problems == []
    assert ((back / "a.css").read_bytes(), (back / "link.css").read_bytes()) == (b"another content", before)
    assert verify(target).problems == []


def test_never_delete_leaves_what_lingers(site: Path, target: TargetSpec) -> None:
    chosen(site, target, grace=1)
    (site / "a.css").unlink()
    settle(site)
    chosen(site, target, grace=1)
    write(site / "new.html", b"new")
    settle(site)
    chosen(site, target, never_delete=True)
    assert b"a.css" in live(target)
    assert verify(target).problems == []
    write(site / "newer.html", b"newer")
    settle(site)
    clean(site, target)


def test_never_and_delete_excluded_do_not_go_together(site: Path, target: TargetSpec) -> None:
    with pytest.raises(UsageError, match="never"):
        publish(site, target, look=LookOptions(delete_excluded=True), publish=PublishOptions(never_delete=True))


def test_excluded_paths_stay_in_a_tree_unless_delete_excluded(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    first = chosen(site, target)
    whole = tree(site)
    spec = SiteSpec(str(site), Filter((("exclude", "*.css"),)))
    options = {"making": MAKE, "workers": 0, "min_free": 0, "max_delete": ALL}
    report = sync(spec, target, SyncOptions(**options))
    assert (report.deleted, report.protected, b"a.css" in live(target)) == (0, 2, True)
    report = sync(spec, target, SyncOptions(look=LookOptions(delete_excluded=True), **options))
    assert (report.problems, report.deleted) == ([], 2)
    assert set(live(target)) == set(whole) - {b"a.css", b"sub/z.css"}
    all_restore(target, {first.snapshot: whole}, tmp_path)
    assert verify(target).problems == []


# -- no history


def packs(target: TargetSpec) -> list[Path]:
    return [path for path in (Path(target.store.url) / ".mirror" / "packs").rglob("*") if path.is_file()]


def test_without_history_nothing_is_packed_and_older_snapshots_are_forgotten(
    site: Path, target: TargetSpec, tmp_path: Path
) -> None:
    chosen(site, target)
    edit(site, b"second ")
    chosen(site, target)
    before = packs(target)
    assert before
    edit(site, b"third ")
    (site / "b.js").unlink()
    (site / "data.bin").rename(site / "moved.bin")
    settle(site)
    third = chosen(site, target, history=False)
    assert (third.bytes_history, third.forgotten) == (0, 2)
    assert packs(target) == before
    assert [line.number for line in snapshots(target)] == [third.snapshot]
    nights = {third.snapshot: tree(site)}
    all_restore(target, nights, tmp_path)
    assert verify(target).problems == []
    edit(site, b"the fourth ")
    fourth = chosen(site, target)
    assert fourth.bytes_history > 0
    assert fourth.forgotten == 0
    all_restore(target, nights | {fourth.snapshot: tree(site)}, tmp_path)
    assert verify(target).problems == []


def test_without_history_somebodys_work_is_kept_aside(site: Path, target: TargetSpec) -> None:
    chosen(site, target)
    write(Path(target.store.url) / "a.css", b"somebody's work", BEGINNING + 7)
    edit(site, b"second ")
    report = publish(site, target, publish=PublishOptions(history=False))
    assert [(problem.path, problem.kind) for problem in report.problems] == [("a.css", "drift")]
    aside = Path(target.store.url) / ".mirror" / "aside"
    assert [path.read_bytes() for path in aside.rglob("*.css")] == [b"somebody's work"]
    assert verify(target).problems == []


def test_without_history_the_older_snapshots_are_not_promised_while_it_publishes(site: Path, target: TargetSpec) -> None:
    """A run that stops between two live files leaves a target that says what it has."""
    for text in (b"one ", b"second "):
        edit(site, text)
        chosen(site, target)
    (numbers := [line.number for line in snapshots(target)]).sort()
    edit(site, b"the third ")
    seen: list[list[int]] = []

    def listen(stamped: Stamped) -> None:
        event: Event = stamped.event
        if type(event).__name__ == "PhaseBegan" and event.phase == "write":  # type: ignore[union-attr]
            seen.append([line.number for line in snapshots(target)])
        assert not isinstance(event, SnapshotCommitted) or seen

    options = SyncOptions(making=MAKE, workers=0, min_free=0, publish=PublishOptions(history=False))
    report = sync(SiteSpec(str(site)), target, options, Job("sync", [listen]))
    assert seen[0] == numbers[-1:]
    assert [line.number for line in snapshots(target)] == [report.snapshot]


@pytest.mark.parametrize("seed", range(4))
def test_a_random_site_with_and_without_history(tmp_path: Path, seed: int) -> None:
    walk, target = Walk(tmp_path / "site", seed + 50), TargetSpec(StoreSpec(str(tmp_path / "live")), tmp_path / "cache")
    nights: dict[int, Night] = {}
    for number in range(8):
        history = bool(walk.chance.randrange(2))
        report = chosen(walk.root, target, history=history, grace=number % 3 and 1)
        if report.snapshot:
            nights = {**(nights if history else {}), report.snapshot: tree(walk.root)}
        assert [line.number for line in snapshots(target)] == sorted(nights)
        assert verify(target).problems == []
        all_restore(target, nights, tmp_path)
        walk.edit()


def test_the_report_of_a_usage_error_is_one_sentence(site: Path, target: TargetSpec) -> None:
    with pytest.raises(MirrorError) as caught:
        publish(site, target, publish=PublishOptions(grace=2000))
    assert str(caught.value) == "cannot use --delete-grace 2000: 0 to 1,000 snapshots are possible"
    assert caught.value.exit_code == 2


# -- every way to say it


def record_of(target: TargetSpec) -> dict[str, Any]:
    """The newest snapshot's publishing and the snapshot itself, as one."""
    store = open_store(StoreSpec(target.store.url + "/.mirror"))
    records = [read_record(store, int(stat.key[4:16])).body for stat in store.list("log/")]
    newest = {kind: max((each for each in records if each["kind"] == kind), key=_number) for kind in ("publishing", "snapshot")}
    return newest["publishing"] | newest["snapshot"]


def _number(body: dict[str, Any]) -> int:
    return int(body["number"])


@pytest.mark.parametrize("way", ["flags", "variables", "file", "python"])
def test_every_way_to_say_it(site: Path, target: TargetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    chosen(site, target)
    (site / "a.css").unlink()
    settle(site)
    words = ["sync", str(site), target.store.url, "--min-free", "0", "--cache-dir", str(target.cache), "-q"]
    if way == "flags":
        done = cli(*words, "--delete-grace", "2", "--order", "*.do", "--order", "...", "--no-history")
        assert done.code == 0, done.err
    elif way == "variables":
        for name, value in {"DELETE_GRACE": "2", "ORDER": "*.do\n...", "NO_HISTORY": "1", "DELETE": "after"}.items():
            monkeypatch.setenv(f"MIRROR_{name}", value)
        done = cli(*words)
        assert done.code == 0, done.err
    elif way == "file":
        file = tmp_path / "mirror.toml"
        file.write_text(
            f'[mirrors.www]\nsource = "{site}"\ntarget = "{target.store.url}"\ndelete-grace = 2\norder = ["*.do", "..."]\n'
            "no-history = true\n"
        )
        done = cli("sync", "www", "--config", str(file), *words[3:])
        assert done.code == 0, done.err
    else:
        import mirror as package

        options = {"delete_grace": 2, "order": ["*.do", "..."], "no_history": True, "delete": "after"}
        package.sync(site, target.store.url, min_free="0", cache_dir=target.cache, **options)
    body = record_of(target)
    assert (body["order"], body["history"], [ref["count"] for ref in body["lingers"]]) == (["*.do", "..."], False, [1])
    assert b"a.css" in live(target)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--delete-grace", "many"), "cannot use --delete-grace 'many': it is no whole number from 0 up"),
        (("--delete-grace", "1001"), "cannot use --delete-grace '1001': it is more than 1,000 snapshots"),
        (("--delete", "before"), "cannot use --delete 'before': it is none of after, never, or for a restore yes or no"),
        (("--delete", "no"), "cannot use --delete 'no': it is none of after, never"),
        (("--order", ""), "cannot use the filter rule '' of --order: it can match nothing; patterns are those of gitignore"),
        (("--delete", "never", "--delete-grace", "1"),
         "cannot use --delete-grace: with --delete never nothing that left the site goes at all"),
    ],
)  # fmt: skip
def test_wrong_values(site: Path, target: TargetSpec, words: tuple[str, ...], error: str) -> None:
    done = cli("sync", str(site), target.store.url, "--layout", "tree", "--cache-dir", str(target.cache), *words)
    assert (done.code, done.error) == (2, error)
    assert not Path(target.store.url).exists()
