"""`--header` and `--header-env`: headers from the command line, which never holds a secret."""

import re
from collections.abc import Sequence

from octave.cli.output import safe
from octave.errors import UsageError
from octave.packages import variables
from octave.packages.manifest import Value
from octave.packages.names import check_header, check_variable
from octave.settings import Reference

_CREDENTIAL = re.compile(r"(?:basic|bearer|token) +\S", re.IGNORECASE)


def read_headers(plain: Sequence[str], of_environment: Sequence[str]) -> dict[str, Value]:
    """Return the headers that `--header` and `--header-env` say.

    Raises:
        UsageError: one is no header, or has a secret in clear.
    """
    found: dict[str, Value] = {}
    for name, value in map(_pair, plain):
        if variables.is_secret_header(name) or _CREDENTIAL.match(value):
            raise UsageError(
                f"`{name}` is a secret, and a command line can be read by others",
                hint=f"export it as a variable and use `--header-env '{name}: VARIABLE'`",
            )
        found[name] = value
    for name, variable in map(_pair, of_environment):
        try:
            found[name] = Reference("env", check_variable(variable))
        except ValueError:
            # Not repeated: it may be the value itself.
            raise UsageError(
                f"what `--header-env` says for `{name}` names no variable",
                hint=f"--header-env '{name}: VARIABLE'",
            ) from None
    return found


def stored(name: str, words: Sequence[str]) -> dict[str, Value]:
    """Return the headers that `--header-secret` says, for what the secret store calls `name`.

    Raises:
        UsageError: one is no header, or names no key.
    """
    found: dict[str, Value] = {}
    for header, key in map(_pair, words):
        try:
            found[header] = Reference("secret", f"{name}/{check_variable(key)}")
        except ValueError:
            # Not repeated: it may be the value itself.
            raise UsageError(
                f"what `--header-secret` says for `{header}` names no key",
                hint=f"octave secret set {name} KEY, then --header-secret '{header}: KEY'",
            ) from None
    return found


def _pair(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    try:
        if not colon:
            raise ValueError("no colon")
        return check_header(name.strip()), value.strip()
    except ValueError:
        raise UsageError(
            f"`{safe(name.strip()) if colon else '...'}` is no header",
            hint="--header 'NAME: VALUE'",
        ) from None
