"""What an operator reads when clocks, keys or URLs are wrong: real servers, and one sentence that says what to do."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from drive import cli
from mirrors import make_site, tree
from nginx import Nginx
from serving import Served

import mirror.signing

TO_TLS = "server { listen 80; root /srv/www; return 301 https://mirrors.invalid$request_uri; }"
PLAIN = "server { listen 80; root /srv/www; }"
NginxOn = Callable[..., Nginx]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A server with an empty target `www`, and its key in the environment."""
    with Served(tmp_path / "server") as server:
        server.init("www")
        monkeypatch.setenv("MIRROR_KEY_FILE", str(server.key_file))
        yield server


@pytest.mark.parametrize("minutes", [-10, 10])
def test_clocks_ten_minutes_apart(served: Served, site: Path, monkeypatch: pytest.MonkeyPatch, minutes: int) -> None:
    before = tree(served.root)
    clock = SimpleNamespace(time=lambda: time.time() + 60 * minutes)
    monkeypatch.setattr(mirror.signing, "time", clock)  # of this process, which is the client
    done = cli("sync", site, f"{served.url}/www", "--workers", 0)
    assert done.code == 7, done
    found = re.search(
        r"the clock of the client is (\d+) seconds (ahead of|behind) that of the server, where it is (.{19}) UTC; 300 are allowed; "
        r"see which of the two is wrong \(date -u\), and set that one",
        done.error,
    )
    assert found, done
    assert abs(int(found[1]) - 600) < 30
    assert found[2] == ("ahead of" if minutes > 0 else "behind")
    there = datetime.strptime(found[3], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - there).total_seconds()) < 30
    assert tree(served.root) == before
    assert "(clock)" in served.log


def test_a_key_of_another_server(served: Served, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Served(tmp_path / "other")  # it has a key of the same name
    monkeypatch.setenv("MIRROR_KEY_FILE", str(other.key_file))
    done = cli("sync", site, f"{served.url}/www")
    assert done.code == 7, done
    assert re.search(r"with different secrets: that of the client has fingerprint \w{8}, that of the server \w{8}; ", done.error)
    assert "this is the key of another server" in done.error


def test_a_server_that_leads_from_http_to_https(nginx: NginxOn, served: Served, site: Path, tmp_path: Path) -> None:
    """Nothing that is signed is sent where nobody has said that it may go."""
    here = f"http://127.0.0.1:{nginx(tmp_path, TO_TLS).port}"
    for words in (("sync", site, f"{here}/www"), ("restore", f"{here}/www", tmp_path / "out"), ("sync", site, f"dav+{here}/www")):
        done = cli(*words)
        assert done.code == 2, done
        assert "it redirects to https://mirrors.invalid/www/mirror.json" in done.error
        assert done.error.endswith(f"write https://mirrors.invalid in place of {here}, if you trust it")


def test_a_reader_who_is_led_to_nowhere_is_told_where(nginx: NginxOn, tmp_path: Path) -> None:
    """Who signs nothing follows; what fails then is named."""
    done = cli("snapshots", f"http://127.0.0.1:{nginx(tmp_path, TO_TLS).port}/www")
    assert done.code == 5, done
    assert "cannot read https://mirrors.invalid/www/" in done.error


def test_a_plain_web_server_where_a_mirror_serve_should_be(nginx: NginxOn, served: Served, site: Path, tmp_path: Path) -> None:
    """Also when it serves the very folder of the target: what is not signed is not believed."""
    empty, held = (f"http://127.0.0.1:{nginx(root, PLAIN).port}/www" for root in (tmp_path / "site", served.root))
    for words in (("sync", site, empty), ("sync", site, held), ("restore", held, tmp_path / "out")):
        done = cli(*words)
        assert done.code == 7, done
        assert "the remote does not sign its answers; is it a `mirror serve`?" in done.error
    assert not (tmp_path / "out").exists()
