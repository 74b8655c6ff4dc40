"""Data: how each tool is called at each step, and the goals of each scenario. No IO.

A step is a command with places in braces: {src} the corpus, {store} where the copy or repository goes, {out} where a restore
goes, {bucket} and {endpoint} of the S3 server, {mirror} our command, {workers}. `prepare` runs first and is not timed. A
restore runs in {out}, an empty folder, every other step in {src}. Every tool runs with its defaults, as its manual would have
a first user call it, unless a comment says why not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .figures import US, Goal, Limit, Ratio

TREES = ("tree-folder", "tree-s3")
SCENARIOS = ("folder", "s3", "nightly", *TREES, "http", "memory")
FULL, UNCHANGED, RESTORE = "full copy", "unchanged run", "restore"
STORE, ON_DISK = "store, bytes", "store, on disk"
NIGHTS = ("next 16.4.4", "next 16.4.5", "next 16.4.6", "next 16.5.0-canary.26", "next 16.5.0-canary.38")
MEMORY_WORKERS = 2
REQUESTS, GROWN, INSERTED = "unchanged run, counted", "1 GiB file", "1 GiB file, a byte in front"
NIGHT = "night"
INTO_TREE = "full copy into a tree"
FOUR, TO_FOLDER = "four clients at once, the receiver", "folder sync"


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool in one scenario. steps: name → command; store: it makes one whose size matters; once: it is run in the first round
    only, since it takes minutes and no goal hangs on it."""

    name: str
    steps: Mapping[str, str]
    prepare: str = ""
    store: bool = False
    once: bool = False


# rclone leaves symlinks out unless told; the corpus has 60.
FOLDER = (
    Tool("cp", {FULL: "cp -a {src}/. {store}"}),
    Tool("rsync", {FULL: "rsync -aH {src}/ {store}/", UNCHANGED: "rsync -aH {src}/ {store}/"}),
    Tool("rclone", {FULL: "rclone copy --links {src} {store}", UNCHANGED: "rclone copy --links {src} {store}"}),
    Tool(
        "restic",
        {
            FULL: "restic -r {store} backup .",
            UNCHANGED: "restic -r {store} backup .",
            RESTORE: "restic -r {store} restore latest --target {out}",
        },
        prepare="restic -r {store} init",
        store=True,
    ),
    Tool(
        "borg",
        {
            FULL: "borg create --compression lz4 {store}::first .",
            UNCHANGED: "borg create --compression lz4 {store}::second .",
            RESTORE: "borg extract {store}::first",
        },
        prepare="borg init --encryption none {store}",
        store=True,
    ),
    Tool(
        "mirror",
        {
            FULL: "{mirror} sync {src} {store} --layout packed",
            UNCHANGED: "{mirror} sync {src} {store}",
            RESTORE: "{mirror} restore {store} {out}",
        },
        store=True,
    ),
)

# s5cmd stops at a broken symlink, so it is told not to follow them.
S3 = (
    Tool(
        "rclone",
        {FULL: "rclone copy --links {src} :s3:{bucket}/site", UNCHANGED: "rclone copy --links {src} :s3:{bucket}/site"},
        once=True,
    ),
    Tool(
        "s5cmd",
        {
            FULL: "s5cmd --endpoint-url {endpoint} sync --no-follow-symlinks {src}/ s3://{bucket}/site/",
            UNCHANGED: "s5cmd --endpoint-url {endpoint} sync --no-follow-symlinks {src}/ s3://{bucket}/site/",
        },
        once=True,
    ),
    Tool(
        "restic",
        {
            FULL: "restic -r s3:{endpoint}/{bucket}/site backup .",
            UNCHANGED: "restic -r s3:{endpoint}/{bucket}/site backup .",
            RESTORE: "restic -r s3:{endpoint}/{bucket}/site restore latest --target {out}",
        },
        prepare="restic -r s3:{endpoint}/{bucket}/site init",
        store=True,
    ),
    Tool(
        "mirror",
        {
            FULL: "{mirror} sync {src} s3://{bucket}/site --endpoint-url {endpoint} --layout packed",
            UNCHANGED: "{mirror} sync {src} s3://{bucket}/site --endpoint-url {endpoint}",
            RESTORE: "{mirror} restore s3://{bucket}/site {out} --endpoint-url {endpoint}",
        },
        store=True,
    ),
)

NIGHTLY = (
    Tool("restic", {"night": "restic -r {store} backup ."}, prepare="restic -r {store} init", store=True),
    Tool("mirror", {"night": "{mirror} sync {src} {store} --layout packed"}, store=True),
)

