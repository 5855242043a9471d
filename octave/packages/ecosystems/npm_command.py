"""Running npm: always the same flags and environment, and its failures in Octave's words.

The user's own configuration decides where packages come from; Octave only takes away what
would make the same lockfile mean different things, and every way to run a package's scripts.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from octave.errors import (
    InstallFailed,
    IntegrityFailed,
    OctaveError,
    RegistryUnreachable,
    StorageFailed,
)
from octave.packages.commands import Output, run
from octave.packages.ecosystems.base import Bench
from octave.packages.toolchains import Node

FLAGS = (
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    # The lockfile names no registry.
    "--omit-lockfile-registry-resolved=true",
    # Only the registry: no git, URL, file or folder.
    "--allow-git=none",
    "--allow-remote=none",
    "--allow-file=none",
    "--allow-directory=none",
    # A user's taste must not change the tree.
    "--global=false",
    "--dry-run=false",
    "--package-lock=true",
    "--lockfile-version=3",
    "--install-strategy=hoisted",
    "--legacy-peer-deps=false",
    "--include=prod",
    "--include=optional",
    "--include=peer",
    "--bin-links=false",
    # `engines` is compared by Octave, which can choose another node.
    "--engine-strict=false",
)
_SETTINGS = {
    "npm_config_update_notifier": "false",
    # npm waits 10 s and 60 s before it admits that there is no network; milliseconds.
    "npm_config_fetch_retry_mintimeout": "500",
    "npm_config_fetch_retry_maxtimeout": "3000",
    # And five minutes, three times, for a word of a registry that has gone silent; uv as long.
    "npm_config_fetch_timeout": "30000",
}
_NETWORK = re.compile(
    r"E(?:NOTFOUND|CONNREFUSED|CONNRESET|CONNECTIONTIMEOUT|TIMEDOUT|IDLETIMEOUT|RESPONSETIMEOUT"
    r"|TRANSFERTIMEOUT|AI_AGAIN|AI_FAIL|HOSTUNREACH|NETUNREACH|NETDOWN|PIPE|PROTO"
    r"|401|403|407|429|5\d\d|NEEDAUTH)|ERR_SOCKET_TIMEOUT|ERR_(?:SSL|TLS)_\w+|\w*CERT\w*"
    r"|UNABLE_TO_VERIFY_LEAF_SIGNATURE"
)
_STORAGE = {"ENOSPC", "EDQUOT", "EROFS", "EACCES", "EPERM"}
_WRONG_HASH = re.compile(r"wanted (sha512-\S+) but got (sha512-\S+?)\.?(?:\s|$)")
_PROXIES = {"http_proxy", "https_proxy", "all_proxy", "proxy"}
_SECRET_KEY = re.compile(
    r"^\s*(?P<host>//[^\s=]*?):(?:_authToken|_auth|_password|username|certfile|keyfile)\s*="
    r"|^\s*(?:_auth|_authToken|_password|cert|key)\s*=",
    re.MULTILINE,
)


class NeedsNpm(Exception):
    """Only npm itself can install this. The text says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class RegistryAccess:
    """Where tarballs come from, and which authorities are believed."""

    url: str
    """Ends with a slash."""
    ca_files: tuple[Path, ...] = ()
    """In place of the usual authorities, when there is one."""


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that npm reads.

    Raises:
        OSError: it cannot be written.
    """
    path.write_text(json.dumps(content), encoding="utf-8")


def run_npm(node: Node, bench: Bench, words: Sequence[str], folder: Path) -> Output:
    """Run npm in `folder`, with the flags and environment that every command gets.

    A flag in `words` has the last word.
    """
    offline = ("--offline",) if bench.offline else ()
    return run((*node.npm, *FLAGS, *offline, *words), cwd=folder, environ=_environ(bench))


def _environ(bench: Bench) -> dict[str, str]:
    ours = {**_SETTINGS, "npm_config_cache": str(bench.home.cache / "npm")}
    # npm reads these names in any case, so a user's NPM_CONFIG_CACHE would compete.
    return {key: value for key, value in bench.environ.items() if key.lower() not in ours} | ours


def error_of(output: Output) -> tuple[str, str]:
    """Return npm's error code, empty when it gave none, and its summary."""
    found = re.search(r"^npm (?:error|ERR!) code (\S+)", output.stderr, re.MULTILINE)
    try:
        said = json.loads(output.stdout or "{}")
    except ValueError:
        said = {}
    error = said.get("error") if isinstance(said, dict) else None
    summary = str(error.get("summary") or "") if isinstance(error, dict) else ""
    if not summary:
        lines = re.findall(
            r"^npm (?:error|ERR!) (?!code |A complete log)(.+)$", output.stderr, re.M
        )
        summary = lines[0] if lines else output.tail
    return (found[1] if found else ""), " ".join(summary.split())


