"""Mirrors on WebDAV servers as the operator has them: nights, restores, two runs at once, deaths, refusals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from davservers import LOST, DavServer, NginxDav, between
from drive import cli, gone, process
from mirrors import BEGINNING, make_site, noise, settle, tree, write
from servers import free_ports
from webservers import Asked, Say

from mirror.keys import record_number
from mirror.store.open import open_store


@pytest.fixture
def place(dav: DavServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new place on each server, with the login in the environment."""
    for name, value in dav.environment.items():
        monkeypatch.setenv(name, value)
    return f"{dav.url}{dav.new_place('/www')}"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


def change(site: Path, number: int) -> None:
    """A day's work: something new, something other, something gone."""
    write(site / f"new-{number}", noise(200_000, 100 + number))
    write(site / "big.bin", noise(2_000_000, 200 + number), BEGINNING + number)
    (site / f"new-{number - 2}").unlink(missing_ok=True)
    settle(site)


def records(dav: DavServer, place: str) -> list[int]:
    """The numbers of the log, as the server has them."""
    return sorted(record_number(f"log/{name}") or 0 for name in dav.names(f"{place.removeprefix(dav.url)}/log/"))


def test_nights(dav: DavServer, place: str, site: Path, tmp_path: Path) -> None:
    nights = []
    for number in range(1, 4):
        change(site, number)
        done = cli("sync", site, place)
        assert done.code == 0, done
        nights.append(tree(site))
    before = dav.files(place.removeprefix(dav.url) + "/")
    assert cli("sync", site, place).code == 0
    assert dav.files(place.removeprefix(dav.url) + "/") == before  # an unchanged run writes nothing
    for number in (1, 3):
        assert cli("restore", place, tmp_path / f"out{number}", "--at", number).code == 0
        assert tree(tmp_path / f"out{number}") == nights[number - 1]
    assert cli("verify", place, "--against", site).code == 0
    assert cli("diff", site, place, "--exit-code").code == 0
    assert len(cli("snapshots", place).out.splitlines()) >= 3
    assert records(dav, place) == [1, 2, 3]
    assert "packed" in json.loads(dav.raw("GET", place.removeprefix(dav.url) + "/mirror.json").body)["layout"]
    # Of the objects that other programs may read nothing is hidden away.
    assert {key.partition("/")[0] for key, _ in open_store(dav.spec(place.removeprefix(dav.url))).list("")} == {
        "mirror.json", "log", "packs", "index", "manifests", "latest.json",
    }  # fmt: skip


def test_two_syncs_at_once(dav: DavServer, place: str, tmp_path: Path) -> None:
    """From two hosts (as far as the cache goes) into a target that is not there yet, and again: each record has one writer."""
    site = make_site(tmp_path / "site")
    for number in range(2):
        change(site, number)
        words = ("sync", site, place, "--cache-dir")
        runs = [process(*words, tmp_path / f"cache{each}") for each in range(2)]
        told = [run.communicate(timeout=120) for run in runs]
        assert [run.returncode for run in runs] == [0, 0], told
    numbers = records(dav, place)
    assert numbers == list(range(1, len(numbers) + 1))
    assert cli("verify", place, "--against", site).code == 0
    assert dav.names(place.removeprefix(dav.url) + "/.mirror-dav/tmp/") == {}


