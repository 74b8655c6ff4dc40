"""Names that cannot stand together in a tree, or not at all: found before anything is written, by path.

Filesystems that fold case or normalise are not to be had everywhere. So what follows from a place's answers is tested with a place
that answers from a table, the answers themselves by asking the filesystem of these tests, and (`-m long`, where lowntfs-3g and
/dev/fuse are there) a whole sync by a real one that does not heed case.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from drive import cli, same, shape, truth
from hypothesis import given, settings
from hypothesis import strategies as st
from mirrors import settle, write

import mirror as api
from mirror.errors import UsageError
from mirror.manifest import Entry, File, Folder
from mirror.naming import Conflict, ExactNames, conflicts, refuse, without
from mirror.plan import NEW, Counts, Drop, Fetch, Item, Put, decode, encode
from mirror.site.probe import FolderNames
from mirror.spool import Spool

COMPOSED, DECOMPOSED = "Café".encode(), unicodedata.normalize("NFD", "Café").encode()


@dataclass(frozen=True)
class Folding:
    """A place that folds as a simple table of capitals does (ß stays ß), and perhaps has one form of Unicode."""

    folds_case: bool = True
    normalises: bool = False
    together: bool = False

    def fault(self, path: bytes) -> str:
        return "no colon" if b":" in path else ""

    def same(self, one: bytes, other: bytes) -> bool:
        assert one != other
        assert b"/" not in one + other
        return self._plain(one) == self._plain(other)

    def _plain(self, name: bytes) -> str:
        text = name.decode("utf-8", "surrogateescape")
        text = unicodedata.normalize("NFC", text) if self.normalises else text
        return "".join(letter.lower() for letter in text) if self.folds_case else text


def file(path: str | bytes) -> File:
    return File(os.fsencode(path), 3, bytes(16), 0, b"")


def planned(here: str, before: str = "") -> tuple[Spool[Item], list[Entry]]:
    """The plan from one site to another, each of them words; a word that ends in `/` is a folder."""

    def entry(path: str) -> Entry:
        return Folder(path.encode()) if path.endswith("/") else file(path)

    new, old = set(here.split()), set(before.split())
    plan: Spool[Item] = Spool(encode, decode)
    for path in sorted(new ^ old, key=str.encode):
        one = entry(path)
        if path in old:
            plan.append(Drop(one))
        else:
            plan.append(Fetch(one, (0, 0)) if isinstance(one, File) else Put(NEW, one, (0, 0)))
    return plan, [entry(path) for path in sorted(old, key=str.encode)]


def found(here: str, before: str = "", names: Any = None, protected: bool = False) -> list[tuple[str, str]]:
    plan, old = planned(here, before)
    with plan, conflicts(plan, lambda: old, names or Folding(), protected) as them:
        return [(conflict.path.decode(), conflict.other.decode()) for conflict in them]


CASES = {
    "nothing": ("a b c/ c/d", "", []),
    "two files": ("A.txt a.txt b", "", [("a.txt", "A.txt")]),
    "three files": ("ab aB Ab", "", [("aB", "Ab"), ("ab", "Ab")]),
    "who is there stays": ("A.txt a.txt", "a.txt", [("A.txt", "a.txt")]),
    "both are there": ("A.txt a.txt", "A.txt a.txt", []),
    "both are there, and something else comes": ("A.txt a.txt b", "A.txt a.txt", []),
    "far apart": ("B a b", "", [("b", "B")]),
    "two folders": ("A/ A/x a/ a/x a/y b", "", [("a/", "A/")]),
    "folders that nobody names": ("A/x a/x a/y b", "", [("a/", "A/")]),
    "a folder that is there": ("A/x a/x a/y", "a/y", [("A/", "a/")]),
    "a folder that is there, though its first file comes": ("A/x a/b a/y", "a/y", [("A/", "a/")]),
    "within a folder": ("d/ d/A d/a D2/ D2/A", "", [("d/a", "d/A")]),
    "a file and a folder": ("A a/ a/x", "", [("A", "a/")]),
    "a file and a folder that is there": ("A a/ a/x", "A", [("a/", "A")]),
    "below what is left out": ("A/ A/x a/ a/X a/x", "", [("a/", "A/")]),
    "a colon": ("a:b c", "", [("a:b", "")]),
    "a colon that is there": ("a:b c", "a:b", []),
    "spelt anew": ("a.txt b", "A.txt b", [("a.txt", "A.txt")]),
    "a file becomes a folder": ("a/ a/b", "a", []),
    "sharp s is no double s": ("straße strasse straße2/x strasse2/x strasse2/X", "", [("strasse2/x", "strasse2/X")]),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_in_conflict_where_case_does_not_count(case: str) -> None:
    here, before, wanted = CASES[case]
    assert found(here, before) == wanted


def test_forms_of_unicode() -> None:
    both = f"{COMPOSED.decode()} {DECOMPOSED.decode()}"
    assert found(both, names=Folding(False, True)) == [(COMPOSED.decode(), DECOMPOSED.decode())]
    assert found(both, names=Folding(True, False)) == []
    assert found(f"{both.upper()} {both}", names=Folding(True, True)) == [
        (path, DECOMPOSED.decode().upper()) for path in sorted((COMPOSED.decode(), COMPOSED.decode().upper(), DECOMPOSED.decode()))
    ]  # fmt: skip
    assert found("A.txt a.txt", names=Folding(False, True)) == []


@pytest.mark.parametrize(
    ("here", "before", "protected", "wanted"),
    [
        ("a a/b", "", False, [("a", "a/")]),
        ("a a-b a.c a/b a0", "", False, [("a", "a/")]),
        ("a a/b a/c", "a", False, [("a/", "a")]),
        ("a a/b a/c", "a/c", False, [("a", "a/")]),
        ("a a/b/c a/b", "", False, [("a", "a/"), ("a/b", "a/b/")]),
        ("a/b", "a", False, []),
        ("a", "a/b", False, []),
        ("a a/b x", "a a/b", False, []),
        ("a a! a!! a!!/x", "", False, [("a!!", "a!!/")]),
    ],
)
def test_a_file_where_a_folder_must_be(here: str, before: str, protected: bool, wanted: list[tuple[str, str]]) -> None:
    plain = ExactNames(together=False)
    assert found(here, before, plain, protected) == wanted
    assert found(here, before, ExactNames()) == []


_PARTS = st.lists(st.sampled_from(["a", "A", "b", "aB", "ab", COMPOSED.decode(), DECOMPOSED.decode()]), min_size=1, max_size=3)
_PATHS = st.sets(_PARTS.map("/".join), max_size=8)


def crowded(paths: set[str], names: Folding) -> dict[str, set[str]]:
    """Folded name → its spellings, folders with `/`, where there are several: what a filesystem that folds cannot hold."""
    places: dict[str, set[str]] = {}
    for path in paths:
        parts = path.split("/")
        for end in range(1, len(parts) + 1):
            spelt = "/".join(parts[:end]) + "/" * (end < len(parts))
            places.setdefault("/".join(names._plain(part.encode()) for part in parts[:end]), set()).add(spelt)
    return {place: spellings for place, spellings in places.items() if len(spellings) > 1}


@given(here=_PATHS, before=_PATHS, fold=st.booleans(), normalise=st.booleans())
@settings(max_examples=150, deadline=None)
def test_what_is_left_fits_and_no_more_is_left_out(here: set[str], before: set[str], fold: bool, normalise: bool) -> None:
    names = Folding(fold, normalise)
    while crowd := crowded(before, names):  # the tree holds what it can hold
        before -= {path for path in before if path.startswith(tuple(sorted(next(iter(crowd.values())))[1:]))}
    plan, old = planned(" ".join(here), " ".join(before))
    with (
        conflicts(plan, lambda: old, names if fold or normalise else ExactNames(together=False)) as them,
        without(plan, them, Counts()) as kept,
    ):
        lost = [conflict.path.decode() for conflict in them]
        rivals = [conflict.other.decode() for conflict in them]
        come = {item.entry.path.decode() for item in kept if isinstance(item, Fetch)}
    stays = here & before
    assert crowded(come | stays, names) == {}
    assert come | {path for path in here - before if path.startswith(tuple(lost))} == here - before
    assert all(path not in stays for path in lost)
    for path, rival in zip(lost, rivals, strict=True):
        assert "/".join(names._plain(p.encode()) for p in path.rstrip("/").split("/")) == "/".join(
            names._plain(p.encode()) for p in rival.rstrip("/").split("/")
        )
        assert path != rival


def test_faults_need_not_the_whole_site() -> None:
    """Where nothing is folded and the source has folders, the manifest is not gone through."""
    plan, _ = planned("a b:c")
    plan2: Spool[Item] = Spool(encode, decode)
    plan2.append(Put(NEW, Folder(b""), (0, 0)))
    plan2.extend(plan)

    def never() -> Iterator[Entry]:
        raise AssertionError("the manifest was read")
        yield

    fault = ExactNames(lambda path: "no colon" if b":" in path else "", together=True)
    with conflicts(plan2, never, fault) as them:
        assert list(them) == [Conflict(b"b:c", b"", "no colon")]
    quiet, _ = planned("a", "a")
    with conflicts(quiet, never, Folding()) as them:
        assert len(them) == 0, "nothing new, nothing to ask"


def test_the_plan_without_them() -> None:
    plan, old = planned("A/ A/x a/ a/x a/y b:c ok", "gone")
    counts = Counts(added=7, fetch_files=5, fetch_bytes=15)
    with conflicts(plan, lambda: old, Folding()) as them:
        kept = without(plan, them, counts)
    assert [item.entry.path for item in kept] == [b"A/", b"A/x", b"gone", b"ok"]
    assert (counts.added, counts.fetch_files, counts.fetch_bytes) == (3, 2, 6)


def test_an_error_names_the_first_twenty_and_how_many_there_are() -> None:
    plan, old = planned(" ".join(f"f{number:02} F{number:02}" for number in range(33)))
    with conflicts(plan, lambda: old, Folding()) as them, pytest.raises(UsageError) as error:
        refuse(them, "/srv/www")
    text = str(error.value)
    assert text.startswith(
        "cannot publish into /srv/www: 33 names of the source cannot be there: f00 and F00: they are one name there;"
    )
    assert "f19 and F19" in text
    assert "f20" not in text
    assert "and 13 more" in text
    assert (error.value.kind, error.value.exit_code) == ("names", 2)
    none: Spool[Conflict] = Spool()
    refuse(none, "/srv/www")


# -- what a filesystem says of itself


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "tree" / ".mirror").mkdir(parents=True)
    return tmp_path / "tree"


def test_this_filesystem_answers_for_itself(folder: Path) -> None:
    """Held against what it does, whatever that is."""
    write(folder / "Case", b"")
    with FolderNames(str(folder)) as names:
        assert names.folds_case == (folder / "cASE").exists()
        assert names.same(b"one", b"ONE") == names.folds_case
        (folder / os.fsdecode(COMPOSED)).touch()
        assert names.normalises == os.path.lexists(os.path.join(bytes(folder), DECOMPOSED))
        for name in (
            b"plain",
            b"a:b",
            b'q"q',
            b"a\\b",
            b"new\nline",
            b"bell\x07",
            b"end.",
            b"end ",
            b"caf\xe9",
            b"x" * 255,
            b"x" * 256,
        ):
            path = os.path.join(bytes(folder), name)
            try:
                Path(os.fsdecode(path)).touch()
                there = name in os.listdir(bytes(folder))
            except OSError:
                there = False
            assert (names.fault(b"sub/" + name) == "") == there, name
            assert (names.fault(name + b"/below") == "") == there, name
    assert [path.name for path in (folder / ".mirror").iterdir()] == []


def test_a_look_tries_nothing(folder: Path) -> None:
    before = shape(folder)
    with FolderNames(str(folder), look_only=True) as names:
        assert names.fault(b"a:b/end./caf\xe9") == ""
        assert names.fault(b"x" * 256).startswith("a name in it has 256 bytes")
        assert names.same(b"a", b"A") == names.folds_case
        assert not names.same(b"a", b"b")
        assert names.normalises in (False, names.folds_case)
    assert shape(folder) == before


def test_what_a_run_that_died_tried_is_removed(folder: Path) -> None:
    write(folder / ".mirror" / "probe" / "left", b"")
    with FolderNames(str(folder)) as names:
        assert names.same(b"a", b"b") is False
    assert not (folder / ".mirror" / "probe").exists()


# -- from end to end


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    for path in ("A.txt", "a.txt", "docs/x", "Docs/y", "index.html"):
        write(root / path, path.encode())
    settle(root)
    return root


def published(tree: Path) -> list[str]:
    """What people see in a tree."""
    return sorted(os.fsdecode(path) for path in truth(tree) if path and not path.startswith(b".mirror"))


@pytest.fixture
def folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The filesystem says that case does not count. (It does: so what is published can be looked at.)"""

    def same(self: FolderNames, one: bytes, other: bytes) -> bool:
        return one.lower() == other.lower()

    monkeypatch.setattr(FolderNames, "folds_case", True)
    monkeypatch.setattr(FolderNames, "same", same)


