"""Settings: what was asked for, from the command line or the Python API, over `MIRROR_*`, over mirror.toml, over the defaults. Owns
which of them counts, and the making of the specs and options that the layers below take. How a value is spelt is in spelling.py.

The only reader of the environment: `--max-delete` may be given as MIRROR_MAX_DELETE, and so may every other flag, for every command
that has it. An empty variable counts as absent.

    >>> asked = Settings({"max_transfer": "10M"}, {"MIRROR_MAX_TRANSFER": "1G", "MIRROR_WORKERS": "4"})
    >>> asked.size("max_transfer"), asked.whole("workers", 2), asked.duration("max_duration")
    (10485760, 4, None)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mirror import spelling
from mirror.errors import UsageError

if TYPE_CHECKING:
    from mirror.access import KeyFile
    from mirror.making import Making
    from mirror.plan import DeletionLimit
    from mirror.publish import WaitingOptions
    from mirror.publishing import PublishOptions
    from mirror.restore import RestoreOptions
    from mirror.rollback import RollbackOptions
    from mirror.serve.receiver import ReceiveOptions
    from mirror.serve.site import SiteOptions
    from mirror.site import Filter, SiteSpec
    from mirror.site.filters import Placed
    from mirror.site.routes import Routes
    from mirror.store import StoreSpec
    from mirror.survey import LookOptions
    from mirror.sync import SyncOptions
    from mirror.target import TargetSpec
    from mirror.verify import VerifyOptions

RULE_FLAGS: Final = ("include", "exclude", "filter_from")
FILE: Final = "mirror.toml"
WORKERS: Final = 2
_T = TypeVar("_T")


def environment(names: Iterable[str]) -> dict[str, str]:
    """The variables of this process that stand for these settings."""
    variables = (f"MIRROR_{name.upper()}" for name in names)
    return {variable: value for variable in variables if (value := os.environ.get(variable))}


def wants_traceback() -> bool:
    """Whether MIRROR_DEBUG asks for the traceback of an error."""
    return _is_yes("MIRROR_DEBUG")


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether an error in the arguments themselves must be told as JSON."""
    return "--json" in arguments or ("--no-json" not in arguments and _is_yes("MIRROR_JSON"))


def _is_yes(variable: str) -> bool:
    """Whether it says yes, where nonsense must not be an error yet."""
    try:
        return spelling.yes_or_no(os.environ.get(variable, ""))
    except ValueError:
        return False


