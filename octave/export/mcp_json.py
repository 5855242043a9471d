"""`mcpServers` as Claude Code, Claude Desktop, Cursor and others read it.

Standing alone, with the locked versions for `npx` and `uvx`; or through Octave.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from octave.clients import looks
from octave.clients.table import Command
from octave.export.subject import Exported, Item, Subject
from octave.home import Workspace
from octave.packages import containers
from octave.packages.lockfile import Pin
from octave.packages.manifest import Reference, Value


def through_octave(subject: Subject, lead: Command) -> Exported:
    """Return an entry for each server that starts `octave proxy NAME`; `lead` starts the proxy."""
    names = tuple(item.server.name for item in subject.items)
    servers = {
        name: {"command": lead.program, "args": [*lead.args, name], "env": dict(lead.env)}
        for name in names
    }
    return Exported(_text(servers), names, ("these entries work for this Octave and home alone",))


def standing_alone(subject: Subject) -> Exported:
    """Return an entry for each server that needs no Octave: exact versions, `${VAR}` for values."""
    servers: dict[str, Any] = {}
    notes: list[str] = []
    for item in subject.items:
        name = item.server.name
        found = _entry(item, subject.workspace, notes.append)
        if found is not None:
            servers[name] = found
            notes += [f"`{name}`: {note}" for note in _lost(item)]
    for variable in subject.variables:
        if variable.server in servers:
            notes.append(f"set `{variable.name}` for `{variable.server}`: {variable.what}")
    if any(item.pin is not None and item.pin.kind in {"npm", "pypi"} for item in subject.items):
        notes.append("npx and uvx look up anew what a package depends on: only it has its version")
    if subject.variables:
        notes.append("Claude Desktop does not replace `${NAME}`: put the values there by hand")
    return Exported(_text(servers), tuple(servers), tuple(notes))


def _text(servers: Mapping[str, Any]) -> str:
    return json.dumps({"mcpServers": servers}, indent=2, ensure_ascii=False) + "\n"


def _entry(item: Item, workspace: Workspace, note: Callable[[str], None]) -> dict[str, Any] | None:
    """Return the entry of one server; None where it cannot have one, which is noted."""
    server, pin = item.server, item.pin
    if server.url is not None:
        if looks.why_value(server.url) is not None:
            note(f"`{server.name}` is left out: its address holds a secret")
            return None
        headers = {name: _word(value) for name, value in server.headers.items()}
        return {"type": "http", "url": server.url, **({"headers": headers} if headers else {})}
    data = str(workspace.data(server.name))
    env = {name: f"${{{name}}}" for name in server.pass_env}
    if pin is not None:
        env |= {name: value.replace("{data}", data) for name, value in pin.env.items()}
    env |= {name: _word(value) for name, value in server.env.items()}
    if pin is None:
        words = [_word(word) for word in server.command or ()]
        if Path(words[0]).is_absolute() or "/" in words[0]:
            note(f"`{server.name}` starts `{words[0]}`, which other machines may not have")
    elif pin.kind not in _LAUNCHERS:
        note(f"`{server.name}` is left out: nothing but Octave starts `{server.package}`")
        return None
    else:
        fixed = [word.replace("{data}", data) for word in pin.args]
        words = [*_LAUNCHERS[pin.kind](item, pin), *fixed]
    words += [_word(word) for word in server.args]
    if data in " ".join([*words, *env.values()]):
        note(f"the data of `{server.name}` stays in `{data}`, on this machine")
    entry: dict[str, Any] = {"command": words[0], "args": words[1:]}
    if env:
        entry["env"] = env
    if server.cwd is not None:
        entry["cwd"] = str(workspace.manifest.parent / Path(server.cwd).expanduser())
    return entry


def _npx(item: Item, pin: Pin) -> list[str]:
    executable = item.server.executable or (item.known.executable if item.known else None)
    package = f"{pin.package}@{pin.version}"
    # npx finds out by itself only what is called like its package.
    if executable and executable != pin.package.rpartition("/")[2]:
        return ["npx", "-y", f"--package={package}", executable]
    return ["npx", "-y", package]


def _uvx(item: Item, pin: Pin) -> list[str]:
    limits = [word for limit in pin.constraints for word in ("--with", limit)]
    return ["uvx", "--from", f"{pin.package}=={pin.version}", *limits, pin.entry]


def _docker(item: Item, pin: Pin) -> list[str]:
    names = dict.fromkeys((*pin.env, *item.server.env, *item.server.pass_env))
    passed = [word for name in names for word in ("-e", name)]
    image = containers.reference(pin.package, pin.integrity)
    return ["docker", "run", "-i", "--rm", "--init", *passed, image]


_LAUNCHERS: Mapping[str, Callable[[Item, Pin], Sequence[str]]] = {
    "npm": _npx,
    "pypi": _uvx,
    "oci": _docker,
}


def _lost(item: Item) -> Iterator[str]:
    """Yield what of it no such entry can say."""
    server = item.server
    if server.tools_allow or server.tools_deny:
        yield "which of its tools are shown is not carried over"
    if item.pin is not None and item.pin.kind == "npm" and item.pin.constraints:
        yield f"npx knows no limits such as `{item.pin.constraints[0]}`"
    if server.mounts:
        yield "which folders its container sees is not carried over"
    if any("${" in word for word in (*server.args, *server.env.values()) if isinstance(word, str)):
        yield "it has a `${` that is meant as it stands, and AI tools replace it"


def _word(value: Value) -> str:
    return f"${{{value.key}}}" if isinstance(value, Reference) else value
