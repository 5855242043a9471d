"""Verify entries of the bundled registry for real: install, start, compare, rewrite the figures.

    python -m tests.registry_check time fetch          # these
    python -m tests.registry_check --limit 10          # the first ten that need no secret
    python -m tests.registry_check time --write        # and write what was seen into registry/

Each server gets a home of its own that is gone afterwards. Variables it requires get a placeholder,
which is enough for most to start and list their tools. Exit code 1 when one does not start or
offers another number of tools, prompts or resources than its entry says.
"""

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from octave import __version__
from octave.errors import OctaveError, StartFailed
from octave.home import Home, Workspace
from octave.packages import sync
from octave.packages.ecosystems.base import Bench
from octave.packages.entries import Argument, Entry, PackageChoice
from octave.packages.launch import LaunchSpec
from octave.packages.manifest_edit import add_server
from octave.packages.offered import Offered
from octave.packages.placement import Site
from octave.packages.registry import Registry, bundled_folder
from octave.packages.server_json import EXTENSION, Figures
from octave.packages.specs import launch_specs

MOST = 10
"""So many entries at once, unless they are named: each takes up to minutes and 400 MB."""
ANSWER_S = 120.0
"""The slowest known server needs 31 s for its first start on a busy machine."""
STOP_S = 5.0
MOST_PAGES = 50
PLACEHOLDER = "placeholder"
PROTOCOL = "2025-11-25"
_ORDER = ("version", "protocolVersion", "tools", "prompts", "resources", "startSeconds",
          "coldStartSeconds", "memoryBytes", "platforms")  # fmt: skip
"""Members of figures as they stand in the files: small diffs can be read."""
_LISTS = {"tools": "tools/list", "prompts": "prompts/list", "resources": "resources/list"}


@dataclass(frozen=True)
class Verdict:
    """What became of one entry."""

    name: str
    figures: Figures | None
    """None: it could not be installed or started."""
    differences: tuple[str, ...]
    """How it is not what its entry says; empty: it holds."""


def chosen(registry: Registry, names: Sequence[str], limit: int) -> list[Entry]:
    """Return the entries to verify: those named, else the first that need nothing secret."""
    if names:
        return [registry.get(name) for name in names]
    entries = (entry for entry in registry.entries() if entry.packages)
    return [entry for entry in entries if not entry.preferred().required_env][:limit]


def verify(entry: Entry, registry: Registry, folder: Path) -> Verdict:
    """Install the preferred package of `entry` below the empty `folder`, and start it twice."""
    choice = entry.preferred()
    stderr = folder / "stderr"
    try:
        with _installed(entry, choice, registry, folder) as (spec, version):
            cold = measured(spec, stderr)
            warm = measured(spec, stderr)
    except OctaveError as error:
        return Verdict(entry.short_name, None, (why(error, choice, stderr),))
    figures = msgspec.structs.replace(
        warm, version=version, cold_start_s=cold.start_s, platforms=_platforms(choice.figures)
    )
    return Verdict(entry.short_name, figures, tuple(differences(choice.figures, figures)))


def differences(before: Figures | None, after: Figures) -> Iterator[str]:
    """Yield what a user would miss; times and memory of another machine are no differences."""
    if before is None:
        yield "it was never tried before"
        return
    for what in _LISTS:
        old, new = getattr(before, what), getattr(after, what)
        if old is not None and old != new:
            yield f"{what}: {old} in {before.version}, {new} in {after.version}"


def rewritten(text: str, choice: PackageChoice, figures: Figures) -> str:
    """Return the server.json `text` with `figures` of `choice`, and nothing else changed."""
    content = json.loads(text)
    extension = content["_meta"][EXTENSION]
    told = msgspec.to_builtins(figures)
    extension["packages"][choice.request]["figures"] = {
        name: told[name] for name in _ORDER if told[name] is not None
    }
    for package in content["packages"]:
        if package["identifier"] == choice.identifier and package["registryType"] == choice.kind:
            package["version"] = figures.version
    content["version"] = content["packages"][0]["version"]
    return json.dumps(content, indent=2) + "\n"


def why(error: OctaveError, choice: PackageChoice, stderr: Path) -> str:
    """Return why it could not be tried: the error, what the entry says it needs, its last line."""
    needs = (
        f"; its entry says that it needs {choice.needs_at_start}" if choice.needs_at_start else ""
    )
    text = stderr.read_text(encoding="utf-8", errors="replace") if stderr.exists() else ""
    last = [line.strip() for line in text.splitlines() if line.strip()][-1:]
    return f"{error.message}{needs}{''.join(f'; it wrote: {line[:200]}' for line in last)}"


