"""Fixtures that every test may use: an environment of its own, a real S3 server, and real web servers.

No test sees the user's home, configuration, credentials or proxies. A hanging test dumps its stacks (faulthandler_timeout).
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from apache import ApacheDav
from davservers import DavServer, NginxDav, RcloneDav, WeedDav
from nginx import Nginx, server_block
from servers import SeaweedFS

from mirror.store import StoreSpec

# What steers us, or one of the libraries and tools that the tests run.
_STEERING = ("AWS_", "MIRROR_", "AZURE_", "GOOGLE_", "XDG_", "RESTIC_", "BORG_", "RCLONE_", "S3_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")

# A shell's background job (`tests/run.sh &`) is begun with Ctrl-C ignored, and so is all that it starts: a test that interrupts a
# run would find it undisturbed.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, no credentials, no configuration, no proxy. Returns the home."""
    for name in list(os.environ):
        if name.startswith(_STEERING) or name.lower() in _PROXIES:
            monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    for name, folder in (("CACHE", ".cache"), ("CONFIG", ".config"), ("DATA", ".local/share"), ("STATE", ".local/state")):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(home / folder))
    # Else botocore asks a link-local address for the credentials of a cloud machine.
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return home


@dataclass(frozen=True, slots=True)
class S3:
    """The real S3 server, with its credentials in this test's environment, and a prefix that is this test's own.

    A shared bucket, because SeaweedFS makes volumes at the first write to a bucket, which takes up to 9 s when 64 threads are
    first.
    """

    server: SeaweedFS
    bucket: str
    prefix: str

    @property
    def endpoint_url(self) -> str:
        return self.server.endpoint_url

    @property
    def region(self) -> str:
        return self.server.region

    @property
    def client(self) -> Any:
        """A boto3 client that goes past what is tested. Share it: it is safe in threads."""
        return self.server.shared_client

    def url(self, below: str = "mirror") -> str:
        """The URL of a place for a store below this test's prefix."""
        return f"s3://{self.bucket}/{self.prefix}/{below}".rstrip("/")

    def spec(self, below: str = "mirror", **settings: Any) -> StoreSpec:
        """A StoreSpec for that place."""
        values = {"endpoint_url": self.endpoint_url, "region": self.region, "static_credentials": True} | settings
        return StoreSpec(self.url(below), **values)

    def objects(self, below: str = "") -> dict[str, int]:
        """Every key below this test's prefix (without it) with its size, asked of the server itself."""
        start = f"{self.prefix}/{below}/".replace("//", "/")
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
        return {found["Key"].removeprefix(start): found["Size"] for page in pages for found in page.get("Contents", ())}


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """The S3 server of this test run, started by the first test that asks for it."""
    with SeaweedFS(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture(scope="session")
def shared_bucket(seaweed: SeaweedFS) -> str:
    """A bucket that has its volumes already."""
    bucket = seaweed.new_bucket()
    seaweed.shared_client.put_object(Bucket=bucket, Key="warm", Body=b"up")
    return bucket


@pytest.fixture
def s3(seaweed: SeaweedFS, shared_bucket: str, monkeypatch: pytest.MonkeyPatch) -> S3:
    """S3 with credentials set, and an empty prefix."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweed.admin.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.admin.secret_key)
    return S3(seaweed, shared_bucket, uuid.uuid4().hex[:12])


@pytest.fixture(scope="session")
def dav_servers(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Callable[[str], DavServer]]:
    """The WebDAV servers of this test run by name, each started when it is first asked for."""
    with ExitStack() as running:
        found: dict[str, DavServer] = {}

        def named(name: str) -> DavServer:
            if name not in found:
                folder = tmp_path_factory.mktemp(f"dav-{name}")
                made = {
                    "apache": lambda: ApacheDav(folder),
                    "nginx": lambda: NginxDav(folder),
                    "rclone": lambda: RcloneDav(folder),
                    "weed": lambda: WeedDav(folder, request.getfixturevalue("seaweed").filer),
                }
                found[name] = running.enter_context(made[name]())
            return found[name]

        yield named


@pytest.fixture(params=["nginx", "apache", "rclone", "weed"])
def dav(request: pytest.FixtureRequest, dav_servers: Callable[[str], DavServer]) -> DavServer:
    """Each WebDAV server, one after the other."""
    return dav_servers(request.param)


@pytest.fixture
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Nginx]]:
    """Starts nginx on a folder: `nginx(root)`, with the server block of docs/hosting.md or with another. It ends with the test."""
    with ExitStack() as running:

        def serve(root: Path, block: str = "") -> Nginx:
            return running.enter_context(Nginx(tmp_path_factory.mktemp("nginx"), root, block or server_block()))

        yield serve
