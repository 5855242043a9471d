"""Which names and version ranges may be written: servers, packages, versions, variables.

Pure, and narrow on purpose: what passes here can stand in a path, an argument list and a
requirements file without being read as something else.
"""

import re
import unicodedata
from typing import Literal
from urllib.parse import urlsplit

Kind = Literal["npm", "pypi", "folder", "mcpb", "oci"]

_SERVER = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_NPM = re.compile(r"(?:@[a-z0-9~][a-z0-9._~-]*/)?[A-Za-z0-9~][A-Za-z0-9._~-]*")
_NPM_CHARACTERS = 214
"""The longest name npm accepts (validate-npm-package-name)."""
_PYPI = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?"
    r"(?:\[[A-Za-z0-9][A-Za-z0-9._-]*(?:, ?[A-Za-z0-9][A-Za-z0-9._-]*)*\])?"
)
_BUNDLE = re.compile(
    r"(?:https?://[A-Za-z0-9.\[\]:-]+/[!-\"$-~]+|[A-Za-z0-9_][A-Za-z0-9._ -]*)#sha256=[0-9a-f]{64}"
)
_IMAGE_PART = r"[a-z0-9]+(?:(?:\.|__?|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:(?:[a-z0-9.-]+\.[a-z0-9-]+|localhost|[a-z0-9-]+(?=:))(?::[0-9]{{1,5}})?/)?"
    rf"{_IMAGE_PART}(?:/{_IMAGE_PART})*"
)
_IMAGE_CHARACTERS = 255
"""The longest name of an image with its host (distribution, reference/reference.go)."""
_IMAGE_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}|sha256:[0-9a-f]{64}")
_FOLDER = re.compile(r"\.{1,2}(?:/[^/\0-\x1f\x7f]+)*")
_NPM_RANGE = re.compile(r"[A-Za-z0-9.*+<>=~^| _-]+")
_PEP440_CLAUSE = re.compile(r"(?:~=|===?|!=|<=?|>=?)? *v?[0-9][A-Za-z0-9.+!_-]*(?:\.\*)?")
_NPM_ONLY = re.compile(r"([~^]) *v?([0-9]+(?:\.[0-9]+){0,2})")
_CONSTRAINT = re.compile(
    r"(?:@[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]* ?[<>=!~^]=?[\w.*+<>=!~^, -]*", re.ASCII
)
_DECIDES = re.compile(
    r"(?:LD|DYLD|NPM|UV|PIP|SSL_CERT|OCTAVE)_.*|NODE_(?!ENV$).*"
    r"|PYTHON(?!UNBUFFERED$|UTF8$|IOENCODING$).*|XDG_.*|TMPDIR"
    r"|GIT_(?:SSH|CONFIG|EXEC|ASKPASS|PROXY|EDITOR|PAGER|EXTERNAL).*|(?:HTTPS?|ALL|NO)_PROXY"
    r"|PATH|HOME|SHELL|BASH_ENV|ENV|IFS",
    re.IGNORECASE,
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ADDRESS = re.compile(r"https?://[^\s/?#@]+(?:[/?#]\S*)?")
_LOGIN = re.compile(r"(?<=://)[^/?#]*@")
_LABEL_CHARACTERS = 63
"""Between two dots of a host's name (RFC 1035, section 2.3.4)."""
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


class NoHash(ValueError):
    """A bundle is named, but not what its bytes must be."""


def split_package(text: str) -> tuple[Kind, str]:
    """Return kind and name of `npm:NAME`, `pypi:NAME[EXTRA]`, `folder:PATH`, `oci:IMAGE`.

    And of `mcpb:URL#sha256=HEX`.

    Raises:
        ValueError: the kind is none of them, or the name cannot be one.
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
    if kind == "mcpb" and colon:
        return "mcpb", _check_bundle(name)
    if kind == "oci" and colon:
        if _IMAGE.fullmatch(name) and len(name) <= _IMAGE_CHARACTERS:
            return "oci", name
        raise ValueError(f'"{name}" cannot be the name of a container image')
    if kind == "folder" and colon:
        if _FOLDER.fullmatch(name):
            return "folder", name
        raise ValueError(f'"{name}" is not a relative path such as "./server"')
    raise ValueError(f'"{text}" is not KIND:NAME, such as "npm:NAME"')


def _check_bundle(text: str) -> str:
    if _BUNDLE.fullmatch(text) and is_address(text):
        return text
    if "#" not in text:
        raise NoHash(f'"{text}" has no hash: "mcpb:URL#sha256=HEX"')
    raise ValueError(f'"{text}" is not the place of a bundle such as "https://HOST/X.mcpb"')


def split_image(text: str) -> tuple[str, str]:
    """Return name and version of `NAME`, `NAME:TAG` or `NAME@sha256:HEX`; a digest beats a tag."""
    name, _, digest = text.partition("@")
    bare, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        bare, tag = name, ""
    return bare, digest or tag


def joined_image(name: str, version: str) -> str:
    """Return the image `name` at a tag or a digest, as `split_image` takes it apart."""
    return f"{name}{'@' if version.startswith('sha256:') else ':'}{version}"


def with_host(image: str, address: str) -> str:
    """Return the name of an image with its host, which older entries have in a member of its own.

    Without one docker would look elsewhere, where anybody could have taken the name.
    """
    first, slash, _ = image.partition("/")
    host = address.partition("://")[2].partition("/")[0]
    has_one = bool(slash) and (any(sign in first for sign in ".:") or first == "localhost")
    return image if has_one or not host else f"{host}/{image}"


def pypi_name(text: str) -> str:
    """Return the one spelling of a PyPI package's name, without extras (PEP 503)."""
    return re.sub(r"[-_.]+", "-", text.partition("[")[0]).lower()


def check_range(kind: str, text: str) -> str:
    """Return `text` when it can be a version or range of that ecosystem, `*` and `latest` too.

    Raises:
        ValueError: it cannot; for an npm range on PyPI it names the PEP 440 equivalent.
    """
    if text in {"*", "latest"}:
        return text
    if kind == "mcpb":
        raise ValueError(f'a bundle has the one version that is in it, not "{text}"')
    if kind == "oci":
        if _IMAGE_VERSION.fullmatch(text):
            return text
        raise ValueError(f'"{text}" is neither a tag nor a digest "sha256:HEX"')
    if kind == "folder":
        raise ValueError("a folder has the version that it has: there is none to choose")
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


def check_mount(text: str) -> str:
    """Return `text` when it gives a container a folder of this machine: `SOURCE:TARGET[:ro]`.

    Raises:
        ValueError: it does not.
    """
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    is_plain = text.isprintable() and not any(sign in text for sign in ',"')
    if is_plain and source and target.startswith("/") and mode in {"", "ro", "rw"}:
        return text
    raise ValueError(f'"{text}" is not a folder for a container such as "~/notes:/notes:ro"')


def check_variable(text: str) -> str:
    """Return `text` when it can be the name of an environment variable.

    Raises:
        ValueError: it cannot.
    """
    if _VARIABLE.fullmatch(text):
        return text
    raise ValueError(f'"{text}" cannot be the name of an environment variable')


def decides_what_runs(variable: str) -> bool:
    """Whether an environment variable decides what is run, or from where.

    Not for a registry to set, nor for whoever may only name servers.
    """
    return _DECIDES.fullmatch(variable) is not None


def check_address(text: str) -> str:
    """Return `text` when it is the http or https address of a server.

    Raises:
        ValueError: it is not, or has a login in it.
    """
    if _ADDRESS.fullmatch(text) and is_address(text):
        return text
    # A login is a secret, wherever it was written.
    text = _LOGIN.sub("***@", text)
    raise ValueError(f'"{text}" is not an address such as "https://mcp.example.com/mcp"')


def is_address(text: str) -> bool:
    """Whether port, brackets and host of what looks like an address mean something."""
    try:
        parts = urlsplit(text)
        _ = parts.port
        host = (parts.hostname or "").removesuffix(".")
        host = host if host.isascii() else host.encode("idna").decode()
    except ValueError:
        return False
    return not host or all(0 < len(part) <= _LABEL_CHARACTERS for part in host.split("."))


def check_header(text: str) -> str:
    """Return `text` when it can be the name of an HTTP header (RFC 9110, section 5.6.2).

    Raises:
        ValueError: it cannot.
    """
    if _HEADER.fullmatch(text):
        return text
    raise ValueError(f'"{text}" cannot be the name of an HTTP header')
