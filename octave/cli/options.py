"""The options every verb has, declared once, and what they add up to.

The verb table appends them to each command; their values land in the context's `Manners`.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from octave.errors import UsageError
from octave.home import Home, Workspace, find_workspace


@dataclass(slots=True)
class Manners:
    """How this invocation wants to be spoken to, and about which workspace."""

    as_json: bool = False
    quiet: bool = False
    verbose: bool = False
    manifest: str | None = None
    home_only: bool = False

    def workspace(self, *, may_be_missing: bool = False) -> Workspace:
        """Return the workspace of --manifest, OCTAVE_MANIFEST, this folder, or the home.

        Raises:
            UsageError: the manifest that was named is not there, and must be.
        """
        home = Home.find(os.environ)
        named = self.manifest or os.environ.get("OCTAVE_MANIFEST")
        try:
            folder = Path.cwd()
        except FileNotFoundError as error:
            raise UsageError("the current folder does not exist any more", hint="cd") from error
        found = find_workspace(home, folder, named, home_only=self.home_only)
        if not (may_be_missing or found.is_home or found.manifest.exists()):
            raise UsageError(
                f"there is no `{found.manifest}`", hint="`octave install NAME` makes one"
            )
        return found


def manners(context: typer.Context) -> Manners:
    """Return the `Manners` of the running command."""
    found = context.find_root().obj
    assert isinstance(found, Manners)
    return found


def _set(context: typer.Context, parameter: typer.CallbackParam, value: object) -> object:
    # A default must not undo what the same option said before the verb.
    if value and parameter.name:
        setattr(manners(context), parameter.name, value)
    return value


def common(
    *,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="One JSON document on stdout.", callback=_set, expose_value=False
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="No progress, no notes.", callback=_set, expose_value=False
        ),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="More notes.", callback=_set, expose_value=False),
    ] = False,
    manifest: Annotated[
        str | None,
        typer.Option(
            "--manifest",
            metavar="PATH",
            help="The octave.toml to use; default: the nearest one, else the home's.",
            callback=_set,
            expose_value=False,
        ),
    ] = None,
    home_only: Annotated[
        bool,
        typer.Option(
            "--global",
            "-g",
            help="Use the home's octave.toml, whatever this folder has.",
            callback=_set,
            expose_value=False,
        ),
    ] = False,
) -> None:
    """Carry the common options; never called."""
