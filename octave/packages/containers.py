"""docker or podman: which one is here, what it knows of an image, and how it is told to run one.

Both speak the same words as far as they are used here. Values of variables go to it through the
environment, never through its arguments; an image is always named with its digest.
"""

import json
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from octave.errors import (
    InstallFailed,
    IntegrityFailed,
    OctaveError,
    PackageNotFound,
    RegistryUnreachable,
    StartFailed,
    VersionNotFound,
)
from octave.packages import container_launcher
from octave.packages.commands import Output, run

if TYPE_CHECKING:  # the ecosystems import this module
    from octave.packages.ecosystems.base import Bench

TOOLS = ("docker", "podman")
"""In the order in which they are tried; one that does not answer is passed over."""
LABEL = "io.github.octave-mcp.server"
"""On each container, with the server's name: `docker ps --filter label=...` finds them."""
CLAIM = "io.modelcontextprotocol.server.name"
"""The label by which an image says which server it is (the official registry's rule)."""
TOOL_VARIABLES = re.compile(
    r"(?:DOCKER|CONTAINERS?|BUILDAH|PODMAN)_.*|REGISTRY_AUTH_FILE|DBUS_SESSION_BUS_ADDRESS"
)
"""What docker and podman themselves are set by."""

_ASK_TIMEOUT_S = 30.0
"""A daemon that is being woken takes seconds."""
_LOOK_TIMEOUT_S = 5.0
"""For whoever only lists servers."""
_PULL_TIMEOUT_S = 3600.0
"""Images of gigabytes over slow lines."""
_RESERVED = re.compile(
    rf"(?:LD|DYLD|XDG)_.*|SSL_CERT_.*|PATH|HOME|TMPDIR|GODEBUG|{TOOL_VARIABLES.pattern}"
)
"""What would change the tool, which runs outside of the container."""
_WITH_ITS_INDEX = 2
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_UNREACHABLE = re.compile(
    r"no such host|dial tcp|connection refused|i/o timeout|TLS handshake|Client\.Timeout"
    r"|deadline exceeded|network is unreachable|toomanyrequests|too many requests|EOF$"
    r"|server misbehaving|50\d (?:Bad|Service|Gateway|Internal)",
    re.IGNORECASE | re.MULTILINE,
)
_NO_VERSION = re.compile(r"manifest unknown|manifest for .* not found|manifest not found", re.I)
_NO_IMAGE = re.compile(
    r"repository does not exist|name unknown|repository .* not found|access .* denied"
    r"|^\S*:? ?denied|unauthorized|authentication required",
    re.IGNORECASE | re.MULTILINE,
)
_GONE = re.compile(
    r"no such image|image not known|unable to find image|identifier is not an image", re.IGNORECASE
)
_ENGINE_FAILED = 125
"""The exit code of `docker run` and `podman run` that is their own, not the container's."""
_NO_PLATFORM = re.compile(r"no matching manifest|no image found in (?:manifest list|image index)")


@dataclass(frozen=True, slots=True)
class Tool:
    """A docker or a podman that answers."""

    path: str
    name: str
    """`docker` or `podman`, whichever it is, not how it is called here."""


@dataclass(frozen=True, slots=True)
class Image:
    """What lies in the tool's store."""

    digests: tuple[str, ...]
    """`sha256:...` under which its own name is known, of the index or of one platform."""
    labels: Mapping[str, str]
    digest: str = ""
    """The one it was pulled by (podman 4.3: that of the index)."""


def tool(bench: "Bench") -> Tool:
    """Return the first of docker and podman that is on PATH and works; blocks.

    Raises:
        InstallFailed: there is none, or none that answers; says which.
    """
    problem: InstallFailed | None = None
    for path in found(bench):
        try:
            return _working(path, bench)
        except InstallFailed as error:
            problem = problem or error
    raise problem or InstallFailed(
        "a container image needs docker or podman, and neither is on PATH",
        hint="install docker or podman, then try again",
    )


def found(bench: "Bench") -> list[str]:
    """Return which of docker and podman are on PATH, working or not."""
    paths = (shutil.which(name, path=bench.environ.get("PATH", "")) for name in TOOLS)
    return [path for path in paths if path is not None]


