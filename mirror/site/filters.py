"""Which paths of a site count: ordered include and exclude rules, then `.mirrorignore` files. Pure: paths in, verdicts out, no IO.

Owns the rules' meaning. Reading `.mirrorignore` files and walking folders are the sites' business.

- One ordered list of rules, patterns as in gitignore, relative to the root of the site; the first that matches wins. A pattern that
  matches a folder matches all that is below it (but an include of `*/` means the folders only, as in rsync).
- A path that no rule matches is asked of the `.mirrorignore` files from its own folder upwards; in a file the last line that
  matches wins, `!` lets in again. An included path is not asked.
- An excluded folder is not looked into, unless an include rule stands before the rule that excluded it: then the folder is let out
  only when something below it is. So `--include '*.html' --exclude '*'` gives the pages and the folders they are in.

    >>> matcher = Matcher(Filter((("include", "*.html"), ("exclude", "*"))))
    >>> matcher.decide(b"a/b.html"), matcher.decide(b"a/b.css"), matcher.counts
    ('', '- *', {'- *': 1})

Case counts. Names are decoded as UTF-8, anything else byte by byte, so `?` is one character.
"""

from __future__ import annotations

import re
import warnings
from typing import Final, NamedTuple

from mirror.errors import UsageError
from mirror.site import Filter

IGNORE_FILE: Final = b".mirrorignore"
IGNORE_FILE_MAX: Final = 1 << 20  # bytes; law 5: memory is bounded whatever a site holds
INCLUDE, EXCLUDE = "include", "exclude"
_VERBS: Final = {"+": INCLUDE, "-": EXCLUDE}
# What pathspec marks the folder of a match with: https://github.com/cpburnz/python-pathspec, patterns/gitignore/spec.py
_MARK: Final = "ps_d"
_ALL_FOLDERS: Final = f"(?P<{_MARK}>/)"
_TOP_NAME: Final = re.compile(r"/[A-Za-z0-9._-]*[A-Za-z0-9_-]")  # of the root, and nothing in it that is more than itself


class Placed(NamedTuple):
    """A rule as it was given. kind: include or exclude (or filter_from, a file that is still to be read); place: for people."""

    kind: str
    pattern: str
    place: str


class _Pattern(NamedTuple):
    """One compiled pattern. text: for people; negated: lets in (an include rule, or it began with `!`); below: whether it also
    matches what is below a match; file, line: where it stands, for those of a `.mirrorignore`."""

    regex: re.Pattern[str]
    text: str
    negated: bool
    below: bool = False
    file: str = ""
    line: int = 0

    def matches(self, path: str) -> bool:
        found = self.regex.search(path)
        if not found:
            return False
        if found.lastgroup:  # a folder of the path matched, or the path itself, which is a folder then
            return self.below or found.end() == len(path)
        return found.end() < len(path) or path[-1] != "/"  # `a/**` is what is below `a/`, not `a/`


class _IgnoreFile(NamedTuple):
    """The patterns of one `.mirrorignore`, last line first; `cut` is the length of its folder's path as text."""

    cut: int
    patterns: tuple[_Pattern, ...]


class Decision(NamedTuple):
    """The rule that decides on a path. rule: its text; lets_in: what it decides; number: which of the ordered rules, from 0;
    file, line: the `.mirrorignore` that it is of, where there is no such number."""

    rule: str
    lets_in: bool
    number: int | None
    file: str = ""
    line: int = 0