class Settings:
    """Values by name (`max_delete`), as they were given, and their meaning. UsageError names the wrong flag, variable or line.

    given: what the caller said; None counts as not said. variables: `MIRROR_*`. configured: (value, where it stands) of
    mirror.toml, with all its rules as `rules`. The Python API has only the first.
    """

    def __init__(
        self,
        given: Mapping[str, Any],
        variables: Mapping[str, str] | None = None,
        configured: Mapping[str, tuple[Any, str]] | None = None,
    ) -> None:
        self._given = {name: value for name, value in given.items() if value is not None}
        self._variables = variables or {}
        self._configured = configured or {}
        self._asked: set[str] = set()
        self._rules: tuple[Placed, ...] | None = None

    def unknown(self) -> list[str]:
        """What was given and never asked for; to be called when all has been."""
        return sorted(self._given.keys() - self._asked)

    def was_given(self, name: str) -> bool:
        """Whether the caller said it: no variable and no file."""
        return name in self._given

    def _find(self, name: str) -> tuple[Any, str]:
        """(value, what to call it); None when it is nowhere."""
        self._asked.add(name)
        if name in self._given:
            return self._given[name], "--" + name.replace("_", "-")
        variable = f"MIRROR_{name.upper()}"
        if variable in self._variables:
            return self._variables[variable], variable
        return self._configured.get(name, (None, variable))

    def parsed(self, name: str, parse: Callable[[str], _T]) -> _T | None:
        """What `parse` makes of it, None when not given; its ValueError says what is wrong."""
        value, called = self._find(name)
        if value is None:
            return None
        try:
            return parse(str(value))
        except ValueError as error:
            raise UsageError("cannot use", where=f"{called} {spelling.shown(str(value))}", why=str(error)) from None

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        value, _ = self._find(name)
        return default if value is None else str(value)

    def switch(self, name: str) -> bool:
        """Yes or no; no unless said."""
        value, _ = self._find(name)
        return value if isinstance(value, bool) else bool(self.parsed(name, spelling.yes_or_no))

    def size(self, name: str) -> int | None:
        """Bytes, None when not given."""
        return self.parsed(name, spelling.size)

    def duration(self, name: str) -> float | None:
        """Seconds, None when not given."""
        return self.parsed(name, spelling.duration)

    def whole(self, name: str, default: int, least: int = 0) -> int:
        """A whole number, at least `least`."""
        found = self.parsed(name, lambda text: spelling.whole(text, least))
        return default if found is None else found

    def choice(self, name: str, choices: Sequence[str], default: str = "") -> str:
        """One of some words."""
        return self.parsed(name, lambda text: spelling.choice(text, choices)) or default

    def many(self, name: str) -> tuple[str, ...]:
        """A flag that may be given again and again; a variable has one value a line."""
        value, _ = self._find(name)
        if isinstance(value, str):
            return tuple(line for line in value.splitlines() if line)
        return tuple(value or ())

    def each(self, name: str, parse: Callable[[str], _T]) -> list[_T]:
        """What `parse` makes of each value of a flag that may be given again; its ValueError says what is wrong."""
        value, called = self._find(name)
        found = []
        for text, place in self._numbered(name):
            try:
                found.append(parse(text))
            except ValueError as error:
                where = place if isinstance(value, str) and "\n" in value else called
                raise UsageError("cannot use", where=f"{where} {text!r}", why=str(error)) from None
        return found

    def rules(self) -> tuple[Placed, ...]:
        """The ordered rules, each with its place for people. They are one list and come from one place: `rules`, a sequence of
        (include | exclude | filter_from, value) in the order of the command line; else the variables; else mirror.toml. In these
        two includes come first, then excludes, then files. Files are read once: one may be a pipe."""
        if self._rules is None:
            self._rules = self._read_rules()
        return self._rules

    def _read_rules(self) -> tuple[Placed, ...]:
        from mirror.site.filters import Placed

        value, _ = self._find("rules")
        if "rules" in self._given:
            said = [Placed(kind, text, f"rule option {n} (--{kind.replace('_', '-')})") for n, (kind, text) in enumerate(value, 1)]
        else:
            said = [Placed(flag, line, place) for flag in RULE_FLAGS for line, place in self._numbered(flag)]
            said = said or [Placed(*each) for each in value or ()]
        found: list[Placed] = []
        for rule in said:
            found.extend(_rules_of_file(rule.pattern) if rule.kind == "filter_from" else [rule])
        return tuple(found)

    def _numbered(self, name: str) -> list[tuple[str, str]]:
        """The values of a flag that may be given again, with their places; a variable's empty lines count as lines."""
        value, called = self._find(name)
        if not isinstance(value, str):
            return [(text, f"{called} number {number}") for number, text in enumerate(value or (), 1)]
        return [(line, f"{called} line {number}") for number, line in enumerate(value.splitlines(), 1) if line]


def _rules_of_file(name: str) -> tuple[Placed, ...]:
    from mirror.site.filters import parse_rules

    try:
        text = Path(name).read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        raise UsageError("cannot read the filter file", where=name, why=error.strerror or str(error)) from None
    return parse_rules(text.removeprefix("\ufeff"), name)


def configuration_file(asked: Settings) -> str:
    """Where the named mirrors are described: --config or MIRROR_CONFIG (it may not be there), else mirror.toml in the working
    folder, else in the user's configuration folder; empty when there is none."""
    given = asked.text("config")
    if given or os.path.isfile(FILE):
        return given or FILE
    if not (os.environ.get("HOME") or os.environ.get("XDG_CONFIG_HOME")):
        return ""
    from platformdirs import user_config_path

    path = user_config_path("mirror", appauthor=False) / FILE
    return str(path) if path.is_file() else ""


# -- specs and options --------------------------------------------------------------------------------------------------


