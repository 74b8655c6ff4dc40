#!/usr/bin/env python3
"""Write the sample site, Harbour Lights, into a new folder: `make_site.py OUT [--seed N]`.

Owns what a realistic small site looks like: some 400 cross-linked pages, style, script, drawings (SVG) and charts (PNG), feeds,
downloads with one big file, and under `odd/` the names and kinds of files that people really leave on their servers. Sources
are in `examples/site/`. Uses nothing but the standard library and no network.

Two runs with the same seed give the same names, bytes, modes, links and times, on any machine. So nothing here may depend
on the clock, the environment, the umask or hash order, and chance comes from `Dice` alone.
"""

from __future__ import annotations

import argparse
import csv
import errno
import hashlib
import html
import io
import json
import os
import re
import string
import struct
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote_from_bytes

SOURCES = Path(__file__).resolve().parent / "site"
HOST = "https://harbour.example"
DAY_ONE = datetime(2024, 1, 1, 6, 0, tzinfo=UTC)

LIGHTS, NOTICES, NOTICES_PER_PAGE = 240, 72, 12
BIG_BYTES, SPARSE_BYTES, TIDE_LINES = 24 << 20, 8 << 20, 60_000

REGIONS = (
    "North Reach", "Amber Sound", "The Skerries", "Gannet Coast", "Long Shoal", "Mirror Bay",
    "South Reach", "Whale Road", "Saint Elmo", "Kelp Islands", "Iron Shore", "Lee Water",
)  # fmt: skip
FIRST = (
    "Alder", "Barnacle", "Cold", "Drake", "Eider", "Fern", "Gull", "Heron", "Ivory", "Jasper", "Kittiwake", "Lantern", "Marram",
    "Narrow", "Otter", "Petrel", "Quill", "Raven", "Salt", "Tern", "Umber", "Velvet", "Wrack", "Yarrow",
)  # fmt: skip
LAST = ("Head", "Ness", "Point", "Rock", "Stack", "Ledge", "Spit", "Haven", "Mole", "Bar")
COLOURS = (("white", "#f4f1e6"), ("red", "#c0392b"), ("black", "#22303c"), ("ochre", "#c98f2c"), ("green", "#3b7a57"))
CHARACTERS = ("F", "Fl 5s", "Fl(2) 10s", "Fl(3) 15s", "Oc 6s", "Iso 4s", "Q", "LFl 12s", "Mo(A) 8s")
SIGNALS = ("horn", "bell", "cannon", "none")
SENTENCES = (
    "The tower stands on the seaward side, where the spray reaches the gallery in an easterly.",
    "A keeper and a goat lived here until the lamp was made to light itself.",
    "The landing is good at half tide and not at all in a swell.",
    "The lens was cut for another rock and turned out to fit this one better.",
    "From the gallery five other lights can be counted on a clear night.",
    "The log has no gap since the first line, which reads: lit.",
    "Gulls nest below the lantern; mind your head in May.",
    "The path is steep, wet and worth it.",
    "Pilots know it by the smell of kelp before they see it.",
    "The old foundation is under water at springs and can be seen from a boat.",
)
EVENTS = (
    "relit after repairs",
    "moved a cable north",
    "shows a new character",
    "hidden by scaffolding",
    "out until further notice",
    "repainted",
)

# What a filesystem answers that takes no bytes outside UTF-8, no such character, or one of two spellings (case, NFC).
REFUSED = (errno.EILSEQ, errno.EINVAL, errno.ENAMETOOLONG, errno.EEXIST)

T = TypeVar("T")


