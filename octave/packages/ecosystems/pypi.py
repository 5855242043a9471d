"""PyPI servers: uv resolves and installs, Octave checks every file and starts the script itself.

A graph row is one package: `name`, `version`, `hashes`, and `marker` where it is not for every
machine, `build` where it is a source. The rows hold for all platforms and for every Python from
`toolchain` on. No build code runs, neither while resolving nor while installing, but that of
packages that somebody named.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from octave.errors import (
    InstallFailed,
    OctaveError,
    VersionNotFound,
)
from octave.packages import bytecode, private_python, store, toolchains, uv
from octave.packages.commands import Output
from octave.packages.ecosystems.base import Bench, Newest, Resolved, Wanted
from octave.packages.ecosystems.pypi_refusals import refusal
from octave.packages.ecosystems.pypi_rows import (
    as_requirements,
    constraint,
    hashes_of,
    lowest_python,
    only_wheels,
    parse_requirements,
    python_limits,
    python_range,
    requirement,
    with_builds,
)
from octave.packages.ecosystems.pypi_scripts import choose_script, require_own
from octave.packages.graph_rows import marked
from octave.packages.lockfile import GraphRow, Pin
from octave.packages.names import pypi_name
from octave.packages.requirements import require_whole
from octave.packages.wheels import Site

_COMPILING = "compiling modules"
"""No server can have this name, so its lock is nobody else's."""
_FLOOR_RAISES = 3
"""How often a package further down may ask for a newer Python than the one before."""
_FLOOR_ASKED = re.compile(r"depends? on Python>=(\d+(?:\.\d+)*)")
_FLOOR_OF_MARKER = re.compile(r"python(?:_full)?_version >= '(\d+(?:\.\d+)*)'")


@dataclass(frozen=True, slots=True)
class _Question:
    """What uv is asked: one requirement, for all Pythons from `floor` on."""

    requirement: Requirement
    constraints: tuple[str, ...]
    floor: Version
    builds: tuple[str, ...] = ()
    """Packages that are built from their source; all others come as wheels."""
    version: str = ""
    """Of a requirement with an address, which uv repeats in its place."""

    @property
    def name(self) -> str:
        """Normalised, as in the rows."""
        return canonicalize_name(self.requirement.name)

    def rows(self, text: str) -> list[GraphRow]:
        """Return the rows of uv's answer."""
        if self.requirement.url is not None:
            address = re.escape(self.requirement.url)
            text = re.sub(rf"^(\S+) @ {address}", rf"\1=={self.version}", text, flags=re.MULTILINE)
        return parse_requirements(text)

    def root(self, rows: Sequence[GraphRow]) -> list[GraphRow]:
        """Return the rows of the package itself, newest first; several where Pythons differ."""
        own = [row for row in rows if row["name"] == self.name]
        return sorted(own, key=lambda row: Version(str(row["version"])), reverse=True)