class Matcher:
    """The filter of one scan. Counts what it leaves out; not thread-safe. UsageError for a rule that cannot be one.

    active: whether anything can be left out at the moment; while it is False, `decide` need not be asked.
    counts: rule → paths left out by it (a folder that is not looked into counts once).
    reads_ignore_files: whether `enter` wants the `.mirrorignore` of every folder.
    """

    def __init__(self, filter: Filter) -> None:
        self.counts: dict[str, int] = {}
        self.reads_ignore_files = filter.ignore_files
        self._rules = tuple(compile_rule(verb, pattern) for verb, pattern in filter.rules)
        self._files: list[_IgnoreFile] = []
        self._porous: set[str] = set()  # exclude rules behind an include rule
        included = False
        for rule in self._rules:
            included = included or rule.negated
            if included and not rule.negated:
                self._porous.add(rule.text)
        # The rule that every tree has, `- /.mirror`: below the root nothing can match, and 33,000 questions took 0.09 s.
        self._only_top = not included and all(_TOP_NAME.fullmatch(pattern) for _, pattern in filter.rules)
        self.active = bool(self._rules)

    def is_active_in(self, folder: bytes) -> bool:
        """Whether `decide` need be asked of what is in this folder, which no rule has left out."""
        return self.active and not (folder and self._only_top and not self._files)

    def decide(self, path: bytes) -> str:
        """The rule that leaves this path out, or an empty string. A folder's path ends in `/`; folders above count as let in."""
        text = path.decode("utf-8", "surrogateescape")
        rule = self._first(text) or self._ignored(text)
        if rule is None or rule.negated:
            return ""
        if path[-1:] != b"/" or rule.text not in self._porous:
            self.counts[rule.text] = self.counts.get(rule.text, 0) + 1
        return rule.text

    def explain(self, path: bytes) -> Decision | None:
        """Which rule decides on a path as `decide` does, letting in or not; None when none does. Counts nothing."""
        text = path.decode("utf-8", "surrogateescape")
        rule = self._first(text)
        if rule:
            return Decision(rule.text, rule.negated, self._rules.index(rule))
        rule = self._ignored(text)
        if rule is None:
            return None
        return Decision(rule.text.removeprefix(f"{rule.file}: "), rule.negated, None, rule.file, rule.line)

    def looks_below(self, rule: str) -> bool:
        """Whether a folder that this rule left out must be looked into all the same."""
        return rule in self._porous

    def protects(self, path: bytes) -> bool:
        """Whether the ordered rules leave out a path or a folder above it: it may be in an older manifest and is not deleted
        then. (What `.mirrorignore` files leave out, the scan itself reports.) A folder that is looked into is not protected."""
        text = path.decode("utf-8", "surrogateescape")
        end = text.find("/") + 1
        while end and self._rules:
            above = self._first(text[:end])
            if above and not above.negated and above.text not in self._porous:
                return True
            end = text.find("/", end) + 1
        rule = self._first(text)
        return bool(rule and not rule.negated and not (text.endswith("/") and rule.text in self._porous))

    def enter(self, folder: bytes, content: bytes) -> None:
        """Heed a `.mirrorignore` (its content) for all that is below `folder`, until `leave`."""
        prefix = folder.decode("utf-8", "surrogateescape")
        file = prefix + IGNORE_FILE.decode()
        patterns = []
        for number, line in enumerate(content.decode("utf-8", "surrogateescape").removeprefix("\ufeff").splitlines(), 1):
            pattern = _compile(line, f"{file}: {line.strip()}")
            if pattern:
                patterns.append(pattern._replace(file=file, line=number))
        self._files.append(_IgnoreFile(len(prefix), tuple(reversed(patterns))))
        self.active = True

    def leave(self) -> None:
        """Forget the `.mirrorignore` that was entered last."""
        self._files.pop()
        self.active = bool(self._rules or self._files)

    def _first(self, path: str) -> _Pattern | None:
        for rule in self._rules:
            if rule.matches(path):
                return rule
        return None

    def _ignored(self, path: str) -> _Pattern | None:
        for file in reversed(self._files):
            below = path[file.cut :]
            for pattern in file.patterns:
                if pattern.matches(below):
                    return pattern
        return None


def parse_rules(text: str, where: str) -> tuple[Placed, ...]:
    """The rules of a filter file: `+ pattern`, `- pattern`, `# comment`, empty lines. UsageError with the line's number for others.

    >>> parse_rules("# pages only\\n+ *.html\\n", "site.filter")
    (Placed(kind='include', pattern='*.html', place='site.filter line 2'),)
    """
    rules = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        verb, pattern = _VERBS.get(line[0]), line[2:].strip()
        if not verb or line[1:2] != " " or not pattern:
            raise UsageError(
                "cannot use the filter file",
                where=f"{where} line {number}",
                why=f"{line.strip()!r} is no rule",
                hint="a line is '+ PATTERN', '- PATTERN' or '# comment'",
            )
        rule = Placed(verb, pattern, f"{where} line {number}")
        compile_rule(*rule)
        rules.append(rule)
    return tuple(rules)


def compile_rule(verb: str, pattern: str, where: str = "") -> _Pattern:
    """An ordered rule, ready to be asked. UsageError, with where it stands, when it cannot be one."""
    sign = {INCLUDE: "+", EXCLUDE: "-"}.get(verb)
    compiled = _compile(pattern, f"{sign} {pattern}") if sign and not pattern.startswith("!") else None
    if not compiled:
        why = f"{verb!r} is neither {INCLUDE!r} nor {EXCLUDE!r}" if not sign else "it can match nothing"
        hint = "let paths in with an include rule before it" if pattern.startswith("!") else "patterns are those of gitignore"
        raise UsageError("cannot use the filter rule", where=f"{pattern!r}{where and ' of '}{where}", why=why, hint=hint)
    included = verb == INCLUDE
    folders_only = included and compiled.regex.pattern == _ALL_FOLDERS + r"\Z"
    return compiled._replace(negated=included, below=not folders_only)


def _compile(line: str, text: str) -> _Pattern | None:
    """A line of gitignore as a pattern; None for one that never matches: empty, a comment, a broken range."""
    if _TOP_NAME.fullmatch(line):  # the rule of every tree, without what the import below takes
        return _Pattern(re.compile(f"^{re.escape(line[1:])}(?:{_ALL_FOLDERS}|\\Z)", re.DOTALL), text, negated=False)
    # Here, not above: 20 ms that a run without rules need not spend.
    from pathspec.patterns.gitignore.base import GitIgnorePatternError
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        regex, positive = GitIgnoreSpecPattern.pattern_to_regex(line)
    except GitIgnorePatternError:
        return None
    if regex is None or positive is None:
        return None
    # A name may hold newlines: `.` must cross them, and the end is the end.
    if regex.endswith("|$)"):
        regex = regex[:-2] + r"\Z)"
    elif regex == _ALL_FOLDERS:
        regex += r"\Z"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # `[[a]` may mean something else one day: not in gitignore
            return _Pattern(re.compile(regex, re.DOTALL), text, not positive)
    except re.error:  # a range that runs backwards
        return None
