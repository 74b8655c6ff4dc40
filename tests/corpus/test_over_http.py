"""Two releases of the npm package next, and Debian's rust-doc, over HTTP into a tree that people see.

A client, a TCP proxy that counts and breaks, nginx with TLS, `mirror serve`, a tree, and another nginx that serves it:

./tests/run.sh -m corpus tests/corpus/test_over_http.py -n 0 --log-cli-level=INFO
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fronts import Front
from hosted import Hosted, assert_urls_give_the_source, rsync_finds_nothing
from links import Link
from nginx import Nginx
from serving import Served

import mirror
from mirror import log
from mirror.store import StoreSpec
from mirror.store.fs import FolderStore
from mirror.target import TargetSpec

from . import fetch
from .cli import plain_files

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(1800)]

TOLD = logging.getLogger(__name__)
CORPUS = fetch.default_folder()  # asked now: within a test the environment is an empty one


@pytest.fixture(scope="module")
def corpora() -> fetch.Corpora:
    return fetch.fetch(CORPUS)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with Served(tmp_path / "server") as server:
        server.new_key("publisher", "read,append,publish")
        yield server


class Way:
    """From here to a tree that nginx serves. link: to the nginx in front of the server."""

    def __init__(self, server: Served, front: Front, nginx: Callable[..., Nginx]) -> None:
        self.server, self.front = server, front
        self.live = server.init("www", "tree")
        self.hosted = Hosted(TargetSpec(StoreSpec(str(self.live))), nginx(self.live).port)
        self.store = FolderStore(str(self.live / ".mirror"))

    def publish(self, site: Path, link: Link) -> int:
        """A sync over this link; what people and rsync find then is the site. How many bytes the client sent."""
        key = self.server.folder / "publisher.key"
        # Every file of an npm package has the same time, so only its content tells that one of the same size is another.
        report = mirror.sync(site, f"https://localhost:{link.port}/www", key_file=key, checksum=True)
        assert (report.exit_code, bool(report.snapshot)) == (0, True)
        assert assert_urls_give_the_source(self.hosted, site) == len(plain_files(site)) > 5000
        rsync_finds_nothing(site, self.live)
        return link.sent

    def kinds(self) -> list[str]:
        return [log.read_record(self.store, number).kind for number in log.numbers(self.store)]


@pytest.fixture
def way(server: Served, tmp_path: Path, nginx: Callable[..., Nginx], monkeypatch: pytest.MonkeyPatch) -> Iterator[Way]:
    with Front(tmp_path, server.port) as front:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        yield Way(server, front, nginx)


def test_two_releases_of_next(corpora: fetch.Corpora, way: Way) -> None:
    """The second release has 190 MB, of which 0.7 MB are new chunks (docs/design.md); no more crosses, but for manifests."""
    sent = []
    for release in corpora.nexts[:2]:
        with Link(way.front.port) as link:
            sent.append(way.publish(release, link))
    TOLD.info(f"next {fetch.RELEASES[0]}: {sent[0]:,} bytes crossed; {fetch.RELEASES[1]}: {sent[1]:,}")
    assert sent[0] < 40_000_000
    assert sent[1] < 3_000_000
    one = ["import", "publishing", "snapshot", "prune"]
    assert way.kinds() == [*one, *one[:3], "done", "prune"]
    assert [stat.key for stat in way.store.list("received/")] == []


def test_next_over_a_link_that_does_all_that_links_do(
    corpora: fetch.Corpora, way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut every 3 MB; and each twentieth answer is lost after the server has acted, turned into 502, or half-sent. Under TLS only
    bytes can be lost; the others happen between nginx and the server."""
    chance = random.Random(5)

    def spoilt(number: int, data: bytes) -> bytes | None:
        if number % 20:
            return None
        return chance.choice([b"", b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n", data[: len(data) // 2]])

    inner, folder = Link(way.server.port, spoilt), tmp_path / "spoilt"
    folder.mkdir()
    with inner, Front(folder, inner.port) as front:
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "cert.pem"))
        for release in corpora.nexts[:2]:
            with Link(front.port, every=3_000_000) as link:
                way.publish(release, link)
                TOLD.info(f"{release.name}: {link.sent:,} bytes crossed, cut {link.faults} times; {inner.faults} answers spoilt")
                assert link.faults or release == corpora.nexts[1]
    assert inner.faults
    kinds = way.kinds()
    assert (kinds.count("import"), kinds.count("snapshot")) == (2, 2)
    keys = [stat.key for stat in way.store.list("packs/")]
    assert len(keys) == len(set(keys))
    assert list((way.live / ".mirror" / ".mirror-tmp").glob("*")) == []
    report = mirror.verify(way.live, against=corpora.nexts[1])
    assert report.exit_code == 0


def test_rust_doc(corpora: fetch.Corpora, way: Way, tmp_path: Path) -> None:
    with Link(way.front.port) as link:
        sent = way.publish(corpora.rust_doc, link)
    TOLD.info(f"rust-doc: {sent:,} bytes crossed")
    assert sent < 40_000_000
    key = way.server.folder / "publisher.key"
    out = tmp_path / "back"
    assert mirror.restore(f"{way.server.url}/www", out, key_file=key).exit_code == 0
    rsync_finds_nothing(corpora.rust_doc, out)