def url_of(text: str | os.PathLike[str], called: str) -> str:
    """A folder or URL as it was given, without a slash at its end. An empty one is an unset variable of somebody's script."""
    url = os.fspath(text)
    if not url:
        raise UsageError(f"cannot use {called}", where="''", why="it is empty", hint="give a folder or a URL")
    if "\0" in url:
        raise UsageError(f"cannot use {called}", where=repr(url), why="it contains a NUL byte")
    stripped = url.rstrip("/")
    return url if not stripped or stripped.endswith(":") else stripped


def store_spec(url: str, asked: Settings) -> StoreSpec:
    """How to reach a store."""
    from mirror.store import StoreSpec
    from mirror.store.aws import with_environment
    from mirror.store.dav_access import with_login
    from mirror.webclient.proxies import proxies_in

    spec = StoreSpec(
        url,
        endpoint_url=asked.text("endpoint_url"),
        region=asked.text("region"),
        profile=asked.text("profile"),
        bandwidth=asked.size("bwlimit") or 0,
        transfers=asked.whole("transfers", StoreSpec("").transfers, least=1),
        key_file=asked.text("key_file"),
        insecure=asked.switch("insecure"),
        single_writer=asked.switch("single_writer"),
        proxies=proxies_in(os.environ),
    )
    return with_login(with_environment(spec, os.environ), os.environ)


def target_spec(text: str | os.PathLike[str], asked: Settings, say: Callable[[str, str], None]) -> TargetSpec:
    """How to reach a target. say: told (kind, text) when there is nowhere to keep what the next run could use."""
    from mirror.store.dav_access import with_login
    from mirror.store.open import normalise_url
    from mirror.target import TargetSpec

    named = asked.text("store")
    store = normalise_url(url_of(named, "--store")) if named else ""
    # A store on S3, or on WebDAV, that a live folder names is reached by what is known here of those.
    apart = with_login(replace(store_spec(store or "s3://", asked), url=store), os.environ)
    return TargetSpec(store_spec(normalise_url(url_of(text, "TARGET")), asked), cache_folder(asked, say), apart)


def site_spec(text: str | os.PathLike[str], asked: Settings, called: str = "SRC") -> SiteSpec:
    """How to read a site."""
    from mirror.site import SiteSpec

    url = url_of(text, called)
    store = store_spec(url, asked)
    return SiteSpec(
        url,
        filter_of(asked),
        store.endpoint_url,
        store.region,
        store.profile,
        asked.switch("xattrs"),
        static_credentials=store.static_credentials,
        symlinks=asked.choice("symlinks", spelling.SYMLINKS, "keep"),
    )


def filter_of(asked: Settings) -> Filter:
    """The rules of this run, each of them looked at once: a wrong one is a usage error before anything is opened."""
    from mirror.site import Filter
    from mirror.site.filters import compile_rule

    placed = asked.rules()
    for rule in placed:
        compile_rule(*rule)
    return Filter(tuple((rule.kind, rule.pattern) for rule in placed))


def header_routes(asked: Settings) -> Routes:
    """What files are published with: `--header 'GLOB: Name: value'`."""
    from mirror.site.routes import Routes

    return Routes(asked.each("header", _usable_route))


def _usable_route(text: str) -> spelling.Route:
    from mirror.site.filters import INCLUDE, compile_rule

    route = spelling.route(text)
    try:
        compile_rule(INCLUDE, route.pattern)
    except UsageError as error:
        raise ValueError(f"its pattern {route.pattern!r} matches nothing: {error.hint}") from None
    return route


def cache_folder(asked: Settings, say: Callable[[str, str], None]) -> Path | None:
    """Where this host keeps what it knows of targets; None when there is no such place. Makes nothing."""
    given = asked.text("cache_dir")
    if given:
        folder = Path(os.path.abspath(given))
        why = _unwritable(folder)
        if why:
            raise UsageError("cannot use the cache folder", where=str(folder), why=why, hint="name another with --cache-dir")
        return folder
    if not (os.environ.get("HOME") or os.environ.get("XDG_CACHE_HOME")):
        why = "HOME is not set"
    else:
        from platformdirs import user_cache_path

        folder = user_cache_path("mirror", appauthor=False)
        why = _unwritable(folder)
        if not why:
            return folder
        why = f"{folder}: {why}"
    say("no-cache", f"nothing is kept on this host for the next run ({why}); to be faster then, say --cache-dir")
    return None