def failure(output: Output, doing: str, names: Mapping[str, str] | None = None) -> OctaveError:
    """Return the error that explains why npm could not do what `doing` says.

    `names` maps integrity values to package names, to name the package of a wrong hash.
    """
    code, summary = error_of(output)
    details = {"output": output.tail, "code": code}
    if code == "ENOTCACHED":
        return RegistryUnreachable(
            f"{doing} is not in the cache, and the network may not be used",
            hint="run the command again without `--offline`",
            details=details,
        )
    if "invalid json response body" in summary:
        return RegistryUnreachable(
            f"something else than a package registry answers for {doing}: {summary}",
            hint="log in where the network asks for it, or check `npm config get registry`; if it "
            "was answered for good, `octave clean` forgets that",
            details=details,
        )
    if _NETWORK.fullmatch(code):
        return RegistryUnreachable(
            f"the package registry cannot be used for {doing}: {summary}",
            hint="check the network and `npm config get registry`; `--offline` installs what is "
            "in the cache",
            details=details,
        )
    if code in _STORAGE:
        return StorageFailed(
            f"npm cannot write for {doing}: {summary}",
            hint="check free space and who owns the folder, then try again",
            details=details,
        )
    wrong = _WRONG_HASH.search(output.stderr + output.stdout)
    if wrong:
        return wrong_hash((names or {}).get(wrong[1], doing), wrong[1], wrong[2])
    if code == "EINTEGRITY":
        return IntegrityFailed(f"a hash does not hold for {doing}: {summary}", details=details)
    return InstallFailed(f"npm failed for {doing}: {summary}", details=details)


def wrong_hash(what: str, expected: str, got: str) -> IntegrityFailed:
    """Return the error for bytes that are not the locked ones."""
    return IntegrityFailed(
        f"the tarball of {what} is not the locked one: expected `{expected}`, got `{got}`",
        hint="the lockfile, the registry or a mirror was changed; find out which, `octave lock`"
        " only when the new one is right",
        details={"expected": expected, "got": got},
    )


def registry_access(
    node: Node, bench: Bench, folder: Path, scopes: frozenset[str]
) -> RegistryAccess:
    """Return how packages of `scopes` (`@scope`) and those without one can be fetched plainly.

    Raises:
        NeedsNpm: the user's configuration asks for what only npm does.
    """
    # Nothing that it tells depends on the folder, whose .npmrc nobody wrote.
    words = ("config", "list", "--json")
    output = bench.ask((*node.npm, *words), lambda: run_npm(node, bench, words, folder))
    try:
        config = json.loads(output.stdout)
        url = str(config["registry"]).rstrip("/") + "/"
    except (ValueError, KeyError, TypeError):
        raise NeedsNpm("npm's configuration cannot be read") from None
    _refuse_proxy(config, bench.environ)
    own = sorted(scope for scope in scopes if config.get(f"{scope}:registry"))
    if own:
        raise NeedsNpm(f"`{own[0]}` has a registry of its own")
    if not config.get("strict-ssl") or any(config.get(key) for key in ("ca", "cert", "key")):
        raise NeedsNpm("the configuration changes how TLS is checked")
    files = [config.get("userconfig"), config.get("globalconfig"), str(folder / ".npmrc")]
    if _needs_secret(url, [Path(str(name)) for name in files if name], bench.environ):
        raise NeedsNpm("the registry wants authorization")
    return RegistryAccess(url, _ca_files(config, bench.environ))


def _refuse_proxy(config: Mapping[str, Any], environ: Mapping[str, str]) -> None:
    configured = config.get("proxy") or config.get("https-proxy")
    if configured or any(value for key, value in environ.items() if key.lower() in _PROXIES):
        raise NeedsNpm("there is a proxy")


def _needs_secret(url: str, files: Sequence[Path], environ: Mapping[str, str]) -> bool:
    # `npm config list` keeps these keys to itself. Only whether one applies matters, no value.
    address = url.partition(":")[2]
    for path in files:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for found in _SECRET_KEY.finditer(text):
            if found["host"] is None or address.startswith(found["host"]):
                return True
    settings = (key for key in environ if key.lower().startswith("npm_config_"))
    return any(re.search(r"_auth|_password|//", key, re.IGNORECASE) for key in settings)


def _ca_files(config: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[Path, ...]:
    named = config.get("cafile") or environ.get("SSL_CERT_FILE")
    extra = environ.get("NODE_EXTRA_CA_CERTS")
    return tuple(Path(str(name)) for name in (named, extra) if name)
