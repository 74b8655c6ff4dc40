"""A real nginx for tests, on 127.0.0.1, with the server block that stands in docs/hosting.md.

It listens on a port that was free a moment ago, has its configuration, logs and temporary files in a folder of its own, reads
nothing of the system's configuration, and is stopped by the process id that we started.

    with Nginx(folder, site, server_block()) as server:
        server.get("/index.html").status
"""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Self

import pytest
from servers import Answer, Visitor, free_ports, listens, start_on_free_ports

PAGE = Path(__file__).resolve().parents[1] / "docs" / "hosting.md"
# What the block of the page says of a machine, and what stands there in a test instead.
LISTEN, ROOT = "listen 80;", "root /srv/www;"

_CONFIG = """
daemon off;
worker_processes {workers};
pid {folder}/nginx.pid;
error_log {folder}/error.log notice;
{user}
events {{ worker_connections 1024; }}
http {{
    types {{ text/html html htm; text/css css; text/javascript js; image/png png; application/xml xml; }}
    access_log off;
    {temporary}
    {block}
}}
"""


def server_block() -> str:
    """The `server { … }` of the page, as it stands there."""
    (block,) = re.findall(r"^```nginx\n(server \{.*?^\})\n```$", PAGE.read_text("utf-8"), flags=re.S | re.M)
    return str(block)


def binary() -> str:
    """nginx, wherever this system has it; skips the test by name where there is none (in CI that fails: tests/no_skips.py)."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("nginx", path=path)
    if not found:
        pytest.skip("nginx is not installed: apt-get install nginx-light")
    return found


class Nginx:
    """One nginx that serves one folder. folder: for what is the server's own; block: a `server { … }` with LISTEN and ROOT;
    workers: processes that serve."""

    def __init__(self, folder: Path, root: Path, block: str, workers: int = 1) -> None:
        self.folder, self.root, self.block, self.workers = folder, root, block, workers
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        start_on_free_ports(
            lambda attempt: self._start(self.folder / f"try{attempt}"), lambda: listens(self.port), self._stop, self.log
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(parents=True)
        (self.port,) = free_ports(1)
        self.address = f"127.0.0.1:{self.port}"
        self._log = folder / "error.log"
        nginx = binary()
        config = folder / "nginx.conf"
        # The master of root would give its workers to a user who may not look into a test's folders.
        user = "" if os.geteuid() else f"user {pwd.getpwuid(0).pw_name};"
        config.write_text(
            _CONFIG.format(
                folder=folder,
                user=user,
                workers=self.workers,
                temporary="\n    ".join(_temporary(nginx, folder)),
                block=self._block(),
            )
        )
        command = [nginx, "-p", str(folder), "-c", str(config), "-e", str(self._log)]
        self._process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}
        )
        return self._process

    def _block(self) -> str:
        block = self.block
        assert (block.count(LISTEN), block.count(ROOT)) == (1, 1), "the page's block has changed: what is to be replaced in it?"
        return block.replace(LISTEN, f"listen 127.0.0.1:{self.port};").replace(ROOT, f'root "{self.root}";')

    def _stop(self) -> None:
        if self._process:
            self._process.send_signal(signal.SIGTERM)  # at once, open connections or not
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def log(self) -> str:
        """What the server wrote."""
        return self._log.read_text(errors="replace")[-6000:] if self._log.exists() else ""

    def get(self, url: str, method: str = "GET", **headers: str) -> Answer:
        """Ask for a path exactly as it is written here, on a connection of its own."""
        with Visitor(self.port) as visitor:
            return visitor.ask(url, method, **headers)


def _temporary(nginx: str, folder: Path) -> list[str]:
    """Where the modules that this nginx was built with put temporary files: else they are the system's, and root's."""
    built = subprocess.run([nginx, "-V"], capture_output=True, text=True, check=True).stderr
    places = {"client_body": "client_body_temp_path"} | {
        module: f"{module}_temp_path"
        for module in ("proxy", "fastcgi", "uwsgi", "scgi")
        if f"without-http_{module}_module" not in built
    }
    return [f"{directive} {folder}/{name};" for name, directive in places.items()]
