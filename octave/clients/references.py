"""References in the texts of configurations, as each AI tool writes them. Pure.

What stands for a variable alone becomes a reference, so that it still follows the variable. What
mixes one with other text, `Bearer ${TOKEN}`, can only be taken over as it reads now.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from octave.packages.names import check_variable
from octave.settings import Reference

Syntax = Literal["plain", "shell", "dollar", "braces"]
"""`plain`: none. `shell`: `${X}`, `${X:-default}`. `dollar`: `$X`, too. `braces`: `${env:X}`,
`${input:x}`, `${userHome}`, `${workspaceFolder}`."""

_PATTERNS: Mapping[Syntax, re.Pattern[str]] = {
    "shell": re.compile(r"\$\{(?P<env>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}", re.ASCII),
    "dollar": re.compile(
        r"\$\{(?P<env>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}|\$(?P<bare>[A-Za-z_]\w*)", re.ASCII
    ),
    # Names in capitals are none of theirs: they stay, for the server itself to read.
    "braces": re.compile(
        r"\$\{(?:env:(?P<env>[^}:]+)(?::(?P<default>[^}]*))?|input:(?P<input>[^}]+)"
        r"|(?P<word>[a-z][A-Za-z]*|/)|(?P<other>[A-Za-z]+:[^}]*))\}"
    ),
}


class Unclear(ValueError):
    """Why a text cannot be taken over."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the AI tool asks its user for, and keeps where nobody else can read it."""

    id: str
    description: str
    secret: bool
    default: str | None = None
    before: str = ""
    """What stands before the answer, `Bearer `."""
    after: str = ""


@dataclass(frozen=True, slots=True)
class Copied:
    """A text that variables were put into, as they were at that moment."""

    text: str = field(repr=False)
    names: tuple[str, ...]


Meaning = str | Reference | Question | Copied


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What references may lead to."""

    environ: Mapping[str, str] = field(repr=False)
    home: Path
    folder: Path | None = None
    """The project's; None: whichever is open, which is not known."""
    inputs: Mapping[str, Question] = field(default_factory=dict)


def meaning(text: str, syntax: Syntax, around: Surroundings) -> Meaning:
    """Return what `text` stands for.

    Raises:
        Unclear: it needs something that is not known here.
    """
    pattern = _PATTERNS.get(syntax)
    found = list(pattern.finditer(text)) if pattern else []
    if not found:
        return text
    parts = [_part(each, around) for each in found]
    if len(found) == 1 and found[0][0] == text and not isinstance(parts[0], str):
        return _alone(parts[0], around)
    questions = [part for part in parts if isinstance(part, Question)]
    if questions and len(parts) > 1:
        raise Unclear("it mixes what is asked for with other references")
    if questions:
        start, end = found[0].span()
        return _around(questions[0], text[:start], text[end:])
    return _filled(text, found, parts, around)


def _around(question: Question, before: str, after: str) -> Question:
    return Question(
        question.id, question.description, question.secret, question.default, before, after
    )


@dataclass(frozen=True, slots=True)
class _Variable:
    name: str
    default: str | None


def _part(found: re.Match[str], around: Surroundings) -> str | _Variable | Question:
    groups = found.groupdict()
    name = groups.get("env") or groups.get("bare")
    if name:
        try:
            return _Variable(check_variable(name), groups.get("default"))
        except ValueError as error:
            raise Unclear(str(error)) from None
    if groups.get("input"):
        asked = around.inputs.get(groups["input"])
        if asked is None:
            raise Unclear(f"`{found[0]}` is not among the inputs of the file")
        return asked
    return _known_word(found[0], groups.get("word") or "", around)


def _known_word(shown: str, word: str, around: Surroundings) -> str:
    if word == "userHome":
        return str(around.home)
    if word in {"pathSeparator", "/"}:
        return "/"
    if word in {"workspaceFolder", "workspaceRoot", "workspaceFolderBasename"}:
        if around.folder is None:
            raise Unclear(f"`{shown}` depends on the folder that is open")
        return around.folder.name if word.endswith("Basename") else str(around.folder)
    raise Unclear(f"Octave does not know what `{shown}` stands for")


def _alone(part: _Variable | Question, around: Surroundings) -> Meaning:
    if isinstance(part, Question):
        return part
    if part.default is not None and not around.environ.get(part.name):
        return part.default
    return Reference("env", part.name)


def _filled(
    text: str,
    found: list[re.Match[str]],
    parts: list[str | _Variable | Question],
    around: Surroundings,
) -> Meaning:
    names: list[str] = []
    pieces: list[str] = []
    at = 0
    for each, part in zip(found, parts, strict=True):
        pieces.append(text[at : each.start()])
        at = each.end()
        if isinstance(part, _Variable):
            names.append(part.name)
            value = around.environ.get(part.name) or part.default
            if value is None:
                raise Unclear(f"it mixes `{part.name}`, which is not set here, with other text")
            pieces.append(value)
        elif isinstance(part, str):
            pieces.append(part)
    whole = "".join(pieces) + text[at:]
    return Copied(whole, tuple(names)) if names else whole


Read = Callable[[str], Meaning]
"""`meaning` for one file."""
