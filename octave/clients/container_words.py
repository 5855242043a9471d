"""The words of `docker run`: what is a secret there goes by the environment. Pure.

docker takes `-e NAME` from its own environment, which only its user can read; `-e NAME=VALUE`
stands in the list of processes.
"""

from collections.abc import Iterator, Sequence

from octave.clients import looks
from octave.clients.references import Copied, Meaning

PROGRAMS = frozenset(("docker", "podman"))

_ALONE = frozenset(
    (
        *("-i", "-t", "-d", "-P", "-q", "-it", "-ti", "-id", "-di", "-itd", "-dit"),
        *("--interactive", "--tty", "--detach", "--rm", "--init", "--privileged", "--read-only"),
        *("--publish-all", "--quiet", "--no-healthcheck", "--oom-kill-disable", "--replace"),
    )
)
"""Options that take no value; what follows any other is its value."""
_VARIABLE = ("-e", "--env")


def without_values(words: Sequence[Meaning]) -> tuple[list[Meaning], dict[str, Meaning]]:
    """Return `words` with `-e NAME` for each secret `-e NAME=VALUE`, and the values by name.

    `words` begin with the program.
    """
    kept, values = list(words), dict[str, Meaning]()
    for number in _variables(words):
        word = words[number]
        text = _text(word)
        head = "--env=" if text.startswith("--env=") else ""
        name, equals, value = text.removeprefix(head).partition("=")
        if equals and name.isidentifier() and looks.why_secret(name, value):
            kept[number] = head + name
            values[name] = Copied(value, word.names) if isinstance(word, Copied) else value
    return kept, values


def _variables(words: Sequence[Meaning]) -> Iterator[int]:
    """Yield where docker's own options set a variable: behind the image words are the server's."""
    if len(words) < 2 or words[1] != "run":
        return
    number = 2
    while number < len(words) and _text(words[number]).startswith("-"):
        text = _text(words[number])
        if text in _VARIABLE and number + 1 < len(words):
            yield number + 1
        elif text.startswith("--env="):
            yield number
        number += 1 if text in _ALONE or "=" in text else 2


def _text(word: Meaning) -> str:
    """Return what is known of a word; empty for what only the start will tell."""
    return word.text if isinstance(word, Copied) else word if isinstance(word, str) else ""
