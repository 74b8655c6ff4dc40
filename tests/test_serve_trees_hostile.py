"""What a key that may publish into a tree can do there with imports of its own making: nothing beyond the files."""

from __future__ import annotations

import base64
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drive import as_nobody, give_to_nobody, shared_folder
from mirrors import settle, tree, write
from serving import Served
from test_serve_trees import Tree

import mirror
from mirror import log
from mirror.asking import publish_there
from mirror.envelope import SEGMENT
from mirror.errors import AuthError, NotFound
from mirror.events import Job
from mirror.manifest import Entry, File, Folder, Redirect, Symlink, cut_entries
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.store import StoreSpec
from mirror.store.fs import FolderStore
from mirror.store.served import ServedStore
from mirror.target import TargetSpec, open_target

__all__ = ["shared_folder"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("server")) as server:
        server.new_key("publisher", "read,append,publish")
        yield server


@pytest.fixture
def target(server: Served, tmp_path: Path) -> Tree:
    found = Tree(server, tmp_path)
    assert found.sync().exit_code == 0
    return found


class Stranger:
    """Whoever has a key, and a program of his own."""

    def __init__(self, target: Tree) -> None:
        self.target = target
        self.store = ServedStore(StoreSpec(target.url, key_file=str(target.key())))
        head = target.records[-1]
        newest = log.newest_snapshot(target.store, head)
        assert newest
        self.entries = {entry.path: entry for entry in ManifestReader(target.store, None).entries(newest.manifest)}
        self.newest = newest

    def body(self, entries: Iterable[Entry], **members: Any) -> dict[str, Any]:
        """An import of just these entries."""
        head = self.target.records[-1]
        writer = ManifestWriter(self.store, head.epoch, {})
        pieces = cut_entries(sorted(entries, key=lambda entry: entry.path))
        root = writer.tree([writer.put(SEGMENT, piece) for piece in pieces], root_is_node=True)
        kept = {name: self.newest.body[name] for name in ("source", "started", "tags", "filters", "totals")}
        wishes: dict[str, Any] = {"parents": [self.newest.number], "publish": {}}
        return log.draft(
            log.IMPORT, head.body["target"], head, head.live, **kept, manifest=log.ref_json(root), **(wishes | members)
        )

    def publishes(self, *entries: Entry, **members: Any) -> list[tuple[str, str]]:
        """What stands there and these entries, published: the problems."""
        there = self.entries | {entry.path: entry for entry in entries}
        assert isinstance(log.append(self.store, self.body(there.values(), **members)), log.Record)
        problems: list[tuple[str, str]] = []
        with open_target(TargetSpec(StoreSpec(self.target.url, key_file=str(self.target.key())))) as opened:
            head = log.read_head(opened.store)
            publish_there(opened, head, Job("test"), lambda problem: problems.append((problem.path, problem.why)))
        return problems


@pytest.fixture
def stranger(target: Tree) -> Stranger:
    return Stranger(target)


def a_file(entry: Entry, path: bytes, **changes: Any) -> File:
    """The same content under another path."""
    import msgspec

    assert isinstance(entry, File)
    return msgspec.structs.replace(entry, path=path, **{"link": b"", **changes})


def test_nobody_gets_files_of_others_or_set_id_bits(target: Tree, stranger: Stranger) -> None:
    """Were the server run as root, a key could make a program that is root's, and anybody on that machine could run it."""
    index = stranger.entries[b"index.html"]
    attributes = ((b"security.capability", b"\x01\x00\x00\x02" + b"\xff" * 16), (b"user.note", b"kept"))
    assert stranger.publishes(
        a_file(index, b"program", mode=0o6755, uid=4321, gid=4321, xattrs=attributes),
        Folder(b"dir/", 0, 0o7777, 4321, 4321, "nobody", "daemon", attributes),
        a_file(index, b"dir/file", uid=4321, user="nobody"),
        Symlink(b"way", b"index.html", 0, 4321, 4321),
    ) == []  # fmt: skip
    number = mirror.snapshots(target.live)[-1].number

    def is_nobody_elses() -> None:
        for name in ("program", "dir", "dir/file", "way"):
            seen = os.lstat(target.live / name)
            assert (seen.st_uid, seen.st_gid) == (os.geteuid(), os.getegid()), name
            assert stat.S_IMODE(seen.st_mode) & 0o6000 == 0, name
        assert os.listxattr(target.live / "program") == ["user.note"]
        assert stat.S_IMODE((target.live / "program").stat().st_mode) == 0o755

    is_nobody_elses()
    assert target.sync().deleted == 4
    assert not (target.live / "program").exists()
    back = mirror.rollback(target.live, at=number, max_delete="100%").snapshot
    is_nobody_elses()
    mirror.rollback(target.live, at=3, max_delete="100%")
    mirror.rollback(target.live, at=back, max_delete="100%")  # to what was a rollback itself
    is_nobody_elses()


