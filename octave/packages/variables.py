"""Variables given at install: what goes into the manifest, and what goes to the secret store.

A secret never comes from argv, where any process could read it, and never lands in the manifest,
which is meant to be committed.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from octave.errors import MissingAnswer, UsageError, did_you_mean
from octave.packages.manifest import Reference, Value
from octave.packages.names import decides_what_runs
from octave.packages.registry import PackageChoice

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET_LOOK = re.compile(
    r"TOKEN|SECRET|PASSW|PASS$|PWD$|KEY$|API_?KEY|PRIVATE_KEY|CREDENTIAL|AUTH$|BEARER|COOKIE|DSN$"
    r"|DATABASE_UR[IL]|CONNECTION_STRING",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Given:
    """What the user gave for one server."""

    values: Mapping[str, Value] = field(default_factory=dict)
    """For the manifest's `env`."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """For the secret store, by its keys `SERVER/VARIABLE`."""


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked for."""

    name: str
    secret: bool
    """The answer must not be seen while it is typed."""
    description: str = ""
    """The registry's words; foreign text."""
    optional: bool = False
    """No answer is an answer."""
    found: bool = False
    """No answer stands for the value that the environment has."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Where values come from: words of `-e`, a file, the environment, or a person."""

    words: tuple[str, ...] = ()
    """`KEY` or `KEY=VALUE`."""
    file: Mapping[str, str] = field(default_factory=dict, repr=False)
    ask: Callable[[Question], str] | None = None
    """Asks a person; the empty text is no answer. None when nobody can be asked."""
    only_known: bool = False
    """Whoever gives them may only give what the server asks for: some decide what runs."""


def is_secret_header(name: str) -> bool:
    """Whether the value of a header of that name says who asks."""
    plain = name.lower().removeprefix("proxy-")
    return plain == "authorization" or _SECRET_LOOK.search(plain.replace("-", "_")) is not None


def is_secret(name: str, known: PackageChoice | None) -> bool:
    """Whether the registry calls `name` a secret; without its word, whether it looks like one."""
    for variable in known.variables if known else ():
        if variable.name == name:
            return variable.secret
    return _SECRET_LOOK.search(name) is not None


def sort(
    server: str,
    answers: Answers,
    known: PackageChoice | None,
    environ: Mapping[str, str],
    settled: Collection[str] = (),
) -> Given:
    """Return the values of `answers` for `server`, secrets apart from plain ones.

    Where a person can be asked, that is done for what `known` requires and nobody gave; variables
    in `settled` are there already.

    Raises:
        UsageError: a malformed word, a secret's value in argv, or a variable nobody asks for.
        MissingAnswer: a variable has no value here and nobody can be asked.
    """
    values: dict[str, str] = dict(answers.file)
    asked = known.asked_env if known is not None else frozenset()
    for word in answers.words:
        name, equals, value = word.partition("=")
        if not _NAME.fullmatch(name):
            # What follows the equals sign may be meant to be a secret.
            raise UsageError(
                f"`-e {name}{equals and '=...'}` names no variable",
                hint="use `-e KEY` or `-e KEY=VALUE`",
            )
        if equals and is_secret(name, known):
            raise UsageError(
                f"`{name}` is a secret, and a command line can be read by others",
                hint=f"export {name} and use `-e {name}`, or use `--env-file FILE`",
            )
        if answers.only_known and (name not in asked or decides_what_runs(name)):
            raise UsageError(
                f"`{server}` has no variable `{name}`",
                hint=did_you_mean(name, asked) or f"octave info {server} --inside",
            )
        values[name] = value if equals else _value(name, answers, known, environ)
    if known is not None and answers.ask is not None:
        values |= _asked(known, answers.ask, environ, {*values, *settled})
    return _sorted(server, values, known)


def _asked(
    known: PackageChoice,
    ask: Callable[[Question], str],
    environ: Mapping[str, str],
    given: Collection[str],
) -> dict[str, str]:
    """Return what a person answers to what is required and not `given`."""

    def answered(names: Collection[str]) -> Iterator[tuple[str, str]]:
        for name in names:
            found = ask(_question(name, known, optional=True, found=name in environ))
            value = found or environ.get(name, "")
            if value:
                yield name, value

    values = dict(answered([name for name in known.required_env if name not in given]))
    groups = known.env_one_of
    if any(set(group) <= set(given) for group in groups):
        return values
    for group in groups:
        # The next way is asked for only by whom the first one does not suit.
        values |= answered([name for name in group if name not in {*given, *values}])
        if set(group) <= {*given, *values}:
            break
    return values


def _question(
    name: str, known: PackageChoice | None, *, optional: bool = False, found: bool = False
) -> Question:
    described = {each.name: each.description for each in known.variables} if known else {}
    return Question(name, is_secret(name, known), described.get(name, ""), optional, found)


def _sorted(server: str, values: Mapping[str, str], known: PackageChoice | None) -> Given:
    plain: dict[str, Value] = {}
    secrets: dict[str, str] = {}
    for name, text in values.items():
        if "\0" in text or (not text.isascii() and _is_broken(text)):
            raise UsageError(f"the value of `{name}` is not text")
        if is_secret(name, known):
            key = f"{server}/{name}"
            secrets[key] = text
            plain[name] = Reference("secret", key)
        else:
            plain[name] = text
    return Given(plain, secrets)


def _is_broken(text: str) -> bool:
    # Bytes of the environment that are not UTF-8 arrive as lone surrogates.
    return any("\ud800" <= character <= "\udfff" for character in text)


_FILE = "`--env-file FILE` names a file with a `KEY=VALUE` on each line"


def read_file(path: Path) -> dict[str, str]:
    """Read lines of `KEY=VALUE`; blank lines, `#` comments, `export ` and outer quotes are allowed.

    Raises:
        UsageError: the file cannot be read, or a line says something else (its number is named).
    """
    try:
        lines: Sequence[str] = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UsageError(f"cannot read `{path}`: {error.strerror}", hint=_FILE) from error
    except UnicodeDecodeError:
        # Its cause would quote the bytes around the fault: secrets.
        raise UsageError(f"cannot read `{path}`: it is not UTF-8 text", hint=_FILE) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip().removeprefix("export ")
        if not text or text.startswith("#"):
            continue
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            raise UsageError(f"`{path}` line {number}: expected `KEY=VALUE`", hint=_FILE)
        found[name.strip()] = _unquoted(value.strip())
    return found


def _value(
    name: str, answers: Answers, known: PackageChoice | None, environ: Mapping[str, str]
) -> str:
    if name in environ:
        return environ[name]
    if answers.ask is not None:
        return answers.ask(_question(name, known))
    raise MissingAnswer(
        f"`{name}` is not set here, and nobody can be asked for it",
        hint=f"export {name}, or use `--env-file FILE`",
    )


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] and value[0] in "'\"":
        return value[1:-1]
    return value