def _unwritable(folder: Path) -> str:
    """Why nothing can be written there (or where it would be made), empty when it can."""
    try:
        while not folder.exists() and folder != folder.parent:
            if folder.is_symlink():
                return "it is a broken link"
            folder = folder.parent
        if not folder.is_dir():
            return f"{folder} is not a folder"
    except OSError as error:  # HOME is still root's, after a su
        return f"{folder} cannot be looked at: {(error.strerror or str(error)).lower()}"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} cannot be written"


def rights(asked: Settings) -> tuple[str, ...]:
    """The rights of a new key; none when they were not given."""
    return asked.parsed("rights", spelling.rights) or ()


def key_file(asked: Settings) -> KeyFile:
    """The server's file of keys."""
    from mirror.access import KeyFile

    name = asked.text("keys")
    if not name:
        raise UsageError("cannot tell where the keys are", hint="say --keys FILE")
    return KeyFile(name)


def receive_options(asked: Settings, say: Callable[[str, str], None]) -> ReceiveOptions:
    """The options of `mirror serve`. say: told (kind, text) when there is nowhere to keep what the next run could use."""
    from mirror.serve.receiver import ReceiveOptions

    default, free = ReceiveOptions(""), asked.parsed("min_free", spelling.room)
    return ReceiveOptions(
        keys=key_file(asked).path,
        listen=asked.parsed("listen", spelling.address) or default.listen,
        certificate=asked.text("certfile"),
        private_key=asked.text("keyfile"),
        insecure=asked.switch("insecure"),
        max_body=asked.parsed("max_body", spelling.some_bytes) or default.max_body,
        imports=asked.whole("imports", default.imports, least=1),
        client_timeout=asked.parsed("client_timeout", spelling.some_time) or default.client_timeout,
        min_free=default.min_free if free is None else free.number or 0,
        min_free_percent=(free.percent or 0.0) if free else 0.0,
        cache=cache_folder(asked, say),
        environment={name: value for name, value in os.environ.items() if not name.startswith("MIRROR_")},
    )


def making(asked: Settings, command: str = "mirror sync") -> Making:
    """What may be done about a target that is not there. command: how to name this run in hints."""
    from mirror.making import Making

    return Making(
        layout=asked.text("layout"),
        site=asked.text("site"),
        adopt=asked.switch("adopt"),
        new_target=asked.switch("new_target"),
        named=asked.text("named"),  # said by nobody: the command line sets it
        command=command,
    )


def deletion_limit(asked: Settings) -> DeletionLimit:
    """`--max-delete`: a number or a percentage."""
    from mirror.plan import DeletionLimit

    return DeletionLimit(*(asked.parsed("max_delete", spelling.paths) or ()))


def look_options(asked: Settings) -> LookOptions:
    """How contents are judged."""
    from mirror.survey import LookOptions

    checksum, ignore_inode, delete_excluded = (asked.switch(name) for name in ("checksum", "ignore_inode", "delete_excluded"))
    return LookOptions(checksum, ignore_inode, delete_excluded, header_routes(asked))


def sync_options(asked: Settings, command: str) -> SyncOptions:
    """The options of `mirror sync`. command: how to name this run in hints."""
    from mirror.sync import SyncOptions

    free = asked.parsed("min_free", spelling.room) or spelling.Amount()
    return SyncOptions(
        making=making(asked, command),
        dry_run=asked.switch("dry_run"),
        look=look_options(asked),
        max_delete=deletion_limit(asked),
        allow_empty_source=asked.switch("allow_empty_source"),
        workers=asked.whole("workers", WORKERS),
        max_transfer=asked.size("max_transfer"),
        max_duration=asked.duration("max_duration"),
        min_free=free.number,
        min_free_percent=free.percent,
        tags=asked.many("tag"),
        heartbeat=asked.switch("heartbeat"),
        stop_on_error=asked.choice("on_error", spelling.ON_ERROR) == "stop",
        skip_conflicts=asked.choice("case_conflict", spelling.CASE_CONFLICT) == "skip",
        wait=asked.switch("wait"),
        take_over=asked.switch("take_over"),
        lease=asked.parsed("lease", spelling.lease) or SyncOptions().lease,
        publish=publish_options(asked),
        release=asked.switch("release"),
        public_url=asked.parsed("public_url", spelling.web_address) or "",
        command=command,
    )