class Dice:
    """Chance that comes out the same on every machine and Python: each throw is the next 8 bytes of a SHAKE-256 stream."""

    def __init__(self, *seed: object) -> None:
        self._seed = repr(seed).encode()
        self._thrown = 0

    def number(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        self._thrown += 1
        throw = hashlib.shake_256(self._seed + self._thrown.to_bytes(8, "big")).digest(8)
        return low + int.from_bytes(throw, "big") % (high - low + 1)

    def pick(self, things: Sequence[T]) -> T:
        """One of the things."""
        return things[self.number(0, len(things) - 1)]

    def noise(self, size: int) -> bytes:
        """So many bytes that no compressor can shrink."""
        return hashlib.shake_256(self._seed).digest(size)


@dataclass(frozen=True)
class Light:
    """One lighthouse: what its page, its drawing, its chart and the light list say."""

    number: int
    name: str
    slug: str
    region: str
    built: int
    height: int
    range: int
    character: str
    signal: str
    colour: str
    paint: str
    text: str


@dataclass
class Counts:
    """What was written. left_out: odd names that this filesystem refuses."""

    pages: int = 0
    files: int = 0
    links: int = 0
    folders: int = 0
    bytes: int = 0
    left_out: list[bytes] = field(default_factory=list)

    def __str__(self) -> str:
        text = f"{self.pages} pages, {self.files} other files, {self.links} links, {self.folders} folders"
        text += f", {self.bytes / (1 << 20):.1f} MiB"
        return text + (f" ({len(self.left_out)} odd names left out: this filesystem refuses them)" if self.left_out else "")


def slug_of(text: str) -> str:
    """A name as it stands in a URL."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


class Writer:
    """Writes below one folder and sets every mode and time itself; a time depends on the path alone."""

    def __init__(self, out: Path, seed: int) -> None:
        self.out = os.fsencode(out)
        self.seed = seed
        self.counts = Counts()
        self._template = string.Template((SOURCES / "template.html").read_text("utf-8"))
        self._pages: list[str] = []
        os.makedirs(self.out)

    def path(self, name: str | bytes) -> bytes:
        """Where `name` goes; its folder is made."""
        path = os.path.join(self.out, name.encode() if isinstance(name, str) else name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def file(self, name: str | bytes, data: bytes | str, mode: int = 0o644) -> None:
        """A new file; never overwrites."""
        body = data.encode() if isinstance(data, str) else data
        path = self.path(name)
        with open(path, "xb") as f:
            f.write(body)
        os.chmod(path, mode)
        self.count(name, len(body))

    def count(self, name: str | bytes, size: int) -> None:
        """One more file, made by whomever."""
        end = name.encode() if isinstance(name, str) else name
        page = end.endswith(b".html")
        self.counts.pages += page
        self.counts.files += not page
        self.counts.bytes += size

    def odd(self, name: bytes, data: bytes | str, mode: int = 0o644) -> bool:
        """A file whose name the filesystem may refuse or take for another's: then it is left out, and said so."""
        try:
            self.file(name, data, mode)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            self.counts.left_out.append(name)
            return False
        return True

    def symlink(self, name: str, target: str) -> None:
        """A symlink, whether or not its target is there."""
        os.symlink(target.encode(), self.path(name))
        self.counts.links += 1

    def hard_link(self, name: str, to: str) -> None:
        """A second name of a file."""
        os.link(self.path(to), self.path(name))
        self.count(name, 0)

    def page(self, name: str, title: str, body: str) -> None:
        """A page through the template; `body` is HTML whose links are relative to the page."""
        up = "../" * name.count("/")
        self.file(name, self._template.substitute(title=html.escape(title), body=body, up=up))
        self._pages.append(name)

    def sitemap(self) -> None:
        """sitemap.xml, of every page that went through the template."""
        rows = "\n".join(f"<url><loc>{HOST}/{name}</loc></url>" for name in sorted(self._pages))
        self.file(
            "sitemap.xml",
            f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{rows}\n</urlset>\n',
        )

    def finish(self) -> Counts:
        """Set the times, folders last and from below, since making a file changes its folder's."""
        for folder, folders, files in os.walk(self.out, topdown=False):
            for name in files + [n for n in folders if os.path.islink(os.path.join(folder, n))]:
                self._set_time(os.path.join(folder, name))
            self._set_time(folder)
            os.chmod(folder, 0o755)
            self.counts.folders += folder != self.out
        os.chmod(os.path.join(self.out, b"odd", b"private"), 0o700)
        old = os.path.join(self.out, b"odd", b"before 1970.txt")
        os.utime(old, ns=(-86_400_000_000_001,) * 2)
        return self.counts

    def _set_time(self, path: bytes) -> None:
        # Hard links are one file with one time: the first name in order decides for all, or the order of the walk would.
        name = os.path.relpath(path, self.out).replace(b"second name", b"first name")
        moment = int(DAY_ONE.timestamp()) * 10**9 + Dice(self.seed, "time", name).number(0, 700 * 86_400 * 10**9)
        os.utime(path, ns=(moment, moment), follow_symlinks=False)


def lights(seed: int) -> list[Light]:
    """The light list, sorted by name."""
    names = [f"{first} {last}" for first in FIRST for last in LAST][:LIGHTS]
    found = []
    for number, name in enumerate(sorted(names), 1):
        dice = Dice(seed, "light", name)
        colour, paint = dice.pick(COLOURS)
        found.append(
            Light(
                number=number,
                name=name,
                slug=slug_of(name),
                region=REGIONS[number % len(REGIONS)],
                built=dice.number(1702, 1961),
                height=dice.number(6, 58),
                range=dice.number(5, 27),
                character=dice.pick(CHARACTERS),
                signal=dice.pick(SIGNALS),
                colour=colour,
                paint=paint,
                text=" ".join(dice.pick(SENTENCES) for _ in range(dice.number(3, 14))),
            )
        )
    return found


def drawing(light: Light) -> str:
    """The tower from the sea, as SVG."""
    high = 40 + 2 * light.height
    bands = "".join(f'<rect x="44" y="{200 - y}" width="32" height="12" fill="{light.paint}"/>' for y in range(24, high, 24))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 120 220" width="120" height="220">\n<title>{light.name}</title>\n'
        f'<rect x="44" y="{200 - high}" width="32" height="{high}" fill="#fbf8f1" stroke="#14293d"/>{bands}\n'
        f'<circle cx="60" cy="{190 - high}" r="9" fill="#f2b632"/>\n'
        f'<path d="M0 200q15-8 30 0t30 0 30 0 30 0v20H0z" fill="#2f6f8f"/>\n</svg>\n'
    )