def test_what_is_shut_stays_open_to_who_publishes(shared_folder: Path) -> None:
    """Root syncs files of mode 0 and a folder that is shut; who publishes is not root, and has to read and change them later."""
    site = shared_folder / "site"
    shared_folder.chmod(0o777)
    for name in ("shut/in", "zero", "index.html"):
        write(site / name, name.encode() * 100)
    (shared_folder / "server").mkdir()
    with Served(shared_folder / "server") as server:
        target = Tree.__new__(Tree)
        target.server, target.site, target.live = server, site, server.init("www", "tree")
        target.url, target.store = f"{server.url}/www", FolderStore(str(target.live / ".mirror"))
        nights = {}
        for night in range(3):
            write(site / "zero", b"zero %d" % night)
            write(site / "shut" / f"new {night}", b"new")
            settle(site)
            if os.geteuid() == 0:
                os.chmod(site / "zero", 0)
                os.chmod(site / "shut", 0)
            assert target.sync("nightly").waits
            give_to_nobody(target.live)
            done = as_nobody("publish", target.live, "--min-free", "0", "--cache-dir", shared_folder / "cache")
            assert done.code == 0, done.err
            nights[target.records[-2].number] = tree(site)
            os.chmod(site / "shut", 0o755)
            os.chmod(site / "zero", 0o644)
        assert mirror.verify(target.live).problems == []
        for number, there in nights.items():
            assert mirror.restore(target.live, shared_folder / f"back {number}", at=number).problems == []
            back = tree(shared_folder / f"back {number}")
            assert {path: item.content for path, item in back.items()} == {path: item.content for path, item in there.items()}
            assert back[b"zero"].mode == there[b"zero"].mode  # the snapshot says it as it was


def test_no_hard_link_leads_into_the_store(target: Tree, stranger: Stranger) -> None:
    """Its objects would be public, and what is set of such a file is set of the object."""
    info = target.live / ".mirror" / "mirror.json"
    before = info.stat()
    index = stranger.entries[b"index.html"]
    link = a_file(index, b"z.json", size=before.st_size, mtime=None, mode=0o644, link=b".mirror/mirror.json")
    assert [path for path, _ in stranger.publishes(link)] == ["z.json"]
    assert not (target.live / "z.json").exists()
    assert (info.stat().st_nlink, info.stat().st_mode) == (1, before.st_mode)


def test_nothing_is_written_or_read_through_a_link(target: Tree, stranger: Stranger, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    write(outside / "secret", b"secret")
    assert stranger.publishes(Symlink(b"way", os.fsencode(outside), 0)) == []
    quoted = "-/live?path=" + base64.urlsafe_b64encode(b"way/secret").decode().rstrip("=")
    with pytest.raises(NotFound):
        stranger.store.get(quoted, 100)
    later = Stranger(target)
    index = later.entries[b"index.html"]
    problems = later.publishes(a_file(index, b"way/in.html"), a_file(index, b"way/secret"))
    assert {path for path, _ in problems} <= {"way/in.html", "way/secret", "way"}
    assert sorted(os.listdir(outside)) == ["secret"]
    assert (outside / "secret").read_bytes() == b"secret"


def test_the_store_is_no_place_for_files(target: Tree, stranger: Stranger) -> None:
    index = stranger.entries[b"index.html"]
    before = (target.live / ".mirror" / "mirror.json").read_bytes()
    problems = stranger.publishes(
        Folder(b".mirror/", 0, 0o777),
        a_file(index, b".mirror/mirror.json"),
        a_file(index, b".mirror/x"),
        Symlink(b".mirror/link", b"/etc/passwd"),
    )
    assert {path for path, _ in problems} == {".mirror/", ".mirror/link", ".mirror/mirror.json", ".mirror/x"}
    assert stat.S_IMODE((target.live / ".mirror").stat().st_mode) == 0o700
    assert (target.live / ".mirror" / "mirror.json").read_bytes() == before
    assert not (target.live / ".mirror" / "x").exists()


def test_a_redirect_is_nothing_that_a_tree_holds(target: Tree, stranger: Stranger) -> None:
    problems = stranger.publishes(Redirect(b"elsewhere", "http://example.org/", 301, "http://example.org/2"))
    assert [path for path, _ in problems] == ["elsewhere"]
    assert not (target.live / "elsewhere").exists()


def test_no_import_takes_the_history_away(target: Tree, stranger: Stranger) -> None:
    """Only a key with the right prune may forget a snapshot, and so only such a one may have it forgotten."""
    server = target.server
    server.new_key("pruner", "read,append,publish,prune")
    write(target.site / "index.html", b"second")
    settle(target.site)
    target.sync()
    before = [line.number for line in mirror.snapshots(target.live)]
    write(target.site / "index.html", b"third")
    settle(target.site)
    for key in ("nightly", "publisher"):
        with pytest.raises(AuthError, match="needs the right prune"):
            target.sync(key, no_history=True)
    assert [line.number for line in mirror.snapshots(target.live)] == before
    report = target.sync("pruner", no_history=True)
    assert [line.number for line in mirror.snapshots(target.live)] == [report.snapshot]
    target.is_like_the_site()
