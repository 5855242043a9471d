"""`secret`: values that no file of a project may hold. They come from a prompt or from stdin."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from octave.cli import render
from octave.cli.asking import can_ask
from octave.cli.completion import server_names
from octave.cli.options import manners
from octave.cli.output import safe, tell, write, write_json
from octave.errors import (
    MissingAnswer,
    NotFound,
    OctaveError,
    RuntimeNotRunning,
    ServerNotFound,
    UsageError,
    did_you_mean,
)
from octave.home import Workspace
from octave.packages import manifest
from octave.packages.names import check_server_name, check_variable
from octave.packages.secret_uses import Use, uses
from octave.packages.secrets import VALUE_BYTES, Secrets
from octave.remote import Remote

secret = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    help="Keep tokens and passwords: in the system's keyring, else in a file of your own.",
)

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=server_names)]
Key = Annotated[str, typer.Argument(metavar="KEY", help="A variable, as the server calls it.")]


@secret.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        write(context.get_help())


@secret.command("set", context_settings={"allow_extra_args": True})
def set_secret(context: typer.Context, name: Name, key: Key) -> int:
    """Store a value for a server, typed unseen or read from stdin."""
    terms = manners(context)
    if context.args or "=" in key:
        # Not repeated: whoever reads the output must not see it a second time.
        raise UsageError(
            "a secret's value is not taken from the command line, which others can read",
            hint=_pipe(name, key.partition("=")[0]),
        )
    reference = _reference(name, key)
    workspace = terms.workspace()
    secrets = Secrets(workspace.home)
    kept = secrets.set(reference, _value(name, key))
    if terms.as_json:
        write_json({"server": name, "key": key, "status": "stored", "place": kept.place})
        return 0
    write(f"stored {reference} in {_place(workspace, kept.place)}")
    if not terms.quiet:
        if kept.reason:
            tell(f"note: not in the system's keyring: {safe(kept.reason)}")
        for note in _notes(workspace, name, key):
            tell(f"note: {safe(note)}")
    return 0


@secret.command("list")
def list_secrets(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(metavar="NAME", autocompletion=server_names)] = None,
) -> int:
    """List what is stored and what is missing: names only, where, and for which server."""
    terms = manners(context)
    workspace = terms.workspace()
    used = uses(workspace)
    places = Secrets(workspace.home).places()
    rows = [_row(key, places.get(key), used.get(key, ())) for key in _keys(workspace, places, used)]
    if name is not None:
        rows = [row for row in rows if _concerns(row, workspace, name)]
        servers = manifest.load(workspace.manifest).servers
        if not rows and name not in servers:
            raise ServerNotFound(f"no server `{name}`", hint=did_you_mean(name, servers))
    if terms.as_json:
        write_json(rows)
    elif not rows:
        tell("no secrets are stored, and none are missing")
    else:
        render.table(
            ("SERVER", "KEY", "KEPT IN", "USED BY"),
            [
                (
                    row["server"],
                    row["key"],
                    row["place"] or "nowhere: unset",
                    ", ".join(_shown(use, workspace) for use in row["usedBy"]) or "-",
                )
                for row in rows
            ],
        )
    return 0


@secret.command("remove")
def remove(context: typer.Context, name: Name, key: Key) -> int:
    """Forget a value."""
    terms = manners(context)
    workspace = terms.workspace()
    secrets = Secrets(workspace.home)
    reference = f"{name}/{key}"
    if not secrets.remove(reference):
        raise NotFound(
            f"no secret `{reference}` is stored",
            hint=did_you_mean(reference, secrets.places()) or "octave secret list",
        )
    if terms.as_json:
        write_json({"server": name, "key": key, "status": "removed"})
        return 0
    write(f"removed {reference}")
    users = [_shown(_as_json(use), workspace) for use in _users(workspace, reference)]
    if users and not terms.quiet:
        tell(safe(f"warning: without it these do not start: {', '.join(users)}"))
    return 0


def _reference(name: str, key: str) -> str:
    try:
        return f"{check_server_name(name)}/{check_variable(key)}"
    except ValueError as error:
        raise UsageError(str(error), hint="octave secret set NAME KEY") from None


def _value(name: str, key: str) -> str:
    """Return what is typed, or stands on stdin without its last line break."""
    if can_ask():
        return str(typer.prompt(f"Value of {key} for {name}", hide_input=True, err=True))
    raw = b"" if sys.stdin.isatty() else sys.stdin.buffer.read(VALUE_BYTES + 1)
    try:
        value = raw.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise UsageError("what stands on stdin is not UTF-8 text", hint=_pipe(name, key)) from None
    if not value:
        raise MissingAnswer(
            f"no value for `{key}` on stdin, and nobody can be asked", hint=_pipe(name, key)
        )
    if "\0" in value or len(raw) > VALUE_BYTES:
        raise UsageError(
            "what stands on stdin is too long, or not text, for a value", hint=_pipe(name, key)
        )
    return value


def _pipe(name: str, key: str) -> str:
    return f'printf %s "$VALUE" | octave secret set {name} {key}'


def _place(workspace: Workspace, place: str) -> str:
    return "the system's keyring" if place == "keyring" else safe(str(workspace.home.secrets))


def _notes(workspace: Workspace, name: str, key: str) -> Iterable[str]:
    """Yield what is left to do before the server has the value."""
    reference = f"{name}/{key}"
    users = [use.server for use in _users(workspace, reference)]
    try:
        servers = manifest.load(workspace.manifest).servers
    except OctaveError as error:
        yield error.message
        return
    if users:
        yield from (
            f"`{user}` runs with the old value until `octave restart {user}`"
            for user in _running(workspace, users)
        )
    elif name in servers:
        word = "headers.NAME" if servers[name].url else f"env.{key}"
        yield (
            f"`{name}` is given it by `octave set {name} {word}='{{ secret = \"{reference}\" }}'`"
        )
    else:
        near = did_you_mean(name, servers)
        yield f"there is no server `{name}` here yet" + (f"; {near}" if near else "")


def _users(workspace: Workspace, reference: str) -> Sequence[Use]:
    """Return who is given it; none where octave.toml is broken, which is no matter of the store."""
    try:
        return uses(workspace).get(reference, ())
    except OctaveError:
        return ()


def _running(workspace: Workspace, names: Sequence[str]) -> list[str]:
    try:
        with Remote.connect(workspace) as remote:
            servers = remote.request("octave/status", {})["servers"]
    except (RuntimeNotRunning, OctaveError):
        return []
    alive = {server["name"] for server in servers if server["state"] in {"ready", "starting"}}
    return [name for name in names if name in alive]


def _keys(
    workspace: Workspace, places: Mapping[str, Any], used: Mapping[str, Sequence[Use]]
) -> list[str]:
    """Return what is stored, and what servers of this workspace lack."""
    wanted = {
        key
        for key, users in used.items()
        if any(use.manifest == workspace.manifest for use in users)
        # Whoever never logged in lacks nothing.
        and not key.partition("/")[2].startswith("oauth-")
    }
    return sorted({*places, *wanted})


def _row(key: str, place: str | None, users: Sequence[Use]) -> dict[str, Any]:
    server, _, variable = key.partition("/")
    used_by = [_as_json(use) for use in users]
    return {"server": server, "key": variable, "place": place, "usedBy": used_by}


def _as_json(use: Use) -> dict[str, str]:
    return {"server": use.server, "manifest": str(use.manifest)}


def _concerns(row: Mapping[str, Any], workspace: Workspace, name: str) -> bool:
    here = {"server": name, "manifest": str(workspace.manifest)}
    return row["server"] == name or here in row["usedBy"]


def _shown(use: Mapping[str, str], workspace: Workspace) -> str:
    here = use["manifest"] == str(workspace.manifest)
    return use["server"] if here else f"{use['server']} ({use['manifest']})"
