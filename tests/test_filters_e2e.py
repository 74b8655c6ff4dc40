"""Rules from end to end: what is left out of a snapshot, kept in one, protected in a folder, and told about it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import S3
from drive import cli, same, truth
from mirrors import BEGINNING, settle, write


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Pages, pictures, rubbish, and folders that hold only one kind."""
    root = tmp_path / "site"
    for path in ("index.html", "a.tmp", "img/logo.png", "img/raw/one.psd", "img/raw/two.psd", "docs/a.html", "docs/b.tmp",
                 "docs/deep/c.html", "docs/deep/c.tmp", "only/x.tmp", ".git/config", ".git/objects/ab/cd", "build/out.html",
                 "build/keep/me.html", "new\nline.tmp", "Ä.html"):  # fmt: skip
        write(root / path, path.encode())
    settle(root)
    return root


def paths(target: Path, at: str = "latest") -> set[str]:
    """All paths of a snapshot but the root."""
    return {line for line in cli("ls", target, "--at", at).out.splitlines() if line != "./"}


def all_of(site: Path) -> set[str]:
    return {os.fsdecode(path).replace("\n", "\\n") for path in truth(site) if path}


CASES = {
    "one kind of file": (["--exclude", "*.tmp"], lambda p: not p.endswith(".tmp")),
    "a folder anywhere": (["--exclude", "raw/"], lambda p: "raw/" not in p),
    "a folder at the root": (["--exclude", "/build/"], lambda p: not p.startswith("build/")),
    "a name": (["--exclude", ".git"], lambda p: not p.startswith(".git")),
    "pages only": (["--include", "*.html", "--exclude", "*"],
                   lambda p: p.endswith(".html") or p in ("docs/", "docs/deep/", "build/", "build/keep/")),
    "order counts": (["--exclude", "*.html", "--include", "index.html"], lambda p: not p.endswith(".html")),
    "the first wins": (["--include", "/index.html", "--exclude", "*.html"], lambda p: not p.endswith(".html") or p == "index.html"),
    "folders, not files": (["--include", "*/", "--exclude", "*"], lambda p: p.endswith("/")),
    "out of a folder": (["--include", "/build/keep/**", "--exclude", "/build/**"],
                        lambda p: not p.startswith("build/") or p in ("build/", "build/keep/", "build/keep/me.html")),
    "nothing": (["--exclude", "no such thing"], lambda p: True),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_rules(site: Path, tmp_path: Path, case: str) -> None:
    words, wanted = CASES[case]
    target = tmp_path / "target"
    done = cli("sync", site, target, "--layout", "packed", *words)
    assert done.code == 0, done
    assert paths(target) == {path for path in all_of(site) if wanted(path)}
    assert cli("sync", site, target, *words).err.count("nothing changed") == 1
    record = json.loads((target / "log" / "000000000001.json").read_bytes())
    assert record["filters"] == [[flag.removeprefix("--"), rule] for flag, rule in zip(words[::2], words[1::2], strict=True)]
    assert cli("verify", target, "--against", site, *words).code == 0
    assert cli("diff", site, target, *words).out == ""


def test_a_filter_file_is_the_same(site: Path, tmp_path: Path) -> None:
    write(tmp_path / "rules", b"# pages only\n\n+ *.html\n- *\n")
    assert cli("sync", site, tmp_path / "one", "--layout", "packed", "--filter-from", tmp_path / "rules").code == 0
    assert cli("sync", site, tmp_path / "two", "--layout", "packed", "--include", "*.html", "--exclude", "*").code == 0
    assert paths(tmp_path / "one") == paths(tmp_path / "two")
    write(tmp_path / "wrong", b"+ *.html\nexclude *\n")
    done = cli("sync", site, tmp_path / "three", "--layout", "packed", "--filter-from", tmp_path / "wrong")
    assert done.code == 2
    assert "line 2" in done.error
    assert not (tmp_path / "three").exists()


def test_rules_of_the_environment(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRROR_EXCLUDE", "*.tmp\n.git/")
    assert cli("sync", site, tmp_path / "target", "--layout", "packed").code == 0
    assert paths(tmp_path / "target") == {p for p in all_of(site) if not p.endswith(".tmp") and not p.startswith(".git")}


def test_the_report_counts_by_rule(site: Path, tmp_path: Path) -> None:
    done = cli("sync", site, tmp_path / "target", "--layout", "packed", "--exclude", "*.tmp", "--exclude", ".git/")
    assert "left out by - *.tmp: 5" in done.err
    assert "left out by - .git/: 1" in done.err, "a folder counts once: it is not looked into"


def test_ignore_files(site: Path, tmp_path: Path) -> None:
    write(site / ".mirrorignore", b"# rubbish\n*.tmp\n/build/\n!/a.tmp\n")
    write(site / "docs" / ".mirrorignore", b"!b.tmp\ndeep/c.html\n")
    settle(site)
    target = tmp_path / "target"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    left_out = {"docs/deep/c.tmp", "docs/deep/c.html", "only/x.tmp", "new\\nline.tmp", "build/", "build/out.html", "build/keep/",
                "build/keep/me.html"}  # fmt: skip
    assert paths(target) == all_of(site) - left_out
    assert cli("restore", target, tmp_path / "out").code == 0
    assert (tmp_path / "out" / ".mirrorignore").exists()
    # The rules of the site are no rules for a restore: what is in the snapshot comes back, what is beside it is extra.
    write(tmp_path / "out" / "x.tmp", b"x")
    assert cli("restore", target, tmp_path / "out", "--in-place", "--delete").code == 0
    assert not (tmp_path / "out" / "x.tmp").exists()


def test_an_ignore_file_that_cannot_be_read(site: Path, tmp_path: Path) -> None:
    """Nobody knows what was meant of that folder: nothing of it is taken, nothing at all is deleted."""
    target = tmp_path / "target"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    before = paths(target)
    (site / "docs" / ".mirrorignore").symlink_to("/etc/passwd")
    os.unlink(site / "index.html")
    write(site / "docs" / "secret", b"may not be meant to leave")
    done = cli("sync", site, target)
    assert done.code == 23
    assert "docs/" in done.err
    assert ".mirrorignore cannot be read" in done.err
    assert paths(target) == before


def test_a_new_rule_protects_what_was_mirrored(site: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    everything = paths(target)
    write(site / "a.tmp", b"changed since", BEGINNING + 1)
    os.unlink(site / "docs" / "b.tmp")
    os.unlink(site / "img" / "raw" / "one.psd")
    settle(site)
    done = cli("sync", site, target, "--exclude", "*.tmp", "--exclude", "raw/", "--heartbeat")
    assert done.code == 0
    assert "kept as they were although the rules leave them out: 8" in done.err
    assert paths(target) == everything, "the old version stays, whatever became of it"
    assert cli("cat", target, "a.tmp").out == "a.tmp"
    done = cli("sync", site, target, "--exclude", "*.tmp", "--exclude", "raw/", "--delete-excluded")
    assert done.code == 0
    assert paths(target) == {p for p in everything if not p.endswith(".tmp") and "raw/" not in p}
    done = cli("sync", site, target)
    assert done.code == 0
    assert paths(target) == all_of(site)
    assert paths(target, "1") == everything


def test_excluded_rubbish_does_not_warn(site: Path, tmp_path: Path) -> None:
    """aws/aws-cli#7072: what is left out is not even looked at."""
    os.mkfifo(site / "pipe.tmp")
    (site / "broken.tmp").symlink_to("nowhere")
    os.chmod(site / ".git", 0)
    try:
        done = cli("sync", site, tmp_path / "target", "--layout", "packed", "--exclude", "*.tmp", "--exclude", ".git/")
    finally:
        os.chmod(site / ".git", 0o755)
    assert done.code == 0
    assert "pipe.tmp" not in done.err
    assert "! " not in done.err


def test_a_part_by_rules_comes_back(site: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    done = cli("restore", target, tmp_path / "out", "--exclude", "*.tmp", "--exclude", ".git/")
    assert done.code == 0, done
    there, original = truth(tmp_path / "out"), truth(site)
    assert there == {p: t for p, t in original.items() if not p.endswith(b".tmp") and not p.startswith(b".git")}
    assert cli("restore", target, tmp_path / "out", "--in-place").code == 0
    same(site, tmp_path / "out")


def test_rules_on_a_bucket(s3: S3, tmp_path: Path) -> None:
    for key in ("index.html", "a.tmp", "docs/a.html", "docs/b.tmp", "raw/x", "only/y.tmp", ".mirrorignore"):
        s3.client.put_object(Bucket=s3.bucket, Key=f"{s3.prefix}/site/{key}", Body=b"raw/\n" if key[0] == "." else key.encode())
    reach = ("--endpoint-url", s3.endpoint_url, "--region", s3.region)
    done = cli("sync", s3.url("site"), tmp_path / "target", "--layout", "packed", "--exclude", "*.tmp", *reach)
    assert done.code == 0, done
    assert paths(tmp_path / "target") == {".mirrorignore", "docs/a.html", "index.html"}
