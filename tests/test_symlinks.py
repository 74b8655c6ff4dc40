"""Links of the source: kept, followed, or skipped. What is followed never lies outside the site, also when links are swapped while
they are looked at."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
import zipfile
from pathlib import Path

import pytest
from drive import cli, same, truth
from mirrors import settle, write

import mirror as api
from mirror.errors import NotFound
from mirror.site import FILE, FOLDER, SYMLINK, Filter, Found, Unread
from mirror.site.files import FolderSite
from mirror.site.filters import Matcher
from mirror.site.follow import Astray, judged, reach, spellings
from mirror.site.walk import Walk

OUT, ROUND, NOWHERE = "it leads out of the site", "it leads round in a circle", "it leads nowhere"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A site with a link of every kind; beside it, a secret."""
    root = tmp_path / "site"
    write(tmp_path / "secret" / "key", b"secret")
    write(tmp_path / "site2" / "key", b"secret")
    write(root / "index.html", b"index")
    write(root / "css" / "a.css", b"style")
    write(root / "css" / "deep" / "b.css", b"deep")
    write(root / "z", b"last")
    links = {
        "current.html": "index.html",
        "css/up": "../index.html",
        "styles": "css",
        "styles.css": "styles/a.css",  # through another link
        "css/absolute": str(root / "z"),
        "chain": "current.html",
        "a-folder": "./css//deep/.",
        "css/deep/more": "../../css-2",
        "css-2": "css-3",
        "broken": "nothing/here",
        "out": "../secret",
        "out-file": "../secret/key",
        "out-absolute": str(tmp_path / "secret" / "key"),
        "near": str(tmp_path / "site2" / "key"),
        "out-and-back": "../site/index.html",
        "loop": "loop",
        "ping": "pong",
        "pong": "ping",
        "css/top": "..",
        "root": ".",
        "through": "index.html/x",
    }
    write(root / "css-3" / "c.css", b"three")
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "fifo")
    (root / "to-fifo").symlink_to("fifo")
    settle(root)
    return root


def scan(root: Path, symlinks: str, *rules: tuple[str, str]) -> tuple[dict[str, Found], dict[str, Unread]]:
    seen = list(FolderSite(str(root), symlinks=symlinks, filter=Filter(rules)).scan())
    paths = [here.path for here in seen if not isinstance(here, Unread)]
    assert paths == sorted(set(paths)), "strictly ascending"
    found = {os.fsdecode(here.path): here for here in seen if isinstance(here, Found)}
    return found, {os.fsdecode(here.path): here for here in seen if isinstance(here, Unread)}


def test_what_stays_in_the_site_is_followed(site: Path) -> None:
    found, _ = scan(site, "follow")
    assert not [path for path, here in found.items() if here.kind == SYMLINK]
    kinds = {path: here.kind for path, here in found.items()}
    expected = {
        "current.html", "css/up", "styles/", "styles/a.css", "styles/deep/b.css", "styles.css", "css/absolute", "chain",
        "a-folder/", "a-folder/b.css", "css/deep/more/", "css/deep/more/c.css", "css-2/c.css", "styles/deep/more/c.css",
    }  # fmt: skip
    assert expected <= kinds.keys()
    assert all(kinds[path] == (FOLDER if path.endswith("/") else FILE) for path in expected)
    place = FolderSite(str(site), symlinks="follow")
    for path, here in found.items():
        if here.kind == FILE:
            there = site / path
            with place.open(os.fsencode(path)).stream as stream:
                assert stream.read(100) == there.read_bytes()
            seen = there.stat()
            assert (here.size, here.mtime, here.validator, here.link) == (
                seen.st_size, seen.st_mtime_ns, (seen.st_ino, seen.st_ctime_ns), b"",
            )  # fmt: skip


def test_what_cannot_be_followed_is_said_and_left_out(site: Path) -> None:
    found, unread = scan(site, "follow")
    circle = f"{ROUND}, to a folder that it is in"
    assert {path: here.why for path, here in unread.items() if here.kind == "link" and not path.startswith(("styles/", "a-"))} == {
        "broken": NOWHERE, "out": OUT, "out-file": OUT, "out-absolute": OUT, "near": OUT, "out-and-back": OUT, "loop": ROUND,
        "ping": ROUND, "pong": ROUND, "css/top/": circle, "root/": circle,
        "through": "it leads through a file as if that were a folder",
    }  # fmt: skip
    assert {path for path, here in unread.items() if here.kind == "special"} == {"fifo", "to-fifo"}
    assert not found.keys() & unread.keys()
    place = FolderSite(str(site), symlinks="follow")
    for path in ("out-file", "out-absolute", "near/key", "out/key", "loop"):
        with pytest.raises(OSError, match="it leads"):
            place.open(path.encode())