def _working(path: str, bench: "Bench") -> Tool:
    """Return the tool at `path`, which answers.

    Raises:
        InstallFailed: it does not.
    """
    told = _ask(path, ("--version",), bench).stdout.lower()
    # A `docker` may be podman under another name.
    name = "podman" if told.startswith("podman") else "docker"
    question = ("info", "--format", "{{.Version.Version}}")
    if name == "docker":
        question = ("version", "--format", "{{.Server.Version}}")
    said = _ask(path, question, bench)
    if said.exit_code == 0:
        return Tool(path, name)
    text = said.tail
    if "permission denied" in text.lower():
        raise InstallFailed(
            f"`{path}` may not be used by you: {text}",
            hint="let your user use docker (its group `docker`, or rootless mode), or install "
            "podman",
        )
    raise InstallFailed(
        f"`{path}` is there, but does not answer: {text or f'exit code {said.exit_code}'}",
        hint="start docker, for example `systemctl start docker` or Docker Desktop, then try again"
        if name == "docker"
        else "podman info",
    )


def _ask(path: str, words: tuple[str, ...], bench: "Bench") -> Output:
    def question() -> Output:
        return run([path, *words], cwd=Path("/"), environ=bench.environ, timeout_s=_ASK_TIMEOUT_S)

    return bench.ask((path, *words), question)


def inspect(used: Tool, reference: str, bench: "Bench") -> Image | None:
    """Return the image `reference` of the tool's store; None when it is not there.

    Raises:
        InstallFailed: the tool does not answer as it should.
    """
    said = run(
        [used.path, "image", "inspect", reference],
        cwd=Path("/"),
        environ=bench.environ,
        timeout_s=_ASK_TIMEOUT_S,
    )
    if said.exit_code:
        return None
    try:
        (found,) = json.loads(said.stdout)
        return _image(found, reference)
    except (ValueError, TypeError, AttributeError) as error:
        raise InstallFailed(f"`{used.path} image inspect` answers something else") from error


def _image(found: Mapping[str, Any], reference: str) -> Image:
    name = re.sub(r"@sha256:.*|:[^:/]*$", "", reference)
    digests = [
        digest
        for known, _, digest in (str(each).partition("@") for each in found["RepoDigests"] or ())
        # docker leaves the host of its own registry out.
        if known == name or known.endswith(f"/{name}") or name.endswith(f"/{known}")
        if _DIGEST.fullmatch(digest)
    ]
    labels = (found.get("Config") or {}).get("Labels") or found.get("Labels") or {}
    digest = str(found.get("Digest") or "")
    return Image(tuple(dict.fromkeys(digests)), {k: str(v) for k, v in labels.items()}, digest)


def reference(package: str, digest: str) -> str:
    """Return the one name of an image that cannot come to mean another."""
    return f"{package}@{digest}"


def fetch(used: Tool, reference: str, bench: "Bench", *, anew: bool) -> tuple[Image, str]:
    """Return the image, pulled `anew` or where it is not there, and what its pull wrote.

    Raises:
        PackageNotFound, VersionNotFound, RegistryUnreachable, InstallFailed: as `pull`.
    """
    image, told = None if anew else inspect(used, reference, bench), ""
    if image is None:
        told = pull(used, reference, bench)
        image = inspect(used, reference, bench)
    if image is None:
        raise InstallFailed(f"`{used.path}` has pulled `{reference}`, and does not have it")
    return image, told


def pull(used: Tool, reference: str, bench: "Bench") -> str:
    """Fetch the image `reference`; return what the tool wrote. Blocks for as long as it takes.

    Raises:
        PackageNotFound, VersionNotFound, RegistryUnreachable, InstallFailed.
    """
    if bench.offline:
        raise RegistryUnreachable(
            f"the image `{reference}` is not in the store of {used.name}",
            hint="try again without `--offline`",
        )
    bench.progress(f"pulling {reference}")
    said = run(
        [used.path, "pull", reference],
        cwd=Path("/"),
        environ=bench.environ,
        timeout_s=_PULL_TIMEOUT_S,
    )
    if said.exit_code:
        raise _pull_failure(used, reference, said.tail)
    return said.stdout


def _pull_failure(used: Tool, reference: str, text: str) -> OctaveError:
    last = text.splitlines()[-1] if text else "it does not say why"
    if _NO_PLATFORM.search(text):
        return InstallFailed(
            f"the image `{reference}` is not made for this machine: {last}",
            hint="its publisher decides for which; ask there",
        )
    if _UNREACHABLE.search(text):
        return RegistryUnreachable(
            f"the image `{reference}` cannot be pulled: {last}",
            hint="check the network, then try again",
        )
    if _NO_VERSION.search(text):
        return VersionNotFound(
            f"there is no image `{reference}`", hint="check its tag; its page lists them"
        )
    if _NO_IMAGE.search(text):
        return PackageNotFound(
            f"there is no image `{reference}`, or none for you: {last}",
            hint=f"check its name, or `{used.name} login` where it lies",
        )
    return InstallFailed(f"the image `{reference}` cannot be pulled: {last}")


