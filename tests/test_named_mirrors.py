"""Mirrors that mirror.toml names, from the command line: which word is a name, which file counts, and what counts more."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from drive import cli, shell
from mirrors import write

FILE = """
[defaults]
layout = "packed"
exclude = ["*.tmp"]

[mirrors.docs]
source = "www/docs"
target = "backup/docs"
tag = ["nightly"]
max-delete = "10%"

[mirrors.held]
target = "backup/docs"
at = 1

[mirrors.blog]
source = "www/blog"
target = "backup/blog"
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder beside the folder of mirror.toml, which is given by MIRROR_CONFIG; two sites, two empty targets."""
    place = tmp_path / "place"
    for name in ("docs/index.html", "docs/a.html", "docs/b.tmp", "blog/index.html"):
        write(place / "www" / name, name.encode())
    (place / "backup").mkdir()
    (place / "mirror.toml").write_text(FILE)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("MIRROR_CONFIG", str(place / "mirror.toml"))
    assert cli("init", "docs").code == cli("init", "blog").code == 0
    return tmp_path / "here"


@pytest.fixture
def place(here: Path) -> Path:
    return here.parent / "place"


def test_a_name_stands_for_both_ends(here: Path, place: Path) -> None:
    done = cli("sync", "docs")
    assert done.code == 0, done
    assert done.err.startswith(f"sync {place}/www/docs -> {place}/backup/docs\n")
    record = json.loads((place / "backup/docs/log/000000000001.json").read_bytes())
    assert (record["tags"], record["filters"]) == (["nightly"], [["exclude", "*.tmp"]])
    assert list(here.iterdir()) == []


def test_every_command_takes_a_name(here: Path, place: Path) -> None:
    assert cli("init", "docs").code == 0
    assert cli("sync", "docs").code == 0
    assert cli("ls", "docs").out == "./\na.html\nindex.html\n"
    assert cli("cat", "docs", "a.html").out == "docs/a.html"
    assert cli("sums", "docs").out.count("\n") == 2
    assert "tag:nightly" in cli("snapshots", "docs").out
    assert cli("verify", "docs").code == 0
    assert cli("restore", "docs", "out", "a.html").code == 0
    assert (here / "out/a.html").read_bytes() == b"docs/a.html"
    write(place / "www/docs/c.html", b"c")
    assert "+ c.html\n" in cli("diff", "docs").out
    assert cli("sync", "docs").code == 0
    assert "+ c.html\n" in cli("diff", "docs", "1", "2").out
    assert "c.html" in cli("ls", "docs").out
    assert "c.html" not in cli("ls", "held").out, "at = 1"


def test_a_name_may_be_one_of_two_ends(place: Path) -> None:
    assert cli("sync", "docs", "./elsewhere").err.startswith(f"sync {place}/www/docs -> {place.parent}/here/elsewhere\n")
    assert cli("sync", place / "www/docs", "docs").err.startswith(f"sync {place}/www/docs -> {place}/backup/docs\n")
    assert (cli("diff", place / "www/docs", "docs").out, cli("diff", "docs", "backup/docs").code) == ("", 3)
    assert cli("sync", "docs", "docs").code == 0
    done = cli("sync", "docs", "blog")
    assert (done.code, done.error) == (
        2, "cannot use 'docs' and 'blog': each is a mirror with options of its own; name one of them",
    )  # fmt: skip


@pytest.mark.parametrize("form", ["./docs", "{here}/docs", "docs/", "docs/."])
def test_a_path_is_never_a_name(form: str, here: Path, place: Path) -> None:
    write(here / "docs/mine.html", b"mine")
    done = cli("sync", form.format(here=here), "./target", "--layout", "packed")
    assert done.code == 0, done
    assert done.err.startswith(f"sync {here}/docs -> {here}/target\n")
    assert "note:" not in done.err


def test_the_name_wins_over_a_folder_and_says_so(here: Path, place: Path) -> None:
    write(here / "docs/mine.html", b"mine")
    done = cli("sync", "docs")
    assert f"note: docs is the mirror of that name, {place}/mirror.toml line 6; the folder is ./docs\n" in done.err
    assert "mine.html" not in cli("ls", "docs").out
    (place / "www/docs").rename(place / "www/gone")
    done = cli("sync", "docs", "--json")
    assert done.code == 3
    assert "the folder is ./docs\n" in done.err, "just when it matters"
    (here / "docs/mine.html").unlink()
    (here / "docs").rmdir()
    assert "note:" not in cli("snapshots", "docs").err


def test_an_unknown_word_is_a_folder(here: Path) -> None:
    write(here / "site/a.html", b"a")
    assert cli("sync", "site", "target", "--layout", "packed").err.startswith(f"sync {here}/site -> {here}/target\n")
    assert cli("ls", "nothing").error.startswith(f"cannot find a mirror at {here}/nothing")


def test_one_word_that_is_no_name(place: Path) -> None:
    assert cli("sync", "dcos") == (
        2, "", f"mirror: cannot find a mirror named 'dcos': {place}/mirror.toml has none of that name; did you mean 'docs'?\n", 0,
    )  # fmt: skip
    assert cli("diff", "qq").error.endswith("has none of that name; it has docs, held, blog")
    assert cli("sync", "./docs").error == "TARGET is missing; try `mirror sync --help`"
    assert cli("sync", "docs", "b", "c").error == "'c' is too much, SRC and TARGET will do; try `mirror sync --help`"


def test_an_end_that_the_mirror_has_not(place: Path) -> None:
    done = cli("sync", "held")
    assert (done.code, done.error) == (
        2, f"cannot use the mirror held: {place}/mirror.toml line 12 gives it no source; add source = ...",
    )  # fmt: skip


def test_flag_over_variable_over_file(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tags(*flags: str) -> list[str]:
        assert cli("sync", "docs", "-q", *flags).code == 0
        newest = sorted((place / "backup/docs/log").iterdir())[-1]
        found: list[str] = json.loads(newest.read_bytes())["tags"]
        return found

    assert tags() == ["nightly"]
    monkeypatch.setenv("MIRROR_TAG", "variable")
    assert tags() == ["variable"]
    assert tags("--tag", "flag") == ["flag"]


def test_the_rules_come_from_one_place(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("sync", "docs", "-n").out == "+ ./\n+ a.html\n+ index.html\n"
    monkeypatch.setenv("MIRROR_INCLUDE", "*.html")
    assert cli("sync", "docs", "-n").out == "+ ./\n+ a.html\n+ b.tmp\n+ index.html\n", "variables replace those of the file"
    assert cli("sync", "docs", "-n", "--exclude", "a.html").out == "+ ./\n+ b.tmp\n+ index.html\n"


def test_a_switch_of_the_file_can_be_switched_off(place: Path) -> None:
    with (place / "mirror.toml").open("a") as file:
        file.write("quiet = true\njson = true\n")
    assert cli("sync", "blog").err == ""
    assert json.loads(cli("sync", "blog").out.splitlines()[-1])["event"] == "summary"
    done = cli("sync", "blog", "--no-json", "--no-quiet")
    assert (done.out, done.err.splitlines()[0]) == ("", f"sync {place}/www/blog -> {place}/backup/blog")
    assert cli("cat", "blog", "index.html").out == "blog/index.html", "what a command has no flag for, it does not heed"


def test_without_a_name_nothing_of_the_file_holds(here: Path, place: Path) -> None:
    """The defaults are those of the mirrors: what is started with paths does the same in every folder."""
    assert cli("sync", place / "www/docs", "./served").code == 0
    assert (here / "served/b.tmp").exists(), "neither the layout of the file nor its rules"
    (place / "mirror.toml").write_text("not TOML")
    assert cli("sync", place / "www/docs", "./target", "--layout", "packed").code == 0
    assert "b.tmp" in cli("ls", "./target").out
    assert cli("ls", "..").error.startswith(f"cannot find a mirror at {place.parent}: ")
    assert cli("ls", "target").error == f"cannot use {place}/mirror.toml line 1: expected '=' after a key in a key/value pair"


def test_which_file_counts(here: Path, place: Path, isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--config, MIRROR_CONFIG, the working folder, the user's; the first alone."""
    user, own, flag = isolated / ".config/mirror/mirror.toml", here / "mirror.toml", here / "other.toml"

    def names() -> str:
        return cli("sync", "no-such-mirror").error.rpartition("; ")[2]

    user.parent.mkdir(parents=True)
    for path, name in ((user, "user"), (own, "own"), (flag, "flag")):
        path.write_text(f"[mirrors.{name}]\n")
    assert cli("sync", "no-such-mirror", "--config", flag).error.endswith("; it has flag")
    assert names() == "it has docs, held, blog"
    monkeypatch.delenv("MIRROR_CONFIG")
    assert names() == "it has own"
    own.unlink()
    assert names() == "it has user"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert names() == "it has user"
    monkeypatch.delenv("HOME")
    assert names() == "TARGET is missing; try `mirror sync --help`".rpartition("; ")[2]