def test_nothing_else_is_skipped(site: Path) -> None:
    found, unread = scan(site, "skip")
    kept, _ = scan(site, "keep")
    links = {path for path, here in kept.items() if here.kind == SYMLINK}
    assert {path for path, here in unread.items() if here.kind == "skipped"} == links
    assert found == {path: here for path, here in kept.items() if path not in links}


def test_rules_come_before_links_are_looked_at(site: Path) -> None:
    found, unread = scan(site, "follow", ("exclude", "styles/"), ("exclude", "broken"), ("exclude", "out*"), ("exclude", "near"))
    assert not [path for path in found if path.startswith("styles/")]
    assert "styles.css" in found, "its way leads through what is left out, it is not left out itself"
    assert not {"broken", "out", "out-file", "near"} & unread.keys()


def test_hard_links_met_twice_are_no_group(tmp_path: Path) -> None:
    root = tmp_path / "site"
    write(root / "real" / "one", b"1")
    os.link(root / "real" / "one", root / "real" / "two")
    (root / "again").symlink_to("real")
    (root / "alone").symlink_to("real/one")
    found, _ = scan(root, "follow")
    assert {path: here.link for path, here in found.items() if here.kind == FILE} == {
        "again/one": b"", "again/two": b"", "alone": b"", "real/one": b"", "real/two": b"real/one",
    }  # fmt: skip


def test_the_store_of_a_tree_is_never_followed_into(tmp_path: Path) -> None:
    site, tree = tmp_path / "site", tmp_path / "tree"
    write(site / "index.html", b"index")
    assert cli("sync", site, tree, "--layout", "tree").code == 0
    (tree / "store").symlink_to(".mirror")
    (tree / "record").symlink_to(".mirror/mirror.json")
    (tree / "around").symlink_to("store/log")
    _, unread = scan(tree, "follow", ("exclude", "/.mirror"))
    assert {path: here.why for path, here in unread.items()} == dict.fromkeys(
        ("store", "record", "around"), "it leads into the store of a tree"
    )


def test_as_deep_as_it_goes(tmp_path: Path) -> None:
    """Deeper than folders are held open, behind links at several depths."""
    root = tmp_path / "site"
    deep = root / "d"
    for number in range(150):
        deep = deep / "d"
        if number % 40 == 0:
            write(root / f"shared-{number}" / "file", b"%d" % number)
            deep.mkdir(parents=True)
            (deep / "linked").symlink_to(root / f"shared-{number}")
            write(deep / "z", b"after the link")
    found, unread = scan(root, "follow")
    assert unread == {}
    assert sum(path.endswith("linked/file") for path in found) == 4
    truth_of = {os.path.join(folder, name) for folder, _, names in os.walk(root, followlinks=True) for name in names}
    assert {str(root / path) for path, here in found.items() if here.kind == FILE} == truth_of
    (root / "whole").symlink_to("d")
    found, unread = scan(root, "follow")
    assert unread == {}
    assert sum(path.endswith("linked/file") for path in found) == 8


def test_who_swaps_links_meanwhile_leads_nobody_out(tmp_path: Path) -> None:
    """A stranger turns a folder and links into links out and back, as fast as possible, while the site is scanned and read."""
    root = tmp_path / "site"
    write(tmp_path / "secret" / "key", b"secret")
    write(tmp_path / "secret" / "a.css", b"secret")
    for name in ("key", "a.css"):
        write(root / "real" / name, b"public")
    (root / "link").symlink_to("real")
    (root / "file").symlink_to("link/key")
    stop = threading.Event()

    def swap() -> None:
        chance = random.Random(7)
        turns = {
            "link": ("real", "../secret", str(tmp_path / "secret"), str(root / "real")),
            "file": ("link/key", "../secret/key", "real/key", "link"),
            "real": ("", "../secret"),
        }
        count = 0
        while not stop.is_set():
            count += 1
            name = chance.choice(list(turns))
            target = chance.choice(turns[name])
            draft = root / f".draft{count % 2}"
            if name == "real":
                hidden = tmp_path / "hidden"
                (root / "real").rename(hidden)
                (root / "real").symlink_to("../secret")
                (root / "real").unlink()
                hidden.rename(root / "real")
            else:
                draft.unlink(missing_ok=True)
                draft.symlink_to(target)
                draft.rename(root / name)

    stranger = threading.Thread(target=swap)
    stranger.start()
    read = 0
    try:
        until = time.monotonic() + 4
        while time.monotonic() < until:
            place = FolderSite(str(root), symlinks="follow")
            for here in place.scan():
                if isinstance(here, Found) and here.kind == FILE:
                    try:
                        with place.open(here.path).stream as stream:
                            assert stream.read(100) == b"public", here
                            read += 1
                    except (NotFound, OSError):
                        pass
    finally:
        stop.set()
        stranger.join()
    assert read > 50


