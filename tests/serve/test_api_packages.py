"""Packages over HTTP: search, install by name, remove; a whole runtime, real verbs in children."""

import contextlib
import json
import sys
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette

from octave.errors import Locked, ServerBusy, UsageError
from octave.home import Home, Workspace
from octave.serve import jobs as jobs_module
from octave.serve.api_packages import (
    LOOKS_AT_ONCE,
    LOOKS_WAITING,
    check_name,
    package_routes,
)
from octave.serve.jobs import Job, Jobs, Order
from octave.serve.verbs import Private, Said, Verbs
from tests.packages.bundle_maker import HERE, BundleHost, bundle, manifest
from tests.packages.mcp_registry import RegistryServer, configure, package
from tests.packages.story import ECHO, GOOD, World
from tests.packages.wheel_index import WheelIndex
from tests.serve.running import running

pytestmark = pytest.mark.anyio

BOUND_S = 60.0
"""Far more than an installation from the local index takes."""
SECRET = "s3cret-of-the-story"
KEY = "s3cret-of-an-argument"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    index = WheelIndex()
    yield World(tmp_path, index)
    index.close()


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


def workspace_of(world: World) -> Workspace:
    workspace = Workspace.of_home(Home(world.home))
    workspace.prepare()
    text = "[runtime]\nport = 0\n"
    if workspace.manifest.exists():
        text += workspace.manifest.read_text(encoding="utf-8")
    workspace.manifest.write_text(text, encoding="utf-8")
    return workspace


@contextlib.asynccontextmanager
async def served(world: World) -> AsyncIterator[httpx.AsyncClient]:
    workspace = workspace_of(world)
    async with running(workspace, environ=world.environ) as told:
        token = workspace.token.read_text(encoding="utf-8")
        async with httpx.AsyncClient(
            base_url=told.facts["url"],
            headers={"Authorization": f"Bearer {token}"},
            timeout=BOUND_S,
        ) as client:
            yield client


