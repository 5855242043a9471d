"""What typer says about words that do not fit, as one sentence and a hint in Octave's manner."""

import re
from collections.abc import Collection, Sequence
from typing import Any

from octave.errors import UsageError, nearest


def usage_error(error: Any, words: Sequence[str], verbs: Collection[str]) -> UsageError:
    """Return `error`, one of typer's usage errors, in our words.

    Args:
        error: what typer raised.
        words: the command line; it names the verb where typer does not.
        verbs: those there are, aliases too.
    """
    context = getattr(error, "ctx", None)
    verb = next((word for word in words if word in verbs), None)
    command = (
        context.command_path if context is not None else " ".join(filter(None, ("octave", verb)))
    )
    option = getattr(error, "option_name", None)
    # Without the dashes, which would make all of them alike.
    known = {each.lstrip("-"): each for each in getattr(error, "possibilities", None) or ()}
    near = [known[name] for name in nearest(option.lstrip("-"), known, 1)] if option else []
    # `format_message` would list every option that has a letter in common.
    text = error.message if option else error.format_message()
    text, _, meant = re.sub(r"\s+", " ", text).partition(" Did you mean ")
    near += [f"{command} {name}" for name in re.findall("'([^']+)'", meant)]
    hint = f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else None
    return UsageError(_in_backquotes(text), hint=hint or f"{command} --help")


def _in_backquotes(text: str) -> str:
    """Return the sentence with its names in backquotes, and without what only a program means."""
    text = text.replace("Value error, ", "").strip().rstrip(".")
    text = re.sub(r"^(No such option): (\S+)$", r"\1 `\2`", text)
    text = re.sub(r"(Got unexpected extra argument)(?:\(s\)|s)? \((.*)\)$", r"\1 `\2`", text)
    return re.sub(r"(?<!\w)'([^']*)'(?!\w)", r"`\1`", text)
