"""How long an installed server takes to list its tools and what it weighs, beside npx and uvx.

    .venv/bin/python -m tests.bench.start [--rounds N]

Octave's command for an installed server is run as the runtime runs it; `npx -y` and `uvx` as AI
tools are configured with them, without a version, from their own caches, which a first run fills.
With `--pinned` they get the version, and need not look for it. Interleaved; medians. The weight is
the PSS of the whole process tree once it is quiet: alone on the machine, where the two processes of
npx share one node, and beside another server of the kind, as whatever a runtime starts. Linux only.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from uv import find_uv_bin

from octave.home import Home, Workspace
from octave.packages import lockfile
from octave.packages.launch import LaunchSpec
from octave.packages.specs import launch_specs
from octave.runtime.metrics import tree_memory_bytes
from tests.bench.memory import MIB, Plain, wait_until_quiet

SHARE = 0.5
"""Of the time and the weight of npx and uvx; the goal."""
ROUNDS = 5


def ways(root: Path, kind: str, name: str, *, pinned: bool) -> Mapping[str, LaunchSpec]:
    """Return the commands to compare, by what they are called; installs the server."""
    home = root / "home"
    environ = {**os.environ, "OCTAVE_HOME": str(home)}
    words = [sys.executable, "-m", "octave", "install", "-g", "-q", name]
    subprocess.run(words, env=environ, check=True, stdout=subprocess.DEVNULL)
    workspace = Workspace.of_home(Home(home))
    (spec,) = (each for each in launch_specs(workspace, os.environ) if each.name == name)
    pin = lockfile.read(workspace.lockfile).pins[name]
    if kind == "npx":
        wanted = f"{pin.package}@{pin.version}" if pinned else pin.package
        argv: tuple[str, ...] = ("npx", "-y", wanted)
        more = {"npm_config_cache": str(root / "npm")}
    else:
        wanted = f"{pin.package}=={pin.version}" if pinned else pin.package
        argv = (find_uv_bin(), "tool", "run", "--from", wanted, pin.entry)
        more = {"UV_CACHE_DIR": str(root / "uv")}
    other = replace(spec, argv=argv, environment=lambda: {**spec.environment(), **more})
    return {"octave": spec, kind: other}


@contextmanager
def greeted(spec: LaunchSpec) -> Iterator[tuple[Plain, float]]:
    """Yield a server that has listed its tools, and the seconds that took."""
    began = time.perf_counter()
    with closing(Plain(spec)) as server:
        server.greet()
        yield server, time.perf_counter() - began


def weight(server: Plain) -> float:
    """Return the PSS of the server's processes once they are quiet, MiB."""
    pid = server.process.pid
    wait_until_quiet([pid])
    return tree_memory_bytes([pid])[pid] / MIB


def compare(root: Path, kind: str, name: str, rounds: int, *, pinned: bool) -> None:
    found = ways(root, kind, name, pinned=pinned)
    for spec in found.values():
        with greeted(spec):
            pass
    units = ("s", "MiB alone", "MiB beside another")
    figures: dict[str, dict[str, list[float]]] = {
        unit: {way: [] for way in found} for unit in units
    }
    for _ in range(rounds):
        for way, spec in found.items():
            with greeted(spec) as (server, took_s):
                alone = weight(server)
                with greeted(found["octave"]):
                    row = (took_s, alone, weight(server))
            for unit, figure in zip(units, row, strict=True):
                figures[unit][way].append(figure)
    shares = []
    for unit, found_by_way in figures.items():
        own, others = (statistics.median(found_by_way[way]) for way in ("octave", kind))
        shares.append(own / others)
        print(f"{name}: octave {own:.2f}, {kind} {others:.2f} {unit}: {own / others:.2f}")
    print(f"{name}: {'reached' if max(shares) <= SHARE else 'MISSED'}, at most {SHARE:g} of each")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.start")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary one")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--pinned", action="store_true", help="npx and uvx get the version")
    asked = parser.parse_args()
    for kind, name in (("npx", "everything"), ("uvx", "fetch")):
        with tempfile.TemporaryDirectory(dir=asked.folder, prefix="bench-start-") as scratch:
            compare(Path(scratch), kind, name, asked.rounds, pinned=asked.pinned)


if __name__ == "__main__":
    main()
