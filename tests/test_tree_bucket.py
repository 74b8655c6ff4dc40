"""Trees on S3: people see just the site, every snapshot comes back, and what is not ours is never destroyed.

Truth is what boto3 says of the bucket.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import S3
from drive import process
from mirrors import BEGINNING, noise, settle, tree, write
from servers import SeaweedFS
from trees import MAKE, Night, Walk, all_restore, kinds, publish, some_of

from mirror import log, spelling
from mirror.errors import InTheWayError, UsageError
from mirror.events import Event, Job, Notice, PhaseBegan
from mirror.lease import Lease
from mirror.making import Making
from mirror.pick import Reading
from mirror.plan import DeletionLimit
from mirror.restore import RestoreOptions, restore
from mirror.rollback import RollbackOptions, rollback
from mirror.site import SiteSpec
from mirror.site.routes import Routes
from mirror.store import StoreSpec
from mirror.survey import LookOptions
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec, open_target
from mirror.verify import VerifyOptions, verify

EVERYTHING = DeletionLimit(percent=100)
MiB = 1 << 20


@pytest.fixture
def target(tmp_path: Path, s3: S3) -> TargetSpec:
    return TargetSpec(s3.spec("www"), tmp_path / "cache")


def objects(s3: S3) -> dict[str, bytes]:
    """What people see: key → content."""
    start = f"{s3.prefix}/www/"
    keys = [key for key in s3.objects("www") if not key.startswith(".mirror/")]
    return {key: s3.client.get_object(Bucket=s3.bucket, Key=start + key)["Body"].read() for key in keys}


def files(site: Path) -> dict[str, bytes]:
    """The files of a folder, hard links each by itself."""
    found = (path for path in site.rglob("*") if path.is_file() and not path.is_symlink())
    return {str(path.relative_to(site)): path.read_bytes() for path in found}


def clean(s3: S3, site: Path, target: TargetSpec, **options: object) -> SyncReport:
    """A sync without any problem, after which people see just the site."""
    report = publish(site, target, max_delete=EVERYTHING, **options)
    assert report.problems == [], report.problems
    seen, wanted = objects(s3), files(site)
    assert seen.keys() == wanted.keys()
    assert [key for key in seen if seen[key] != wanted[key]] == []
    return report


@pytest.mark.parametrize("seed", some_of(range(6), 3))
def test_a_walk_of_edits(tmp_path: Path, s3: S3, target: TargetSpec, seed: int) -> None:
    walk = Walk(tmp_path / "site", seed)
    nights: dict[int, Night] = {}
    for _ in range(7):
        report = clean(s3, walk.root, target)
        if report.snapshot:
            nights[report.snapshot] = tree(walk.root)
        walk.edit()
    assert len(nights) > 3
    all_restore(target, nights, tmp_path)
    assert verify(target, VerifyOptions(workers=0)).exit_code == 0


def test_what_is_in_the_bucket(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "index.html", b"<p>")
    write(site / "a" / "s.css", b"p{}", BEGINNING + 5)
    (site / "link").symlink_to("index.html")
    settle(site)
    report = clean(s3, site, target)
    assert not [key for key in s3.objects("www") if key.startswith(".mirror/packs/")]  # nothing is there twice
    found = s3.client.head_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/a/s.css")
    assert found["ContentType"] == "text/css"
    assert found["Metadata"]["mtime"] == f"{BEGINNING // 10**9}.{(BEGINNING + 5) % 10**9:09}"
    assert len(found["Metadata"]["xxh3"]) == 32
    time.sleep(2.1)
    clean(s3, site, target)  # what was written just now is read once more
    unchanged = clean(s3, site, target)
    assert not unchanged.snapshot
    assert sum(unchanged.requests.values()) <= 4  # and one to find out that it is a tree
    out = tmp_path / "out"
    restore(target, str(out), RestoreOptions(workers=0))
    assert tree(out) == tree(site)  # modes, times and the link come from the manifest
    assert report.snapshot == 2


def test_keys_that_obstore_cannot_name(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    """One such among the first thousand, the site's or a stranger's, spoils a listing of obstore."""
    site = tmp_path / "site"
    write(site / "new\nline", b"odd")
    write(site / "page.html", b"one")
    settle(site)
    first = clean(s3, site, target).snapshot
    s3.client.put_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/strange\r\n", Body=b"not ours")
    was = tree(site)
    (site / "new\nline").unlink()
    write(site / "page.html", b"two", BEGINNING + 7)
    settle(site)
    second = publish(site, target, max_delete=EVERYTHING)
    assert (second.problems, second.changed, second.deleted) == ([], 1, 1)
    assert rollback(target, RollbackOptions(at=str(first), workers=0, max_delete=EVERYTHING)).problems == []
    all_restore(target, {first: was, second.snapshot: tree(site)}, tmp_path)
    assert objects(s3) == {"new\nline": b"odd", "page.html": b"one", "strange\r\n": b"not ours"}


def test_moved_and_large_content_is_not_sent_again(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site, nights = tmp_path / "site", {}
    write(site / "old" / "film.bin", noise(40 * MiB, 1))
    write(site / "pic.jpg", noise(300_000, 2))
    write(site / "page.html", b"one")
    settle(site)
    nights[clean(s3, site, target).snapshot] = tree(site)
    (site / "old").rename(site / "new")
    (site / "pic.jpg").rename(site / "picture.jpg")
    shutil.copy2(site / "new" / "film.bin", site / "again.bin")
    write(site / "page.html", b"two", BEGINNING + 7)
    settle(site)
    moved = clean(s3, site, target)
    nights[moved.snapshot] = tree(site)
    assert moved.bytes_uploaded < 100_000
    data = noise(40 * MiB, 1)
    write(site / "new" / "film.bin", b"!" + data[: 20 * MiB] + b"?" + data[20 * MiB :], BEGINNING + 9)
    settle(site)
    changed = clean(s3, site, target)
    nights[changed.snapshot] = tree(site)
    assert changed.bytes_uploaded < 30 * MiB
    write(site / "new" / "film.bin", b"#" + (site / "new" / "film.bin").read_bytes(), BEGINNING + 11)
    settle(site)
    again = clean(s3, site, target)
    nights[again.snapshot] = tree(site)
    assert again.bytes_uploaded < 6 * MiB  # one byte: a part of the least length
    all_restore(target, nights, tmp_path)
    assert verify(target, VerifyOptions(workers=0)).exit_code == 0


def test_what_strangers_did_is_noticed_and_kept(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for name in ("changed.html", "deleted.html", "kept.html", "gone.html"):
        write(site / name, name.encode())
    settle(site)
    first = clean(s3, site, target).snapshot
    night = tree(site)
    start = f"{s3.prefix}/www/"
    s3.client.put_object(Bucket=s3.bucket, Key=start + "changed.html", Body=b"a hand!")
    s3.client.put_object(Bucket=s3.bucket, Key=start + "gone.html", Body=b"by hand.!")
    s3.client.delete_object(Bucket=s3.bucket, Key=start + "deleted.html")
    s3.client.put_object(Bucket=s3.bucket, Key=start + "new.html", Body=b"nobody knows me")
    s3.client.put_object(Bucket=s3.bucket, Key=start + "foreign.html", Body=b"not ours")
    found = verify(target, VerifyOptions(workers=0))
    assert {(p.path, p.kind) for p in found.problems} >= {
        ("changed.html", "differs"),
        ("gone.html", "differs"),
        ("deleted.html", "differs"),
        ("new.html", "extra"),
        ("foreign.html", "extra"),
    }
    for name in ("changed.html", "deleted.html", "new.html"):
        write(site / name, b"the site's own " + name.encode(), BEGINNING + 3)
    (site / "gone.html").unlink()
    settle(site)
    report = publish(site, target, max_delete=EVERYTHING)
    assert sorted(kinds(report.problems)) == [(name, "drift") for name in ("changed.html", "deleted.html", "gone.html", "new.html")]
    seen = objects(s3)
    assert seen.pop("foreign.html") == b"not ours"
    assert seen == files(site)
    aside = {key: s3.client.get_object(Bucket=s3.bucket, Key=f"{start}.mirror/{key}")["Body"].read() for key in (
        key.removeprefix(".mirror/") for key in s3.objects("www") if key.startswith(".mirror/aside/"))}  # fmt: skip
    assert sorted(aside.values()) == [b"a hand!", b"by hand.!", b"nobody knows me"]
    assert first
    assert night


def watched(site: Path, target: TargetSpec, act: Callable[[Event], None], **options: object) -> SyncReport:
    """A sync of which every event is seen."""
    job = Job("sync", listeners=[lambda stamped: act(stamped.event)])
    return sync(SiteSpec(str(site)), target, SyncOptions(**({"workers": 0} | options)), job)  # type: ignore[arg-type]


def test_an_edit_after_the_look_is_not_overwritten(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for name in ("a.html", "b.html", "c.html"):
        write(site / name, b"one")
    settle(site)
    clean(s3, site, target)
    start = f"{s3.prefix}/www/"
    write(site / "a.html", b"two", BEGINNING + 2)
    write(site / "d.html", b"new", BEGINNING + 2)
    (site / "c.html").unlink()
    settle(site)

    def stranger(event: Event) -> None:
        if isinstance(event, PhaseBegan) and event.phase == "write" and event.files:
            for name in ("a.html", "c.html", "d.html"):
                s3.client.put_object(Bucket=s3.bucket, Key=start + name, Body=b"by hand")

    report = watched(site, target, stranger, max_delete=EVERYTHING)
    assert sorted(kinds(report.problems)) == [("a.html", "unwritable"), ("d.html", "unwritable")]
    assert {name: data for name, data in objects(s3).items() if data == b"by hand"}.keys() == {"a.html", "c.html", "d.html"}
    after = publish(site, target, max_delete=EVERYTHING)  # they are drift now: kept aside, and the site's own content comes
    assert {path for path, _ in kinds(after.problems)} == {"a.html", "c.html", "d.html"}
    assert objects(s3) == files(site)


def test_a_prefix_with_other_things_is_adopted_only_when_asked(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    for name in ("same.html", "other.html"):
        write(site / name, name.encode())
    settle(site)
    start = f"{s3.prefix}/www/"
    s3.client.put_object(Bucket=s3.bucket, Key=start + "same.html", Body=b"same.html")
    s3.client.put_object(Bucket=s3.bucket, Key=start + "other.html", Body=b"a version of somebody's")
    s3.client.put_object(Bucket=s3.bucket, Key=start + "foreign.html", Body=b"not ours")
    with pytest.raises(UsageError, match="other things"):
        publish(site, target)
    report = publish(site, target, making=Making("tree", "www", adopt=True))
    assert kinds(report.problems) == [("other.html", "drift")]
    seen = objects(s3)
    assert seen.pop("foreign.html") == b"not ours"
    assert seen == files(site)
    assert not publish(site, target).snapshot


def test_a_second_publisher_is_told_and_a_dead_one_is_finished(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "a.html", b"one")
    settle(site)
    clean(s3, site, target)
    write(site / "a.html", b"two", BEGINNING + 2)
    settle(site)

    class Dead(Exception):
        pass

    def die(event: Event) -> None:
        if isinstance(event, PhaseBegan) and event.phase == "write":
            raise Dead

    with pytest.raises(Dead):
        watched(site, target, die, lease=1.0)
    other = TargetSpec(target.store, tmp_path / "other-cache")
    with open_target(other, dry_run=True) as opened, Lease(opened.store, "somebody", 1.0):
        with pytest.raises(InTheWayError, match="is alive"):
            publish(site, other)
    report = publish(site, other)
    assert report.problems == []
    assert objects(s3) == files(site)
    with open_target(other, dry_run=True) as opened:
        head = log.read_head(opened.store)
        assert head is not None
        assert [r.kind for r in log.records_back(opened.store, head, 1)][:2] == [log.SNAPSHOT, log.TAKEOVER]


def test_two_hosts_at_once_and_no_snapshot_names_what_is_not_there(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    two_hosts(tmp_path, s3, target, 3)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_two_hosts_fifty_times(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    two_hosts(tmp_path, s3, target, 50)


def two_hosts(tmp_path: Path, s3: S3, target: TargetSpec, rounds: int) -> None:
    """The same site, by two processes with caches of their own, at the same time, after each of many changes."""
    site = tmp_path / "site"
    for number in range(12):
        write(site / f"{number}.html", b"<p>%d</p>" % number)
    settle(site)
    nights = {clean(s3, site, target).snapshot: tree(site)}
    met = 0
    for turn in range(rounds):
        for number in (turn % 12, (turn * 5 + 3) % 12):
            write(site / f"{number}.html", b"<p>%d in turn %d</p>" % (number, turn), BEGINNING + turn + 1)
        os.utime(site, ns=(BEGINNING + turn + 1,) * 2)
        words = ["sync", site, target.store.url, "--endpoint-url", s3.endpoint_url, "--region", s3.region, "--workers", 0, "--json"]
        hosts = [process(*words, "--cache-dir", tmp_path / f"host-{host}") for host in (1, 2)]
        codes = []
        for host in hosts:
            events, said = host.communicate(timeout=120)
            assert host.returncode in (0, 11), said
            codes.append(host.returncode)
            told = [json.loads(line) for line in events.splitlines()]
            waited = any(event["event"] == "notice" and event["kind"] == "lease" for event in told)
            met += waited or host.returncode == 11 or told[-1]["attempts"] > 1
        assert 0 in codes
        assert objects(s3) == files(site)
        with Reading(target) as reading:
            nights[reading.pick("latest").number] = tree(site)
            assert set(reading.head.live if reading.head else ()) == set(nights)
    assert met >= rounds // 10
    for number in list(nights)[:: max(1, rounds // 8)]:
        all_restore(target, {number: nights[number]}, tmp_path)
    assert verify(target, VerifyOptions(workers=0)).exit_code == 0


def test_rollback(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "index.html", b"good")
    write(site / "gone.css", b"p{}" * 400)
    write(site / "film.bin", noise(11 * MiB, 3))
    write(site / "moved.jpg", noise(50_000, 4))
    settle(site)
    good = clean(s3, site, target).snapshot
    wanted, night = files(site), tree(site)
    write(site / "index.html", b"bad!", BEGINNING + 2)
    write(site / "film.bin", noise(11 * MiB, 5), BEGINNING + 2)
    write(site / "new.html", b"new", BEGINNING + 2)
    (site / "gone.css").unlink()
    (site / "moved.jpg").rename(site / "away.jpg")
    settle(site)
    bad = clean(s3, site, target).snapshot
    worse = tree(site)
    report = rollback(target, RollbackOptions(str(good), workers=0, max_delete=EVERYTHING))
    assert report.problems == []
    assert objects(s3) == wanted
    assert report.bytes_uploaded < 100_000  # the film came back by a copy of the service
    with pytest.raises(InTheWayError, match="held"):
        publish(site, target)
    again = rollback(target, RollbackOptions(str(bad), workers=0, max_delete=EVERYTHING))
    assert objects(s3) == files(site)
    all_restore(target, {good: night, bad: worse, report.snapshot: night, again.snapshot: worse}, tmp_path)
    assert publish(site, target, release=True, max_delete=EVERYTHING).problems == []
    assert verify(target, VerifyOptions(workers=0)).exit_code == 0


def test_rollback_brings_back_what_it_overwrites_itself(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    """The page's content is under the style sheet's name only, and that is written first: it comes out of the pack just made."""
    site = tmp_path / "site"
    page = noise(30_000, 6)
    write(site / "a.html", page)
    write(site / "b.css", noise(30_000, 7))
    settle(site)
    good = clean(s3, site, target).snapshot
    wanted = files(site)
    (site / "a.html").unlink()
    write(site / "b.css", page, BEGINNING + 2)
    settle(site)
    clean(s3, site, target)
    report = rollback(target, RollbackOptions(str(good), workers=0, max_delete=EVERYTHING))
    assert report.problems == []
    assert objects(s3) == wanted


def test_headers_are_set_and_a_change_of_them_sends_nothing(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "a.css", b"p{}" * 30_000)
    write(site / "a.html", b"<p>")
    settle(site)
    routes = LookOptions(routes=Routes((spelling.route("*.css: Cache-Control: max-age=60"),)))
    clean(s3, site, target, look=routes)
    key = f"{s3.prefix}/www/a.css"
    assert s3.client.head_object(Bucket=s3.bucket, Key=key)["CacheControl"] == "max-age=60"
    other = LookOptions(routes=Routes((spelling.route("*.css: Cache-Control: max-age=99"),)))
    report = clean(s3, site, target, look=other)
    assert report.described == 1
    assert report.bytes_uploaded < 20_000
    assert report.requests["copy"] == 1
    head = s3.client.head_object(Bucket=s3.bucket, Key=key)
    assert (head["CacheControl"], head["ContentType"]) == ("max-age=99", "text/css")


def test_a_tree_in_a_bucket_as_a_source_is_mirrored_without_its_store(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "a.html", b"<p>")
    settle(site)
    clean(s3, site, target)
    source = SiteSpec(target.store.url, endpoint_url=s3.endpoint_url, region=s3.region, static_credentials=True)
    copy = TargetSpec(StoreSpec(str(tmp_path / "copy")), tmp_path / "cache")
    report = sync(source, copy, SyncOptions(workers=0))
    assert report.problems == []
    assert {path.name for path in (tmp_path / "copy").iterdir()} == {"a.html", ".mirror"}


def test_a_second_publisher_may_wait(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "a.html", b"one")
    settle(site)
    clean(s3, site, target)
    write(site / "a.html", b"two", BEGINNING + 2)
    settle(site)
    other = TargetSpec(target.store, tmp_path / "other-cache")
    words = ["sync", site, target.store.url, "--endpoint-url", s3.endpoint_url, "--region", s3.region, "--workers", 0, "-v"]
    waiting: list[subprocess.Popen[str]] = []

    def begin(event: Event) -> None:
        if isinstance(event, PhaseBegan) and event.phase == "write" and event.files and not waiting:
            cache = ["--cache-dir", other.cache, "--wait"]
            waiting.append(process(*words, *cache, stderr=subprocess.PIPE))
            time.sleep(4)  # it finds the publishing open, and its owner alive

    report = watched(site, target, begin, lease=2.0)
    assert report.problems == []
    said = waiting[0].communicate(timeout=60)[1]
    assert waiting[0].returncode == 0, said
    assert "watching" in said
    assert objects(s3) == files(site)


def test_files_that_change_places(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    """Each has content that the bucket has under another name, which is being overwritten."""
    site, nights = tmp_path / "site", {}
    for number in range(12):
        write(site / f"{number}.bin", noise(60_000, number), BEGINNING + number)
    settle(site)
    nights[clean(s3, site, target).snapshot] = tree(site)
    for turn in range(1, 4):
        for number in range(12):
            write(site / f"{number}.bin", noise(60_000, (number + turn) % 12), BEGINNING + 100 * turn + number)
        settle(site)
        nights[clean(s3, site, target).snapshot] = tree(site)
        assert verify(target, VerifyOptions(workers=0)).problems == []
    all_restore(target, nights, tmp_path)


def test_an_emptied_prefix_is_filled_again(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    write(site / "index.html", b"<p>")
    write(site / "a" / "s.css", b"p{}")
    clean(s3, site, target)
    for key in objects(s3):
        s3.client.delete_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/{key}")
    heard: list[Event] = []
    job = Job("sync", listeners=[lambda stamped: heard.append(stamped.event)])
    report = sync(SiteSpec(str(site)), target, SyncOptions(making=MAKE, workers=0), job)
    assert report.problems == []
    assert report.snapshot
    assert [event.kind for event in heard if isinstance(event, Notice)] == ["refilled"]
    assert objects(s3) == files(site)


def test_what_has_no_files_is_not_taken_for_emptied(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    site = tmp_path / "site"
    (site / "empty").mkdir(parents=True)
    settle(site)
    clean(s3, site, target)
    assert not clean(s3, site, target).snapshot


def turned(s3: S3, site: Path, target: TargetSpec) -> list[str]:
    """A folder of the site becomes a page; the kinds of the notices of the sync that publishes it."""
    write(site / "index.html", b"<a href=about>")
    write(site / "about" / "index.html", b"<p>a folder")
    clean(s3, site, target)
    shutil.rmtree(site / "about")
    write(site / "about", b"<p>a page")
    heard: list[Event] = []
    job = Job("sync", listeners=[lambda stamped: heard.append(stamped.event)])
    report = sync(SiteSpec(str(site)), target, SyncOptions(making=MAKE, workers=0, max_delete=EVERYTHING), job)
    assert report.problems == []
    return [event.kind for event in heard if isinstance(event, Notice)]


def test_who_puts_a_file_in_place_of_a_folder_is_told_what_the_server_may_do(tmp_path: Path, s3: S3, target: TargetSpec) -> None:
    assert turned(s3, tmp_path / "site", target) == ["hollow"]
    assert objects(s3)["about"] == b"<p>a page"


@pytest.mark.long
def test_what_that_notice_warns_of_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails SeaweedFS is mended: then the notice, its page in docs/hosting.md and the setting in servers.py can go."""
    with SeaweedFS(tmp_path / "weed", cleanup="1s") as server:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.admin.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.admin.secret_key)
        s3 = S3(server, server.new_bucket(), "lost")
        target = TargetSpec(s3.spec("www"), tmp_path / "cache")
        assert turned(s3, tmp_path / "site", target) == ["hollow"]
        give_up = time.monotonic() + 90  # it looks every 30 s
        while "about" in objects(s3) and time.monotonic() < give_up:
            time.sleep(1)
        assert {path for path, _ in kinds(verify(target, VerifyOptions(workers=0)).problems)} == {"about"}
        assert objects(s3).keys() == {"index.html"}
