"""Container images from `install` to `update`, with a stand-in for docker and podman."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from octave.errors import (
    InstallFailed,
    IntegrityFailed,
    OctaveError,
    PackageNotFound,
    VersionNotFound,
)
from octave.home import Home
from octave.packages import lockfile
from octave.packages.ecosystems.base import Bench, Resolved, Wanted
from octave.packages.ecosystems.oci import Oci
from octave.packages.names import split_image
from tests.packages.docker_stand_in import DockerStandIn
from tests.packages.mcp_registry import RegistryServer, configure, package
from tests.packages.story import SERVERS, World

IMAGE = "h.test/owner/quokka-mcp"
ECHO = SERVERS / "env_echo.py"
NAME = "com.example/quokka"
CLAIM = {"io.modelcontextprotocol.server.name": NAME}
WAIT_S = 10.0


@pytest.fixture
def registry(world: World) -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        configure(world.home, company=made.url)
        yield made


def tool_of(world: World, name: str = "docker") -> DockerStandIn:
    made = DockerStandIn(world.root, name)
    world.environ["PATH"] = f"{made.folder}:/usr/bin:/bin"
    return made


@pytest.fixture(params=["docker", "podman"])
def either(world: World, request: pytest.FixtureRequest) -> DockerStandIn:
    return tool_of(world, request.param)


@pytest.fixture
def docker(world: World) -> DockerStandIn:
    return tool_of(world)


def told(world: World, name: str = "quokka") -> Any:
    done = world.call(name, "env")
    assert done.code == 0, done.stderr
    return json.loads(done.stdout)


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_an_image_is_locked_by_its_digest_and_run_with_names_of_variables_alone(
    world: World, either: DockerStandIn
) -> None:
    digest = either.publish(IMAGE, "1.0", ECHO)
    secret = {"QUOKKA_TOKEN": "hush-hush"}
    done = world.octave(
        "install", f"oci:{IMAGE}:1.0", "-e", "QUOKKA_TOKEN", "-e", "MODE=calm",
        "--arg", "stdio", "--json", environ=secret,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    (result,) = done.json["results"]
    assert (result["name"], result["version"], result["checked"]) == ("quokka", "1.0", True)
    assert f'integrity = "{digest}"' in world.lockfile
    assert str(world.root) not in world.lockfile

    found = told(world)
    assert found["argv"][1:] == ["stdio"]
    assert {k: found["env"].get(k) for k in ("QUOKKA_TOKEN", "MODE", "HOME")} == {
        "QUOKKA_TOKEN": "hush-hush",
        "MODE": "calm",
        "HOME": None,
    }
    run = either.asked("run")[-1].words
    assert "hush-hush" not in " ".join(run)
    name = run[run.index("--name") + 1]
    assert name.startswith("octave-quokka-")
    assert list(run) == [
        "run", "--name", name, "-i", "--rm", "--init", "--pull=never", "--log-driver=none",
        "--label", "io.github.octave-mcp.server=quokka", "-e", "QUOKKA_TOKEN", "-e", "MODE",
        f"{IMAGE}@{digest}", "stdio",
    ]  # fmt: skip
    eventually(lambda: either.containers() == {})


def test_every_verb_knows_it(world: World, docker: DockerStandIn) -> None:
    digest = docker.publish(IMAGE, "latest", ECHO)
    done = world.octave("install", f"oci:{IMAGE}")
    assert done.code == 0
    words = list(docker.asked("run")[-1].words)
    shown = " ".join(["run", *words[3:]])
    assert f"{IMAGE}@{digest}" in shown
    assert f"  runs: {docker.folder}/docker {shown}\n" in done.stderr
    lockfile = world.lockfile

    (row,) = world.octave("list", "--json").json
    assert (row["kind"], row["version"], row["tools"]) == ("oci", "latest", 2)
    made = world.octave("export", "mcp-json").json["mcpServers"]["quokka"]
    assert (made["command"], made["args"][0], made["args"][-1]) == ("docker", "run", words[-1])
    assert "is a container" in world.octave("export", "compose").stderr
    again = world.octave("install", "quokka", "-e", "MODE=x", "--json")
    assert again.json["results"][0]["status"] == "present"
    told_outdated = world.octave("outdated")
    assert (told_outdated.code, told_outdated.stdout) == (0, "")
    assert "only a pull can tell: `octave update quokka`" in told_outdated.stderr
    assert world.octave("lock", "--check").code == 0
    assert world.octave("install", "--locked").code == 0
    audit = world.octave("audit")
    assert (audit.code, "docker or podman keeps them" in audit.stderr) == (0, True)
    assert world.octave("info", "quokka", "--json").json["installed"]["version"] == "latest"

    assert world.octave("uninstall", "quokka").code == 0
    assert world.octave("install", f"oci:{IMAGE}", "--offline").code == 0
    docker.forget()
    (row,) = world.octave("list", "--json").json
    assert (row["state"], row["version"]) == ("failed", "latest")
    gone = f"the image of `quokka`, `{IMAGE}@{digest}`, is not on this machine any more"
    assert f"warning: {gone}; hint: octave install\n" in world.octave("list").stderr
    called = world.octave("call", "quokka", "env", "--json")
    assert (called.code, called.error["message"]) == (6, gone)
    assert called.error["hint"] == "octave install"
    assert world.octave("install").code == 0
    assert docker.asked("pull")[-1].words[1].startswith(f"{IMAGE}@sha256:")
    assert world.lockfile == lockfile


def test_a_tag_that_moved_is_an_update_and_a_rollback_returns(
    world: World, docker: DockerStandIn
) -> None:
    before = docker.publish(IMAGE, "latest", ECHO)
    assert world.octave("install", f"oci:{IMAGE}").code == 0
    assert world.octave("update", "--json").json["results"][0]["status"] == "current"

    after = docker.publish(IMAGE, "latest", SERVERS / "good.py")
    assert told(world)["argv"]
    updated = world.octave("update", "quokka", "-y", "--json")
    assert updated.code == 0, updated.stderr
    assert updated.json["results"][0]["status"] == "updated"
    assert f'integrity = "{after}"' in world.lockfile
    assert world.call("quokka", "pid").code == 0
    assert world.octave("rollback", "quokka").code == 0
    assert f'integrity = "{before}"' in world.lockfile
    assert told(world)["argv"]


def test_an_image_may_be_asked_for_by_its_digest(world: World, docker: DockerStandIn) -> None:
    digest = docker.publish(IMAGE, "1.0", ECHO)
    done = world.octave("install", f"oci:{IMAGE}@{digest}", "--no-start")
    assert done.code == 0, done.stderr
    assert f'version = "{digest}"' in world.manifest
    assert f'version = "sha256-{digest.removeprefix("sha256:")[:12]}"' in world.lockfile
    assert world.octave("outdated", "--json").told[:2] == (0, "[]\n")
    assert world.octave("lock").code == 0
    pin = lockfile.read(world.home / "octave.lock").pins["quokka"]
    bench = Bench(Home(world.home), world.environ)
    Oci().check(pin, bench)
    with pytest.raises(IntegrityFailed, match="was asked for"):
        Oci().check(replace(pin, integrity=f"sha256:{'0' * 64}"), bench)


def test_a_killed_command_leaves_no_container(world: World, docker: DockerStandIn) -> None:
    docker.publish(IMAGE, "1.0", SERVERS / "ignore_sigterm.py")
    assert world.octave("install", f"oci:{IMAGE}:1.0").code == 0
    eventually(lambda: docker.containers() == {})
    argv = _launch(world)
    child = world.run(argv)
    try:
        eventually(lambda: bool(docker.containers()))
        ((_, container),) = docker.containers().items()
        assert is_alive(container)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    eventually(lambda: docker.containers() == {} and not is_alive(container))


def test_a_runtime_that_is_killed_leaves_no_container(world: World, docker: DockerStandIn) -> None:
    docker.publish(IMAGE, "1.0", SERVERS / "deaf.py")
    assert world.octave("install", f"oci:{IMAGE}:1.0", "--no-start").code == 0
    runtime = world.start("serve", "--port", "0", start_new_session=True)
    try:
        eventually(lambda: (world.home / "run" / "runtime.json").exists())
        start = world.start("start", "quokka")
        eventually(lambda: bool(docker.containers()))
        ((_, container),) = docker.containers().items()
    finally:
        os.kill(runtime.pid, signal.SIGKILL)
        runtime.communicate()
    start.communicate(timeout=WAIT_S)
    eventually(lambda: docker.containers() == {} and not is_alive(container))


def _launch(world: World) -> list[str]:
    """Return the command by which the runtime starts the server."""
    code = (
        "import os, json; from octave.home import Home, Workspace;"
        "from octave.packages.specs import launch_specs;"
        "(spec,) = launch_specs(Workspace.of_home(Home.find(os.environ)), os.environ);"
        "print(json.dumps(spec.argv))"
    )
    out, _ = world.run([sys.executable, "-c", code]).communicate()
    found: list[str] = json.loads(out)
    return found


def resolve(world: World, text: str) -> Resolved:
    """What `install` does first, without the rest of it."""
    image, version = split_image(text)
    bench = Bench(Home(world.home), world.environ)
    return Oci().resolve(Wanted(image, version or "*"), world.root, bench)


@pytest.mark.parametrize(
    ("trouble", "code", "told"),
    [
        ("dial tcp: lookup h.test: no such host", 8, "cannot be pulled"),
        ("toomanyrequests: You have reached your limit", 8, "cannot be pulled"),
        ("no matching manifest for linux/amd64 in the manifest list entries", 1, "not made for"),
        ("unauthorized: authentication required", 4, "or none for you"),
        ("failed to register layer: no space left on device", 1, "no space left on device"),
    ],
)
def test_a_pull_that_fails_says_why(
    world: World, docker: DockerStandIn, trouble: str, code: int, told: str
) -> None:
    docker.trouble(pull=f"Error response from daemon: {trouble}")
    with pytest.raises(OctaveError) as caught:
        resolve(world, f"{IMAGE}:1.0")
    assert (caught.value.exit_code, told in caught.value.message) == (code, True)


@pytest.mark.parametrize(
    ("trouble", "code"),
    [
        ("pinging container registry h.test: Get: dial tcp: connect: connection refused", 8),
        ("reading manifest 9 in h.test/o/x: manifest unknown", 4),
        ("reading manifest 9 in h.test/o/x: name unknown: name unknown", 4),
        ("reading manifest 9 in h.test/o/x: requested access to the resource is denied", 4),
    ],
)
def test_podmans_own_words_are_understood(world: World, trouble: str, code: int) -> None:
    podman = tool_of(world, "podman")
    podman.trouble(pull=f"Trying to pull h.test/o/x:9...\nError: initializing source: {trouble}")
    with pytest.raises(OctaveError) as caught:
        resolve(world, "h.test/o/x:9")
    assert caught.value.exit_code == code


def test_what_is_not_there_is_not_found(world: World, docker: DockerStandIn) -> None:
    docker.publish(IMAGE, "1.0", ECHO)
    with pytest.raises(VersionNotFound):
        resolve(world, f"{IMAGE}:2.0")
    with pytest.raises(PackageNotFound) as caught:
        resolve(world, "h.test/nobody/x")
    assert "docker login" in (caught.value.hint or "")


def test_an_image_that_is_known_by_several_digests_is_not_guessed_at(
    world: World, docker: DockerStandIn
) -> None:
    digest = docker.publish(IMAGE, "1.0", ECHO)
    resolve(world, f"{IMAGE}:1.0")
    docker.alias(IMAGE, "sha256:" + "c" * 64)
    offline = Bench(Home(world.home), world.environ, offline=True)
    with pytest.raises(InstallFailed, match="several digests"):
        Oci().resolve(Wanted(IMAGE, "1.0"), world.root, offline)
    assert resolve(world, f"{IMAGE}:1.0").integrity == digest


def test_nothing_to_run_it_with_is_told_with_the_other_way(
    world: World, registry: RegistryServer
) -> None:
    world.environ["PATH"] = "/nowhere"
    made = registry.add(NAME, package("oci", f"{IMAGE}:1.0"))
    done = world.octave("install", "quokka", "--json")
    assert (done.code, done.error["code"]) == (1, "install_failed")
    assert done.error["message"] == (
        "`com.example/quokka` comes as the container image `h.test/owner/quokka-mcp` alone, which "
        "needs docker or podman, and neither is on PATH"
    )
    assert done.error["hint"] == "install docker or podman, then try again"

    made["server"]["remotes"] = [{"type": "streamable-http", "url": "https://h.test/mcp"}]
    world.octave("registry", "update")
    again = world.octave("install", "quokka", "--json")
    assert again.error["hint"] == (
        "octave install com.example/quokka --remote, or install docker or podman"
    )


def test_a_daemon_that_sleeps_is_told_apart_and_podman_may_do_it(world: World) -> None:
    docker, podman = tool_of(world), tool_of(world, "podman")
    podman.trouble(down="it sleeps, too, and so does any that this machine has")
    docker.trouble(down="Cannot connect to the Docker daemon at unix:///x. Is it running?")
    done = world.octave("install", f"oci:{IMAGE}:1.0", "--json")
    assert (done.code, done.error["code"]) == (1, "install_failed")
    assert "is there, but does not answer: Cannot connect" in done.error["message"]
    assert done.error["hint"].startswith("start docker")
    docker.trouble(down="permission denied while trying to connect to the Docker daemon socket")
    assert "may not be used by you" in world.octave("install", f"oci:{IMAGE}").stderr

    podman.trouble()
    podman.publish(IMAGE, "1.0", ECHO)
    assert world.octave("install", f"oci:{IMAGE}:1.0").code == 0
    assert world.record("quokka")["command"] == [str(podman.path)]


def test_a_registrys_image_must_say_who_it_is(
    world: World, registry: RegistryServer, docker: DockerStandIn
) -> None:
    wanted = [{"type": "named", "name": "-e", "value": "QUOKKA_TOKEN={token}",
               "variables": {"token": {"isRequired": True, "isSecret": True}}}]  # fmt: skip
    registry.add(NAME, package("oci", f"{IMAGE}:1.0", runtimeArguments=wanted))
    docker.publish(IMAGE, "1.0", ECHO)
    other = world.octave("install", "quokka", "--json")
    assert (other.code, other.error["code"]) == (7, "integrity_failed")
    assert "does not say that it is `com.example/quokka`" in other.error["message"]
    assert docker.asked("run") == []

    docker.publish(IMAGE, "1.0", ECHO, CLAIM)
    open_secret = world.octave("install", "quokka", "-e", "QUOKKA_TOKEN=x")
    assert open_secret.code == 2
    token = {"QUOKKA_TOKEN": "hush"}
    done = world.octave("install", "quokka", "-e", "QUOKKA_TOKEN", environ=token)
    assert done.code == 0, done.stderr
    assert told(world)["env"]["QUOKKA_TOKEN"] == "hush"


def test_a_registrys_image_is_the_one_of_its_digest(
    world: World, registry: RegistryServer, docker: DockerStandIn
) -> None:
    digest = docker.publish(IMAGE, "1.0", ECHO, CLAIM)
    registry.add(NAME, package("oci", f"{IMAGE}@{digest}"))
    docker.publish(IMAGE, "latest", ECHO, CLAIM | {"other": "image"})
    shown = world.octave("info", "quokka", "--json").json["packages"][0]
    assert shown["command"] == f"docker run -i --rm {IMAGE}@{digest}"
    assert world.octave("install", "quokka").code == 0
    assert world.record("quokka")["integrity"] == digest


def test_a_newer_tag_of_the_registry_is_outdated_and_an_update(
    world: World, registry: RegistryServer, docker: DockerStandIn
) -> None:
    registry.add(NAME, package("oci", f"{IMAGE}:1.0"))
    docker.publish(IMAGE, "1.0", ECHO, CLAIM)
    assert world.octave("install", "quokka").code == 0
    registry.items.clear()
    registry.add(NAME, package("oci", f"{IMAGE}:1.1"))
    docker.publish(IMAGE, "1.1", ECHO, CLAIM)
    world.octave("registry", "update")

    (row,) = world.octave("outdated", "--json").json
    assert (row["current"], row["latest"]) == ("1.0", "1.1")
    updated = world.octave("update", "-y", "--json").json["results"][0]
    assert (updated["status"], updated["version"]) == ("updated", "1.1")


@pytest.mark.parametrize("words", [["--privileged"], ["--network", "host"]])
def test_an_image_that_wants_more_than_a_container_has_is_shown_and_not_run(
    world: World, registry: RegistryServer, docker: DockerStandIn, words: list[str]
) -> None:
    given = {"type": "named", "name": words[0], "value": words[1] if words[1:] else None}
    registry.add(NAME, package("oci", f"{IMAGE}:1.0", runtimeArguments=[given]))
    shown = world.octave("info", "quokka").stdout
    assert f"it wants its container to be run with `{' '.join(words)}`" in shown
    done = world.octave("install", "quokka", "--json")
    assert (done.code, done.error["code"]) == (1, "install_failed")


def test_folders_are_seen_by_it_when_the_user_gives_them(
    world: World, docker: DockerStandIn
) -> None:
    docker.publish(IMAGE, "1.0", ECHO)
    assert world.octave("install", f"oci:{IMAGE}:1.0", "--no-start").code == 0
    done = world.octave("set", "quokka", "mounts=~/notes:/notes:ro", "mounts={data}:/data")
    assert done.code == 0, done.stderr
    assert told(world)
    run = list(docker.asked("run")[-1].words)
    assert [run[at + 1] for at, word in enumerate(run) if word == "--mount"] == [
        f"type=bind,source={world.root}/notes,target=/notes,readonly",
        f"type=bind,source={world.home}/data/quokka,target=/data",
    ]


def test_a_variable_that_would_change_docker_itself_is_not_passed(
    world: World, docker: DockerStandIn
) -> None:
    docker.publish(IMAGE, "1.0", ECHO)
    assert world.octave("install", f"oci:{IMAGE}:1.0", "-e", "DOCKER_HOST=tcp://x").code == 0
    assert world.octave("call", "quokka", "env").code == 6
    assert not any("DOCKER_HOST" in each.environ for each in docker.asked("run"))
