"""`add`: a server of one's own, checked before it is written down."""

import json
import sys
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.cli.desk import SERVERS, Desk

VALUE = "hush-0815-value"
GOOD = (sys.executable, str(SERVERS / "good.py"))
ECHO = (sys.executable, str(SERVERS / "env_echo.py"))
NOWHERE = "https://127.0.0.1:1/mcp"
"""Nobody listens there."""


def entry(desk: Desk, name: str, manifest: Path | None = None) -> dict[str, Any]:
    path = manifest or desk.home / "octave.toml"
    found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))["servers"][name]
    return found


def test_a_command_is_started_once_added_and_told_what_is_next(desk: Desk) -> None:
    code, out, err = desk.octave("add", "mine", "--", *GOOD).told
    assert (code, out) == (0, "added mine (3 tools)\n")
    first, done, following = err.splitlines()
    assert first == "starting `mine` once"
    assert done.startswith("done in ")
    assert following == "next: `octave tools mine`, or `octave client add claude`"
    assert entry(desk, "mine") == {"command": list(GOOD)}
    assert desk.octave("call", "mine", "echo", "text=hi").told == (0, "hi\n", "")
    assert len(desk.octave("tools", "mine", "--json").json) == 3


def test_its_json_is_that_of_an_install(desk: Desk) -> None:
    done = desk.octave("add", "mine", "--json", "--", *GOOD)
    assert (done.code, done.stderr) == (0, "")
    assert done.json["results"] == [
        {
            "name": "mine",
            "status": "added",
            "version": None,
            "checked": True,
            "tools": 3,
            "warning": None,
            "error": None,
        }
    ]


def test_words_of_the_command_stay_as_they_are(desk: Desk) -> None:
    words = ("--json", "-y", "a b", "$HOME", "https://x/y", "--", "é")
    assert desk.octave("add", "mine", "-q", "--", *ECHO, *words).code == 0
    assert desk.octave("call", "mine", "env").json["argv"][1:] == list(words)


def test_variables_go_into_the_manifest_and_secrets_into_the_store(desk: Desk) -> None:
    words = ("add", "mine", "-e", "MODE=fast", "-e", "X_TOKEN", "--", *ECHO)
    done = desk.octave(*words, environ={"X_TOKEN": VALUE})
    assert done.code == 0
    assert VALUE not in done.stdout + done.stderr
    assert entry(desk, "mine")["env"] == {"MODE": "fast", "X_TOKEN": {"secret": "mine/X_TOKEN"}}
    assert desk.octave("call", "mine", "env").json["env"]["X_TOKEN"] == VALUE
    holding = [
        path.name
        for path in desk.root.rglob("*")
        if path.is_file() and VALUE.encode() in path.read_bytes()
    ]
    assert set(holding) - {"mine.log"} == {"secrets.toml"}


def test_paths_are_found_again_from_where_they_were_typed(desk: Desk) -> None:
    (desk.cwd / "server.py").write_text(
        f"import runpy, sys; sys.path.insert(0, {str(SERVERS)!r})\n"
        f"runpy.run_path({ECHO[1]!r}, run_name='__main__')",
        encoding="utf-8",
    )
    assert desk.octave("add", "home", "--", sys.executable, "server.py").code == 0
    assert entry(desk, "home")["cwd"] == str(desk.cwd)
    (desk.cwd / "octave.toml").write_text("", encoding="utf-8")
    deep = desk.cwd / "deep"
    deep.mkdir()
    assert desk.octave("add", "here", "--", sys.executable, "./server.py").code == 0
    assert entry(desk, "here", desk.cwd / "octave.toml")["cwd"] == "."
    (deep / "server.py").write_bytes((desk.cwd / "server.py").read_bytes())
    assert desk.octave("add", "deep", "--", sys.executable, "server.py", cwd=deep).code == 0
    assert entry(desk, "deep", desk.cwd / "octave.toml")["cwd"] == "deep"
    moved = desk.root / "moved"
    desk.cwd.rename(moved)
    desk.cwd.mkdir()
    desk.octave("trust", "-y", cwd=moved)
    done = desk.octave("call", "deep", "env", cwd=moved)
    assert done.json["cwd"] == str(moved / "deep").replace(str(desk.root), "ROOT")