def test_a_way_holds_few_descriptors(tmp_path: Path) -> None:
    root = tmp_path / "site"
    folder = root
    for _ in range(300):
        folder = folder / "d"
    write(folder / "f", b"")
    (root / "l").symlink_to("/".join(["d"] * 300 + [".."] * 300 + ["d"] * 300 + ["f"]))
    fd = os.open(root, os.O_RDONLY)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    try:
        assert reach(fd, spellings(str(root)), b"l").path == b"d/" * 300 + b"f"
        with pytest.raises(Astray):
            reach(fd, spellings(str(root)), b"l/..")
        with pytest.raises(FileNotFoundError):
            reach(fd, spellings(str(root)), b"nothing")
        assert not before or len(os.listdir("/proc/self/fd")) == before
    finally:
        os.close(fd)


def test_a_root_that_is_reached_through_a_link(tmp_path: Path) -> None:
    """Absolute links may name the site by either path."""
    root = tmp_path / "real" / "site"
    write(root / "f", b"")
    (tmp_path / "www").symlink_to(root)
    (root / "one").symlink_to(tmp_path / "www" / "f")
    (root / "other").symlink_to(root / "f")
    for place in (root, tmp_path / "www"):
        found, unread = scan(place, "follow")
        wanted = {"one", "other"} if place != root else {"other"}
        assert wanted <= found.keys()
        assert unread.keys() == {"one", "other"} - wanted


def test_extended_attributes_are_those_of_what_is_reached(tmp_path: Path) -> None:
    root = tmp_path / "site"
    write(root / "real" / "f", b"")
    (root / "link").symlink_to("real/f")
    os.setxattr(root / "real" / "f", "user.note", b"here")
    seen = {here.path: here for here in Walk(str(root), Matcher(Filter()), True, "follow").run() if isinstance(here, Found)}
    assert seen[b"link"].xattrs == {b"user.note": b"here"}


# -- from end to end


def followed(site: Path, out: Path) -> Path:
    """The site as it is with its links followed, made by the system's own cp; what cannot be followed is missing."""
    found, _ = scan(site, "follow")
    for path, here in found.items():
        if here.kind == FOLDER:
            (out / path).mkdir(parents=True, exist_ok=True)
        else:
            shutil.copy2(site / path, out / path)
    for path, here in reversed(found.items()):
        if here.kind == FOLDER:
            shutil.copystat(site / path, out / path)
    return out


