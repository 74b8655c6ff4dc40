"""Trees over HTTP: a client brings what a tree has not, the server publishes it in steps, and people see it.

The server is a process of its own, and so is each publish. What became of the tree is looked at in its folder, past the server.
"""

from __future__ import annotations

import base64
import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from distant import publishes
from links import Link
from mirrors import make_site, noise, settle, tree, write
from serving import Served
from test_serve import run, things

import mirror
from mirror import asking, log
from mirror.errors import AuthError, InTheWayError, MirrorError, NotFound, TemporaryError, UsageError
from mirror.store import StoreSpec
from mirror.store.fs import FolderStore
from mirror.store.served import ServedStore


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("server")) as server:
        server.new_key("publisher", "read,append,publish")
        server.new_key("reader", "read")
        yield server


class Tree:
    """A tree of the server, and the site that is synced into it."""

    def __init__(self, server: Served, folder: Path) -> None:
        self.server, self.site = server, make_site(folder / "site")
        self.live = server.init(folder.name, "tree")
        self.url = f"{server.url}/{folder.name}"
        self.store = FolderStore(str(self.live / ".mirror"))

    def key(self, name: str = "publisher") -> Path:
        return self.server.folder / f"{name}.key"

    def sync(self, key: str = "publisher", url: str = "", **options: Any) -> Any:
        return mirror.sync(self.site, url or self.url, key_file=self.key(key), **options)

    @property
    def records(self) -> list[log.Record]:
        return [log.read_record(self.store, number) for number in log.numbers(self.store)]

    @property
    def kinds(self) -> list[str]:
        return [record.kind for record in self.records]

    def is_like_the_site(self) -> None:
        """Every path, content, time and mode."""
        there = {path: item for path, item in tree(self.live).items() if not path.startswith(b".mirror")}
        assert there == tree(self.site)

    def has_packs(self) -> list[str]:
        return [stat.key for place in ("packs/", "index/") for stat in self.store.list(place)]


@pytest.fixture
def target(server: Served, tmp_path: Path) -> Tree:
    return Tree(server, tmp_path)


# What people see


def test_a_tree_is_filled_and_what_was_brought_goes(target: Tree) -> None:
    report = target.sync()
    assert (report.exit_code, report.waits) == (0, 0)
    target.is_like_the_site()
    assert target.kinds == ["import", "publishing", "snapshot", "prune"]
    assert report.snapshot == 3
    assert target.records[2].body["import"] == 1
    assert report.added == len(tree(target.site))
    assert target.has_packs() == []
    assert list(target.store.list("received/")) == []
    assert mirror.verify(target.live, against=target.site).exit_code == 0


def test_an_unchanged_night_writes_nothing(target: Tree) -> None:
    time.sleep(2.1)  # a file that is younger when it is read is read again
    target.sync()
    before = target.kinds
    report = target.sync()
    assert (report.snapshot, report.exit_code, target.kinds) == (0, 0, before)
    assert report.requests == {"get": 5, "size": 1}


def test_only_what_changed_crosses_and_is_put_together_there(target: Tree) -> None:
    """A byte in a large file, a file that is another one with an end of its own, one that moved and changed, and one made of parts
    of two: the rest of each comes out of live files."""
    site = target.site
    write(site / "huge.bin", noise(5_000_000, 5))
    write(site / "other.bin", noise(700_000, 6))
    target.sync()
    data = bytearray(noise(5_000_000, 5))
    data[4_500_001] ^= 1
    write(site / "huge.bin", bytes(data))
    write(site / "grown.bin", noise(2_000_000, 0) + b"and more")  # big.bin, which stays as it is
    (site / "other.bin").unlink()
    write(site / "elsewhere" / "other.bin", b"before " + noise(700_000, 6))
    write(site / "mixed.bin", noise(5_000_000, 5)[:3_000_000] + noise(700_000, 6)[:400_000])
    settle(site)
    with Link(target.server.port, lambda number, data: None) as link:
        report = target.sync(url=f"http://127.0.0.1:{link.port}/{target.live.name}")
    assert report.exit_code == 0
    assert link.sent < 600_000, link.sent
    target.is_like_the_site()
    assert mirror.verify(target.live, against=site).exit_code == 0


