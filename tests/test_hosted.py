"""A hosted tree is the source: each of its files by URL, through nginx and out of a bucket, and for the tools that others use."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import S3
from hosted import (
    UPLOADS,
    Hosted,
    assert_urls_give_the_source,
    make_weblog,
    on_bucket,
    on_nginx,
    rclone_finds_nothing,
    rclone_to,
    rsync_finds_nothing,
    s5cmd_finds_nothing,
)
from mirrors import BEGINNING, noise, settle, target_in, write
from nginx import Nginx
from trees import clean


def edit(site: Path) -> None:
    """A day's work on a weblog."""
    uploads = site / "wp-content" / "uploads" / "2026"
    write(uploads / "DSC00001.JPG", noise(3_000_000, 1) + b"retouched" + noise(3_300_000, 9), BEGINNING + 5)
    (uploads / "11" / "what?.html").rename(uploads / "11" / "what? now.html")
    (uploads / "11" / "100%.png").unlink()
    write(site / "wp-content" / "plugins" / "plugin-3" / "update.php", b"<?php // updated", BEGINNING + 5)
    (site / "wp-login.php").chmod(0o640)
    settle(site)


def test_every_file_by_its_url_through_nginx(tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    site, target = make_weblog(tmp_path / "site"), target_in(tmp_path, "live")
    hosted = on_nginx(site, target, nginx)
    assert assert_urls_give_the_source(hosted, site) > 170
    edit(site)
    clean(site, target)
    assert assert_urls_give_the_source(hosted, site) > 170


def test_every_file_by_its_url_out_of_a_bucket(tmp_path: Path, s3: S3) -> None:
    site = make_weblog(tmp_path / "site", folder_only=False)
    hosted = on_bucket(site, tmp_path, s3)
    assert assert_urls_give_the_source(hosted, site) > 170


def test_a_file_that_is_not_the_source_is_found(tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    """Else the tests above prove nothing."""
    site, target = tmp_path / "site", target_in(tmp_path, "live")
    for name in UPLOADS:
        write(site / name, name.encode())
    settle(site)
    hosted = on_nginx(site, target, nginx)
    for name in UPLOADS:
        (Path(target.store.url) / name).write_bytes(b"x" * len(name.encode()))
    with pytest.raises(AssertionError) as failed:
        assert_urls_give_the_source(hosted, site)
    assert str(failed.value).count("200, ") == len(UPLOADS)
    unhosted = Hosted(target, hosted.port, "/elsewhere")
    with pytest.raises(AssertionError, match="404"):
        assert_urls_give_the_source(unhosted, site)


def test_other_tools_find_nothing_to_do_in_a_folder(tmp_path: Path) -> None:
    site, target = make_weblog(tmp_path / "site"), target_in(tmp_path, "live")
    root = Path(target.store.url)
    for change in (lambda: None, lambda: edit(site)):
        change()
        clean(site, target)
        rsync_finds_nothing(site, root)
        rclone_finds_nothing(site, str(root))
    os.utime(root / "index.php")
    write(root / "wp-login.php", b"x" * (site / "wp-login.php").stat().st_size)
    for find in (rsync_finds_nothing, lambda site, root: rclone_finds_nothing(site, str(root))):
        with pytest.raises(AssertionError, match=r"wp-login\.php"):
            find(site, root)


def test_other_tools_find_nothing_to_do_in_a_bucket(tmp_path: Path, s3: S3) -> None:
    site = make_weblog(tmp_path / "site", folder_only=False)
    (site / "broken").symlink_to("nowhere")
    bucket = on_bucket(site, tmp_path, s3).base.strip("/")
    rclone_finds_nothing(site, f":s3:{bucket}", *rclone_to(s3), links=False)
    s5cmd_finds_nothing(site, f"s3://{bucket}", s3.endpoint_url)
    write(site / "wp-login.php", b"longer than it was" * 1000)
    with pytest.raises(AssertionError, match=r"wp-login\.php"):
        s5cmd_finds_nothing(site, f"s3://{bucket}", s3.endpoint_url)
    with pytest.raises(AssertionError, match=r"wp-login\.php"):
        rclone_finds_nothing(site, f":s3:{bucket}", *rclone_to(s3), links=False)
