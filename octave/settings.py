"""The [runtime] table of octave.toml, and the words all its tables are written in.

Durations (`5m`), sizes (`16MiB`) and references are read here once into seconds, bytes and
frozen values. A value of the wrong kind raises `WrongValue`, which knows the path of the key; the
manifest adds file, line and column.
"""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast

from octave.errors import nearest

Convert = Callable[[object], Any]
"""Turns one TOML value into what Octave keeps; raises `WrongValue`, or `ValueError` with a text."""

ReferenceKind = Literal["env", "secret", "file"]
REFERENCE_KINDS: tuple[ReferenceKind, ...] = ("env", "secret", "file")


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a value is to be found when it is needed; never the value itself."""

    kind: ReferenceKind
    """`env`: a variable of the runtime's environment; `secret`: of the store; `file`: a path."""
    key: str

    def __str__(self) -> str:
        return f'{{ {self.kind} = "{self.key}" }}'


Value = str | Reference


@dataclass(frozen=True, slots=True)
class Settings:
    """The [runtime] table; every field has its default."""

    host: str = "127.0.0.1"
    port: int | None = None
    """None: not set, which is 3737 for the home and any free port for a project. 0: any."""
    idle_timeout_s: float | None = 300.0
    """Of a server; None: keep it running."""
    runtime_idle_s: float = 600.0
    """Of a runtime started in the background."""
    health_interval_s: float = 30.0
    start_timeout_s: float = 30.0
    call_timeout_s: float = 300.0
    """Without progress; each progress message starts it anew."""
    call_timeout_max_s: float = 3600.0
    tool_cache_s: float = 60.0
    """An awake server that announces no list changes is listed anew after that."""
    log_rotate_bytes: int = 100 * 10**6
    log_keep: int = 5
    max_message_bytes: int = 16 * 2**20
    definitions: Literal["warn", "block", "allow"] = "warn"
    """What happens to a tool whose definition changed."""
    token: Value | None = None
    """Fixes the token of the HTTP API; None: a new one at each start."""
    allowed_hosts: tuple[str, ...] = ()
    """Further values of the Host header."""


class WrongValue(ValueError):
    """A value octave.toml cannot hold.

    `text` says what is wrong with `{}` in the place of the key; `path` leads from the table being
    read to the key, array indexes included.
    """

    def __init__(self, text: str, path: tuple[str | int, ...] = ()) -> None:
        super().__init__(text)
        self.text = text
        self.path = path


_DURATION = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?) ?(b|kb|kib|mb|mib|gb|gib)", re.IGNORECASE)
_BYTES = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def parse_duration(text: str) -> float | None:
    """Return the seconds of `30s`, `5m`, `1h`, `7d` or `500ms`; None for `never`.

    Raises:
        ValueError: it is none of these; the text says so.
    """
    if text == "never":
        return None
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not a duration such as "30s", "5m", "1h", "7d" or "never"')
    return float(found[1]) * _SECONDS[found[2]]


def parse_size(text: str) -> int:
    """Return the bytes of `100MB` (10^6), `16MiB` (2^20) and the like.

    Raises:
        ValueError: it is no size, or less than one byte; the text says so.
    """
    found = _SIZE.fullmatch(text)
    size = int(float(found[1]) * _BYTES[found[2].lower()]) if found else 0
    if size < 1:
        raise ValueError(f'"{text}" is not a size such as "512KB", "100MB" or "16MiB"')
    return size


_FOUND = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a float"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
)


def found(value: object) -> str:
    """Return what kind of TOML value it is, `a string`; the value may be a secret, so not it."""
    return next((name for kind, name in _FOUND if isinstance(value, kind)), "a date or time")


def string(value: object) -> str:
    """Return a string that can be an argument or an environment variable."""
    if not isinstance(value, str):
        raise WrongValue(f"{{}} must be a string, not {found(value)}")
    if "\0" in value:
        raise WrongValue("{} must not contain a NUL character")
    return value


def word(value: object) -> str:
    """Return a string that is not empty and has no control characters."""
    text = string(value)
    if not text or not text.isprintable():
        raise WrongValue("{} must not be empty or contain control characters")
    return text


def boolean(value: object) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise WrongValue(f"{{}} must be true or false, not {found(value)}")
    return value


