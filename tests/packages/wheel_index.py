"""A package index on loopback, with wheels made on the fly: what uv needs of one, no more."""

import base64
import hashlib
import io
import json
import tarfile
import threading
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

_JSON = "application/vnd.pypi.simple.v1+json"
_POLL_S = 0.02
"""How long `close` waits for the server to notice."""


@dataclass
class WheelIndex:
    """Serves `/simple/NAME/` and the files; `close` ends it."""

    files: dict[str, bytes] = field(default_factory=dict)
    requires_python: dict[str, str] = field(default_factory=dict)
    status: int = 200
    published: dict[str, str] = field(default_factory=dict)
    """By file, RFC 3339; where there is one the pages are JSON (PEP 691, 700)."""

    def __post_init__(self) -> None:
        index = self

        class Pages(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.do_GET()

            def do_GET(self) -> None:
                found = index.answer(self.path)
                self.send_response(index.status if found is not None else 404)
                is_json = (found or b"").startswith(b"{")
                self.send_header("Content-Type", _JSON if is_json else "text/html")
                self.send_header("Content-Length", str(len(found or b"")))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(found or b"")

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), daemon=True
        )
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/simple"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, path: str) -> bytes | None:
        name = path.rstrip("/").rpartition("/")[2]
        if path.startswith("/files/"):
            return self.files.get(name)
        files = [file for file in self.files if file.startswith(f"{escaped(name)}-")]
        if any(file in self.published for file in files):
            told = [self._described(file) for file in files]
            page = {"meta": {"api-version": "1.1"}, "name": name, "files": told, "versions": []}
            return json.dumps(page).encode()
        links = [self._link(file) for file in files]
        return "\n".join(["<!DOCTYPE html>", *links]).encode() if links else None

    def _described(self, file: str) -> dict[str, Any]:
        content = self.files[file]
        return {
            "filename": file,
            "url": f"/files/{file}",
            "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
            "size": len(content),
            "requires-python": self.requires_python.get(file),
            **({"upload-time": self.published[file]} if file in self.published else {}),
        }

    def _link(self, file: str) -> str:
        digest = hashlib.sha256(self.files[file]).hexdigest()
        wanted = self.requires_python.get(file, "").replace("<", "&lt;").replace(">", "&gt;")
        return f'<a href="/files/{file}#sha256={digest}" data-requires-python="{wanted}">{file}</a>'

    def add(
        self,
        name: str,
        version: str,
        *,
        scripts: Sequence[str] = (),
        requires: Sequence[str] = (),
        requires_python: str = "",
        wrong_record: bool = False,
    ) -> None:
        """Offer a wheel whose scripts print `NAME VERSION` and their arguments."""
        module = escaped(name)
        file = f"{module}-{version}-py3-none-any.whl"
        points = "".join(f"{script} = {module}:main\n" for script in scripts)
        metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"]
        metadata += [f"Requires-Dist: {one}\n" for one in requires]
        if requires_python:
            metadata.append(f"Requires-Python: {requires_python}\n")
            self.requires_python[file] = requires_python
        info = f"{module}-{version}.dist-info"
        contents = {
            f"{module}/__init__.py": f"def main():\n    import sys\n"
            f"    print('{name} {version}', *sys.argv[1:])\n",
            f"{info}/METADATA": "".join(metadata),
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{points}",
        }
        self.files[file] = wheel(contents, f"{info}/RECORD", wrong_record=wrong_record)

    def add_source(self, name: str, version: str) -> None:
        """Offer only a source distribution."""
        self.files[f"{escaped(name)}-{version}.tar.gz"] = b"not looked into"

    def add_buildable(
        self,
        name: str,
        version: str,
        marker: Path,
        *,
        scripts: Sequence[str] = (),
        requires: Sequence[str] = (),
        wheel: bytes = b"",
    ) -> None:
        """Offer a source whose build code makes `wheel` and appends a line to `marker`."""
        file = f"{escaped(name)}-{version}-py3-none-any.whl"
        kept = self.files.get(file)
        self.add(name, version, scripts=scripts, requires=requires)
        made = wheel or self.files.pop(file)
        self.files = {each: found for each, found in self.files.items() if each != file}
        self.files |= {file: kept} if kept else {}
        backend = _BACKEND.format(marker=str(marker), made=base64.b64encode(made).decode())
        pyproject = '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n'
        described = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        contents = {"b.py": backend, "pyproject.toml": pyproject, "PKG-INFO": described}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            for path, text in contents.items():
                info = tarfile.TarInfo(f"{escaped(name)}-{version}/{path}")
                info.size = len(text.encode())
                archive.addfile(info, io.BytesIO(text.encode()))
        self.files[f"{escaped(name)}-{version}.tar.gz"] = packed.getvalue()


_BACKEND = """
import base64, pathlib, io, zipfile
with open({marker!r}, "a") as file:
    file.write("ran\\n")
made = base64.b64decode({made!r})
def build_wheel(folder, *_):
    info = next(n for n in zipfile.ZipFile(io.BytesIO(made)).namelist() if n.endswith("RECORD"))
    name = info.partition(".dist-info")[0] + "-py3-none-any.whl"
    pathlib.Path(folder, name).write_bytes(made)
    return name
"""


def escaped(name: str) -> str:
    return name.replace("-", "_").lower()


def wheel(contents: Mapping[str, str], record: str, *, wrong_record: bool = False) -> bytes:
    packed = io.BytesIO()
    rows = [f"{record},,"]
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in contents.items():
            archive.writestr(path, text)
            digest = hashlib.sha256(text.encode() + (b"x" if wrong_record else b"")).digest()
            encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
            rows.append(f"{path},sha256={encoded},{len(text)}")
        archive.writestr(record, "\n".join(rows) + "\n")
    return packed.getvalue()