class Pypi:
    """The ecosystem of `pypi:NAME`."""

    kind = "pypi"

    def resolve(self, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Return the newest version within `wanted` and its whole graph."""
        bench.progress(f"resolving {wanted.package}")
        if wanted.builds and not bench.runs_code:
            return _unbuilt(wanted, staging, bench)
        limits = python_limits(wanted.requires.get("python"))
        question = _Question(
            requirement(wanted.package, wanted.version_range),
            tuple(str(constraint(text)) for text in wanted.constraints),
            lowest_python(limits),
            tuple(sorted(map(pypi_name, wanted.builds))),
        )
        question, rows = _compile_for_a_python(question, staging, bench)
        notes = list(uv.notes(bench))
        if len(question.root(rows)) > 1:
            question, rows, newer = _choose_version(question, rows, staging, bench)
            notes += newer
        rows = with_builds(rows, question.builds)
        notes += _notes_on(rows)
        root = question.root(rows)[0]
        notes += _passed_over(question, str(root["version"]), staging, bench)
        requires = python_range(question.floor, limits)
        interpreter = toolchains.python(bench, requires)
        if not interpreter.is_own:
            notes.append(f"`{question.name}` runs on Python {interpreter.version}.")
        return Resolved(
            version=str(root["version"]),
            integrity=" ".join(hashes_of(root)),
            graph=tuple(rows),
            requires={"python": requires},
            toolchain={"python": f"{question.floor.major}.{question.floor.minor}"},
            notes=tuple(notes),
        )

    def check(self, pin: Pin, bench: Bench, target: Path | None = None) -> None:
        """Refuse rows that are no requirements with hashes, and scripts of other packages."""
        as_requirements(pin.graph)
        if target is not None:
            _require_own_script(pin, Site.of(target / "venv"))

    def install(self, pin: Pin, target: Path, bench: Bench, *, wheels: Path | None = None) -> None:
        """Fill `target/venv` with the locked packages and check every file of them.

        `wheels` is a folder with some of them.
        """
        requires = pin.requires.get("python")
        here = ("--find-links", wheels) if wheels is not None else ()
        site, compiled = _install_on(toolchains.python(bench, requires), pin, target, bench, *here)
        # uv takes no notice of an upper limit, and the graph holds none: only the package knows.
        own = site.requires_python(requirement(pin.package, "*").name)
        interpreter = toolchains.python(bench, ",".join(filter(None, (requires, own))))
        if not site.runs_on(interpreter.minor):
            site, compiled = _install_on(interpreter, pin, target, bench, *here)
        bench.progress(f"checking the files of {pin.package}")
        site.check_packages(pin.graph)
        require_whole(site, requirement(pin.package, "*"), interpreter.version)
        _require_own_script(pin, site)
        changed = site.changed_files()
        if changed:
            _fetch_anew(changed, pin, target, bench)
        missing = site.packages.keys() - compiled
        if missing:
            bench.progress(f"compiling {pin.package}")
            # All cores work at it; whoever waits finds done what both have in common.
            with store.locked(bench.home, _COMPILING, bench.progress, busy=_COMPILING):
                bytecode.provide(missing, site, pin.graph, interpreter, bench.home.cache)

    def find_entry(self, package: str, executable: str | None, target: Path) -> str:
        """Return the name of the console script that starts the server."""
        name = requirement(package, "*").name
        return choose_script(name, Site.of(target / "venv").console_scripts(name), executable)

    def index_host(self, package: str, staging: Path, bench: Bench) -> str:
        """Return the host of the index in the user's uv or pip settings; empty: uv's default."""
        return urlsplit(uv.index_settings(bench.environ).default or "").hostname or ""

    def claims(self, package: str, name: str, target: Path) -> bool:
        """Whether its README, the description of its wheel, holds `mcp-name: NAME`."""
        readme = Site.of(target / "venv").readme(requirement(package, "*").name)
        # A longer name that begins with this one is another server's.
        return re.search(rf"mcp-name: *{re.escape(name)}(?![\w./-])", readme) is not None

    def argv(self, pin: Pin, target: Path, bench: Bench) -> tuple[str, ...]:
        """Return the environment's Python and the script: no shell stands between."""
        programs = target / "venv" / "bin"
        return str(programs / "python"), str(programs / pin.entry)


def newest(wanted: Wanted, staging: Path, bench: Bench) -> Newest:
    """Return the newest version within `wanted`, whatever it depends on.

    Raises:
        PackageNotFound, VersionNotFound, RegistryUnreachable, InstallFailed.
    """
    question = _Question(
        requirement(wanted.package, wanted.version_range),
        (),
        lowest_python(python_limits(wanted.requires.get("python"))),
        tuple(sorted(map(pypi_name, wanted.builds))),
    )
    # From its cache uv would answer as of some minutes ago.
    question, rows = _compile_for_a_python(question, staging, bench, "--no-deps", "--refresh")
    row = question.root(rows)[0]
    floor = _floor_of(row, question)
    try:
        toolchains.python(replace(bench, offline=True), f">={floor}")
    except InstallFailed as error:
        if not private_python.is_offered(bench, f">={floor}"):
            return Newest(str(row["version"]), error.message)
    return Newest(str(row["version"]))


def _unbuilt(wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
    """Return what is known of a package some of whose graph only build code can tell."""
    name = requirement(wanted.package, "*").name
    version = newest(wanted, staging, bench).version
    built: dict[str, GraphRow] = {
        one: {"name": one, "build": True} for one in sorted(map(pypi_name, wanted.builds))
    }
    root: GraphRow = {**built.pop(pypi_name(name), {"name": pypi_name(name)}), "version": version}
    return Resolved(version, "", (root, *built.values()), {}, {})


def _require_own_script(pin: Pin, site: Site) -> None:
    package = requirement(pin.package, "*").name
    if pin.entry:
        require_own(pin.entry, package, site.console_scripts(package))


def _notes_on(rows: Sequence[GraphRow]) -> list[str]:
    built = ", ".join(f"`{name}`" for name in sorted(marked(rows, "build")))
    return [f"Built from source, which runs code of it: {built}."] if built else []


def resolve_wheel(
    wheel: Path, name: str, version: str, wanted: Wanted, staging: Path, bench: Bench
) -> Resolved:
    """Return what a wheel that was built here is, with the whole graph of what it asks for.

    Of `wanted` only the limits on dependencies and what may be built count.

    Raises:
        RegistryUnreachable, InstallFailed.
    """
    bench.progress(f"resolving {name}")
    question = _Question(
        Requirement(f"{name} @ {wheel.as_uri()}"),
        tuple(str(constraint(text)) for text in wanted.constraints),
        lowest_python(SpecifierSet()),
        tuple(sorted(map(pypi_name, wanted.builds))),
        version,
    )
    question, rows = _compile_for_a_python(question, staging, bench)
    rows = with_builds(rows, question.builds)
    requires = python_range(question.floor, SpecifierSet())
    return Resolved(
        version=version,
        integrity=" ".join(hashes_of(question.root(rows)[0])),
        graph=tuple(rows),
        requires={"python": requires},
        toolchain={"python": f"{question.floor.major}.{question.floor.minor}"},
        notes=(*uv.notes(bench), *_notes_on(rows)),
    )


def _compile_for_a_python(
    question: _Question, staging: Path, bench: Bench, *options: str
) -> tuple[_Question, list[GraphRow]]:
    """Resolve, for a newer Python where a package asks for one."""
    for _ in range(_FLOOR_RAISES):
        output = _compile(question, staging, bench, *options)
        if output.exit_code == 0:
            return question, question.rows(output.stdout)
        floor = _asked_floor(output.stderr)
        if floor is None or floor <= question.floor:
            break
        question = replace(question, floor=floor)
    raise _explain(output, question, staging, bench)


def _choose_version(
    question: _Question, rows: Sequence[GraphRow], staging: Path, bench: Bench
) -> tuple[_Question, list[GraphRow], list[str]]:
    """Resolve anew for the newest version that a Python of this machine can run."""
    passed: list[str] = []
    for row in question.root(rows):
        floor = _floor_of(row, question)
        try:
            toolchains.python(bench, f">={floor}")
        except InstallFailed:
            passed.append(f"`{question.name}` {row['version']} needs Python {floor} or newer.")
            continue
        exact = Requirement(f"{question.requirement.name}=={row['version']}")
        exact.extras = question.requirement.extras
        narrowed = replace(question, requirement=exact, floor=floor)
        return (*_compile_for_a_python(narrowed, staging, bench), passed)
    raise InstallFailed(" ".join(passed), hint="install a newer Python, then try again")


def _floor_of(row: GraphRow, question: _Question) -> Version:
    """Return the lowest Python that `row`, one of several for different ones, is for."""
    found = _FLOOR_OF_MARKER.search(str(row.get("marker", "")))
    return max(question.floor, Version(found[1])) if found else question.floor


def _compile(question: _Question, staging: Path, bench: Bench, *options: str) -> Output:
    limits = staging / "constraints.txt"
    limits.write_text("\n".join([*question.constraints, ""]), encoding="utf-8")
    words: list[str | Path] = ["pip", "compile", "-", "--constraints", limits, "--universal"]
    words += [
        "--generate-hashes",
        "--no-header",
        "--no-annotate",
        "--python-version",
        str(question.floor),
    ]
    words += ["--python", toolchains.python(bench).path, *only_wheels(question.builds), *options]
    if bench.min_age is not None:
        words += ["--exclude-newer", bench.min_age.cutoff]
    return uv.run(bench, words, cwd=staging, stdin=f"{question.requirement}\n")


def _asked_floor(text: str) -> Version | None:
    return min((Version(found) for found in _FLOOR_ASKED.findall(uv.unwrapped(text))), default=None)


def _explain(output: Output, question: _Question, staging: Path, bench: Bench) -> OctaveError:
    text, name = uv.unwrapped(output.stderr), question.name
    failed = uv.failure(output, name)
    if type(failed) is not InstallFailed:
        return failed
    refused = refusal(text, name, bench.min_age)
    if refused is not None:
        return refused
    newest = _newest(question, staging, bench) if question.requirement.specifier else None
    if newest and not question.requirement.specifier.contains(newest, prereleases=True):
        return VersionNotFound(
            f"`{name}` has no version `{question.requirement.specifier}`",
            hint=f"the newest is `{newest}`",
        )
    if question.constraints:
        failed.hint = "check the server's `constraints` in `octave.toml`"
    return failed


def _passed_over(question: _Question, version: str, staging: Path, bench: Bench) -> list[str]:
    """Say so when a newer version fits the range but its dependencies do not."""
    if str(question.requirement.specifier) == f"=={version}":
        return []
    output = _compile(question, staging, bench, "--no-deps")
    if output.exit_code:
        return []
    newest = str(question.root(parse_requirements(output.stdout))[0]["version"])
    if Version(newest) <= Version(version):
        return []
    return [
        f"`{question.name}` {newest} is out, but {version} is the newest whose dependencies "
        "fit the constraints and are offered as wheels."
    ]


def _newest(question: _Question, staging: Path, bench: Bench) -> str | None:
    """Return the newest version if the one asked for does not exist; None when it does."""
    alone = _compile(question, staging, bench, "--no-deps")
    if alone.exit_code == 0:
        return None
    anything = replace(question, requirement=Requirement(question.requirement.name), constraints=())
    output = _compile(anything, staging, bench, "--no-deps")
    if output.exit_code:
        return None
    return str(anything.root(parse_requirements(output.stdout))[0]["version"])


def _install_on(
    interpreter: toolchains.Python, pin: Pin, target: Path, bench: Bench, *options: str | Path
) -> tuple[Site, set[str]]:
    """Return what was installed, and of which packages the modules are compiled already."""
    folder = target / "venv"
    shutil.rmtree(folder, ignore_errors=True)
    bench.progress(f"installing {pin.package} {pin.version}")
    words: list[str | Path] = ["venv", "--relocatable"]
    words += ["--no-project", "--python", interpreter.path, folder]
    output = uv.run(bench, words, cwd=target)
    if output.exit_code:
        raise uv.failure(output, pin.package)
    archives = [
        (str(row["name"]), bytecode.kept(bench.home.cache, row, interpreter.version))
        for row in pin.graph
    ]
    with ThreadPoolExecutor(1) as beside:
        # uv has a core of its own meanwhile.
        compiled = beside.submit(bytecode.restore_all, archives, Site.of(folder).folder)
        _sync(pin, folder, bench, *options)
        return Site.of(folder), compiled.result()


def _sync(pin: Pin, folder: Path, bench: Bench, *options: str | Path) -> None:
    words: list[str | Path] = ["pip", "sync", "-", "--python", folder / "bin" / "python"]
    words += ["--require-hashes", "--link-mode", "copy"]
    words += [*only_wheels(marked(pin.graph, "build")), *options]
    rows = as_requirements(pin.graph)
    # The rows say all: asking the index about what is in the cache only doubles the time.
    output = uv.run(replace(bench, offline=True), words, cwd=folder, stdin=rows)
    if output.exit_code and not bench.offline:
        output = uv.run(bench, words, cwd=folder, stdin=rows)
    if output.exit_code:
        raise uv.failure(output, pin.package)


def _fetch_anew(changed: Mapping[str, str], pin: Pin, target: Path, bench: Bench) -> None:
    """Replace packages that came out of a damaged cache by what the index has under their hash.

    uv checks that hash on a download; what still differs was published with a wrong RECORD.
    """
    if bench.offline:
        raise uv.changed(changed)
    options = [word for name in changed for word in ("--reinstall-package", name)]
    cache = target / "cache"
    _sync(pin, target / "venv", bench, "--cache-dir", str(cache), *options)
    shutil.rmtree(cache)
