"""The edge: parsing, usage errors, exit codes, streams; in children where streams are the point."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from octave import __version__
from octave.cli import main as cli
from octave.cli.main import ALIASES, VERBS, run
from octave.errors import EXIT_CODES
from tests.packages.story import World

HEAVY = {"mcp", "starlette", "uvicorn", "httpx", "pydantic", "rich", "asyncio", "anyio"}


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """`run` sets the handler of SIGTERM for its process: here that is the tests'."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_the_version_is_told(world: World) -> None:
    for words in (["--version"], ["--version", "list"]):
        assert world.octave(*words).told[:2] == (0, f"octave {__version__}\n")


def test_without_words_the_verbs_are_shown(world: World) -> None:
    done = world.octave()
    assert (done.code, done.stderr) == (0, "")
    assert all(f"  {verb}" in done.stdout for verb in VERBS)
    assert done.stdout == world.octave("--help").stdout == world.octave("help").stdout
    assert not world.home.exists()


@pytest.mark.parametrize("verb", [*VERBS, *ALIASES])
def test_every_verb_explains_itself(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    assert run(["help", verb]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Usage: octave ")
    if verb != "proxy":
        assert run([verb, "-h"]) == 0


@pytest.mark.parametrize("verb", sorted(set(VERBS) - {"proxy", "client"}))
def test_every_verb_has_the_common_options(capsys: pytest.CaptureFixture[str], verb: str) -> None:
    run([verb, "--help"])
    shown = capsys.readouterr().out
    for option in ("--json", "--quiet", "--verbose", "--manifest", "--global"):
        assert option in shown


def test_the_table_of_exit_codes_is_printed_from_the_code(world: World) -> None:
    done = world.octave("help", "exit-codes")
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(map(str, EXIT_CODES))


@pytest.mark.parametrize(
    ("words", "stderr"),
    [
        (
            ["lst"],
            "error: there is no verb `lst`\nhint: did you mean `octave list` or `octave ls`?\n",
        ),
        (
            ["instal", "x"],
            "error: there is no verb `instal`\n"
            "hint: did you mean `octave install` or `octave uninstall`?\n",
        ),
        (["frobnicate"], "error: there is no verb `frobnicate`\nhint: octave --help\n"),
        (["\x1b[2J"], "error: there is no verb `\\x1b[2J`\nhint: octave --help\n"),
        (["help", "lst"], "error: there is no verb `lst`\nhint: did you mean `list` or `set`?\n"),
        (["uninstall"], "error: Missing argument `NAME`\nhint: octave uninstall --help\n"),
        (
            ["search", "--lmit", "3"],
            "error: No such option `--lmit`\nhint: did you mean `--limit`?\n",
        ),
        (
            ["install", "x", "--arg"],
            "error: Option `--arg` requires an argument\nhint: octave install --help\n",
        ),
        (
            ["secret", "lst"],
            "error: No such command `lst`\n"
            "hint: did you mean `octave secret list` or `octave secret set`?\n",
        ),
        (
            ["export", "word"],
            "error: Invalid value for `compose|kubernetes|systemd|mcp-json`: `word` is not one of "
            "`compose`, `kubernetes`, `systemd`, `mcp-json`\nhint: octave export --help\n",
        ),
        (
            ["export"],
            "error: Missing argument `compose|kubernetes|systemd|mcp-json`. Choose from: compose, "
            "kubernetes, systemd, mcp-json\nhint: octave export --help\n",
        ),
        (["info", "a", "b"], None),
        (["list", "--bogus"], None),
        (["rm", "--bogus", "x"], None),
        (["client", "frob"], None),
        (["install", "--manifest"], None),
        (["--bogus"], None),
        (["install", "a", "b", "--as", "x"], None),
        (["install", "--arg", "x"], None),
        (["install", "a", "--locked"], None),
        (["install", "a", "--env-file", "nowhere"], None),
        (["install", "time", "-e", "1X"], None),
        (["install", "time@^1"], None),
        (["install", "npm:x@bogus!"], None),
        (["install", "--remote"], None),
        (["add", "x", "--header", "A: b", "--", "true"], None),
        (["export", "compose", "--system"], None),
        (["export", "compose", "--proxy"], None),
        (["registry", "add", "Bad Name", "https://h.test"], None),
        (["registry", "add", "bundled", "https://h.test"], None),
        (["registry", "remove", "bundled"], None),
    ],
)
def test_a_usage_error_is_told_with_a_hint_and_exits_2(
    capsys: pytest.CaptureFixture[str], words: list[str], stderr: str | None
) -> None:
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert "\nhint: " in err
    assert "Usage:" not in err
    if stderr is not None:
        assert err == stderr


def test_a_usage_error_hints_at_the_verb_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    run(["list", "--manifest", "x", "--bogus"])
    assert capsys.readouterr().err.endswith("hint: octave list --help\n")


def test_a_usage_error_as_json_is_one_line(world: World) -> None:
    assert world.octave("list", "--json", "--bogus").error["code"] == "usage"
    assert world.octave("lst", "--json").error["hint"].startswith("did you mean")


TRICKS = [
    "--json",
    "-q",
    "-v",
    "-g",
    "--manifest",
    ".",
    "--",
    "-",
    "--help",
    "-e",
    "A=b",
    "--as",
    "--arg",
    "--bin",
    "--env-file",
    "--check",
    "--purge",
    "-y",
    "-n",
    "--since",
    "5m",
    "--lines",
    "-f=",
    "x",
    "../../x",
    "bash",
    "\x1b[2J",
    "\udcff",
    "--no-start",
]
WORDS = st.one_of(
    st.sampled_from([*TRICKS, "", "x" * 500]),
    st.text(max_size=12).filter(lambda text: "\0" not in text and ":" not in text),
)
QUIET_VERBS = ["list", "info", "uninstall", "trust", "help", "status", "stop", "shutdown"]
QUIET_VERBS += ["completion", "ls", "ps", "rm", "tools", "lock", "install", "i", "restart"]


@given(verb=st.sampled_from([*QUIET_VERBS, "", "lst", "--json"]), words=st.lists(WORDS, max_size=5))
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_no_words_at_all_end_in_a_traceback_or_a_bug(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], verb: str, words: list[str]
) -> None:
    os.chdir(tmp_path)
    code = run([verb, *words])
    out, err = capfd.readouterr()
    assert code in EXIT_CODES
    assert code != 70, err
    assert "Traceback" not in out + err
    assert "\x1b" not in out + err


def test_a_bug_leaves_a_private_report_and_names_it(
    world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: object) -> int:
        raise ZeroDivisionError("by \x1b zero")

    monkeypatch.setattr(cli, "_invoke", broken)
    monkeypatch.setenv("OCTAVE_HOME", str(world.home))
    world.home.mkdir()
    assert run(["list"]) == 70
    err = capsys.readouterr().err
    assert err.startswith(
        "error: this is a bug in Octave: ZeroDivisionError: by \\x1b zero\nhint: "
    )
    (report,) = (world.home / "reports").iterdir()
    assert str(report) in err
    assert "Traceback" in report.read_text(encoding="utf-8")
    assert report.stat().st_mode & 0o777 == 0o600


def shell(world: World, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", "-c", command.replace("octave", f"{sys.executable} -m octave")],
        cwd=world.cwd,
        env=world.environ,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_reader_that_leaves_early_is_no_error(world: World) -> None:
    done = shell(world, "{ octave help exit-codes; echo $? >&2; } | true")
    assert done.stderr == "0\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_result_that_cannot_be_written_is_an_error(world: World) -> None:
    done = shell(world, "octave help exit-codes > /dev/full")
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot write: No space left on device\nhint: ")
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_swallow_what_is_written(world: World, closed: str) -> None:
    done = shell(world, f"octave list {closed}")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


def test_any_text_can_be_shown_in_any_locale(world: World) -> None:
    for environ in ({"LC_ALL": "C", "LANG": ""}, {"PYTHONIOENCODING": "latin-1"}):
        done = world.octave("info", "日本\u2026", environ=environ)
        assert done.code == 4
        assert "日本…" in done.stderr


def test_a_folder_that_is_gone_is_told(world: World) -> None:
    done = shell(world, "mkdir gone && cd gone && rmdir ../gone && octave list")
    assert done.returncode == 2
    assert done.stderr.startswith("error: the current folder does not exist any more\n")


def test_the_verb_table_stays_light(world: World) -> None:
    code = "import sys, octave.cli.main; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=world.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert not HEAVY & set(done.stdout.split()) - {"rich"}
