"""uv as Octave runs it: where it is, with whose settings, and what its failures mean.

Packages come from the index the user configured for uv or pip, with the user's certificates
and proxies. Everything else that would change a result is taken away from uv: its configuration
files, its variables, extra indexes.
"""

import configparser
import os
import re
import sys
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uv import find_uv_bin

from octave.errors import (
    InstallFailed,
    IntegrityFailed,
    OctaveError,
    RegistryUnreachable,
    StorageFailed,
    storage_hint,
)
from octave.packages import commands
from octave.packages.commands import Output

if TYPE_CHECKING:  # the ecosystems import this module
    from octave.packages.ecosystems.base import Bench

_KEPT = re.compile(
    r"UV_(HTTP_\w+|CONCURRENT_\w+|NATIVE_TLS|SYSTEM_CERTS|INSECURE_HOST|KEYRING_PROVIDER"
    r"|PYTHON_INSTALL_DIR|PYTHON_INSTALL_MIRROR|PYTHON_DOWNLOADS_JSON_URL|INDEX_\w+_(USERNAME|PASSWORD))"
)
"""Variables of uv that say how to reach an index or where Pythons come from and lie, not what to
choose."""
_DROPPED = re.compile(r"(UV|PIP)_|(VIRTUAL_ENV|CONDA_PREFIX|PYTHONPATH|PYTHONHOME)$")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """What the user's uv and pip settings say about where packages come from."""

    default: str | None = None
    """As UV_DEFAULT_INDEX takes it; None: uv's own default. May hold credentials."""
    has_extra: bool = False
    certificate: str | None = None


def binary() -> Path:
    """Return the uv that came with Octave.

    Raises:
        InstallFailed: its package is broken.
    """
    try:
        return Path(find_uv_bin())
    except FileNotFoundError as error:
        raise InstallFailed(
            "the `uv` package of this Octave has no executable", hint="install Octave anew"
        ) from error


def environ(bench: "Bench") -> dict[str, str]:
    """Return the environment for uv: the user's, with settings reduced to `index_settings`."""
    settings = index_settings(bench.environ)
    kept = {
        name: value
        for name, value in bench.environ.items()
        if _KEPT.fullmatch(name) or not _DROPPED.match(name)
    }
    kept |= {
        "UV_CACHE_DIR": str(bench.home.cache / "uv"),
        "UV_NO_CONFIG": "1",
        "UV_NO_PROGRESS": "1",
        "UV_PYTHON_DOWNLOADS": "never",
    }
    if settings.default is not None:
        kept["UV_DEFAULT_INDEX"] = settings.default
    if settings.certificate is not None:
        kept["SSL_CERT_FILE"] = settings.certificate
    return kept


def notes(bench: "Bench") -> tuple[str, ...]:
    """Return sentences on settings of the user that Octave does not follow."""
    if index_settings(bench.environ).has_extra:
        return ("Extra package indexes of your uv or pip settings are ignored.",)
    return ()


def run(bench: "Bench", words: Sequence[str | Path], cwd: Path, stdin: str | None = None) -> Output:
    """Run `uv WORDS` in `cwd` and return its output, whatever its exit code.

    Raises:
        InstallFailed: it could not be started or did not end in time.
    """
    offline = ["--offline"] if bench.offline else []
    return commands.run([binary(), *words, *offline], cwd=cwd, environ=environ(bench), stdin=stdin)


def failure(output: Output, wanted: str) -> OctaveError:
    """Return what went wrong when uv failed to fetch or install `wanted`, a name for a person."""
    text = unwrapped(output.stderr)
    damaged = re.search(r"Hash mismatch for `([^`]+)`", text)
    if damaged:
        values = re.findall(r"sha256:[0-9a-f]{64}", text)
        return IntegrityFailed(
            f"`{damaged[1]}` is not what was locked: its hash does not hold",
            hint="if you trust what the index offers now, remove the server from `octave.lock`, "
            "then install it again",
            details={"package": damaged[1], "hashes": values},
        )
    for number in re.findall(r"\(os error (\d+)\)", text):
        hint = storage_hint(OSError(int(number), ""))
        if hint is not None:
            return StorageFailed(
                f"cannot write what `{wanted}` takes: {last_cause(output.stderr)}", hint=hint
            )
    if "network connectivity is disabled" in text or "network was disabled" in text:
        return RegistryUnreachable(
            f"`{wanted}` is not in the cache, and Octave was told to stay offline",
            hint="try again without `--offline`",
        )
    if re.search(r"401 Unauthorized|403 Forbidden", text):
        return RegistryUnreachable(
            f"the package index does not let you fetch `{wanted}`",
            hint="check the address and the credentials in the index settings of uv or pip",
        )
    if _UNREACHABLE.search(text):
        return RegistryUnreachable(
            f"the package index cannot be reached for `{wanted}`: {last_cause(output.stderr)}",
            hint="check the network, the proxy and the index settings of uv or pip; "
            "`--offline` installs what is in the cache",
        )
    # Versions that are too young are hidden from uv, not from the index.
    if "exclude-newer" not in text and _NO_VERSIONS.search(text):
        return RegistryUnreachable(
            f"the package index answers, and lists no version of `{wanted}` at all",
            hint="check that nothing else answers in its place, such as the login page of a "
            "network, and the index settings of uv or pip",
        )
    elsewhere = _NOT_FOR_HERE.search(text)
    if elsewhere:
        return InstallFailed(
            f"`{elsewhere[1]}` {elsewhere[2]}, which `{wanted}` needs, is not offered for this "
            f"machine: it has no wheel with a matching {elsewhere[3]}",
            hint="choose another version of it with `constraints` in `octave.toml`, then "
            "`octave install`",
            details={"package": elsewhere[1], "version": elsewhere[2]},
        )
    return InstallFailed(f"uv could not install `{wanted}`:\n{output.tail}")


