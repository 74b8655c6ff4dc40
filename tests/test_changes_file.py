"""--changes-file: what changed, for the next tool: complete or not there, one line a path, empty when nothing changed."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import stat
from pathlib import Path

import pytest
from drive import cli, process
from mirrors import settle, write

from mirror.cli.changes import ChangesFile
from mirror.errors import UsageError
from mirror.events import Change, Job, PhaseBegan


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a site that has odd names, and a target with its first snapshot."""
    monkeypatch.chdir(tmp_path)
    for name in ("index.html", "about.html", "old.html", "img/one.png"):
        write(tmp_path / "site" / name, f"this is {name}\n".encode() * 20)
    write(tmp_path / "site" / "new\nline\there", b"odd")
    (tmp_path / "site" / os.fsdecode(b"caf\xe9")).write_bytes(b"odd, too")
    settle(tmp_path / "site")
    assert cli("sync", "site", "target", "--layout", "packed").code == 0
    return tmp_path


def edit(here: Path) -> None:
    """A new file, another content, a deletion, a move."""
    write(here / "site/news.html", b"news")
    write(here / "site/index.html", b"another")
    (here / "site/about.html").unlink()
    (here / "site/old.html").rename(here / "site/moved.html")
    settle(here / "site")


def lines(path: Path) -> list[str]:
    """The list without the folders whose times changed: what they are called is another test's business."""
    text = path.read_bytes().decode()
    assert text == "" or text.endswith("\n")
    return sorted(line for line in text.splitlines() if not line.startswith("."))


def test_a_list_in_one_of_the_ends_is_refused(here: Path) -> None:
    """In the source it would be mirrored, its draft too; in a tree people would see it, or it would lie in the store."""
    (here / "link").symlink_to("site")
    before = os.listdir(here / "site"), os.listdir(here / "target")
    for place in ("site/list", "link/list", "site/img/list", "target/list", "target/log/list"):
        for more in ([], ["-n"]):
            done = cli("sync", "site", "target", "--changes-file", place, *more)
            assert (done.code, "cannot write the list of changes" in done.err, "outside" in done.err) == (2, True, True), done
    assert (os.listdir(here / "site"), os.listdir(here / "target")) == before


EDITED = ["*\tindex.html", "+\tnews.html", "-\tabout.html", "-\told.html", ">\tmoved.html"]


def test_a_list_of_what_changed(here: Path) -> None:
    edit(here)
    done = cli("sync", "site", "target", "--changes-file", "list", "-n")
    assert (done.code, lines(here / "list")) == (0, EDITED)
    (here / "list").unlink()
    assert cli("sync", "site", "target", "--changes-file", "list", "-q").err == ""
    assert lines(here / "list") == EDITED
    assert cli("sync", "site", "target", "--changes-file", "list").code == 0
    assert (here / "list").read_bytes() == b""
    assert sorted(os.listdir(here)) == ["list", "site", "target"]


def test_names_are_one_line_each(here: Path) -> None:
    assert cli("sync", "site", "other", "--layout", "packed", "--changes-file", "list").code == 0
    text = (here / "list").read_bytes()
    assert b"+\tnew\\nline\\there\n" in text
    assert b"+\tcaf\\xe9\n" in text
    assert text.count(b"\n") == len(cli("ls", "other").out.splitlines())


def test_of_a_restore(here: Path) -> None:
    assert cli("restore", "target", "out", "--changes-file", "list", "-n").code == 0
    planned = (here / "list").read_bytes()
    assert cli("restore", "target", "out", "--changes-file", "list").code == 0
    assert sorted((here / "list").read_bytes().splitlines()) == sorted(planned.splitlines())
    assert b"+\timg/one.png\n" in planned
    write(here / "out/index.html", b"spoilt")
    write(here / "out/extra.html", b"extra")
    assert cli("restore", "target", "out", "--in-place", "--delete", "--changes-file", "list").code == 0
    assert {"*\tindex.html", "-\textra.html"} <= set(lines(here / "list"))
    (here / "out/img").chmod(0o700)
    assert cli("restore", "target", "out", "--in-place", "--changes-file", "list").code == 0
    assert b".\timg/\n" in (here / "list").read_bytes()
    assert cli("restore", "target", "out", "--in-place", "--changes-file", "list").code == 0
    assert (here / "list").read_bytes() == b""