def comes_back(target: Tree, nights: list[tuple[int, Any]], folder: Path) -> None:
    """Every one of these snapshots, and nothing is damaged."""
    for snapshot, there in nights:
        out = folder / f"back {snapshot}"
        assert mirror.restore(target.live, out, at=snapshot).exit_code == 0
        assert tree(out) == there
    assert mirror.verify(target.live).exit_code == 0


def test_content_that_goes_and_comes_is_in_every_snapshot(target: Tree, tmp_path: Path) -> None:
    site = target.site
    nights = []
    for night in range(4):
        if night:
            write(site / "big.bin", noise(500_000, night) + noise(1_500_000, night - 1))
            write(site / "pages" / f"copy-{night}", noise(500_000, night - 1))
            if night > 1:
                (site / "pages" / f"copy-{night - 1}").unlink()
            (site / "index.html").write_text(f"night {night}")
            settle(site)
        report = target.sync()
        assert report.exit_code == 0
        nights.append((report.snapshot, tree(site)))
    comes_back(target, nights, tmp_path)


def test_history_does_not_rely_on_what_goes(target: Tree, tmp_path: Path) -> None:
    """What a client has brought lies there in packs while a sync on that machine publishes the same, and displaces it again. Then
    the packs go."""
    site = target.site
    target.sync("nightly")
    nights = [(mirror.sync(site, target.live).snapshot, tree(site))]
    write(site / "big.bin", noise(2_000_000, 9))
    settle(site)
    assert target.has_packs()
    nights.append((mirror.sync(site, target.live).snapshot, tree(site)))
    write(site / "index.html", b"news")
    settle(site)
    nights.append((target.sync().snapshot, tree(site)))
    assert list(target.store.list("received/")) == []
    comes_back(target, nights, tmp_path)


def test_a_huge_file_of_which_a_part_changed(target: Tree) -> None:
    data = bytearray(noise(70_000_000, 3))
    write(target.site / "huge", bytes(data))
    target.sync()
    data[35_000_000:35_000_010] = b"0123456789"
    write(target.site / "huge", bytes(data))
    report = target.sync()
    assert report.exit_code == 0
    assert report.bytes_uploaded < 2_000_000
    target.is_like_the_site()


def test_a_tree_elsewhere_comes_back(target: Tree, tmp_path: Path) -> None:
    """Every snapshot, over HTTP: the newest out of live files, older ones out of packs and live files."""
    nights = []
    write(target.site / "large.bin", noise(5_000_000, 4))
    for night in range(3):
        if night:
            write(target.site / "big.bin", noise(2_000_000, night))
            (target.site / "pages" / f"page-0{night}.html").unlink()
            settle(target.site)
        nights.append((target.sync().snapshot, tree(target.site)))
    reader = target.key("reader")
    for snapshot, there in nights:
        out = tmp_path / f"back {snapshot}"
        assert mirror.restore(target.url, out, at=snapshot, key_file=reader).exit_code == 0
        assert tree(out) == there
    assert b"".join(mirror.cat(target.url, "large.bin", key_file=reader)) == noise(5_000_000, 4)
    report = mirror.verify(target.url, key_file=reader)
    assert (report.exit_code, report.live_files) == (0, len([i for i in nights[-1][1].values() if i.kind == "file"]))
    (target.live / "big.bin").write_bytes(b"spoilt")
    (target.live / "empty").unlink()
    report = mirror.verify(target.url, key_file=reader)
    assert {problem.path for problem in report.problems} == {"big.bin", "empty"}


# Who may


