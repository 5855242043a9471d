"""What a manifest in a bundle means here."""

import json
import sys
from typing import Any

import pytest

from octave.errors import InstallFailed
from octave.packages.ecosystems.mcpb_manifest import Bundle, read
from octave.packages.templates import filled_all
from tests.packages.bundle_maker import HERE, manifest

OTHER = "win32"


def told(platform: str = "linux", **changes: Any) -> Bundle:
    return read(json.dumps(manifest(**changes)).encode(), "x.mcpb", platform)


def server(kind: str = "node", **changes: Any) -> dict[str, Any]:
    return {"type": kind, "entry_point": "server/main.js"} | changes


def start(command: str, *args: str, **more: Any) -> dict[str, Any]:
    return {"mcp_config": {"command": command, "args": list(args), **more}}


def test_an_interpreter_and_the_entry_are_told_from_arguments() -> None:
    found = told(
        server=server(**start("node", "${__dirname}/server/main.js", "--a", "${__dirname}"))
    )
    assert (found.kind, found.program, found.entry) == ("node", "", "server/main.js")
    assert found.starts_with_entry
    assert found.args == ("--a", "{folder}/bundle")


def test_flags_before_the_entry_and_modules_stay_in_their_order() -> None:
    flagged = told(server=server(**start("node", "--no-warnings", "${__dirname}/server/main.js")))
    assert not flagged.starts_with_entry
    assert flagged.args == ("--no-warnings", "{folder}/bundle/server/main.js")
    module = told(server=server("python", **start("python3", "-m", "server.main")))
    assert module.args == ("-m", "server.main")


def test_a_file_of_the_bundle_named_plainly_is_meant() -> None:
    assert told(server=server(**start("node", "server/main.js"))).starts_with_entry
    assert told(server=server()).starts_with_entry


def test_a_program_of_the_bundle_is_its_own_command() -> None:
    for command in ("${__dirname}/bin/run", "bin/run", "./bin/run"):
        found = told(server=server("binary", **start(command, "serve")))
        assert (found.program, found.entry, found.args) == ("bin/run", "bin/run", ("serve",))
    venv = told(server=server("python", **start("${__dirname}/venv/bin/python", HERE)))
    assert (venv.program, venv.args) == ("venv/bin/python", ("{folder}/bundle/server/main.py",))
    assert told(server=server("binary")).program == "server/main.js"


def test_a_platform_may_say_it_otherwise() -> None:
    overrides = {
        "linux": {"args": ["${__dirname}/l.js"], "env": {"B": "2"}},
        "darwin": {"command": "bin/mac"},
    }
    made = start("node", "a", env={"A": "1", "B": "1"}, platform_overrides=overrides)
    linux = told(server=server(**made))
    assert (linux.args, dict(linux.env)) == (("{folder}/bundle/l.js",), {"A": "1", "B": "2"})
    assert told("darwin", server=server("binary", **made)).program == "bin/mac"


CONFIG = {
    "key": {"type": "string", "title": "Key", "sensitive": True, "required": True},
    "dirs": {"type": "directory", "multiple": True, "default": ["${HOME}/a", "${DOCUMENTS}"]},
    "limit": {"type": "number", "description": "How many", "default": 10},
    "read-only": {"type": "boolean", "default": False},
    "host": {"type": "string"},
}


def test_what_a_user_configures_becomes_variables() -> None:
    args = ["${user_config.dirs}", "--limit=${user_config.limit}", "--host", "${user_config.host}"]
    env = {"API_KEY": "${user_config.key}", "URL": "https://${user_config.host}/x", "FIXED": "1"}
    found = told(server=server(**start("node", HERE, *args, env=env)), user_config=CONFIG)
    assert [(each.name, each.required, each.secret, each.default) for each in found.settings] == [
        ("API_KEY", True, True, None),
        ("CONFIG_DIRS", False, False, "{env:HOME}/a:{env:HOME}/Documents"),
        ("CONFIG_LIMIT", False, False, "10"),
        ("CONFIG_READ_ONLY", False, False, "false"),
        ("CONFIG_HOST", False, False, None),
    ]
    assert found.settings[0].description == "Key"
    assert dict(found.env) == {"URL": "https://{env:CONFIG_HOST}/x", "FIXED": "1"}
    assert found.args[1:] == (
        "{list:CONFIG_DIRS}",
        "--limit={env:CONFIG_LIMIT}",
        "--host",
        "{env:CONFIG_HOST}",
    )


def test_places_are_filled_and_words_without_a_value_left_out() -> None:
    words = ("{list:D}", "--limit", "{env:N}", "--host", "{env:H}", "a{env:N}{env:N}", "{plain}")
    assert filled_all(words, {"D": "/a:/b", "N": "1"}.get) == (
        "/a", "/b", "--limit", "1", "a11", "{plain}",
    )  # fmt: skip
    assert filled_all(words, {"N": "{env:H}", "H": "x"}.get)[:2] == ("--limit", "{env:H}")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"manifest_version": "1.0"}, "its manifest is of version `1.0`"),
        ({"manifest_version": ""}, "its manifest is of version `none`"),
        ({"version": "../1"}, "`../1` is no version"),
        ({"version": ""}, "`` is no version"),
        ({"compatibility": {"platforms": [OTHER]}}, f"it is for '{OTHER}', not 'linux'"),
        ({"compatibility": {"platforms": []}}, "it is for no platform"),
        ({"server": server("uv")}, "its dependencies are not in it"),
        ({"server": server("deno")}, "unknown type `deno`"),
        ({"server": server(entry_point="")}, "it names no `entry_point`"),
        ({"server": server(entry_point="../x.js")}, "`../x.js` is no place in it"),
        ({"server": server(entry_point="/etc/x.js")}, "`/etc/x.js` is no place in it"),
        ({"server": server(**start("npx", "-y", "thing"))}, "it runs `npx`, which fetches"),
        ({"server": server(**start("bash", "-c", "x"))}, "it wants to be run by `bash`"),
        ({"server": server(**start("/bin/sh", "-c", "x"))}, "`/bin/sh` is no place in it"),
        ({"server": server("binary", **start("../sh"))}, "`../sh` is no place in it"),
        ({"server": server(**start("node", "${nobody}"))}, "nobody knows what `${nobody}`"),
        ({"server": server(**start("node", "${user_config.x}"))}, "`${user_config.x}`"),
        ({"server": server(**start("node", env={"A=B": "1"}))}, "cannot be the name of an"),
        ({"server": "node"}, "its `manifest.json` cannot be read"),
    ],
)
def test_what_cannot_be_started_is_refused_with_the_reason(
    changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(InstallFailed) as caught:
        told(**changes)
    assert why in caught.value.message
    assert caught.value.message.startswith("the bundle `x.mcpb` cannot be installed: ")


def test_an_older_manifest_is_read() -> None:
    older = manifest(dxt_version="0.1", future={"a": 1})
    older.pop("manifest_version")
    assert read(json.dumps(older).encode(), "x", sys.platform).version == "1.2.0"
