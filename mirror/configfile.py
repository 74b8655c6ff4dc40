"""mirror.toml: mirrors by name, with their ends and options. Owns what the file may say and how a mistake in it is told.

    [defaults]                        # options of every mirror below
    max-delete = "10%"

    [mirrors.docs]                    # `mirror sync docs`
    source = "/srv/www/docs"
    target = "s3://backups/docs"
    exclude = ["*.tmp", ".git/"]

Keys are flags without their dashes, values are spelt as on the command line; a number and true or false may be written plainly.
Nothing is passed over: an unknown key, a value of the wrong type and a value that its flag would not take are UsageErrors with the
line, also in a mirror that nobody asked for. What a command has no flag for, it does not heed. Paths are relative to the folder of
the file.

The command line says which options there are; the environment is not looked at here.
"""

from __future__ import annotations

import os
import re
import tomllib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

from mirror.errors import UsageError
from mirror.spelling import VALUES, shown

MAX_BYTES: Final = 1 << 20
_ENDS: Final = ("source", "target")
_RULES: Final = ("include", "exclude", "filter-from")  # in this order they are asked, as those of variables are
_NAME: Final = re.compile(r"\w[\w.-]*")
_URL: Final = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(?:://|::)")
_AT_LINE: Final = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)\Z")


@dataclass(frozen=True, slots=True)
class Option:
    """What an option takes. switch: true or false; many: a list of texts; valued: a text, for an option that is a switch of some
    commands only; number: a whole number will do for a text; place: a path or URL, relative to the file's folder. called: its name
    in `Settings`, where that is not the key's."""

    switch: bool = False
    many: bool = False
    valued: bool = False
    number: bool = False
    place: bool = False
    called: str = ""


@dataclass(frozen=True, slots=True)
class NamedMirror:
    """One mirror. source, target: absolute paths or URLs, empty when the file has none. values: (value, where it stands) by name as
    `Settings` takes them; `rules` holds all the rules, (kind, pattern, where it stands) each. called: where the mirror stands."""

    name: str
    source: str
    target: str
    values: Mapping[str, tuple[Any, str]] = field(repr=False)
    called: str


def read(path: str, options: Mapping[str, Option]) -> dict[str, NamedMirror]:
    """The mirrors of a file by name. options: all that there are, by key. UsageError for a file that cannot be read or is wrong."""
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError("cannot read the configuration", where=path, why=error.strerror or str(error)) from None
    return parse(data, path, os.path.dirname(os.path.abspath(path)), options)


def parse(data: bytes, called: str, folder: str, options: Mapping[str, Option]) -> dict[str, NamedMirror]:
    """The mirrors of a file's content. called: the file in messages; folder: what paths are relative to. UsageError."""

    def wrong(why: str, line: int = 0) -> UsageError:
        return UsageError("cannot use", where=f"{called} line {line}" if line else called, why=why)

    if len(data) > MAX_BYTES:
        raise wrong(f"it is larger than {MAX_BYTES:,} bytes")
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
        document = tomllib.loads(text)
        return _Reader(called, folder, options, lines_of(text)).mirrors(document)
    except UnicodeDecodeError as error:
        raise wrong("it is no UTF-8", data.count(b"\n", 0, error.start) + 1) from None
    except RecursionError:
        raise wrong("its lists are nested too deeply") from None
    except ValueError as error:
        # TOMLDecodeError, and what Python itself refuses: an integer of more than 4,300 digits.
        why, at = str(error), _AT_LINE.search(str(error))
        line = int(at[1]) if at and at[1] else text.count("\n") + 1 if at else 0
        why = why[: at.start()] if at else why
        raise wrong(why[:1].lower() + why[1:], line) from None