def test_by_a_key_that_may_only_append_it_waits(target: Tree) -> None:
    first = target.sync()
    before = tree(target.live)
    write(target.site / "new.html", b"new")
    settle(target.site)
    report = target.sync("nightly")
    assert (report.exit_code, report.snapshot, report.waits) == (0, 0, first.snapshot + 2)
    write(target.site / "newer.html", b"newer")
    settle(target.site)
    again = target.sync("nightly")
    assert again.waits == report.waits + 1
    assert again.added == 1  # against what waits
    idle = target.sync("nightly")
    assert (idle.waits, idle.bytes_uploaded) == (again.waits, 0)
    outside = {path: item for path, item in before.items() if not path.startswith(b".mirror")}
    assert {path: item for path, item in tree(target.live).items() if not path.startswith(b".mirror")} == outside
    with pytest.raises(AuthError, match="has not the right publish"):
        mirror.publish(target.url, key_file=target.key("nightly"))
    published = mirror.publish(target.url, key_file=target.key())
    assert (published.exit_code, published.of, published.added) == (0, again.waits, 2)
    target.is_like_the_site()
    assert target.has_packs() == []
    assert target.sync("nightly").snapshot == 0


def test_where_the_tree_is_it_is_published_with_its_folder(target: Tree) -> None:
    waits = target.sync("nightly").waits
    done = run("publish", target.live, MIRROR_CACHE_DIR=target.server.folder / "cache")
    assert done.returncode == 0, done.stderr
    assert f"of import {waits}: " in done.stderr
    target.is_like_the_site()
    done = run("publish", target.live, MIRROR_CACHE_DIR=target.server.folder / "cache")
    assert (done.returncode, "nothing waits to be published" in done.stderr) == (0, True)


def test_a_local_sync_overtakes_what_waits(target: Tree, tmp_path: Path) -> None:
    target.sync("nightly")
    other = make_site(tmp_path / "other", seed=1)
    mirror.sync(other, target.live)
    assert {p: i for p, i in tree(target.live).items() if not p.startswith(b".mirror")} == tree(other)
    report = mirror.publish(target.live)
    assert (report.snapshot, report.of) == (0, 0)
    assert mirror.verify(target.live).exit_code == 0


def test_a_packed_target_has_nothing_to_publish(target: Tree, tmp_path: Path) -> None:
    mirror.sync(target.site, tmp_path / "packed", layout="packed")
    with pytest.raises(UsageError, match="nothing waits, but in a tree"):
        mirror.publish(tmp_path / "packed")


def test_what_a_tree_elsewhere_cannot(target: Tree) -> None:
    target.sync()
    with pytest.raises(UsageError, match="rolled back on the machine that holds it"):
        mirror.rollback(target.url, at=3, key_file=target.key())


def test_what_surely_has_no_room_there_is_not_sent(target: Tree) -> None:
    """A draft of each changed file comes on top of packs. Else the packs of an import that cannot be published fill the disk."""
    target.sync()
    with open(target.site / "huge", "wb") as stream:
        stream.truncate(shutil.disk_usage(target.live).free + (1 << 30))
    with pytest.raises(TemporaryError, match=r"not enough free space at http.* are to be written"):
        target.sync()
    assert target.has_packs() == []


def test_a_publish_that_is_open_is_in_the_way_of_a_key_that_may_not_finish_it(target: Tree) -> None:
    """It may be a sync of somebody else that is at work: no fault of the key, which would be another exit code."""
    target.sync()
    head, snapshot = target.records[-1], target.records[2]
    names = ("source", "started", "tags", "filters", "manifest", "totals")
    members = {name: snapshot.body[name] for name in names} | {"parents": [3], "expected": None, "owner": "f" * 32}
    assert log.append(target.store, log.draft(log.PUBLISHING, head.body["target"], head, head.live, **members))
    with pytest.raises(InTheWayError, match=r"a publish is open there.*somebody with that right says: mirror publish"):
        target.sync("nightly")
    assert target.sync().exit_code == 0
    assert "takeover" in target.kinds
    assert target.sync("nightly").exit_code == 0
    target.is_like_the_site()