def integer(least: int, most: int) -> Convert:
    """Return a converter for integers in that range."""

    def convert(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise WrongValue(f"{{}} must be an integer, not {found(value)}")
        if not least <= value <= most:
            raise WrongValue(f"{{}} must be between {least} and {most}")
        return value

    return convert


def choice(*options: str) -> Convert:
    """Return a converter for one of `options`."""

    def convert(value: object) -> str:
        if value not in options:
            shown = f'"{value}"' if isinstance(value, str) else found(value)
            raise WrongValue(f"{{}} must be one of {', '.join(options)}, not {shown}")
        return value

    return convert


def duration(value: object) -> float | None:
    """Return seconds; None for `never`."""
    if not isinstance(value, str):
        raise WrongValue(f'{{}} must be a duration such as "5m", not {found(value)}')
    return parse_duration(value)


def wait(value: object) -> float:
    """Return seconds, more than none and not for ever."""
    seconds = duration(value)
    if not seconds:
        raise WrongValue('{} must be longer than nothing, and not "never"')
    return seconds


def size(value: object) -> int:
    """Return bytes."""
    if not isinstance(value, str):
        raise WrongValue(f'{{}} must be a size such as "100MB", not {found(value)}')
    return parse_size(value)


def value(value: object) -> Value:
    """Return a string, or the reference that a table with one known key stands for."""
    if not isinstance(value, dict):
        if isinstance(value, str):
            return string(value)
        raise WrongValue(f'{{}} must be a string or {{ secret = "..." }}, not {found(value)}')
    keys = read_table(value, {kind: (kind, word) for kind in REFERENCE_KINDS})
    if len(keys) != 1:
        raise WrongValue(f"{{}} must have exactly one of {', '.join(REFERENCE_KINDS)}")
    ((kind, key),) = keys.items()
    if kind == "secret" and not all(key.partition("/")):
        raise WrongValue("{} must have the form SERVER/VARIABLE", ("secret",))
    return Reference(cast("ReferenceKind", kind), key)


def array(of: Convert) -> Convert:
    """Return a converter for an array whose items `of` converts; gives a tuple."""

    def convert(value: object) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise WrongValue(f"{{}} must be an array, not {found(value)}")
        items = []
        for index, item in enumerate(value):
            with within(index):
                items.append(of(item))
        return tuple(items)

    return convert


def table(key: Callable[[str], str], of: Convert) -> Convert:
    """Return a converter for a table with free keys that `key` checks and values `of` converts."""

    def convert(value: object) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise WrongValue(f"{{}} must be a table, not {found(value)}")
        entries = {}
        for name, item in value.items():
            with within(name):
                entries[key(name)] = of(item)
        return entries

    return convert


@contextlib.contextmanager
def within(key: str | int) -> Iterator[None]:
    """Add `key` to the path of every `WrongValue` raised inside."""
    try:
        yield
    except WrongValue as error:
        raise WrongValue(error.text, (key, *error.path)) from None
    except ValueError as error:
        raise WrongValue(f"{{}}: {error}", (key,)) from None


def read_table(value: object, keys: Mapping[str, tuple[str, Convert]]) -> dict[str, Any]:
    """Return the fields that `keys` (key -> field, converter) makes of a TOML table.

    Raises:
        WrongValue: not a table, an unknown key (the nearest known one is named), a wrong value.
    """
    if not isinstance(value, dict):
        raise WrongValue(f"{{}} must be a table, not {found(value)}")
    fields: dict[str, Any] = {}
    for key, item in value.items():
        with within(key):
            if key not in keys:
                close = nearest(key, keys, 1)
                advice = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(keys)}"
                raise WrongValue(f"unknown key {{}}; {advice}")
            field, convert = keys[key]
            fields[field] = convert(item)
    return fields


_MOST_PORTS = 65535
_MOST_LOGS = 1000
"""Old log files of one server; each is a rename at every rotation."""

_RUNTIME_KEYS: Mapping[str, tuple[str, Convert]] = {
    "host": ("host", word),
    "port": ("port", integer(0, _MOST_PORTS)),
    "idle_timeout": ("idle_timeout_s", duration),
    "runtime_idle": ("runtime_idle_s", wait),
    "health_interval": ("health_interval_s", wait),
    "start_timeout": ("start_timeout_s", wait),
    "call_timeout": ("call_timeout_s", wait),
    "call_timeout_max": ("call_timeout_max_s", wait),
    "tool_cache": ("tool_cache_s", wait),
    "log_rotate": ("log_rotate_bytes", size),
    "log_keep": ("log_keep", integer(0, _MOST_LOGS)),
    "max_message": ("max_message_bytes", size),
    "definitions": ("definitions", choice("warn", "block", "allow")),
    "token": ("token", value),
    "allowed_hosts": ("allowed_hosts", array(word)),
}


def read_settings(value: object) -> Settings:
    """Return the settings a [runtime] table makes.

    Raises:
        WrongValue: as `read_table`.
    """
    return Settings(**read_table(value, _RUNTIME_KEYS))
