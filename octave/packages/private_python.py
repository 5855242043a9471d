"""A Python that uv downloads below the home, for servers that need one this machine has not.

uv knows the builds and their hashes; where they come from is the user's to say, in uv's own
settings, and so is whether anything may be downloaded at all.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from octave.errors import InstallFailed
from octave.packages import commands, store, uv

if TYPE_CHECKING:  # the ecosystems import this module
    from octave.packages.ecosystems.base import Bench

_LOCK = "python 3"
"""No server can have this name, so its lock is nobody else's."""
_WORDS = ("python", "install", "--no-bin", "--managed-python")


def is_allowed(bench: "Bench") -> bool:
    """Whether a Python may be downloaded: uv's `python-downloads` says `automatic`, or nothing."""
    return not bench.offline and _setting(bench.environ) in {None, "", "automatic", True}


def is_offered(bench: "Bench", wanted: str) -> bool:
    """Whether there would be one within `wanted` to download; asks no network."""
    if not is_allowed(bench):
        return False
    words: list[str | Path] = [uv.binary(), "python", "list", "--only-downloads", wanted]
    environ = uv.environ(bench) | {"UV_PYTHON_DOWNLOADS": "manual"}
    return bool(commands.run(words, cwd=Path("/"), environ=environ).stdout.strip())


def folder(bench: "Bench") -> Path:
    """Return where such Pythons lie."""
    return bench.home.runtimes / "python"


def download(bench: "Bench", wanted: str) -> None:
    """Have uv put a Python within the PEP 440 specifier `wanted` into `folder`.

    What could not be had is not asked for again by this bench.

    Raises:
        InstallFailed: it cannot be had; the message says why, as the end of a sentence.
        Locked: another process is at it and does not end.
    """
    bench.home.prepare()
    with store.locked(bench.home, _LOCK, bench.progress, busy="downloading a Python"):
        output = bench.ask((*_WORDS, wanted), lambda: _install(bench, wanted))
    if output.exit_code:
        raise InstallFailed(uv.last_cause(output.stderr))


def _install(bench: "Bench", wanted: str) -> commands.Output:
    bench.progress(f"downloading Python {wanted}")
    environ = uv.environ(bench) | {
        "UV_PYTHON_INSTALL_DIR": str(folder(bench)),
        "UV_PYTHON_DOWNLOADS": "manual",
    }
    words: list[str | Path] = [uv.binary(), *_WORDS, wanted]
    return commands.run(words, cwd=bench.home.runtimes, environ=environ)


def _setting(environ: Mapping[str, str]) -> object:
    if environ.get("UV_PYTHON_DOWNLOADS"):
        return environ["UV_PYTHON_DOWNLOADS"].lower()
    for path in uv.settings_files(environ):
        try:
            said = tomllib.loads(path.read_text(encoding="utf-8")).get("python-downloads")
        except (OSError, ValueError):
            continue
        if said is not None:
            return said
    return None