def digest_of(image: Image, reference: str, told: str) -> str:
    """Return the digest that stands for `image` on every platform: that of its index.

    `told` is what its pull wrote.

    Raises:
        InstallFailed: it has none, as it was never in a registry, or nobody knows which.
    """
    said = re.search(r"^Digest: (sha256:[0-9a-f]{64})\s*$", told, re.MULTILINE)
    if said and said[1] in image.digests:
        return said[1]
    of_all = image.digests
    if len(of_all) == 1:
        return of_all[0]
    # podman also knows the image of this platform alone by its digest.
    if len(of_all) == _WITH_ITS_INDEX and image.digest in of_all:
        return image.digest
    name = re.sub(r":[^:/]*$", "", reference)
    if not of_all:
        raise InstallFailed(
            f"the image `{reference}` has no digest: it was made on this machine",
            hint="push it to a registry first; or `octave add NAME -- docker run -i --rm "
            f"{reference}`",
        )
    raise InstallFailed(
        f"the image `{reference}` is known under several digests",
        hint=f"choose one: `octave install oci:{name}@{of_all[0]}`",
        details={"digests": list(of_all)},
    )


def is_there(path: str, reference: str, bench: "Bench") -> bool:
    """Whether the image lies in the store of the tool at `path`; blocks."""
    try:
        return inspect(Tool(path, "docker"), reference, bench) is not None
    except InstallFailed:
        return False


def is_gone(path: str, reference: str, bench: "Bench") -> bool:
    """Whether the tool at `path` says that it does not have the image; blocks.

    One that does not answer says nothing.
    """
    words = [path, "image", "inspect", reference]
    try:
        said = run(words, cwd=Path("/"), environ=bench.environ, timeout_s=_LOOK_TIMEOUT_S)
    except InstallFailed:
        return False
    return said.exit_code != 0 and _GONE.search(said.tail) is not None


def gone(server: str, reference: str) -> str:
    """Return what is wrong with a `server` whose image was removed, a sentence."""
    return f"the image of `{server}`, `{reference}`, is not on this machine any more"


def explained(error: StartFailed, server: str, reference: str) -> StartFailed:
    """Return the `error` of a start by docker or podman, which says so when the image is gone."""
    lines = map(str, error.details.get("stderrTail") or ())
    if error.details.get("exitCode") != _ENGINE_FAILED or not any(map(_GONE.search, lines)):
        return error
    details = {**error.details, "permanent": True}
    return StartFailed(gone(server, reference), hint="octave install", details=details)


def require_digest(image: Image, digest: str, reference: str) -> None:
    """Refuse an image that the tool does not know by `digest`.

    Raises:
        IntegrityFailed: it does not.
    """
    if digest not in image.digests:
        raise IntegrityFailed(f"`{reference}` is there under another digest than that")


@dataclass(frozen=True, slots=True)
class Run:
    """What a container is to be run with."""

    server: str
    tool: str
    """Absolute path of docker or podman."""
    image: str
    """With its digest."""
    variables: tuple[str, ...] = ()
    """Names alone; the tool takes the values from its environment."""
    mounts: tuple[str, ...] = ()
    """`SOURCE:TARGET[:ro]`, absolute both."""


def argv(wanted: Run) -> tuple[str, ...]:
    """Return `command` with what sees to it that the container ends with it.

    Raises:
        StartFailed: as `command`.
    """
    tool, _, *words = command(wanted)
    launcher = (sys.executable, "-I", "-S", container_launcher.__file__)
    return (*launcher, tool, wanted.server, *words)


def command(wanted: Run) -> tuple[str, ...]:
    """Return the command that runs the container, up to the image's own arguments.

    Raises:
        StartFailed: a variable would change the tool itself.
    """
    reserved = sorted(filter(_RESERVED.fullmatch, wanted.variables))
    if reserved:
        raise StartFailed(
            f"`{wanted.server}` cannot be given `{reserved[0]}`: it would change "
            f"`{Path(wanted.tool).name}` itself, outside of the container",
            hint=f"octave set {wanted.server} --unset env.{reserved[0]}",
        )
    words = ["-i", "--rm", "--init", "--pull=never", "--log-driver=none"]
    words += ["--label", f"{LABEL}={wanted.server}"]
    for name in dict.fromkeys(wanted.variables):
        words += ["-e", name]
    for mount in wanted.mounts:
        words += ["--mount", _mount(mount)]
    return (wanted.tool, "run", *words, wanted.image)


def _mount(text: str) -> str:
    source, target, *mode = text.split(":")
    return f"type=bind,source={source},target={target}" + (",readonly" if mode == ["ro"] else "")


def only_names(environ: Iterable[str]) -> list[str]:
    """Return those of the variables that docker or podman themselves need."""
    return [name for name in environ if TOOL_VARIABLES.fullmatch(name)]
