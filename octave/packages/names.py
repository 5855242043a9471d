"""Which names and version ranges may be written: servers, packages, versions, variables.

Pure, and narrow on purpose: what passes here can stand in a path, an argument list and a
requirements file without being read as something else.
"""

import re
import unicodedata
from typing import Literal

Kind = Literal["npm", "pypi"]

_SERVER = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_NPM = re.compile(r"(?:@[a-z0-9~][a-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*")
_NPM_CHARACTERS = 214
"""The longest name npm accepts (validate-npm-package-name)."""
_PYPI = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
    r"(?:\[[A-Za-z0-9][A-Za-z0-9._-]*(?:, ?[A-Za-z0-9][A-Za-z0-9._-]*)*\])?"
)
_NPM_RANGE = re.compile(r"[A-Za-z0-9.*+<>=~^| _-]+")
_PEP440_CLAUSE = re.compile(r"(?:~=|===?|!=|<=?|>=?)? *v?[0-9][A-Za-z0-9.+!_-]*(?:\.\*)?")
_NPM_ONLY = re.compile(r"([~^]) *v?([0-9]+(?:\.[0-9]+){0,2})")
_CONSTRAINT = re.compile(
    r"(?:@[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]* ?[<>=!~^]=?[\w.*+<>=!~^, -]*", re.ASCII
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")


def is_server_name(text: str) -> bool:
    """Tell whether `text` can be the name of a server: `^[a-z0-9][a-z0-9-]{0,39}$`."""
    return _SERVER.fullmatch(text) is not None


def check_server_name(text: str) -> str:
    """Return `text` when it can be the name of a server.

    Raises:
        ValueError: it cannot; says why, and names a character that only looks right.
    """
    if is_server_name(text):
        return text
    strange = next((c for c in text if not c.isascii()), None)
    if strange is not None:
        name = unicodedata.name(strange, f"U+{ord(strange):04X}")
        raise ValueError(f"a server's name must be ASCII, it has a {name}")
    raise ValueError("a server's name is 1 to 40 of a-z, 0-9 and -, and does not begin with -")


def _strange(text: str) -> str:
    """Return how an error goes on that `text` with a letter of another script leads to."""
    strange = next((c for c in text if not c.isascii()), None)
    if strange is None:
        return ""
    return f": it has a {unicodedata.name(strange, f'U+{ord(strange):04X}')}"


def split_package(text: str) -> tuple[Kind, str]:
    """Return kind and name of `npm:NAME` or `pypi:NAME[EXTRA,...]`.

    Raises:
        ValueError: the kind is neither, or the name cannot be one.
    """
    kind, colon, name = text.partition(":")
    if kind == "npm" and colon:
        if _NPM.fullmatch(name) and len(name) <= _NPM_CHARACTERS:
            return "npm", name
        raise ValueError(f'"{name}" cannot be the name of an npm package{_strange(name)}')
    if kind == "pypi" and colon:
        if _PYPI.fullmatch(name):
            return "pypi", name
        raise ValueError(f'"{name}" cannot be the name of a PyPI package{_strange(name)}')
    raise ValueError(f'"{text}" is neither "npm:NAME" nor "pypi:NAME"')


def pypi_name(text: str) -> str:
    """Return the one spelling of a PyPI package's name, without extras (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text.partition("[")[0]).lower()


def check_range(kind: Kind, text: str) -> str:
    """Return `text` when it can be a version or range of that ecosystem, `*` and `latest` too.

    Raises:
        ValueError: it cannot; for an npm range on PyPI it names the PEP 440 equivalent.
    """
    if text in {"*", "latest"}:
        return text
    if kind == "npm":
        if _NPM_RANGE.fullmatch(text) and not text.startswith(("-", " ")):
            return text
        raise ValueError(f'"{text}" is not an npm version range such as "1.2.3" or "^1.2"')
    foreign = _NPM_ONLY.fullmatch(text)
    if foreign:
        raise ValueError(
            f'"{text}" is an npm range; for a PyPI package write "{_as_pep440(*foreign.groups())}"'
        )
    if all(_PEP440_CLAUSE.fullmatch(clause.strip(" ")) for clause in text.split(",")):
        return text
    raise ValueError(f'"{text}" is not a PEP 440 version or range such as "1.2.3" or ">=1.2,<2"')


def _as_pep440(operator: str, version: str) -> str:
    parts = [int(part) for part in version.split(".")]
    if operator == "^":
        # The leftmost part that is not zero may not change (npm semver, "Caret Ranges").
        fixed = next((i for i, part in enumerate(parts) if part), len(parts) - 1)
    else:
        fixed = min(1, len(parts) - 1)
    above = [*parts[:fixed], parts[fixed] + 1]
    return f">={version},<{'.'.join(map(str, above))}"


def check_constraint(text: str) -> str:
    """Return `text` when it limits one dependency by name and version, `mcp<2`.

    Raises:
        ValueError: it does not.
    """
    if _CONSTRAINT.fullmatch(text):
        return text
    raise ValueError(f'"{text}" is not a limit such as "mcp<2"')


def check_variable(text: str) -> str:
    """Return `text` when it can be the name of an environment variable.

    Raises:
        ValueError: it cannot.
    """
    if _VARIABLE.fullmatch(text):
        return text
    raise ValueError(f'"{text}" cannot be the name of an environment variable')


def check_header(text: str) -> str:
    """Return `text` when it can be the name of an HTTP header (RFC 9110, section 5.6.2).

    Raises:
        ValueError: it cannot.
    """
    if _HEADER.fullmatch(text):
        return text
    raise ValueError(f'"{text}" cannot be the name of an HTTP header')