def unwrapped(text: str) -> str:
    """Return uv's words with single spaces: it breaks lines between any two of them."""
    return " ".join(text.split())


_NO_VERSIONS = re.compile(
    r"Because there are no versions of ([\w.-]+) and you require \1[,\s><=~!]"
)
_NOT_FOR_HERE = re.compile(r"Because (\S+?)==(\S+) has no wheels with a matching ([\w ]+?) tag \(")
_UNREACHABLE = re.compile(
    r"error sending request|client error|[Cc]onnection (refused|reset)|dns error|timed out"
    r"|Failed to fetch|HTTP status (server|client) error|tunnel error"
)


def last_cause(text: str) -> str:
    """Return the innermost reason in what uv wrote."""
    causes = re.findall(r"^\s*(?:[Cc]aused? ?(?:by)?|cause): (.+)$", text, re.MULTILINE)
    lines = text.strip().splitlines() or ["no reason given"]
    return str(causes[-1] if causes else lines[-1].strip())


def changed(files: Mapping[str, str]) -> IntegrityFailed:
    """Return the error for files, by package, that are not what their wheels say."""
    package, path = next(iter(files.items()))
    return IntegrityFailed(
        f"`{path}` of `{package}` is not what its package holds",
        hint="the download cache is damaged: run `octave clean`, then try again",
        details={"files": dict(files)},
    )


def index_settings(environ: Mapping[str, str]) -> IndexSettings:
    """Read the user's settings: variables first, then uv.toml, then pip.conf.

    Files that cannot be read are passed over, as uv and pip would complain about them themselves.
    """
    found = [
        _from_variables(environ),
        *(_from_uv(path) for path in settings_files(environ)),
        *(_from_pip(path) for path in _pip_files(environ)),
    ]
    return IndexSettings(
        default=_first(settings.default for settings in found),
        has_extra=any(settings.has_extra for settings in found),
        certificate=_first(settings.certificate for settings in found),
    )


def _first(values: Iterable[str | None]) -> str | None:
    return next((value for value in values if value), None)


def _from_variables(environ: Mapping[str, str]) -> IndexSettings:
    names = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
    extra = (
        *("UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"),
        *("UV_FIND_LINKS", "PIP_FIND_LINKS"),
    )
    return IndexSettings(
        default=_first(environ.get(name) for name in names),
        has_extra=any(environ.get(name) for name in extra),
        certificate=environ.get("SSL_CERT_FILE") or environ.get("PIP_CERT"),
    )


def settings_files(environ: Mapping[str, str]) -> list[Path]:
    """Return the places of the user's uv.toml, the first that says something counts."""
    if environ.get("UV_NO_CONFIG"):
        return []
    if environ.get("UV_CONFIG_FILE"):
        return [Path(environ["UV_CONFIG_FILE"])]
    folders = [_user_settings(environ), *_system_settings(environ), Path("/etc")]
    return [folder / "uv" / "uv.toml" for folder in folders]


def _pip_files(environ: Mapping[str, str]) -> list[Path]:
    named = environ.get("PIP_CONFIG_FILE")
    if named == "/dev/null":
        return []
    home = _home(environ)
    apple = [home / "Library/Application Support", Path("/Library/Application Support")]
    user = [*(apple[:1] if sys.platform == "darwin" else []), _user_settings(environ)]
    system = [*_system_settings(environ), *(apple[1:] if sys.platform == "darwin" else [])]
    return [
        *([Path(named)] if named else []),
        *(folder / "pip" / "pip.conf" for folder in user),
        home / ".pip" / "pip.conf",
        *(folder / "pip" / "pip.conf" for folder in system),
        Path("/etc/pip.conf"),
    ]


def _home(environ: Mapping[str, str]) -> Path:
    # Of a user who has none, as in a container, nothing is found there.
    return Path(environ.get("HOME") or os.path.expanduser("~"))  # noqa: PTH111


def _user_settings(environ: Mapping[str, str]) -> Path:
    home = _home(environ)
    return Path(environ.get("XDG_CONFIG_HOME") or home / ".config")


def _system_settings(environ: Mapping[str, str]) -> list[Path]:
    return [
        Path(text) for text in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":") if text
    ]


def _from_uv(path: Path) -> IndexSettings:
    try:
        table: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return IndexSettings()
    pip = table.get("pip") if isinstance(table.get("pip"), dict) else {}
    indexes = [row for row in table.get("index", []) if isinstance(row, dict)]
    defaults = [_named_index(row) for row in indexes if row.get("default")]
    single = [part.get("index-url") for part in (pip or {}, table)]
    more = ("extra-index-url", "find-links")
    extra = [part.get(key) for part in (pip or {}, table) for key in more]
    return IndexSettings(
        default=_first([*defaults, *single]),
        has_extra=any(extra) or len(indexes) > len(defaults),
    )


def _named_index(row: Mapping[str, Any]) -> str:
    # The name is what the credential variables UV_INDEX_NAME_USERNAME refer to.
    return f"{row['name']}={row.get('url')}" if row.get("name") else str(row.get("url") or "")


def _from_pip(path: Path) -> IndexSettings:
    reader = configparser.RawConfigParser(strict=False)
    try:
        reader.read_string(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, configparser.Error):
        return IndexSettings()

    def said(key: str) -> str | None:
        return _first(reader.get(part, key, fallback=None) for part in ("install", "global"))

    has_extra = bool(said("extra-index-url") or said("find-links"))
    return IndexSettings(said("index-url"), has_extra, said("cert"))