@pytest.mark.usefixtures("folds")
def test_names_that_collide_stop_the_run_or_are_left_out(site: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for words in ((), ("-n",)):
        done = cli("sync", site, tree, "--layout", "tree", *words)
        assert done.code == 2
        assert "2 names of the source cannot be there: a.txt and A.txt: they are one name there; docs/ and Docs/:" in done.error
        assert not tree.exists() or [path.name for path in tree.iterdir()] == [".mirror"]
    done = cli("sync", site, tree, "--layout", "tree", "--case-conflict", "skip")
    assert done.code == 23
    assert "! a.txt: A.txt is there: they are one name there; rename it in the source, or leave it out" in done.err
    assert {path for path in truth(tree) if path and not path.startswith(b".mirror")} == {
        b"A.txt",
        b"Docs/",
        b"Docs/y",
        b"index.html",
    }
    assert cli("verify", tree).code == 0
    again = cli("sync", site, tree, "--case-conflict", "skip")
    assert (again.code, again.err.count("nothing changed")) == (23, 1)
    rest = ("--exclude", "/a.txt", "--exclude", "/docs/")
    assert cli("sync", site, tree, *rest).code == 0
    (site / "A.txt").unlink()
    shutil.rmtree(site / "docs")
    settle(site)
    done = cli("sync", site, tree)
    assert done.code == 2, "A.txt is there until this run is over"
    assert "a.txt and A.txt: that is one name there, which the other has until this run is over" in done.error
    assert cli("sync", site, tree, "--case-conflict", "skip").code == 23
    assert cli("sync", site, tree).code == 0
    assert {path for path in truth(tree) if path and not path.startswith(b".mirror")} == {
        b"a.txt",
        b"Docs/",
        b"Docs/y",
        b"index.html",
    }


@pytest.mark.usefixtures("folds")
def test_a_packed_target_holds_all_names(site: Path, tmp_path: Path) -> None:
    assert cli("sync", site, tmp_path / "target", "--layout", "packed").code == 0


def test_a_restore_names_what_would_replace_something_else(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: None
) -> None:
    target, out = tmp_path / "target", tmp_path / "out"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    done = cli("restore", target, out)
    assert done.code == 23
    assert done.err.count("! a.txt: A.txt is there: they are one name there") == 1
    assert done.err.count("! docs/: Docs/ is there: they are one name there") == 1
    assert published(out) == ["A.txt", "Docs/", "Docs/y", "index.html"]
    extra = out / "INDEX.html"
    (out / "index.html").rename(extra)
    write(out / "old", b"old")
    done = cli("restore", target, out, "--in-place", "--delete", "--max-delete", "100%")
    assert done.code == 23
    assert "index.html: INDEX.html is there" in done.err
    assert (extra.read_bytes(), (out / "old").exists()) == (b"index.html", True), "nothing is deleted where something failed"
    assert cli("restore", target, tmp_path / "part", "a.txt").code == 0, "alone it has its name"
    assert cli("restore", target, tmp_path / "rest", "--exclude", "A.txt", "--exclude", "Docs/").code == 0
    assert published(tmp_path / "rest") == ["a.txt", "docs/", "docs/x", "index.html"]
    monkeypatch.undo()
    assert cli("restore", target, out, "--in-place", "--delete", "--max-delete", "100%").code == 0
    same(out, site)


def test_names_that_are_too_long_for_the_tree(tmp_path: Path) -> None:
    """An archive may hold what no folder can."""
    tree, long = tmp_path / "tree", "x" * 300
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as archive:
        for name in ("index.html", "a.d/b", long, f"{long}-2/below"):
            archive.writestr(name, name)
    words = ["sync", f"zip://::file://{tmp_path}/site.zip", tree, "--layout", "tree"]
    done = cli(*words)
    assert done.code == 2
    assert done.error.count("a name in it has 30") == 2
    assert "255 can be there" in done.error
    assert not (tree / "index.html").exists()
    done = cli(*words, "--case-conflict", "skip")
    assert done.code == 23
    assert published(tree) == ["a.d/", "a.d/b", "index.html"]
    assert cli("verify", tree).code == 0


def test_flag_variable_file_and_api(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folds: None) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "mirror.toml", b"[mirrors.docs]\nsource = 'site'\ntarget = 'one'\nlayout = 'tree'\ncase-conflict = 'skip'\n")
    assert cli("sync", "docs", "--new-target").code == 23
    monkeypatch.setenv("MIRROR_CASE_CONFLICT", "skip")
    assert cli("sync", site, "two", "--layout", "tree").code == 23
    assert cli("sync", site, "three", "--layout", "tree", "--case-conflict", "error").code == 2
    monkeypatch.delenv("MIRROR_CASE_CONFLICT")
    report = api.sync(str(site), "four", layout="tree", case_conflict="skip")
    assert [(problem.path, problem.kind) for problem in report.problems] == [("a.txt", "name"), ("docs/", "name")]
    done = cli("sync", site, "five", "--layout", "tree", "--case-conflict", "rename")
    assert (done.code, done.error) == (2, "cannot use --case-conflict 'rename': it is none of error, skip")


