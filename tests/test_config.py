"""Settings: what counts more, how values are spelt, where this host keeps things."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mirror import config
from mirror.config import Settings
from mirror.errors import UsageError
from mirror.plan import DeletionLimit


@pytest.fixture
def notices() -> list[tuple[str, str]]:
    return []


# -- amounts


@pytest.mark.parametrize(
    ("text", "limit"), [("0", DeletionLimit(number=0)), ("17", DeletionLimit(number=17)), ("2.5%", DeletionLimit(percent=2.5))]
)
def test_deletion_limits(text: str, limit: DeletionLimit) -> None:
    assert config.deletion_limit(Settings({"max_delete": text})) == limit
    assert config.deletion_limit(Settings({"max_delete": None})) == DeletionLimit()


@pytest.mark.parametrize("text", ["-1", "101%", "%", "many", "1.5", ""])
def test_what_is_no_deletion_limit(text: str) -> None:
    with pytest.raises(UsageError, match="--max-delete"):
        config.deletion_limit(Settings({"max_delete": text}))


@pytest.mark.parametrize(("text", "expected"), [("5%", (None, 5.0)), ("20G", (20 << 30, None)), (None, (None, None))])
def test_free_space_is_a_size_or_a_share(text: str | None, expected: tuple[int | None, float | None]) -> None:
    options = config.sync_options(Settings({"min_free": text}), "mirror sync")
    assert (options.min_free, options.min_free_percent) == expected


@pytest.mark.parametrize("text", ["3", "0/7", "8/7", "3/", "a/b", "-1/7", "1/0"])
def test_what_is_no_part(text: str) -> None:
    with pytest.raises(UsageError, match="--part"):
        config.verify_options(Settings({"part": text}))


def test_parts() -> None:
    assert config.verify_options(Settings({"part": "3/7"})).part == (3, 7)


# -- what counts more


def test_command_line_over_variable_over_file_over_default() -> None:
    variables = {"MIRROR_WORKERS": "4", "MIRROR_MAX_TRANSFER": "1G"}
    configured = {"workers": ("5", "mirror.toml line 2: workers")}
    assert Settings({"workers": "3"}, variables, configured).whole("workers", 2) == 3
    assert Settings({}, variables, configured).whole("workers", 2) == 4
    assert Settings({}, {}, configured).whole("workers", 2) == 5
    assert Settings({}, {}).whole("workers", 2) == 2
    assert Settings({}, variables).size("max_transfer") == 1 << 30


@pytest.mark.parametrize(("text", "value"), [("1", True), ("yes", True), ("TRUE", True), ("on", True), ("0", False), ("no", False)])
def test_switches_from_variables(text: str, value: bool) -> None:
    assert Settings({}, {"MIRROR_QUIET": text}).switch("quiet") is value
    assert Settings({"quiet": not value}, {"MIRROR_QUIET": text}).switch("quiet") is not value


@pytest.mark.parametrize(
    ("name", "text"), [("quiet", "maybe"), ("workers", "-1"), ("workers", "two"), ("workers", "٣"), ("on_error", "pause")]
)
def test_a_wrong_variable_is_named(name: str, text: str) -> None:
    asked = Settings({}, {f"MIRROR_{name.upper()}": text})
    with pytest.raises(UsageError, match=f"MIRROR_{name.upper()} '{text}'"):
        {"quiet": asked.switch, "workers": lambda n: asked.whole(n, 2), "on_error": lambda n: asked.choice(n, ("stop",))}[name](
            name
        )


def test_a_wrong_line_of_the_file_is_named() -> None:
    """The file is looked over as a whole when it is read; what only the asker knows to be wrong is told here."""
    asked = Settings({}, {}, {"layout": ("spiral", "mirror.toml line 3: layout")})
    with pytest.raises(UsageError, match=r"cannot use mirror\.toml line 3: layout 'spiral': it is none of packed"):
        asked.choice("layout", ("packed",))


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRROR_WORKERS", "")
    monkeypatch.setenv("MIRROR_TAG", "a")
    assert config.environment(["workers", "tag", "at"]) == {"MIRROR_TAG": "a"}


def test_only_what_a_command_has_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRROR_JSON", "nonsense")
    assert config.environment(["at"]) == {}


def test_lists_have_one_value_a_line() -> None:
    assert Settings({}, {"MIRROR_TAG": "one\nand two\n"}).many("tag") == ("one", "and two")
    assert Settings({"tag": ["three"]}, {"MIRROR_TAG": "one"}).many("tag") == ("three",)
    assert Settings({}).many("tag") == ()


def test_what_nobody_asked_for_is_known() -> None:
    asked = Settings({"tag": ["a"], "tgas": ["b"], "at": None})
    asked.many("tag")
    assert asked.unknown() == ["tgas"]


# -- rules


def test_rules_keep_their_order(tmp_path: Path) -> None:
    file = tmp_path / "rules"
    file.write_text("\ufeff# a comment\n+ *.css\n- *.tmp\n")
    given = [("exclude", "a"), ("filter_from", str(file)), ("include", "b")]
    assert Settings({"rules": given}).rules() == (
        ("exclude", "a", "rule option 1 (--exclude)"),
        ("include", "*.css", f"{file} line 2"),
        ("exclude", "*.tmp", f"{file} line 3"),
        ("include", "b", "rule option 3 (--include)"),
    )


def test_rules_from_variables(tmp_path: Path) -> None:
    variables = {"MIRROR_EXCLUDE": "*.tmp\ncache of mine/", "MIRROR_INCLUDE": "*.html"}
    asked = Settings({}, variables)
    assert asked.rules() == (
        ("include", "*.html", "MIRROR_INCLUDE line 1"),
        ("exclude", "*.tmp", "MIRROR_EXCLUDE line 1"),
        ("exclude", "cache of mine/", "MIRROR_EXCLUDE line 2"),
    )
    assert [rule.pattern for rule in Settings({"rules": [("include", "x")]}, variables).rules()] == ["x"]


def test_rules_come_from_one_place() -> None:
    configured = {"rules": ([("exclude", "c", "mirror.toml line 4")], "mirror.toml line 3")}
    assert Settings({}, {}, configured).rules() == (("exclude", "c", "mirror.toml line 4"),)
    assert [rule.pattern for rule in Settings({}, {"MIRROR_INCLUDE": "v"}, configured).rules()] == ["v"]
    assert [rule.pattern for rule in Settings({"exclude": ["g"]}, {"MIRROR_INCLUDE": "v"}, configured).rules()] == ["v", "g"]
    assert Settings({"rules": []}, {"MIRROR_INCLUDE": "v"}, configured).rules() == ()


def test_a_file_of_rules_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "rules").write_text("- a\n")
    asked = Settings({"rules": [("filter_from", str(tmp_path / "rules"))]})
    first = asked.rules()
    (tmp_path / "rules").unlink()
    assert asked.rules() == first == (("exclude", "a", f"{tmp_path}/rules line 1"),)


def test_names_in_rule_files_may_be_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "rules").write_bytes(b"- caf\xe9\n")
    (rule,) = Settings({"rules": [("filter_from", str(tmp_path / "rules"))]}).rules()
    assert (rule.kind, rule.pattern) == ("exclude", os.fsdecode(b"caf\xe9"))


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([("filter_from", "missing")], "cannot read the filter file missing: No such file or directory"),
        ([("filter_from", ".")], "cannot read the filter file"),
        ([("exclude", "!x")], "cannot use the filter rule"),
        ([("include", "")], "cannot use the filter rule"),
    ],
)
def test_rules_that_cannot_be(rules: list[tuple[str, str]], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        config.filter_of(Settings({"rules": rules}))
    assert str(caught.value).startswith(why)


# -- places


@pytest.mark.parametrize(
    ("text", "url"),
    [("/srv/www/", "/srv/www"), ("a//", "a"), ("/", "/"), ("//", "//"), ("s3://b/p/", "s3://b/p"), ("file:///", "file:///")],
)
def test_a_slash_at_the_end_never_matters(text: str, url: str) -> None:
    assert config.url_of(text, "SRC") == url
    assert config.url_of(Path("/srv/www"), "SRC") == "/srv/www"


@pytest.mark.parametrize("text", ["", "a\0b"])
def test_what_is_no_place(text: str) -> None:
    with pytest.raises(UsageError, match="cannot use SRC"):
        config.url_of(text, "SRC")


def test_settings_of_a_store(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Settings({"bwlimit": "10M", "transfers": "3", "region": "eu-central-1", "endpoint_url": "https://s3.example"})
    spec = config.store_spec("s3://bucket/p", asked)
    assert (spec.bandwidth, spec.transfers, spec.region, spec.endpoint_url) == (10 << 20, 3, "eu-central-1", "https://s3.example")
    assert not spec.static_credentials
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://elsewhere.example")
    assert config.store_spec("s3://bucket/p", asked).static_credentials
    assert config.store_spec("s3://bucket/p", Settings({})).endpoint_url == "https://elsewhere.example"
    assert config.site_spec("s3://bucket/p", asked).endpoint_url == "https://s3.example"
    assert "secret" not in repr(config.store_spec("s3://bucket/p", asked))


def test_transfers_are_at_least_one() -> None:
    with pytest.raises(UsageError, match="--transfers '0'"):
        config.store_spec("/a", Settings({"transfers": "0"}))


def test_the_cache_is_in_the_users_cache_folder(
    isolated: Path, notices: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def folder() -> Path | None:
        return config.cache_folder(Settings({}), lambda *notice: notices.append(notice))

    assert folder() == isolated / ".cache/mirror"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert folder() == isolated / ".cache/mirror"
    assert not (isolated / ".cache").exists()
    assert notices == []
    monkeypatch.delenv("HOME")
    assert folder() is None
    assert [kind for kind, _ in notices] == ["no-cache"]
    assert "HOME is not set" in notices[0][1]
    assert "--cache-dir" in notices[0][1]


def test_without_a_place_for_the_cache_there_is_none(
    isolated: Path, notices: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (isolated / ".cache").write_text("a file")
    assert config.cache_folder(Settings({}), lambda *notice: notices.append(notice)) is None
    assert f"{isolated}/.cache is not a folder" in notices[0][1]
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/1/nothing/here")
    assert config.cache_folder(Settings({}), lambda *notice: notices.append(notice)) is None
    assert len(notices) == 2


def test_a_cache_folder_that_was_asked_for_must_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config.cache_folder(Settings({"cache_dir": "here/there"}), lambda *notice: None) == tmp_path / "here/there"
    assert not (tmp_path / "here").exists()
    (tmp_path / "file").touch()
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("file", "file/below", "broken"):
        with pytest.raises(UsageError, match="cannot use the cache folder"):
            config.cache_folder(Settings({"cache_dir": name}), lambda *notice: None)


def test_debugging_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not config.wants_traceback()
    monkeypatch.setenv("MIRROR_DEBUG", "1")
    assert config.wants_traceback()
    monkeypatch.setenv("MIRROR_DEBUG", "what")
    assert not config.wants_traceback()


def test_defaults_are_those_of_the_options() -> None:
    """What is not said is left to the options themselves."""
    from mirror.restore import RestoreOptions
    from mirror.rollback import RollbackOptions
    from mirror.sync import SyncOptions
    from mirror.verify import VerifyOptions

    assert config.sync_options(Settings({}), SyncOptions.__dataclass_fields__["command"].default) == SyncOptions()
    assert config.restore_options(Settings({}), RestoreOptions.__dataclass_fields__["command"].default) == RestoreOptions()
    assert config.rollback_options(Settings({}), "mirror rollback") == RollbackOptions()
    assert config.verify_options(Settings({})) == VerifyOptions()
    assert config.store_spec("/a", Settings({})) == config.store_spec("/a", Settings({"transfers": "8", "bwlimit": "0"}))
