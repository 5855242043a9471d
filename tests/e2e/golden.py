"""The golden servers' example calls: set-up, calling, comparing."""

import http.server
import json
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

SERVERS: dict[str, dict[str, Any]] = {
    server["id"]: server
    for server in json.loads(Path(__file__).with_name("golden.json").read_text())["servers"]
}


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def prepared(server: dict[str, Any], workdir: Path) -> Iterator[Callable[[Any], Any]]:
    """Do the set-up steps; yield the function that fills placeholders in any JSON value."""
    names = {"{workdir}": str(workdir)}
    fill = partial(_filled, names)
    web: http.server.ThreadingHTTPServer | None = None
    workdir.mkdir(parents=True, exist_ok=True)
    for step in server.get("setup", []):
        if "write" in step:
            path = Path(fill(step["write"]))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step["text"], encoding="utf-8")
        elif "git_init" in step:
            _commit(Path(fill(step["git_init"])), step["commit"])
        elif "http_serve" in step:
            serve = partial(_Quiet, directory=fill(step["http_serve"]))
            web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve)
            threading.Thread(target=web.serve_forever, daemon=True).start()
            names["{port}"] = str(web.server_port)
    yield fill
    if web is not None:
        web.shutdown()
        web.server_close()


def _filled(names: dict[str, str], value: Any) -> Any:
    if isinstance(value, str):
        for name, text in names.items():
            value = value.replace(name, text)
        return value
    if isinstance(value, list):
        return [_filled(names, item) for item in value]
    if isinstance(value, dict):
        return {key: _filled(names, item) for key, item in value.items()}
    return value


def _commit(repository: Path, message: str) -> None:
    identity = ["-c", "user.name=octave", "-c", "user.email=octave@example.invalid"]
    for words in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", message]):
        subprocess.run(["git", *words], cwd=repository, check=True, timeout=30)


def check(result: dict[str, Any], expected: dict[str, Any]) -> None:
    """Compare a tool's result with what golden.json expects of it."""
    assert bool(result.get("isError")) == expected.get("isError", False), result
    text = "\n".join(block["text"] for block in result["content"] if block["type"] == "text")
    if "text_equals" in expected:
        assert text == expected["text_equals"]
    if "text_contains" in expected:
        assert expected["text_contains"] in text
    if "text_matches" in expected:
        assert re.search(expected["text_matches"], text), text
    if "structured_equals" in expected:
        assert result["structuredContent"] == expected["structured_equals"]
