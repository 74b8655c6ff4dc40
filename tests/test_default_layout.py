"""Which layout a new target gets when nobody says one: a tree where a tree can be, packed elsewhere; and what is there stays so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import S3
from drive import cli, shape
from mirrors import write

import mirror
from mirror.errors import UsageError
from mirror.making import default_layout


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write(tmp_path / "site/index.html", b"<h1>one</h1>")
    write(tmp_path / "site/deep/page.html", b"page")
    return tmp_path / "site"


def layout(target: Path) -> str:
    """What the target says that it is, and whether it looks like that."""
    inside = target / ".mirror/mirror.json"
    told = str(json.loads((inside if inside.exists() else target / "mirror.json").read_bytes())["layout"])
    assert told == ("tree" if inside.exists() else "packed")
    assert (target / "deep/page.html").exists() is (told == "tree")
    return told


def test_a_folder_becomes_a_tree(site: Path, tmp_path: Path) -> None:
    done = cli("sync", site, tmp_path / "www")
    assert (done.code, "note:" in done.err) == (0, False)
    assert layout(tmp_path / "www") == "tree"
    assert cli("sync", site, f"file://{tmp_path}/url").code == 0
    assert layout(tmp_path / "url") == "tree"
    mirror.sync(site, tmp_path / "api")
    assert layout(tmp_path / "api") == "tree"
    assert cli("init", tmp_path / "made").code == 0
    assert cli("sync", site, tmp_path / "made").code == 0
    assert layout(tmp_path / "made") == "tree"
    assert cli("sync", site, tmp_path / "dry", "-n").out == "+ ./\n+ deep/\n+ deep/page.html\n+ index.html\n"
    assert not (tmp_path / "dry").exists()


def test_packed_when_it_is_asked_for(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("sync", site, tmp_path / "flag", "--layout", "packed").code == 0
    mirror.sync(site, tmp_path / "api", layout="packed")
    (tmp_path / "mirror.toml").write_text(f"[mirrors.docs]\nsource = '{site}'\ntarget = 'file'\nlayout = 'packed'\n")
    assert cli("sync", "docs", "--config", tmp_path / "mirror.toml", "--new-target").code == 0
    monkeypatch.setenv("MIRROR_LAYOUT", "packed")
    assert cli("sync", site, tmp_path / "variable").code == 0
    assert [layout(tmp_path / name) for name in ("flag", "api", "file", "variable")] == ["packed"] * 4


def test_where_no_tree_can_be_it_is_packed_and_said(site: Path, tmp_path: Path) -> None:
    done = cli("sync", site, "memory://default-layout")
    assert (done.code, "note: a new target of layout packed: a tree cannot be at memory://" in done.err) == (0, True), done
    assert "note:" not in cli("sync", site, "memory://default-layout").err
    assert "note:" not in cli("sync", site, "memory://default-layout-2", "--layout", "packed").err
    assert cli("sync", site, "memory://default-layout-3", "-q").err == ""
    assert "say --layout packed" in cli("sync", site, "memory://default-layout-4", "--layout", "tree").error


def test_a_bucket(site: Path, s3: S3) -> None:
    """Whatever a bucket gets, it can be read back; asked for, it is packed."""
    reach = ("--endpoint-url", s3.endpoint_url, "--region", s3.region)
    assert cli("sync", site, s3.url("asked"), "--layout", "packed", *reach).code == 0
    assert "mirror.json" in s3.objects("asked")
    assert cli("sync", site, s3.url("default"), *reach).code == 0
    assert ("mirror.json" in s3.objects("default")) is (default_layout(s3.url("default")) == "packed")
    assert cli("cat", s3.url("default"), "deep/page.html", *reach).out == "page"


def test_what_is_there_keeps_its_layout(site: Path, tmp_path: Path) -> None:
    for name, other in (("tree", "packed"), ("packed", "tree")):
        target = tmp_path / name
        assert cli("sync", site, target, "--layout", name).code == 0
        before = shape(target)
        for verb in (["sync", site, target], ["sync", site, target, "-n"], ["init", target]):
            done = cli(*verb, "--layout", other)
            assert (done.code, f"its layout is {name!r}, not {other!r}" in done.error) == (2, True), done
            assert "cannot use the target" in cli(*verb, "--layout", "heap").error
        assert shape(target) == before
        write(site / f"{name}.html", b"more")
        assert cli("sync", site, target).code == 0
        assert layout(target) == name
    with pytest.raises(UsageError, match="its layout is 'tree'"):
        mirror.sync(site, tmp_path / "tree", layout="packed")


def test_a_packed_target_that_lost_its_mirror_json_is_damage(site: Path, tmp_path: Path) -> None:
    """Not a folder with other things, over which a tree may be put."""
    assert cli("sync", site, tmp_path / "packed", "--layout", "packed").code == 0
    shutil.copytree(tmp_path / "packed", tmp_path / "copy")
    (tmp_path / "copy/mirror.json").unlink()
    before = shape(tmp_path / "copy")
    for more in ([], ["--adopt"]):
        done = cli("sync", site, tmp_path / "copy", *more)
        assert (done.code, "it has a log but no mirror.json" in done.error) == (4, True), done
    assert shape(tmp_path / "copy") == before