class _Reader:
    """What a document means; every complaint has its line."""

    def __init__(self, called: str, folder: str, options: Mapping[str, Option], lines: Mapping[tuple[str, ...], int]) -> None:
        self._called, self._folder, self._options, self._lines = called, folder, options, lines

    def mirrors(self, document: dict[str, Any]) -> dict[str, NamedMirror]:
        for key, value in document.items():
            if key not in ("defaults", "mirrors"):
                hint = "options of every mirror stand in [defaults]" if key in self._options else ""
                self._unknown((key,), "is no table of it", ("defaults", "mirrors"), hint)
            self._must_be_table((key,), value, "[mirrors.NAME]" if key == "mirrors" else "[defaults]")
        defaults = self._values(("defaults",), document.get("defaults", {}))
        found = {}
        for name, table in document.get("mirrors", {}).items():
            self._must_be_table(("mirrors", name), table, f"[mirrors.{name}] with a source and a target")
            if not _NAME.fullmatch(name):
                hint = "a name has letters, digits, '.', '_' and '-', and does not begin with '.' or '-'"
                self._wrong(("mirrors", name), f"{name!r} is no name of a mirror", hint)
            found[name] = self._mirror(name, table, defaults)
        return found

    def _mirror(self, name: str, table: dict[str, Any], defaults: Mapping[str, tuple[Any, str]]) -> NamedMirror:
        keys = ("mirrors", name)
        ends = {end: self._end((*keys, end), table[end]) if end in table else "" for end in _ENDS}
        own = self._values(keys, {key: value for key, value in table.items() if key not in _ENDS}, _ENDS)
        return NamedMirror(name, ends["source"], ends["target"], {**defaults, **own}, self._place(keys))

    def _end(self, keys: tuple[str, ...], value: object) -> str:
        text = self._text(keys, value)
        if not text:
            self._wrong(keys, f"{keys[-1]!r} is empty", "give a folder or a URL")
        return self._absolute(keys, text)

    def _values(self, keys: tuple[str, ...], table: dict[str, Any], more: Iterable[str] = ()) -> dict[str, tuple[Any, str]]:
        """The options of a table by their names in `Settings`. more: keys that it may have besides."""
        found: dict[str, tuple[Any, str]] = {}
        for key, value in table.items():
            if key not in self._options:
                hint = "source and target stand in [mirrors.NAME]" if key in _ENDS else ""
                self._unknown((*keys, key), "is no option", (*more, *self._options), hint)
            name = self._name(key)
            if name in found:
                self._wrong((*keys, key), f"{key!r} is there twice, as {name!r} as well", "write one list")
            found[name] = self._value((*keys, key), value), f"{self._place((*keys, key))}: {key}"
        rules = [(key.replace("-", "_"), text, self._place((*keys, key))) for key in _RULES for text in self._rules(found, key)]
        if any(key in table for key in _RULES):
            found["rules"] = rules, self._place(keys)
        return found

    def _rules(self, found: dict[str, tuple[Any, str]], key: str) -> list[str]:
        rules: list[str] = found.pop(key.replace("-", "_"), ((), ""))[0]
        return rules

    def _name(self, key: str) -> str:
        """What `Settings` calls the option of a key."""
        return self._options[key].called or key.replace("-", "_")

    def _value(self, keys: tuple[str, ...], value: object) -> object:
        option, key = self._options[keys[-1]], keys[-1]
        if option.switch and (isinstance(value, bool) or not option.valued):
            if not isinstance(value, bool):
                self._wrong(keys, f"{key!r} takes true or false, without quotes")
            return value
        if option.many:
            if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
                self._wrong(keys, f"{key!r} takes a list of texts", f'write {key} = ["..."]')
            texts = [self._text(keys, each) for each in value]
            for text in texts:
                self._judge(keys, text)
            return [self._absolute(keys, text) for text in texts] if option.place else texts
        if option.number and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        elif option.number and not isinstance(value, str):
            self._wrong(keys, f"{key!r} takes a whole number, or a text in quotes")
        text = self._text(keys, value)
        self._judge(keys, text)
        return self._absolute(keys, text) if option.place and text else text

    def _judge(self, keys: tuple[str, ...], text: str) -> None:
        """UsageError for a value that the flag would not take."""
        parse = VALUES.get(self._name(keys[-1]))
        try:
            if parse:
                parse(text)
        except ValueError as error:
            raise UsageError("cannot use", where=f"{self._place(keys)}: {keys[-1]} {shown(text)}", why=str(error)) from None

    def _text(self, keys: tuple[str, ...], value: object) -> str:
        if not isinstance(value, str):
            self._wrong(keys, f"{keys[-1]!r} takes a text in quotes")
        if "\0" in value:
            self._wrong(keys, f"{keys[-1]!r} contains a NUL byte")
        return value

    def _absolute(self, keys: tuple[str, ...], text: str) -> str:
        if _URL.match(text):
            return text
        if text.startswith("~"):
            self._wrong(keys, f"{keys[-1]!r} begins with '~', which only a shell knows", "write the whole path")
        return os.path.abspath(os.path.join(self._folder, text))

    def _must_be_table(self, keys: tuple[str, ...], value: object, form: str) -> None:
        if not isinstance(value, dict):
            self._wrong(keys, f"{keys[-1]!r} is no table", f"write {form}")

    def _unknown(self, keys: tuple[str, ...], what: str, known: Iterable[str], hint: str) -> NoReturn:
        from difflib import get_close_matches

        near = get_close_matches(keys[-1], list(known), n=1, cutoff=0.7)
        hint = hint or (f"did you mean {near[0]!r}?" if near else "")
        self._wrong(keys, f"{keys[-1]!r} {what}", hint or "keys are the options of `mirror COMMAND --help` without their dashes")

    def _wrong(self, keys: tuple[str, ...], why: str, hint: str = "") -> NoReturn:
        raise UsageError("cannot use", where=self._place(keys), why=why, hint=hint)

    def _place(self, keys: tuple[str, ...]) -> str:
        return f"{self._called} line {self._lines[keys]}"