# Holds, drift


def test_after_a_rollback_a_client_is_held_until_it_says_release(target: Tree) -> None:
    first = target.sync().snapshot
    write(target.site / "index.html", b"bad")
    settle(target.site)
    target.sync()
    mirror.rollback(target.live, at=first)
    with pytest.raises(InTheWayError, match="--release"):
        target.sync()
    assert (target.live / "index.html").read_bytes() != b"bad"
    assert target.sync(release=True).exit_code == 0
    target.is_like_the_site()
    assert target.sync().snapshot == 0


def test_what_waits_is_not_published_past_a_rollback_that_finds_nothing_to_change(target: Tree) -> None:
    """Who rolls back to what is live says that it shall stay so: what came before that is not to take its place."""
    first = target.sync().snapshot
    write(target.site / "index.html", b"bad")
    settle(target.site)
    assert target.sync("nightly").waits
    assert mirror.rollback(target.live, at=first).snapshot == 0
    report = mirror.publish(target.live)
    assert (report.of, (target.live / "index.html").read_bytes() != b"bad") == (0, True)
    with pytest.raises(InTheWayError, match="--release"):
        target.sync()
    assert target.sync(release=True).exit_code == 0
    target.is_like_the_site()


def test_live_content_that_somebody_spoilt_is_brought_the_night_after(target: Tree) -> None:
    """The client relies on what stands there. Where it does not stand there any more, that path fails, and heals."""
    target.sync()
    (target.live / "big.bin").write_bytes(b"spoilt")
    write(target.site / "grown.bin", noise(2_000_000, 0) + b"and more")
    settle(target.site)
    report = target.sync()
    assert report.exit_code != 0
    assert [problem.path for problem in report.problems] == ["grown.bin"]
    assert not (target.live / "grown.bin").exists()
    assert target.sync().exit_code == 0
    assert (target.live / "grown.bin").read_bytes() == noise(2_000_000, 0) + b"and more"


def test_an_emptied_tree_is_filled_again_by_the_second_sync(target: Tree) -> None:
    """The first one brings only what it takes for news; its snapshot tells the truth, so the second brings all the rest."""
    target.sync()
    for path in target.live.iterdir():
        if path.name != ".mirror":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    write(target.site / "new.html", b"new")
    settle(target.site)
    report = target.sync()
    assert report.exit_code == 4
    assert (target.live / "new.html").read_bytes() == b"new"
    assert target.sync().exit_code == 0
    target.is_like_the_site()
    assert mirror.verify(target.live, against=target.site).exit_code == 0


# Deaths


class Away:
    """A sync in a thread, from its begin to its end."""

    def __init__(self, target: Tree, **options: Any) -> None:
        self.report: Any = None
        self.error: BaseException | None = None
        self._target, self._options = target, options
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.report = self._target.sync(**self._options)
        except BaseException as error:  # noqa: BLE001 - looked at by the test
            self.error = error

    def publishes(self) -> None:
        """Wait until the server changes the live folder."""
        while "publishing" not in self._target.kinds:
            assert self.thread.is_alive()
            time.sleep(0.005)

    def ends(self) -> Any:
        self.thread.join(100)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error
        return self.report


def many_files(site: Path) -> None:
    for number in range(4000):
        path = site / "many" / f"{number % 50}" / f"{number}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"page {number} " * 20)


