"""How long installing takes, beside npm's own commands in the same run.

    .venv/bin/python -m tests.bench.install [--folder FOLDER] [--rounds N] [--only PART ...]

Wall and processor seconds of whole commands, at the median of interleaved rounds; every round works
in folders of its own, and nothing is deleted before the end: a file system that has just freed many
inodes is slow to hand out new ones, for seconds. Cold: empty caches. Warm: the caches that the cold
command left. From a lockfile nothing is started (`--no-start`), but for the ten servers.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

OCTAVE = (sys.executable, "-m", "octave")
CHECKOUT = Path(__file__).parents[2]
EVERYTHING = "@modelcontextprotocol/server-everything"
LIMITS_S = {
    "everything": {"cold": 1.5, "warm": 0.6},
    "mongodb": {"cold": 7.0, "warm": 3.0},
    "fetch": {"warm": 0.5},
}
FIRST_SHARE, TEN_SHARE = 1.5, 0.5
TEN: Mapping[str, tuple[str, ...]] = {
    "duckdb": ("--db-path", ":memory:"),
    "everything": (),
    "fetch": (),
    "filesystem": ("/",),
    "git": (),
    "kubernetes": (),
    "memory": (),
    "sequential-thinking": (),
    "sqlite": ("--db-path", "t.db"),
    "time": (),
}
"""Names in the registry, with the arguments without which they do not start."""


@dataclass(frozen=True)
class Took:
    """One run of a command; seconds."""

    wall_s: float
    cpu_s: float


@dataclass
class Bench:
    """A scratch folder and what was measured in it, by part and way."""

    root: Path
    figures: dict[str, list[Took]] = field(default_factory=dict)

    def room(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.root))

    def measure(self, way: str, argv: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> None:
        began = time.monotonic()
        with subprocess.Popen(
            argv,
            cwd=cwd,
            env=os.environ | environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stderr is not None
            said = process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{way}: {' '.join(argv)}\n{said.decode(errors='replace')}")
        took = Took(time.monotonic() - began, usage.ru_utime + usage.ru_stime)
        self.figures.setdefault(way, []).append(took)
        print(f"  {way}: {took.wall_s:.2f} s", file=sys.stderr)

    def wall_s(self, way: str) -> float:
        return statistics.median(took.wall_s for took in self.figures[way])

    def octave(self, way: str, home: Path, *words: str) -> None:
        environ = {"OCTAVE_HOME": str(home), "PYTHONPATH": str(CHECKOUT)}
        # As pip leaves a program: compiled. The first command, which prepares, sees to it.
        environ["PYTHONDONTWRITEBYTECODE"] = ""
        self.measure(way, [*OCTAVE, "install", "-g", "-q", *words], home, environ)

    def tell(self, way: str, limit_s: float | None = None) -> None:
        took = self.figures[way]
        cpu_s = statistics.median(one.cpu_s for one in took)
        spread = f"{min(one.wall_s for one in took):.2f}-{max(one.wall_s for one in took):.2f}"
        verdict = ""
        if limit_s is not None:
            reached = "reached" if self.wall_s(way) < limit_s else "MISSED"
            verdict = f"limit {limit_s:.2f}  {reached}"
        print(f"{way:44} {self.wall_s(way):7.2f} {cpu_s:7.2f}  {spread:>13}  {verdict}")


def home_with(bench: Bench, source: Path | None, warm: Path | None = None) -> Path:
    """Return a new home with the manifest and lockfile of `source`; as `warm`, it has its caches.

    A private node or Python is one of them: kept once for every server, and not removed with one.
    """
    home = bench.room()
    if source is not None:
        for name in ("octave.toml", "octave.lock"):
            shutil.copy(source / name, home)
    if warm is not None:
        for name in ("cache", "runtimes"):
            if (warm / name).is_dir():
                shutil.copytree(warm / name, home / name, symlinks=True)
    return home


def locked(bench: Bench, request: str) -> Path:
    """Return a home whose lockfile answers `request`."""
    home = bench.room()
    bench.octave("(preparing)", home, request, "--no-start")
    return home


def from_lock_with_npm(bench: Bench, name: str, package: str) -> Iterator[None]:
    """Run `npm ci` cold, warm and offline; a round for each `next`."""
    source = bench.room()
    (source / "package.json").write_text(f'{{"dependencies": {{"{package}": "*"}}}}')
    flags = ["--ignore-scripts", "--no-audit", "--no-fund"]
    environ = {"npm_config_cache": str(bench.room())}
    words = ["npm", "install", "--package-lock-only", *flags]
    bench.measure("(preparing)", words, source, environ)
    while True:
        environ = {"npm_config_cache": str(bench.room())}
        for way, more in ("cold", []), ("warm", ["--prefer-offline"]), ("offline", ["--offline"]):
            folder = bench.room()
            for file in ("package.json", "package-lock.json"):
                shutil.copy(source / file, folder)
            bench.measure(f"{name}: npm ci, {way}", ["npm", "ci", *flags, *more], folder, environ)
        yield


def from_lock(bench: Bench, name: str, request: str) -> Iterator[None]:
    """Run `octave install` from a lockfile, cold and warm; a round for each `next`."""
    source = locked(bench, request)
    while True:
        home = home_with(bench, source)
        bench.octave(f"{name}: octave from lock, cold", home, "--no-start")
        home = home_with(bench, source, home)
        bench.octave(f"{name}: octave from lock, warm", home, "--no-start")
        yield


def first(bench: Bench) -> Iterator[None]:
    """Install `everything` with nothing there: npm, and Octave without and with a start."""
    while True:
        environ = {"npm_config_cache": str(bench.room())}
        words = ["npm", "install", "--no-audit", "--no-fund", EVERYTHING]
        bench.measure("first: npm install", words, bench.room(), environ)
        bench.octave("first: octave install --no-start", bench.room(), "everything", "--no-start")
        bench.octave("first: octave install", bench.room(), "everything")
        yield


def ten(bench: Bench) -> Iterator[None]:
    """Install ten servers one by one by name, and all from the lockfile that gave."""
    while True:
        home = bench.room()
        for name, arguments in TEN.items():
            words = [f"--arg={argument}" for argument in arguments]
            bench.octave(f"ten: single {name}", home, name, *words)
        bench.octave("ten: from the lockfile", home_with(bench, home))
        yield


PARTS: Mapping[str, Callable[[Bench], Sequence[Iterator[None]]]] = {
    "everything": lambda bench: (
        from_lock_with_npm(bench, "everything", EVERYTHING),
        from_lock(bench, "everything", f"npm:{EVERYTHING}"),
    ),
    "mongodb": lambda bench: (
        from_lock_with_npm(bench, "mongodb", "mongodb-mcp-server"),
        from_lock(bench, "mongodb", "npm:mongodb-mcp-server"),
    ),
    "fetch": lambda bench: (from_lock(bench, "fetch", "pypi:mcp-server-fetch"),),
    "first": lambda bench: (first(bench),),
    "ten": lambda bench: (ten(bench),),
}


def report(bench: Bench) -> None:
    """Print what was measured, with the limits."""
    print(f"{'':44} {'wall s':>7} {'CPU s':>7}  {'wall from-to':>13}")
    for way in sorted(bench.figures):
        part, _, what = way.partition(": ")
        if way.startswith("("):
            continue
        limit_s = None
        if what.startswith("octave from lock"):
            limit_s = LIMITS_S[part].get(what.rpartition(" ")[2])
        elif way.startswith("first: octave"):
            limit_s = FIRST_SHARE * bench.wall_s("first: npm install")
        elif way == "ten: from the lockfile":
            singles = [one for one in bench.figures if one.startswith("ten: single")]
            limit_s = TEN_SHARE * sum(map(bench.wall_s, singles))
        bench.tell(way, limit_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    asked = parser.parse_args()
    print("load before:", *os.getloadavg())
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="bench-install-") as name:
        bench = Bench(Path(name))
        for part in asked.only:
            ways = PARTS[part](bench)
            for _ in range(asked.rounds):
                for way in ways:
                    next(way)
        report(bench)
    print("load after:", *os.getloadavg())


if __name__ == "__main__":
    main()
