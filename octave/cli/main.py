"""The verb table, and the edge where errors become messages and exit codes.

A verb's module is imported when the verb is used; it brings one function, whose signature typer
turns into arguments and options.
"""

import contextlib
import importlib
import io
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]  # no `as` there
from typer.core import CompletionItem, TyperCommand, TyperGroup  # type: ignore[attr-defined]

from octave import __version__, errors
from octave.cli import options
from octave.cli.output import tell_error
from octave.cli.parameters import spare_pydantic
from octave.cli.usage import usage_error
from octave.errors import Bug, Interrupted, OctaveError, UsageError, nearest
from octave.home import Home

VERBS: Mapping[str, str] = {
    "search": "search:search_servers",
    "info": "info:info",
    "install": "install:install",
    "add": "add:add",
    "uninstall": "packages:uninstall",
    "list": "listing:list_servers",
    "outdated": "outdated:outdated",
    "update": "update:update",
    "rollback": "update:rollback",
    "pin": "change:pin",
    "unpin": "change:unpin",
    "lock": "packages:lock",
    "approve": "approve:approve_tools",
    "audit": "audit:audit_servers",
    "set": "change:set_keys",
    "enable": "change:enable",
    "disable": "change:disable",
    "edit": "edit:edit",
    "clean": "clean:clean",
    "init": "edit:init",
    "trust": "packages:trust",
    "secret": "secret:secret",
    "auth": "auth:auth",
    "registry": "registry:registry",
    "import": "takeover:import_servers",
    "export": "export:export_servers",
    "serve": "serve:serve",
    "shutdown": "runtime:shutdown",
    "start": "runtime:start",
    "stop": "runtime:stop",
    "restart": "runtime:restart",
    "status": "runtime:status",
    "logs": "logs:logs",
    "tools": "tools:tools",
    "call": "tools:call",
    "run": "run:run",
    "proxy": "proxy:proxy",
    "client": "client:client",
    "completion": "completion:completion",
    "help": "help:help_about",
}
"""Each verb and the function that is it: `MODULE:FUNCTION` in this package."""

ALIASES: Mapping[str, str] = {
    "i": "install",
    "ls": "list",
    "rm": "uninstall",
    "ps": "status",
    "up": "update",
}

_CLICK_ERROR: Any = typer.BadParameter.__mro__[2]
"""Typer carries its own click and exports only this leaf of its usage errors."""


class VerbTable(TyperGroup):
    """The root command: finds a verb's function when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a verb or alias; None when there is none."""
        verb = ALIASES.get(cmd_name, cmd_name)
        return _load(verb) if verb in VERBS else None

    def resolve_command(self, ctx: Any, args: Any) -> Any:
        """Find the verb; an unknown one is told with what it may have been."""
        verb = str(args[0])
        is_known = verb in VERBS or verb in ALIASES or verb.startswith("-")
        if not is_known and not ctx.resilient_parsing:
            near = " or ".join(f"`octave {word}`" for word in nearest(verb, [*VERBS, *ALIASES], 2))
            raise UsageError(
                f"there is no verb `{verb}`",
                hint=f"did you mean {near}?" if near else "octave --help",
            )
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: Any, incomplete: str) -> list[CompletionItem]:
        """Complete a verb from the table alone: loading them all would be felt at every TAB."""
        verbs = [CompletionItem(verb) for verb in VERBS if verb.startswith(incomplete)]
        return verbs or super().shell_complete(ctx, incomplete)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line, or answer a completion script."""
        spare_pydantic()
        # Typer does so itself only where it adds options of its own for it.
        completion_init()
        return super().main(*args, **extra)


def _load(verb: str) -> Any:
    module, _, function = VERBS[verb].partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(f"octave.cli.{module}"), function)
    if isinstance(found, typer.Typer):
        command: Any = typer.main.get_command(found)
        command.name = verb
        for each in (command, *command.commands.values()):
            each.params.extend(_command_of(options.common).params)
        return command
    command = _command_of(found, verb)
    command.params.extend(_command_of(options.common).params)
    return command


def _command_of(function: Callable[..., Any], name: str | None = None) -> TyperCommand:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command(name=name)(function)
    command = typer.main.get_command(app)
    assert isinstance(command, TyperCommand)
    return command


app = typer.Typer(
    cls=VerbTable,
    add_completion=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _octave(
    *,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """The package manager and runtime for MCP servers."""
    if version:
        sys.stdout.write(f"octave {__version__}\n")
        raise typer.Exit


def run(words: Sequence[str]) -> int:
    """Run one command line and return its exit code; never raises."""
    signal.signal(signal.SIGTERM, _interrupt)
    _open_streams()
    # Behind `--` are words for a server.
    own = words[: words.index("--")] if "--" in words else words
    as_json = "--json" in own
    try:
        return _invoke(words or ["--help"])
    except OctaveError as error:
        tell_error(error, as_json=as_json)
        return error.exit_code
    except _CLICK_ERROR as error:
        tell_error(usage_error(error, own, {*VERBS, *ALIASES}), as_json=as_json)
        return UsageError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        tell_error(Interrupted("interrupted"), as_json=as_json)
        return Interrupted.exit_code
    except BrokenPipeError:
        # The reader of the pipe has seen enough.
        _drop_stdout()
        return 0
    except Exception as error:  # noqa: BLE001 - the CLI is one of the four edges
        return _unexpected(error, as_json=as_json)


def _invoke(words: Sequence[str]) -> int:
    command = typer.main.get_command(app)
    result = command.main(
        list(words), prog_name="octave", standalone_mode=False, obj=options.Manners()
    )
    sys.stdout.flush()
    if result == Interrupted.exit_code:
        # That is how typer tells of Ctrl-C.
        raise KeyboardInterrupt
    return result if isinstance(result, int) else 0


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _open_streams() -> None:
    """Make stdout and stderr take any text, whatever the locale; a closed one swallows it."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            # Else the next file that is opened would get the number, and our lines.
            mode = "r" if number == 0 else "w"
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115
        elif number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _drop_stdout() -> None:
    # Python writes what is left in the buffer at exit, and would complain once more.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(error: Exception, *, as_json: bool) -> int:
    storage = errors.from_os_error(error) if isinstance(error, OSError) else None
    if storage is not None:
        if isinstance(error, OSError) and error.filename is None:
            _drop_stdout()
        tell_error(storage, as_json=as_json)
        return storage.exit_code
    path = _report(error)
    bug = Bug(
        f"this is a bug in Octave: {type(error).__name__}: {error}",
        hint=f"a report to send along is in `{path}`",
        details={"report": str(path)},
    )
    tell_error(bug, as_json=as_json)
    return bug.exit_code


def _report(error: Exception) -> Path:
    text = "".join(traceback.format_exception(error))
    folders = [Path(tempfile.gettempdir())]
    content = f"octave {__version__}\npython {sys.version}\nplatform {sys.platform}\n\n{text}"
    with contextlib.suppress(OctaveError):
        folders.insert(0, Home.find(os.environ).root / "reports")
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            number, path = tempfile.mkstemp(".txt", time.strftime("octave-bug-%Y%m%d-"), folder)
            with os.fdopen(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(content)
        except OSError:
            continue
        return Path(path)
    return Path("nowhere: the disk is full")