@pytest.fixture
def ntfs(tmp_path: Path) -> Iterator[Path]:
    """A filesystem that does not heed case and forbids some characters: NTFS by FUSE, in a file."""
    missing = [tool for tool in ("mkntfs", "lowntfs-3g") if not shutil.which(tool)]
    if missing or not os.path.exists("/dev/fuse") or os.geteuid():
        pytest.skip(f"no filesystem that does not heed case: root, /dev/fuse, or of ntfs-3g is missing: {missing}")
    image, place = tmp_path / "image", tmp_path / "ntfs"
    place.mkdir()
    with image.open("wb") as stream:
        stream.truncate(64 << 20)
    subprocess.run(["mkntfs", "-q", "-F", image], check=True, capture_output=True)
    subprocess.run(["lowntfs-3g", "-o", "ignore_case,windows_names,permissions", image, place], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.long
def test_on_a_filesystem_that_does_not_heed_case(site: Path, ntfs: Path) -> None:
    write(site / "a:b", b"colon")
    settle(site)
    tree = ntfs / "tree"
    done = cli("sync", site, tree, "--layout", "tree", "--min-free", "0")
    assert done.code == 2, done
    assert "a.txt and A.txt: they are one name there" in done.error
    assert "docs/ and Docs/: they are one name there" in done.error
    assert "a:b: the filesystem there allows no : in names" in done.error
    assert os.listdir(tree) == [".mirror"]
    assert "probe" not in os.listdir(tree / ".mirror")
    done = cli("sync", site, tree, "--min-free", "0", "--case-conflict", "skip")
    assert done.code == 23, done
    assert (tree / "A.txt").read_bytes() == b"A.txt"
    assert (tree / "docs" / "y").read_bytes() == b"Docs/y"
    assert cli("sync", site, tree, "--min-free", "0", "-n").code == 2, "seen without trying"
    target = site.parent / "target"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    done = cli("restore", target, ntfs / "out")
    assert done.code == 23
    assert "! a.txt: A.txt is there: they are one name there" in done.err
    assert "! docs/: Docs/ is there: they are one name there" in done.err
    assert "! a:b: " in done.err
    assert len(os.listdir(ntfs / "out")) == 3
    assert (ntfs / "out" / "A.txt").read_bytes() == b"A.txt"
