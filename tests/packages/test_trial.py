from pathlib import Path

import pytest

from octave.errors import StartFailed
from octave.packages import trial
from octave.packages.launch import LaunchSpec
from octave.packages.manifest import ServerEntry
from octave.packages.offered import Offered
from octave.packages.registry import Registry, bundled_folder
from octave.packages.store import Record
from octave.settings import Reference

RECORD = Record("x", "npm", "x", "1", "sha512-a", "sha256:b", ("node", "index.js"))
OFFER = Offered(b"{}", {"tools": (b'{"name":"a"}', b'{"name":"b"}')})


def ended(*lines: str, code: int | None = 1, number: int | None = None) -> StartFailed:
    details = {"exitCode": code, "signal": number, "stderrTail": list(lines)}
    return StartFailed("`x` ended", details=details)


@pytest.mark.parametrize(
    "line",
    [
        "Error: GITHUB_PERSONAL_ACCESS_TOKEN environment variable is required",
        "Please set SLACK_BOT_TOKEN and SLACK_TEAM_ID environment variables",
        "Usage: mcp-server-filesystem [allowed-directory] [additional-directories...]",
        "usage: mcp-server-sqlite [-h] --db-path DB_PATH",
        "error: the following arguments are required: --vault",
        "Please provide a database URL as a command-line argument",
        "Invalid configuration: no API key",
        "ValueError: NOTION_TOKEN must be set",
        "Error: connect ECONNREFUSED 127.0.0.1:27017",
        "TypeError: fetch failed",
        "getaddrinfo ENOTFOUND api.example.com",
        "httpx.ConnectError: [Errno -2] Name or service not known",
        "botocore.exceptions.NoCredentialsError: Unable to locate credentials",
        "stat /home/x/.kube/config: no such file; no configuration has been provided",
    ],
)
def test_what_a_server_asks_for_is_told_in_its_own_words(line: str) -> None:
    assert trial.wanted_by(ended("starting", line, "    at Object.<anonymous>")) == line


@pytest.mark.parametrize(
    "error",
    [
        ended(),
        ended("", "   "),
        ended("Segmentation fault"),
        ended("something went wrong"),
        ended("TOKEN_X is required", code=None, number=9),
        ended("TOKEN_X is required", code=None),
    ],
)
def test_one_that_says_nothing_hangs_or_was_killed_asks_for_nothing(error: StartFailed) -> None:
    assert trial.wanted_by(error) is None


def test_the_line_with_the_error_counts_more_than_the_usage_around_it() -> None:
    lines = ("usage: x [-h] --db DB", "x: error: --db is required", "error: --db is required", "")
    assert trial.wanted_by(ended(*lines)) == "error: --db is required"


@pytest.mark.parametrize(
    "line",
    [
        "AttributeError: module 'mcp' has no attribute 'server'",
        "ModuleNotFoundError: No module named 'mcp.server'",
        "Error: Cannot find module './dist/index.js'",
        "code: 'ERR_MODULE_NOT_FOUND'",
        "TypeError: server.tool is not a function",
        "SyntaxError: Unexpected token",
        "error while loading shared libraries: libx.so: cannot open shared object file",
    ],
)
def test_a_program_that_cannot_work_is_broken(line: str) -> None:
    assert trial.is_broken(ended(line))


def start(
    failure: StartFailed | None = None,
    lacking: str | None = None,
    server: ServerEntry | None = None,
    environ: dict[str, str] | None = None,
) -> tuple[Record, Offered | None]:
    def check(_: LaunchSpec) -> Offered:
        if failure is not None:
            raise failure
        return OFFER

    spec = LaunchSpec("x", ("node",), Path("/"), lambda: dict(environ or {}))
    return trial.start_once(RECORD, server or ServerEntry("x", "npm:x"), spec, check, lacking)


def test_a_server_that_answers_is_checked_and_its_tools_are_counted() -> None:
    record, offer = start()
    assert (record.checked, record.tools, offer) == (True, 2, OFFER)


