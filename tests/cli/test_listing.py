import pytest

from tests.packages.story import ECHO, GOOD, WANTS_KEY, World

MANIFEST = """
[servers.off]
package = "pypi:story-off"
enabled = false

[servers.missing]
package = "npm:story-missing"

[servers.own]
command = ["true"]

[servers.far]
url = "https://mcp.example.com/mcp"
"""


def test_an_empty_list_says_what_to_do(world: World) -> None:
    assert world.octave("list").told == (
        0,
        "",
        "nothing is installed here; try `octave install everything`\n",
    )
    assert world.octave("ls", "--json").json == []
    assert not world.home.exists()


def test_every_server_is_listed_with_its_state(world: World) -> None:
    world.offer("story-good", GOOD)
    world.offer("story-key", WANTS_KEY)
    world.octave("install", "pypi:story-good", "pypi:story-key")
    with (world.home / "octave.toml").open("a", encoding="utf-8") as file:
        file.write(MANIFEST)
    rows = world.octave("list", "--json").json
    assert rows[0] == {
        "name": "story-good",
        "kind": "pypi",
        "package": "pypi:story-good",
        "version": "1.0",
        "state": "idle",
        "tools": 3,
        "memoryBytes": None,
        "restarts": 0,
    }
    short = {row["name"]: (row["kind"], row["version"], row["state"], row["tools"]) for row in rows}
    assert short == {
        "story-good": ("pypi", "1.0", "idle", 3),
        "story-key": ("pypi", "1.0", "idle", None),
        "off": ("pypi", None, "disabled", None),
        "missing": ("npm", None, "failed", None),
        "own": ("command", None, "idle", None),
        "far": ("remote", None, "idle", None),
    }
    done = world.octave("list")
    assert (done.code, done.stderr) == (0, "")
    table = [line.split() for line in done.stdout.splitlines()]
    assert table[0] == ["NAME", "VERSION", "KIND", "STATE", "TOOLS", "MEMORY", "RESTARTS"]
    assert table[1] == ["story-good", "1.0", "pypi", "idle", "3", "-", "0"]


def test_a_stopped_server_is_listed_as_stopped_without_a_runtime_too(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    try:
        assert world.octave("start").code == 0
        assert world.octave("stop", "story-good").code == 0
    finally:
        world.octave("shutdown")
    (row,) = world.octave("list", "--json").json
    assert (row["state"], row["tools"]) == ("stopped", 3)


def test_a_running_server_is_listed_with_what_the_runtime_knows(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good")
    try:
        assert world.octave("start", "story-good").code == 0
        (row,) = world.octave("list", "--json").json
        assert row["state"] == "ready"
        assert row["memoryBytes"] > 0
        assert row["tools"] == 3
    finally:
        world.octave("shutdown")


def test_info_tells_what_the_registry_knows_and_what_is_installed(world: World) -> None:
    world.offer("mcp-server-time", ECHO)
    before = world.octave("info", "time", "--json").json
    assert before["installed"] is None
    world.octave("install", "time")
    found = world.octave("info", "time", "--json").json
    assert found["installed"]["package"] == "pypi:mcp-server-time"
    assert (found["installed"]["version"], found["installed"]["checked"]) == ("1.0", True)
    shown = world.octave("info", "time")
    assert (shown.code, shown.stderr) == (0, "")
    assert "installed: pypi:mcp-server-time 1.0" in shown.stdout
    assert "  runs: " in shown.stdout


def test_info_is_a_page_for_a_person(world: World) -> None:
    shown = world.octave("info", "github").stdout
    assert shown.startswith("github: GitHub\nRepositories, issues")
    assert "not installed; install it with `octave install github -e" in shown
    assert "npm:@modelcontextprotocol/server-github 2025.4.8 (archived)\n" in shown
    assert "  GITHUB_PERSONAL_ACCESS_TOKEN (required, secret): Personal access token\n" in shown
    assert (
        "oci:github/github-mcp-server (not installed by Octave)\n"
        "  note: the image lies at `ghcr`, so its name alone means another: "
        "`octave install oci:HOST/github/github-mcp-server`\n"
    ) in shown


def test_info_of_a_package_by_its_own_name_is_the_same(world: World) -> None:
    by_name = world.octave("info", "time", "--json").json
    by_package = world.octave("info", "pypi:mcp-server-time", "--json").json
    assert by_name == by_package


def test_info_of_a_server_the_registry_does_not_know_tells_what_is_installed(world: World) -> None:
    world.offer("story-good", GOOD)
    world.octave("install", "pypi:story-good", "--arg=--root", "--arg=/srv")
    found = world.octave("info", "story-good", "--json").json
    assert found["name"] == "story-good"
    assert found["installed"]["tools"] == 3
    assert found["installed"]["command"][-2:] == ["--root", "/srv"]


def test_info_of_a_server_of_ones_own_tells_how_it_is_started_and_no_secret(world: World) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "octave.toml").write_text(
        """[servers.mine]
command = ["node", "./server.js", "--api-key", "sk-ant-api03-abcdefghijklmnop", "--key=hush-hush"]
env = { MODE = "fast", TOKEN = { secret = "mine/TOKEN" } }
[servers.far]
url = "https://mcp.example.com/mcp?api_key=sk-ant-api03-abcdefghijklmnop"
headers = { Authorization = { env = "FAR_AUTH" } }
""",
        encoding="utf-8",
    )
    assert world.octave("info", "mine").stdout == (
        "mine\n\na command of your own: node ./server.js --api-key <hidden> --key=<hidden>\n"
        "  is given: MODE, TOKEN\n"
    )
    assert world.octave("info", "far").stdout == (
        "far\n\nconnects https://mcp.example.com/mcp\n  sends: Authorization\n"
    )


@pytest.mark.parametrize("name", ["githb", "npm:no-such", "oci:x", ":", "../x", "GitHub"])
def test_info_of_the_unknown_is_not_found(world: World, name: str) -> None:
    done = world.octave("info", name, "--json")
    assert (done.code, done.error["code"]) == (4, "server_not_found")
    assert done.error["hint"]


def test_names_a_package_chose_for_itself_cannot_move_the_cursor(world: World) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "octave.toml").write_text(
        '[servers.x]\ncommand = ["true", "\\u001b[2J"]\n', encoding="utf-8"
    )
    for words in (["list"], ["list", "--json"], ["trust"], ["info", "x"]):
        done = world.octave(*words)
        assert "\x1b" not in done.stdout + done.stderr