def measured(spec: LaunchSpec, stderr: Path) -> Figures:
    """Start `spec`, ask what it offers, measure it while it idles, and stop it.

    Raises:
        StartFailed: it did not answer.
    """
    began = time.monotonic()
    with stderr.open("wb") as errors:
        server = subprocess.Popen(
            spec.argv,
            cwd=spec.cwd,
            env=spec.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    try:
        talk = _Talk(server)
        hello = talk.request(
            "initialize",
            {
                "protocolVersion": PROTOCOL,
                "capabilities": {},
                "clientInfo": {"name": "octave-registry-check", "version": __version__},
            },
        )
        talk.send({"method": "notifications/initialized"})
        capabilities = hello.get("capabilities", {})
        tools = talk.count("tools") if "tools" in capabilities else None
        start_s = time.monotonic() - began
        others = {
            what: talk.count(what) for what in ("prompts", "resources") if what in capabilities
        }
        return Figures(
            version="",
            protocol_version=str(hello.get("protocolVersion", "")),
            start_s=round(start_s, 2),
            cold_start_s=0.0,
            memory_bytes=_memory_bytes(server.pid),
            platforms=(),
            tools=tools,
            **others,
        )
    finally:
        _stop(server)


class _Talk:
    """Newline-delimited JSON-RPC with one server."""

    def __init__(self, server: "subprocess.Popen[bytes]") -> None:
        self._server = server
        self._next = 0
        self._rest = b""

    def send(self, message: Mapping[str, Any]) -> None:
        assert self._server.stdin is not None
        line = json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n"
        try:
            self._server.stdin.write(line)
            self._server.stdin.flush()
        except BrokenPipeError as error:
            raise StartFailed("it ended while it was asked") from error

    def request(self, method: str, params: Mapping[str, Any]) -> dict[str, Any]:
        self._next += 1
        self.send({"id": self._next, "method": method, "params": params})
        deadline = time.monotonic() + ANSWER_S
        while True:
            try:
                message = json.loads(self._line(deadline))
            except ValueError:
                continue  # Not everything that servers print is JSON.
            if isinstance(message, dict) and message.get("id") == self._next:
                if not isinstance(message.get("result"), dict):
                    raise StartFailed(f"it answers `{method}` with {message.get('error')}")
                return dict(message["result"])

    def count(self, what: str) -> int:
        """Return how many tools, prompts or resources it lists, over all pages."""
        found, params = 0, dict[str, Any]()
        for _ in range(MOST_PAGES):
            page = self.request(_LISTS[what], params)
            found += len(page.get(what, ()))
            if not page.get("nextCursor"):
                break
            params = {"cursor": page["nextCursor"]}
        return found

    def _line(self, deadline: float) -> bytes:
        assert self._server.stdout is not None
        while b"\n" not in self._rest:
            left_s = deadline - time.monotonic()
            ready = left_s > 0 and select.select([self._server.stdout], [], [], left_s)[0]
            if not ready:
                raise StartFailed(f"it did not answer within {ANSWER_S:.0f} s")
            piece = os.read(self._server.stdout.fileno(), 65536)
            if not piece:
                raise StartFailed("it ended before it answered")
            self._rest += piece
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def _memory_bytes(pid: int) -> int:
    root = psutil.Process(pid)
    total = 0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            memory = process.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
    return round(total, -5)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    assert server.stdin is not None and server.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        server.stdin.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        server.wait(STOP_S)
    # It may have left children behind, whose group lives on without it.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()
    server.stdout.close()


@contextlib.contextmanager
def _installed(
    entry: Entry, choice: PackageChoice, registry: Registry, folder: Path
) -> Iterator[tuple[LaunchSpec, str]]:
    workspace = Workspace.of_home(Home(folder / "home"))
    workspace.prepare()
    needed = [*choice.required_env, *next(iter(choice.env_one_of), ())]
    environ = {**os.environ, **dict.fromkeys(needed, PLACEHOLDER)}
    table: dict[str, object] = {"package": choice.request, "pass_env": needed}
    args = [word for each in choice.required_arguments for word in _words(each, folder)]
    add_server(workspace.manifest, entry.short_name, table | ({"args": args} if args else {}))

    def unused(spec: LaunchSpec) -> Offered:
        raise AssertionError(f"{spec.name} is started here, not by the install")

    bench = Bench(workspace.home, environ, progress=lambda text: _say(f"  {text}"))
    site = Site(workspace, registry, bench, unused, start=False)
    (outcome,) = sync.install_all(site, locked=False)
    if outcome.error is not None:
        raise outcome.error
    (spec,) = launch_specs(workspace, environ)
    if spec.problem is not None:
        raise spec.problem
    yield spec, outcome.version


def _words(argument: Argument, folder: Path) -> list[str]:
    """Return something plausible for a required argument: a path that exists, else a word."""
    asked = f"{argument.placeholder} {argument.description}".upper()
    value = PLACEHOLDER
    if "DIR" in asked or "FOLDER" in asked or "PATH" in asked:
        place = folder / "files"
        place.mkdir(exist_ok=True)
        value = str(place if "DIR" in asked or "FOLDER" in asked else place / "data.db")
    elif "URL" in asked:
        value = "postgresql://user:password@127.0.0.1:1/nothing"
    return [argument.name, value] if argument.name else [value]


def _platforms(before: Figures | None) -> tuple[str, ...]:
    here = "macos" if sys.platform == "darwin" else sys.platform
    return tuple(sorted({here, *(before.platforms if before else ())}))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def _shown(verdict: Verdict) -> str:
    figures = verdict.figures
    if figures is None:
        return f"{verdict.name}: FAILED: {verdict.differences[0]}"
    facts = f"{figures.version}, {figures.tools} tools, {figures.start_s} s"
    memory = f"{figures.memory_bytes / 1e6:.0f} MB"
    return f"{verdict.name}: {facts}, {memory}{''.join(f'; {d}' for d in verdict.differences)}"


def main(words: Sequence[str]) -> int:
    """Run the script; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.registry_check", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--limit", type=int, default=MOST)
    parser.add_argument("--write", action="store_true", help="rewrite the figures in the files")
    parser.add_argument("--registry", type=Path, default=bundled_folder(), metavar="FOLDER")
    given = parser.parse_args(words)
    registry, code = Registry(given.registry), 0
    for entry in chosen(registry, given.names, given.limit):
        _say(f"{entry.short_name}:")
        with tempfile.TemporaryDirectory(prefix="octave-check-") as folder:
            verdict = verify(entry, registry, Path(folder))
        sys.stdout.write(_shown(verdict) + "\n")
        code = max(code, int(bool(verdict.differences)))
        if given.write and verdict.figures is not None:
            path = given.registry / f"{entry.short_name}.json"
            text = path.read_text(encoding="utf-8")
            path.write_text(rewritten(text, entry.preferred(), verdict.figures), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
