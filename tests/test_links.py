"""What is read from web servers and WebDAV servers over a link that never lets a large body through: it comes all the same, and
what has come is not asked for again. The way to a `mirror serve` is in test_serve_links.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from davservers import NginxDav
from links import Link
from nginx import Nginx
from webservers import python_server

import mirror
from mirror.errors import TemporaryError
from mirror.store import StoreSpec
from mirror.store.web import WebStore

OPEN = "server { listen 80; root /srv/www; }"
SIZE = 12 << 20
CARRIES = [2_500_000, 700_000]  # bytes of one connection


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site of one large file, and packed: a pack of its size; and a tree of it."""
    folder = tmp_path_factory.mktemp("kept")
    (folder / "site").mkdir()
    (folder / "site/large").write_bytes(os.urandom(SIZE))
    assert mirror.sync(folder / "site", folder / "packed", layout="packed", workers=0).exit_code == 0
    assert mirror.sync(folder / "site", folder / "live", workers=0).exit_code == 0
    return folder


@pytest.mark.parametrize("carries", CARRIES)
@pytest.mark.parametrize("place", ["packed", "live"])
def test_a_restore_from_nginx_ends(place: str, carries: int, folder: Path, nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    server = nginx(folder / place, OPEN)
    with Link(server.port, most=carries) as link:
        assert mirror.restore(f"http://127.0.0.1:{link.port}", tmp_path / "out", workers=0).exit_code == 0
    assert link.faults
    assert link.given < SIZE * 2.2
    assert (tmp_path / "out/large").read_bytes() == (folder / "site/large").read_bytes()


@pytest.mark.parametrize("carries", CARRIES)
def test_a_restore_from_webdav_ends(carries: int, folder: Path, tmp_path: Path) -> None:
    with NginxDav(tmp_path / "dav") as dav:
        dav.new_place()  # so that the server is known
        assert mirror.sync(folder / "site", f"{dav.url}/www", workers=0).exit_code == 0
        with Link(dav.port, most=carries) as link:
            assert mirror.restore(f"dav+http://127.0.0.1:{link.port}/www", tmp_path / "out", workers=0).exit_code == 0
        assert link.faults
        assert link.given < SIZE * 2.2
    assert (tmp_path / "out/large").read_bytes() == (folder / "site/large").read_bytes()


def test_an_object_that_is_read_as_a_whole_comes_in_stretches(nginx: Callable[..., Nginx], tmp_path: Path) -> None:
    """As an index fragment or a list of chunks: at most 4 MiB, and more than the link carries."""
    data = os.urandom(4 << 20)
    (tmp_path / "object").write_bytes(data)
    server = nginx(tmp_path, OPEN)
    with Link(server.port, most=700_000) as link:
        store = WebStore(StoreSpec(f"http://127.0.0.1:{link.port}", answered=True))
        assert store.get("object", len(data)) == data
        with pytest.raises(mirror.errors.DamageError, match="more than the 1000000 it may have"):
            store.get("object", 1_000_000)


def test_without_ranges_there_is_no_way(tmp_path: Path) -> None:
    """And it is not tried for ever."""
    (tmp_path / "object").write_bytes(os.urandom(4 << 20))
    with python_server(tmp_path) as url, Link(int(url.rpartition(":")[2]), most=700_000) as link:
        store = WebStore(StoreSpec(f"http://127.0.0.1:{link.port}", answered=True), patience_seconds=0.5)
        for ask in (lambda: store.get("object", 4 << 20), lambda: store.get_ranges("object", [(0, 3 << 20)])):
            with pytest.raises(TemporaryError, match="broke off"):
                ask()
        assert link.faults < 60
