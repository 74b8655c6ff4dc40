"""mirror.toml: what it may say, and that every mistake in it is told with the line where it stands."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror import config, configfile
from mirror.cli import parsing, words
from mirror.config import Settings
from mirror.configfile import NamedMirror, lines_of
from mirror.errors import UsageError
from mirror.spelling import VALUES

ROOT = Path(__file__).resolve().parents[1]
OPTIONS = parsing.configurable()


def parse(text: str | bytes) -> dict[str, NamedMirror]:
    data = text.encode() if isinstance(text, str) else text
    return configfile.parse(data, "mirror.toml", "/etc/site", OPTIONS)


def error_of(text: str | bytes) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert caught.value.exit_code == 2
    return str(caught.value)


def values(mirror: NamedMirror) -> dict[str, Any]:
    return {name: value for name, (value, _) in mirror.values.items()}


# -- what it may say


def test_a_mirror_has_ends_and_options() -> None:
    text = """
[defaults]
max-delete = "10%"
workers = 4

[mirrors.docs]
source = "/srv/docs"
target = "s3://backups/docs"
workers = "2"
quiet = true
tag = ["nightly"]

[mirrors.blog]
target = "backup/blog"
"""
    docs, blog = parse(text).values()
    assert (docs.name, docs.source, docs.target, docs.called) == ("docs", "/srv/docs", "s3://backups/docs", "mirror.toml line 6")
    assert values(docs) == {"max_delete": "10%", "workers": "2", "quiet": True, "tag": ["nightly"]}
    assert docs.values["max_delete"][1] == "mirror.toml line 3: max-delete"
    assert docs.values["workers"][1] == "mirror.toml line 9: workers"
    assert (blog.source, blog.target, values(blog)) == ("", "/etc/site/backup/blog", {"max_delete": "10%", "workers": "4"})


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("www", "/etc/site/www"),
        ("./www/", "/etc/site/www"),
        ("../www", "/etc/www"),
        ("/srv/www", "/srv/www"),
        ("s3://b/p", "s3://b/p"),
        ("zip::s3://b/a.zip", "zip::s3://b/a.zip"),
        ("a:b", "/etc/site/a:b"),
    ],
)
def test_paths_are_relative_to_the_file(given: str, place: str) -> None:
    (mirror,) = parse(f"[mirrors.x]\nsource = '{given}'\ntarget = '{given}'\nagainst = '{given}'\n").values()
    assert (mirror.source, mirror.target, mirror.values["against"][0]) == (place, place, place)


def test_other_paths_of_the_file_too() -> None:
    (mirror,) = parse(
        "[mirrors.x]\nlog-file = 'log'\ncache-dir = 'c'\nfilter-from = ['r', '/s']\nchanges-file='f'\nsite='x'"
    ).values()
    assert (mirror.values["log_file"][0], mirror.values["cache_dir"][0]) == ("/etc/site/log", "/etc/site/c")
    assert (mirror.values["changes_file"][0], mirror.values["site"][0]) == ("/etc/site/f", "x")
    assert [rule[1] for rule in mirror.values["rules"][0]] == ["/etc/site/r", "/s"]


def test_rules_are_one_list_that_replaces_that_of_the_defaults() -> None:
    own, none, inherited = parse(
        "[defaults]\nexclude = ['a']\n[mirrors.own]\nexclude = ['b',\n 'c']\ninclude = ['d']\n[mirrors.none]\nexclude = []\n"
        "[mirrors.inherited]"
    ).values()
    line = "mirror.toml line {}".format
    assert own.values["rules"][0] == [("include", "d", line(6)), ("exclude", "b", line(4)), ("exclude", "c", line(4))]
    assert none.values["rules"][0] == []
    assert inherited.values["rules"][0] == [("exclude", "a", line(2))]
    assert not {"include", "exclude", "filter_from"} & (own.values.keys() | inherited.values.keys())


@pytest.mark.parametrize("text", ["", "\n# nothing\n", "[defaults]\n", "[mirrors]\n", "mirrors = {}", "\ufeff[mirrors]"])
def test_it_may_say_nothing(text: str) -> None:
    assert parse(text) == {}


def test_every_flag_has_its_key_and_takes_what_its_flag_takes() -> None:
    for name, option in OPTIONS.items():
        called = option.called or name
        flag = next(flag for verb in words.VERBS.values() for flag in verb.flags if flag.name == called)
        route = called == "header"
        value = (
            "true"
            if option.switch
            else "['x: Cache-Control: y']"
            if route
            else "['x']"
            if option.many
            else "'/x'"
            if option.place
            else None
        )
        if value is None:
            continue
        (mirror,) = parse(f"[mirrors.x]\n{name} = {value}\n").values()
        assert mirror.values.keys() == ({"rules"} if flag.dest in config.RULE_FLAGS else {flag.dest})
    assert not {"config", "source", "help", "version"} & OPTIONS.keys()


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_judged_as_that_of_the_flag_is(name: str) -> None:
    """Also what nobody has asked for yet. The sentence is the flag's, but for the place."""
    asked = Settings({name: "nonsense"})
    asks = {
        "bwlimit": lambda: config.store_spec("/x", asked),
        "transfers": lambda: config.store_spec("/x", asked),
        "hash": lambda: asked.choice("hash", ("xxh128", "blake3", "sha256")),
        "max_age": lambda: asked.duration("max_age"),
        "overwrite": lambda: config.restore_options(asked, ""),
        "part": lambda: config.verify_options(asked),
        "symlinks": lambda: config.site_spec("/x", asked),
        "listen": lambda: config.serve_site_options(asked),
        "memory": lambda: config.serve_site_options(asked),
    }
    with pytest.raises(UsageError) as flag:
        asks.get(name, lambda: config.sync_options(asked, ""))()
    key = name.replace("_", "-")
    assert str(flag.value).startswith(f"cannot use --{key} 'nonsense': it is n")
    value = "['nonsense']" if OPTIONS[key].many else "'nonsense'"
    assert error_of(f"\n[mirrors.x]\n{key} = {value}\n") == str(flag.value).replace(f"--{key}", f"mirror.toml line 3: {key}")


