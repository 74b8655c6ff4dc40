"""Trees that people see: a site as a weblog has it, ways to host a tree of it, and what must hold of every one of them.

    hosted = on_nginx(site, target, nginx)
    assert_urls_give_the_source(hosted, site)     each file by its URL
    rsync_finds_nothing(site, root)               other people's tools agree

What is right is said by the source folder, and by rsync, rclone and s5cmd; never by mirror.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from conftest import S3
from mirrors import BEGINNING, noise, settle, write
from nginx import Nginx
from servers import Visitor, url_of
from test_hosting import policy_of
from trees import clean

from mirror.contents import ls
from mirror.manifest import File, Symlink
from mirror.site import SiteSpec
from mirror.store import StoreSpec
from mirror.sync import sync
from mirror.target import TargetSpec

# Names that mean something to a URL, a shell, a server or a file system, and that every host here can keep.
UPLOADS = (
    "Sommer 2026.jpg", "Grüße aus Köln.png", "cafe\u0301.jpg", "café.jpg", "日本.webp", "100%.png", "%2e%2e",
    "a%20b.txt", "a b.txt", "%00.txt", "c++.html", "a+b", "what?.html", "what", "#1.png", "page.html#top",
    "q?a=b&c=d", "a&b", "x=y", "semi;colon", "co:lon", "com,ma", "at@2x.png", "it's.txt", 'quo"te.txt', "<b>.txt",
    "[1].txt", "{2}.txt", "pipe|.txt", "ca^ret", "grave`", "tilde~", "$var", "star*.txt", "-rf", "...", "..hidden",
    "end.", "space ", " space", "é" * 100, "UPPER.TXT", "upper.txt",
)  # fmt: skip
# What only a folder can keep; SeaweedFS takes a backslash for a slash.
FOLDER_ONLY = (b"latin-\xe9.jpg", b"back\\slash.txt", b"new\nline.txt", b"tab\there")


def make_weblog(root: Path, *, folder_only: bool = True) -> Path:
    """A weblog as PHP has it (about 25 MB): many small sources, deep plugins, uploads with all names, dot files, big pictures.

    folder_only: also names and links that a bucket cannot keep.
    """
    for name in ("index", "wp-login", "wp-settings", "xmlrpc"):
        write(root / f"{name}.php", f"<?php require '{name}'; ?>\n".encode() * 30)
    for number in range(60):
        folder = root / "wp-content" / "plugins" / f"plugin-{number % 7}" / "src" / f"{number % 3}"
        write(folder / f"class-{number:02}.php", f"<?php class C{number} {{}}\n".encode() * (number * 9), BEGINNING + number)
        write(folder / f"class-{number:02}.min.js", f"var c{number};".encode() * 40, BEGINNING + number)
    for folder in ("", "wp-content", "wp-content/plugins", "wp-content/uploads"):
        write(root / folder / "index.php", b"<?php // Silence is golden.\n")
    for number, name in enumerate(UPLOADS):
        write(
            root / "wp-content" / "uploads" / "2026" / "11" / name, name.encode() + noise(number * 50, number), BEGINNING + number
        )
    for number, size in enumerate((4_000_000, 6_300_000, 11_000_000)):  # the last one goes to a bucket in parts
        write(root / "wp-content" / "uploads" / "2026" / f"DSC0000{number}.JPG", noise(size, number))
    write(root / ".htaccess", b"# BEGIN WordPress\n")
    write(root / ".well-known" / "security.txt", b"Contact: mailto:a@example.org\n")
    write(root / ".mirrored", b"begins like the store")
    write(root / "wp-content" / ".mirror" / "mine.txt", b"a folder of that name, elsewhere")
    write(root / "empty.txt", b"")
    write(root.joinpath(*"abcdefghijklmnopqrstuvwxyz") / "deep.html", b"<p>deep</p>")
    os.link(root / "index.php", root / "index-too.php")
    if folder_only:
        for name in FOLDER_ONLY:
            path = os.path.join(bytes(root), b"wp-content", b"uploads", name)
            with open(path, "wb") as stream:
                stream.write(name)
            os.utime(path, ns=(BEGINNING, BEGINNING))
        (root / "current").symlink_to("wp-content/uploads/2026")
        (root / "logo.jpg").symlink_to("wp-content/uploads/2026/DSC00000.JPG")
        (root / "broken").symlink_to("nowhere")
    settle(root)
    return root


@dataclass(frozen=True)
class Hosted:
    """A target whose site people can ask for. base: URL path of its root, without a slash at the end; links: whether links are
    there."""

    target: TargetSpec
    port: int
    base: str = ""
    links: bool = True


def on_nginx(site: Path, target: TargetSpec, nginx: Callable[..., Nginx]) -> Hosted:
    """A tree in a folder behind nginx."""
    clean(site, target)
    return Hosted(target, nginx(Path(target.store.url)).port)


def on_bucket(site: Path, folder: Path, s3: S3) -> Hosted:
    """The site in a bucket that everybody may read, as a tree that fills it. folder: for what this host remembers."""
    bucket = public_bucket(s3)
    store = StoreSpec(f"s3://{bucket}", endpoint_url=s3.endpoint_url, region=s3.region, static_credentials=True)
    target = TargetSpec(store, folder / "cache")
    report = sync(SiteSpec(str(site)), target)
    assert report.problems == [], report.problems
    return Hosted(target, s3.server.port, f"/{bucket}", links=False)


def public_bucket(s3: S3) -> str:
    """A bucket with the policy of docs/hosting.md."""
    bucket = s3.server.new_bucket()
    s3.client.put_bucket_policy(Bucket=bucket, Policy=policy_of(bucket))
    return bucket


def assert_urls_give_the_source(hosted: Hosted, site: Path) -> int:
    """Every file that `ls` names, fetched by its URL, is the source's, byte for byte; and `ls` names every file. How many."""
    named = [entry.path for entry in ls(hosted.target) if isinstance(entry, File | Symlink)]
    assert not (odd := set(named) ^ {path for path, _ in files_of(site)}), odd
    wrong: dict[bytes, str] = {}
    looked = 0
    with Visitor(hosted.port) as visitor:
        for path in named:
            source = os.path.join(bytes(site), path)
            if not os.path.isfile(source) or (os.path.islink(source) and not hosted.links):
                continue  # a link to a folder, or to nothing
            looked += 1
            with open(source, "rb") as stream:
                data = stream.read()
            answer = visitor.ask(hosted.base + url_of(path))
            if (answer.status, answer.body) != (200, data):
                wrong[path] = f"{answer.status}, {len(answer.body)} bytes instead of {len(data)}"
    assert wrong == {}, wrong
    return looked