def test_a_target_that_another_run_makes_just_now(
    dav_servers: Callable[[str], DavServer], site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look for mirror.json and the one for other things."""
    dav = dav_servers("apache")
    for name, value in dav.environment.items():
        monkeypatch.setenv(name, value)
    folder = dav.new_place()
    made: list[int] = []

    def twist(asked: Asked) -> None:
        if asked.method == "PROPFIND" and asked.headers["depth"] == "1" and not made:
            with process("sync", site, f"{dav.url}{folder}") as other:
                other.communicate(timeout=60)
            made.append(other.returncode)

    with between(dav, twist) as line:
        assert cli("sync", site, f"dav+{line.url}{folder}").code == 0
    assert made == [0]
    assert cli("verify", f"{dav.url}{folder}", "--against", site).code == 0


@pytest.mark.parametrize("name", ["nginx", *(pytest.param(each, marks=pytest.mark.long) for each in ("apache", "rclone", "weed"))])
def test_syncs_that_are_killed(
    dav_servers: Callable[[str], DavServer], site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    dav = dav_servers(name)
    for variable, value in dav.environment.items():
        monkeypatch.setenv(variable, value)
    place = f"{dav.url}{dav.new_place()}"
    chance = random.Random(dav.name)
    killed = 0
    for number in range(1, 5):
        change(site, number)
        run = process("sync", site, place, "--bwlimit", "500K", start_new_session=True)
        with suppress(subprocess.TimeoutExpired):
            run.wait(chance.uniform(0.4, 2.0))
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
            killed += 1
        run.communicate()
        gone(run.pid)
    assert killed >= 2
    assert cli("sync", site, place).code == 0
    assert cli("verify", place, "--against", site).code == 0
    assert cli("restore", place, tmp_path / "out").code == 0
    assert tree(tmp_path / "out") == tree(site)
    assert dav.names(place.removeprefix(dav.url) + "/.mirror-dav/tmp/") == {}
    numbers = records(dav, place)
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_tree_whose_store_is_there(dav: DavServer, place: str, site: Path, tmp_path: Path) -> None:
    assert cli("sync", site, tmp_path / "live", "--store", place).code == 0
    first = tree(site)
    change(site, 1)
    assert cli("sync", site, tmp_path / "live").code == 0
    assert cli("restore", tmp_path / "live", tmp_path / "out", "--at", 2).code == 0
    assert tree(tmp_path / "out") == first
    assert cli("verify", tmp_path / "live").code == 0


@pytest.mark.parametrize("name", ["nginx", "apache"])
def test_a_bad_line(
    dav_servers: Callable[[str], DavServer], site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Answers are lost, turned into 502, or say that something is locked: all of it completes, and is what it should be."""
    server = dav_servers(name)
    for variable, value in server.environment.items():
        monkeypatch.setenv(variable, value)
    chance = random.Random(4)

    def twist(asked: Asked) -> Say | str | None:
        say = chance.random()
        if say < 0.05:
            return LOST if say < 0.025 else Say(502)
        return Say(423) if say < 0.12 and asked.method in ("PUT", "MOVE", "MKCOL", "DELETE") else None

    with between(server, twist) as line:
        place = f"dav+{line.url}{server.new_place()}"
        assert cli("sync", site, place, "--workers", 0).code == 0
        change(site, 1)
        assert cli("sync", site, place, "--workers", 0).code == 0
        assert cli("verify", place, "--against", site, "--workers", 0).code == 0
        assert cli("restore", place, tmp_path / "out", "--workers", 0).code == 0
    assert tree(tmp_path / "out") == tree(site)


# Refusals


@pytest.mark.parametrize("name", ["apache", "rclone"])
def test_wrong_credentials(dav_servers: Callable[[str], DavServer], site: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    server = dav_servers(name)
    place = f"{server.url}{server.new_place()}"
    for user, password in (("", ""), (server.login[0], "not-it-0815")):
        monkeypatch.setenv("MIRROR_DAV_USER", user)
        monkeypatch.setenv("MIRROR_DAV_PASSWORD", password)
        for words in (("sync", site, place), ("snapshots", place), ("init", place)):
            done = cli(*words)
            assert done.code == 7, done
            assert "MIRROR_DAV_USER" in done.error
            assert "0815" not in done.err


def test_a_login_from_netrc(dav_servers: Callable[[str], DavServer], isolated: Path, site: Path) -> None:
    server = dav_servers("rclone")
    (isolated / ".netrc").write_text(f'machine 127.0.0.1 login {server.login[0]} password "{server.login[1]}"\n')
    assert cli("sync", site, f"{server.url}{server.new_place()}").code == 0


def test_nobody_there(site: Path) -> None:
    start = time.monotonic()
    done = cli("sync", site, f"dav+http://127.0.0.1:{free_ports(1)[0]}/www")
    assert done.code == 5, done
    assert "connection refused" in done.error
    assert time.monotonic() - start < 20


def test_plain_http_must_be_accepted(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = cli("sync", site, "dav+http://no-such-host.invalid/www")
    assert done.code == 2, done
    assert "--insecure" in done.error
    assert cli("sync", site, "dav+http://no-such-host.invalid/www", "--insecure").code == 5
    monkeypatch.setenv("MIRROR_INSECURE", "yes")
    assert cli("snapshots", "dav+http://no-such-host.invalid/www").code == 5
    monkeypatch.setenv("MIRROR_INSECURE", "perhaps")
    assert cli("snapshots", "dav+http://no-such-host.invalid/www").code == 2


def test_a_server_that_keeps_nobody_apart(
    dav_servers: Callable[[str], DavServer], site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = dav_servers("rclone")
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)

    def twist(asked: Asked) -> None:
        if "overwrite" in asked.headers:
            asked.headers["overwrite"] = "T"

    with between(server, twist) as line:
        place = f"dav+{line.url}/{os.urandom(6).hex()}"
        for words in (("init", place), ("sync", site, place)):
            done = cli(*words)
            assert done.code == 2, done
            assert "--single-writer" in done.error
        assert cli("sync", site, place, "-n").code == 0  # writes nothing, so nothing is refused
        assert cli("sync", site, place, "--single-writer").code == 0
        change(site, 1)
        assert cli("sync", site, place).code == 2
        monkeypatch.setenv("MIRROR_SINGLE_WRITER", "true")
        assert cli("sync", site, place).code == 0
        assert cli("verify", place, "--against", site).code == 0


def test_named_in_the_configuration(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with NginxDav(tmp_path / "nginx") as server:
        lines = ["[mirrors.www]", f'source = "{site}"', f'target = "{server.url}/www"', "single-writer = true", "insecure = true"]
        (tmp_path / "mirror.toml").write_text("\n".join(lines) + "\n")
        assert cli("sync", "www", "--new-target").code == 0
        assert cli("verify", "www").code == 0
        (tmp_path / "mirror.toml").write_text("\n".join([*lines[:3], "single-writer = 3"]) + "\n")
        assert "line 4" in cli("verify", "www").error
