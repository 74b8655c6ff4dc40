"""The words of the command line: verbs, their arguments and flags, and what each means. A table; `parsing.py` reads it.

A flag is a MIRROR_* variable as well, so nothing is given a default here: config.py knows what was said where, and what holds
otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

BOTH: Final = ("sync", "diff")  # one word, if it is a name, is source and target


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag. value: what it takes, for help; empty for a switch. many: it may be given again."""

    name: str
    help: str
    value: str = ""
    short: str = ""
    many: bool = False
    called: str = ""  # its name in Settings, where that differs

    @property
    def dest(self) -> str:
        return self.called or self.name.replace("-", "_")

    @property
    def opposite(self) -> str:
        """What turns a switch off."""
        return f"--no-{self.name}" if not self.name.startswith("no-") else f"--{self.name.removeprefix('no-')}"


@dataclass(frozen=True, slots=True)
class Verb:
    """One command. words: its arguments; `[X]` may be left out, `[X...]` may be many. about: the help's text, its first line alone
    in the list of commands."""

    name: str
    words: tuple[str, ...]
    about: str
    flags: tuple[Flag, ...] = field(default=(), repr=False)

    @property
    def usage(self) -> str:
        return f"mirror {self.name} {' '.join(self.words)} [OPTIONS]"

    @property
    def named(self) -> str:
        """What the name of a mirror in mirror.toml may stand for, for help."""
        if self.name == "serve":
            return "TARGET may be the NAME of a mirror in mirror.toml. MIRROR_KEYS is a server's file, MIRROR_KEY_FILE a client's."
        if self.name == "key":
            return "A key counts for all that the server holds. The secret cannot be got back: revoke a key that was lost."
        if self.name == "filter-test":
            return "SRC may be the NAME of a mirror in mirror.toml, whose rules hold then unless options give others."
        both = "NAME alone stands for SRC and TARGET. " if self.name in BOTH else ""
        return f"TARGET may be the NAME of a mirror in mirror.toml, which gives options, too. {both}`./NAME` is always a folder."