@pytest.fixture(params=["packed", "tree"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_follow_from_end_to_end(site: Path, tmp_path: Path, layout: str) -> None:
    target = tmp_path / "target"
    done = cli("sync", site, target, "--layout", layout, "--symlinks", "follow")
    assert done.code == 23, done
    assert f"! broken: {NOWHERE}" in done.err
    assert cli("sync", site, target, "--symlinks", "follow").err.count("nothing changed") == 1
    assert cli("diff", site, target, "--symlinks", "follow").out == ""
    assert cli("restore", target, tmp_path / "out").code == 0
    same(tmp_path / "out", followed(site, tmp_path / "truth"))
    assert cli("verify", target).code == 0
    assert cli("verify", target, "--against", site, "--symlinks", "follow").code == 23, "the same problems, and no difference"
    assert cli("verify", target, "--against", site).code == 4
    write(site / "css-3" / "c.css", b"other", 5)
    done = cli("sync", site, target, "--symlinks", "follow", "-v")
    wanted = {"css-2/c.css", "css-3/c.css", "css/deep/more/c.css", "styles/deep/more/c.css", "a-folder/more/c.css"}
    assert {line[2:] for line in done.err.splitlines() if line.startswith("* ")} == wanted


def test_workers_follow_too(site: Path, tmp_path: Path) -> None:
    for number in range(4200):
        write(site / "many" / f"{number}", b"%d" % number)
    (site / "twice").symlink_to("many")
    assert cli("sync", site, tmp_path / "target", "--layout", "packed", "--symlinks", "follow", "--workers", "2").code == 23
    assert cli("restore", tmp_path / "target", tmp_path / "out", "twice").code == 0
    assert len(list((tmp_path / "out" / "twice").iterdir())) == 4200


def test_skip_from_end_to_end(site: Path, tmp_path: Path, layout: str) -> None:
    target = tmp_path / "target"
    assert cli("sync", site, target, "--layout", layout).code == 0
    links = sum(path.is_symlink() for path in site.rglob("*"))
    assert links == 22
    done = cli("sync", site, target, "--symlinks", "skip", "--max-delete", "100")
    assert done.code == 0, done
    assert f"left out by --symlinks skip: {links}" in done.err
    assert "it is a link" not in done.err
    assert f"{links} deleted" in done.err
    quiet = cli("sync", site, target, "--symlinks", "skip", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")
    told = cli("sync", site, target, "--symlinks", "skip", "-v")
    assert told.err.count("it is a link, and links are left out") == links
    assert "nothing changed" in told.err
    assert cli("restore", target, tmp_path / "out").code == 0
    assert truth(tmp_path / "out").keys() == {p for p, t in truth(site).items() if not (site / os.fsdecode(p)).is_symlink()} - {
        b"fifo"
    }
    assert cli("verify", target, "--against", site, "--symlinks", "skip").code == 0


def test_from_kept_to_followed_and_back(site: Path, tmp_path: Path, layout: str) -> None:
    target = tmp_path / "target"
    assert cli("sync", site, target, "--layout", layout).code == 0
    for symlinks, code in (("follow", 23), ("keep", 0), ("skip", 0), ("follow", 23)):
        assert cli("sync", site, target, "--symlinks", symlinks, "--max-delete", "100").code == code
        assert cli("verify", target).code == 0
    assert cli("restore", target, tmp_path / "out").code == 0
    same(tmp_path / "out", followed(site, tmp_path / "truth"))
    assert cli("restore", target, tmp_path / "first", "--at", "1" if layout == "packed" else "2").code == 0
    os.unlink(site / "fifo")
    settle(site)
    same(tmp_path / "first", site)


def test_what_a_link_led_to_is_deleted_when_it_leads_nowhere(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name in ("a", "b", "c", "d"):
        write(site / "real" / name, name.encode())
    (site / "link").symlink_to("real")
    assert cli("sync", site, tmp_path / "target", "--layout", "packed", "--symlinks", "follow").code == 0
    (site / "link").unlink()
    (site / "link").symlink_to("gone")
    done = cli("sync", site, tmp_path / "target", "--symlinks", "follow")
    assert done.code == 23
    assert "5 deleted" in done.err


def test_a_source_that_cannot_follow_says_so(tmp_path: Path) -> None:
    """fsspec says where links lead, and opens them wherever that is."""
    link, file = Found(b"l", SYMLINK, target=b"/etc/passwd"), Found(b"f", FILE)
    assert judged(link, "keep") == link
    assert judged(link, "follow") == Unread(b"l", "link", "links of this source cannot be followed")
    assert judged(link, "skip") == Unread(b"l", "skipped", "it is a link, and links are left out")
    assert {judged(file, symlinks) for symlinks in ("keep", "follow", "skip")} == {file}
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        archive.writestr("a", "a")
    for symlinks in ("follow", "skip"):
        url = f"zip://::file://{tmp_path}/site.zip"
        assert cli("sync", url, tmp_path / symlinks, "--layout", "packed", "--symlinks", symlinks).code == 0


def test_flag_variable_file_and_api(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mirror.toml", b"[mirrors.docs]\nsource = 'site'\ntarget = 'one'\nlayout = 'packed'\nsymlinks = 'skip'\n")
    assert cli("sync", "docs", "--new-target").code == 0
    monkeypatch.setenv("MIRROR_SYMLINKS", "skip")
    assert cli("sync", site, "two", "--layout", "packed").code == 0
    monkeypatch.delenv("MIRROR_SYMLINKS")
    assert api.sync(str(site), "three", layout="packed", symlinks="skip").rules == {"--symlinks skip": 22}
    assert len({cli("ls", place).out for place in ("one", "two", "three")}) == 1
    done = cli("sync", site, "four", "--layout", "packed", "--symlinks", "maybe")
    assert (done.code, done.error) == (2, "cannot use --symlinks 'maybe': it is none of keep, follow, skip")
    write(tmp_path / "mirror.toml", b"[mirrors.docs]\nsource = 'site'\ntarget = 'one'\nsymlinks = 'maybe'\n")
    assert cli("sync", "docs").error == "cannot use mirror.toml line 4: symlinks 'maybe': it is none of keep, follow, skip"
