"""`KEY=VALUE` words as what [servers.NAME] of octave.toml holds.

A value is read in every way it can be meant, and the first one that the manifest's own reader takes
is the one: a string, else true, false or an array as TOML writes it, else the only item of an
array. `env.X`, `headers.X`, `tools.allow` and `tools.deny` name what lies in a table.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from octave import settings
from octave.errors import UsageError, nearest
from octave.packages import secret_arguments
from octave.packages.entries import PackageChoice
from octave.packages.manifest import SERVER_KEYS
from octave.packages.variables import is_secret, is_secret_header
from octave.settings import REFERENCE_KINDS, Value, WrongValue

Keys = tuple[str, ...]
"""`("auto_start",)`, or `("env", "MODE")`."""

TABLES = ("env", "headers", "tools")


def read(words: Sequence[str]) -> dict[Keys, object]:
    """Return what `words` assign, as TOML values; a key that comes again adds to its array.

    Raises:
        UsageError: a word is no assignment, or the manifest could not hold it.
    """
    texts: dict[Keys, list[str]] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(
                f"`{word}` is no assignment", hint="octave set NAME KEY=VALUE, or `--unset KEY`"
            )
        texts.setdefault(split(key), []).append(text)
    return {keys: _value(keys, found) for keys, found in texts.items()}


def split(key: str) -> Keys:
    """Return the keys that `key` names, the second one only in tables.

    Raises:
        UsageError: [servers.NAME] has no such key; the nearest one is named.
    """
    first, dot, rest = key.partition(".")
    if first not in SERVER_KEYS:
        close = nearest(first, SERVER_KEYS, 1)
        hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(SERVER_KEYS)}"
        raise UsageError(f"a server has no key `{key}`", hint=hint)
    if not dot:
        return (first,)
    if first not in TABLES or not rest:
        raise UsageError(f"`{first}` is no table, so there is no `{key}`", hint=f"`{first}=VALUE`")
    return (first, rest)


def argument(text: str) -> Value:
    """Return `text`, an argument of a server; where it is a reference as TOML has it, that.

    Raises:
        UsageError: a reference that the manifest could not hold.
    """
    found = _toml(text)
    if not (isinstance(found, dict) and len(found) == 1 and found.keys() <= {*REFERENCE_KINDS}):
        return text
    try:
        return settings.value(found)
    except WrongValue as error:
        raise UsageError(error.text.replace("{}", f"`{text}`", 1)) from None


def require_no_secret(
    server: str, values: Mapping[Keys, object], known: PackageChoice | None
) -> None:
    """Do nothing when no value of `values` is a secret in clear.

    Raises:
        UsageError: one is; its value is not repeated.
    """
    args = SERVER_KEYS["args"][1](values.get(("args",), []))
    hidden = secret_arguments.hide(server, args, known)
    secret_arguments.require_hidden(hidden, f"octave set {server}", "args=")
    for keys, value in _flat(values):
        is_hidden = is_secret(keys[-1], known) if keys[0] == "env" else is_secret_header(keys[-1])
        if is_hidden and isinstance(value, str):
            raise UsageError(
                f"`{keys[-1]}` is a secret: `octave.toml` and a command line can be read by others",
                hint=f"octave secret set {server} {_variable(keys[-1])}, then octave set {server} "
                f"{'.'.join(keys)}='{{ secret = \"{server}/{_variable(keys[-1])}\" }}'",
            )


def _variable(name: str) -> str:
    return name.replace("-", "_").upper() if "-" in name or not name.isupper() else name


def _flat(values: Mapping[Keys, object]) -> Iterator[tuple[Keys, object]]:
    """Yield what the tables `env` and `headers` are to hold, each value by itself."""
    for keys, value in values.items():
        if keys[0] not in {"env", "headers"}:
            continue
        if isinstance(value, Mapping) and len(keys) == 1:
            yield from (((*keys, name), item) for name, item in value.items())
        else:
            yield keys, value


def _value(keys: Keys, texts: Sequence[str]) -> object:
    convert = SERVER_KEYS[keys[0]][1]
    failures: list[WrongValue] = []
    for candidate in _candidates(texts):
        try:
            convert({keys[1]: candidate} if len(keys) > 1 else candidate)
        except WrongValue as error:
            failures.append(error)
        except ValueError as error:
            failures.append(WrongValue(f"{{}}: {error}"))
        else:
            return candidate
    # Whoever got furthest into the value understood best what is meant.
    worst = max(failures, key=lambda error: len(error.path))
    raise UsageError(
        worst.text.replace("{}", f"`{'.'.join(keys)}`", 1),
        hint="octave set --help",
    )


def _candidates(texts: Sequence[str]) -> Iterator[object]:
    items = [_toml(text) if _is_table(text) else text for text in texts]
    if len(texts) == 1:
        if items != texts:
            # A reference, and nothing else: as text it would be a value nobody means.
            yield items[0]
            yield items
            return
        yield texts[0]
        found = _toml(texts[0])
        if isinstance(found, bool | list):
            yield found
    yield items


def _is_table(text: str) -> bool:
    found = _toml(text)
    return isinstance(found, dict) and bool(found)


def _toml(text: str) -> Any:
    """Return the TOML value that `text` is; None when it is none."""
    if "\n" in text or "\r" in text:
        return None
    try:
        return tomllib.loads(f"value = {text}").get("value")
    except (ValueError, RecursionError):
        return None