AT: Final = Flag(
    "at", "which snapshot: 42, latest, a time such as 2026-11-20T03:00 (the newest begun by then), tag:NAME", "SNAPSHOT"
)
QUIET: Final = Flag("quiet", "print nothing when all is well (for cron); problems and errors are still printed", short="q")
VERBOSE: Final = Flag("verbose", "print each path that changes, problems as they occur, and requests by kind, to stderr", short="v")
JSON: Final = Flag("json", "JSON Lines on stdout, the last one the summary (docs/events.md)")
LOG: Final = Flag("log-file", "append what happens, with times, to this file", "FILE")
REPORTS: Final = (QUIET, VERBOSE, JSON, LOG)
CHANGES: Final = Flag(
    "changes-file",
    "write the paths that changed (with -n: would change) to this file, for the next tool: symbol, tab, path",
    "FILE",
)
CONFIG: Final = Flag("config", "where mirrors are named (default: ./mirror.toml, else that of the user)", "FILE")
ACCESS: Final = (
    Flag("endpoint-url", "where an S3 service other than AWS listens", "URL"),
    Flag("region", "the S3 region", "NAME"),
    Flag("profile", "the AWS profile to take credentials from", "NAME"),
)
INSECURE: Final = Flag("insecure", "accept plain http:// to or from another machine: everybody on the way can read what passes")
REACH: Final = (
    CONFIG,
    Flag(
        "store",
        "the store of a tree, where it is not in its .mirror: another folder, s3://bucket/prefix, dav+https://host/path",
        "STORE",
    ),
    Flag("cache-dir", "where this host keeps what makes the next run fast; may be lost at any time", "FOLDER"),
    *ACCESS,
    Flag("key-file", "the file with this client's key for a target at http(s)://, as `mirror key new` printed it", "FILE"),
    INSECURE,
    Flag("bwlimit", "at most so many bytes a second to and from the store, such as 10M", "SIZE"),
    Flag("transfers", "requests to the store in flight (default 8)", "N"),
)
SINGLE_WRITER: Final = Flag(
    "single-writer", "write to a WebDAV server that cannot keep two writers apart: you vouch that there is only ever one"
)
WORKERS: Final = Flag("workers", "processes that share the work of a large run; 0: none but this one (default 2)", "N")
MAX_DURATION: Final = Flag("max-duration", "stop after so long, such as 2h; progress is kept, exit 10", "TIME")
DRY_RUN: Final = Flag("dry-run", "print the plan to stdout and write nothing", short="n")
MAX_DELETE: Final = Flag(
    "max-delete", "stop (exit 25) before anything is written when more than N or P% would be deleted; default: above 25% and "
    "256 paths, or above 50%", "N|P%",
)  # fmt: skip
MAKING: Final = (
    Flag(
        "layout",
        "how a new target is laid out: tree, files to serve with their history beside them (the default where TARGET is a "
        "folder or on S3), or packed, few large objects (the default elsewhere); a target that is there knows",
        "packed|tree",
    ),
    Flag("site", "the name of the site that a target holds: lower-case letters, digits, dots, hyphens", "NAME"),
    Flag("adopt", "make the target in a place that holds other things; they stay (in a tree's way: kept aside)"),
    Flag("new-target", "make a target where this host knew one, or mirror.toml has one, and none is there (is the disk mounted?)"),
)
PUBLIC: Final = Flag(
    "public-url", "where people see a tree, such as https://www.example.org: stop if its .mirror can be fetched there", "URL"
)
RULES: Final = (
    Flag(
        "include",
        "let in what matches; of all rules in the order given, the first that matches decides",
        "PATTERN",
        many=True,
    ),
    Flag("exclude", "leave out what matches (patterns as in .gitignore)", "PATTERN", many=True),
    Flag("filter-from", "rules from a file: lines of '+ PATTERN', '- PATTERN', '# comment'", "FILE", many=True),
)
CHECKSUM: Final = Flag("checksum", "read every file, also where size and times say that nothing changed", short="c")
IGNORE_INODE: Final = Flag(
    "ignore-inode", "a file whose inode alone changed is not read again (for sources that are made anew each night)"
)
DELETE_EXCLUDED: Final = Flag("delete-excluded", "delete what the rules leave out; without this it is kept as it was")
EXIT_CODE: Final = Flag("exit-code", "exit 4 when there are differences")
MIN_FREE: Final = Flag(
    "min-free", "do not begin when less than this would be free at the target, such as 20G or 5% (default 5%, at most 10 GiB)",
    "SIZE|P%",
)  # fmt: skip
WAIT: Final = Flag("wait", "wait while another run uses the target, instead of exit 11")
LEASES: Final = (
    Flag("take-over", "finish what another run publishes into a bucket at once: it is dead, you know it"),
    Flag("lease", "how long a publisher into a bucket may be silent before it counts as dead (default 30s)", "TIME"),
)
XATTRS: Final = Flag("xattrs", "mirror extended attributes as well")
SYMLINKS: Final = Flag(
    "symlinks", "links of SRC: keep them as links (the default), follow those that lead to something in SRC, or skip them", "HOW"
)
HEADER: Final = Flag(
    "header",
    "how matching files are published, such as '*.css: Cache-Control: max-age=86400'; the first that matches counts",
    "GLOB: NAME: VALUE",
    many=True,
)