def files_of(root: Path, *, store: bool = False) -> list[tuple[bytes, os.stat_result]]:
    """Paths of all that is no folder, asked of the system. store: also what is in `.mirror/`."""
    found = []
    for folder, folders, names in os.walk(bytes(root)):
        if folder == bytes(root) and not store and b".mirror" in folders:
            folders.remove(b".mirror")
        for name in [*names, *(each for each in folders if os.path.islink(os.path.join(folder, each)))]:
            path = os.path.join(folder, name)
            found.append((os.path.relpath(path, bytes(root)), os.lstat(path)))
    return found


# -- other people's tools --------------------------------------------------------------------------------------------


def rsync_finds_nothing(site: Path, root: Path) -> None:
    """Content, types, times, modes, owners, hard links, and nothing that the source does not have."""
    done = _run("rsync", "-aHni", "--checksum", "--delete", "--exclude=/.mirror", f"{site}/", f"{root}/")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


def rclone_finds_nothing(site: Path, remote: str, *how: str, links: bool = True) -> None:
    """The same files with the same bytes on both sides. remote: a folder or what rclone calls one; how: its options."""
    files = [path for path, seen in files_of(site) if stat.S_ISREG(seen.st_mode) or links]
    options = [
        "--config",
        "",
        "--download",
        "--filter",
        "- /.mirror/**",
        "--stats",
        "0",
        "--no-unicode-normalization",
        *(["--links"] if links else []),
        *how,
    ]
    done = _run("rclone", "check", str(site), remote, *options)
    assert done.returncode == 0, done.stderr
    assert "0 differences found" in done.stderr, done.stderr
    assert re.search(rf"\b{len(files)} matching files", done.stderr), (len(files), done.stderr)


def s5cmd_finds_nothing(site: Path, url: str, endpoint_url: str) -> None:
    """Nothing to copy and, but for the store, nothing to delete. Credentials are in the environment. Links are left out: one that
    leads nowhere makes s5cmd take the whole source for empty."""
    words = (
        "--endpoint-url",
        endpoint_url,
        "--dry-run",
        "sync",
        "--no-follow-symlinks",
        "--size-only",
        "--delete",
        "--exclude",
        ".mirror/*",
        f"{site}/",
        f"{url}/",
    )
    done = _run("s5cmd", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done


def rclone_to(s3: S3) -> list[str]:
    """How rclone reaches the bucket `:s3:BUCKET/PREFIX`."""
    return ["--s3-provider", "Other", "--s3-env-auth", "--s3-endpoint", s3.endpoint_url, "--s3-region", s3.region]


def _run(tool: str, *words: str) -> subprocess.CompletedProcess[str]:
    assert shutil.which(tool), f"{tool} is missing: it comes with the `test` extra or with the system"
    done = subprocess.run([tool, *words], stdin=subprocess.DEVNULL, capture_output=True, timeout=900, check=False)
    said = (data.decode("utf-8", "backslashreplace") for data in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(done.args, done.returncode, *said)
