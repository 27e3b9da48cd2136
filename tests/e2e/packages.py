"""Packages without dependencies on the network, and an index of them that asks for a password."""

from __future__ import annotations

import base64
import contextlib
import ssl
import threading
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit


def wheel(
    folder: Path, name: str, version: str = "1.0", requires: Sequence[str] = (), code: str = "answer = 42\n"
) -> Path:
    """A wheel with one module of the project's name; the same bytes each time, so that an environment is built once.

    Args:
        folder: Where it goes; made if missing.
        name: The project's name.
        version: Its version.
        requires: What it depends on.
        code: What is in the module.
    """
    folder.mkdir(parents=True, exist_ok=True)
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    path = folder / f"{module}-{version}-py3-none-any.whl"
    files = {
        f"{module}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": f"{module}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name_inside, text in files.items():
            archive.writestr(zipfile.ZipInfo(name_inside), text)
    return path


@dataclass
class Index:
    """A package index on this machine.

    Attributes:
        folder: Its wheels.
        port: Where it answers.
        seen: Who has asked for each page: the name and password given, empty for nobody.
    """

    folder: Path
    port: int = 0
    seen: list[str] = field(default_factory=list)

    def address(self, who: str = "") -> str:
        """The index's address, with a name and password where they are given."""
        return f"http://{f'{who}@' if who else ''}127.0.0.1:{self.port}/simple"


@contextlib.contextmanager
def serving(folder: Path, password: str = "", certificate: Path | None = None) -> Iterator[Index]:
    """An index of the wheels of a folder.

    Args:
        folder: The wheels.
        password: ``NAME:PASSWORD`` that it asks for; empty for none.
        certificate: A file with its certificate and key, for https; None for http.
    """
    index = Index(folder)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            proxied = self.headers.get("Proxy-Authorization", "")
            given = self.headers.get("Authorization", proxied).removeprefix("Basic ")
            index.seen.append(base64.b64decode(given).decode())
            if password and index.seen[-1] != password:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="packages"')
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            # Whoever takes it for a proxy asks for the whole address.
            parts = urlsplit(self.path).path.strip("/").split("/")
            path = folder / parts[-1]
            if parts[0] == "files" and path.is_file():
                body = path.read_bytes()
            else:
                module = parts[-1].replace("-", "_")
                links = "".join(
                    f'<a href="/files/{one.name}">{one.name}</a>\n' for one in sorted(folder.glob(f"{module}-*.whl"))
                )
                body = links.encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.port = server.server_port
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate)
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield index
        finally:
            server.shutdown()
            thread.join(5)
