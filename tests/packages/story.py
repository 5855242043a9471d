"""A user with a home, an index of small real servers, and the `octave` command in a child."""

import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.packages.wheel_index import WheelIndex, escaped, wheel

CHECKOUT = Path(__file__).parents[2]
SERVERS = CHECKOUT / "tests" / "servers"
WAIT_S = 60.0
"""Far more than any of these commands takes, far less than a hang costs."""

GOOD = "good"
ECHO = "env_echo"
WANTS_KEY = """
import os, sys
if not os.environ.get("STORY_KEY"):
    sys.exit("Error: STORY_KEY environment variable is required")
""" + (SERVERS / "good.py").read_text(encoding="utf-8")
WANTS_NETWORK = """
import sys
sys.exit("error: connect ECONNREFUSED 192.0.2.1:443")
"""
CRASHES = """
import os, sys
sys.stderr.write(f"given {os.environ.get('STORY_TOKEN', 'nothing')}\\n")
None.attribute
"""
QUOTES_ITS_KEY = """
import os, sys
sys.exit(f"Error: invalid credentials in STORY_TOKEN: {os.environ['STORY_TOKEN']}")
"""


def agreed(words: tuple[str, ...]) -> tuple[str, ...]:
    """Return `words` with the consent to an installation: who writes a test knows what it brings.

    Tests of the consent itself use `World.run`.
    """
    if words[:1] in {("install",), ("i",)} and "-y" not in words:
        return (words[0], "-y", *words[1:])
    return words


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def told(self) -> tuple[int, str, str]:
        """Exit code, stdout and stderr with what differs from run to run replaced."""
        return self.code, plain(self.stdout), plain(self.stderr)

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> Any:
        """The error on the one line of stderr."""
        (line,) = self.stderr.splitlines()
        return json.loads(line)["error"]


def plain(text: str) -> str:
    text = re.sub(r"/\S*/(?=octave\.|\.octave|project|home\b)", "", text)
    return re.sub(r"\d+\.\d+ s\b", "N s", text)


@dataclass
class World:
    """One user; every path lies in `root`."""

    root: Path
    index: WheelIndex
    environ: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.home = self.root / "home"
        self.cwd = self.root / "cwd"
        self.cwd.mkdir(exist_ok=True)
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.root),
            "LANG": "C.UTF-8",
            "TMPDIR": str(self.root),
            "OCTAVE_HOME": str(self.home),
            "PYTHONPATH": str(CHECKOUT),
            "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
            # A child that is killed or may write little must not leave half a cache behind.
            "PYTHONDONTWRITEBYTECODE": "1",
            "UV_DEFAULT_INDEX": self.index.url,
            "UV_HTTP_RETRIES": "0",
            "XDG_CONFIG_DIRS": str(self.root / "nowhere"),
            **self.environ,
        }

    def offer(
        self,
        name: str,
        server: str,
        version: str = "1.0",
        scripts: Sequence[str] | None = None,
        readme: str = "",
        author: str = "",
    ) -> None:
        """Put a server on the index: the name of a file in tests/servers, or a program."""
        known = SERVERS / f"{server}.py"
        code = known.read_text(encoding="utf-8") if "\n" not in server else server
        module, info = escaped(name), f"{escaped(name)}-{version}.dist-info"
        points = "".join(
            f"{script} = {module}:main\n" for script in (scripts if scripts is not None else [name])
        )
        contents = {
            f"{module}/__init__.py": "def main():\n    import " + module + ".server\n",
            f"{module}/server.py": code,
            "_base.py": (SERVERS / "_base.py").read_text(encoding="utf-8"),
            f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + (f"Author: {author}\n" if author else "")
            + f"\n{readme}\n",
            f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{info}/entry_points.txt": f"[console_scripts]\n{points}",
        }
        self.index.files[f"{module}-{version}-py3-none-any.whl"] = wheel(contents, f"{info}/RECORD")

    def wants(self, *names: str) -> None:
        """Write a manifest that names those packages of the index, as servers of that name."""
        self.home.mkdir(mode=0o700)
        tables = [f'[servers.{name}]\npackage = "pypi:{name}"\n' for name in names]
        (self.home / "octave.toml").write_text("\n".join(tables), encoding="utf-8")

    def start(
        self, *words: str, environ: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[str]:
        return self.run([sys.executable, "-m", "octave", *agreed(words)], environ, **more)

    def run(
        self, argv: Sequence[str], environ: Mapping[str, str] | None = None, **more: Any
    ) -> subprocess.Popen[str]:
        return subprocess.Popen(
            argv,
            cwd=more.pop("cwd", self.cwd),
            env={**self.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            **more,
        )

    def octave(self, *words: str, environ: Mapping[str, str] | None = None, **more: Any) -> Done:
        return ended(self.start(*words, environ=environ, **more))

    @property
    def manifest(self) -> str:
        return (self.home / "octave.toml").read_text(encoding="utf-8")

    @property
    def lockfile(self) -> str:
        return (self.home / "octave.lock").read_text(encoding="utf-8")

    def installed(self) -> list[str]:
        """Return NAME/VERSION-DIGEST8 of every whole version, NAME/... of every other one."""
        return sorted(
            str(path.parent.relative_to(self.home / "servers"))
            for path in (self.home / "servers").glob("*/*/record.json")
        )

    def record(self, name: str) -> Any:
        (path,) = (self.home / "servers" / name).glob("*/record.json")
        return json.loads(path.read_bytes())

    def call(self, name: str, tool: str, *words: str) -> Done:
        return self.octave("call", name, tool, *words)

    def state(self) -> dict[str, bytes]:
        """Return what counts of the home, byte by byte: a failed verb must leave it as it was."""
        kept = ("octave.toml", "octave.lock", "secrets.toml", "servers", "staging", "data")
        found: dict[str, bytes] = {}
        for top in kept:
            for path in sorted([self.home / top, *(self.home / top).rglob("*")]):
                if not path.exists():
                    continue
                if path.name == "secrets.toml":
                    # An empty store says the same as none.
                    stored = tomllib.loads(path.read_text(encoding="utf-8"))["secrets"]
                    found |= {str(path): repr(stored).encode()} if stored else {}
                elif path.is_file() and "__pycache__" not in path.parts:
                    found[str(path)] = path.read_bytes()
                elif path.is_dir() and top != "staging":
                    found[str(path)] = b"folder"
        return found


def ended(child: subprocess.Popen[str]) -> Done:
    try:
        out, err = child.communicate(timeout=WAIT_S)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGABRT)
        out, err = child.communicate()
        raise AssertionError(f"it hangs:\n{out}\n{err}") from None
    return Done(child.returncode, out, err)
