"""The store in a folder: order of durability, refusing filesystems, full disks, planted links, dead writers."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.errors import AuthError, DamageError, MirrorError, NotFound, TargetMissingError, TemporaryError, UsageError
from mirror.store.fs import TEMPORARY, FolderStore, Publisher, by_link, by_rename

KEY = "packs/ab/abcdef.0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "store").mkdir()
    return tmp_path / "store"


def temporaries(root: Path) -> list[str]:
    return sorted(os.listdir(root / TEMPORARY))


def refuse(number: int) -> Publisher:
    def publisher(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return publisher


# Durability


def recorded(root: Path) -> tuple[FolderStore, list[str]]:
    """A store that notes what it syncs and links, in order; paths relative to the root's parent."""
    steps: list[str] = []

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}")).relative_to(root.parent)
        steps.append(f"sync {'TEMP' if path.parent.name == TEMPORARY else path}")
        os.fsync(descriptor)

    def link(temporary: int, source: str, folder: int, name: str) -> None:
        by_link(temporary, source, folder, name)
        steps.append(f"link {name}")

    return FolderStore(str(root), publishers=(link,), fsync=fsync), steps


def test_content_is_synced_before_its_name_and_its_name_before_the_return(root: Path) -> None:
    store, steps = recorded(root)
    store.create(KEY, b"x")
    at = {step: number for number, step in enumerate(steps)}
    assert at["sync TEMP"] < at["link abcdef.0"] < at["sync store/packs/ab"]
    assert steps[-1] == "sync store/packs/ab"
    # New folders are on disk by name before anything in them counts.
    assert {"sync .", "sync store", "sync store/packs"} <= set(steps)


def test_a_new_root_is_on_disk_by_name(tmp_path: Path) -> None:
    store, steps = recorded(tmp_path / "new")
    store.create("mirror.json", b"x")
    assert steps[0] == "sync ."
    assert steps[-1] == "sync new"


def test_known_folders_are_not_synced_again(root: Path) -> None:
    store, steps = recorded(root)
    store.create(KEY, b"x")
    steps.clear()
    store.create("packs/ab/other.0", b"x")
    assert steps == ["sync TEMP", "link other.0", "sync store/packs/ab"]


def test_an_object_that_was_there_is_durable_too(root: Path) -> None:
    FolderStore(str(root)).create(KEY, b"x")
    store, steps = recorded(root)
    assert store.create(KEY, b"y") is False
    assert steps == ["sync .", "sync store", "sync store/packs", "sync store/packs/ab"]


def test_a_folder_that_cannot_be_synced_is_no_failure(root: Path) -> None:
    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(errno.EINVAL, "")

    assert FolderStore(str(root), fsync=fsync).create(KEY, b"x") is True


# Filesystems that refuse


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def test_without_hard_links_a_rename_that_replaces_nothing(root: Path, number: int) -> None:
    store = FolderStore(str(root), publishers=(refuse(number), by_rename))
    with ThreadPoolExecutor(32) as pool:
        made = list(pool.map(lambda n: store.create(KEY, b"%d" % n), range(32)))
    assert made.count(True) == 1
    assert (root / KEY).read_bytes() == b"%d" % made.index(True)
    assert store.create(KEY, b"again") is False
    assert temporaries(root) == []


def test_the_rename_alone_never_replaces(root: Path) -> None:
    folder = os.open(root, os.O_RDONLY)
    try:
        (root / "new").write_bytes(b"new")
        (root / "old").write_bytes(b"old")
        with pytest.raises(FileExistsError):
            by_rename(folder, "new", folder, "old")
        by_rename(folder, "new", folder, "name")
    finally:
        os.close(folder)
    assert {p.name: p.read_bytes() for p in root.iterdir()} == {"old": b"old", "name": b"new"}


def test_where_neither_exists_it_refuses(root: Path) -> None:
    store = FolderStore(str(root), publishers=(refuse(errno.EPERM), refuse(errno.EINVAL)))
    with pytest.raises(UsageError, match="could overwrite another") as caught:
        store.create(KEY, b"x")
    assert f"{root}/{KEY}" in str(caught.value)
    assert not (root / KEY).exists()
    assert temporaries(root) == []


def test_a_folder_where_nothing_may_be_renamed_is_a_matter_of_rights(root: Path) -> None:
    with pytest.raises(AuthError):
        FolderStore(str(root), publishers=(refuse(errno.EPERM), refuse(errno.EPERM))).create(KEY, b"x")


# Full disks and missing rights