# -- where the keys stand ----------------------------------------------------------------------------------------------

# tomllib says where a document is wrong, not where a key stands. The document is known to be right: these need not find mistakes.
_BLANK: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY: Final = re.compile(r"""[ \t]*(?:("(?:[^"\\]|\\.)*"|'[^']*')|([A-Za-z0-9_-]+))[ \t]*""")
# Up to two quotes may stand directly before the three that end a text.
_STRING: Final = re.compile(
    r'"""(?:\\.|[^\\])*?"""(?:"{0,2})' + r"|'''.*?'''(?:'{0,2})" + r'|"(?:\\.|[^"\\])*"' + r"|'[^']*'", re.DOTALL
)
_PLAIN: Final = re.compile(r"[^,\]}#\r\n]*")


def lines_of(text: str) -> dict[tuple[str, ...], int]:
    """Key path → line (from 1) where it stands first, for every table and key of a right TOML document. Keys of tables within a
    list stand below the list's key.

    >>> lines_of("[a]\\nb.c = 1\\n")
    {('a',): 1, ('a', 'b'): 2, ('a', 'b', 'c'): 2}
    """
    return _Lines(text).found


class _Lines:
    """A scan of a document that tomllib has read. `found` is what `lines_of` gives."""

    def __init__(self, text: str) -> None:
        self.found: dict[tuple[str, ...], int] = {}
        self._text, self._at = text, 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        table: tuple[str, ...] = ()
        while self._next():
            if text[self._at] == "[":
                brackets = 2 if text.startswith("[[", self._at) else 1
                self._at += brackets
                table = self._key(())
                self._at += brackets
            else:
                self._pair(table)

    def _next(self) -> str:
        """The next character that says something; empty at the end."""
        self._skip(_BLANK)
        return self._text[self._at : self._at + 1]

    def _skip(self, what: re.Pattern[str]) -> re.Match[str]:
        match = what.match(self._text, self._at)
        assert match, "tomllib has read what is no TOML"
        self._at = match.end()
        return match

    def _key(self, above: tuple[str, ...]) -> tuple[str, ...]:
        """Past a key, dotted or not: all of its path."""
        while True:
            line = bisect_right(self._ends, self._at) + 1
            quoted, bare = self._skip(_KEY).groups()
            above = (*above, next(iter(tomllib.loads(f"{quoted} = 0"))) if quoted else bare)
            self.found.setdefault(above, line)
            if self._text[self._at] != ".":
                return above
            self._at += 1

    def _pair(self, above: tuple[str, ...]) -> None:
        """Past `key = value`."""
        key = self._key(above)
        self._at += 1
        self._value(key)

    def _value(self, key: tuple[str, ...]) -> None:
        first = self._next()
        if first in ('"', "'"):
            self._skip(_STRING)
        elif first not in ("[", "{"):
            self._skip(_PLAIN)
        else:
            self._at += 1
            while (here := self._next()) not in ("]", "}", ""):
                if here == ",":
                    self._at += 1
                elif first == "{":
                    self._pair(key)
                else:
                    self._value(key)
            self._at += 1
