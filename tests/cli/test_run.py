"""`octave run`: a server once, on stdin and stdout, from packages of a local index."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.packages.npm_registry import NpmRegistry, package_tarball
from tests.packages.story import CHECKOUT, ECHO, GOOD, WAIT_S, Done, World, ended
from tests.packages.versions_of import program

TOKEN = "xk_0123456789abcdef"
HELLO = (
    '{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18",'
    '"capabilities":{},"clientInfo":{"name":"t","version":"1"}}}\n'
    '{"jsonrpc":"2.0","method":"notifications/initialized"}\n'
)


def calling(tool: str) -> str:
    return HELLO + json.dumps(
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": tool}}
    )


def spoken(
    world: World, *words: str, say: str = HELLO, environ: Mapping[str, str] | None = None
) -> tuple[int, Done]:
    """Run it with the lines of `say` on stdin; return its pid, and how it ended."""
    child = subprocess.Popen(
        [sys.executable, "-m", "octave", "run", "-y", *words],
        cwd=world.cwd,
        env={**world.environ, **(environ or {})},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    out, err = child.communicate(say + "\n", timeout=WAIT_S)
    return child.pid, Done(child.returncode, out, err)


@contextmanager
def greeted(world: World, package: str) -> Iterator["subprocess.Popen[str]"]:
    """Run it, and yield the process once it has answered."""
    with subprocess.Popen(
        [sys.executable, "-m", "octave", "run", "-y", package, "-q"],
        cwd=world.cwd,
        env=world.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write(HELLO)
        child.stdin.flush()
        assert json.loads(child.stdout.readline())["id"] == 1
        yield child


def text_of(done: Done) -> str:
    """Return the text of the tool's result, the last line of stdout; all lines are the server's."""
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in lines] == [1, 2], done.stderr
    return str(lines[1]["result"]["content"][0]["text"])


def seen(world: World, *words: str, **more: Any) -> dict[str, Any]:
    """Return what the server `env_echo` says of the process that it is."""
    pid, done = spoken(world, *words, say=calling("env"), **more)
    assert done.code == 0, done.stderr
    return {**json.loads(text_of(done)), "pid": pid}


def slots(world: World) -> list[Path]:
    return sorted((world.home / "cache" / "run").iterdir())


def aged(world: World, *, found_s: float = 0, used_s: float = 0) -> None:
    """Make what was fetched look as if it was found and used so long ago."""
    for slot in slots(world):
        file = slot / "found.json"
        found = json.loads(file.read_bytes())
        file.write_text(json.dumps({**found, "at": found["at"] - found_s}), encoding="utf-8")
        status = (slot / "in-use").stat()
        os.utime(slot / "in-use", (status.st_atime - used_s, status.st_mtime - used_s))


def test_it_is_fetched_once_then_speaks_at_once_without_any_network(world: World) -> None:
    world.offer("story-good", GOOD)
    _, first = spoken(world, "pypi:story-good")
    assert first.code == 0
    assert [json.loads(line)["id"] for line in first.stdout.splitlines()] == [1]
    assert first.stderr.splitlines()[0] == "resolving story-good"
    world.index.files.clear()
    _, second = spoken(world, "pypi:story-good")
    assert (second.code, second.stdout, second.stderr) == (0, first.stdout, "")
    # Nobody's wishes changed, and nothing was installed.
    assert sorted(path.name for path in world.home.iterdir()) == ["README", *ROOMS]
    assert world.installed() == []
    assert world.octave("list", "--json").json == []


ROOMS = ["cache", "locks", "runtimes", "servers", "staging"]


def test_the_process_becomes_the_server_with_words_folder_and_variables_as_given(
    world: World,
) -> None:
    world.offer("story-echo", ECHO)
    odd = ["--flag", "a b", "", "--", "-e", "$HOME", "--json", "é"]
    given = ["-e", "MODE=fast", "-e", "STORY_TOKEN", "--", *odd]
    said = seen(
        world, "pypi:story-echo", *given, environ={"STORY_TOKEN": TOKEN, "NOT_PASSED": "secret"}
    )
    assert said["argv"][1:] == odd
    assert said["cwd"] == str(world.cwd)
    assert said["ppid"] == os.getpid()
    assert (said["env"]["MODE"], said["env"]["STORY_TOKEN"]) == ("fast", TOKEN)
    assert not said["env"].keys() & {"NOT_PASSED", "OCTAVE_HOME", "PYTHONPATH"}
    # Nothing of what was given for one run is kept.
    assert not [path for path in world.home.rglob("*") if path.is_file() and TOKEN in _text(path)]
    (world.cwd / "vars").write_text(f"STORY_TOKEN={TOKEN}\n", encoding="utf-8")
    again = seen(world, "pypi:story-echo", "--env-file", "vars")
    assert again["env"]["STORY_TOKEN"] == TOKEN
    assert again["argv"][1:] == []


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def test_what_nothing_can_be_fetched_of_is_refused_with_what_to_do(world: World) -> None:
    for asked in ("https://mcp.example/mcp", "./server", "folder:./server", "."):
        done = world.octave("run", asked, "--json")
        assert (done.code, done.stdout) == (2, ""), done.stderr
        assert done.error["hint"].startswith(f"`octave install {asked}`, then `octave proxy")
    assert not world.home.exists()


def test_exit_code_and_signals_are_the_server_s(world: World) -> None:
    world.offer("story-ends", "import sys\nsys.exit(33)\n")
    world.offer("story-good", GOOD)
    _, done = spoken(world, "pypi:story-ends", "-q")
    assert (done.code, done.stdout, done.stderr) == (33, "", "")
    with greeted(world, "pypi:story-good") as child:
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        assert not children.exists() or children.read_text(encoding="ascii") == ""
        child.send_signal(signal.SIGTERM)
        assert child.wait(WAIT_S) == -signal.SIGTERM


def test_what_the_registry_knows_of_a_name_counts(world: World) -> None:
    world.offer("elevenlabs-mcp", ECHO)
    _, missing = spoken(world, "elevenlabs", "-q")
    assert (missing.code, missing.stdout) == (6, "")
    assert missing.stderr == (
        "error: `elevenlabs` needs `ELEVENLABS_API_KEY`\n"
        "hint: octave run -e ELEVENLABS_API_KEY elevenlabs\n"
    )
    _, told = spoken(world, "elevenlabs", "-e", f"ELEVENLABS_API_KEY={TOKEN}", "-q")
    assert (told.code, told.stdout) == (2, "")
    assert "is a secret, and a command line can be read by others" in told.stderr
    assert TOKEN not in told.stderr
    environ = {"ELEVENLABS_API_KEY": TOKEN}
    said = seen(world, "elevenlabs", "-e", "ELEVENLABS_API_KEY", environ=environ)
    assert said["env"]["ELEVENLABS_API_KEY"] == TOKEN
    _, unset = spoken(world, "elevenlabs", "-e", "ELEVENLABS_API_KEY", "--json")
    assert (unset.code, unset.stdout, unset.error["code"]) == (2, "", "missing_answer")


def test_its_data_lies_where_an_installed_server_has_it(world: World, npm: NpmRegistry) -> None:
    name, bins = "@modelcontextprotocol/server-memory", {"mcp-server-memory": "index.js"}
    script = {"index.js": "process.stdout.write(process.env.MEMORY_FILE_PATH)"}
    npm.offer(name, tarball=package_tarball(name, "1.0.0", script, bin=bins), bin=bins)
    _, done = spoken(world, "memory", "-q")
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout == str(world.home / "data" / "memory" / "memory.jsonl")


def test_a_range_is_looked_up_anew_after_a_day_an_exact_version_never(world: World) -> None:
    def version(*words: str) -> str:
        _, done = spoken(world, *words, "-q", say=calling("echo"))
        return text_of(done)

    world.offer("story-good", program("1"), "1")
    assert version("pypi:story-good") == version("pypi:story-good@1") == "1"
    world.offer("story-good", program("2"), "2")
    assert version("pypi:story-good") == "1"
    aged(world, found_s=25 * 3600)
    assert version("pypi:story-good", "--offline") == "1"
    assert version("pypi:story-good") == "2"
    world.offer("story-good", program("3"), "3")
    assert version("pypi:story-good") == "2"
    assert version("pypi:story-good", "--refresh") == "3"
    aged(world, found_s=25 * 3600)
    world.environ["UV_DEFAULT_INDEX"] = "http://127.0.0.1:1/simple"
    assert version("pypi:story-good@1") == "1"
    # What cannot be looked up goes on as it was, and says so.
    _, done = spoken(world, "pypi:story-good", say=calling("echo"))
    assert text_of(done) == "3"
    assert "; the version found before is started\n" in done.stderr
    _, none = spoken(world, "pypi:story-other", "-q")
    assert (none.code, none.stdout) == (8, "")


def test_what_cannot_be_had_leaves_nothing_on_stdout_and_the_exit_code_says_why(
    world: World,
) -> None:
    for words, code, said in (
        (["githb"], 4, "did you mean `github`"),
        (["pypi:story-none"], 4, "has no package `story-none`"),
        (["npm:"], 2, "names no package"),
        (["pypi:story-none", "--offline"], 8, "story-none"),
        (["githb", "--json"], 4, '"code": "server_not_found"'),
        ([], 2, "Missing argument"),
    ):
        _, done = spoken(world, *words)
        assert (done.code, done.stdout) == (code, ""), (words, done.stderr)
        assert said in done.stderr, (words, done.stderr)


def test_first_runs_at_once_install_once_and_all_speak(world: World) -> None:
    world.offer("story-good", GOOD)
    children = [world.start("run", "-y", "pypi:story-good") for _ in range(3)]
    told = [ended(child) for child in children]
    assert [done.code for done in told] == [0, 0, 0]
    installing = [done for done in told if "installing story-good 1.0\n" in done.stderr]
    assert len(installing) == 1
    (slot,) = slots(world)
    assert len(list((slot / "servers").glob("*/*"))) == 1


def test_a_killed_first_run_is_begun_anew(world: World) -> None:
    world.offer("story-good", GOOD)
    child = world.start("run", "-y", "pypi:story-good")
    assert child.stderr is not None
    while "installing" not in child.stderr.readline():
        pass
    child.kill()
    child.communicate(timeout=WAIT_S)
    assert not (slots(world)[0] / "found.json").exists()
    _, done = spoken(world, "pypi:story-good", "-q")
    assert (done.code, done.stderr) == (0, "")
    assert list((slots(world)[0] / "staging").iterdir()) == []


def test_clean_takes_what_was_not_used_lately_and_leaves_what_runs(world: World) -> None:
    world.offer("story-good", program("1"), "1")
    world.offer("story-other", GOOD)
    assert spoken(world, "pypi:story-other", "-q")[1].code == 0
    assert spoken(world, "pypi:story-good", "-q")[1].code == 0
    world.offer("story-good", program("2"), "2")
    with greeted(world, "pypi:story-good") as child:
        aged(world, used_s=8 * 24 * 3600)
        removed = world.octave("clean", "--json").json
        runs = [each for each in removed["removed"] if each["kind"] == "run"]
        assert [each["name"] for each in runs] == ["story-other"]
        assert removed["notes"] == [
            "`story-good` is running, so what `octave run` fetched for it stays"
        ]
        out, _ = child.communicate(calling("echo").splitlines()[-1] + "\n", timeout=WAIT_S)
        assert json.loads(out)["result"]["content"][0]["text"] == "1"
    # Used a moment ago; of its two versions only the one that answers now stays.
    assert spoken(world, "pypi:story-good", "--refresh", "-q")[1].code == 0
    removed = world.octave("clean", "--json").json["removed"]
    runs = [each["folder"][:2] for each in removed if each["kind"] == "run"]
    assert runs == ["1-"]
    world.index.files.clear()
    assert text_of(spoken(world, "pypi:story-good", "-q", say=calling("echo"))[1]) == "2"


def test_a_damaged_copy_is_fetched_anew(world: World) -> None:
    world.offer("story-good", GOOD)
    assert spoken(world, "pypi:story-good", "-q")[1].code == 0
    (slot,) = slots(world)
    (script,) = slot.glob("servers/*/*/venv/bin/story-good")
    script.unlink()
    _, done = spoken(world, "pypi:story-good", "-q")
    assert (done.code, done.stderr) == (0, "")
    assert script.exists()


def test_of_several_executables_one_is_named(world: World) -> None:
    world.offer("story-two", ECHO, scripts=["story-a", "story-b"])
    _, done = spoken(world, "pypi:story-two", "-q")
    assert (done.code, done.stdout) == (4, "")
    said = seen(world, "pypi:story-two", "--bin", "story-b")
    assert Path(said["argv"][0]).name == "story-b"


def test_starting_from_the_cache_loads_nothing_that_installs() -> None:
    code = "import sys, octave.cli.run; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True
    )
    installs = {"octave.packages.install", "octave.packages.ecosystems", "tomlkit", "rich", "anyio"}
    assert set(done.stdout.split()).isdisjoint(installs)


def test_a_package_that_nothing_vouches_for_is_fetched_only_by_whoever_says_so(
    world: World,
) -> None:
    world.offer("story-good", "good")
    done = world.octave("run", "pypi:story-good")
    assert (done.code, done.stdout) == (2, "")
    assert "hint: `octave run pypi:story-good -y`" in done.stderr
    done = world.octave("run", "pypi:mcp-server-fetsh", "-y")
    assert (done.code, done.stdout) == (4, "")
    assert "looks like `pypi:mcp-server-fetch`" in done.stderr