def rollback_options(asked: Settings, command: str) -> RollbackOptions:
    """The options of `mirror rollback`. command: how to name this run in hints."""
    from mirror.rollback import RollbackOptions

    free = asked.parsed("min_free", spelling.room) or spelling.Amount()
    return RollbackOptions(
        at=asked.text("at"),
        dry_run=asked.switch("dry_run"),
        max_delete=deletion_limit(asked),
        rules=filter_of(asked).rules,
        delete_excluded=asked.switch("delete_excluded"),
        workers=asked.whole("workers", WORKERS),
        min_free=free.number,
        min_free_percent=free.percent,
        wait=asked.switch("wait"),
        take_over=asked.switch("take_over"),
        lease=asked.parsed("lease", spelling.lease) or RollbackOptions("").lease,
        command=command,
    )


def waiting_options(asked: Settings) -> WaitingOptions:
    """The options of `mirror publish`."""
    from mirror.publish import WaitingOptions

    free = asked.parsed("min_free", spelling.room) or spelling.Amount()
    return WaitingOptions(asked.whole("workers", WORKERS), free.number, free.percent, asked.switch("wait"))


def publish_options(asked: Settings) -> PublishOptions:
    """How a tree is published."""
    from mirror.publishing import PublishOptions

    deletion = asked.parsed("delete", spelling.deletion)
    if asked.was_given("delete"):  # a variable and mirror.toml may mean a restore, where it is a switch
        deletion = asked.choice("delete", spelling.DELETE)
    return PublishOptions(
        order=asked.many("order"),
        never_delete=deletion == "never",
        grace=asked.parsed("delete_grace", spelling.grace) or 0,
        history=not asked.switch("no_history"),
    )


def restore_options(asked: Settings, command: str, paths: Iterable[str | bytes] = ()) -> RestoreOptions:
    """The options of `mirror restore`. command: how to name this run in hints; paths: what to bring back, all when empty."""
    from mirror.restore import RestoreOptions

    return RestoreOptions(
        paths=tuple(os.fsencode(path) for path in paths),
        at=asked.text("at", "latest"),
        in_place=asked.switch("in_place"),
        dry_run=asked.switch("dry_run"),
        delete=asked.parsed("delete", spelling.deletion) is True,  # `after` and `never` are meant for syncs
        overwrite=asked.choice("overwrite", spelling.OVERWRITE, "always"),
        checksum=asked.switch("checksum"),
        strict_metadata=asked.switch("strict_metadata"),
        numeric_ids=asked.switch("numeric_ids"),
        chown=asked.text("chown"),
        chmod=asked.text("chmod"),
        max_delete=deletion_limit(asked),
        filter=replace(filter_of(asked), ignore_files=False),
        delete_excluded=asked.switch("delete_excluded"),
        workers=asked.whole("workers", WORKERS),
        transfers=asked.whole("transfers", RestoreOptions().transfers, least=1),
        max_duration=asked.duration("max_duration"),
        command=command,
    )


def verify_options(asked: Settings) -> VerifyOptions:
    """The options of `mirror verify`."""
    from mirror.verify import VerifyOptions

    against = asked.text("against")
    return VerifyOptions(
        quick=asked.switch("quick"),
        part=asked.parsed("part", spelling.part),
        against=site_spec(against, asked, "--against") if against else None,
        at=asked.text("at", "latest"),
        workers=asked.whole("workers", WORKERS),
        max_duration=asked.duration("max_duration"),
        public_url=asked.parsed("public_url", spelling.web_address) or "",
    )


def serve_site_options(asked: Settings) -> SiteOptions:
    """The options of `mirror serve --site`."""
    from mirror.serve.site import SiteOptions

    return SiteOptions(
        at=asked.text("at", "latest"),
        listen=asked.parsed("listen", spelling.address) or SiteOptions().listen,
        memory=asked.parsed("memory", spelling.memory) or SiteOptions().memory,
        certificate=asked.text("certfile"),
        private_key=asked.text("keyfile"),
    )
