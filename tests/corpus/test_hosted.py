"""Debian's rust-doc as people see it: every file by its URL, through nginx and out of a bucket, and for other people's tools.

./tests/run.sh -m corpus tests/corpus/test_hosted.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import S3
from hosted import (
    assert_urls_give_the_source,
    on_bucket,
    on_nginx,
    rclone_finds_nothing,
    rclone_to,
    rsync_finds_nothing,
    s5cmd_finds_nothing,
)
from mirrors import target_in
from nginx import Nginx

from . import fetch
from .cli import plain_files

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(1800)]

CORPUS = fetch.default_folder()  # asked now: within a test the environment is an empty one


@pytest.fixture(scope="module")
def rust_doc() -> Path:
    return fetch.fetch(CORPUS).rust_doc


def test_rust_doc_in_a_folder(rust_doc: Path, tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    target = target_in(tmp_path, "live")
    hosted = on_nginx(rust_doc, target, nginx)
    assert assert_urls_give_the_source(hosted, rust_doc) >= len(plain_files(rust_doc)) > 10_000
    rsync_finds_nothing(rust_doc, Path(target.store.url))
    rclone_finds_nothing(rust_doc, target.store.url)


def test_rust_doc_in_a_bucket(rust_doc: Path, tmp_path: Path, s3: S3) -> None:
    hosted = on_bucket(rust_doc, tmp_path, s3)
    assert assert_urls_give_the_source(hosted, rust_doc) == len(plain_files(rust_doc)) > 10_000
    bucket = hosted.base.strip("/")
    rclone_finds_nothing(rust_doc, f":s3:{bucket}", *rclone_to(s3), links=False)
    s5cmd_finds_nothing(rust_doc, f"s3://{bucket}", s3.endpoint_url)