def test_a_run_that_fails_leaves_the_list_before(here: Path) -> None:
    (here / "list").write_bytes(b"*\tbefore.html\n")
    (here / "site/index.html").unlink()
    for given in (
        ("sync", "missing", "target"),
        ("sync", "site", "target", "--max-delete", "0"),
        ("sync", "site", "target", "--max-delete", "few"),
        ("restore", "target", "site"),
    ):
        assert cli(*given, "--changes-file", "list").code in (2, 3, 25)
        assert (here / "list").read_bytes() == b"*\tbefore.html\n"
    assert sorted(os.listdir(here)) == ["list", "site", "target"]


def test_a_reader_of_the_plan_that_goes_away_leaves_no_draft(here: Path) -> None:
    for number in range(3000):
        write(here / f"many/a page with a rather long name, number {number:05}.html", b"")
    with process("sync", "many", "other", "--layout", "packed", "-n", "--changes-file", "list") as run:
        assert run.stdout
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(60) == 0
    assert sorted(os.listdir(here)) == ["many", "site", "target"]


@pytest.mark.parametrize(
    ("name", "why"),
    [("none/list", "No such file or directory"), ("site", "it is no regular file"), ("/dev/null", "it is no regular file"),
     ("pipe", "it is no regular file"), ("site/index.html/x", "Not a directory")],
)  # fmt: skip
def test_where_no_list_can_be_is_a_usage_error(name: str, why: str, here: Path) -> None:
    os.mkfifo(here / "pipe")
    write(here / "site/news.html", b"news")
    done = cli("sync", "site", "target", "--changes-file", name)
    assert (done.code, done.error) == (2, f"cannot write the list of changes {name}: {why}; name another with --changes-file")
    assert len(os.listdir("target/log")) == 1, "nothing was done"
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_link_is_followed_and_stays(here: Path) -> None:
    (here / "lists").mkdir()
    (here / "list").symlink_to("lists/real")
    edit(here)
    assert cli("sync", "site", "target", "--changes-file", "list").code == 0
    assert (here / "list").is_symlink()
    assert lines(here / "lists/real") == EDITED
    assert stat.S_IMODE((here / "lists/real").stat().st_mode) == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_list_that_cannot_be_written_is_told(here: Path) -> None:
    """The sync itself is done: a snapshot, and exit 1."""
    edit(here)
    (here / "list").symlink_to("lists/real")
    (here / "lists").mkdir()
    lock = os.open("target", os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as another run would hold it
    with process("sync", "site", "target", "--changes-file", "list", "--json", "--wait") as run:
        assert run.stdout
        assert json.loads(run.stdout.readline())["event"] == "started"
        (here / "lists").rename(here / "elsewhere")
        os.close(lock)
        out, err = run.communicate(timeout=60)
    assert run.returncode == 1, err
    assert "mirror: the list of changes is not written: No such file or directory\n" in err
    summary = json.loads(out.splitlines()[-1])
    assert (summary["exit_code"], summary["snapshot"]) == (1, 2)


# -- the listener itself


def test_attempts_that_lost_a_race_do_not_count(here: Path) -> None:
    changes = ChangesFile("list")
    job = Job("sync", [changes])
    for path in ("a" * 400_000, "b"):
        job.say(PhaseBegan("scan"))
        job.say(Change("+", path))
        job.say(PhaseBegan("transfer"))
        job.say(Change("=", "same"))
        job.say(Change(".", "described/"))
    assert changes.finish() == ""
    assert (here / "list").read_bytes() == b"+\tb\n.\tdescribed/\n"
    changes.drop()
    assert (here / "list").exists()


def test_a_disk_that_fills_up_is_told_at_the_end(here: Path) -> None:
    (here / "list").write_bytes(b"before")
    changes = ChangesFile("list")
    job = Job("sync", [changes])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))
    try:
        for _ in range(40):
            job.say(Change("+", "x" * 65_536))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert changes.finish() == "File too large"
    assert (here / "list").read_bytes() == b"before"
    assert sorted(os.listdir(here)) == ["list", "site", "target"]


def test_it_is_no_list_until_the_end(here: Path) -> None:
    changes = ChangesFile("list")
    Job("sync", [changes]).say(Change("+", "a"))
    assert not (here / "list").exists()
    changes.drop()
    changes.drop()
    assert sorted(os.listdir(here)) == ["site", "target"]
    with pytest.raises(UsageError):
        ChangesFile("none/list")
