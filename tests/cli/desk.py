"""One user at a shell: a home, servers started by their own commands, `octave` in children."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import psutil

CHECKOUT = Path(__file__).parents[2]
SERVERS = CHECKOUT / "tests" / "servers"
TOOLBOX = CHECKOUT / "tests" / "cli" / "toolbox.py"
WAIT_S = 30.0
"""Far more than any of these commands takes, far less than a hang costs."""
POLL_S = 0.02


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def told(self) -> tuple[int, str, str]:
        return self.code, self.stdout, self.stderr

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        """The error on the one line of stderr."""
        (line,) = self.stderr.splitlines()
        return json.loads(line)["error"]


class Desk:
    """Everything lies in `root`, which stands as ROOT in what commands told."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.home = root / "h"
        self.cwd = root / "cwd"
        self.state = root / "state"
        for folder in (self.home, self.cwd, self.state):
            folder.mkdir(mode=0o700)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "LANG": "C.UTF-8",
            "OCTAVE_HOME": str(self.home),
            "PYTHONPATH": str(CHECKOUT),
            # The keyring of whoever runs the tests is none of their business.
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        }
        self._children: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in self._children:
            if child.poll() is None:
                child.kill()
                child.wait(WAIT_S)
            for stream in (child.stdin, child.stdout, child.stderr):
                if stream is not None:
                    stream.close()
        for state in (self.home, *self.root.glob("*/.octave")):
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                facts = json.loads((state / "run" / "runtime.json").read_bytes())
                runtime = psutil.Process(facts["pid"])
                runtime.terminate()
                self._until_gone(runtime.pid)
        for pid in self.servers():
            os.killpg(pid, signal.SIGKILL)

    def server(self, name: str, path: Path | None = None, **keys: Any) -> None:
        """Write a server of tests/servers, or the program at `path`, into the manifest."""
        self.project(self.home / "octave.toml", name, path, **keys)

    def project(self, manifest: Path, name: str, path: Path | None = None, **keys: Any) -> None:
        program = path or SERVERS / f"{name.replace('-', '_')}.py"
        keys = {"command": [sys.executable, str(program)], **keys}
        keys["env"] = {"HOSTILE_STATE": str(self.state), **keys.get("env", {})}
        text = manifest.read_text(encoding="utf-8") if manifest.exists() else "runtime.port = 0\n"
        lines = [f"{key} = {_toml(value)}" for key, value in keys.items()]
        manifest.write_text("\n".join([text, f"[servers.{name}]", *lines, ""]), encoding="utf-8")

    def start(
        self, *words: str, environ: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[bytes]:
        child = subprocess.Popen(
            [sys.executable, "-m", "octave", *words],
            cwd=more.pop("cwd", self.cwd),
            env={**self.environ, **(environ or {})},
            **{
                "stdin": subprocess.DEVNULL,
                "stdout": subprocess.PIPE,
                "stderr": subprocess.PIPE,
                **more,
            },
        )
        self._children.append(child)
        return child

    def octave(
        self,
        *words: str,
        text: bytes | None = None,
        environ: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Done:
        if text is not None:
            more["stdin"] = subprocess.PIPE
        return self.ended(self.start(*words, environ=environ, **more), text)

    def ended(self, child: subprocess.Popen[bytes], text: bytes | None = None) -> Done:
        try:
            out, err = child.communicate(text, timeout=WAIT_S)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)
            out, err = child.communicate()
            raise AssertionError(f"it hangs:\n{out!r}\n{err!r}") from None
        return Done(child.returncode, self._plain(out), self._plain(err))

    def events(self) -> list[str]:
        """Return what the servers noted, without their pids and times."""
        return [line.split()[0] for line in self._events()]

    def servers(self) -> list[int]:
        """Return the pids of all servers that were started and still live."""
        pids = [int(line.split()[1]) for line in self._events() if line.startswith("start ")]
        return [pid for pid in pids if lives(pid)]

    def until(self, is_so: Callable[[], object]) -> None:
        """Wait for what only a file or a process can tell."""
        deadline = time.monotonic() + WAIT_S
        while not is_so():
            assert time.monotonic() < deadline, self.events()
            threading.Event().wait(POLL_S)

    def facts(self) -> Any:
        return json.loads((self.home / "run" / "runtime.json").read_bytes())

    def log(self, name: str) -> str:
        return (self.home / "logs" / f"{name}.log").read_text(encoding="utf-8")

    def note(self, name: str, *lines: bytes) -> None:
        """Append lines to the log of a server as the runtime does: `err TEXT`, a second apart."""
        path = self.home / "logs" / f"{name}.log"
        path.parent.mkdir(exist_ok=True)
        count = path.read_bytes().count(b"\n") if path.exists() else 0
        with path.open("ab") as file:
            for number, line in enumerate(lines, count):
                file.write(b"2026-01-01T00:%02d:%02d.000Z " % divmod(number, 60) + line + b"\n")

    def _until_gone(self, pid: int) -> None:
        self.until(lambda: not lives(pid))

    def _events(self) -> list[str]:
        path = self.state / "events.log"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def _plain(self, output: bytes | None) -> str:
        return (output or b"").decode("utf-8", "backslashreplace").replace(str(self.root), "ROOT")


def read_until(stream: IO[bytes] | int, wanted: bytes) -> bytes:
    """Return what came from a child, up to and with `wanted` and what came along with it."""
    number = stream if isinstance(stream, int) else stream.fileno()
    found = b""
    deadline = time.monotonic() + WAIT_S
    while wanted not in found:
        left_s = deadline - time.monotonic()
        ready = left_s > 0 and select.select([number], [], [], left_s)[0]
        piece = os.read(number, 65536) if ready else b""
        assert piece, f"{wanted!r} did not come, but {found!r}"
        found += piece
    return found


def has_hidden(text: str) -> bool:
    """Whether a terminal would act on something in `text`."""
    return not all(character.isprintable() or character in "\n\t" for character in text)


def lives(pid: int) -> bool:
    """Whether it does; one that is dead and waits to be reaped does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _toml(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)