def png(width: int, height: int, rgb: bytes) -> bytes:
    """An RGB picture as PNG (ISO/IEC 15948): signature, IHDR, IDAT, IEND; each row after filter byte 0."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + rgb[y * width * 3 : (y + 1) * width * 3] for y in range(height))
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows, 9)) + part(b"IEND", b"")


def chart(light: Light, seed: int, width: int = 48, height: int = 36) -> bytes:
    """Depths around the light: an island in a sea that gets deeper away from it."""
    dice = Dice(seed, "chart", light.slug)
    x0, y0, size = dice.number(12, 36), dice.number(9, 27), dice.number(3, 7)
    dots = bytearray()
    for y in range(height):
        for x in range(width):
            far = (x - x0) ** 2 + 2 * (y - y0) ** 2
            deep = min(far // 14, 80)
            dots += bytes((222, 205, 160)) if far < size * size else bytes((170 - deep, 205 - deep, 225 - deep // 2))
    return png(width, height, bytes(dots))


def links(pairs: Sequence[tuple[str, str]]) -> str:
    """A list of (href, text)."""
    return "<ul>\n" + "\n".join(f'<li><a href="{href}">{html.escape(text)}</a></li>' for href, text in pairs) + "\n</ul>"


def write_lights(to: Writer, every: list[Light], seed: int) -> None:
    """A page, a drawing and a chart for each light, and the whole list."""
    for i, light in enumerate(every):
        before, after = every[i - 1], every[(i + 1) % len(every)]
        near = [every[(i + step * len(REGIONS)) % len(every)] for step in (1, 2, 3)]
        body = (
            f'<img class="profile" src="../images/towers/{light.slug}.svg" alt="{light.name} from the sea" '
            'width="120" height="220">\n'
            f"<p>{light.text}</p>\n<table>\n"
            f'<tr><th>Region</th><td><a href="../regions/{slug_of(light.region)}/index.html">{light.region}</a></td></tr>\n'
            f"<tr><th>Character</th><td><code>{light.character}</code></td></tr>\n<tr><th>Lit</th><td>{light.built}</td></tr>\n"
            f"<tr><th>Height</th><td>{light.height} m</td></tr>\n<tr><th>Range</th><td>{light.range} M</td></tr>\n"
            f"<tr><th>Fog signal</th><td>{light.signal}</td></tr>\n<tr><th>Tower</th><td>{light.colour}</td></tr>\n</table>\n"
            f'<p><img src="../images/charts/{light.slug}.png" alt="Depths" width="256" height="192"></p>\n'
            f"<h2>Near by</h2>\n{links([(f'{n.slug}.html', n.name) for n in near])}\n"
            f'<p class="pager"><a href="{before.slug}.html">{before.name}</a> <a href="{after.slug}.html">{after.name}</a></p>'
        )
        to.page(f"lights/{light.slug}.html", light.name, body)
        to.file(f"images/towers/{light.slug}.svg", drawing(light))
        to.file(f"images/charts/{light.slug}.png", chart(light, seed))
    rows = "\n".join(
        f'<tr><td>{x.number}</td><td><a href="{x.slug}.html">{x.name}</a></td>'
        f"<td><code>{x.character}</code></td><td>{x.height} m</td></tr>"
        for x in every
    )
    to.page("lights/index.html", "All lights", f"<table data-filter>\n<tbody>\n{rows}\n</tbody>\n</table>")


def write_regions(to: Writer, every: list[Light]) -> None:
    """A page for each region, and their list."""
    for region in REGIONS:
        here = [light for light in every if light.region == region]
        body = f"<p>{len(here)} lights, the oldest of {min(x.built for x in here)}.</p>\n"
        to.page(
            f"regions/{slug_of(region)}/index.html", region, body + links([(f"../../lights/{x.slug}.html", x.name) for x in here])
        )
    to.page("regions/index.html", "Regions", links([(f"{slug_of(r)}/index.html", r) for r in REGIONS]))


def write_notices(to: Writer, every: list[Light], seed: int) -> None:
    """Notices to mariners by month, their list in pages, an Atom and a JSON feed."""
    notices: list[tuple[str, str, str, str]] = []  # day, path, title, text
    for number in range(NOTICES):
        dice = Dice(seed, "notice", number)
        light = dice.pick(every)
        day = DAY_ONE + timedelta(days=9 * number)
        title = f"{light.name} {dice.pick(EVENTS)}"
        path = f"news/{day:%Y/%m}/{number + 1:03d}-{slug_of(title)}.html"
        text = dice.pick(SENTENCES)
        to.page(
            path,
            title,
            f'<p>{day:%d %B %Y}. {text}</p>\n<p>Concerns <a href="../../../lights/{light.slug}.html">{light.name}</a>.</p>',
        )
        notices.append((f"{day:%Y-%m-%dT%H:%M:%SZ}", path, title, text))
    notices.reverse()
    pages = [notices[i : i + NOTICES_PER_PAGE] for i in range(0, len(notices), NOTICES_PER_PAGE)]
    names = ["news/index.html"] + [f"news/page-{n}.html" for n in range(2, len(pages) + 1)]
    for i, (name, some) in enumerate(zip(names, pages, strict=True)):
        body = links([(path.removeprefix("news/"), title) for _, path, title, _ in some])
        if i + 1 < len(names):
            body += f'\n<p><a href="{names[i + 1].removeprefix("news/")}">Older notices</a></p>'
        to.page(name, "Notices to mariners" if i == 0 else f"Notices to mariners, page {i + 1}", body)
    atom = "\n".join(
        f'<entry><title>{title}</title><link href="{HOST}/{path}"/><id>{HOST}/{path}</id>'
        f"<updated>{day}</updated><summary>{text}</summary></entry>"
        for day, path, title, text in notices[:20]
    )
    head = f'<title>Harbour Lights</title><id>{HOST}/</id><link href="{HOST}/"/><updated>{notices[0][0]}</updated>'
    head += "<author><name>The keeper</name></author>"
    to.file(
        "feed.xml", f'<?xml version="1.0" encoding="UTF-8"?>\n<feed xmlns="http://www.w3.org/2005/Atom">\n{head}\n{atom}\n</feed>\n'
    )
    items = [
        {"id": f"{HOST}/{path}", "title": title, "content_text": text, "date_published": day}
        for day, path, title, text in notices[:20]
    ]
    to.file(
        "feed.json",
        json.dumps({"version": "https://jsonfeed.org/version/1.1", "title": "Harbour Lights", "items": items}, indent=1) + "\n",
    )


def markdown(text: str) -> tuple[str, str]:
    """(title, HTML) of the little Markdown that the guide uses: headings, paragraphs, lists, links, emphasis, code."""

    def inline(raw: str) -> str:
        done = html.escape(" ".join(raw.split()), quote=False)
        done = re.sub(r"\[([^]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', done)
        done = re.sub(r"`([^`]+)`", r"<code>\1</code>", done)
        return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", done))

    title, body = "", []
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.startswith("# "):
            title = part[2:]
        elif part.startswith("## "):
            body.append(f"<h2>{inline(part[3:])}</h2>")
        elif part.startswith("- "):
            body.append("<ul>\n" + "\n".join(f"<li>{inline(item)}</li>" for item in re.split(r"(?:^|\n)- ", part)[1:]) + "\n</ul>")
        else:
            body.append(f"<p>{inline(part)}</p>")
    return title, "\n".join(body)


def write_guide(to: Writer) -> None:
    """The hand-written texts."""
    titles = []
    for source in sorted((SOURCES / "guide").glob("*.md")):
        title, body = markdown(source.read_text("utf-8"))
        to.page(f"guide/{source.stem}.html", title, body)
        titles.append((f"{source.stem}.html", title))
    to.page("guide/index.html", "Guide", links(titles))


def write_downloads(to: Writer, every: list[Light], seed: int) -> None:
    """The light list as tables, a long text, and the one big file."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("number", "name", "region", "character", "built", "height_m", "range_m"))
    rows.writerows((x.number, x.name, x.region, x.character, x.built, x.height, x.range) for x in every)
    to.file("downloads/light-list.csv", table.getvalue())
    to.file(
        "downloads/light-list.json",
        json.dumps([{"name": x.name, "slug": x.slug, "built": x.built} for x in every], indent=1) + "\n",
    )
    throws = Dice(seed, "tides").noise(2 * TIDE_LINES)
    lines = []
    for line in range(TIDE_LINES):
        moment = DAY_ONE + timedelta(minutes=17 * line)
        height = int.from_bytes(throws[2 * line : 2 * line + 2], "big") % 620 / 100
        lines.append(f"{moment:%Y-%m-%d %H:%M}  {every[line % len(every)].name:<20} {height:5.2f} m\n")
    to.file("downloads/tide-tables.txt", "".join(lines))
    to.file("downloads/soundings.bin", Dice(seed, "soundings").noise(BIG_BYTES))
    names = ("light-list.csv", "light-list.json", "tide-tables.txt", "soundings.bin")
    to.page("downloads/index.html", "Downloads", links([(name, name) for name in names]))