@pytest.mark.parametrize("victim", ["the publish", "the server", "both", "the server, by a signal"])
def test_who_dies_goes_on_where_it_was(victim: str, tmp_path: Path) -> None:
    with Served(tmp_path / "server") as server:
        server.new_key("publisher", "read,append,publish")
        (tmp_path / "t").mkdir()
        target = Tree(server, tmp_path / "t")
        many_files(target.site)
        port = server.port
        away = Away(target)
        end = time.monotonic() + 60
        while not (found := publishes(target.live)) and away.thread.is_alive() and time.monotonic() < end:
            time.sleep(0.01)
        assert found
        while "publishing" not in target.kinds and publishes(target.live):
            time.sleep(0.01)
        if victim in ("the publish", "both"):
            for process in found:
                os.kill(process, signal.SIGKILL)
        if victim != "the publish":
            if "signal" in victim:  # it ends the publish as well
                assert server.stop() == 130
                assert not publishes(target.live)
            assert server.process
            server.process.kill()
            server.process.wait()
            server._options = ("--listen", f"127.0.0.1:{port}")
            server.start()
        assert away.ends().exit_code == 0
        target.is_like_the_site()
        assert target.has_packs() == []
        assert mirror.verify(target.live, against=target.site).exit_code == 0


def test_a_client_that_dies_leaves_the_publish_to_the_server(target: Tree) -> None:
    many_files(target.site)
    client = subprocess.Popen(
        ["python", "-m", "mirror", "sync", str(target.site), target.url],
        env={**os.environ, "MIRROR_KEY_FILE": str(target.key()), "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        stderr=subprocess.DEVNULL,
    )
    while "import" not in target.kinds:
        assert client.poll() is None
        time.sleep(0.01)
    client.kill()
    client.wait()
    end = time.monotonic() + 60
    while target.kinds[-1] != "prune" and time.monotonic() < end:
        time.sleep(0.1)
    target.is_like_the_site()
    assert target.sync().snapshot == 0


def test_a_client_that_is_interrupted_says_that_the_server_goes_on(target: Tree) -> None:
    folder = os.open(target.live, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # so the publish waits
        client = subprocess.Popen(
            ["python", "-m", "mirror", "sync", str(target.site), target.url],
            env={**os.environ, "MIRROR_KEY_FILE": str(target.key()), "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            stderr=subprocess.PIPE,
        )
        while not publishes(target.live):
            assert client.poll() is None
            time.sleep(0.01)
        time.sleep(0.3)
        client.send_signal(signal.SIGINT)
        _, said = client.communicate()
    finally:
        os.close(folder)
    assert client.returncode == 130
    assert b"interrupted; the server goes on with the publish; run the same command again to see its end" in said
    end = time.monotonic() + 60
    while target.kinds[-1] != "prune" and time.monotonic() < end:
        time.sleep(0.05)
    target.is_like_the_site()


def test_a_key_that_may_only_append_waits_while_something_is_published(target: Tree, tmp_path: Path) -> None:
    """It cannot have it finished, and need not: somebody does."""
    many_files(target.site)
    away = Away(target)
    away.publishes()
    write(target.site / "index.html", b"newer")
    report = target.sync("nightly", cache_dir=tmp_path / "another host")
    assert report.exit_code == 0
    assert report.waits
    assert away.ends().exit_code in (0, 24)


def test_a_server_that_begins_finishes_what_was_open(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with Served(tmp_path / "server") as server:
        server.new_key("publisher", "read,append,publish")
        target = Tree(server, tmp_path / "t")
        many_files(target.site)
        away = Away(target)
        away.publishes()
        for process in publishes(target.live):
            os.kill(process, signal.SIGKILL)
        assert server.process
        server.process.kill()
        server.process.wait()
        assert target.kinds[-1] == "publishing"
        server._options = ("--listen", f"127.0.0.1:{server.port}")
        server.start()
        end = time.monotonic() + 60
        while target.kinds[-1] != "prune" and time.monotonic() < end:
            time.sleep(0.1)
        assert "takeover" in target.kinds
        away.ends()
        target.is_like_the_site()


def test_two_clients_at_once(target: Tree, tmp_path: Path) -> None:
    """One of them may find that the other was faster; in the end all is there and whole."""
    target.sync()
    write(target.site / "a.html", b"a")
    settle(target.site)
    both = [Away(target, cache_dir=tmp_path / host) for host in ("here", "there")]
    for each in both:
        assert each.ends().exit_code == 0
    target.is_like_the_site()
    assert mirror.verify(target.live, against=target.site).exit_code == 0


# What is said meanwhile


def test_the_progress_of_the_publish_is_shown_as_ones_own(target: Tree) -> None:
    seen: list[Any] = []
    target.sync(listeners=[seen.append])
    names = [type(stamped.event).__name__ for stamped in seen]
    phases = [stamped.event.phase for stamped in seen if type(stamped.event).__name__ == "PhaseBegan"]
    assert phases[:3] == ["scan", "transfer", "commit"]
    assert "write" in phases[3:]  # that of the server
    assert [stamped.event.snapshot for stamped in seen if type(stamped.event).__name__ == "SnapshotCommitted"] == [3]
    assert names.count("Advanced") > 1


def test_the_stream_can_be_heard_again_from_any_number(target: Tree) -> None:
    target.sync()
    store = ServedStore(StoreSpec(target.url, key_file=str(target.key())))
    told = list(store.follow(0))
    assert told[-1].name == "summary"
    assert "snapshot" in [each.name for each in told]
    assert told[-1].values["snapshot"] == 3
    assert [each.number for each in store.follow(told[-2].number)] == [told[-1].number]
    assert [each.number for each in told] == sorted({each.number for each in told})


@pytest.mark.long
def test_a_publish_that_has_nothing_to_say_for_long_is_waited_for(target: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody on that machine is at the tree, and the publish waits for him."""
    monkeypatch.setattr(asking, "_PATIENCE", 4.0)
    monkeypatch.setattr(asking, "_QUIET", 3.0)
    seen: list[Any] = []
    folder = os.open(target.live, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        away = Away(target, listeners=[seen.append])
        time.sleep(35)  # a stream takes 25 s
        assert away.thread.is_alive(), away.error
    finally:
        os.close(folder)
    assert away.ends().exit_code == 0
    assert [stamped.event.kind for stamped in seen if type(stamped.event).__name__ == "Notice"] == ["quiet"]
    target.is_like_the_site()


def test_those_who_only_listen_leave_room_for_others(target: Tree) -> None:
    """Four hundred connections are all that there are."""
    target.sync()
    store = ServedStore(StoreSpec(target.url, key_file=str(target.key("reader"))))
    folder = os.open(target.live, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        write(target.site / "index.html", b"new")
        away = Away(target)
        while not publishes(target.live):
            time.sleep(0.01)
        listeners = [threading.Thread(target=lambda: list(store.follow(0)), daemon=True) for _ in range(60)]
        for each in listeners:
            each.start()
        end = time.monotonic() + 20
        while sum(each.is_alive() for each in listeners) > 16 and time.monotonic() < end:
            time.sleep(0.05)
        assert sum(each.is_alive() for each in listeners) == 16
        assert mirror.snapshots(target.url, key_file=target.key())[-1].number == 3
    finally:
        os.close(folder)
    assert away.ends().exit_code == 0


# Who does not belong there


@pytest.fixture
def stranger(target: Tree) -> ServedStore:
    return ServedStore(StoreSpec(target.url, key_file=str(target.key())))


def quoted(path: bytes) -> str:
    return "-/live?path=" + base64.urlsafe_b64encode(path).decode().rstrip("=")


def test_a_live_file_is_read_and_nothing_else(target: Tree, stranger: ServedStore) -> None:
    target.sync()
    assert stranger.get_ranges(quoted(b"index.html"), [(0, 5)]) == [(target.site / "index.html").read_bytes()[:5]]
    (target.live / "link out").symlink_to("/etc/passwd")
    for path in (b".mirror/mirror.json", b"pages", b"nothing", b"link", b"link out"):
        with pytest.raises(NotFound):
            stranger.get(quoted(path), 100)
    for path in (b"../../keys.json", b"/etc/passwd", b"a/../index.html", b"pages/../../x", b"a\0b"):
        with pytest.raises((MirrorError, NotFound)):
            stranger.get(quoted(path), 100)


def test_records_that_a_client_must_not_make_of_a_tree(target: Tree, stranger: ServedStore) -> None:
    target.sync()
    before = things(target.live / ".mirror")
    head = target.records[-1]
    snapshot = target.records[2]
    names = ("source", "started", "tags", "filters", "manifest", "totals")
    members: dict[str, Any] = {name: snapshot.body[name] for name in names} | {"parents": [3]}
    wish: dict[str, Any] = {"publish": {}}
    uuid = head.body["target"]
    missing = {"blake3": "00" * 32, "epoch": 0, "count": 1, "bytes": 1}
    bad = {
        "snapshot": log.draft(log.SNAPSHOT, uuid, head, head.live.plus(head.number + 1), **members),
        "publishing": log.draft(log.PUBLISHING, uuid, head, head.live, **members, expected=None, owner="me"),
        "done": log.draft(log.DONE, uuid, head, head.live, snapshot=3),
        "prune": log.draft(log.PRUNE, uuid, head, head.live, dooms=members["manifest"]),
        "missing": log.draft(log.IMPORT, uuid, head, head.live, **(members | wish | {"manifest": missing})),
        "parent": log.draft(log.IMPORT, uuid, head, head.live, **(members | wish | {"parents": []})),
        "waits": log.draft(log.IMPORT, uuid, head, head.live, **members, **wish) | {"waits": 1},
        "live": log.draft(log.IMPORT, uuid, head, log.Live(), **members, **wish),
        "order": log.draft(log.IMPORT, uuid, head, head.live, **members, publish={"grace": -1}),
    }
    for name, body in bad.items():
        with pytest.raises(MirrorError):
            log.append(stranger, body)
        assert things(target.live / ".mirror") == before, name


def test_an_import_of_content_that_is_nowhere_is_rejected(target: Tree, stranger: ServedStore, tmp_path: Path) -> None:
    """A record whose manifest is there, and whose files no pack and no live file has."""
    target.sync()
    write(target.site / "new.bin", noise(50_000, 77))
    settle(target.site)
    packed = tmp_path / "packed"
    mirror.sync(target.site, packed, layout="packed")
    there = FolderStore(str(packed))
    record = log.read_head(there)
    assert record
    for stat in there.list("manifests/"):
        stranger.create(stat.key, there.get(stat.key, 1 << 24))
    head = target.records[-1]
    names = ("source", "started", "tags", "filters", "manifest", "totals")
    body = log.draft(
        log.IMPORT,
        head.body["target"],
        head,
        head.live,
        **{name: record.body[name] for name in names},
        parents=[3],
        publish={},
    )
    with pytest.raises(MirrorError, match=r"content of new\.bin is not here, neither in a pack"):
        log.append(stranger, body)
    assert target.records[-1].number == head.number


def test_a_folder_of_the_site_is_no_module_of_the_publish(target: Tree) -> None:
    """The process that publishes must not take Python out of what clients bring."""
    evil = target.site / "mirror"
    evil.mkdir()
    (evil / "__init__.py").write_text("raise SystemExit(99)")
    shutil.copy(evil / "__init__.py", target.site / "json.py")
    settle(target.site)
    assert target.sync().exit_code == 0
    write(target.site / "again.html", b"again")
    settle(target.site)
    assert target.sync().exit_code == 0
    target.is_like_the_site()


def test_a_key_without_the_right_cannot_have_it_published(target: Tree) -> None:
    target.sync("nightly")
    assert not ServedStore(StoreSpec(target.url, key_file=str(target.key("nightly")))).publish()
    assert not ServedStore(StoreSpec(target.url, key_file=str(target.key("reader")))).publish()
    assert target.kinds == ["import"]
