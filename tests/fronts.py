"""nginx with TLS in front of a `mirror serve`, with the block that stands in docs/http.md.

with Front(folder, server.port) as front:
    url = f"https://localhost:{front.port}/www"      # SSL_CERT_FILE: folder / "cert.pem"
"""

from __future__ import annotations

import re
from pathlib import Path

from certificates import certified
from nginx import Nginx

PAGE = Path(__file__).resolve().parents[1] / "docs/http.md"


class Front(Nginx):
    """nginx with the block of docs/http.md in front of a server. largest: the bodies that it lets through."""

    def __init__(self, folder: Path, behind: int, largest: str = "130m") -> None:
        (block,) = re.findall(r"^```nginx\n(server \{.*?^\})\n```$", PAGE.read_text("utf-8"), flags=re.S | re.M)
        super().__init__(folder, folder, str(block).replace("130m", largest))
        assert largest in self.block
        self._behind, self._pems = behind, certified(folder)

    def _block(self) -> str:
        block, (certificate, key) = self.block, self._pems
        for there, here in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("/etc/ssl/mirrors.pem", str(certificate)),
            ("/etc/ssl/mirrors.key", str(key)),
            ("http://127.0.0.1:8750", f"http://127.0.0.1:{self._behind}"),
        ):
            assert block.count(there) == 1
            block = block.replace(there, here)
        return block
