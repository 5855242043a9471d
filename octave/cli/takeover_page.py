"""How an import is shown: before it is done, afterwards, and as JSON. Secrets never are."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from octave.cli import render
from octave.cli.outcomes import outcome_json
from octave.cli.output import safe, tell, tell_error, write
from octave.clients.configured import Broken, Configured
from octave.clients.document import Change, Connection
from octave.clients.drafts import kind_of
from octave.clients.plan import Left, Look, Row, Written, written
from octave.clients.takeover import Result
from octave.errors import OctaveError
from octave.home import Workspace
from octave.settings import Reference, Value

Move = tuple[Connection, Sequence[str], Change | OctaveError]
"""A file, the names of the entries that were to go, and what became of it."""


def group_lines(workspace: Workspace, rows: Sequence[Row], look: Look) -> Iterator[str]:
    """Yield what would be done for one octave.toml."""
    if not rows:
        return
    yield f"{render.count(len(rows), 'server')} for `{workspace.manifest}`:"
    for row in rows:
        said = written(row, look, workspace.manifest.parent)
        yield f"  {row.name}: {_what(row, said)}"
        for origin in row.origins:
            yield f"    from {_where(origin)}"
        if row.is_present:
            yield "    it is in octave.toml already"
            continue
        yield from (f"    {line}" for line in _details(said))
        yield from (f"    note: {note}" for note in row.notes)


def left_lines(left: Sequence[Left], broken: Sequence[Broken]) -> Iterator[str]:
    """Yield what stays as it is."""
    if left or broken:
        yield "left as it is:"
    for each in left:
        yield f"  {_where(each.origin)}: {each.reason}"
    for file in broken:
        yield f"  {file.client.title}: {file.error.message}"


def _what(row: Row, said: Written) -> str:
    kind = kind_of(row.draft)
    if kind == "remote":
        return f"connects {said.keys['url']}"
    if kind == "command":
        return f"stays a command: {_words(said.keys['command'])}"
    version = said.keys.get("version")
    source = said.keys["package"] + (f"@{version}" if version else "")
    return " ".join(["installs", source, _words(said.args)]).rstrip()


def _words(words: Sequence[Value]) -> str:
    return " ".join(str(w) if isinstance(w, Reference) else shlex.quote(w) for w in words)


def _details(said: Written) -> Iterator[str]:
    for name, value in (*said.env.items(), *said.keys.get("headers", {}).items()):
        yield f"{name} = {value}"
    for key, reason in said.why.items():
        yield f"`{key}` goes to the secret store: {reason}"
    for word, names in said.keys.get("tools", {}).items():
        yield f"{'only' if word == 'allow' else 'without'} the tools {', '.join(names)}"
    if "cwd" in said.keys:
        yield f"in {said.keys['cwd']}"
    if "pass_env" in said.keys:
        yield f"with {', '.join(said.keys['pass_env'])} of the environment"


def _where(origin: Configured) -> str:
    scope = "" if origin.level == "user" else f", {origin.level}"
    return f"{origin.client.title}{scope}: `{origin.name}` in `{origin.file}`"


def tell_moves(moves: Sequence[Move], *, quiet: bool) -> None:
    """Write what became of the files, and what to do next."""
    for link, names, change in moves:
        if isinstance(change, OctaveError):
            tell_error(change, as_json=False)
            continue
        write(safe(f"{change.status} {link.client.id} {change.file}: {', '.join(names)}"))
        for note in change.notes:
            tell(f"note: {safe(note)}")
        if change.backup is not None and not quiet:
            tell(f"backup, without the secrets that moved: {safe(str(change.backup))}")
        place = next((p for p in link.client.places.values() if _is_of(p.names, link)), None)
        if place is not None and not quiet:
            tell(f"next: {place.next_step}")
    if moves and not quiet:
        tell("`octave client undo` puts the entries back")


def _is_of(names: Sequence[str], link: Connection) -> bool:
    return any(str(link.file).endswith(f"/{name}") for name in names)


def row_json(result: Result, workspace: Workspace) -> dict[str, Any]:
    """Return one of the `results`."""
    row, said = result.row, result.said
    return {
        **outcome_json(result.outcome),
        "kind": kind_of(row.draft),
        "manifest": str(workspace.manifest),
        "server": _server_json(said),
        "secrets": [{"key": key, "reason": reason} for key, reason in said.why.items()],
        "from": [_origin_json(origin) for origin in row.origins],
        "notes": list(row.notes),
    }


def _server_json(said: Written) -> dict[str, Any]:
    """Return what octave.toml says, by its keys; references as `{"secret": KEY}`."""
    found = {**said.keys, "args": said.args, "env": said.env}
    return {key: _json(value) for key, value in found.items() if value}


def _json(value: Any) -> Any:
    if isinstance(value, Reference):
        return {value.kind: value.key}
    if isinstance(value, Mapping):
        return {key: _json(item) for key, item in value.items()}
    return [_json(item) for item in value] if isinstance(value, tuple) else value


def _origin_json(origin: Configured) -> dict[str, Any]:
    return {
        "client": origin.client.id,
        "scope": origin.level,
        "file": str(origin.file),
        "name": origin.name,
    }


def left_json(left: Sequence[Left], broken: Sequence[Broken]) -> list[dict[str, Any]]:
    """Return what stays as it is; a file that cannot be read has no name and no scope."""
    entries = [{**_origin_json(each.origin), "reason": each.reason} for each in left]
    for file in broken:
        where = {"client": file.client.id, "scope": None, "file": str(file.file), "name": None}
        entries.append({**where, "reason": file.error.message})
    return entries


def move_json(move: Move, *, dry_run: bool) -> dict[str, Any]:
    """Return one of the `files`."""
    link, names, change = move
    shown: dict[str, Any] = {
        "client": link.client.id,
        "file": str(link.file),
        "status": "failed",
        "removed": list(names),
        "diff": "",
        "backup": None,
        "notes": [],
        "error": None,
    }
    if isinstance(change, OctaveError):
        return {**shown, "removed": [], "error": change.as_json()}
    shown["status"] = "planned" if dry_run else change.status
    shown["diff"] = change.diff
    shown["backup"] = None if change.backup is None else str(change.backup)
    return {**shown, "notes": list(change.notes)}