SYNC: Final = Verb(
    "sync",
    ("SRC", "TARGET"),
    """Make the target's newest snapshot what the site SRC is now.

    SRC is a folder, s3://bucket/prefix, or any fsspec URL; TARGET a folder, s3://bucket/prefix or dav+https://host/path. What is in
    SRC is mirrored, a slash at the end never matters. What the target has already is not sent; when nothing changed, nothing is
    written. If the run dies, give the same command again: it goes on where it was.""",
    (
        *MAKING,
        DRY_RUN,
        EXIT_CODE,
        CHECKSUM,
        IGNORE_INODE,
        MAX_DELETE,
        Flag("allow-empty-source", "mirror a source that is empty although the last snapshot was not"),
        *RULES,
        DELETE_EXCLUDED,
        XATTRS,
        Flag("delete", "what left SRC is deleted after all else is in place (the default), or never", "after|never"),
        Flag(
            "delete-grace",
            "in a tree: assets and other files that left SRC (pages do not) stay for N snapshots more (default 0)",
            "N",
        ),
        SYMLINKS,
        HEADER,
        Flag(
            "order",
            "in a tree: what matches the first GLOB is published first, then the second; `...` is all else (assets, others, pages)",
            "GLOB",
            many=True,
        ),
        Flag("no-history", "in a tree: do not keep what is overwritten or deleted; older snapshots are forgotten"),
        Flag("max-transfer", "stop when so many bytes have been stored, such as 10G; progress is kept, exit 8", "SIZE"),
        MAX_DURATION,
        MIN_FREE,
        Flag("tag", "give the snapshot this tag; makes one even if nothing changed", "NAME", many=True),
        Flag("heartbeat", "make a snapshot even if nothing changed"),
        Flag("on-error", "after a path that failed: go on (the default), or stop", "continue|stop"),
        Flag(
            "case-conflict",
            "names that cannot stand together in a tree, or not at all: stop before anything is written (default), or skip them",
            "error|skip",
        ),
        WAIT,
        *LEASES,
        Flag("release", "go on although `mirror rollback` holds the target (exit 11 without this); the hold is over then"),
        PUBLIC,
        SINGLE_WRITER,
        WORKERS,
        CHANGES,
        *REACH,
        *REPORTS,
    ),
)  # fmt: skip

INIT: Final = Verb(
    "init",
    ("TARGET",),
    """Make an empty target.

    `sync` does that too; this is for making it with other rights, or ahead of time. Does nothing when it is there.""",
    (*MAKING, SINGLE_WRITER, *REACH, *REPORTS),
)

RESTORE: Final = Verb(
    "restore",
    ("TARGET", "OUT", "[PATH...]"),
    """Bring a snapshot, or files and folders of it, back into OUT: a folder, s3://BUCKET/PREFIX, or an fsspec URL.

    Nothing in the target is changed. OUT is made; if it is there and not empty, --in-place is needed: then only what differs is
    written, and what is not in the snapshot stays unless --delete. Every byte is checked on the way. PATHs are as `mirror ls`
    prints them. If it was interrupted, give the same command with --in-place: it goes on where it was.

    A bucket keeps no modes, owners, links or empty folders: they are left out, and said. --endpoint-url, --region and --profile
    hold for the target and for OUT.""",
    (
        AT,
        Flag("in-place", "restore into a place that is not empty: write what differs, leave what is there besides"),
        DRY_RUN,
        EXIT_CODE,
        Flag("delete", "with --in-place: delete what is not in the snapshot"),
        MAX_DELETE,
        Flag("overwrite", "files that are there and differ: always (the default), if-newer in the snapshot, or never", "WHEN"),
        CHECKSUM,
        Flag("strict-metadata", "owners, modes or times that could not be set count as failures (exit 23)"),
        Flag("numeric-ids", "set owners by number, not by name"),
        Flag("chown", "give everything to this user and group", "USER[:GROUP]"),
        Flag("chmod", "give everything these modes, such as 644, or D755,F644 for folders and files", "MODES"),
        *RULES,
        Flag("delete-excluded", "with --delete: delete also what the rules leave out"),
        MAX_DURATION,
        WORKERS,
        CHANGES,
        *REACH,
        *REPORTS,
    ),
)

