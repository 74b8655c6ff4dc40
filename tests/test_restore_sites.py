"""`mirror restore` into a bucket and into what fsspec writes: what arrives, what is left alone, what is said of the rest.

What is really there is asked of boto3, fsspec and rclone.
"""

from __future__ import annotations

import os
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from conftest import S3
from drive import cli
from mirrors import BEGINNING, make_site, mirror, noise, repacked, settle, target_in, write
from mirrors import in_memory as in_memory_target
from servers import Answer, s3_error, scripted_http
from test_hostile import Enemy, file
from trees import clean

from mirror.errors import DurationLimitError
from mirror.events import Job
from mirror.intent import Errand, Intent
from mirror.manifest import Entry, Folder, Symlink
from mirror.pick import Reading
from mirror.plan import DeletionLimit
from mirror.refill import SiteOut
from mirror.restore import RestoreOptions, RestoreReport, restore
from mirror.site import Filter, SiteSpec
from mirror.site.open import open_writable
from mirror.target import TargetSpec

NS = 1_000_000_000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The awkward site, without the two names that SeaweedFS or S3 cannot have."""
    root = make_site(tmp_path / "site")
    os.unlink(os.path.join(bytes(root), b"odd", b"latin-\xe9.html"))
    os.unlink(root / "odd" / "back\\slash")
    write(root / "movie.bin", noise(11_000_000, 7))
    settle(root)
    return root


@pytest.fixture
def target(tmp_path: Path, site: Path) -> TargetSpec:
    spec = target_in(tmp_path)
    mirror(site, spec)
    return spec


@dataclass(frozen=True)
class Out:
    """Where to restore to, what is really there, and a way to put something there past us."""

    spec: SiteSpec
    look: Callable[[], dict[str, bytes]]
    plant: Callable[[str, bytes], None]

    def fill(self, target: TargetSpec, **options: Any) -> RestoreReport:
        return restore(target, self.spec, RestoreOptions(**options))


def in_bucket(s3: S3) -> Out:
    start = f"{s3.prefix}/www/"

    def look() -> dict[str, bytes]:
        return {name: s3.client.get_object(Bucket=s3.bucket, Key=start + name)["Body"].read() for name in s3.objects("www")}

    def plant(name: str, data: bytes) -> None:
        s3.client.put_object(Bucket=s3.bucket, Key=start + name, Body=data)

    return Out(SiteSpec(s3.url("www"), endpoint_url=s3.endpoint_url, region=s3.region, static_credentials=True), look, plant)


def in_memory() -> Out:
    import fsspec

    root, files = f"/{uuid.uuid4().hex}", fsspec.filesystem("memory")

    def look() -> dict[str, bytes]:
        return {name.removeprefix(f"{root}/"): data.getvalue() for name, data in files.store.items() if name.startswith(root)}

    def plant(name: str, data: bytes) -> None:
        files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe(f"{root}/{name}", data)

    return Out(SiteSpec(f"memory:/{root}"), look, plant)


@pytest.fixture(params=["s3", "memory"])
def out(request: pytest.FixtureRequest) -> Out:
    return in_bucket(request.getfixturevalue("s3")) if request.param == "s3" else in_memory()


@pytest.fixture
def bucket(s3: S3) -> Out:
    return in_bucket(s3)


def contents(root: Path) -> dict[str, bytes]:
    """Every regular file of a folder, links left out."""
    found = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder, name)
            if not path.is_symlink():
                found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


def versions(s3: S3) -> dict[str, tuple[str, Any]]:
    """ETag and time of every object: whoever wrote it changed them."""
    pages = s3.client.get_paginator("list_objects_v2").paginate(Bucket=s3.bucket, Prefix=f"{s3.prefix}/www/")
    listed = [each for page in pages for each in page.get("Contents", ())]
    return {each["Key"].partition("/www/")[2]: (each["ETag"], each["LastModified"]) for each in listed}


# -- what arrives ---------------------------------------------------------------------------------------------------------


def test_every_file_arrives_byte_for_byte(site: Path, target: TargetSpec, out: Out) -> None:
    report = out.fill(target)
    assert out.look() == contents(site)
    assert report.files_written == len(contents(site))
    assert report.bytes_written == sum(map(len, contents(site).values()))
    assert {(problem.path, problem.kind) for problem in report.problems} == {("link", "special"), ("broken", "special")}
    assert report.exit_code == 0
    (notice,) = report.notices
    assert f"of {len(contents(site))} files" in notice
    assert "2 hard links" in notice
    assert ("1 empty folders" in notice) == out.spec.url.startswith("s3"), "hollow/er"


def test_a_tree_gives_what_no_pack_has(site: Path, tmp_path: Path, out: Out) -> None:
    """What is live only, what has moved since, and what was displaced; a live file that a stranger changed fails alone."""
    tree, nights = target_in(tmp_path, "live"), {}
    for change in ("", "moved", "changed"):
        if change == "moved":
            (site / "movie.bin").rename(site / "pages" / "cinema.bin")
            (site / "big.bin").rename(site / "a" / "big too.bin")
        elif change:
            write(site / "pages" / "cinema.bin", noise(11_000_000, 7) + b"the end", BEGINNING + 1)
            write(site / "index.html", b"<h1>changed</h1>", BEGINNING + 1)
        settle(site)
        nights[clean(site, tree).snapshot] = contents(site)
    for number, night in nights.items():
        report = out.fill(tree, at=str(number), in_place=True, delete=True, max_delete=DeletionLimit(percent=100))
        assert {problem.kind for problem in report.problems} == {"special"}, report.problems
        assert out.look() == night
    (Path(tree.store.url) / "a" / "big too.bin").write_bytes(b"x" * 2_000_000)
    report = out.fill(tree, at=str(min(nights)), in_place=True)
    assert [problem.path for problem in report.problems if problem.kind == "damaged"] == ["big.bin"]
    assert report.exit_code == 4


def test_rclone_finds_nothing_to_do(site: Path, target: TargetSpec, s3: S3, bucket: Out) -> None:
    bucket.fill(target)
    remote = f":s3:{s3.bucket}/{s3.prefix}/www"
    how = ["--config", "", "--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", s3.endpoint_url, "--s3-region", s3.region]
    for command in (["check", "--download"], ["copy", "--dry-run"]):
        done = subprocess.run(["rclone", *command, site, remote, *how], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "ERROR" not in done.stderr
        assert "Skipped copy" not in done.stderr, "sizes and times are those of the source"
    (site / "index.html").write_bytes(b"<h1>HELLO</h1>\n")
    done = subprocess.run(["rclone", "check", "--download", site, remote, *how], capture_output=True, text=True, check=False)
    assert done.returncode != 0, "it would have seen a difference"


def test_objects_are_served_as_what_they_are(target: TargetSpec, s3: S3, bucket: Out) -> None:
    bucket.fill(target)
    page = s3.client.head_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/pages/page-03.html")
    assert page["ContentType"] == "text/html"
    assert page["Metadata"]["mtime"] == f"1700000000.{123456789 + 3}"


def test_a_part(target: TargetSpec, site: Path, out: Out) -> None:
    out.plant("other", b"stays")
    report = out.fill(target, paths=(b"pages", b"a/b/c/d/deep"), in_place=True, delete=True)
    wanted = {name: data for name, data in contents(site).items() if name.startswith("pages/") or name == "a/b/c/d/deep"}
    assert out.look() == wanted | {"other": b"stays"}
    assert (report.added >= len(wanted), report.deleted) == (True, 0)


def test_from_one_bucket_to_another_place_in_it(site: Path, s3: S3, bucket: Out, tmp_path: Path) -> None:
    target = TargetSpec(s3.spec("target"), tmp_path / "cache")
    mirror(site, target)
    bucket.fill(target)
    assert bucket.look() == contents(site)


def test_a_restored_bucket_is_a_source(site: Path, target: TargetSpec, bucket: Out, tmp_path: Path) -> None:
    bucket.fill(target)
    again = cli("sync", bucket.spec.url, tmp_path / "second", "--layout", "packed", "--endpoint-url", bucket.spec.endpoint_url)
    assert again.code == 0, again.err
    done = cli("restore", tmp_path / "second", tmp_path / "folder")
    assert done.code == 0, done.err
    assert contents(tmp_path / "folder") == contents(site)


# -- what is left alone ---------------------------------------------------------------------------------------------------


def test_a_place_that_is_not_empty_needs_in_place(target: TargetSpec, site: Path, out: Out) -> None:
    out.plant("mine", b"mine")
    options = ("--endpoint-url", out.spec.endpoint_url) if out.spec.endpoint_url else ()
    refused = cli("restore", target.store.url, out.spec.url, *options)
    assert refused.code == 2
    assert "1 others left alone" in refused.error
    assert "--in-place" in refused.error
    planned = cli("restore", target.store.url, out.spec.url, "-n", *options)
    assert planned.code == 0
    assert "+ big.bin" in planned.out
    assert out.look() == {"mine": b"mine"}
    done = cli("restore", target.store.url, out.spec.url, "--in-place", *options)
    assert done.code == 0, done.err
    assert out.look() == contents(site) | {"mine": b"mine"}


def test_in_place_writes_only_what_differs(target: TargetSpec, site: Path, s3: S3, bucket: Out) -> None:
    bucket.fill(target)
    before = versions(s3)
    report = bucket.fill(target, in_place=True)
    assert (report.added, report.changed, report.described, report.files_written) == (0, 0, 0, 0)
    assert report.same == len(contents(site))
    assert versions(s3) == before
    bucket.plant("index.html", b"defaced")
    bucket.plant("empty", b"no more")
    s3.client.delete_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/movie.bin")
    report = bucket.fill(target, in_place=True)
    assert (report.added, report.changed, report.files_written) == (1, 2, 3)
    assert bucket.look() == contents(site)
    after = versions(s3)
    assert {name for name in after if name not in ("index.html", "empty", "movie.bin") and after[name] != before[name]} == set()


def test_what_has_no_time_of_ours_is_written_anew_unless_it_is_read(target: TargetSpec, site: Path, s3: S3, bucket: Out) -> None:
    """Somebody copied the same bytes there with another tool: -c reads, and describes by a copy on the other side."""
    for name, data in contents(site).items():
        bucket.plant(name, data)
    bucket.plant("index.html", b"<h1>HACKED</h1>"[:15])
    count = len(contents(site))
    planned = bucket.fill(target, dry_run=True, checksum=True)
    assert (planned.changed, planned.described) == (1, count - 1)
    report = bucket.fill(target, in_place=True, checksum=True)
    assert (report.files_written, report.described, report.files_kept) == (1, count - 1, count - 1)
    assert bucket.look() == contents(site)
    quiet = bucket.fill(target, in_place=True)
    assert (quiet.changed, quiet.described, quiet.same) == (0, 0, count), "times are kept now"
    bucket.plant("pages/page-01.html", contents(site)["pages/page-01.html"])
    assert bucket.fill(target, in_place=True).files_written == 1


def test_checksum_finds_what_size_and_time_hide(target: TargetSpec, site: Path, s3: S3, bucket: Out) -> None:
    bucket.fill(target)
    hacked = b"<h1>HACKED</h1>"[:15]
    assert len(hacked) == len(contents(site)["index.html"])
    s3.client.put_object(
        Bucket=s3.bucket, Key=f"{s3.prefix}/www/index.html", Body=hacked, Metadata={"mtime": "1700000000.123456789"}
    )
    assert bucket.fill(target, in_place=True).files_written == 0
    report = bucket.fill(target, in_place=True, checksum=True)
    assert (report.files_written, report.described) == (1, 0)
    assert bucket.look() == contents(site)


def test_without_times_files_of_the_same_size_are_read(target: TargetSpec, site: Path) -> None:
    out = in_memory()
    out.fill(target)
    out.plant("index.html", b"<h1>HACKED</h1>"[:15])
    report = out.fill(target, in_place=True)
    assert (report.changed, report.files_written, report.files_kept) == (1, 1, len(contents(site)) - 1)
    assert out.look() == contents(site)


def test_extra_files_go_only_with_delete_and_not_too_many(target: TargetSpec, site: Path, out: Out) -> None:
    out.fill(target)
    for number in range(120):
        out.plant(f"extra/{number}", b"x")
    out.plant("pages/extra too", b"x")
    options = ("--endpoint-url", out.spec.endpoint_url) if out.spec.endpoint_url else ()
    kept = cli("restore", target.store.url, out.spec.url, "--in-place", *options)
    assert kept.code == 0
    assert "not in the snapshot" in kept.err
    full = out.look()
    assert len(full) == len(contents(site)) + 121
    refused = cli("restore", target.store.url, out.spec.url, "--in-place", "--delete", *options)
    assert refused.code == 25
    assert out.look() == full
    planned = cli("restore", target.store.url, out.spec.url, "-n", "--delete", "--max-delete", "100%", *options)
    assert len([line for line in planned.out.splitlines() if line.startswith("- ") and not line.endswith("/")]) == 121
    done = cli("restore", target.store.url, out.spec.url, "--in-place", "--delete", "--max-delete", "100%", *options)
    assert done.code == 0, done.err
    assert out.look() == contents(site)


def test_leftovers_of_a_dead_run_go_where_we_make_such(target: TargetSpec, site: Path, out: Out) -> None:
    left = "pages/.mirror-tmp-0123456789abcdef"
    out.plant(left, b"half")
    out.fill(target, in_place=True)
    assert (left in out.look()) == out.spec.url.startswith("s3"), "no name in a bucket is ours to take"


def test_rules_protect_what_they_leave_out(target: TargetSpec, site: Path, out: Out) -> None:
    out.plant("pages/mine.html", b"mine")
    out.plant("big.bin", b"mine, too")
    out.plant("extra", b"goes")
    rules = ("--exclude", "pages/", "--exclude", "/big.bin")
    options = ("--endpoint-url", out.spec.endpoint_url) if out.spec.endpoint_url else ()
    done = cli("restore", target.store.url, out.spec.url, "--in-place", "--delete", "--max-delete", 3, *rules, *options)
    assert done.code == 0, done.err
    wanted = {name: data for name, data in contents(site).items() if not name.startswith("pages/") and name != "big.bin"}
    assert out.look() == wanted | {"pages/mine.html": b"mine", "big.bin": b"mine, too"}


@pytest.mark.parametrize(("overwrite", "kept"), [("always", ""), ("if-newer", "newer"), ("never", "newer older")])
def test_overwrite(target: TargetSpec, site: Path, s3: S3, bucket: Out, overwrite: str, kept: str) -> None:
    for name, data, mtime in (("index.html", b"newer", BEGINNING + NS), ("empty", b"older", BEGINNING - NS)):
        key = f"{s3.prefix}/www/{name}"
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=data, Metadata={"mtime": f"{mtime / NS:.9f}"})
    bucket.fill(target, in_place=True, overwrite=overwrite)
    found = bucket.look()
    assert (found["index.html"] == b"newer") == ("newer" in kept)
    assert (found["empty"] == b"older") == ("older" in kept)
    assert found.keys() == contents(site).keys()
    assert found["movie.bin"] == contents(site)["movie.bin"]


def test_a_folder_where_a_file_must_be_is_that_files_problem(target: TargetSpec, site: Path) -> None:
    """And a file where a folder must be: that of all that is to be in it."""
    out = in_memory()
    out.plant("index.html/below", b"mine")
    out.plant("a", b"mine, too")
    report = out.fill(target, in_place=True, delete=True, max_delete=DeletionLimit(percent=100))
    assert {(problem.path, problem.kind) for problem in report.problems if problem.kind != "special"} >= {
        ("index.html", "unwritable"),
        ("a/b/c/d/deep", "unwritable"),
    }
    assert report.exit_code == 23
    wanted = {name: data for name, data in contents(site).items() if name not in ("index.html", "a/b/c/d/deep")}
    assert out.look() == wanted | {"index.html/below": b"mine", "a": b"mine, too"}, "nothing is deleted after a failure"


# -- what cannot be -------------------------------------------------------------------------------------------------------


def test_strict_metadata_is_not_to_be_had(target: TargetSpec, out: Out) -> None:
    report = out.fill(target, strict_metadata=True)
    assert report.exit_code == 23
    (problem,) = [problem for problem in report.problems if problem.kind == "metadata"]
    assert "restore into a folder" in problem.hint


@pytest.mark.parametrize("flag", [{"chmod": "644"}, {"chown": "0"}])
def test_modes_and_owners_cannot_be_asked_for(target: TargetSpec, out: Out, flag: dict[str, str]) -> None:
    done = cli("restore", target.store.url, out.spec.url, *(word for name, value in flag.items() for word in (f"--{name}", value)))
    assert done.code == 2
    assert f"--{next(iter(flag))}" in done.error
    assert out.look() == {}


def test_a_name_that_no_key_can_have_is_that_files_problem(tmp_path: Path, bucket: Out) -> None:
    site = tmp_path / "latin"
    write(site / "good", b"good")
    write(Path(os.fsdecode(os.path.join(bytes(site), b"latin-\xe9.html"))), b"")
    write(site.joinpath(*["d" * 200] * 6), b"deep")
    mirror(site, target_in(tmp_path))
    report = bucket.fill(target_in(tmp_path))
    assert {(problem.path, problem.kind) for problem in report.problems} == {
        ("latin-\\xe9.html", "name"),
        ("/".join(["d" * 200] * 6), "name"),
    }
    assert all(problem.hint for problem in report.problems)
    assert report.exit_code == 23
    assert bucket.look() == {"good": b"good"}


@pytest.mark.parametrize(("a", "b"), [("www", "www"), ("www", "www/sub"), ("www/sub", "www")])
def test_out_and_target_lie_apart(tmp_path: Path, s3: S3, a: str, b: str) -> None:
    write(tmp_path / "small" / "index.html", b"")
    mirror(tmp_path / "small", TargetSpec(s3.spec(a)))
    before = s3.objects()
    done = cli("restore", s3.url(a), s3.url(b), "--in-place", "--delete", "--endpoint-url", s3.endpoint_url)
    assert done.code == 2
    assert "lie apart" in done.error
    assert s3.objects() == before


def test_a_folder_through_fsspec_may_not_hold_the_target(target: TargetSpec, tmp_path: Path) -> None:
    done = cli("restore", target.store.url, f"local://{tmp_path}", "--in-place", "--delete", "--max-delete", "100%")
    assert done.code == 2
    assert "lie apart" in done.error


def test_a_bucket_that_is_not_there(target: TargetSpec, s3: S3) -> None:
    done = cli("restore", target.store.url, f"s3://no-{uuid.uuid4().hex}/x", "--endpoint-url", s3.endpoint_url)
    assert done.code == 2
    assert "cannot restore into" in done.error
    assert "there is no bucket" in done.error
    assert "source" not in done.error


def test_who_may_only_read_is_told_before_long(target: TargetSpec, s3: S3, bucket: Out, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.server.reader.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.server.reader.secret_key)
    done = cli("restore", target.store.url, bucket.spec.url, "--endpoint-url", s3.endpoint_url)
    assert done.code == 7
    assert "source" not in done.error
    assert bucket.look() == {}


def test_damage_is_told_and_nothing_is_deleted(target: TargetSpec, site: Path, out: Out) -> None:
    out.plant("extra", b"stays")
    out.plant("big.bin", b"the old one")
    for pack in Path(target.store.url).glob("packs/*/*"):
        data = bytearray(pack.read_bytes())
        for content in (noise(2_000_000), noise(11_000_000, 7)):
            if (at := data.find(content[:64])) >= 0:
                data[at + 10] ^= 1
        pack.write_bytes(data)
    report = out.fill(target, in_place=True, delete=True)
    hurt = {problem.path for problem in report.problems if problem.kind == "damaged"}
    assert {"big.bin", "movie.bin"} <= hurt
    assert len(hurt) < 8
    assert report.exit_code == 4
    assert "nothing was deleted" in " ".join(report.notices)
    found = out.look()
    assert (found["extra"], found["big.bin"]) == (b"stays", b"the old one")
    assert "movie.bin" not in found
    assert {name: data for name, data in found.items() if name not in ("extra", "big.bin")} == {
        name: data for name, data in contents(site).items() if name not in hurt
    }


@pytest.mark.parametrize("path", [b"../x", b"a/../../x", b"/etc/x", b"..", b"a\0b"], ids=repr)
def test_a_hostile_manifest_stays_in_its_place(tmp_path: Path, out: Out, s3: S3, path: bytes) -> None:
    enemy = Enemy(tmp_path / "target")
    enemy.chunks(b"evil")
    entries: list[Entry] = [Folder(b""), file(path, b"evil")]
    enemy.site(entries)
    before = s3.client.list_objects_v2(Bucket=s3.bucket)["KeyCount"]
    options = ("--endpoint-url", out.spec.endpoint_url) if out.spec.endpoint_url else ()
    assert cli("restore", enemy.root, out.spec.url, *options).code in (4, 23)
    assert s3.client.list_objects_v2(Bucket=s3.bucket)["KeyCount"] == before
    assert out.look() == {}


def test_a_hostile_file_that_lies_about_itself(tmp_path: Path, out: Out) -> None:
    enemy = Enemy(tmp_path / "target")
    (_, _, id_) = enemy.chunks(b"evil", b"good", bytes(1 << 20))
    enemy.site(
        [
            Folder(b""),
            file(b"good", b"good", headers=(("x-amz-acl", "public-read"),), media_type="a/b\r\nx: y"),
            file(b"huge", b"evil", size=1 << 60),
            file(b"large", size=9 << 20, chunks=id_ * 9, fingerprint=bytes(16)),
            file(b"large and long", size=9 << 20, chunks=id_ * 10),
            file(b"large and short", size=9 << 20, chunks=id_ * 8),
            file(b"print", b"evil", fingerprint=bytes(16)),
            file(b"short", b"evil", size=3),
            Symlink(b"z", b"/etc/passwd"),
        ]
    )
    large = {"large", "large and long", "large and short"}
    report = out.fill(TargetSpec(target_in(tmp_path).store))
    assert {problem.path for problem in report.problems if problem.kind == "damaged"} >= large | {"print", "short"}
    assert {problem.path for problem in report.problems} == large | {"huge", "print", "short", "z"}
    assert out.look() == {"good": b"good"}


def test_a_run_that_died_goes_on(target: TargetSpec, site: Path, s3: S3, bucket: Out) -> None:
    puts = iter(range(1, 10_000))

    def reply(method: str, path: str, number: int) -> Answer | None:
        return s3_error(403, "ExpiredToken", "over") if method == "PUT" and next(puts) > 30 else None

    with scripted_http(reply, s3.endpoint_url.removeprefix("http://")) as address:
        died = cli("restore", target.store.url, bucket.spec.url, "--endpoint-url", f"http://{address}")
    assert died.code == 7, died.err
    there = bucket.look()
    assert there
    assert there.items() <= contents(site).items(), "what is there is whole"
    report = bucket.fill(target, in_place=True)
    assert report.files_written == len(contents(site)) - len(there)
    assert bucket.look() == contents(site)


def test_it_stops_in_time_and_goes_on(target: TargetSpec, site: Path, out: Out) -> None:
    with pytest.raises(DurationLimitError, match="--in-place to go on"):
        out.fill(target, max_duration=0.0)
    out.fill(target, in_place=True)
    assert out.look() == contents(site)


def test_what_a_prune_moved_is_found_again(site: Path) -> None:
    """The packs are written again under other names after the index was read; the old ones are gone."""
    spec, store = in_memory_target(f"moved-{uuid.uuid4().hex}")
    mirror(site, spec)
    out = in_memory()
    with Reading(spec) as reading:
        record = reading.pick("latest")
        _ = reading.index
        repacked(store, reading.target.uuid)
        places = SiteOut(open_writable(out.spec), Intent())
        survey, filled = places.compare(
            (adapted for entry in reading.entries(record) if (adapted := places.adapted(entry)[0])), Filter(), pytest.fail
        )
        assert not filled
        with survey:
            done = places.write(Errand(reading, record, survey, 0, Job("restore"), pytest.fail, pytest.fail, pytest.fail))
    assert done.files_written == len(contents(site))
    assert out.look() == contents(site)