def test_delete_is_a_word_of_syncs_and_a_switch_of_restores() -> None:
    """Either may stand in the file and in the variable; each command heeds what is meant for it."""
    for text, never, delete in (
        ("'never'", True, False),
        ("'after'", False, False),
        ("true", False, True),
        ("false", False, False),
    ):
        (mirror,) = parse(f"[mirrors.x]\ndelete = {text}\n").values()
        asked = Settings({}, {}, mirror.values)
        assert (config.publish_options(asked).never_delete, config.restore_options(asked, "").delete) == (never, delete)
        asked = Settings({}, {"MIRROR_DELETE": text.strip("'")})
        assert (config.publish_options(asked).never_delete, config.restore_options(asked, "").delete) == (never, delete)
    assert config.publish_options(Settings({"delete": "never"})).never_delete
    for wrong in ("yes", "no", True, False):
        with pytest.raises(UsageError, match=r"cannot use --delete .*: it is none of after, never"):
            config.publish_options(Settings({"delete": wrong}))


def test_what_takes_any_text_is_known() -> None:
    """A new flag with a value is either judged in the file too, or belongs in this list."""
    free = {
        name for name, option in OPTIONS.items() if not option.switch and (option.called or name.replace("-", "_")) not in VALUES
    }
    assert free == {
        "against", "at", "cache-dir", "certfile", "changes-file", "chmod", "chown", "endpoint-url", "exclude", "filter-from",
        "include", "key-file", "keyfile", "layout", "log-file", "order", "profile", "region", "site", "store", "tag",
    }  # fmt: skip


