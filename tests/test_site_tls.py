"""`mirror serve --site` with a certificate: the same pages within TLS; and where it may listen without one."""

from __future__ import annotations

import http.client
import socket
import ssl
from pathlib import Path

import pytest
from certificates import certified
from drive import cli
from mirrors import mirror, target_in, write
from servers import Visitor
from visits import serving, stop_when_it_listens

import mirror as api


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """A mirror of two pages."""
    write(tmp_path / "site" / "index.html", b"<h1>start</h1>")
    write(tmp_path / "site" / "big.bin", bytes(range(256)) * 4096)
    mirror(tmp_path / "site", target_in(tmp_path))
    return tmp_path / "target"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for localhost and its key."""
    certificate, key = certified(tmp_path_factory.mktemp("certificate"))
    return str(certificate), str(key)


def get(port: int, path: str, certificate: str, **headers: str) -> tuple[int, bytes]:
    """(status, body) of a page, asked for by somebody who trusts this certificate alone."""
    connection = http.client.HTTPSConnection("localhost", port, timeout=30, context=ssl.create_default_context(cafile=certificate))
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        got = connection.getresponse()
        return got.status, got.read()
    finally:
        connection.close()


def test_pages_within_tls(target: Path, files: tuple[str, str]) -> None:
    certificate, key = files
    with serving(target, "--certfile", certificate, "--keyfile", key) as site:
        (listening,) = site.told("notice", "listening")
        assert f"is served at https://127.0.0.1:{site.port}/" in listening["text"]
        assert get(site.port, "/", certificate) == (200, b"<h1>start</h1>")
        assert get(site.port, "/big.bin", certificate) == (200, bytes(range(256)) * 4096)
        assert get(site.port, "/big.bin", certificate, Range="bytes=256-259") == (206, bytes(range(4)))
        with pytest.raises(ssl.SSLCertVerificationError):
            http.client.HTTPSConnection("localhost", site.port, timeout=30, context=ssl.create_default_context()).connect()
        # Who speaks no TLS, says nothing, or stops in the middle of its greeting, changes nothing for others.
        with pytest.raises((http.client.HTTPException, OSError)), Visitor(site.port) as visitor:
            visitor.ask("/")
        with socket.create_connection(("127.0.0.1", site.port)), socket.create_connection(("127.0.0.1", site.port)) as half:
            half.sendall(b"\x16\x03\x01\x02\x00\x01")
            assert get(site.port, "/", certificate)[0] == 200
    assert site.summary["url"].startswith("https://")


def test_one_file_may_hold_both(target: Path, files: tuple[str, str], tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(b"".join(Path(each).read_bytes() for each in files))
    with serving(target, MIRROR_CERTFILE=str(both)) as site:
        assert get(site.port, "/", files[0])[0] == 200


def test_it_may_stand_in_the_configuration(
    target: Path, files: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, file in zip(("www.pem", "www.key"), files, strict=True):
        (tmp_path / name).write_bytes(Path(file).read_bytes())
    (tmp_path / "mirror.toml").write_text(f'[mirrors.www]\ntarget = "{target}"\ncertfile = "www.pem"\nkeyfile = "www.key"\n')
    with serving("www") as site:
        assert get(site.port, "/", files[0])[0] == 200


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("--certfile none.pem", "cannot read the certificate none.pem: no such file"),
        ("--certfile CERT --keyfile none.pem", "cannot read the private key none.pem: no such file"),
        ("--certfile KEY --keyfile KEY", "are no certificate with its key that can be read without a password"),
        ("--certfile CERT", "and the key that should be in it are no certificate with its key"),
        ("--keyfile KEY", "there is no --certfile; give both"),
    ],
)
def test_what_is_no_certificate(target: Path, files: tuple[str, str], words: str, error: str) -> None:
    done = cli("serve", target, "--site", *words.replace("CERT", files[0]).replace("KEY", files[1]).split())
    assert (done.code, done.out) == (2, ""), done
    assert error in done.error


def test_a_key_of_another_certificate(target: Path, files: tuple[str, str], tmp_path: Path) -> None:
    _, other = certified(tmp_path)
    done = cli("serve", target, "--site", "--certfile", files[0], "--keyfile", other)
    assert (done.code, done.out) == (2, "")
    assert f"the key in {other} is that of another certificate" in done.error


@pytest.mark.parametrize("with_tls", [False, True])
def test_a_site_for_everybody_needs_no_leave(target: Path, files: tuple[str, str], with_tls: bool) -> None:
    """Other than a server for clients: there `--insecure` must be said."""
    options = {"certfile": files[0], "keyfile": files[1]} if with_tls else {}
    report = api.serve(target, site=True, listen="0.0.0.0:0", listeners=[stop_when_it_listens], **options)
    assert report.exit_code == 130
    assert report.url.startswith("https://0.0.0.0:" if with_tls else "http://0.0.0.0:")


def test_it_ends_although_somebody_is_in_the_middle_of_a_greeting(target: Path, files: tuple[str, str]) -> None:
    certificate, key = files
    with (
        serving(target, "--certfile", certificate, "--keyfile", key) as site,
        socket.create_connection(("127.0.0.1", site.port)) as half,
    ):
        half.sendall(b"\x16\x03\x01\x02\x00\x01")
        assert get(site.port, "/", certificate)[0] == 200
        assert site.stop() == 130
