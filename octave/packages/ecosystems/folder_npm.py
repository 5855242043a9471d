"""A folder with a package.json: npm packs it, and Octave writes what is in it down in one form.

npm's own archives differ between versions of zlib. The one that is kept here does not, so that the
same files have the same hash on every machine. No script of the folder runs: what it builds has
been built before.
"""

import base64
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from octave.errors import InstallFailed, IntegrityFailed
from octave.packages import toolchains
from octave.packages.ecosystems import npm, npm_install, npm_tarballs
from octave.packages.ecosystems.base import Bench, Ecosystem, Newest, Resolved, Wanted
from octave.packages.ecosystems.npm_command import failure, run_npm
from octave.packages.ecosystems.npm_graph import (
    NAME,
    VERSION,
    root_path,
    row_of,
    rows_from_lock,
)
from octave.packages.ecosystems.npm_versions import overrides_of, required_node, too_young
from octave.packages.lockfile import GraphRow, Pin
from octave.packages.toolchains import Node

_STORED_BYTES = 0xFFFF
"""The most that one block of RFC 1951, section 3.2.4, holds."""
PACKED_BYTES = 256 * 2**20
"""Far above any package; it is held in memory. More is a folder of data that was forgotten."""
_DEPENDENCIES = ("dependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta")
_KEPT = (*_DEPENDENCIES, "version", "engines", "os", "cpu", "libc", "bin")
"""What a package-lock would say of it."""
_SCRIPTS = ("preinstall", "install", "postinstall")


