"""`proxy` in the verb table, for completion.

`octave proxy` itself never comes here, `__main__` starts the pump before typer is loaded.
"""

from typing import Annotated

import typer

from octave.cli.completion import server_names
from octave.cli.options import manners
from octave.proxy import main


def proxy(
    context: typer.Context,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=server_names)
    ] = None,
    *,
    server: Annotated[
        list[str] | None,
        typer.Option("--server", metavar="NAME", autocompletion=server_names),
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", metavar="P")] = None,
) -> int:
    """Speak MCP on stdio for an AI tool; starts the runtime when none is running."""
    terms = manners(context)
    words = [*(names or ()), *(f"--server={name}" for name in server or ())]
    words += [f"--profile={profile}"] if profile else []
    words += [f"--manifest={terms.manifest}"] if terms.manifest else []
    return main(words)