@pytest.fixture
def full(root: Path) -> Iterator[FolderStore]:
    """A store on a disk of one megabyte. Where this user may not mount one, a store whose fsync says what a full disk says
    (which is how network filesystems and quotas report it)."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", root], capture_output=True, check=False)
    if mounted.returncode == 0:
        try:
            yield FolderStore(str(root))
        finally:
            subprocess.run(["umount", root], check=True)
    else:
        yield FolderStore(str(root), fsync=full_above(1 << 20))


def full_above(limit: int, number: int = errno.ENOSPC) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        if os.fstat(descriptor).st_size >= limit:
            raise OSError(number, os.strerror(number))

    return fsync


def test_a_full_disk(full: FolderStore) -> None:
    assert full.create("log/1", b"small")
    with pytest.raises(TemporaryError, match=rf"cannot write {full.root}/{KEY}: the disk is full; make room there") as caught:
        full.create(KEY, bytes(2 << 20))
    assert caught.value.kind == "disk-full"
    with pytest.raises(TemporaryError, match="the disk is full"):
        full.put_hint("latest.json", bytes(2 << 20))
    # Nothing half is left, what was there is there, and there is room again for small things.
    assert [key for key, _ in full.list("")] == ["log/1"]
    assert temporaries(Path(full.root)) == []
    assert full.get("log/1", 100) == b"small"
    assert full.create("log/2", b"small")


def test_a_quota_that_is_used_up(root: Path) -> None:
    with pytest.raises(TemporaryError, match="the disk quota is used up"):
        FolderStore(str(root), fsync=full_above(1 << 20, errno.EDQUOT)).create(KEY, bytes(1 << 20))
    assert temporaries(root) == []


def test_missing_rights(root: Path) -> None:
    store = FolderStore(str(root))
    store.create(KEY, b"x")
    root.chmod(0o000)
    was_root = os.geteuid() == 0
    if was_root:  # root may do everything: be nobody for a moment
        os.seteuid(65534)
    try:
        for act in (
            lambda: store.create("log/1", b"x"),
            lambda: store.get(KEY, 10),
            lambda: store.size(KEY),
            lambda: list(store.list("")),
            lambda: store.delete([KEY]),
        ):
            with pytest.raises(AuthError, match="permission denied; run as a user who may") as caught:
                act()
            assert str(root) in str(caught.value)
    finally:
        if was_root:
            os.seteuid(0)
        root.chmod(0o700)
    assert store.get(KEY, 10) == b"x"


# A root that is not there


@pytest.mark.parametrize("what", ["missing", "missing/below", "file"])
def test_reading_a_root_that_is_not_there(tmp_path: Path, what: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(str(tmp_path / what))
    for act in (
        lambda: store.get(KEY, 1),
        lambda: store.get_ranges(KEY, [(0, 1)]),
        lambda: store.size(KEY),
        lambda: list(store.list("")),
        lambda: store.delete([KEY]),
        store.sweep,
    ):
        with pytest.raises(TargetMissingError) as caught:
            act()
        assert str(tmp_path / what) in str(caught.value)


def test_creating_makes_the_root_but_not_what_is_above(tmp_path: Path) -> None:
    assert FolderStore(str(tmp_path / "new")).create(KEY, b"x")
    with pytest.raises(TargetMissingError, match=f"there is no folder {tmp_path}/not-mounted to make it in; is it mounted"):
        FolderStore(str(tmp_path / "not-mounted" / "new")).create(KEY, b"x")
    assert not (tmp_path / "not-mounted").exists()


def test_a_root_that_goes_away_is_not_an_empty_one(root: Path) -> None:
    store = FolderStore(str(root))
    store.create(KEY, b"x")
    shutil.rmtree(root)
    for act in (lambda: store.get(KEY, 10), lambda: store.create(KEY, b"x"), lambda: store.put_hint("latest.json", b"x")):
        with pytest.raises(TargetMissingError, match="there is no such folder; is it mounted"):
            act()
    assert not root.exists()


def test_free_bytes_of_a_root_that_is_not_made_yet(tmp_path: Path) -> None:
    room = FolderStore(str(tmp_path / "new")).free_bytes()
    assert room is not None
    assert 0 < room[0] <= room[1]


# What others may have put there


def test_a_planted_link_to_a_folder_leads_nowhere(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (outside / "ab").mkdir(parents=True)
    (outside / "ab" / "abcdef.0").write_bytes(b"secret")
    (root / "packs").symlink_to(outside)
    store = FolderStore(str(root))
    for act in (
        lambda: store.get(KEY, 100),
        lambda: store.get_ranges(KEY, [(0, 1)]),
        lambda: store.size(KEY),
        lambda: store.create("packs/ab/new.0", b"x"),
        lambda: store.put_hint("packs/ab/abcdef.0", b"x"),
        lambda: store.delete([KEY]),
        lambda: list(store.list("packs/")),
    ):
        with pytest.raises(DamageError) as caught:
            act()
        assert f"{root}/packs" in str(caught.value)
    assert list(store.list("")) == []
    assert {p.name: p.read_bytes() for p in (outside / "ab").iterdir()} == {"abcdef.0": b"secret"}


def test_a_planted_link_to_a_file_leads_nowhere(root: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"secret")
    (root / "mirror.json").symlink_to(tmp_path / "outside")
    (root / "broken").symlink_to(tmp_path / "nowhere")
    store = FolderStore(str(root))
    for key in ("mirror.json", "broken"):
        for act in (lambda key=key: store.get(key, 100), lambda key=key: store.size(key)):
            with pytest.raises(DamageError) as caught:
                act()
            assert f"{root}/{key}" in str(caught.value)
        assert store.create(key, b"x") is False
    assert list(store.list("")) == []
    store.put_hint("mirror.json", b"new")
    assert (tmp_path / "outside").read_bytes() == b"secret"
    assert not (tmp_path / "nowhere").exists()
    assert store.get("mirror.json", 3) == b"new"


def test_a_planted_fifo_does_not_hang_us(root: Path) -> None:
    os.mkfifo(root / "mirror.json")
    store = FolderStore(str(root))
    for act in (lambda: store.get("mirror.json", 1), lambda: store.size("mirror.json")):
        with pytest.raises(DamageError, match="it is not a regular file"):
            act()
    assert list(store.list("")) == []


def test_folders_and_files_in_each_others_place(root: Path) -> None:
    (root / "mirror.json").mkdir()
    (root / "log").write_bytes(b"")
    store = FolderStore(str(root))
    for act in (lambda: store.get("mirror.json", 1), lambda: store.get("log/1", 1), lambda: store.create("log/1", b"x")):
        with pytest.raises(DamageError):
            act()


@pytest.mark.parametrize(
    "key", ["", "/", "/abs", "a//b", "a/", "../a", "a/../b", "a/./b", ".", "..", "a\0b", f"{TEMPORARY}/x", TEMPORARY]
)
def test_what_is_no_key_is_refused(root: Path, key: str) -> None:
    store = FolderStore(str(root))
    for act in (lambda: store.create(key, b"x"), lambda: store.get(key, 1), lambda: store.size(key), lambda: store.delete([key])):
        with pytest.raises(UsageError):
            act()
    assert list(root.rglob("*")) == []


def test_a_root_may_be_a_link_and_may_be_relative(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "link").symlink_to(root)
    assert FolderStore(str(tmp_path / "link")).create(KEY, b"x")
    monkeypatch.chdir(tmp_path)
    store = FolderStore("store")
    monkeypatch.chdir("/")
    assert store.url == str(root)
    assert store.get(KEY, 1) == b"x"


def test_a_root_whose_name_is_not_utf8(tmp_path: Path) -> None:
    store = FolderStore(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    assert store.create(KEY, b"x")
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9"]


# Dead writers

WRITER = """
import os, sys, time
from mirror.store.fs import FolderStore
def fsync(descriptor):
    if not os.path.isdir(f"/proc/self/fd/{descriptor}"):
        print("writing", flush=True)
        time.sleep(600)