ROLLBACK: Final = Verb(
    "rollback",
    ("TARGET",),
    """Make an older snapshot the newest one again; a target of layout tree serves it at once.

    --at must be given. Only what differs is moved, in the order of a sync, and what it displaces is kept: a rollback to the
    snapshot before takes it back. Then the target is held: `mirror sync` stops with exit 11, so that the next night does not bring
    back what was just taken away, until `mirror sync SRC TARGET --release`.

    What the rules leave out (those given, else those that the newest snapshot was made with) stays as it is. If the run dies, give
    the same command again.""",
    (
        AT,
        DRY_RUN,
        EXIT_CODE,
        MAX_DELETE,
        *RULES,
        Flag("delete-excluded", "bring back and delete also what the rules leave out"),
        MIN_FREE,
        WAIT,
        *LEASES,
        SINGLE_WRITER,
        WORKERS,
        CHANGES,
        *REACH,
        *REPORTS,
    ),
)

PUBLISH: Final = Verb(
    "publish",
    ("TARGET",),
    """Make what clients have brought for a tree its newest snapshot, so that people see it.

    A sync through `mirror serve` by a key with the right publish does this by itself. By a key that may only append, its content is
    imported and waits for this verb: where the tree is, with its folder as TARGET, or from anywhere, with https://HOST/NAME and a
    key that has the right. Only the newest import counts; what it displaces is kept as by a sync. What clients brought goes
    afterwards, since its content is live.

    If the run dies, give the same command again, or sync.""",
    (MIN_FREE, WAIT, WORKERS, *REACH, *REPORTS),
)

VERIFY: Final = Verb(
    "verify",
    ("TARGET",),
    """Read everything in the target and check every byte; name what is damaged and what it belongs to.

    Changes nothing. Exit 4 when something is damaged or differs. A verify that was interrupted goes on where it was.""",
    (
        Flag("quick", "look at names and sizes only"),
        Flag("part", "read a part of the target, such as 3/7: the same one each time, so seven nights read all", "N/M"),
        Flag("against", "compare a snapshot with this site, or that of the mirror of this name, byte by byte", "SRC"),
        AT,
        PUBLIC,
        *RULES,
        SYMLINKS,
        MAX_DURATION,
        WORKERS,
        *REACH,
        *REPORTS,
    ),
)

SNAPSHOTS: Final = Verb(
    "snapshots",
    ("TARGET",),
    "List the snapshots: number, time, entries, size, and what changed.",
    (
        Flag(
            "max-age", "exit 4 when the newest snapshot is older than this, such as 26h, or there is none (for monitoring)", "TIME"
        ),
        *REACH,
        *REPORTS,
    ),
)

DIFF: Final = Verb(
    "diff",
    ("SRC TARGET | TARGET SNAPSHOT SNAPSHOT",),
    """Show what a sync of SRC would change, or what changed from one snapshot to another.

    + new, * changed, - deleted, > moved, . described anew (times, modes, owners). Changes nothing.""",
    (
        Flag("at", "for SRC TARGET: the snapshot to compare with", "SNAPSHOT"),
        EXIT_CODE,
        CHECKSUM,
        IGNORE_INODE,
        *RULES,
        DELETE_EXCLUDED,
        XATTRS,
        SYMLINKS,
        HEADER,
        *REACH,
        *REPORTS,
    ),
)

LS: Final = Verb(
    "ls",
    ("TARGET", "[PATH...]"),
    """List the paths of a snapshot.

    One on each line; what cannot be printed is shown as \\n or \\xNN. With PATHs those and what is below them.""",
    (AT, Flag("long", "mode, size and time as well", short="l"), *REACH, VERBOSE, JSON, LOG),
)

CAT: Final = Verb(
    "cat",
    ("TARGET", "PATH"),
    "Write the content of one file of a snapshot to stdout.",
    (AT, *REACH),
)

