"""The folder site where only a folder can go wrong: odd names, links, special files, depth, rights, things swapped under it."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.errors import NotFound, SourceError
from mirror.site import FILE, FOLDER, SYMLINK, Filter, Found, Unread
from mirror.site.files import FolderSite
from mirror.site.hardlinks import HardLinks


def truth(root: Path) -> list[bytes]:
    """Every path below, as the operating system says it, sorted as whole paths."""
    top = os.fsencode(root)
    paths = [b""]
    for folder, folders, files in os.walk(top):
        for name in folders:
            place = os.path.join(folder, name)
            paths.append(os.path.relpath(place, top) + (b"" if os.path.islink(place) else b"/"))
        paths.extend(os.path.relpath(os.path.join(folder, name), top) for name in files)
    return sorted(paths)


def scan(root: Path) -> dict[bytes, Found | Unread]:
    """What a scan sees; asserts that the order is strictly ascending."""
    seen = list(FolderSite(str(root)).scan())
    paths = [here.path for here in seen]
    assert paths == sorted(set(paths))
    return {here.path: here for here in seen}  # type: ignore[misc]


@pytest.fixture
def deep_cleanup(tmp_path: Path) -> Iterator[None]:
    yield
    # shutil.rmtree (with which pytest cleans up) recurses.
    subprocess.run(["rm", "-rf", "--", *map(str, tmp_path.iterdir())], check=True)


NAME = st.binary(min_size=1, max_size=4).map(lambda name: name.replace(b"/", b"-").replace(b"\0", b"_")).filter(
    lambda name: name not in (b".", b"..")
)  # fmt: skip


@settings(deadline=None)
@given(st.lists(st.lists(st.one_of(st.sampled_from([b"a", b"b", b"a-", b"a.", b"a0"]), NAME), min_size=1, max_size=4), max_size=20))
def test_the_order_is_that_of_whole_paths(tmp_path_factory: pytest.TempPathFactory, paths: list[list[bytes]]) -> None:
    root = tmp_path_factory.mktemp("tree")
    for parts in paths:
        place = os.path.join(os.fsencode(root), *parts)
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "xb"):
                pass
        except OSError:  # the name is taken by a folder, or a folder's by a file
            continue
    assert [here.path for here in FolderSite(str(root), filter=Filter(ignore_files=False)).scan()] == truth(root)


def test_names_that_sort_on_both_sides_of_the_slash(tmp_path: Path) -> None:
    for name in ("a/b/c", "a-b", "a.b", "a0", "a/b-c", "a!", "a//../ab"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert list(scan(tmp_path)) == [b"", b"a!", b"a-b", b"a.b", b"a/", b"a/b-c", b"a/b/", b"a/b/c", b"a0", b"ab"]


def test_odd_names_survive(tmp_path: Path) -> None:
    names = [b"caf\xe9", "café".encode(), b"new\nline", b" ", b"-rf", b"\x01\x7f", b"\xff\xfe", b"a\\b", b"x" * 255]
    for name in names:
        with open(os.path.join(os.fsencode(tmp_path), name), "wb") as file:
            file.write(name)
    assert list(scan(tmp_path)) == [b"", *sorted(names)]
    site = FolderSite(str(tmp_path))
    for name in names:
        with site.open(name).stream as stream:
            assert stream.read(300) == name


def test_what_a_file_a_folder_and_a_link_say_of_themselves(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    (tmp_path / "f").chmod(0o4751)
    os.utime(tmp_path / "f", ns=(1, 1_234_567_890_123_456_789))
    (tmp_path / "d").mkdir(0o750)
    os.utime(tmp_path / "d", ns=(1, 987_654_321_000_000_001))
    (tmp_path / "l").symlink_to("f")
    seen = scan(tmp_path)
    file, stat = seen[b"f"], (tmp_path / "f").stat()
    assert isinstance(file, Found)
    assert (file.kind, file.size, file.mtime, file.mode) == (FILE, 5, 1_234_567_890_123_456_789, 0o4751)
    assert (file.uid, file.gid, file.user, file.group) == (
        stat.st_uid,
        stat.st_gid,
        (tmp_path / "f").owner(),
        (tmp_path / "f").group(),
    )
    assert file.validator == (stat.st_ino, stat.st_ctime_ns)
    assert (file.link, file.target, file.xattrs) == (b"", b"", None)
    folder = seen[b"d/"]
    assert isinstance(folder, Found)
    assert (folder.kind, folder.size, folder.mtime, folder.mode) == (FOLDER, 0, 987_654_321_000_000_001, 0o750)
    link = seen[b"l"]
    assert isinstance(link, Found)
    assert (link.kind, link.target, link.size) == (SYMLINK, b"f", 0)
    root = seen[b""]
    assert isinstance(root, Found)
    assert root.kind == FOLDER


def test_links_are_themselves_broken_or_not(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").touch()
    for name, target in (("broken", "nowhere"), ("loop", "loop"), ("dir", "d"), ("up", ".."), ("abs", "/etc"), ("odd", b"\xff\n")):
        os.symlink(target, tmp_path / name if isinstance(target, str) else os.fsencode(tmp_path / name))
    seen = scan(tmp_path)
    assert list(seen) == truth(tmp_path)
    targets = {path: here.target for path, here in seen.items() if isinstance(here, Found) and here.kind == SYMLINK}
    assert targets == {b"broken": b"nowhere", b"loop": b"loop", b"dir": b"d", b"up": b"..", b"abs": b"/etc", b"odd": b"\xff\n"}


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x").write_text("x")
    (tmp_path / "link").symlink_to("real")
    site = FolderSite(f"{tmp_path}/link/")
    assert [here.path for here in site.scan()] == [b"", b"x"]
    site.open(b"x").stream.close()


def test_hard_links_name_their_first_path(tmp_path: Path) -> None:
    (tmp_path / "b").write_text("same")
    for name in ("a", "c/d", "z"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).hardlink_to(tmp_path / "b")
    (tmp_path / "outside").write_text("one of two is elsewhere")
    seen = scan(tmp_path)
    links = {path: here.link for path, here in seen.items() if isinstance(here, Found) and here.kind == FILE}
    assert links == {b"a": b"", b"b": b"a", b"c/d": b"a", b"z": b"a", b"outside": b""}


@pytest.mark.parametrize("limit", [0, 3, 1000])
def test_hard_link_groups_on_disk_are_those_in_memory(limit: int) -> None:
    links = HardLinks(limit)
    members = [(group, member) for member in range(3) for group in range(20)]
    firsts = [links.first(1, group + (1 << 63), 3, b"%d.%d" % (group, member)) for group, member in members]
    assert firsts == [b"" if member == 0 else b"%d.0" % group for group, member in members]
    links.close()


def test_special_files_are_reported_and_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
    (tmp_path / "x").touch()
    seen = scan(tmp_path)
    assert isinstance(seen[b"x"], Found)
    assert seen[b"fifo"] == Unread(b"fifo", "special", "it is a fifo")
    assert seen[b"socket"] == Unread(b"socket", "special", "it is a socket")


def test_empty_folders_are_there(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    assert list(scan(tmp_path)) == [b"", b"a/", b"a/b/"]


@pytest.mark.usefixtures("deep_cleanup")
def test_three_thousand_levels(tmp_path: Path) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    for _ in range(3000):
        for name in ("dd", "z"):
            os.mkdir(name, dir_fd=fd)
        os.close(os.open("a", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        inner = os.open("dd", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    with open(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=fd), "w") as file:
        file.write("here")
    os.close(fd)
    before = len(os.listdir("/proc/self/fd"))
    last, count, held = b"", 0, 0
    for here in FolderSite(str(root)).scan():
        assert isinstance(here, Found)
        assert here.path > last or not here.path
        last, count = here.path, count + 1
        if not count % 500:
            held = max(held, len(os.listdir("/proc/self/fd")) - before)
    assert count == 1 + 3000 * 3 + 1
    assert held < 80
    with FolderSite(str(root)).open(b"dd/" * 3000 + b"end").stream as stream:
        assert stream.read(10) == b"here"


def test_a_folder_of_120_000_names(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for n in range(120_000):
        os.close(os.open(f"{n * 7919 % 120_000}", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
    os.mkdir("5000-", dir_fd=fd)
    os.close(fd)
    seen = [here.path for here in FolderSite(str(tmp_path)).scan()]
    assert seen == [b"", *sorted([*(b"%d" % n for n in range(120_000)), b"5000-/"])]


def test_without_rights_folders_are_incomplete_and_files_unread() -> None:
    script = """
        import grp, os, pwd, sys
        from mirror.site import Unread
        from mirror.site.files import FolderSite
        if not os.getuid():  # root may read everything
            os.setgroups([]), os.setgid(65534), os.setuid(65534)
        site = FolderSite(sys.argv[1])
        for here in site.scan():
            print(here.path.decode(), *(here[1:] if isinstance(here, Unread) else [here.kind]), sep="|")
        try:
            site.open(b"open/x")
        except PermissionError as error:
            print(error.strerror)
        try:
            FolderSite(sys.argv[1] + "/closed").check()
        except Exception as error:
            print(type(error).__name__, error.exit_code, error.hint)
    """
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        modes = {"closed": 0o000, "listed-only": 0o444, "open": 0o755}
        for name in modes:
            (root / name).mkdir()
            (root / name / "x").touch(0o000)
        for name, mode in modes.items():
            (root / name).chmod(mode)
        try:
            command = [sys.executable, "-c", textwrap.dedent(script), folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        finally:
            for name in modes:
                (root / name).chmod(0o755)
    assert done.stdout.splitlines() == [
        "|folder",
        "closed/|folder",
        "closed/|incomplete|permission denied",
        "listed-only/|folder",
        # Not even whether it has a .mirrorignore can be seen.
        "listed-only/|incomplete|its .mirrorignore cannot be read: permission denied",
        "open/|folder",
        "open/x|file",
        "Permission denied",
        "SourceError 3 run as a user who may read it",
    ]


def test_what_vanishes_between_listing_and_look_is_said(tmp_path: Path) -> None:
    for name in ("a", "b", "c/x", "d/x", "e"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    scanning = FolderSite(str(tmp_path)).scan()
    assert next(scanning).path == b""  # the root is listed now
    (tmp_path / "a").unlink()
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    (tmp_path / "c" / "x").unlink()
    (tmp_path / "c").rmdir()
    (tmp_path / "d").rename(tmp_path / "gone")
    (tmp_path / "d").symlink_to("/etc")
    assert [(here.path, getattr(here, "kind", "")) for here in scanning] == [
        (b"a", "vanished"), (b"b", "vanished"), (b"c/", "vanished"), (b"d/", "vanished"), (b"e", "file")]  # fmt: skip


@pytest.mark.usefixtures("deep_cleanup")
def test_a_folder_that_is_moved_while_we_are_deep_in_it(tmp_path: Path) -> None:
    root = tmp_path / "root"
    deep = root.joinpath(*["d"] * 100)
    deep.mkdir(parents=True)
    (deep / "x").touch()
    (root / "d" / "z").touch()
    (root / "d" / "d" / "z").touch()
    scanning = FolderSite(str(root)).scan()
    seen = [next(scanning) for _ in range(101)]
    # The second level, given back long ago, moves elsewhere with us below it: its parent is not found through `..` any more.
    (root / "d" / "d").rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(root / "moved")
    seen.extend(scanning)
    paths = [here.path for here in seen]
    assert paths[1:] == sorted(set(paths[1:]))
    assert isinstance(seen[paths.index(b"d/z")], Found)


@pytest.mark.parametrize(
    ("make", "why"), [("nothing", "it does not exist"), ("file", "it is not a folder")]
)  # an unreadable one: test_without_rights…
def test_a_root_that_cannot_be_one(tmp_path: Path, make: str, why: str) -> None:
    if make == "file":
        (tmp_path / "x").touch()
    site = FolderSite(str(tmp_path / "x"))
    for ask in (site.check, lambda: next(iter(site.scan()))):
        with pytest.raises(SourceError, match=why) as caught:
            ask()
        assert str(tmp_path / "x") in str(caught.value)
        assert caught.value.hint


# ---------------------------------------------------------------------------------------------------------------- opening


def test_a_link_that_was_swapped_in_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x").write_text("secret")
    root = tmp_path / "site"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "b" / "x").write_text("ours")
    site = FolderSite(str(root))
    site.open(b"a/b/x").stream.close()
    (root / "a" / "b" / "x").unlink()
    (root / "a" / "b" / "x").symlink_to(tmp_path / "secret" / "x")
    with pytest.raises(OSError, match="link") as caught:
        site.open(b"a/b/x")
    assert caught.value.errno == errno.ELOOP
    (root / "a").rename(tmp_path / "aside")
    (root / "a").symlink_to(tmp_path)
    (tmp_path / "b").symlink_to("secret")
    with pytest.raises(NotFound):
        FolderSite(str(root)).open(b"a/b/x")


def test_a_fifo_that_was_swapped_in_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x")
    site = FolderSite(str(tmp_path))
    failed: list[BaseException] = []

    def attempt() -> None:
        try:
            site.open(b"x")
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=attempt, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert "regular" in str(failed[0])


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(OSError, match="regular"):
        FolderSite(str(tmp_path)).open(b"d")


def test_a_folder_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    site = FolderSite(str(tmp_path))
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "x").write_text("old")
    site.open(b"d/x").stream.close()
    (tmp_path / "d").rename(tmp_path / "e")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "y").write_text("new")
    with site.open(b"d/y").stream as stream:
        assert stream.read(10) == b"new"


def test_few_folders_are_held_open(tmp_path: Path) -> None:
    for n in range(100):
        (tmp_path / f"{n}" / "in").mkdir(parents=True)
        (tmp_path / f"{n}" / "in" / "x").touch()
    site = FolderSite(str(tmp_path))
    before = len(os.listdir("/proc/self/fd"))
    for n in range(100):
        site.open(b"%d/in/x" % n).stream.close()
    assert len(os.listdir("/proc/self/fd")) - before <= 17
    del site
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_change_while_reading_is_told(tmp_path: Path) -> None:
    site = FolderSite(str(tmp_path))
    (tmp_path / "x").write_bytes(b"12345")
    content = site.open(b"x")
    with content.stream:
        assert site.recheck(b"x", content) == ""
        with open(tmp_path / "x", "r+b") as file:
            file.write(b"54321")
        os.utime(tmp_path / "x", ns=(1, content.mtime or 0))
        assert "changed" in site.recheck(b"x", content)
        with open(tmp_path / "x", "ab") as file:
            file.write(b"6")
        assert "size changed from 5 to 6" in site.recheck(b"x", content)


def test_extended_attributes_only_when_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "l").symlink_to("x")
    wanted: dict[bytes, dict[bytes, bytes]] = {b"x": {}, b"d/": {}, b"l": {}}
    with contextlib.suppress(OSError):  # a file system without them, as some temporary folders are
        os.setxattr(tmp_path / "x", "user.colour", b"\x00red")
        os.setxattr(tmp_path / "d", "user.kind", b"folder")
        wanted |= {b"x": {b"user.colour": b"\x00red"}, b"d/": {b"user.kind": b"folder"}}
    seen = {here.path: here for here in FolderSite(str(tmp_path), xattrs=True).scan()}
    for path, attributes in wanted.items():
        found = seen[path]
        assert isinstance(found, Found)
        assert {key: value for key, value in (found.xattrs or {}).items() if key.startswith(b"user.")} == attributes
    assert scan(tmp_path)[b"x"].xattrs is None  # type: ignore[union-attr]


def test_a_scan_that_is_dropped_gives_everything_back(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    gc.collect()  # or files that an earlier test left to the collector are closed in between, and the count is wrong
    before = len(os.listdir("/proc/self/fd"))
    scanning = FolderSite(str(tmp_path)).scan()
    next(scanning), next(scanning)
    assert len(os.listdir("/proc/self/fd")) > before
    scanning.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) == before
