"""Container images: docker or podman fetches and keeps them, and checks every byte by its digest.

A graph has one row: `name`, `version` and `hashes`, the digest of the image's index, which is the
same on every platform. What lies in an installed version's folder is only what the image says.
"""

import json
from pathlib import Path

from octave.errors import InstallFailed, IntegrityFailed
from octave.home import atomic_write
from octave.packages import containers
from octave.packages.ecosystems.base import Bench, Newest, Resolved, Wanted
from octave.packages.lockfile import Pin
from octave.packages.names import joined_image

IMAGE = "image.json"
"""What the image said of itself when it was installed."""
_ANY = "*"
_DIGITS = 12
"""Of a digest, in the version of an image that has no tag."""


class Oci:
    """The ecosystem of `oci:IMAGE`."""

    kind = "oci"

    def resolve(self, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Return the digest of the tag; the image is pulled for it."""
        used = containers.tool(bench)
        version = _version(wanted)
        reference = joined_image(wanted.package, version)
        image, told = containers.fetch(used, reference, bench, anew=not bench.offline)
        digest = version
        if version.startswith("sha256:"):
            containers.require_digest(image, digest, reference)
            version = f"sha256-{digest.removeprefix('sha256:')[:_DIGITS]}"
        else:
            digest = containers.digest_of(image, reference, told)
        return Resolved(
            version=version,
            integrity=digest,
            graph=({"name": wanted.package, "version": version, "hashes": [digest]},),
            requires={},
            toolchain={},
        )

    def check(self, pin: Pin, bench: Bench, target: Path | None = None) -> None:
        """Refuse another digest than the one that was asked for."""
        _, _, wanted = pin.request.rpartition("@")
        if wanted.startswith("sha256:") and wanted != pin.integrity:
            raise IntegrityFailed(
                f"the lockfile has `{pin.integrity}` where `{pin.request}` was asked for",
                hint="octave lock",
            )

    def install(self, pin: Pin, target: Path, bench: Bench) -> None:
        """See to it that the image is there, and keep what it says of itself."""
        self.check(pin, bench)
        used, reference = containers.tool(bench), containers.reference(pin.package, pin.integrity)
        image, _ = containers.fetch(used, reference, bench, anew=False)
        containers.require_digest(image, pin.integrity, reference)
        content = {"digest": pin.integrity, "labels": dict(image.labels)}
        atomic_write(target / IMAGE, json.dumps(content, indent=1, sort_keys=True).encode())

    def find_entry(self, package: str, executable: str | None, target: Path) -> str:
        """Return what stands for the image's own entry point; it has no other.

        Raises:
            InstallFailed: another is asked for.
        """
        if executable is not None:
            raise InstallFailed(f"an image has one entry point, so `{package}` has no `--bin`")
        return IMAGE

    def index_host(self, package: str, staging: Path, bench: Bench) -> str:
        """Return nothing: the host is part of an image's name."""
        return ""

    def claims(self, package: str, name: str, target: Path) -> bool:
        """Whether its label `io.modelcontextprotocol.server.name` is `name`."""
        try:
            labels = json.loads((target / IMAGE).read_bytes())["labels"]
        except (OSError, ValueError, KeyError):
            return False
        return isinstance(labels, dict) and labels.get(containers.CLAIM) == name

    def argv(self, pin: Pin, target: Path, bench: Bench) -> tuple[str, ...]:
        """Return the tool alone; `containers.argv` says the rest at each start."""
        return (containers.tool(bench).path,)


def newest(wanted: Wanted, staging: Path, bench: Bench) -> Newest:
    """Return the tag that is meant; what it stands for by now only a pull can tell.

    Raises:
        InstallFailed: there is neither docker nor podman.
    """
    containers.tool(bench)
    version = _version(wanted)
    if version.startswith("sha256:"):
        version = f"sha256-{version.removeprefix('sha256:')[:_DIGITS]}"
    return Newest(version)


def _version(wanted: Wanted) -> str:
    if wanted.version_range != _ANY:
        return wanted.version_range
    return wanted.told or "latest"