SUMS: Final = Verb(
    "sums",
    ("TARGET",),
    """Write the checksums of a snapshot's files, as sha256sum, b3sum, xxhsum and `rclone checksum` read them.

    xxh128 is kept in the snapshot; the others are computed from the contents.""",
    (AT, Flag("hash", "xxh128 (the default), blake3, or sha256", "NAME"), *REACH, VERBOSE, JSON, LOG),
)

FILTER_TEST: Final = Verb(
    "filter-test",
    ("PATH...",),
    """Say for each path whether the rules let it in, and which rule decides.

    A PATH is as `mirror ls` prints it and need not exist; one that ends in / is a folder. The rules are those of the options, or of
    the mirror that --source names; with --source the .mirrorignore files of that site count as well. Changes nothing, exits 0.""",
    (
        *RULES,
        Flag("source", "the site whose .mirrorignore files count, or the name of a mirror in mirror.toml", "SRC"),
        CONFIG,
        *ACCESS,
        VERBOSE,
        JSON,
        LOG,
    ),
)

KEYS: Final = Flag("keys", "the server's file of keys, made if it is not there; it holds secrets (mode 0600)", "FILE")

KEY: Final = Verb(
    "key",
    ("new|list|revoke", "[NAME]"),
    """Make, list and revoke the keys of those who may use `mirror serve`.

    `new` prints the key, once, as a line on stdout: the client keeps it in a file that only it can read, and names that file with
    --key-file, MIRROR_KEY_FILE or `key-file` in mirror.toml. Afterwards a key is shown by its fingerprint alone. A running server
    heeds changes of the file at once.""",
    (
        KEYS,
        Flag("rights", "of `new`: what the key may do, of read, append, publish, prune, such as read,append", "RIGHTS"),
        QUIET,
        VERBOSE,
        JSON,
        LOG,
    ),
)

AS_SITE: Final = Flag("site", "serve the snapshot as a web site")  # elsewhere the name of one, and so it is in mirror.toml
SERVE: Final = Verb(
    "serve",
    ("TARGET|ROOT",),
    """Serve a mirror over HTTP: with --site as a web site for people, with --keys for other machines, until Ctrl-C or SIGTERM.

    With --site a snapshot stands in for the site that is lost: pages, index files, links, ranges, its 404.html. Nothing is unpacked
    first, so the first page is there within seconds however large the site is, and every byte is checked before it is sent. With
    --at latest, the default, the next snapshot is served as soon as there is one. Changes nothing.

    With --keys, ROOT is a folder with targets that `mirror init ROOT/NAME --layout packed` made. A client names one as
    https://HOST:PORT/NAME, and its own key with --key-file. Every object is examined before it is kept, and a snapshot is accepted
    only when all that it names is there. docs/http.md has the protocol, and how to put nginx in front.

    Needs the extra `serve`.""",
    (
        AS_SITE,
        KEYS,
        AT,
        Flag("listen", "where to listen (default 127.0.0.1:8080; with --keys port 8750); port 0: any that is free", "HOST:PORT"),
        Flag("memory", "with --site: hold so much of what was asked for lately (default 64M)", "SIZE"),
        Flag("certfile", "speak TLS with this certificate and its chain (PEM)", "FILE"),
        Flag("keyfile", "the private key of the certificate (PEM, without a password)", "FILE"),
        Flag("max-body", "with --keys: take objects of at most so many bytes (default 128M)", "SIZE"),
        Flag("imports", "with --keys: examine so many objects at once; eight times as many may arrive (default 4)", "N"),
        Flag("client-timeout", "with --keys: cut off a client that is silent so long (default 30s)", "TIME"),
        Flag("min-free", "with --keys: take no objects when less would stay free, such as 20G or 5% (default 256M)", "SIZE|P%"),
        *REACH,
        *REPORTS,
    ),
)

VERBS: Final = {
    verb.name: verb
    for verb in (INIT, SYNC, RESTORE, ROLLBACK, PUBLISH, VERIFY, SNAPSHOTS, DIFF, LS, CAT, SUMS, FILTER_TEST, SERVE, KEY)
}
