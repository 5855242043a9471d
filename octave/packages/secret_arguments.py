"""Arguments that a registry calls secret: their values into the store, references in their place.

An option's value is known by the option before it. Any other word is secret where the registry
names a secret argument without an option.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

from octave.errors import UsageError
from octave.packages import templates
from octave.packages.entries import Argument, PackageChoice
from octave.packages.variables import Question
from octave.settings import Reference, Value

_OPTION = re.compile(r"--?[A-Za-z]")


@dataclass(frozen=True, slots=True)
class Place:
    """What stands at one place of a command line."""

    option: str = ""
    """The one it is the value of, or is; with its dashes. Empty: none."""
    has_value: bool = True
    """False: the bare name of an option."""
    said: bool | None = None
    """Whether the registry calls the value secret; None: it does not say."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Arguments as a manifest may hold them."""

    args: tuple[Value, ...]
    names: tuple[str, ...] = ()
    """What the registry calls those that are secret, references too."""
    secrets: dict[str, str] = field(default_factory=dict, repr=False)
    """For the secret store, by its keys `SERVER/VARIABLE`."""


def places(words: Sequence[object], arguments: Collection[Argument]) -> Iterator[Place]:
    """Yield the place of each of `words`; what is no text may be a value of any kind."""
    named = {each.name: each for each in arguments if each.name is not None}
    bare = any(each.secret for each in arguments if each.name is None) or None
    before = ""
    for word in words:
        known = named.get(before)
        is_awaited = known is not None and known.secret and known.format != "boolean"
        if isinstance(word, str) and _OPTION.match(word) and not is_awaited:
            name, equals, _ = word.partition("=")
            said = named[name].secret if name in named else None
            yield Place(name, bool(equals), said)
            is_switch = bool(equals) or (name in named and named[name].format == "boolean")
            before = "" if is_switch else name
        else:
            yield Place(before, said=known.secret if known is not None else bare)
            before = ""


def hide(server: str, args: Sequence[Value], known: PackageChoice | None) -> Hidden:
    """Return `args` with a reference in the place of each word that `known` calls secret."""
    arguments = known.arguments if known is not None else ()
    taken = {variable.name for variable in known.variables} if known is not None else set()
    options = {argument.name for argument in arguments}
    shown: list[Value] = []
    names: list[str] = []
    secrets: dict[str, str] = {}
    for word, place in zip(args, places(args, arguments), strict=True):
        if not (place.has_value and place.said):
            shown.append(word)
            continue
        name = place.option if place.option in options else _unnamed(arguments)
        names.append(name)
        if not isinstance(word, str):
            shown.append(word)
            continue
        key = _free(server, label(name), {*secrets, *(f"{server}/{each}" for each in taken)})
        secrets[key] = word
        shown.append(Reference("secret", key))
    return Hidden(tuple(shown), tuple(dict.fromkeys(names)), secrets)


def require_hidden(hidden: Hidden, command: str, option: str) -> None:
    """Do nothing when `hidden` has no secret: its words were typed where others can read them.

    `command` was it, and `option` how it takes an argument.

    Raises:
        UsageError: it has one; its value is not repeated.
    """
    if not hidden.secrets:
        return
    key = next(iter(hidden.secrets))
    raise UsageError(
        f"{_quoted(hidden.names)} is a secret, and a command line can be read by others",
        hint=f"octave secret set {key.replace('/', ' ')}, then {command} with "
        f"{option}'{{ secret = \"{key}\" }}' in the place of the value",
    )


def asked(known: PackageChoice | None, ask: Callable[[Question], str]) -> list[str]:
    """Return the arguments that `known` requires, as a person answers; secrets alone are asked for.

    Empty: it requires others, too, or one is not answered.
    """
    needed = known.required_arguments if known is not None else ()
    if not all(argument.secret for argument in needed):
        return []
    words: list[str] = []
    for argument in needed:
        name = argument.name or argument.placeholder
        answer = ask(Question(name, secret=True, description=argument.description, optional=True))
        if not answer:
            return []
        words += [argument.name, answer] if argument.name else [answer]
    return words


def told(hidden: Hidden) -> str:
    """Return what whoever installs should know of the secrets in `hidden`, a sentence."""
    return (
        f"{_quoted(hidden.names)} is kept out of `octave.toml`; the server takes it as an "
        "argument alone, which other users of this machine can see while it runs"
    )


def passed_on(known: PackageChoice | None) -> str:
    """Return what to know of secret variables that `known` makes arguments of, a sentence.

    Empty: there are none. Only bundles have such.
    """
    words = [each.value or "" for each in known.arguments] if known is not None else []
    found = {name for word in words for name in templates.names(word)}
    secret = sorted(found & known.secret_env) if known is not None else []
    if not secret:
        return ""
    return (
        f"{_quoted(secret)} is given to the server as an argument, which other users of this "
        "machine can see while it runs"
    )


def label(name: str) -> str:
    """Return what a value of the argument `name` is called in the store; empty: it has no name."""
    return re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _unnamed(arguments: Collection[Argument]) -> str:
    names = (each.placeholder for each in arguments if each.name is None and each.secret)
    return next(names, "") or "ARGUMENT"


def _free(server: str, variable: str, taken: Collection[str]) -> str:
    # A variable of that name may hold another value.
    key = f"{server}/{variable}"
    number = 1
    while key in taken:
        number += 1
        key = f"{server}/{variable}_{number}"
    return key