def write_odd(to: Writer, seed: int) -> None:
    """What people really leave on their servers."""
    names = [
        (b"a name with spaces.txt", "spaces\n"),
        (b'quote\'s and "double" & <angle>.txt', "quotes\n"),
        (b"100%25 sure? #1.txt", "percent, question mark, hash\n"),
        (b"$(echo not run) `nor this`; *.txt", "shell\n"),
        (b"back\\slash.txt", "backslash\n"),
        (b"-n", "a leading dash\n"),
        (b"--delete", "two leading dashes\n"),
        (b".hidden", "hidden\n"),
        (b"...", "three dots\n"),
        (b"trailing space ", "trailing space\n"),
        (b"tab\there.txt", "tab\n"),
        (b"line\nbreak.txt", "line break\n"),
        ("caf\u00e9.txt".encode(), "composed (NFC)\n"),
        ("cafe\u0301.txt".encode(), "decomposed (NFD)\n"),
        ("\u706f\u53f0 \U0001f5fc.txt".encode(), "beyond ASCII\n"),
        (b"latin-1 na\xefve caf\xe9.txt", "not UTF-8\n"),
        (b"Case.txt", "upper\n"),
        (b"case.txt", "lower\n"),
        (b"long-" + b"x" * 246 + b".txt", "as long as a name may be: 255 bytes\n"),
        (b"a-b", "sorts before the folder a/\n"),
        (b"a/b", "inside the folder\n"),
        (b"a0", "sorts after the folder a/\n"),
        (b"empty", ""),
        (b"before 1970.txt", "an mtime below zero\n"),
        (b"/".join(b"deep%02d" % n for n in range(32)) + b"/bottom.txt", "thirty-two folders down\n"),
    ]
    there = [name for name, text in names if to.odd(b"odd/" + name, text)]
    to.odd(b"odd/read-only.txt", "read only\n", 0o444)
    to.odd(b"odd/run-me.sh", "#!/bin/sh\necho lit\n", 0o755)
    to.odd(b"odd/private/keys.txt", "for the owner alone\n", 0o600)
    to.path("odd/empty folder/nothing in it")
    with open(to.path("odd/sparse.img"), "xb") as f:
        f.write(Dice(seed, "sparse").noise(4096))
        f.truncate(SPARSE_BYTES)
        f.seek(SPARSE_BYTES // 2)
        f.write(b"an island in the middle\n")
    os.chmod(to.path("odd/sparse.img"), 0o644)
    to.count("odd/sparse.img", SPARSE_BYTES)
    to.file("odd/first name.txt", "one file, two names\n")
    to.hard_link("odd/second name.txt", "odd/first name.txt")
    to.symlink("odd/to-a-page.html", "../about.html")
    to.symlink("odd/to-a-folder", "../guide")
    to.symlink("odd/broken", "nowhere/at all.txt")
    to.symlink("odd/loop", "loop")
    to.symlink("current", "news/2025")
    shown = [(f"./{quote_from_bytes(name)}", name.decode("utf-8", "backslashreplace")) for name in sorted(there)]
    shown += [
        ("read-only.txt", "read only"),
        ("run-me.sh", "executable"),
        ("sparse.img", "sparse"),
        ("second name.txt", "two names"),
        ("to-a-page.html", "a link"),
    ]
    to.page("odd/index.html", "Odd names", links(shown))


def build(out: Path, seed: int = 1) -> Counts:
    """Write the site into `out`, which must not be there yet; what was written. The same seed gives the same tree."""
    to = Writer(out, seed)
    every = lights(seed)
    for source in sorted(path for path in (SOURCES / "pages").rglob("*") if path.is_file()):
        to.file(source.relative_to(SOURCES / "pages").as_posix(), source.read_bytes())
    write_lights(to, every, seed)
    write_regions(to, every)
    write_notices(to, every, seed)
    write_guide(to)
    write_downloads(to, every, seed)
    write_odd(to, seed)
    newest = links(
        [
            ("lights/index.html", f"All {len(every)} lights"),
            ("news/index.html", "Notices to mariners"),
            ("guide/index.html", "The guide"),
        ]
    )
    to.page("index.html", "Harbour Lights", f"<p>An almanac of lights that do not exist.</p>\n{newest}")
    to.sitemap()
    return to.finish()


def main(arguments: list[str] | None = None) -> int:
    """The command: exit status 2 when OUT is there already."""
    parser = argparse.ArgumentParser(description="Write the sample site into a new folder.")
    parser.add_argument("out", type=Path, metavar="OUT", help="a folder that is not there yet")
    parser.add_argument("--seed", type=int, default=1, help="another seed gives another site (default: 1)")
    options = parser.parse_args(arguments)
    if os.path.lexists(options.out):
        print(f"make_site.py: {options.out} is there already; give a new folder", file=sys.stderr)
        return 2
    print(f"wrote {build(options.out, options.seed)} in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