def test_a_server_that_asks_for_something_is_unchecked_and_says_what() -> None:
    record, offer = start(ended("Error: X_TOKEN is required"))
    assert (record.checked, offer) == (False, None)
    assert record.unchecked_reason == "it says: Error: X_TOKEN is required"


def test_what_the_registry_knows_goes_before_what_the_server_says() -> None:
    record, _ = start(ended("boom"), lacking="it needs a Docker daemon that answers")
    assert record.unchecked_reason == "it needs a Docker daemon that answers"


@pytest.mark.parametrize("lacking", [None, "it needs the network when it starts"])
def test_a_broken_server_is_refused_whatever_it_may_lack(lacking: str | None) -> None:
    with pytest.raises(StartFailed, match="`x` 1 was not installed"):
        start(ended("AttributeError: no", "X_TOKEN is required"), lacking)


def test_a_program_that_ends_without_a_word_may_be_no_server() -> None:
    def check(_: LaunchSpec) -> Offered:
        raise StartFailed("`x` ended", details={"exitCode": 1, "signal": None, "stderrTail": []})

    with pytest.raises(StartFailed, match="`x` 1 was not installed") as caught:
        trial.start_once(
            RECORD, ServerEntry("x", "npm:x"), LaunchSpec("x", ("a",), Path("/"), dict), check, None
        )
    assert caught.value.hint is not None
    assert "check that the package is a server" in caught.value.hint


def test_a_missing_variable_is_told_with_the_command_that_gives_it() -> None:
    def environment() -> dict[str, str]:
        raise StartFailed("`x` needs `KEY`", hint="octave install x -e KEY")

    spec = LaunchSpec("x", ("node",), Path("/"), environment)

    def check(_: LaunchSpec) -> Offered:
        raise AssertionError("it must not be started")

    record, _ = trial.start_once(RECORD, ServerEntry("x", "npm:x"), spec, check, None)
    assert record.unchecked_reason == "`x` needs `KEY` (`octave install x -e KEY`)"


SECRETIVE = ServerEntry("x", "npm:x", env={"KEY": Reference("secret", "x/KEY"), "MODE": "plain"})
GIVEN = {"KEY": "hush-value", "MODE": "plain"}


def test_a_secret_that_the_server_quotes_reaches_no_record() -> None:
    record, _ = start(ended("invalid API key: hush-value"), server=SECRETIVE, environ=GIVEN)
    assert record.unchecked_reason == "it says: invalid API key: ***"


def test_a_secret_that_a_broken_server_quotes_reaches_no_error() -> None:
    with pytest.raises(StartFailed) as caught:
        start(ended("NameError", "KEY=hush-value plain"), server=SECRETIVE, environ=GIVEN)
    assert "hush" not in f"{caught.value.as_json()}"
    assert caught.value.details["stderrTail"] == ["NameError", "KEY=*** plain"]
    assert caught.value.details["exitCode"] == 1


def test_what_is_too_short_to_be_a_secret_does_not_tear_the_text() -> None:
    error = ended("NameError: a1a1")
    with pytest.raises(StartFailed) as caught:
        start(error, server=SECRETIVE, environ={"KEY": "1"})
    assert caught.value.details["stderrTail"] == ["NameError: a1a1"]


@pytest.mark.parametrize(
    ("name", "args", "reason"),
    [
        ("duckdb", (), "it needs `--db-path PATH`; give it with `--arg`"),
        ("duckdb", ("--db-path", "x"), None),
        ("docker", (), "it needs a Docker daemon that answers"),
        ("qdrant", (), "it needs the network when it starts"),
        ("time", (), None),
    ],
)
def test_the_registry_knows_what_a_server_lacks(
    name: str, args: tuple[str, ...], reason: str | None
) -> None:
    known = Registry(bundled_folder()).get(name).preferred()
    assert trial.lacking(ServerEntry(name, args=args), known) == reason


def test_nothing_is_known_of_a_package_outside_the_registry() -> None:
    assert trial.lacking(ServerEntry("x"), None) is None
