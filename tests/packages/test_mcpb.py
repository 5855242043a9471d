"""Bundles from `install` to `rollback`, as a user meets them."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from octave.errors import InstallFailed
from octave.home import Home
from octave.packages.ecosystems.base import Bench, Wanted
from octave.packages.ecosystems.mcpb import Mcpb
from octave.packages.lockfile import Pin
from tests.packages.bundle_maker import HERE, BundleHost, bundle, manifest
from tests.packages.mcp_registry import RegistryServer, configure, package
from tests.packages.story import World
from tests.packages.web_host import Answer

NAME = "com.example/quokka"


@pytest.fixture
def host() -> Iterator[BundleHost]:
    with BundleHost() as made:
        yield made


@pytest.fixture
def registry(world: World) -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        configure(world.home, company=made.url)
        yield made


def told(world: World, name: str, tool: str = "env") -> Any:
    done = world.call(name, tool)
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def configured() -> dict[str, Any]:
    start = {
        "command": "python",
        "args": [
            HERE,
            "--limit",
            "${user_config.limit}",
            "${user_config.dirs}",
            "--outside=${user_config.outside}",
        ],
        "env": {
            "QUOKKA_PIN": "${user_config.pin}",
            "WHERE": "${__dirname}/x",
            "OUTSIDE": "${user_config.outside}",
        },
    }
    return manifest(
        server={"type": "python", "entry_point": "server/main.py", "mcp_config": start},
        user_config={
            "pin": {"type": "string", "title": "Pin", "sensitive": True, "required": True},
            "limit": {"type": "number", "title": "Limit"},
            "outside": {"type": "string", "title": "What nobody has given"},
            "dirs": {"type": "directory", "multiple": True, "default": ["${HOME}/a"]},
        },
    )


def test_a_bundle_is_installed_with_what_the_user_configures_and_runs(
    world: World, host: BundleHost
) -> None:
    asked = host.offer("/v1/quokka-mcp.mcpb", bundle(configured()))
    open_secret = world.octave("install", asked, "-e", "QUOKKA_PIN=1234")
    assert (open_secret.code, world.installed()) == (2, [])

    pin = {"QUOKKA_PIN": "1234"}
    words = ("install", asked, "-e", "QUOKKA_PIN", "--json")
    (row,) = world.octave(*words, "--dry-run", environ=pin).json["results"]
    done = world.octave(*words, environ=pin)
    assert done.code == 0, done.stderr
    (result,) = done.json["results"]
    assert (result["name"], result["version"], result["checked"]) == ("quokka", "1.2.0", True)
    assert "1234" not in world.manifest + world.lockfile + done.stdout
    assert host.asked == ["/v1/quokka-mcp.mcpb"]
    assert str(world.root) not in world.lockfile

    # What the runtime has in its environment is none of a bundle's business.
    world.environ["OUTSIDE"] = "hush"
    found = told(world, "quokka")
    assert "OUTSIDE" not in found["env"]
    place = world.home / "servers" / world.installed()[0] / "bundle"
    assert found["argv"] == [str(place / "server/main.py"), str(world.root / "a")]
    assert row["plan"]["command"][1:] == found["argv"]
    assert row["plan"]["publisher"]["maintainers"] == ["Somebody"]
    assert found["env"]["QUOKKA_PIN"] == "1234"
    assert found["env"]["WHERE"] == str(place / "x")

    world.octave("set", "quokka", "env.CONFIG_LIMIT=3", "env.CONFIG_DIRS=/b:/c")
    assert told(world, "quokka")["argv"][1:] == ["--limit", "3", "/b", "/c"]


def test_every_verb_knows_it_and_a_reinstall_needs_no_network(
    world: World, host: BundleHost
) -> None:
    content = bundle()
    asked = host.offer("/quokka.mcpb", content)
    done = world.octave("install", asked, "--json", "-v")
    assert done.code == 0
    counted = [line for line in map(json.loads, done.stderr.splitlines()) if "total" in line]
    assert counted[0]["progress"] == "fetching quokka.mcpb"
    assert 0 < counted[0]["done"] <= counted[0]["total"] == len(content)
    assert counted[0]["unit"] == "bytes"
    host.files.clear()

    (row,) = world.octave("list", "--json").json
    assert (row["kind"], row["version"], row["tools"]) == ("mcpb", "1.2.0", 2)
    assert world.octave("outdated", "--json").told[:2] == (0, "[]\n")
    assert world.octave("update", "--json").json["results"][0]["status"] == "current"
    assert world.octave("lock", "--check").code == 0
    assert world.octave("lock").told[:2] == (0, "locked quokka 1.2.0\n")
    assert world.octave("install", "--locked").code == 0
    assert world.octave("audit").code == 0
    assert world.octave("info", "quokka", "--json").json["installed"]["version"] == "1.2.0"

    lockfile, record = world.lockfile, world.record("quokka")
    place = world.home / "servers" / world.installed()[0]
    (place / "bundle/server/main.py").write_text("import evil", encoding="utf-8")
    wrong = world.octave("audit")
    assert (wrong.code, "`server/main.py` was changed" in wrong.stdout + wrong.stderr) == (1, True)

    assert world.octave("uninstall", "quokka").code == 0
    assert world.octave("install", asked, "--offline").code == 0
    assert (world.lockfile, world.record("quokka")) == (lockfile, record)
    assert world.octave("clean").code == 0
    assert "could not be compared" in world.octave("audit").stderr


def test_a_lockfile_starts_a_bundle_as_it_says_itself(world: World, host: BundleHost) -> None:
    start = {
        "command": "python",
        "args": ["-u", HERE],
        "env": {"PYTHONPATH": "${__dirname}/x"},
        "platform_overrides": {"win32": {"args": ["-W", HERE]}},
    }
    server = {"type": "python", "entry_point": "server/main.py", "mcp_config": start}
    asked = host.offer("/quokka.mcpb", bundle(manifest(server=server)))
    assert world.octave("install", asked).code == 0
    path = world.home / "octave.lock"
    whole = path.read_text(encoding="utf-8")
    for old, new, code in (
        ('"-u"', '"-c"', 7),
        ("{folder}/bundle/x", "/tmp", 7),
        ("PYTHONPATH", "PYTHONSTARTUP", 7),
        ('"-u"', '"-W"', 0),
    ):
        assert old in whole
        path.write_text(whole.replace(old, new), encoding="utf-8")
        done = world.octave("install", "--locked", "--no-start")
        assert (done.code, "in another way than its bundle says" in done.stderr) == (code, code > 0)


def test_a_hash_that_is_missing_or_wrong_installs_nothing(world: World, host: BundleHost) -> None:
    asked = host.offer("/quokka.mcpb", bundle())
    bare = asked.partition("#")[0]
    missing = world.octave("install", bare, "--json")
    assert (missing.code, missing.error["code"]) == (7, "integrity_failed")
    assert f"octave install '{bare}#sha256=HEX'" in missing.error["hint"]
    assert host.asked == []

    host.files["/quokka.mcpb"] = Answer(bundle(manifest(version="6.6.6")))
    other = world.octave("install", asked, "--json")
    assert (other.code, other.error["code"]) == (7, "integrity_failed")
    assert not (world.home / "octave.lock").exists()
    assert world.installed() == []


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"no archive", "is not a sound zip archive"),
        (bundle(more={"../x": ""}), "wants to write outside its folder"),
        (bundle(manifest(compatibility={"platforms": ["win32"]})), "it is for 'win32'"),
        (
            bundle(manifest(server={"type": "node", "entry_point": "gone.js"})),
            "its entry point `gone.js` is not in it",
        ),
        (
            bundle(
                manifest(server={"type": "binary", "entry_point": "run.exe"}),
                more={"run.exe": b"MZ" + bytes(60)},
            ),
            f"`run.exe` is no program for {sys.platform}",
        ),
    ],
    ids=["no-archive", "traversal", "other-platform", "no-entry", "other-program"],
)
def test_what_is_no_bundle_for_this_machine_is_refused(
    tmp_path: Path, host: BundleHost, content: bytes, why: str
) -> None:
    package = host.offer("/quokka.mcpb", content).removeprefix("mcpb:")
    bench, made = Bench(Home(tmp_path / "home"), dict(os.environ)), Mcpb()
    (tmp_path / "target").mkdir()
    with pytest.raises(InstallFailed) as caught:
        found = made.resolve(Wanted(package), tmp_path, bench)
        pin = Pin("quokka", package, "mcpb", package, found.version, found.integrity, found.graph)
        made.install(pin, tmp_path / "target", bench)
    assert why in caught.value.message


def test_a_program_of_the_bundle_is_started_by_itself(world: World, host: BundleHost) -> None:
    # Without an execute bit, as some tools pack it.
    script = f'#!/bin/sh\nexec {sys.executable} "${{0%/*}}/../server/main.py" "$@"\n'
    start = {"command": "${__dirname}/bin/run", "args": ["serve"]}
    made = manifest(server={"type": "binary", "entry_point": "bin/run", "mcp_config": start})
    asked = host.offer("/quokka.mcpb", bundle(made, more={"bin/run": script}))
    assert world.octave("install", asked).code == 0
    assert told(world, "quokka")["argv"][1:] == ["serve"]


def test_packages_in_the_bundles_own_folder_are_found(world: World, host: BundleHost) -> None:
    start = {"command": "python", "args": ["-u", HERE]}
    said = manifest(server={"type": "python", "entry_point": "server/main.py", "mcp_config": start})
    asked = host.offer("/quokka.mcpb", bundle(said, more={"server/lib/quokka_lib.py": ""}))
    assert world.octave("install", asked).code == 0
    assert told(world, "quokka")["env"]["PYTHONPATH"].endswith("/bundle/server/lib")
    host.files.clear()
    shutil.rmtree(world.home / "cache")
    present = world.octave("install", "-q")
    assert (present.code, present.stdout) == (0, "present quokka 1.2.0 (2 tools)\n")


def test_a_file_of_this_machine_is_installed_by_its_hash(world: World) -> None:
    (world.cwd / "my bundle.mcpb").write_bytes(bundle())
    done = world.octave("install", "./my bundle.mcpb")
    assert done.code == 0, done.stderr
    assert 'package = "mcpb:my bundle.mcpb#sha256=' in world.manifest
    assert str(world.cwd) not in world.manifest + world.lockfile
    (world.cwd / "my bundle.mcpb").unlink()
    assert world.octave("uninstall", "my-bundle").code == 0
    missing = world.octave("install", "./my bundle.mcpb", "--json")
    assert (missing.code, missing.error["code"]) == (1, "install_failed")


def publish(registry: RegistryServer, host: BundleHost, version: str, **more: Any) -> None:
    content = bundle(manifest(version=version), server=more.pop("server", "env_echo"))
    asked = host.offer(f"/v{version}/quokka.mcpb", content)
    url, _, sha256 = asked.removeprefix("mcpb:").partition("#sha256=")
    registry.items.clear()
    registry.add(NAME, package("mcpb", url, version=version, fileSha256=sha256, **more))


def test_a_registrys_bundle_is_updated_to_another_address_and_rolled_back_offline(
    world: World, registry: RegistryServer, host: BundleHost
) -> None:
    publish(registry, host, "1.0.0", environmentVariables=[{"name": "MODE", "value": "calm"}])
    done = world.octave("install", "quokka")
    assert done.code == 0, done.stderr
    before = world.manifest
    assert told(world, "quokka")["env"]["MODE"] == "calm"

    publish(registry, host, "1.1.0", server="good")
    configure_again = world.octave("registry", "update")
    assert configure_again.code == 0, configure_again.stderr
    (row,) = world.octave("outdated", "--json").json
    assert (row["current"], row["wanted"], row["latest"]) == ("1.0.0", "1.1.0", "1.1.0")
    updated = world.octave("update", "quokka", "-y", "--json")
    assert updated.code == 0, updated.stderr
    assert updated.json["results"][0]["status"] == "updated"
    assert "/v1.1.0/quokka.mcpb#sha256=" in world.manifest
    assert world.octave("lock", "--check").code == 0
    assert world.call("quokka", "pid").code == 0

    host.files.clear()
    registry.close()
    back = world.octave("rollback", "quokka", "--json")
    assert back.code == 0, back.stderr
    assert back.json["results"][0]["version"] == "1.0.0"
    assert world.manifest == before
    assert told(world, "quokka")["env"]["MODE"] == "calm"


def test_a_registrys_bundle_without_a_hash_is_refused(
    world: World, registry: RegistryServer, host: BundleHost
) -> None:
    registry.add(NAME, package("mcpb", f"{host.url}/quokka.mcpb"))
    done = world.octave("install", "quokka", "--json")
    assert (done.code, done.error["code"]) == (7, "integrity_failed")
    assert "without the hash that its registry must tell" in done.error["message"]
    assert host.asked == []


def test_a_package_with_a_graph_comes_before_a_bundle(
    world: World, registry: RegistryServer, host: BundleHost
) -> None:
    sha256 = "0" * 64
    registry.add(
        NAME,
        package("oci", "h.test/o/quokka:1"),
        package("mcpb", f"{host.url}/quokka.mcpb", fileSha256=sha256),
        package("pypi", "quokka-mcp"),
    )
    found = world.octave("info", "quokka", "--json").json["packages"]
    assert [(each["kind"], each["preferred"]) for each in found] == [
        ("oci", False),
        ("mcpb", False),
        ("pypi", True),
    ]


NODE = """
const say = (id, result) => console.log(JSON.stringify({ jsonrpc: "2.0", id, result }));
require("readline").createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, method, params } = JSON.parse(line);
  if (id === undefined) return;
  if (method === "initialize") {
    const serverInfo = { name: "node-bundle", version: "1" };
    say(id, { protocolVersion: params.protocolVersion, capabilities: { tools: {} }, serverInfo });
  } else if (method === "tools/list") {
    say(id, { tools: [{ name: "env", inputSchema: { type: "object" } }] });
  } else {
    const text = JSON.stringify([process.execPath, process.execArgv, process.argv.slice(2)]);
    say(id, { content: [{ type: "text", text }] });
  }
});
"""


def test_a_node_bundle_runs_on_the_node_that_octave_chose(world: World, host: BundleHost) -> None:
    start = {"command": "node", "args": ["${__dirname}/server/main.js", "--mode", "calm"]}
    made = manifest(
        server={"type": "node", "entry_point": "server/main.js", "mcp_config": start},
        compatibility={"platforms": [sys.platform], "runtimes": {"node": ">=18"}},
    )
    asked = host.offer("/quokka.mcpb", bundle(made, more={"server/main.js": NODE}))
    done = world.octave("install", asked)
    assert done.code == 0, done.stderr
    program, flags, args = told(world, "quokka")
    assert world.record("quokka")["command"][0] == program
    assert (flags, args) == (["--optimize-for-size"], ["--mode", "calm"])
    world.octave("set", "quokka", "node_flags=--no-warnings")
    assert told(world, "quokka")[1] == ["--no-warnings"]
