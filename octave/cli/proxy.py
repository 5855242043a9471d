"""`proxy` in the verb table: for `--help` and for options before the verb.

`octave proxy` itself never comes here, `__main__` starts the pump before typer is loaded.
"""

from typing import Annotated

import typer

from octave.cli.options import manners
from octave.proxy import main


def proxy(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    *,
    server: Annotated[
        list[str] | None, typer.Option("--server", help="The same as NAME; repeatable.")
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="A profile's servers.")] = None,
) -> int:
    """Speak MCP on stdio for an AI tool; starts the runtime when none is running."""
    terms = manners(context)
    words = [*(names or ()), *(f"--server={name}" for name in server or ())]
    words += [f"--profile={profile}"] if profile else []
    words += [f"--manifest={terms.manifest}"] if terms.manifest else []
    return main(words)