def test_a_program_beside_the_manifest_is_found(desk: Desk) -> None:
    program = desk.cwd / "serve"
    program.write_text(f"#!/bin/sh\nexec {GOOD[0]} {GOOD[1]}\n", encoding="utf-8")
    program.chmod(0o755)
    assert desk.octave("add", "mine", "-q", "--", "./serve").told == (
        0,
        "added mine (3 tools)\n",
        "",
    )
    assert desk.octave("call", "mine", "echo", "text=hi").stdout == "hi\n"


@pytest.mark.parametrize(
    ("words", "code", "stderr"),
    [
        (
            ("X", "--", "cat"),
            2,
            "error: `X` cannot name a server\n"
            "hint: use up to 40 lower-case letters, digits and dashes\n",
        ),
        (
            ("../x", "--", "cat"),
            2,
            "error: `../x` cannot name a server\n"
            "hint: use up to 40 lower-case letters, digits and dashes\n",
        ),
        (
            ("x",),
            2,
            "error: nothing says what `x` is\n"
            "hint: octave add x -- COMMAND, or octave add x https://HOST/mcp\n",
        ),
        (
            ("x", "--", "nonesuch", "y"),
            2,
            "error: `x` cannot be started: no program `nonesuch` on PATH\n"
            "hint: check the spelling, or give the whole path\n",
        ),
        (
            ("x", "--", "./nonesuch"),
            2,
            "error: `x` cannot be started: `ROOT/cwd/nonesuch` is no program\n"
            "hint: check the spelling, or give the whole path\n",
        ),
        (
            ("x", "--header", "A: b", "--", "cat"),
            2,
            "error: `--header` and `--header-env` go with an address\n"
            "hint: octave add x https://HOST/mcp --header 'K: V'\n",
        ),
        (
            ("x", NOWHERE, "-e", "A=b"),
            2,
            "error: a remote server has no environment\nhint: use `--header-env`\n",
        ),
        (
            ("x", NOWHERE, "--header", "Authorization: Bearer hush"),
            2,
            "error: `Authorization` is a secret, and a command line can be read by others\n"
            "hint: export it as a variable and use `--header-env 'Authorization: VARIABLE'`\n",
        ),
        (
            ("x", NOWHERE, "--header", "x-api-key:hush"),
            2,
            "error: `x-api-key` is a secret, and a command line can be read by others\n"
            "hint: export it as a variable and use `--header-env 'x-api-key: VARIABLE'`\n",
        ),
        (
            ("x", NOWHERE, "--header", "X-Team: Bearer hush"),
            2,
            "error: `X-Team` is a secret, and a command line can be read by others\n"
            "hint: export it as a variable and use `--header-env 'X-Team: VARIABLE'`\n",
        ),
        (
            ("x", NOWHERE, "--header-env", "Authorization: Bearer hush"),
            2,
            "error: what `--header-env` says for `Authorization` names no variable\n"
            "hint: --header-env 'Authorization: VARIABLE'\n",
        ),
        (
            ("x", NOWHERE, "--header", "Bearer hush"),
            2,
            "error: `...` is no header\nhint: --header 'NAME: VALUE'\n",
        ),
        (
            ("x", "--no-start", "-e", "X_TOKEN=hush", "--", "cat"),
            2,
            "error: `X_TOKEN` is a secret, and a command line can be read by others\n"
            "hint: export X_TOKEN and use `-e X_TOKEN`, or use `--env-file FILE`\n",
        ),
        (
            ("x", "http://", "--no-start"),
            2,
            'error: `url` in [servers.x]: "http://" is not an address such as '
            '"https://mcp.example.com/mcp"\nhint: octave add --help\n',
        ),
        (("x", "--no-start", NOWHERE, "--header", "X-A: ü"), 2, None),
        (("x", "-q", "--", "false"), 6, None),
    ],
)
def test_what_cannot_be_added_is_told_and_leaves_nothing(
    desk: Desk, words: tuple[str, ...], code: int, stderr: str | None
) -> None:
    done = desk.octave("add", *words)
    assert (done.code, done.stdout) == (code, ""), done.stderr
    assert "hush" not in done.stderr
    if stderr is not None:
        assert done.stderr == stderr
    assert not (desk.home / "octave.toml").exists()
    assert not (desk.home / "data" / "x").exists()
    assert not list(desk.cwd.iterdir())


