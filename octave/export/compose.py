"""A compose.yaml: builds an image that has the servers in it, and runs `octave serve`.

One file, complete: the image is built from a Dockerfile inside, with manifest and lockfile in it.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from octave.export import portable, yaml_text
from octave.export.portable import HOME, OCTAVE, PORT, SERVE, TOKEN, USER, Portable
from octave.export.subject import Exported, Subject

_END = "END_OF_FILE"


class _Interpolated(str):
    """A text in which Compose shall replace variables; in all others a dollar is a dollar."""

    __slots__ = ()


def file(subject: Subject) -> Exported:
    """Return a compose.yaml that builds the image and runs it.

    Raises:
        OctaveError: none of the servers works in a container.
    """
    made = portable.of(subject, [f"octave:{PORT}"])
    health = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{PORT}/health', timeout=5)"
    service = {
        "build": {"dockerfile_inline": _dockerfile(made)},
        "init": True,
        "restart": "unless-stopped",
        "ports": [f"127.0.0.1:{PORT}:{PORT}"],
        "environment": dict(_environment(made)),
        "volumes": [f"data:{HOME}/data", f"logs:{HOME}/logs"],
        "healthcheck": {
            "test": ["CMD", "python", "-c", health],
            "interval": "30s",
            "timeout": "10s",
            "start_period": "30s",
        },
        "security_opt": ["no-new-privileges:true"],
        "cap_drop": ["ALL"],
        "stop_grace_period": "90s",
    }
    document = {
        "name": "octave",
        "services": {"octave": service},
        "volumes": {"data": {}, "logs": {}},
    }
    lines = [
        *portable.about(made, "compose"),
        "Needs Docker Compose 2.17 or newer, for `dockerfile_inline`. Start it with",
        "    docker compose up --build --detach",
        "after these are set in a file `.env` beside this one, or in the environment:",
        f"    {TOKEN}    the token that clients send: `openssl rand -hex 32` makes one",
        *(f"    {each.name}    {each.server}: {each.what}" for each in made.variables),
        f"Clients reach it at http://localhost:{PORT}/mcp with `Authorization: Bearer TOKEN`;",
        f"under any other name than `localhost` or `octave`, add NAME:{PORT} to `allowed_hosts`.",
    ]
    return Exported(
        portable.comment(lines) + yaml_text.dump(_escaped(document)), made.servers, made.notes
    )


def _dockerfile(made: Portable) -> str:
    def copied(name: str, text: str) -> str:
        return f'COPY --chown=octave <<"{_END}" {HOME}/{name}\n{text}{_END}\n'

    return (
        "# syntax=docker/dockerfile:1\n"
        f"FROM python:{made.python}-slim\n"
        f"ARG OCTAVE={OCTAVE}\n"
        f"RUN useradd --uid {USER} --home-dir /octave octave \\\n"
        " && python -m venv /opt/octave \\\n"
        ' && /opt/octave/bin/pip install --no-cache-dir "$OCTAVE" \\\n'
        f" && install -d -o octave -g octave -m 700 /octave {HOME} {HOME}/data {HOME}/logs\n"
        f"ENV HOME=/octave OCTAVE_HOME={HOME} PATH=/opt/octave/bin:/usr/local/bin:/usr/bin:/bin\n"
        "USER octave\n"
        "WORKDIR /octave\n"
        + copied("octave.toml", made.manifest)
        + copied("octave.lock", made.lockfile)
        + "RUN octave install --locked --no-start\n"
        f"CMD {json.dumps(SERVE)}\n"
    )


def _environment(made: Portable) -> Iterator[tuple[str, str]]:
    yield TOKEN, _Interpolated(f"${{{TOKEN}:?set it in .env}}")
    for each in made.variables:
        missing = ":?set it in .env" if each.required else ":-"
        yield each.name, _Interpolated(f"${{{each.name}{missing}}}")


def _escaped(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, _Interpolated):
        return str(value)
    if isinstance(value, str):
        return value.replace("$", "$$")
    return [_escaped(item) for item in value] if isinstance(value, Sequence) else value
