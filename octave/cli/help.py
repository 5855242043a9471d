"""`help`: a verb's help, and the table of exit codes."""

from typing import Annotated, Any

import typer

from octave.cli.output import write
from octave.errors import EXIT_CODES, UsageError, did_you_mean

TOPICS = ("exit-codes",)


def help_about(
    context: typer.Context, topic: Annotated[str | None, typer.Argument(metavar="[VERB]")] = None
) -> int:
    """Explain a verb, or `exit-codes`."""
    root = context.find_root()
    if topic is None:
        write(root.get_help())
        return 0
    if topic == "exit-codes":
        for code, meaning in EXIT_CODES.items():
            write(f"{code:>3}  {meaning}")
        return 0
    table: Any = root.command
    command = table.get_command(root, topic)
    if command is None:
        known = [*table.list_commands(root), *TOPICS]
        raise UsageError(f"there is no verb `{topic}`", hint=did_you_mean(topic, known))
    with typer.Context(command, info_name=topic, parent=root) as inner:
        write(command.get_help(inner))
    return 0
