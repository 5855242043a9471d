"""`help`: a verb's help, and the table of exit codes."""

from typing import Annotated, Any

import typer

from octave.cli.options import manners
from octave.cli.output import write, write_json
from octave.errors import EXIT_CODES, UsageError, did_you_mean
from octave.proxy import USAGE

EXIT_CODES_TOPIC = "exit-codes"


def _topics(context: typer.Context, incomplete: str) -> list[str]:
    root: Any = context.find_root()
    known = [*root.command.list_commands(root), EXIT_CODES_TOPIC]
    return [name for name in known if name.startswith(incomplete)]


def help_about(
    context: typer.Context,
    topic: Annotated[str | None, typer.Argument(metavar="VERB", autocompletion=_topics)] = None,
) -> int:
    """Explain a verb, or `exit-codes`."""
    as_json = manners(context).as_json
    if topic == EXIT_CODES_TOPIC:
        if as_json:
            write_json([{"code": code, "means": means} for code, means in EXIT_CODES.items()])
        else:
            write("\n".join(f"{code:>3}  {means}" for code, means in EXIT_CODES.items()))
        return 0
    text = _help_of(context, topic)
    if as_json:
        write_json({"verb": topic, "text": text})
    else:
        write(text)
    return 0


def _help_of(context: typer.Context, verb: str | None) -> str:
    root: Any = context.find_root()
    if verb is None:
        return str(root.get_help())
    if verb == "proxy":
        # It reads its words without typer.
        return USAGE.rstrip()
    command = root.command.get_command(root, verb)
    if command is None:
        close = did_you_mean(verb, _topics(context, ""))
        raise UsageError(f"there is no verb `{verb}`", hint=close or "octave --help")
    with typer.Context(command, info_name=verb, parent=root) as inner:
        return str(command.get_help(inner))