# A folder to be served. We are durable when we say that we are done; so are the others after `sync -f`.
_RSYNC = """sh -c 'rsync -aH --delete "$0/" "$1/" && sync -f "$1"' {src} {store}"""
TREE_FOLDER = (
    Tool("cp", {FULL: """sh -c 'cp -a "$0/." "$1" && sync -f "$1"' {src} {store}"""}),
    Tool("rsync", {FULL: _RSYNC, UNCHANGED: _RSYNC, NIGHT: _RSYNC}),
    Tool(
        "mirror",
        {
            FULL: "{mirror} sync {src} {store} --layout tree",
            UNCHANGED: "{mirror} sync {src} {store}",
            RESTORE: "{mirror} restore {store} {out}",
            NIGHT: "{mirror} sync {src} {store} --layout tree",
        },
    ),
)
# Symlinks: there is nothing on S3 that one could be; rclone and we leave them out, with a word, s5cmd when told.
_S3_TREE = "{mirror} sync {src} s3://{bucket}/site --endpoint-url {endpoint} --layout tree"
TREE_S3 = (
    Tool(
        "rclone",
        {FULL: "rclone copy {src} :s3:{bucket}/site", UNCHANGED: "rclone copy {src} :s3:{bucket}/site"},
        once=True,
    ),
    Tool("s5cmd", S3[1].steps, once=True),
    Tool("mirror", {FULL: _S3_TREE, UNCHANGED: _S3_TREE, GROWN: _S3_TREE}),
)

# Of us {endpoint} is the URL of the target; the way into a folder is there to be compared with, and for nginx to serve.
HTTP = (
    Tool("rsync", {UNCHANGED: "rsync -aH {src}/ {store}/"}, prepare="rsync -aH {src}/ {store}/"),
    Tool(
        TO_FOLDER,
        {step: FOLDER[-1].steps[step] for step in (FULL, UNCHANGED)}
        | {INTO_TREE: "{mirror} sync {src} {store}-tree --layout tree"},
    ),
    Tool(
        "restic",
        {RESTORE: S3[2].steps[RESTORE]},
        prepare=f"""sh -c '{S3[2].prepare} && {S3[2].steps[FULL]}'""",
    ),
    Tool(
        "mirror",
        {
            FULL: "{mirror} sync {src} {endpoint}",
            UNCHANGED: "{mirror} sync {src} {endpoint}",
            INTO_TREE: "{mirror} sync {src} {endpoint}-tree",
            RESTORE: "{mirror} restore {endpoint} {out}",
        },
    ),
)

# The limit is on us; restic is shown beside it on the small inputs.
MEMORY = tuple(
    Tool(
        tool.name,
        {step: command + (" --workers {workers}" if tool.name == US else "") for step, command in tool.steps.items()},
        tool.prepare,
    )
    for tool in FOLDER
    if tool.name in ("restic", US)
)
MEMORY_S3 = tuple(
    Tool(
        tool.name,
        {step: command + (" --workers {workers}" if tool.name == US else "") for step, command in tool.steps.items()},
        tool.prepare,
    )
    for tool in S3
    if tool.name in ("restic", US)
)
RUST_DOC, MANY, HUGE, ON_S3 = "rust-doc", "300,000 files in one folder", "one file of 8 GiB", "rust-doc on S3"


def memory_limit(workers: int) -> float:
    """In bytes: 200 MB and 120 MB a worker."""
    return (200 + 120 * workers) * 1e6


GOALS: tuple[Goal, ...] = (
    Ratio("full sync into a folder", "folder", FULL, "seconds", "restic", at_least=1.5),
    Ratio("size of the store", "folder", STORE, "bytes", "restic", at_most=0.40),
    Ratio("unchanged run on a folder", "folder", UNCHANGED, "seconds", "rsync", at_most=1.5),
    Ratio("restore from a folder", "folder", RESTORE, "seconds", "restic", at_least=1.2),
    Ratio("full sync to S3", "s3", FULL, "seconds", "restic", at_least=1.5),
    Ratio("unchanged run on S3", "s3", UNCHANGED, "seconds", "restic", at_least=4.0),
    Ratio("bytes added by four nights", "nightly", NIGHTS[1:], "bytes", "restic", at_most=0.40),
    Ratio("new tree on a folder", "tree-folder", FULL, "seconds", "rsync", at_most=1.0),
    Ratio("unchanged tree on a folder", "tree-folder", UNCHANGED, "seconds", "rsync", at_most=1.3),
    Ratio("new tree on S3", "tree-s3", FULL, "seconds", "rclone", at_least=1.5),
    Ratio("new tree on S3", "tree-s3", FULL, "seconds", "s5cmd", at_least=2.0),
    Ratio("unchanged tree on S3", "tree-s3", UNCHANGED, "seconds", "rclone", at_least=15.0),
    Limit("requests of an unchanged run on S3", "tree-s3", REQUESTS, "requests", 5),
    Limit("sent for a byte in front of 1 GiB on S3", "tree-s3", INSERTED, "bytes", 16 << 20),
    Ratio("full sync over HTTP", "http", FULL, "seconds", TO_FOLDER, at_least=0.8),
    Ratio("full sync over HTTP into a tree", "http", INTO_TREE, "seconds", TO_FOLDER, at_least=0.8),
    Ratio("unchanged run over HTTP", "http", UNCHANGED, "seconds", "rsync", at_most=2.0),
    Limit("memory of the receiver, four clients at once", "http", FOUR, "peak_bytes", 150e6),
    Ratio("restore from nginx", "http", RESTORE, "seconds", "restic", at_least=1.0),
    *(
        Limit(f"peak memory, {what}, {step}", "memory", f"{what}: {step}", "peak_bytes", memory_limit(MEMORY_WORKERS))
        for what in (RUST_DOC, ON_S3, MANY, HUGE)
        for step in (FULL, UNCHANGED, RESTORE)
    ),
)
