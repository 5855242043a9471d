"""The official conformance suite: installed by npm in a folder of its own, run against one URL."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import anyio

from tests.e2e.conftest import run

PACKAGE = "@modelcontextprotocol/conformance"
VERSION = "0.2.0-alpha.12"

BOUND_S = 300.0
"""Of one run, which takes seconds; a scenario that hangs is given up by the suite after 30."""

DETAILS_CHARACTERS = 1000
"""Of what a check tells about itself; some repeat a whole list of tools."""

_SUMMARY = re.compile(r"^[✓✗] (\S+): \d+ passed, (\d+) failed$", re.MULTILINE)
_REPORT = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
"""The folder that the suite makes for a scenario."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the suite found."""

    passed: tuple[str, ...]
    """Scenarios without a failed check, in the order they ran."""
    failed: tuple[str, ...]
    remarks: tuple[str, ...]
    """One for each check that failed or warned: status, scenario, check, why, details."""


@dataclass(frozen=True, slots=True)
class Suite:
    """An installed suite."""

    node: Path
    program: Path

    async def run(self, url: str, revision: str, results: Path) -> Verdict:
        """Run all scenarios of a protocol revision against the server at `url`.

        Args:
            results: an empty folder, for the suite's own reports.
        """
        options = ("--url", url, "--suite", "all", "--spec-version", revision, "-o", str(results))
        command = (str(self.node), str(self.program), "server", *options)
        with anyio.fail_after(BOUND_S):
            done = await anyio.run_process(command, check=False)
        found = _SUMMARY.findall(done.stdout.decode())
        assert found, done.stdout.decode() + done.stderr.decode()
        return Verdict(
            tuple(name for name, failures in found if failures == "0"),
            tuple(name for name, failures in found if failures != "0"),
            tuple(_remarks(results)),
        )


def install(node: Path, npm_cli: Path, folder: Path, environ: Mapping[str, str]) -> Suite:
    """Install the suite into `folder`; it needs node 22 or newer."""
    folder.mkdir()
    words = ("install", "--ignore-scripts", "--no-audit", "--no-fund", f"{PACKAGE}@{VERSION}")
    path = f"{node.parent}:{environ['PATH']}"
    done = run([node, npm_cli, *words], cwd=folder, env={**environ, "PATH": path})
    assert done.returncode == 0, done.stderr
    return Suite(node, folder / "node_modules" / PACKAGE / "dist/index.js")


def _remarks(results: Path) -> list[str]:
    remarks = []
    for report in sorted(results.rglob("checks.json"), key=lambda path: path.stat().st_mtime_ns):
        scenario = _REPORT.fullmatch(report.parent.name)
        assert scenario is not None, report
        for check in json.loads(report.read_text(encoding="utf-8")):
            if check["status"] in {"FAILURE", "WARNING"}:
                why = check.get("errorMessage") or check["description"]
                details = json.dumps(check.get("details"))[:DETAILS_CHARACTERS]
                words = (check["status"], scenario[1], check["id"], why, details)
                remarks.append(": ".join(words))
    return remarks
