"""What docs/hosting.md says, tried on real servers: nginx with the very block of the page, SeaweedFS with the very policy.

The store of a tree is not to be had, however its name is spelt; the site's own files are.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import S3
from mirrors import BEGINNING, make_site, settle, target_in, write
from nginx import PAGE, Nginx, server_block
from servers import READER
from trees import clean

from mirror.target import TargetSpec

SPELLINGS = (
    "/.mirror",
    "/.mirror/",
    "/.mirror/log",
    "/.mirror/log/",
    "/.mirror/{file}",
    "/.mirror/{file}?a=b",
    "/.mirror/{file}#a",
    "/.mirror//{file}",
    "/.mirror/./{file}",
    "/.mirror/log/../{file}",
    "//.mirror/{file}",
    "////.mirror//{file}",
    "/./.mirror/{file}",
    "/pages/../.mirror/{file}",
    "/pages/%2e%2e/.mirror/{file}",
    "/pages/..%2f.mirror/{file}",
    "/%2emirror/{file}",
    "/%2Emirror%2F{file}",
    "/.mirror%2f{file}",
    "/%2f.mirror/{file}",
    "/%2e%6d%69%72%72%6f%72",
    "/%2e%6d%69%72%72%6f%72/{file}",
    "http://www.example.org/.mirror/{file}",
    "http://www.example.org//%2emirror/{file}",
)
RULE = re.compile(r"^ *location (?:= /\.mirror|\^~ /\.mirror/) \{ return 404; \}\n", flags=re.M)


@pytest.fixture
def served(tmp_path: Path) -> TargetSpec:
    """A tree with a history, and a stranger's files kept aside that any expression for web files matches. Nothing in its store is
    closed to the server: only the server's rule is tested."""
    target = target_in(tmp_path, "served")
    site = make_site(tmp_path / "site")
    write(site / "style.0123abcd.css", b"a { color: red }")
    write(site / ".well-known" / "security.txt", b"Contact: mailto:a@example.org")
    write(site / ".mirrorignored.txt", b"only begins like it")
    settle(site)
    clean(site, target)
    (site / "index.html").write_text("<h1>second</h1>")
    settle(site)
    clean(site, target)
    store = Path(target.store.url) / ".mirror"
    write(store / "aside" / "3" / "shell.php", b"<?php")
    write(store / "aside" / "3" / "app.0123abcd.js", b"()")
    for path in (store, *store.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return target


def files_of_store(root: Path) -> list[str]:
    found = sorted(path.relative_to(root / ".mirror").as_posix() for path in (root / ".mirror").rglob("*") if path.is_file())
    assert {"mirror.json", "latest.json", "log/000000000001.json", "aside/3/shell.php"} <= {*found}
    assert any(name.startswith("packs/") for name in found)
    return found


def opened(server: Nginx, names: list[str]) -> set[str]:
    """Ways to ask that were not answered with 404."""
    urls = {spelling.format(file=name) for spelling in SPELLINGS for name in names}
    wrong = {url for url in urls if server.get(url).status != 404}
    return wrong | {f"HEAD {url}" for url in urls if server.get(url, "HEAD").status != 404}


def test_nginx_with_the_block_of_the_page_hides_the_store(served: TargetSpec, nginx: Callable[..., Nginx]) -> None:
    root = Path(served.store.url)
    server = nginx(root)
    assert opened(server, files_of_store(root)) == set()
    assert server.get("/").body == b"<h1>second</h1>"
    for path in (
        "index.html",
        "pages/page-07.html",
        "style.0123abcd.css",
        ".well-known/security.txt",
        ".mirrorignored.txt",
        "big.bin",
    ):
        answer = server.get(f"/{path}")
        assert (answer.status, answer.body) == (200, (root / path).read_bytes()), path
    assert "immutable" in server.get("/style.0123abcd.css").headers["cache-control"]
    assert "cache-control" not in server.get("/index.html").headers


def test_without_the_rule_of_the_page_the_store_is_open(served: TargetSpec, nginx: Callable[..., Nginx]) -> None:
    """Else the test above proves nothing."""
    root = Path(served.store.url)
    block, rules = RULE.subn("", server_block())
    assert rules == 2
    found = opened(nginx(root, block), ["mirror.json"])
    missed = {spelling.format(file="mirror.json") for spelling in SPELLINGS if "{file}" in spelling} - found
    assert missed == set()


def test_the_rule_is_as_strong_as_the_page_says(served: TargetSpec, nginx: Callable[..., Nginx]) -> None:
    """Without `^~` an expression opens the store; where slashes are not merged it takes the other rule of the page."""
    root = Path(served.store.url)
    names = files_of_store(root)
    block = server_block()
    weak = nginx(root, block.replace("location ^~ /.mirror/", "location /.mirror/"))
    assert weak.get("/.mirror/aside/3/app.0123abcd.js").status == 200
    apart = block.replace("root /srv/www;", "root /srv/www;\n    merge_slashes off;")
    assert nginx(root, apart).get("//.mirror/mirror.json").status == 200
    other = r"location ~ ^/+\.mirror(/|$)"
    assert f"`{other}`" in PAGE.read_text("utf-8")
    strong, rules = RULE.subn("", apart.replace("index index.html;", f"index index.html;\n    {other} {{ return 404; }}"))
    assert rules == 2
    assert opened(nginx(root, strong), names) == set()


def test_a_cache_of_open_files_is_as_bad_as_the_page_says(tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    site, target = tmp_path / "site", target_in(tmp_path, "served")
    write(site / "index.html", b"first")
    clean(site, target)
    block = server_block()
    assert "    open_file_cache off;\n" in block
    good = nginx(Path(target.store.url))
    bad = nginx(Path(target.store.url), block.replace("open_file_cache off", "open_file_cache max=99; open_file_cache_errors on"))
    for server in (good, bad):
        assert (server.get("/").body, server.get("/new.css").status) == (b"first", 404)
    write(site / "index.html", b"second, names new.css")
    write(site / "new.css", b"a {}")
    settle(site)
    clean(site, target)
    assert (good.get("/").body, good.get("/new.css").status) == (b"second, names new.css", 200)
    assert (bad.get("/").body, bad.get("/new.css").status) == (b"first", 404)


def test_etags_are_as_the_page_says(tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    """The trap for sites whose files all have one time, and the way out."""
    site, target = tmp_path / "site", target_in(tmp_path, "served")
    write(site / "index.html", b"first ")
    clean(site, target)
    plain = nginx(Path(target.store.url))
    without = nginx(Path(target.store.url), server_block().replace("sendfile on;", "etag off; if_modified_since off;"))
    etag, modified = (plain.get("/").headers[name] for name in ("etag", "last-modified"))
    write(site / "index.html", b"second")
    settle(site)
    clean(site, target)
    assert plain.get("/", If_None_Match=etag).status == 304
    for headers in ({"If_None_Match": etag}, {"If_Modified_Since": modified}):
        assert without.get("/", **headers).body == b"second"
    write(site / "index.html", b"third ", BEGINNING + 1_000_000_000)
    settle(site)
    clean(site, target)
    assert plain.get("/", If_None_Match=etag).body == b"third "


def test_the_rule_of_the_readme_is_that_of_the_page() -> None:
    readme = (PAGE.parents[1] / "README.md").read_text("utf-8")
    (block,) = re.findall(r"^```nginx\n(.*?)^```$", readme, flags=re.S | re.M)
    assert block == re.sub(r"^ +", "", "".join(RULE.findall(server_block())), flags=re.M)


def policy_of(bucket: str) -> str:
    """The page's policy for another bucket, and for the account of everybody who has a key of SeaweedFS."""
    (text,) = re.findall(r"^```json\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.S | re.M)
    assert (text.count("www.example.org"), text.count("111122223333")) == (2, 1)
    json.loads(text)
    return str(text).replace("www.example.org", bucket).replace("111122223333", "000000000000")


def test_a_bucket_with_the_policy_of_the_page_hides_the_store(s3: S3, tmp_path: Path) -> None:
    bucket = s3.server.new_bucket()
    keys = ("index.html", "a b/ü+%.txt", ".mirror/mirror.json", ".mirror/log/000000000001.json", ".mirrorignored.txt")
    for key in keys:
        s3.client.put_object(Bucket=bucket, Key=key, Body=key.encode())
    assert s3.server.fetch(bucket, b"index.html").status == 403
    s3.client.put_bucket_policy(Bucket=bucket, Policy=policy_of(bucket))
    give_up = time.monotonic() + 20
    while s3.server.fetch(bucket, b"index.html").status != 200 and time.monotonic() < give_up:
        time.sleep(0.05)
    said = {key: s3.server.fetch(bucket, key.encode()).status for key in keys}
    assert said == {key: 403 if key.startswith(".mirror/") else 200 for key in keys}
    assert s3.server.fetch(bucket, "a b/ü+%.txt".encode()).body == "a b/ü+%.txt".encode()
    for url in (".mirror%2fmirror.json", "%2emirror/mirror.json", "/.mirror/mirror.json", "x/../.mirror/mirror.json"):
        assert s3.server.ask(f"/{bucket}/{url}").status in (400, 403, 404), url
    assert s3.server.ask(f"/{bucket}?list-type=2").status == 403
    for client in (s3.client, s3.server.client(READER)):
        assert client.get_object(Bucket=bucket, Key=".mirror/mirror.json")["Body"].read() == b".mirror/mirror.json"