def command_lines() -> Iterator[str]:
    """What anybody on this machine can read of its processes; nothing where that is not Linux."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode(errors="replace")


async def events_of(client: httpx.AsyncClient, job: str) -> AsyncGenerator[tuple[str, Any], None]:
    with anyio.fail_after(BOUND_S):
        async with client.stream("GET", f"/api/jobs/{job}?follow=1") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            kind = ""
            async for line in response.aiter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                if line.startswith("data: "):
                    yield kind, json.loads(line.removeprefix("data: "))


async def followed(client: httpx.AsyncClient, job: str) -> list[tuple[str, Any]]:
    """Return the events of a job until its end."""
    return [event async for event in events_of(client, job)]


async def next_event(client: httpx.AsyncClient, job: str) -> tuple[str, Any]:
    async with contextlib.aclosing(events_of(client, job)) as events:
        return await anext(events)


async def test_a_server_is_installed_called_and_removed_over_http(world: World) -> None:
    world.offer("mcp-server-time", GOOD)
    async with served(world) as client:
        begun = await client.post("/api/install", json={"name": "time"})
        assert begun.status_code == 202
        assert begun.json()["server"]["packages"][0]["package"] == "mcp-server-time"
        job = begun.json()["job"]
        assert begun.headers["location"] == f"/api/jobs/{job['id']}"
        assert (job["verb"], job["server"], job["result"]) == ("install", "time", None)

        *steps, (last, end) = await followed(client, job["id"])
        assert {kind for kind, _ in steps} == {"progress"}
        assert "starting `time` once" in [step["text"] for _, step in steps]
        assert (last, end["job"]["state"], end["job"]["error"]) == ("job", "done", None)
        assert end["job"]["result"]["name"] == "time"
        assert end["job"]["result"]["checked"] is True
        assert end["job"] == (await client.get(f"/api/jobs/{job['id']}")).json()["job"]

        call = {"toolName": "echo", "serverId": "time", "arguments": {"text": "hi"}}
        assert (await client.post("/mcp/call", json=call)).status_code == 200
        gone = await client.delete("/api/servers/time")
        assert gone.status_code == 202
        *_, (_, end) = await followed(client, gone.json()["job"]["id"])
        assert end["job"]["result"]["status"] == "removed"
        assert (await client.get("/api/servers")).json()["servers"] == []
        assert (await client.delete("/api/servers/time")).status_code == 404
        assert len((await client.get("/api/jobs")).json()["jobs"]) == 2


@pytest.mark.parametrize(
    "name",
    [
        "npm:left-pad",
        "pypi:mcp-server-time",
        "https://example.com/mcp",
        "./folder",
        "../folder",
        "/tmp/folder",
        "a/b/c",
        "-y",
        "--help",
        "time@1.0",
        "time --as x",
        "ti\nme",
        "ti\0me",
        "",
        "x" * 300,
    ],
)
async def test_only_names_of_registries_are_taken(name: str) -> None:
    # No runtime: what is refused starts no process.
    with pytest.raises(UsageError):
        check_name(name)


async def test_what_is_no_order_is_refused_and_nothing_is_begun(
    world: World, registry: RegistryServer
) -> None:
    variables = [{"name": "QUOKKA_MODE"}, {"name": "LD_PRELOAD"}]
    one = package("pypi", "quokka-mcp", environmentVariables=variables)
    registry.add("com.example/quokka", one)
    configure(world.home, company=registry.url)
    async with served(world) as client:
        for body, status, code in [
            ({"name": "npm:left-pad"}, 400, "usage"),
            ({"name": "time", "command": ["touch", "x"]}, 400, "usage"),
            ({"package": "pypi:x"}, 400, "usage"),
            ({"name": "tiem"}, 404, "server_not_found"),
            ({"name": "time", "env": {"NODE_OPTIONS": "--require=/x"}}, 400, "usage"),
            ({"name": "com.example/quokka", "env": {"LD_PRELOAD": "/x"}}, 400, "usage"),
            ({"name": "time", "args": ["a\0b"]}, 400, "usage"),
            ({"name": "com.example/x", "registry": "nowhere"}, 404, "not_found"),
        ]:
            answer = await client.post("/api/install", json=body)
            told = answer.json().get("error", {}).get("code")
            assert (answer.status_code, told) == (status, code), answer.text
        for path in ("/api/registry?q=%00", "/api/registry?q=a&limit=%00",
                     "/api/registry/time?registry=%00"):  # fmt: skip
            answer = await client.get(path)
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "usage"), path
        missing = (await client.get("/api/jobs/nothing")).json()
        assert missing["error"]["code"] == "not_found"
        assert (await client.get("/api/jobs")).json() == {"jobs": []}


async def test_variables_and_arguments_are_given_and_a_secret_goes_to_the_store(
    world: World, registry: RegistryServer
) -> None:
    variables = [
        {"name": "QUOKKA_TOKEN", "isRequired": True, "isSecret": True},
        {"name": "QUOKKA_MODE"},
    ]
    key = {"type": "named", "name": "--key", "isSecret": True}
    more: dict[str, Any] = {"environmentVariables": variables, "packageArguments": [key]}
    registry.add("com.example/quokka", package("pypi", "quokka-mcp", **more))
    world.offer("quokka-mcp", ECHO, readme="mcp-name: com.example/quokka")
    configure(world.home, company=registry.url)
    order = {
        "name": "quokka",
        "env": {"QUOKKA_TOKEN": SECRET, "QUOKKA_MODE": "two\nlines"},
        "args": ["--calm", "-x y", "--key", KEY],
    }
    seen: list[str] = []
    answer = world.index.answer

    def watched(path: str) -> bytes | None:
        seen.extend(command_lines())
        return answer(path)

    world.index.answer = watched  # type: ignore[method-assign]
    async with served(world) as client:
        begun = await client.post("/api/install", json=order)
        assert begun.status_code == 202, begun.text
        (known,) = begun.json()["server"]["packages"]
        assert [(v["name"], v["secret"]) for v in known["environment"]] == [
            ("QUOKKA_TOKEN", True),
            ("QUOKKA_MODE", False),
        ]
        events = await followed(client, begun.json()["job"]["id"])
        assert events[-1][1]["job"]["state"] == "done", events
        assert SECRET not in json.dumps(events) + begun.text
        assert KEY not in json.dumps(events) + begun.text
    assert any("octave install" in line for line in seen) or sys.platform != "linux"
    assert not any(KEY in line or SECRET in line for line in seen)
    assert 'QUOKKA_TOKEN = {secret = "quokka/QUOKKA_TOKEN"}' in world.manifest
    assert 'QUOKKA_MODE = "two\\nlines"' in world.manifest
    assert 'args = ["--calm", "-x y", "--key", {secret = "quokka/KEY"}]' in world.manifest
    stored = (world.home / "secrets.toml").read_text(encoding="utf-8")
    for secret in (SECRET, KEY):
        assert secret not in world.manifest + world.lockfile
        assert secret in stored


async def test_what_a_bundle_asks_for_is_told_taken_and_kept(
    world: World, registry: RegistryServer
) -> None:
    start = {"command": "python", "args": [HERE, "--pin=${user_config.pin}"]}
    content = manifest(
        server={"type": "python", "entry_point": "server/main.py", "mcp_config": start},
        user_config={
            "pin": {"type": "string", "sensitive": True, "required": True},
            "mode": {"type": "string", "title": "Mode"},
        },
    )
    with BundleHost() as host:
        url, _, sha256 = host.offer("/quokka.mcpb", bundle(content)).partition("#sha256=")
        one = package("mcpb", url.removeprefix("mcpb:"), fileSha256=sha256)
        registry.add("com.example/quokka", one)
        configure(world.home, company=registry.url)
        async with served(world) as client:
            told = (await client.get("/api/registry/com.example/quokka?inside=1")).json()
            asked = {each["name"]: each for each in told["packages"][0]["environment"]}
            assert [*asked] == ["CONFIG_PIN", "CONFIG_MODE"]
            assert (asked["CONFIG_PIN"]["secret"], asked["CONFIG_PIN"]["required"]) == (True, True)

            order: dict[str, Any] = {"name": "quokka", "env": {"CONFIG_PON": "x"}}
            begun = (await client.post("/api/install", json=order)).json()
            *_, (_, end) = await followed(client, begun["job"]["id"])
            assert end["job"]["error"]["code"] == "usage"
            assert end["job"]["error"]["hint"].startswith("did you mean `CONFIG_PIN`")

            order["env"] = {"CONFIG_PIN": SECRET, "CONFIG_MODE": "calm"}
            begun = (await client.post("/api/install", json=order)).json()
            events = await followed(client, begun["job"]["id"])
            assert events[-1][1]["job"]["result"]["checked"], events
            assert "is given to the server as an argument" in json.dumps(events)
            assert SECRET not in json.dumps(events)
    assert 'CONFIG_PIN = {secret = "quokka/CONFIG_PIN"}' in world.manifest
    assert 'CONFIG_MODE = "calm"' in world.manifest
    assert SECRET in (world.home / "secrets.toml").read_text(encoding="utf-8")


async def test_what_a_verb_says_has_no_secret_in_it(world: World) -> None:
    verbs = Verbs(workspace_of(world), world.environ)
    private = Private(secrets=("postgres", "nowhere-to-be-found"))
    found = await verbs.run("search", ["postgres", "--limit=2"], private=private)
    assert [*found.document[0]][:2] == ["name", "registryName"]
    assert "postgres" not in json.dumps(found.document)
    said = await verbs.run("info", ["nowhere-to-be-found"], private=private)
    assert "`***`" in said.errors[0].message


async def test_an_installation_that_fails_says_why(world: World) -> None:
    async with served(world) as client:
        begun = await client.post("/api/install", json={"name": "time"})
        (_, end) = (await followed(client, begun.json()["job"]["id"]))[-1]
        assert (end["job"]["state"], end["job"]["result"]) == ("failed", None)
        assert end["job"]["error"]["code"] == "package_not_found"
        assert "mcp-server-time" in end["job"]["error"]["message"]


async def test_search_and_info_are_those_of_the_command_line(
    world: World, registry: RegistryServer
) -> None:
    registry.add("com.example/quokka", package("pypi", "quokka-mcp"))
    configure(world.home, company=registry.url)
    async with served(world) as client:
        found = (await client.get("/api/registry", params={"q": "postgres", "limit": 3})).json()
        assert found["errors"] == []
        assert found["servers"] == world.octave("search", "postgres", "--limit", "3", "--json").json
        assert found["servers"][0]["name"] == "postgres"
        (quokka,) = (await client.get("/api/registry", params={"q": "quokka"})).json()["servers"]
        assert quokka["registry"] == "company"
        told = (await client.get("/api/registry/com.example/quokka")).json()
        assert (told["registryName"], told["packages"][0]["kind"]) == ("com.example/quokka", "pypi")
        registry.close()
        # A query is none of the verb's options.
        found = (await client.get("/api/registry", params={"q": "--github"})).json()
        assert found["servers"][0]["name"] == "github"
        assert [error["code"] for error in found["errors"]] == ["registry_unreachable"]
        answer = await client.get("/api/registry/com.example/other")
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "registry_unreachable")


async def test_the_runtime_answers_calls_while_it_installs_and_interrupts_it_when_it_ends(
    world: World,
) -> None:
    world.offer("mcp-server-time", GOOD)
    held = threading.Event()
    answer = world.index.answer

    def withheld(path: str) -> bytes | None:
        held.wait(BOUND_S)
        return answer(path)

    world.index.answer = withheld  # type: ignore[method-assign]
    async with served(world) as client:
        job = (await client.post("/api/install", json={"name": "time"})).json()["job"]
        again = (await client.post("/api/install", json={"name": "time"})).json()["job"]
        assert again["id"] == job["id"]
        first = await next_event(client, job["id"])
        assert first[0] == "progress"
        assert (await client.get("/api/servers")).json()["servers"] == []
        assert (await client.get("/health")).status_code == 200
    held.set()
    assert world.installed() == []
    assert "servers.time" not in world.manifest
    assert list((world.home / "staging").iterdir()) == []


async def test_a_name_has_one_job_at_a_time_and_there_is_a_limit(tmp_path: Path) -> None:
    workspace = Workspace.of_home(Home(tmp_path / "h"))
    release = anyio.Event()

    class Slow(Verbs):
        async def run(self, *_words: Any, **_more: Any) -> Any:
            await release.wait()
            raise ServerBusy("no")

    jobs = Jobs(Slow(workspace, {}))
    async with anyio.create_task_group() as tasks:
        await tasks.start(jobs.run)
        first = jobs.start(Order("install", "a", ("a",)))
        assert jobs.start(Order("install", "a", ("a",))) is first
        for other in (Order("uninstall", "a", ("a",)), Order("install", "a", ("a", "--arg=x"))):
            with pytest.raises(Locked):
                jobs.start(other)
        more = [jobs.start(Order("install", f"b{n}", ())) for n in range(jobs_module.MOST - 1)]
        with pytest.raises(ServerBusy):
            jobs.start(Order("install", "z", ()))
        await anyio.wait_all_tasks_blocked()
        assert sum(job.state == "running" for job in (first, *more)) == jobs_module.AT_ONCE
        release.set()
        await anyio.wait_all_tasks_blocked()
        assert len(jobs) == 0
        assert first.error is not None
        assert first.error.message == "no"
        assert jobs.start(Order("uninstall", "a", ("a",))) is not first
        tasks.cancel_scope.cancel()


async def test_a_step_that_is_counted_stays_one_step_and_its_followers_hear_of_it() -> None:
    job = Job(Order("install", "a", ()))
    count = {"done": 1, "total": 3, "unit": "packages"}
    job.tell("progress", "resolving", {})
    _, seen = job.steps_after(0)
    job.tell("progress", "installing", {})
    job.tell("progress", "installing", count)
    fresh, later = job.steps_after(seen)
    assert [(step["text"], step.get("done")) for step in fresh] == [("installing", 1)]
    job.tell("progress", "installing", {**count, "done": 3})
    fresh, last = job.steps_after(later)
    assert [(step["text"], step.get("done")) for step in fresh] == [("installing", 3)]
    assert job.steps_after(last)[0] == []
    told = [(step["text"], step.get("done")) for step in job.describe()["progress"]]
    assert told == [("resolving", None), ("installing", 3)]


async def test_few_look_at_registries_at_once(tmp_path: Path) -> None:
    workspace = Workspace.of_home(Home(tmp_path / "h"))
    release, running_now, most = anyio.Event(), 0, 0

    class Slow(Verbs):
        async def run(self, *_words: Any, **_more: Any) -> Said:
            nonlocal running_now, most
            running_now += 1
            most = max(most, running_now)
            await release.wait()
            running_now -= 1
            return Said([], ())

    app = Starlette(routes=package_routes(Jobs(Slow(workspace, {}))))
    answers: list[int] = []
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:

        async def search() -> None:
            answers.append((await client.get("/api/registry?q=a")).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(LOOKS_AT_ONCE + LOOKS_WAITING + 2):
                tasks.start_soon(search)
            await anyio.wait_all_tasks_blocked()
            assert answers == [503, 503]
            release.set()
    assert most == LOOKS_AT_ONCE
    assert answers.count(200) == LOOKS_AT_ONCE + LOOKS_WAITING