# -- what it may not say


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("[mirrors.x]\nexlude = ['a']", "line 2: 'exlude' is no option; did you mean 'exclude'?"),
        ("[mirrors.x]\nmax_delete = 1", "line 2: 'max_delete' is no option; did you mean 'max-delete'?"),
        ("[mirrors.x]\n'--exclude' = ['a']", "line 2: '--exclude' is no option; did you mean 'exclude'?"),
        ("[mirrors.x]\nsorce = 'a'", "line 2: 'sorce' is no option; did you mean 'source'?"),
        (
            "[mirrors.x]\nqqqq = 1",
            "line 2: 'qqqq' is no option; keys are the options of `mirror COMMAND --help` without",
        ),
        ("[mirrors.x]\nconfig = 'a'", "line 2: 'config' is no option; keys are the options"),
        ("[mirrors.x.y]\nworkers = 1", "line 1: 'y' is no option"),
        ("[defaults]\n\ntarget = 'a'", "line 3: 'target' is no option; source and target stand in [mirrors.NAME]"),
        ("[defaults]\nworker = 1", "line 2: 'worker' is no option; did you mean 'workers'?"),
        ("\n[mirror.x]\nsource = 'a'", "line 2: 'mirror' is no table of it; did you mean 'mirrors'?"),
        ("workers = 1", "line 1: 'workers' is no table of it; options of every mirror stand in [defaults]"),
        ("defaults = 1", "line 1: 'defaults' is no table; write [defaults]"),
        ("[[mirrors.x]]\nsource = 'a'", "line 1: 'x' is no table; write [mirrors.x] with a source and a target"),
        ("[mirrors]\nx = 1", "line 2: 'x' is no table; write [mirrors.x] with a source and a target"),
        ("[mirrors.'a/b']", "line 1: 'a/b' is no name of a mirror; a name has letters"),
        ("[mirrors.'.x']", "line 1: '.x' is no name of a mirror"),
        ("[mirrors.'']", "line 1: '' is no name of a mirror"),
        ("[mirrors.x]\nsource = ''", "line 2: 'source' is empty; give a folder or a URL"),
        ("[mirrors.x]\nsource = 7", "line 2: 'source' takes a text in quotes"),
        ("[mirrors.x]\ntarget = '~/b'", "line 2: 'target' begins with '~', which only a shell knows; write the whole path"),
        ('[mirrors.x]\ntarget = "a\\u0000b"', "line 2: 'target' contains a NUL byte"),
        ("[mirrors.x]\nquiet = 1", "line 2: 'quiet' takes true or false, without quotes"),
        ("[mirrors.x]\nquiet = 'yes'", "line 2: 'quiet' takes true or false, without quotes"),
        ("[mirrors.x]\nexclude = '*.tmp'", "line 2: 'exclude' takes a list of texts; write exclude = [\"...\"]"),
        ("[mirrors.x]\nexclude = ['a',\n 7]", "line 2: 'exclude' takes a list of texts"),
        ("[mirrors.x]\nworkers = true", "line 2: 'workers' takes a whole number, or a text in quotes"),
        ("[mirrors.x]\nmax-delete = 1.5", "line 2: 'max-delete' takes a whole number, or a text in quotes"),
        ("[mirrors.x]\nat = 2026-11-20T03:00:00", "line 2: 'at' takes a whole number, or a text in quotes"),
        ("[mirrors.x]\nsite = 7", "line 2: 'site' takes a text in quotes"),
        ("[mirrors.x]\nworkers = -1", "line 2: workers '-1': it is no whole number from 0 up"),
        ("[mirrors.x]\nmax-transfer = ''", "line 2: max-transfer '': it is no size such as"),
        # what TOML itself forbids
        ("[mirrors.x]\nsite = 'a'\nsite = 'b'", "line 3: cannot overwrite a value"),
        ("[mirrors.x]\n[mirrors.x]", "line 2: cannot declare ('mirrors', 'x') twice"),
        ("[mirrors.x]\nsite = \nquiet = true", "line 2: invalid value"),
        ("[mirrors.x]\nexclude = [\n'a'\n", "line 4: unclosed array"),
        ("[mirrors.x]\nsite = 'a", 'line 2: expected "\'"'),
        (b"[mirrors.x]\nsite = 'caf\xe9'", "line 2: it is no UTF-8"),
        ("[mirrors.x]\nworkers = " + "9" * 5000, ": exceeds the limit"),
        ("x = " + "[" * 100_000, ": its lists are nested too deeply"),
        (b"#" * (1 << 20) + b"\n", ": it is larger than 1,048,576 bytes"),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str | bytes, error: str) -> None:
    told = error_of(text)
    assert told.startswith("cannot use mirror.toml")
    assert error in told.removeprefix("cannot use mirror.toml").lstrip()


