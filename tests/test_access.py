"""Keys of clients: made once, kept by the server, shown by fingerprint alone, revoked; and files of keys that cannot be used."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mirror.access import ClientKey, KeyFile, line_of, parse_line, read_client_key, rights_of
from mirror.errors import AuthError, UsageError

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(str(tmp_path / "keys.json"))


def private(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o600)
    return str(path)


def mirror(*words: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, "-m", "mirror", "key", *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_a_key_there_and_back(keys: KeyFile, tmp_path: Path) -> None:
    made = keys.add("nightly", ("read", "append"))
    assert keys.keys()["nightly"].key == made
    assert KeyFile(keys.path).keys()["nightly"].rights == ("read", "append")
    assert read_client_key(private(tmp_path / "key", f"# the nightly job\n\n{line_of(made)}\n")) == made


def test_no_two_secrets_are_the_same(keys: KeyFile) -> None:
    made = [keys.add(f"key{number}", ("read",)) for number in range(20)]
    assert len({key.secret for key in made}) == len({key.fingerprint for key in made}) == 20
    assert {len(key.secret) for key in made} == {32}


def test_the_secret_is_in_no_repr() -> None:
    key = ClientKey("nightly", b"s" * 32)
    assert "sss" not in repr(key)
    assert "c3Nz" not in repr(key)


def test_only_its_owner_may_use_the_file(keys: KeyFile) -> None:
    old = os.umask(0)
    try:
        keys.add("nightly", ("read",))
    finally:
        os.umask(old)
    assert stat.S_IMODE(os.stat(keys.path).st_mode) == 0o600
    os.chmod(keys.path, 0o640)
    with pytest.raises(AuthError, match="others may use it"):
        KeyFile(keys.path).keys()


def test_a_client_refuses_a_key_that_everybody_can_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    private(path, line_of(ClientKey("nightly", bytes(32))))
    path.chmod(0o644)
    with pytest.raises(AuthError, match=r"mode 0644.*chmod 600"):
        read_client_key(str(path))


def test_changes_are_seen_and_nothing_is_left_beside(keys: KeyFile) -> None:
    watching = KeyFile(keys.path)
    keys.add("one", ("read",))
    assert set(watching.keys()) == {"one"}
    keys.add("two", ("read",))
    assert set(watching.keys()) == {"one", "two"}
    keys.revoke("one")
    assert set(watching.keys()) == {"two"}
    assert os.listdir(os.path.dirname(keys.path)) == ["keys.json"]


def test_two_who_add_at_once_lose_nothing(keys: KeyFile) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: KeyFile(keys.path).add(f"key{number}", ("read",)), range(24)))
    assert len(keys.keys()) == 24


def test_a_name_is_given_once(keys: KeyFile) -> None:
    made = keys.add("nightly", ("read",))
    with pytest.raises(UsageError, match="has one of that name"):
        keys.add("nightly", ("prune",))
    assert keys.keys()["nightly"].key == made
    with pytest.raises(UsageError, match="it has nightly"):
        keys.revoke("nightyl")


@pytest.mark.parametrize("name", ["", "Nightly", "a b", "../x", "-n", "a" * 64, "näch", "a:b", "a/b"])
def test_what_is_no_name(name: str, keys: KeyFile) -> None:
    with pytest.raises(UsageError, match="no name of a key"):
        keys.add(name, ("read",))
    assert not os.path.exists(keys.path)


@pytest.mark.parametrize("text", ["", "read,write", "Read", "read;append", "all"])
def test_what_are_no_rights(text: str) -> None:
    with pytest.raises(ValueError, match="is no right"):
        rights_of(text)


LINE = line_of(ClientKey("nightly", bytes(range(32))))


@pytest.mark.parametrize(
    "line", ["", "x", LINE[:-1], LINE + "A", LINE.replace("mirror-key-1", "mirror-key-2"), LINE[:-1] + "!", "a:b:c"]
)
def test_a_line_that_was_cut_or_is_none(line: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError) as caught:
        parse_line(line)
    assert "AAECAwQ" not in str(caught.value)
    with pytest.raises(UsageError, match="cannot use the key file"):
        read_client_key(private(tmp_path / "key", line))


def test_a_file_of_two_keys_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has 2 keys, one is wanted"):
        read_client_key(private(tmp_path / "key", f"{LINE}\n{LINE}\n"))


@pytest.mark.parametrize(
    "text",
    [
        *["", "{", "[]", "{}", '{"format": 2, "keys": []}', '{"format": 1, "keys": [{"name": "a"}]}', "[" * 100_000],
        json.dumps({"format": 1, "keys": [{"name": "a", "secret": "AAAA", "rights": ["read"], "created": ""}]}),
        json.dumps({"format": 1, "keys": [{"name": "a", "secret": "A" * 43, "rights": ["fly"], "created": ""}]}),
    ],
)
def test_a_spoilt_file_is_told(text: str, tmp_path: Path) -> None:
    path = private(tmp_path / "keys.json", text)
    with pytest.raises(UsageError, match="cannot use the keys"):
        KeyFile(path).keys()
    with pytest.raises(UsageError):
        KeyFile(path).add("nightly", ("read",))
    assert (tmp_path / "keys.json").read_text() == text


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file.*mirror key new"):
        read_client_key(str(tmp_path / "none"))
    with pytest.raises(UsageError, match="is there a folder"):
        KeyFile(str(tmp_path / "no/where")).add("nightly", ("read",))


def test_from_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    made = mirror("new", "nightly", "--rights", "append,read", "--keys", path)
    assert (made.returncode, made.stdout.count("\n")) == (0, 1)
    key = parse_line(made.stdout)
    assert key.name == "nightly"
    assert made.stdout.strip() not in made.stderr
    listed = mirror("list", "--keys", path)
    assert listed.stdout.startswith(f"nightly  read,append  {key.fingerprint}  2")
    assert "mirror-key" not in listed.stdout + listed.stderr
    assert line_of(key).rpartition(":")[2] not in listed.stdout
    (told, summary) = [json.loads(line) for line in mirror("list", "--json", MIRROR_KEYS=str(path)).stdout.splitlines()]
    assert (told["name"], told["rights"], told["line"]) == ("nightly", ["read", "append"], "")
    assert (summary["action"], summary["keys"]) == ("list", 1)
    assert mirror("revoke", "nightly", "-q", "--keys", path).stderr == ""
    assert mirror("list", "--keys", path).stdout == ""


@pytest.mark.parametrize(
    ("words", "error"),
    [
        ("new", "`mirror key new` needs the NAME of a key"),
        ("list nightly", "`mirror key list` takes no name"),
        ("make nightly", "there is no 'make' of keys; say new, list, revoke"),
        ("new nightly", "it would have no rights; say --rights read,append"),
        ("new nightly --rights fly", "--rights 'fly': 'fly' is no right: they are read, append, publish, prune"),
        ("revoke nobody", "has none of that name; it has none"),
    ],
)
def test_misuse_is_told(words: str, error: str, tmp_path: Path) -> None:
    done = mirror(*words.split(), "--keys", tmp_path / "keys.json")
    assert (done.returncode, done.stdout) == (2, "")
    assert error in done.stderr
    assert not list(tmp_path.glob("keys*"))


def test_without_a_file_nothing_is_guessed() -> None:
    done = mirror("list")
    assert (done.returncode, done.stdout) == (2, "")
    assert "say --keys FILE" in done.stderr