def test_a_name_that_is_taken_stays_what_it_was(desk: Desk) -> None:
    desk.server("good")
    before = (desk.home / "octave.toml").read_bytes()
    for words in (("--", *ECHO), (NOWHERE,)):
        assert desk.octave("add", "good", *words).told == (
            2,
            "",
            "error: `ROOT/h/octave.toml` already has a server `good`\n"
            "hint: choose another name, or `octave set good KEY=VALUE`, "
            "or `octave uninstall good` first\n",
        )
    assert (desk.home / "octave.toml").read_bytes() == before


def test_one_that_crashes_is_not_added_and_its_words_are_shown_without_the_secret(
    desk: Desk,
) -> None:
    code = "import os, sys; sys.stderr.write(os.environ['X_TOKEN'] + ' hm\\n'); None.attribute"
    words = ("add", "mine", "-q", "-e", "X_TOKEN", "--", sys.executable, "-c", code)
    done = desk.octave(*words, environ={"X_TOKEN": VALUE})
    assert (done.code, done.stdout) == (6, "")
    assert "error: `mine` was not added: `mine` ended with exit code 1" in done.stderr
    assert "  | *** hm\n" in done.stderr
    assert VALUE not in done.stderr
    assert not (desk.home / "octave.toml").exists()
    assert desk.octave("secret", "list", "--json").json == []


def test_one_that_wants_something_is_added_unchecked(desk: Desk) -> None:
    code = "import sys; sys.exit('Error: MY_KEY environment variable is required')"
    words = ("mine", "--", sys.executable, "-c", code)
    done = desk.octave("add", "-q", *words)
    assert done.told == (
        0,
        "added mine\n",
        "warning: `mine` was not checked: it says: Error: MY_KEY environment variable is "
        "required\n",
    )
    desk.octave("uninstall", "mine")
    assert desk.octave("add", "--check", "-q", *words).code == 6
    assert entry(desk, "mine")


def test_one_that_is_not_to_be_started_is_not(desk: Desk) -> None:
    assert desk.octave("add", "mine", "--no-start", "-q", "--", "false").told == (
        0,
        "added mine\n",
        "warning: `mine` was not checked: not started, as asked\n",
    )


def test_it_can_be_uninstalled_again(desk: Desk) -> None:
    desk.octave("add", "mine", "-e", "X_TOKEN", "--", *GOOD, environ={"X_TOKEN": VALUE})
    done = desk.octave("uninstall", "mine", "mine", "--purge", "-q")
    assert done.told == (0, "removed mine\n", "")
    assert desk.octave("list", "--json").json == []
    assert desk.octave("secret", "list", "--json").json == []
    assert not (desk.home / "data" / "mine").exists()


def test_a_running_runtime_has_it_at_once(desk: Desk) -> None:
    desk.server("good")
    assert desk.octave("start", "good").code == 0
    assert desk.octave("add", "mine", "--", *ECHO).code == 0
    assert [row["name"] for row in desk.octave("status", "--json").json["servers"]] == [
        "good",
        "mine",
    ]


def test_a_project_that_is_not_trusted_gets_nothing_added(desk: Desk) -> None:
    folder = desk.root / "project"
    folder.mkdir()
    desk.project(folder / "octave.toml", "good")
    before = (folder / "octave.toml").read_bytes()
    assert desk.octave("add", "mine", "--", *ECHO, cwd=folder).code == 7
    assert (folder / "octave.toml").read_bytes() == before
    desk.octave("trust", "-y", cwd=folder)
    assert desk.octave("add", "mine", "--", *ECHO, cwd=folder).code == 0
    assert desk.octave("call", "good", "echo", "text=hi", cwd=folder).stdout == "hi\n"


def test_two_at_once_both_get_there(desk: Desk) -> None:
    children = [desk.start("add", f"mine-{number}", "--", *GOOD) for number in range(3)]
    assert [desk.ended(child).code for child in children] == [0] * 3
    assert {row["name"] for row in desk.octave("list", "--json").json} == {
        f"mine-{number}" for number in range(3)
    }


def test_of_two_with_the_same_name_one_gets_it(desk: Desk) -> None:
    children = [desk.start("add", "mine", "--", *program) for program in (GOOD, ECHO)]
    assert sorted(desk.ended(child).code for child in children) == [0, 2]
    assert entry(desk, "mine")["command"] in (list(GOOD), list(ECHO))