FolderStore(sys.argv[1], fsync=fsync).create("packs/ab/abcdef.0", bytes(100000))
"""


@pytest.fixture
def writer(root: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process in the middle of a create."""
    command = [sys.executable, "-c", WRITER, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def test_a_killed_writer_leaves_nothing_that_sweep_does_not_remove(root: Path, writer: subprocess.Popen[str]) -> None:
    store = FolderStore(str(root))
    assert list(store.list("")) == []
    assert store.sweep() == 0  # it is alive
    assert len(temporaries(root)) == 1
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    with pytest.raises(NotFound):
        store.get(KEY, 1_000_000)
    assert store.sweep() == 1
    assert temporaries(root) == []
    assert store.create(KEY, b"x") is True


def test_sweep_leaves_other_hosts_alone_for_a_day(root: Path) -> None:
    store = FolderStore(str(root))
    store.create(KEY, b"x")
    for name in ("00000000-1-aa", "strange"):
        (root / TEMPORARY / name).write_bytes(b"")
    assert store.sweep() == 0
    yesterday = time.time() - 25 * 3600
    os.utime(root / TEMPORARY / "00000000-1-aa", (yesterday, yesterday))
    assert store.sweep() == 1
    assert temporaries(root) == ["strange"]


def test_sweep_of_a_store_without_temporary_files(root: Path) -> None:
    assert FolderStore(str(root)).sweep() == 0


def test_nothing_stays_open(root: Path) -> None:
    store = FolderStore(str(root))
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        store.create(f"packs/{number:02x}/x", b"x")
        store.create(f"packs/{number:02x}/x", b"x")
        store.get_ranges(f"packs/{number:02x}/x", [(0, 1)])
        for act in (lambda: store.get("packs/00/none", 1), lambda: store.get("packs/00/x", 0), lambda: store.get("no/folder", 1)):
            with pytest.raises((NotFound, MirrorError)):
                act()
        next(store.list(""))
    assert len(os.listdir("/proc/self/fd")) == before
