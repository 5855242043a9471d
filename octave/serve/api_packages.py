"""The routes of packages: what the registries have, installing by name, removing.

Only names of registries are taken: no route takes a command, a package, an address or a folder.
Of variables only those that the registry's entry names can be given.
"""

import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

import anyio
import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from octave.errors import ServerBusy, ServerNotFound, UsageError, did_you_mean
from octave.packages import manifest
from octave.packages.names import decides_what_runs
from octave.packages.secrets import VALUE_BYTES
from octave.serve.answers import json_response, route
from octave.serve.jobs import Job, Jobs, Order
from octave.serve.methods import read_params
from octave.serve.sse import COMMENT, HEADERS
from octave.serve.verbs import Private, Said

ALIVE_S = 15.0
"""Between two signs of life of a job that has nothing to tell; proxies give up after 30 s."""

LOOKS_AT_ONCE = 3
"""Searches and the like: a process each, of some 30 MB, for a quarter of a second offline."""
LOOKS_WAITING = 32
"""Whoever types in a search field asks that often at most, and is answered in time."""

_NAME = re.compile(
    r"[a-z0-9][a-z0-9-]{0,39}|[a-zA-Z0-9][a-zA-Z0-9.-]*/[a-zA-Z0-9_-][a-zA-Z0-9._-]*"
)
"""A short name or a full one; neither is a package with its kind, an address or a folder."""
_NAME_CHARACTERS = 200
ARGS = "OCTAVE_ARGS"
"""The variable in which arguments travel to the verb: others can read argv."""
_ARGUMENTS = 64
_NO = frozenset(("", "0", "false"))
_SEARCH_OPTIONS = ("limit", "category", "registry")


