"""Targets behind plain web servers, read as anybody could: nginx, Python's own server without ranges, a public bucket, and servers
that break. What is right is said by the site that was mirrored, and by the same verbs on the target itself."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import S3
from hosted import make_weblog
from mirrors import BEGINNING, Item, mirror, noise, settle, target_in, three_nights, tree, write
from nginx import Nginx
from trees import clean, publish
from webservers import Asked, Say, WebServer, python_server

import mirror as mirror_api
from mirror.cli import main
from mirror.contents import cat, ls, snapshots, sums
from mirror.create import init
from mirror.differ import diff, diff_site
from mirror.errors import DamageError, MirrorError, TargetMissingError, TemporaryError, UsageError
from mirror.making import Making
from mirror.restore import RestoreOptions, restore
from mirror.rollback import RollbackOptions, rollback
from mirror.site import SiteSpec
from mirror.store import StoreSpec
from mirror.store.web import WebStore
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec
from mirror.verify import VerifyOptions, verify

OPEN = "server { listen 80; root /srv/www; autoindex off; }"
Serve = Callable[[Path], str]


@pytest.fixture(params=["nginx", "python"])
def serve(request: pytest.FixtureRequest, nginx: Callable[..., Nginx]) -> Iterator[Serve]:
    """Serves a folder as it is; gives its URL."""
    if request.param == "nginx":
        yield lambda root: f"http://{nginx(root, OPEN).address}"
        return
    with ExitStack() as running:
        yield lambda root: running.enter_context(python_server(root))


@dataclass(frozen=True)
class Kept:
    """A packed target in a folder, with three snapshots; what was in each; the site as it is now."""

    folder: Path
    nights: list[dict[bytes, Item]]

    @property
    def target(self) -> TargetSpec:
        return target_in(self.folder)

    @property
    def root(self) -> Path:
        return self.folder / "target"

    @property
    def site(self) -> SiteSpec:
        return SiteSpec(str(self.folder / "site"))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """To be read only."""
    folder = tmp_path_factory.mktemp("kept")
    return Kept(folder, three_nights(folder, target_in(folder)))


@pytest.fixture
def spoilt(kept: Kept, tmp_path: Path) -> Kept:
    """A copy, of which something may be spoilt."""
    shutil.copytree(kept.root, tmp_path / "target")
    return Kept(tmp_path, kept.nights)


def at(url: str, cache: Path | None = None, store: str = "") -> TargetSpec:
    return TargetSpec(StoreSpec(url), cache, StoreSpec(store))


def restored(target: TargetSpec, out: Path, number: int | str = "latest", **options: object) -> dict[bytes, Item]:
    report = restore(target, str(out), RestoreOptions(at=str(number), workers=0, **options))  # type: ignore[arg-type]
    assert report.problems == [], report.problems
    found = tree(out)
    shutil.rmtree(out)
    return found


# -- packed --------------------------------------------------------------------------------------------------------------


def test_a_packed_target_can_be_read_in_all_ways(tmp_path: Path, serve: Serve, kept: Kept) -> None:
    target, nights = kept.target, kept.nights
    web = at(serve(kept.root), tmp_path / "other-cache")
    for number, night in enumerate(nights, 1):
        assert restored(web, tmp_path / "out", number) == night
    assert restored(web, tmp_path / "out", "tag:second") == nights[1]
    assert list(ls(web, "2")) == list(ls(target, "2"))
    assert snapshots(web) == snapshots(target)
    assert list(sums(web)) == list(sums(target))
    assert b"".join(cat(web, "1", "index.html")) == b"<h1>hello</h1>\n"
    report = verify(web, VerifyOptions(workers=0))
    assert (report.exit_code, report.records, report.packs_checked, report.requests.get("list", 0)) == (0, 3, 3, 0)
    quick = verify(web, VerifyOptions(quick=True, workers=0))
    assert (quick.exit_code, quick.packs) == (0, 3)
    assert list(diff_site(kept.site, web)) == []
    assert list(diff(web, "1", "3")) == list(diff(target, "1", "3"))
    assert [line.path for line, _ in diff_site(kept.site, web, "2") if line.symbol == "*"] == [b"big.bin"]


def test_worker_processes_read_it_too(tmp_path: Path, nginx: Callable[..., Nginx], kept: Kept) -> None:
    web = at(f"http://{nginx(kept.folder, OPEN).address}/target/")
    assert restore(web, str(tmp_path / "out"), RestoreOptions(workers=2)).problems == []
    assert tree(tmp_path / "out") == kept.nights[-1]
    assert verify(web, VerifyOptions(workers=2)).exit_code == 0


def test_an_interrupted_restore_goes_on(tmp_path: Path, serve: Serve, kept: Kept) -> None:
    web = at(serve(kept.root))
    restore(web, str(tmp_path / "out"), RestoreOptions(paths=(b"pages",), workers=0))
    report = restore(web, str(tmp_path / "out"), RestoreOptions(in_place=True, workers=0))
    assert report.problems == []
    assert tree(tmp_path / "out") == kept.nights[-1]


def test_a_file_is_read_by_its_ranges(tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    site, target = tmp_path / "site", target_in(tmp_path)
    for number in range(12):
        write(site / f"{number:02}.bin", noise(1_500_000, number))
    settle(site)
    mirror(site, target)
    web = at(f"http://{nginx(tmp_path / 'target', OPEN).address}")
    report = restore(web, str(tmp_path / "out"), RestoreOptions(paths=(b"07.bin",), workers=0))
    assert report.problems == []
    assert report.bytes_read < 4_000_000 < sum(path.stat().st_size for path in (tmp_path / "target" / "packs").rglob("*.0"))


@pytest.mark.parametrize("harm", ["flip", "cut", "gone", "page"])
def test_verify_finds_a_damaged_pack(tmp_path: Path, nginx: Callable[..., Nginx], spoilt: Kept, harm: str) -> None:
    web = at(f"http://{nginx(spoilt.root, OPEN).address}")
    pack = min((spoilt.root / "packs").rglob("*.0"))
    pack.chmod(0o600)
    data = pack.read_bytes()
    if harm == "gone":
        pack.unlink()
    else:
        pack.write_bytes({"flip": data[:5000] + bytes([data[5000] ^ 1]) + data[5001:], "cut": data[:9000], "page": b"<html>"}[harm])
    key = f"packs/{pack.parent.name}/{pack.name}"
    found = {problem.path: problem.why for problem in verify(web, VerifyOptions(workers=0)).problems}
    assert key in found
    assert any("damaged in snapshot" in why for path, why in found.items() if path != key)
    quick = verify(web, VerifyOptions(quick=True, workers=0))
    assert [problem.path for problem in quick.problems if problem.path == key] == ([key] if harm != "flip" else [])
    report = restore(web, str(tmp_path / "out"), RestoreOptions(at="1", workers=0))
    assert report.exit_code == 4
    assert {problem.kind for problem in report.problems} == {"damaged"}


# -- servers that break --------------------------------------------------------------------------------------------------


def folder_server(root: Path, twist: Callable[[Asked, Say], Say]) -> WebServer:
    """A folder over HTTP, with a Content-Type by name, where a test may twist each answer."""

    def speak(asked: Asked) -> Say:
        file = root / asked.path.lstrip("/")
        if not file.is_file():
            return twist(asked, Say(404, b"<html>no such thing</html>", {"Content-Type": "text/html"}))
        return twist(asked, Say(200, file.read_bytes(), {"Content-Type": "application/octet-stream"}))

    return WebServer(speak)


def a_page(asked: Asked, say: Say) -> Say:
    return Say(200, b"<!doctype html><p>Welcome!", {"Content-Type": "text/html"}) if say.status == 404 else say


def packed(asked: Asked, say: Say) -> Say:
    return Say(say.status, gzip.compress(say.body), say.headers | {"Content-Encoding": "gzip"}) if asked.method == "GET" else say


def no_length(asked: Asked, say: Say) -> Say:
    return Say(say.status, say.body, say.headers, length=-1)


@pytest.mark.parametrize("twist", [a_page, packed, no_length], ids=lambda twist: twist.__name__)
def test_strange_servers_give_the_same_snapshots(tmp_path: Path, twist: Callable[[Asked, Say], Say], kept: Kept) -> None:
    with folder_server(kept.root, twist) as server:
        assert restored(at(server.url), tmp_path / "out") == kept.nights[2]
        assert restored(at(server.url), tmp_path / "out", 1) == kept.nights[0]
        assert verify(at(server.url), VerifyOptions(workers=0)).exit_code == 0


def test_now_and_then_a_failure_is_no_failure(tmp_path: Path, kept: Kept) -> None:
    count = iter(range(10**9))

    def flaky(asked: Asked, say: Say) -> Say:
        number = next(count)
        if number % 5 == 3:
            return Say(503)
        return Say(say.status, say.body, say.headers, cut=len(say.body) // 2) if number % 5 == 4 and say.body else say

    with folder_server(kept.root, flaky) as server:
        assert restored(at(server.url), tmp_path / "out") == kept.nights[2]


def test_a_server_that_lies_about_a_pack_is_found_out(tmp_path: Path, kept: Kept) -> None:
    def lying(asked: Asked, say: Say) -> Say:
        return Say(200, b"\0" * len(say.body), say.headers) if asked.path.startswith("/packs/") else say

    with folder_server(kept.root, lying) as server:
        report = restore(at(server.url), str(tmp_path / "out"), RestoreOptions(workers=0))
        assert report.exit_code == 4
        assert all((tmp_path / "out" / name).exists() is False for name in ("index.html", "big.bin"))
        assert verify(at(server.url), VerifyOptions(workers=0)).exit_code == 4


def test_a_server_that_dies_in_the_middle_is_told_and_the_restore_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: Kept
) -> None:
    assert WebStore.__init__.__kwdefaults__ is not None
    monkeypatch.setitem(WebStore.__init__.__kwdefaults__, "patience_seconds", 0.5)  # else this takes a minute
    packs = 0

    def dying(asked: Asked, say: Say) -> Say:
        nonlocal packs
        packs += asked.path.startswith("/packs/")
        return Say(hang_up=True) if packs > 1 else say

    with folder_server(kept.root, dying) as server:
        with pytest.raises(TemporaryError, match=r"packs/.*the connection broke off"):
            restore(at(server.url), str(tmp_path / "out"), RestoreOptions(workers=0))
        packs = -(10**9)
        assert restore(at(server.url), str(tmp_path / "out"), RestoreOptions(in_place=True, workers=0)).problems == []
    assert tree(tmp_path / "out") == kept.nights[-1]


def test_a_page_instead_of_everything_is_no_mirror(tmp_path: Path) -> None:
    with folder_server(tmp_path, a_page) as server, pytest.raises(TargetMissingError, match=r"there is no mirror\.json"):
        restore(at(server.url), str(tmp_path / "out"), RestoreOptions(workers=0))


def test_a_spoilt_newest_record_leaves_the_others(tmp_path: Path, nginx: Callable[..., Nginx], spoilt: Kept) -> None:
    record = spoilt.root / "log" / "000000000003.json"
    record.chmod(0o600)
    record.write_bytes(record.read_bytes()[:-20])
    web = at(f"http://{nginx(spoilt.root, OPEN).address}")
    with pytest.raises(DamageError, match="name a snapshot by its number"):
        restore(web, str(tmp_path / "out"), RestoreOptions(workers=0))
    assert restored(web, tmp_path / "out", 2) == spoilt.nights[1]


# -- trees ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path) -> tuple[TargetSpec, dict[int, dict[bytes, Item]]]:
    """A tree with two snapshots, the older one partly displaced, partly moved."""
    site = make_weblog(tmp_path / "site")
    target, nights = target_in(tmp_path, "www"), {}
    nights[clean(site, target).snapshot] = tree(site)
    write(site / "index.php", b"<?php // new", BEGINNING + 5)
    (site / "xmlrpc.php").unlink()
    (site / "wp-content" / "uploads" / "2026" / "DSC00001.JPG").rename(site / "moved.jpg")
    settle(site)
    nights[clean(site, target).snapshot] = tree(site)
    (tmp_path / "www" / ".mirror").chmod(0o755)
    return target, nights


def test_a_tree_can_be_read_at_its_own_urls(
    tmp_path: Path, nginx: Callable[..., Nginx], published: tuple[TargetSpec, dict[int, dict[bytes, Item]]]
) -> None:
    _, nights = published
    url = f"http://{nginx(tmp_path / 'www', OPEN).address}"
    hidden = f"http://{nginx(tmp_path / 'www').address}"  # with the block of docs/hosting.md
    (first, before), (second, now) = nights.items()
    assert restored(at(url), tmp_path / "out", second) == now
    assert restored(at(f"{url}/.mirror"), tmp_path / "out", first) == before
    assert restored(at(hidden, None, f"{url}/.mirror"), tmp_path / "out", first) == before
    report = verify(at(url), VerifyOptions(workers=0))
    assert (report.problems, report.live_files > 100) == ([], True)
    assert b"".join(cat(at(url), "latest", "moved.jpg")) == noise(6_300_000, 1)
    assert list(diff_site(SiteSpec(str(tmp_path / "site")), at(url))) == []
    with pytest.raises(TargetMissingError, match=r"hidden, as it should be, is named with --store"):
        restore(at(hidden), str(tmp_path / "out"), RestoreOptions(workers=0))
    with pytest.raises(UsageError, match="it is the store of a tree"):
        restore(at(f"http://{nginx(tmp_path / 'www' / '.mirror', OPEN).address}"), str(tmp_path / "out"))


def test_verify_finds_what_was_changed_in_a_tree(
    tmp_path: Path, nginx: Callable[..., Nginx], published: tuple[TargetSpec, dict[int, dict[bytes, Item]]]
) -> None:
    www = tmp_path / "www"
    (www / "wp-login.php").unlink()
    (www / "wp-settings.php").write_bytes(b"x" * (www / "wp-settings.php").stat().st_size)
    (www / "empty.txt").write_bytes(b"not any more")
    web = at(f"http://{nginx(www, OPEN).address}")
    found = {problem.path: problem.why for problem in verify(web, VerifyOptions(workers=0)).problems if problem.kind == "differs"}
    assert found.keys() == {"wp-login.php", "wp-settings.php", "empty.txt"}
    quick = {problem.path for problem in verify(web, VerifyOptions(workers=0, quick=True)).problems if problem.kind == "differs"}
    assert quick == {"wp-login.php", "empty.txt"}
    report = restore(web, str(tmp_path / "out"), RestoreOptions(workers=0))
    assert {problem.path for problem in report.problems} == {"wp-login.php", "wp-settings.php"}


def test_a_large_live_file_is_read_on_where_the_connection_broke(tmp_path: Path) -> None:
    site, target = tmp_path / "site", target_in(tmp_path, "www")
    write(site / "large.bin", noise(5_000_000))
    settle(site)
    publish(site, target)
    breaks = iter([True, False, True])

    def breaking(asked: Asked, say: Say) -> Say:
        if asked.path != "/large.bin":
            return say
        start = int(asked.headers.get("range", "bytes=0-")[6:-1])
        part = Say(206 if start else 200, say.body[start:], say.headers)
        return Say(part.status, part.body, part.headers, cut=len(part.body) // 2) if next(breaks, False) else part

    with folder_server(tmp_path / "www", breaking) as server:
        assert restored(at(server.url), tmp_path / "out") == tree(site)
        assert sum(asked.path == "/large.bin" for asked in server.asked) == 2
        assert restored(at(server.url), tmp_path / "out") == tree(site)


# -- buckets -------------------------------------------------------------------------------------------------------------


def open_to_all(s3: S3) -> str:
    """A bucket of which everybody may get objects, and nobody may list."""
    bucket = s3.server.new_bucket()
    statement = {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket}/*"]}
    s3.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    return str(bucket)


def test_a_public_bucket_can_be_read_without_credentials(tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = open_to_all(s3)
    target = TargetSpec(
        StoreSpec(f"s3://{bucket}/packed", endpoint_url=s3.endpoint_url, region=s3.region, static_credentials=True),
        tmp_path / "cache",
    )
    nights = three_nights(tmp_path, target)
    live = TargetSpec(StoreSpec(f"s3://{bucket}/www", endpoint_url=s3.endpoint_url, region=s3.region, static_credentials=True))
    site = tmp_path / "pages"
    write(site / "index.html", b"<h1>one</h1>")
    write(site / "a b+c%.bin", noise(12 << 20))
    settle(site)
    first = tree(site)
    assert sync(SiteSpec(str(site)), live, SyncOptions(making=Making("tree"), workers=0)).problems == []
    write(site / "index.html", b"<h1>two</h1>", BEGINNING + 1)
    write(site / "a b+c%.bin", noise(12 << 20, 5), BEGINNING + 1)
    settle(site)
    assert sync(SiteSpec(str(site)), live, SyncOptions(workers=0)).problems == []
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    url = f"{s3.endpoint_url}/{bucket}"
    for number, night in enumerate(nights, 1):
        assert restored(at(f"{url}/packed"), tmp_path / "out", number) == night
    assert verify(at(f"{url}/packed"), VerifyOptions(workers=0)).exit_code == 0
    files = {path: item[1:2] for path, item in first.items()}
    report = restore(at(f"{url}/www"), str(tmp_path / "out"), RestoreOptions(at="2", workers=0))
    assert report.problems == []
    assert (tmp_path / "out" / "a b+c%.bin").read_bytes() == noise(12 << 20)
    assert (tmp_path / "out" / "index.html").read_bytes() == b"<h1>one</h1>"
    assert files.keys() == tree(tmp_path / "out").keys()
    assert verify(at(f"{url}/www"), VerifyOptions(workers=0)).exit_code == 0


# -- what cannot be done -------------------------------------------------------------------------------------------------


def test_nothing_writes_through_a_web_server(nginx: Callable[..., Nginx], kept: Kept) -> None:
    before = {path: path.stat().st_mtime_ns for path in kept.root.rglob("*")}
    web, site = at(f"http://{nginx(kept.root, OPEN).address}"), kept.site
    writes: list[Callable[[], object]] = [
        lambda: sync(site, web),
        lambda: sync(site, web, SyncOptions(dry_run=True)),
        lambda: rollback(web, RollbackOptions("1")),
        lambda: init(web, Making("packed", "www")),
    ]
    for write_it in writes:
        with pytest.raises(UsageError, match="files behind a web server can only be read"):
            write_it()
    assert before == {path: path.stat().st_mtime_ns for path in kept.root.rglob("*")}


def test_plain_http_to_another_machine_must_be_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = "http://mirror.invalid/www"
    assert main(["ls", url]) == 2
    assert "use https://, or accept that with --insecure" in capfd.readouterr().err
    for accepted in (["--insecure"], []):
        assert main(["ls", url, *accepted]) == 5
        assert "no connection to the server" in capfd.readouterr().err
        monkeypatch.setenv("MIRROR_INSECURE", "yes")
    monkeypatch.setenv("MIRROR_INSECURE", "perhaps")
    assert main(["ls", url]) == 2
    monkeypatch.delenv("MIRROR_INSECURE")
    with pytest.raises(UsageError, match="--insecure"):
        mirror_api.snapshots(url)
    with pytest.raises(TemporaryError):
        mirror_api.snapshots(url, insecure=True)
    Path("mirror.toml").write_text(f'[mirrors.far]\nsource = "site"\ntarget = "{url}"\ninsecure = true\n')
    assert main(["ls", "far"]) == 5
    Path("mirror.toml").write_text(f'[mirrors.far]\nsource = "site"\ntarget = "{url}"\ninsecure = 3\n')
    assert main(["ls", "far"]) == 2


@pytest.mark.parametrize("url", ["https://user:word@host/a", "https://host/a?word=1", "https:///a", "http://h:port/"])
def test_urls_that_are_no_store(url: str) -> None:
    with pytest.raises(UsageError) as found:
        restore(at(url), "/nowhere", RestoreOptions())
    assert "word" not in str(found.value)
    assert isinstance(found.value, MirrorError)