def test_npx_gets_a_note(desk: Desk) -> None:
    npx = desk.root / "npx"
    npx.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    npx.chmod(0o755)
    path = f"{desk.root}:{desk.environ['PATH']}"
    done = desk.octave("add", "mine", "--no-start", "--", "npx", "-y", "x", environ={"PATH": path})
    assert done.stderr.splitlines()[0] == (
        "note: `npx` looks for its package anew at each start; "
        "`octave install npm:PACKAGE` locks it and starts faster"
    )


def test_a_secret_in_an_address_gets_a_note_without_it(desk: Desk) -> None:
    done = desk.octave("add", "mine", f"{NOWHERE}?mode=x&farApiKey={VALUE}", "--no-start")
    assert (done.code, done.stdout) == (0, "added mine\n")
    assert done.stderr.splitlines()[0] == (
        "note: `farApiKey` in the address looks like a secret, and `octave.toml` has it in clear"
    )
    assert VALUE not in done.stderr


def test_a_secret_in_a_command_gets_a_note_without_it(desk: Desk) -> None:
    words = (*GOOD, "--mode", "x", f"--far-token={VALUE}", "--api-key", VALUE)
    done = desk.octave("add", "mine", "--no-start", "--", *words)
    assert done.code == 0
    notes = [line for line in done.stderr.splitlines() if "in clear" in line]
    assert [note.split("`")[1] for note in notes] == ["--far-token", "--api-key"]
    assert "`octave secret set mine API_KEY`" in notes[1]
    assert VALUE not in done.stderr


class _Remote(BaseHTTPRequestHandler):
    """Just enough of Streamable HTTP; what it was shown lies in `seen`."""

    seen: list[dict[str, str]]
    status = 200

    def do_POST(self) -> None:
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        results = {
            "initialize": {
                "protocolVersion": "2025-11-25",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "far", "version": "1"},
            },
            "tools/list": {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]},
        }
        if self.status != 200:
            self._answer(self.status, {"error": "no"})
        elif "id" not in asked:
            self._answer(202, None)
        elif asked["method"] in results:
            found = results[asked["method"]]
            self._answer(200, {"jsonrpc": "2.0", "id": asked["id"], "result": found})
        else:
            error = {"code": -32601, "message": "no"}
            self._answer(200, {"jsonrpc": "2.0", "id": asked["id"], "error": error})

    def do_GET(self) -> None:
        self._answer(405, None)

    do_DELETE = do_GET

    def _answer(self, status: int, body: object) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def remote() -> Iterator[tuple[str, type[_Remote]]]:
    handler = type("Remote", (_Remote,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/mcp", handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_address_is_asked_with_its_headers(
    desk: Desk, remote: tuple[str, type[_Remote]]
) -> None:
    url, handler = remote
    words = ("--header", "X-Team: blue", "--header-env", "Authorization: FAR_AUTH")
    done = desk.octave("add", "far", url, *words, "-q", environ={"FAR_AUTH": f"Bearer {VALUE}"})
    assert done.told == (0, "added far (1 tool)\n", "")
    assert entry(desk, "far") == {
        "url": url,
        "headers": {"X-Team": "blue", "Authorization": {"env": "FAR_AUTH"}},
    }
    assert all(
        (seen["x-team"], seen["authorization"]) == ("blue", f"Bearer {VALUE}")
        for seen in handler.seen
    )
    assert not [
        path
        for path in desk.root.rglob("*")
        if path.is_file() and VALUE.encode() in path.read_bytes()
    ]


def test_an_address_that_wants_a_login_is_added_and_the_command_named(
    desk: Desk, remote: tuple[str, type[_Remote]]
) -> None:
    url, handler = remote
    handler.status = 401
    done = desk.octave("add", "far", url, "-q")
    assert (done.code, done.stdout) == (0, "added far\n")
    assert "wants a login (`octave auth far`)\n" in done.stderr


def test_an_address_nobody_answers_at_or_a_variable_nobody_set_is_told(desk: Desk) -> None:
    done = desk.octave("add", "far", NOWHERE, "-q")
    assert (done.code, done.stdout) == (0, "added far\n")
    assert "warning: `far` was not checked: `far` cannot be reached at `127.0.0.1:1`" in done.stderr
    done = desk.octave("add", "near", NOWHERE, "--header-env", "Authorization: NONE_SUCH", "-q")
    assert (done.code, done.stdout) == (0, "added near\n")
    assert '`{ env = "NONE_SUCH" }` cannot be resolved' in done.stderr
