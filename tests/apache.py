"""A real Apache with `mod_dav` for tests, on 127.0.0.1, with the block of docs/webdav.md: a WebDAV server of several processes.

It listens on a port that was free a moment ago, has its configuration, log and lock database in folders of its own, reads nothing
of the system's configuration, and is stopped by the process id that we started.

Its processes never serve as root: a test that root runs gives them to `nobody`, who may not look into root's folders, so what they
serve lies beside those.

    with ApacheDav(folder) as server:
        server.raw("PUT", "/a", b"content").status
"""

from __future__ import annotations

import base64
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from davservers import PAGE, PASSWORD, USER, StartedDav

(_BLOCK,) = re.findall(r"^```apache\n(.*?)^```$", PAGE.read_text("utf-8"), flags=re.S | re.M)
APACHE_BLOCK = str(_BLOCK)  # as the page has it
# What the block says of a machine, and how often.
LISTEN, ROOT, LOCKS, LOGINS = ("*:80", 1), ("/srv/dav", 2), ("/var/lock/apache2/DavLock", 1), ("/etc/apache2/dav.passwd", 1)
_MODULES = (
    Path("/usr/lib/apache2/modules"),  # Debian
    Path("/usr/lib64/httpd/modules"),  # Fedora
    Path("/usr/lib/httpd/modules"),
    Path("/usr/libexec/apache2"),
)
_WANTED = ("mpm_event", "unixd", "authn_core", "authz_core", "authz_user", "auth_basic", "authn_file", "dir", "dav", "dav_fs")

_CONFIG = """
ServerName 127.0.0.1
ServerRoot {folder}
PidFile {folder}/pid
ErrorLog {folder}/log
DefaultRuntimeDir {folder}
Mutex file:{place}/locks default
{modules}
Listen 127.0.0.1:{port}
StartServers 4
ServerLimit 4
ThreadsPerChild 16
MaxRequestWorkers 64
MinSpareThreads 64
MaxSpareThreads 128
{user}
{block}
"""


def _program() -> tuple[str, Path]:
    """Apache and its modules, wherever this system has them; skips the test by name where there is none (in CI that fails:
    tests/no_skips.py)."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which("apache2", path=path) or shutil.which("httpd", path=path)
    modules = [folder for folder in _MODULES if (folder / "mod_dav_fs.so").exists()]
    if not found or not modules:
        pytest.skip("Apache is not installed: apt-get install apache2-bin")
    return found, modules[0]


class ApacheDav(StartedDav):
    """Apache with `mod_dav_fs`, four processes that share nothing but their disk, and a password."""

    name = "apache"
    login = (USER, PASSWORD)

    def __init__(self, folder: Path, block: str = APACHE_BLOCK) -> None:
        super().__init__(folder)
        self.block = block
        self._place = Path()

    def command(self) -> list[str]:
        program, modules = _program()
        self._place = place = Path(tempfile.mkdtemp(prefix="mirror-apache-"))
        for name in ("root", "locks"):
            (place / name).mkdir()
        user = ""
        if not os.geteuid():
            nobody = pwd.getpwnam("nobody")
            user = f"User {nobody.pw_name}\nGroup #{nobody.pw_gid}"
            for each in (place, place / "root", place / "locks"):
                os.chown(each, nobody.pw_uid, nobody.pw_gid)
        password = base64.b64encode(hashlib.sha1(self.login[1].encode()).digest()).decode()
        (place / "logins").write_text(f"{self.login[0]}:{{SHA}}{password}\n")
        loads = "\n".join(  # some are built in, which ones differs
            f"<IfModule !{name}_module>\nLoadModule {name}_module {modules}/mod_{name}.so\n</IfModule>" for name in _WANTED
        )
        config = self.folder / "apache.conf"
        config.write_text(
            _CONFIG.format(folder=self.folder, place=place, modules=loads, port=self.port, user=user, block=self._block(place))
        )
        return [program, "-D", "FOREGROUND", "-f", str(config)]

    def _block(self, place: Path) -> str:
        block = self.block
        for (said, times), instead in {
            LISTEN: f"127.0.0.1:{self.port}",
            LOCKS: f"{place}/locks/lock",
            LOGINS: f"{place}/logins",
            ROOT: f"{place}/root",
        }.items():
            assert block.count(said) == times, f"the page's block has changed: where is {said}?"
            block = block.replace(said, instead)
        return block

    def stop(self) -> None:
        """End it, in the way that it takes its processes along."""
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
            shutil.rmtree(self._place)