class _Install(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    env: dict[str, str] = {}
    args: list[str] = []
    registry: str | None = None


def package_routes(jobs: Jobs) -> list[Route]:
    """Return the routes; the `run` of `jobs` is the caller's."""
    api = _Packages(jobs)
    return [
        route("GET", "/api/registry", api.search),
        route("GET", "/api/registry/{name:path}", api.info),
        route("POST", "/api/install", api.install),
        route("DELETE", "/api/servers/{name}", api.uninstall),
        route("GET", "/api/jobs", api.jobs),
        route("GET", "/api/jobs/{id}", api.job),
    ]


class _Packages:
    """One method for each route."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._verbs = jobs.verbs
        self._looks = anyio.Semaphore(LOOKS_AT_ONCE)
        self._manifest = jobs.verbs.workspace.manifest

    async def search(self, request: Request) -> Response:
        asked = request.query_params
        words = [f"--{name}={asked[name]}" for name in _SEARCH_OPTIONS if name in asked]
        # A query is no option, whatever it begins with.
        words += ["--", asked.get("q", "")]
        said = await self._look("search", words)
        if said.document is None:
            raise said.errors[0]
        errors = [error.as_json() for error in said.errors]
        return json_response({"servers": said.document, "errors": errors})

    async def info(self, request: Request) -> Response:
        name = check_name(request.path_params["name"])
        asked = request.query_params
        more = ["--inside"] if asked.get("inside", "") not in _NO else []
        return json_response(await self._entry(name, asked.get("registry"), more))

    async def install(self, request: Request) -> Response:
        wanted = read_params(await request.body(), _Install)
        name = check_name(wanted.name)
        _check_arguments(wanted.args)
        entry = await self._entry(name, wanted.registry)
        _check_variables(wanted.env, entry)
        words = [name, "-y", "--only-asked", *(f"-e{key}" for key in sorted(wanted.env))]
        words += _registry_option(wanted.registry)
        variables = dict(wanted.env)
        if wanted.args:
            words.append(f"--args-in={ARGS}")
            variables[ARGS] = json.dumps(wanted.args)
        private = Private(variables, tuple(_secrets(wanted, entry)))
        job = self._jobs.start(Order("install", entry["name"], tuple(words), private))
        return _accepted(job, {"server": entry})

    async def uninstall(self, request: Request) -> Response:
        name = request.path_params["name"]
        known = manifest.load(self._manifest).servers
        if name not in known:
            raise ServerNotFound(
                f"`{name}` is not in `{self._manifest.name}`",
                hint=did_you_mean(name, known) or "octave list",
            )
        return _accepted(self._jobs.start(Order("uninstall", name, (name,))))

    async def jobs(self, _: Request) -> Response:
        return json_response({"jobs": [job.describe() for job in self._jobs.list()]})

    async def job(self, request: Request) -> Response:
        job = self._jobs.get(request.path_params["id"])
        if request.query_params.get("follow", "") in _NO:
            return json_response({"job": job.describe()})
        headers = {name.decode(): value.decode() for name, value in HEADERS}
        return StreamingResponse(_events(job), headers=headers)

    async def _entry(
        self, name: str, registry: str | None, more: Sequence[str] = ()
    ) -> dict[str, Any]:
        said = await self._look("info", [name, *_registry_option(registry), *more])
        if said.errors or not isinstance(said.document, dict):
            raise said.errors[0]
        if "registryName" not in said.document:
            raise ServerNotFound(f"`{name}` comes from no registry", hint="GET /api/registry?q=")
        return said.document

    async def _look(self, verb: str, words: list[str]) -> Said:
        if any("\0" in word for word in words):
            raise UsageError("a NUL character is in what is asked for")
        if self._looks.statistics().tasks_waiting >= LOOKS_WAITING:
            raise ServerBusy("too many want to know about registries", hint="try again later")
        async with self._looks:
            return await self._verbs.run(verb, words, in_folder=verb == "search")


def _registry_option(registry: str | None) -> list[str]:
    return [f"--registry={registry}"] if registry else []


def check_name(name: str) -> str:
    """Return `name` when it is one that a registry may have.

    Raises:
        UsageError: it is not.
    """
    if len(name) > _NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise UsageError(
            f"`{name[:_NAME_CHARACTERS]}` is no name of a server in a registry",
            hint="packages, commands and addresses are for the command line: `octave install`",
        )
    return name


def _check_arguments(args: Sequence[str]) -> None:
    if len(args) > _ARGUMENTS or any("\0" in word for word in args):
        raise UsageError("`args` are no arguments that a program can be given")
    if len(json.dumps(args)) + len(ARGS) + len("=\0") > VALUE_BYTES:
        raise UsageError(f"`args` are longer than {VALUE_BYTES // 1024} KiB")


def _check_variables(env: Mapping[str, str], entry: Mapping[str, Any]) -> None:
    """Refuse what the entry does not name: a variable may decide what is run.

    With `--only-asked` the verb does so again.
    """
    packages = entry.get("packages", ())
    known = {variable["name"] for package in packages for variable in package["environment"]}
    known |= {
        name for package in packages for group in package["environmentOneOf"] for name in group
    }
    # What a bundle asks for stands in the bundle, where the verb looks.
    is_told = not any(package["preferred"] and package["kind"] == "mcpb" for package in packages)
    for name, value in env.items():
        if (is_told and name not in known) or decides_what_runs(name):
            raise UsageError(
                f"`{entry['name']}` has no variable `{name}`",
                hint=did_you_mean(name, known) or f"GET /api/registry/{entry['name']}",
            )
        if "\0" in value:
            raise UsageError(f"the value of `{name}` is not text")


def _secrets(wanted: _Install, entry: Mapping[str, Any]) -> Iterator[str]:
    """Yield what must not be shown of an order; which argument is which, only the verb knows."""
    packages = entry.get("packages", ())
    said = [each for package in packages for each in package["environment"]]
    is_open = {each["name"] for each in said} - {each["name"] for each in said if each["secret"]}
    yield from (value for name, value in wanted.env.items() if name not in is_open)
    arguments = [each for package in packages for each in package["arguments"]]
    options = {each["name"] for each in arguments}
    if any(each["secret"] for each in arguments):
        for word in wanted.args:
            name, _, value = word.partition("=")
            yield value if name in options else word


def _accepted(job: Job, more: Mapping[str, Any] | None = None) -> Response:
    where = {"location": f"/api/jobs/{job.id}"}
    return json_response({"job": job.describe(), **(more or {})}, 202, where)


async def _events(job: Job) -> AsyncIterator[bytes]:
    """Yield server-sent events: `progress` for each step, then `job`, the whole of it."""
    seen = 0
    while True:
        fresh, seen = job.steps_after(seen)
        for step in fresh:
            yield _event("progress", step)
        if not fresh and job.is_over:
            break
        if not fresh:
            with anyio.move_on_after(ALIVE_S) as silence:
                await job.news.wait()
            if silence.cancelled_caught:
                yield COMMENT
    yield _event("job", {"job": job.describe()})


def _event(kind: str, value: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), msgspec.json.encode(value))