def test_paths_are_relative_to_the_file_wherever_it_is(here: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRROR_CONFIG")
    monkeypatch.chdir(place)
    assert cli("sync", "docs").err.startswith(f"sync {place}/www/docs -> {place}/backup/docs\n")
    monkeypatch.chdir(place / "www")
    assert cli("ls", "docs", "--config", "../mirror.toml").out == "./\na.html\nindex.html\n"


def test_a_file_that_was_asked_for_must_be_right(here: Path, place: Path) -> None:
    """Also when no word is a name."""
    assert cli("ls", "./target", "--config", "none").error == "cannot read the configuration none: No such file or directory"
    (here / "wrong.toml").write_text("[mirrors.x]\nexlude = []\n")
    done = cli("ls", "./target", "--config", "wrong.toml", "--json")
    assert done.code == 2
    error = json.loads(done.out)["error"]
    assert (error["kind"], error["where"], error["why"], error["hint"]) == (
        "usage", "wrong.toml line 2", "'exlude' is no option", "did you mean 'exclude'?",
    )  # fmt: skip


def test_a_wrong_rule_is_told_with_its_line(here: Path, place: Path) -> None:
    (here / "rules").write_text("- ok\nnonsense\n")
    text = "[mirrors.x]\nsource = '/nowhere'\ntarget = 'b'\n{}\n"
    (here / "c.toml").write_text(text.format("exclude = ['a', '!b']"))
    assert cli("sync", "x", "--config", "c.toml").error.startswith("cannot use the filter rule '!b' of c.toml line 4: ")
    (here / "c.toml").write_text(text.format("filter-from = ['rules']"))
    assert cli("sync", "x", "--config", "c.toml").error.startswith(f"cannot use the filter file {here}/rules line 2: ")


def test_the_hint_of_the_guard_names_the_mirror(place: Path) -> None:
    for number in range(20):
        write(place / f"www/docs/{number}.html", b"x")
    assert cli("sync", "docs").code == 0
    for number in range(20):
        (place / f"www/docs/{number}.html").unlink()
    done = cli("sync", "docs")
    assert done.code == 25
    assert "the limit is 10 %" in done.error
    assert done.error.endswith("accept it once: mirror sync docs --max-delete 20")


def test_credentials_in_a_target_are_refused(here: Path) -> None:
    (here / "c.toml").write_text("[mirrors.x]\ntarget = 's3://key:secret@bucket/p'\n")
    done = cli("ls", "x", "--config", "c.toml")
    assert done.code == 2
    assert "there are credentials in the URL" in done.error
    assert "secret" not in done.err


# -- a target that is not there


def gone(place: Path, *words: object) -> str:
    """The sentence of a command that must not make the target anew."""
    done = cli(*words)
    assert done.code == 3, done
    assert not (place / "backup/docs").exists()
    return done.error


def test_the_target_of_a_mirror_is_not_made_without_being_asked_for(here: Path, place: Path) -> None:
    """This host need not have seen it: the disk may be another's, or the cache of this host lost."""
    (place / "backup/docs").rename(place / "the disk")
    assert gone(place, "sync", "docs", "--no-quiet", "--cache-dir", "other").endswith(
        "there is no mirror.json, and the mirror docs of mirror.toml is kept there; is it mounted? "
        "the first time, have it made: mirror sync docs --no-quiet --cache-dir other --new-target"
    )
    for words in (["docs", "-n"], [place / "www/docs", "docs"], ["docs", "docs", "--layout", "tree"]):
        assert "is it mounted?" in gone(place, "sync", *words, "--cache-dir", "other")
    gone(place, "ls", "docs", "--cache-dir", "other")
    assert cli("sync", "docs", "--new-target", "--cache-dir", "other").code == 0
    assert (place / "backup/docs/log").is_dir()
    assert cli("sync", "docs", "--cache-dir", "third").code == 0, "it is there now"


def test_init_makes_the_target_of_a_mirror(here: Path, place: Path) -> None:
    shutil.rmtree(place / "backup/docs")
    assert cli("init", "docs", "--cache-dir", "other").code == 0
    assert cli("sync", "docs", "--cache-dir", "other").code == 0


def test_the_hint_for_the_first_time_can_be_pasted(here: Path, place: Path) -> None:
    shutil.rmtree(place / "backup/blog")
    hint = cli("sync", "blog", "--cache-dir", "other").error.partition("have it made: ")[2]
    assert shell(hint).code == 0
    assert cli("ls", "blog").code == 0


def test_a_place_that_the_file_names_only_as_a_source_is_not_guarded(here: Path, place: Path) -> None:
    assert cli("sync", "docs", "./elsewhere", "--cache-dir", "other").code == 0


# -- verify --against NAME


def test_verify_against_the_source_of_a_mirror(here: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("sync", "docs").code == 0
    told = cli("verify", "docs", "--against", "docs", "--json").out.splitlines()[-1]
    assert json.loads(told)["against"] == f"{place}/www/docs"
    write(place / "www/docs/a.html", b"other")
    for words in (["docs", "--against", "docs"], [place / "backup/docs", "--against", "docs"]):
        done = cli("verify", *words)
        assert (done.code, "a.html: its content is not that of snapshot 1" in done.err) == (4, True), done
        assert "b.tmp" not in done.err, "the rules of the mirror hold"
    monkeypatch.setenv("MIRROR_AGAINST", "docs")
    assert cli("verify", "docs").code == 4
    assert cli("verify", place / "backup/docs").code == 4


def test_against_a_folder_and_against_another_mirror(here: Path, place: Path) -> None:
    assert cli("sync", "docs").code == 0
    write(here / "copy/a.html", b"docs/a.html")
    assert "index.html" in cli("verify", "docs", "--against", "copy").err, "what the file does not know is a folder"
    write(here / "docs/a.html", b"docs/a.html")
    assert "index.html" in cli("verify", "docs", "--against", "./docs").err
    assert cli("verify", "docs", "--against", "blog").error == (
        "cannot use 'docs' and 'blog': each is a mirror with options of its own; name one of them"
    )
    done = cli("verify", place / "backup/docs", "--against", "held")
    assert (done.code, done.error) == (
        2, f"cannot use the mirror held: {place}/mirror.toml line 12 gives it no source; add source = ...",
    )  # fmt: skip


def test_diff_takes_the_source_of_a_mirror_as_well(here: Path, place: Path) -> None:
    assert cli("sync", "docs").code == 0
    write(place / "www/docs/c.html", b"c")
    assert cli("diff", "docs", place / "backup/docs").out == cli("diff", "docs").out != ""
