"""`mirror restore`: what it brings back, what it leaves alone, and what it says when it cannot."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import S3
from drive import as_nobody, cli, drafts, give_to_nobody, process, same, shape, shared_folder, shell, truth
from mirrors import BEGINNING, make_site, mirror, noise, settle, target_in, three_nights, write

from mirror.envelope import NODE, SEGMENT
from mirror.making import Making
from mirror.manifest import Entry, File, Folder, cut_entries
from mirror.restore import RestoreOptions, RestoreReport, restore
from mirror.site import SiteSpec
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec

__all__ = ["shared_folder"]
ROOT = os.geteuid() == 0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


@pytest.fixture
def target(tmp_path: Path, site: Path) -> TargetSpec:
    """A mirror of the site."""
    spec = target_in(tmp_path)
    mirror(site, spec)
    return spec


def put_back(target: TargetSpec, out: Path, **options: Any) -> RestoreReport:
    return restore(target, str(out), RestoreOptions(**({"workers": 0} | options)))


def url(target: TargetSpec) -> str:
    return target.store.url


def damage(target: TargetSpec, content: bytes) -> Path:
    """Flip a byte in the one pack that holds this (incompressible) content; the pack."""
    for pack in Path(url(target)).glob("packs/*/*"):
        data = bytearray(pack.read_bytes())
        if (at := data.find(content[:64])) >= 0:
            data[at + 10] ^= 1
            pack.write_bytes(data)
            return pack
    raise AssertionError("no pack holds it")


# -- what comes back ----------------------------------------------------------------------------------------------------


def test_any_of_three_nights(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    nights = three_nights(tmp_path, target)
    for number in (1, 2, 3, 1):
        report = put_back(target, tmp_path / "out", at=str(number), in_place=True, delete=True)
        assert report.problems == []
        assert {p: (t.kind, t.mode, t.mtime) for p, t in truth(tmp_path / "out").items()} == {
            p: (i.kind, i.mode, i.mtime) for p, i in nights[number - 1].items()
        }
    put_back(target, tmp_path / "tagged", at="tag:second")
    put_back(target, tmp_path / "second", at="2")
    same(tmp_path / "tagged", tmp_path / "second")


def test_a_folder_that_is_not_empty_needs_in_place(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out / "mine", b"mine")
    before = shape(out)
    refused = cli("restore", url(target), out)
    assert refused.code == 2
    assert f"{len(truth(site)) - 1} entries would be added" in refused.error
    assert "1 others left alone" in refused.error
    assert "--in-place" in refused.error
    assert shape(out) == before
    planned = cli("restore", url(target), out, "-n")
    assert planned.code == 0
    assert "+ big.bin" in planned.out
    assert shape(out) == before
    assert cli("restore", url(target), out, "--in-place").code == 0
    assert (out / "mine").read_bytes() == b"mine"
    assert truth(out).keys() - truth(site).keys() == {b"mine"}


def test_a_dry_run_makes_no_folder(target: TargetSpec, site: Path, tmp_path: Path) -> None:
    done = cli("restore", url(target), tmp_path / "out", "-n")
    assert done.code == 0
    assert len(done.out.splitlines()) == len(truth(site))
    assert cli("restore", url(target), tmp_path / "out", "-n", "--exit-code").code == 4
    assert not (tmp_path / "out").exists()


def test_in_place_writes_only_what_differs(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    put_back(target, out)
    before = shape(out)
    report = put_back(target, out, in_place=True)
    assert (report.added, report.changed, report.described, report.files_written) == (0, 0, 0, 0)
    assert report.same == len(truth(site))
    assert shape(out) == before

    write(out / "index.html", b"defaced", BEGINNING + 1)
    os.chmod(out / "empty", 0o777)
    os.unlink(out / "pages" / "page-03.html")
    os.unlink(out / "link")
    (out / "link").symlink_to("elsewhere")
    report = put_back(target, out, in_place=True)
    assert (report.files_written, report.problems) == (2, [])
    same(site, out)
    after = shape(out)
    written = {path for path in before if before[path][0] != after[path][0]} - {b"pages/page-03.html"}  # it may get its inode again
    assert written == {b"index.html", b"link"}


def test_checksum_finds_what_size_and_time_hide(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    put_back(target, out)
    write(out / "index.html", b"<h1>HACKED</h1>"[:15])
    assert truth(out)[b"index.html"].mtime == truth(site)[b"index.html"].mtime
    before = shape(out)
    assert put_back(target, out, in_place=True).files_written == 0
    report = put_back(target, out, in_place=True, checksum=True)
    assert (report.files_written, report.problems) == (1, [])
    same(site, out)
    after = shape(out)
    assert {p for p in before if before[p][0] != after[p][0]} == {b"index.html"}, "the same files were read, not written"


def test_a_part(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = cli("restore", url(target), out, "a/b/", "./pages/page-07.html", "odd/latin-\udce9.html")
    assert done.code == 0, done.err
    there, original = truth(out), truth(site)
    wanted = {b"a/b/", b"a/b/c/", b"a/b/c/d/", b"a/b/c/d/deep", b"pages/page-07.html", b"odd/latin-\xe9.html"}
    above = {b"", b"a/", b"odd/", b"pages/"}
    assert there.keys() == wanted | above
    assert {p: there[p] for p in wanted} == {p: original[p] for p in wanted}
    assert {p: there[p].mode for p in above - {b""}} == {p: original[p].mode for p in above - {b""}}, "folders that had to be made"
    missing = cli("restore", url(target), tmp_path / "none", "a/b", "no/such")
    assert missing.code == 2
    assert "no/such" in missing.error
    assert "mirror ls" in missing.error
    assert not (tmp_path / "none").exists()


def test_a_part_in_place_touches_nothing_else(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    put_back(target, out)
    write(out / "index.html", b"changed, but not chosen", BEGINNING + 9)
    write(out / "pages" / "page-01.html", b"changed and chosen", BEGINNING + 9)
    write(out / "extra", b"extra, not chosen")
    write(out / "pages" / "extra", b"extra and chosen")
    before = shape(out)
    done = cli("restore", url(target), out, "pages", "--in-place", "--delete", "--max-delete", 1)
    assert done.code == 0, done.err
    after = shape(out)
    changed = {p for p in before.keys() | after.keys() if before.get(p) != after.get(p)}
    assert changed <= {b"pages/", b"pages/page-01.html", b"pages/extra", b"one", b"three", b"pages/two"}
    assert b"extra" in after
    assert b"pages/extra" not in after
    assert (out / "pages" / "page-01.html").read_bytes() == (site / "pages" / "page-01.html").read_bytes()


def test_hard_links_of_a_part(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    """`pages/two` and `three` are links to `one`, which is not asked for."""
    out = tmp_path / "out"
    put_back(target, out, paths=(b"pages/two", b"three"))
    there = truth(out)
    assert there[b"pages/two"].group == there[b"three"].group == "pages/two"
    assert (out / "three").read_bytes() == (site / "one").read_bytes()
    before = shape(out)
    again = put_back(target, out, paths=(b"pages/two", b"three"), in_place=True)
    assert (again.files_written, again.described) == (0, 0)
    assert shape(out) == before


def test_a_hard_link_is_not_made_to_other_content(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    """Somebody has edited `one` in the folder; the restore is asked for the other names only."""
    good = (site / "one").read_bytes()
    for options in ({"paths": (b"pages/two", b"three")}, {"overwrite": "if-newer"}):
        out = tmp_path / f"out{len(options['paths']) if 'paths' in options else 0}"
        write(out / "one", b"edited " * 3000, BEGINNING + 10**9)
        report = put_back(target, out, in_place=True, **options)
        assert report.problems == []
        assert (out / "one").read_bytes() == b"edited " * 3000
        assert (out / "three").read_bytes() == (out / "pages" / "two").read_bytes() == good
        assert (out / "three").stat().st_ino == (out / "pages" / "two").stat().st_ino != (out / "one").stat().st_ino


def test_hard_links_in_place(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    """Links that were broken are made again; links that should not be are broken."""
    out = tmp_path / "out"
    put_back(target, out)
    os.unlink(out / "three")
    shutil.copy2(site / "three", out / "three")
    os.unlink(out / "index.html")
    os.link(out / "big.bin", out / "index.html")
    assert put_back(target, out, in_place=True).problems == []
    same(site, out)


def test_extra_files_go_only_with_delete_and_not_too_many(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    put_back(target, out)
    for number in range(120):
        write(out / "extra" / f"{number}", b"x")
    write(out / "pages" / "extra too", b"x")
    kept = cli("restore", url(target), out, "--in-place")
    assert kept.code == 0
    assert "122 not in the snapshot" in kept.err
    assert (out / "extra" / "7").exists()
    before = shape(out)
    refused = cli("restore", url(target), out, "--in-place", "--delete")
    assert refused.code == 25
    assert "122 of" in refused.error
    assert shape(out) == before
    planned = cli("restore", url(target), out, "--in-place", "--delete", "-n", "--max-delete", "100%")
    assert len([line for line in planned.out.splitlines() if line.startswith("- ")]) == 122
    assert shape(out) == before
    accepted = shell(refused.error.rpartition(": ")[2])
    assert accepted.code == 0, accepted.err
    same(site, out)


def test_nothing_is_deleted_when_something_failed(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    damage(target, noise(2_000_000))
    write(out / "extra", b"extra")
    write(out / "big.bin", b"the old content", BEGINNING + 5)
    report = put_back(target, out, in_place=True, delete=True)
    hurt = {os.fsencode(p.path) for p in report.problems}
    assert b"big.bin" in hurt
    assert len(hurt) < 5, "its neighbours in the block as well, nobody else"
    assert {p.kind for p in report.problems} == {"damaged"}
    assert report.exit_code == 4
    assert (out / "extra").exists()
    assert "nothing was deleted" in report.notices[0]
    assert (out / "big.bin").read_bytes() == b"the old content", "better an old file than none"
    left = {p: t for p, t in truth(site).items() if p and p not in hurt}
    assert {p: t for p, t in truth(out).items() if p in left} == left, "all the others are there"
    assert drafts(out) == []


def test_damage_is_told_in_a_sentence(target: TargetSpec, tmp_path: Path) -> None:
    pack = damage(target, noise(2_000_000))
    done = cli("restore", url(target), tmp_path / "out")
    assert done.code == 4
    (line,) = [line for line in done.err.splitlines() if line.startswith("! big.bin: ")]
    assert pack.name in line
    pack.unlink()
    done = cli("restore", url(target), tmp_path / "out2")
    assert done.code == 4
    assert "it is not there" in done.err


@pytest.mark.parametrize(("overwrite", "kept"), [("always", ""), ("if-newer", "newer"), ("never", "newer older")])
def test_overwrite(site: Path, target: TargetSpec, tmp_path: Path, overwrite: str, kept: str) -> None:
    out = tmp_path / "out"
    write(out / "index.html", b"newer", BEGINNING + 10**9)
    write(out / "empty", b"older", BEGINNING - 10**9)
    write(out / "three", b"older", BEGINNING - 10**9)
    os.symlink("nowhere", out / "link")
    planned = cli("restore", url(target), out, "--in-place", "--overwrite", overwrite, "-n").out.splitlines()
    assert ("* index.html" in planned) == ("newer" not in kept)
    done = cli("restore", url(target), out, "--in-place", "--overwrite", overwrite)
    assert done.code == 0, done.err
    assert ((out / "index.html").read_bytes() == b"newer") == ("newer" in kept)
    assert ((out / "empty").read_bytes() == b"older") == ("older" in kept)
    assert ((out / "three").read_bytes() == b"older") == ("older" in kept)
    assert (out / "big.bin").read_bytes() == (site / "big.bin").read_bytes()
    assert (out / "pages" / "two").read_bytes() == (site / "one").read_bytes()


# -- kinds in the way ---------------------------------------------------------------------------------------------------


def test_a_full_folder_where_a_file_must_be(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out / "index.html" / "below" / "x", b"x")
    write(out / "link" / "y", b"y")
    (out / "empty").mkdir()
    report = put_back(target, out, in_place=True)
    assert {(p.path, p.kind, p.why) for p in report.problems} == {
        ("index.html", "unwritable", "a folder of that name is there"),
        ("link", "unwritable", "a folder of that name is there"),
    }
    assert report.exit_code == 23
    assert (out / "index.html" / "below" / "x").read_bytes() == b"x"
    assert (out / "empty").is_file(), "an empty one gives way"
    report = put_back(target, out, in_place=True, delete=True)
    assert (report.problems, report.deleted) == ([], 5)
    same(site, out)
    assert drafts(out) == []


def test_a_file_or_link_where_a_folder_must_be(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    write(out / "pages", b"a file")
    (out / "odd").symlink_to(elsewhere)
    report = put_back(target, out, in_place=True, overwrite="never")
    assert {p.why for p in report.problems} >= {"a file of that name is there"}
    assert (out / "pages").read_bytes() == b"a file"
    assert put_back(target, out, in_place=True).problems == []
    same(site, out)
    assert list(elsewhere.iterdir()) == [], "no link is followed"


def test_out_itself_may_be_a_link(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "out").symlink_to("real")
    put_back(target, tmp_path / "out")
    same(site, tmp_path / "real")


@pytest.mark.parametrize(
    ("make", "code", "word"),
    [
        (lambda p: p.write_bytes(b""), 2, "no folder"),
        (lambda p: p.symlink_to("nowhere"), 2, "link to nowhere"),
        (lambda p: os.mkfifo(p), 2, "no folder"),
    ],
)
def test_out_is_no_folder(target: TargetSpec, tmp_path: Path, make: Any, code: int, word: str) -> None:
    make(tmp_path / "out")
    done = cli("restore", url(target), tmp_path / "out")
    assert done.code == code
    assert word in done.error
    assert cli("restore", url(target), tmp_path / "out" / "below").code in (2, 3)


def test_out_inside_the_target_and_the_reverse(target: TargetSpec, tmp_path: Path) -> None:
    for out in (Path(url(target)), Path(url(target)) / "below", tmp_path):
        done = cli("restore", url(target), out, "--in-place")
        assert done.code == 2, done
        assert "restore" in done.error
    assert not (Path(url(target)) / "below").exists()


# -- metadata -----------------------------------------------------------------------------------------------------------


def test_chown_and_chmod(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    if not ROOT:
        assert cli("restore", url(target), tmp_path / "out", "--chmod", "D700,F600").code == 0
        return
    done = cli("restore", url(target), tmp_path / "out", "--chown", "nobody:12345", "--chmod", "D700,F600")
    assert done.code == 0
    uid = pwd.getpwnam("nobody").pw_uid
    there = truth(tmp_path / "out")
    assert {(t.uid, t.gid) for t in there.values()} == {(uid, 12345)}
    assert {t.mode for t in there.values() if t.kind == "file"} == {0o600}
    assert {t.mode for t in there.values() if t.kind == "folder"} == {0o700}
    before = shape(tmp_path / "out")
    again = cli("restore", url(target), tmp_path / "out", "--chown", "nobody:12345", "--chmod", "D700,F600", "--in-place")
    assert again.code == 0
    assert shape(tmp_path / "out") == before


@pytest.mark.parametrize(("flag", "value"), [("--chown", "no such user"), ("--chmod", "rwx"), ("--chmod", "99")])
def test_owners_and_modes_that_cannot_be(target: TargetSpec, tmp_path: Path, flag: str, value: str) -> None:
    done = cli("restore", url(target), tmp_path / "out", flag, value)
    assert done.code == 2
    assert value in done.error
    assert not (tmp_path / "out").exists()


def test_names_win_over_numbers_unless_numeric(tmp_path: Path) -> None:
    site, target = tmp_path / "site", target_in(tmp_path)
    write(site / "a", b"a")
    uid = pwd.getpwnam("nobody").pw_uid
    if ROOT:
        os.chown(site / "a", uid, 0)
    mirror(site, target)
    # Another host, where that number is somebody else's: the manifest says `nobody` and a number.
    at = _with_entries(target, lambda e: _owned_by(e, 4321) if isinstance(e, File) else e)
    assert put_back(target, tmp_path / "out", at=at).problems == []
    assert put_back(target, tmp_path / "numeric", at=at, numeric_ids=True).problems == []
    if ROOT:
        assert (tmp_path / "out" / "a").stat().st_uid == uid
        assert (tmp_path / "numeric" / "a").stat().st_uid == 4321


def _owned_by(entry: Entry, uid: int) -> Entry:
    import msgspec

    return msgspec.structs.replace(entry, uid=uid)


def test_without_rights_owners_are_counted(shared_folder: Path) -> None:
    site, target = shared_folder / "site", shared_folder / "target"
    write(site / "a", b"a")
    write(site / "b" / "c", b"c")
    cli("sync", site, target, "--layout", "packed", "--cache-dir", shared_folder / "cache")
    subprocess.run(["chmod", "-R", "a+rX", target], check=True)
    (shared_folder / "work").mkdir()
    give_to_nobody(shared_folder / "work")
    out = shared_folder / "work" / "out"
    done = as_nobody("restore", target, out)
    assert done.code == 0, done.err
    if ROOT:
        assert "owners were not restored for 4 entries" in done.err
        for _ in range(2):
            strict = as_nobody("restore", target, out, "--in-place", "--strict-metadata")
            assert strict.code == 23
            assert "--strict-metadata" in strict.err
    assert {p: (t.kind, t.mode, t.mtime, t.content) for p, t in truth(out).items()} == {
        p: (t.kind, t.mode, t.mtime, t.content) for p, t in truth(site).items()
    }


def test_without_rights_closed_folders_and_files(shared_folder: Path) -> None:
    """Modes 0555, 0000 and the like are set, restored into, emptied, and set again."""
    site, work = shared_folder / "site", shared_folder / "work"
    write(site / "closed" / "a", b"a")
    write(site / "closed" / "b", b"b")
    write(site / "locked", b"locked")
    os.chmod(site / "locked", 0o200)
    os.chmod(site / "closed", 0o555)
    settle(site)
    work.mkdir()
    give_to_nobody(work)
    cli("sync", site, shared_folder / "target", "--layout", "packed", "--cache-dir", shared_folder / "cache")
    subprocess.run(["chmod", "-R", "a+rX", shared_folder / "target"], check=True)
    out = work / "out"
    assert as_nobody("restore", shared_folder / "target", out).code == 0

    def modes() -> dict[bytes, tuple[int, int]]:
        return {p: (t.mode, t.mtime) for p, t in truth(out).items()}

    assert modes() == {p: (t.mode, t.mtime) for p, t in truth(site).items()}
    os.chmod(out / "closed", 0o755)
    write(out / "closed" / "a", b"changed", BEGINNING + 1)
    write(out / "closed" / "extra", b"extra")
    write(out / "shut" / "extra", b"extra")
    os.utime(out / "locked", ns=(1, 1))
    give_to_nobody(out)
    os.chmod(out / "shut", 0o500)
    os.chmod(out / "closed", 0o000)
    os.chmod(out / "locked", 0o000)
    one = as_nobody("restore", shared_folder / "target", out, "closed/a", "--in-place")
    assert stat.S_IMODE((out / "closed").stat().st_mode) == 0o000, "not chosen, so as it was"
    os.chmod(out / "closed", 0o500)
    one = as_nobody("restore", shared_folder / "target", out, "closed/a", "--in-place")
    assert one.code == 0, one.err
    assert stat.S_IMODE((out / "closed").stat().st_mode) == 0o500
    done = as_nobody("restore", shared_folder / "target", out, "--in-place", "--delete", "--max-delete", 3)
    assert done.code == 0, done.err
    assert modes() == {p: (t.mode, t.mtime) for p, t in truth(site).items()}


def test_a_folder_that_may_not_be_written(shared_folder: Path) -> None:
    site = shared_folder / "site"
    write(site / "a", b"a")
    cli("sync", site, shared_folder / "target", "--layout", "packed", "--cache-dir", shared_folder / "cache")
    subprocess.run(["chmod", "-R", "a+rX", shared_folder / "target"], check=True)
    if ROOT:
        done = as_nobody("restore", shared_folder / "target", shared_folder / "out")
        assert done.code == 7
        assert "permission denied" in done.error
        assert "free" not in done.error


def test_a_read_only_target_is_enough(site: Path, target: TargetSpec, tmp_path: Path, shared_folder: Path) -> None:
    """No lock, no cache, no write: nobody may do more than read."""
    shutil.copytree(url(target), shared_folder / "target")
    subprocess.run(["chmod", "-R", "a=rX", shared_folder / "target"], check=True)
    (shared_folder / "work").mkdir()
    give_to_nobody(shared_folder / "work")
    before = shape(shared_folder / "target")
    for words in (["ls"], ["snapshots"], ["verify"], ["sums"], ["verify", "--quick"]):
        done = as_nobody(words[0], shared_folder / "target", *words[1:])
        assert done.code == 0, done.err
    assert as_nobody("restore", shared_folder / "target", shared_folder / "work" / "out").code == 0
    assert truth(shared_folder / "work" / "out").keys() == truth(site).keys()
    assert shape(shared_folder / "target") == before


# -- from a bucket ------------------------------------------------------------------------------------------------------


def test_a_site_without_folders(s3: S3, tmp_path: Path) -> None:
    """Objects have no folders: those that are made are like any other, and none of them is extra."""
    for key in ("a/b/c.html", "a/d.html", "e.html"):
        s3.client.put_object(Bucket=s3.bucket, Key=f"{s3.prefix}/site/{key}", Body=key.encode())
    target = target_in(tmp_path)
    source = SiteSpec(s3.url("site"), endpoint_url=s3.endpoint_url, region=s3.region, static_credentials=True)
    assert sync(source, target, SyncOptions(Making("packed"), workers=0)).problems == []
    out = tmp_path / "out"
    assert put_back(target, out).problems == []
    there = truth(out)
    assert {p: t.mode for p, t in there.items() if p} == {
        b"a/": 0o755, b"a/b/": 0o755, b"a/b/c.html": 0o644, b"a/d.html": 0o644, b"e.html": 0o644,
    }  # fmt: skip
    before = shape(out)
    write(out / "a" / "extra", b"extra")
    report = put_back(target, out, in_place=True, delete=True)
    assert (report.problems, report.extra, report.deleted, report.files_written) == ([], 1, 1, 0)
    assert {p: v[3] for p, v in shape(out).items()} == {p: v[3] for p, v in before.items()}


# -- filters ------------------------------------------------------------------------------------------------------------


def test_rules_leave_out_and_protect(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out / "pages" / "mine.html", b"mine")
    write(out / "kept.tmp", b"kept")
    done = cli("restore", url(target), out, "--in-place", "--delete", "--exclude", "/pages/", "--exclude", "*.tmp")
    assert done.code == 0, done.err
    assert truth(out)[b"pages/mine.html"].content
    assert (out / "kept.tmp").exists()
    assert not (out / "pages" / "page-01.html").exists()
    assert (out / "pages" / "two").exists() is False
    assert (out / "three").read_bytes() == (site / "three").read_bytes()
    done = cli(
        "restore", url(target), out, "--in-place", "--delete", "--exclude", "/pages/", "--exclude", "*.tmp", "--delete-excluded",
        "--max-delete", "3",
    )  # fmt: skip
    assert done.code == 0, done.err
    assert not (out / "pages").exists()
    assert not (out / "kept.tmp").exists()


# -- interrupted --------------------------------------------------------------------------------------------------------


def test_an_interrupted_restore_goes_on(tmp_path: Path) -> None:
    site, target, out = tmp_path / "site", target_in(tmp_path), tmp_path / "out"
    for number in range(10):
        write(site / f"{number}.bin", noise(9_000_000, number))
    settle(site)
    mirror(site, target)
    for end in (signal.SIGINT, signal.SIGKILL):
        running = process("restore", url(target), out, "--in-place", "--workers", 1, "--bwlimit", "60M")
        give_up = time.monotonic() + 20
        while not list(out.glob("[0-9].bin")) and running.poll() is None and time.monotonic() < give_up:
            time.sleep(0.01)
        running.send_signal(end)
        _, err = running.communicate(timeout=30)
        assert running.returncode in (130, -9), err
        assert "Traceback" not in err
    refused = cli("restore", url(target), out)
    assert refused.code == 2
    report = put_back(target, out, in_place=True)
    assert report.problems == []
    assert report.files_written < 10
    same(site, out)
    assert drafts(out) == []


def test_max_duration(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    done = cli("restore", url(target), tmp_path / "out", "--max-duration", "0.0001s")
    assert done.code == 10
    assert "--in-place" in done.error
    assert cli("restore", url(target), tmp_path / "out", "--in-place").code == 0
    same(site, tmp_path / "out")


def test_nothing_stays_open(site: Path, target: TargetSpec, tmp_path: Path) -> None:
    """A program that goes on keeps no mount busy and no cache locked."""

    def opened() -> list[str]:
        links = [f"/proc/self/fd/{number}" for number in os.listdir("/proc/self/fd")]
        return [name for link in links if os.path.exists(link) and str(tmp_path) in (name := os.readlink(link))]

    put_back(target, tmp_path / "out")
    write(site / "new", b"new")
    mirror(site, target)
    damage(target, noise(2_000_000))
    assert put_back(target, tmp_path / "again").exit_code == 4
    assert opened() == []


# -- what cannot be -----------------------------------------------------------------------------------------------------


def _with_entries(target: TargetSpec, change: Any) -> str:
    """A second snapshot whose entries are those of the first after `change` (or those of a list); its number."""
    from mirror import log
    from mirror.commit import ManifestWriter
    from mirror.snapshot import ManifestReader
    from mirror.store.fs import FolderStore

    store = FolderStore(url(target))
    head = log.read_head(store)
    assert head
    entries = change if isinstance(change, list) else [change(e) for e in ManifestReader(store, None).entries(head.manifest)]
    writer = ManifestWriter(store, 0, {})
    root = writer.tree([writer.put(SEGMENT, piece) for piece in cut_entries(entries)], root_is_node=True)
    body = dict(head.body) | log.draft(log.SNAPSHOT, head.body["target"], head, [*head.live, head.number + 1])
    assert isinstance(log.append(store, body | {"manifest": log.ref_json(root)}), log.Record)
    assert NODE
    return str(head.number + 1)


def test_names_that_cannot_exist_here(tmp_path: Path) -> None:
    site, target = tmp_path / "site", target_in(tmp_path)
    write(site / "good", b"good")
    mirror(site, target)
    long = b"n" * 256
    template = File(b"", 0, bytes.fromhex("99aa06d3014798d86001c324468d497f"), 0, b"", mtime=BEGINNING, mode=0o644)

    def file(path: bytes) -> File:
        import msgspec

        return msgspec.structs.replace(template, path=path)

    entries = [Folder(b"", BEGINNING, 0o755), file(b"good"), file(long), Folder(long + b"/"), file(long + b"/below")]
    at = _with_entries(target, entries)
    report = put_back(target, tmp_path / "out", at=at)
    assert [(p.path[:3], p.kind) for p in report.problems] == [("nnn", "name")] * 3
    assert report.exit_code == 23
    assert os.listdir(tmp_path / "out") == ["good"]


def test_times_and_modes_that_cannot_be_set(tmp_path: Path) -> None:
    site, target = tmp_path / "site", target_in(tmp_path)
    write(site / "a", b"a")
    write(site / "b", b"b")
    (site / "l").symlink_to("a")
    mirror(site, target)
    import msgspec

    def odd(entry: Entry) -> Entry:
        values: dict[str, Any] = {"mtime": 2**63 - 1, "uid": 2**40, "gid": -7}
        if not entry.path.startswith(b"l"):
            values["mode"] = 2**40
        return entry if entry.path == b"b" else msgspec.structs.replace(entry, **values)

    at = _with_entries(target, odd)
    done = cli("restore", url(target), tmp_path / "out", "--at", at, "--numeric-ids")
    assert done.code in (0, 4, 23), done
    assert cli("ls", url(target), "--at", at, "-l").code in (0, 4)
    if done.code != 4:
        assert (tmp_path / "out" / "b").read_bytes() == b"b"


def test_what_a_run_tells_is_what_its_plan_told(target: TargetSpec, tmp_path: Path) -> None:
    """Each path once: new folders are told as well, and a link whose time changed is not told twice."""

    def told(text: str) -> list[str]:
        return sorted(line for line in text.splitlines() if line[:2] in ("+ ", "* ", "- ", ". "))

    out = tmp_path / "out"
    for spoil in (
        lambda: None,
        lambda: os.utime(next(each for each in out.rglob("*") if each.is_symlink()), (1, 1), follow_symlinks=False),
    ):
        spoil()
        planned = told(cli("restore", url(target), out, "--in-place", "-n").out)
        assert len(planned) == len(set(planned)) > 0
        assert told(cli("restore", url(target), out, "--in-place", "-v").err) == planned