def test_a_mistake_in_another_mirror_is_one_too() -> None:
    assert error_of("[mirrors.a]\n[mirrors.b]\nexlude = []").startswith("cannot use mirror.toml line 3: 'exlude' is no option")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for name, why in (("none", "No such file or directory"), (".", "Is a directory")):
        with pytest.raises(UsageError) as caught:
            configfile.read(str(tmp_path / name), OPTIONS)
        assert str(caught.value) == f"cannot read the configuration {tmp_path / name}: {why}"


# -- where keys stand

AWKWARD = r'''
# exlude = ["in a comment"]
[defaults]  # [mirrors.x]
site = """
exlude = 1
[mirrors.docs]
\""" exlude = 2
"""
exclude = [  # ] exlude = 1
  "exlude = 1 # no comment",
  'it',  # one more: '
  """
exlude = ]
""",
]
[ mirrors . "docs" ]
source = "a#b"
'''


def test_texts_and_comments_that_look_like_keys() -> None:
    assert lines_of(AWKWARD) == {
        ("defaults",): 3, ("defaults", "site"): 4, ("defaults", "exclude"): 9,
        ("mirrors",): 16, ("mirrors", "docs"): 16, ("mirrors", "docs", "source"): 17,
    }  # fmt: skip
    assert parse(AWKWARD)["docs"].source == "/etc/site/a#b"
    assert error_of(f"{AWKWARD}exlude = []\n") == "cannot use mirror.toml line 18: 'exlude' is no option; did you mean 'exclude'?"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("mirrors.x.site = 'a'\nmirrors.x.y = 1", {"mirrors": 1, "mirrors.x": 1, "mirrors.x.site": 1, "mirrors.x.y": 2}),
        ("mirrors = { x = { a = 1, b.c = [1, {d = 2}] } }\nz = 1",
         {"mirrors": 1, "mirrors.x": 1, "mirrors.x.a": 1, "mirrors.x.b": 1, "mirrors.x.b.c": 1, "mirrors.x.b.c.d": 1, "z": 1 + 1}),
        ("a = 1979-05-27 07:32:00\nb = [1979-05-27 07:32:00,\n2]\nc = -inf", {"a": 1, "b": 2, "c": 4}),
        ("[[a]]\nb = 1\n[[a]]\nb = 2\nc = 3", {"a": 1, "a.b": 2, "a.c": 5}),
        ('"a b" = 1\n"\\u0063" = 2\n\'d\\e\' = 3\n"" = 4', {"a b": 1, "c": 2, "d\\e": 3, "": 4}),
        ('a = """"q"""""\nb = 1\nc = \'\'\'\'\'q\'\'\'\'\'\nd = 1', {"a": 1, "b": 2, "c": 3, "d": 4}),
        ('a = ""\nb = \'\'\nc = "\\\\"\nd = "\\""\ne = 1', {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}),
        ("a = [[1, [2]],\n[\n]]\nb = []\nc = {}\nd = 1", {"a": 1, "b": 4, "c": 5, "d": 6}),
        ("\n\n  [ a . b ]  \n\tc\t=\t1", {"a": 3, "a.b": 3, "a.b.c": 4}),
        ("", {}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_keys_of_all_forms(text: str, lines: dict[str, int], newline: str) -> None:
    text = text.replace("\n", newline)
    tomllib.loads(text)  # it is TOML, or what we find means nothing
    assert {".".join(keys): line for keys, line in lines_of(text).items()} == lines


TRAPS = st.sampled_from(["exlude = 1", "[mirrors.trap]", "# no comment", "]", "}", "it is", "", "=", "a.b"])
LINES = st.lists(TRAPS, min_size=1, max_size=4)
COMMENTS = st.lists(st.sampled_from(["", "# exlude = 1", "#", "   ", "# [mirrors.trap]", '# """', "# '"]), max_size=3)
TEXTS = st.one_of(
    TRAPS.map(lambda text: f'"{text}"'),
    TRAPS.map(lambda text: f"'{text}'"),
    TRAPS.map(lambda text: f'"\\"{text}\\\\"'),
    LINES.map(lambda lines: '"""' + "\n".join(lines) + '"""'),
    LINES.map(lambda lines: '"""\n""x' + '\n\\"""'.join(lines) + 'x"""""'),
    LINES.map(lambda lines: "'''" + "\n".join(lines) + "'''''"),
)
LISTS = st.builds(
    lambda texts, between, last: "[" + "".join(f"{text}{between}," for text in texts) + (last if texts else "") + "]",
    st.lists(TEXTS, max_size=3),
    st.sampled_from(["", " ", "\n", " # ] exlude = 1\n"]),
    st.sampled_from(["", "\n", "# ]\n"]),
)
KEYS: dict[str, st.SearchStrategy[str]] = {
    "site": TEXTS, "region": TEXTS, "profile": TEXTS, "exclude": LISTS, "tag": LISTS,
    "workers": st.sampled_from(["4", "0x10", '"2"']), "quiet": st.sampled_from(["true", "false"]),
}  # fmt: skip
SPELT = st.sampled_from(["{0}", '"{0}"', "'{0}'", " {0} ", '"\\u{1:04x}{2}"'])


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, dict[tuple[str, ...], int]]:
    """(TOML text, key → line) of a configuration in which one key is misspelt."""
    text, lines = "", {}
    wrong = draw(st.integers(0, 3))
    for number, name in enumerate(["defaults", "a", "b-c", "d"]):
        above = ("defaults",) if name == "defaults" else ("mirrors", name)
        dotted = number == 0 and draw(st.booleans())
        text += "".join(f"{line}\n" for line in draw(COMMENTS))
        if not dotted:
            joint = draw(st.sampled_from([".", " . "]))
            text += f"[{joint.join(draw(SPELT.map(spelt(part))) for part in above)}]{draw(st.sampled_from(['', ' # [x]']))}\n"
        keys = draw(st.lists(st.sampled_from(sorted(KEYS)), unique=True, max_size=4))
        if number == wrong:
            keys.insert(draw(st.integers(0, len(keys))), "exlude")
        for key in keys:
            text += "".join(f"{line}\n" for line in draw(COMMENTS))
            lines[(*above, key)] = text.count("\n") + 1
            text += (f"{'.'.join(above)}." if dotted else "") + draw(SPELT.map(spelt(key))) + " = "
            text += draw(KEYS.get(key, st.one_of(TEXTS, LISTS))) + draw(st.sampled_from(["\n", "  # exlude\n"]))
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    return draw(st.sampled_from(["", "\ufeff"])) + text, lines


def spelt(key: str) -> Any:
    """A key in one of the forms that TOML has for it."""
    return lambda form: form.format(key, ord(key[0]), key[1:])


@given(documents())
def test_the_line_of_a_misspelt_key_is_named(document: tuple[str, dict[tuple[str, ...], int]]) -> None:
    text, lines = document
    found = lines_of(text.removeprefix("\ufeff"))
    assert {keys: found[keys] for keys in lines} == lines
    (line,) = (line for keys, line in lines.items() if keys[-1] == "exlude")
    assert error_of(text) == f"cannot use mirror.toml line {line}: 'exlude' is no option; did you mean 'exclude'?"


# -- the example


def test_the_example_is_right() -> None:
    known = configfile.read(str(ROOT / "examples/mirror.toml"), OPTIONS)
    assert {"docs", "blog"} <= known.keys()
    for mirror in known.values():
        assert mirror.source
        assert mirror.target
        config.sync_options(Settings({}, {}, mirror.values), "mirror sync")
        config.filter_of(Settings({}, {}, {"rules": mirror.values.get("rules", ([], ""))}))
