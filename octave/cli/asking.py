"""Questions to a person, on the terminal; answers that must not be seen are typed unseen."""

import os
import sys

import typer

from octave.cli.output import safe, tell
from octave.packages.variables import Question


def can_ask(*, yes: bool = False) -> bool:
    """Whether somebody is there to answer, and wants to be asked."""
    return not yes and sys.stdin.isatty() and "CI" not in os.environ


def ask(question: Question) -> str:
    """Return the value a person types; empty only where the question allows it."""
    if question.description:
        tell(safe(f"{question.name}: {question.description}"))
    words = f"Value of {question.name}"
    if question.optional:
        words += " (Enter: that of your environment)" if question.found else " (Enter: none)"
    default = "" if question.optional else None
    return str(
        typer.prompt(
            words, default=default, show_default=False, hide_input=question.secret, err=True
        )
    )


def confirm(question: str, *, default: bool = False) -> bool:
    """Whether a person says yes; Enter means `default`. Nothing of it gets into stdout.

    Raises:
        typer.Abort: stdin ended instead.
    """
    sys.stderr.write(f"{question} [{'Y/n' if default else 'y/N'}]: ")
    sys.stderr.flush()
    answer = sys.stdin.readline()
    if not answer:
        raise typer.Abort
    return answer.strip().lower() in ({"y", "yes", ""} if default else {"y", "yes"})