class NpmFolder:
    """See `folder.Packer`."""

    ecosystem: Ecosystem = npm.Npm()

    def newest(self, folder: Path, staging: Path, bench: Bench) -> Newest:
        """Return the version in the folder's package.json."""
        return Newest(str(_package_json(folder).get("version", "")))

    def resolve(self, folder: Path, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Pack the folder, and have npm lock what its package.json asks for."""
        node = toolchains.node(bench)
        packed = _pack(folder, node, staging, bench)
        requires = required_node(packed.manifest, None)
        node = toolchains.node(bench, requires)
        bench.progress(f"locking {packed.name} {packed.version}")
        resolver, made_for = npm.resolver_for(node, requires, staging)
        rows = _lock(packed, wanted, resolver, staging, bench)
        rows = npm.with_all_variants(rows, packed.name, node, staging, bench)
        npm_tarballs.keep(bench.home.cache / npm_install.TARBALLS, packed.archive)
        node = npm_install.node_for(requires, rows, bench)
        return Resolved(
            version=packed.version,
            integrity=packed.integrity,
            graph=rows,
            requires={"node": requires[0]} if requires else {},
            toolchain={"node": made_for.partition(".")[0]},
            entry=_entry(packed, wanted),
            notes=tuple(npm.notes(packed.name, packed.manifest, rows, node, bench)),
        )

    def install(self, folder: Path, pin: Pin, target: Path, bench: Bench) -> None:
        """Have npm's own way fill `target`, with the packed folder in the cache."""
        cache = bench.home.cache / npm_install.TARBALLS
        # No registry has it: what is damaged could not be fetched again.
        if not npm_tarballs.is_kept(cache, pin.integrity):
            packed = _pack(folder, toolchains.node(bench), target.parent, bench)
            if packed.integrity != pin.integrity:
                raise IntegrityFailed(
                    f"`{folder}` is not what was locked: its files have changed since",
                    hint=f"octave update {pin.name}",
                )
            npm_tarballs.keep(cache, packed.archive)
        self.ecosystem.install(pin, target, bench)


@dataclass(frozen=True, slots=True)
class _Packed:
    manifest: Mapping[str, Any]
    """Its package.json, as it is packed."""
    archive: bytes = field(repr=False)
    paths: frozenset[str]
    """Of its files, in the package."""

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @property
    def integrity(self) -> str:
        return f"sha512-{base64.b64encode(hashlib.sha512(self.archive).digest()).decode()}"


def _package_json(folder: Path) -> dict[str, Any]:
    path = folder / "package.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InstallFailed(f"`{path}` cannot be read: {error}") from error
    name, version = (found.get(key) if isinstance(found, dict) else None for key in _NAMED)
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InstallFailed(f"`{path}` has no usable `name`", hint=f"edit `{path}`")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        raise InstallFailed(f"`{path}` has no usable `version`", hint=f"edit `{path}`")
    if found.get("bundleDependencies") or found.get("bundledDependencies"):
        raise InstallFailed(
            f"`{path}` bundles dependencies, which nothing could check",
            hint="take `bundleDependencies` out of it",
        )
    assert isinstance(found, dict)
    return found


_NAMED = ("name", "version")


def _pack(folder: Path, node: Node, staging: Path, bench: Bench) -> _Packed:
    """Return what npm would publish of `folder`."""
    _package_json(folder)
    place = staging / "packed"
    place.mkdir()
    try:
        words = ("pack", "--pack-destination", str(place))
        output = run_npm(node, bench, words, folder)
        archives = sorted(place.glob("*.tgz"))
        if output.exit_code or len(archives) != 1:
            raise failure(output, f"packing `{folder}`")
        files = dict(files_of(archives[0]))
    finally:
        for path in place.iterdir():
            path.unlink()
        place.rmdir()
    manifest = json.loads(files["package/package.json"][1])
    paths = frozenset(name.partition("/")[2] for name in files)
    return _Packed(manifest, _gzip(_tar(files)), paths)


def files_of(
    archive: Path, most_bytes: int = PACKED_BYTES
) -> Iterator[tuple[str, tuple[int, bytes]]]:
    """Yield name, mode and content of each file in a package that npm has packed.

    Raises:
        InstallFailed: they are larger than `most_bytes` in all.
    """
    left_bytes = most_bytes
    with tarfile.open(archive) as tar:
        for member in tar:
            left_bytes -= member.size
            if left_bytes < 0:
                raise InstallFailed(
                    f"what is to be packed is larger than {most_bytes / 2**20:.0f} MiB",
                    hint="name what belongs to the package in `files` of its package.json; "
                    "`npm pack --dry-run` lists it",
                )
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                # What else the mode says depends on who checked the files out.
                yield member.name, (0o755 if member.mode & 0o100 else 0o644, file.read())


def _tar(files: Mapping[str, tuple[int, bytes]]) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, (mode, content) in sorted(files.items()):
            member = tarfile.TarInfo(name)
            member.mode, member.size = mode, len(content)
            tar.addfile(member, io.BytesIO(content))
    return written.getvalue()


def _gzip(content: bytes) -> bytes:
    """Return `content` as a gzip file without compression (RFC 1952), always in the same bytes."""
    blocks = [content[at : at + _STORED_BYTES] for at in range(0, len(content), _STORED_BYTES)]
    parts = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff"]
    for number, block in enumerate(blocks, 1):
        size = len(block)
        parts += [bytes([number == len(blocks)]), size.to_bytes(2, "little")]
        parts += [(size ^ 0xFFFF).to_bytes(2, "little"), block]
    checksum = zlib.crc32(content).to_bytes(4, "little")
    return b"".join([*parts, checksum, (len(content) & 0xFFFFFFFF).to_bytes(4, "little")])


def _lock(
    packed: _Packed, wanted: Wanted, node: Node, staging: Path, bench: Bench
) -> tuple[GraphRow, ...]:
    asked = {key: packed.manifest[key] for key in _DEPENDENCIES if packed.manifest.get(key)}
    _require_registry(packed.name, asked)
    overrides = overrides_of(wanted.constraints)
    manifest = {"private": True, **asked} | ({"overrides": overrides} if overrides else {})
    place = staging / "lock"
    place.mkdir()
    (place / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
    output = run_npm(node, bench, npm.locking(bench), place)
    if output.exit_code:
        raise too_young(output, node, place, bench) or failure(
            output, f"the dependencies of `{packed.name}`"
        )
    lock = json.loads((place / "package-lock.json").read_text(encoding="utf-8"))
    rows = rows_from_lock(lock, packed.name, wanted.scripts)
    path = root_path(packed.name)
    if any(row["path"] == path for row in rows):
        raise InstallFailed(f"`{packed.name}` depends on a package of its own name")
    entry = {key: packed.manifest[key] for key in _KEPT if packed.manifest.get(key)}
    entry["integrity"] = packed.integrity
    entry["hasInstallScript"] = any(key in packed.manifest.get("scripts", {}) for key in _SCRIPTS)
    return tuple(
        sorted((*rows, row_of(path, entry, packed.name)), key=lambda row: str(row["path"]))
    )


def _require_registry(package: str, asked: Mapping[str, Any]) -> None:
    for key in _DEPENDENCIES[:3]:
        for name, text in dict(asked.get(key) or {}).items():
            # `npm:` gives a package of the registry another name.
            if re.match(r"(?!npm:)[^ ]*[:/]", str(text)):
                raise InstallFailed(
                    f"`{package}` wants `{name}` from `{text}`, which is no registry",
                    hint="publish it, or start the server by its command: `octave add NAME -- ...`",
                )


def _entry(packed: _Packed, wanted: Wanted) -> str:
    entry = npm.choose_entry(packed.name, packed.manifest.get("bin"), wanted.executable)
    inside = PurePosixPath(entry).relative_to(root_path(packed.name))
    if str(inside) not in packed.paths:
        raise InstallFailed(
            f"`{packed.name}` is started by `{inside}`, which is not among the files it packs",
            hint="build it first (often `npm run build`), and see what `npm pack --dry-run` lists",
        )
    return entry
