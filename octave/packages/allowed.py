"""Whose code may run while something is installed: what can be named, and what is named in vain."""

from collections.abc import Collection, Iterator

from octave.errors import UsageError
from octave.packages.graph_rows import buildable, marked, row_name
from octave.packages.lockfile import Pin
from octave.packages.manifest import ServerEntry
from octave.packages.names import pypi_name, split_package
from octave.packages.resolve import Choice


def require_names(
    choice: Choice, text: str, scripts: Collection[str], builds: Collection[str]
) -> None:
    """Refuse to allow what packages of another kind do; `text` is what was asked for.

    Raises:
        UsageError: that, or one is not the name of a package.
    """
    for kind, called, flag, names in (
        ("npm", "npm", "--allow-scripts", scripts),
        ("pypi", "PyPI", "--allow-build", builds),
    ):
        if names and choice.kind not in {kind, "folder"}:
            raise UsageError(
                f"`{flag}` goes with {called} packages, and `{choice.source}` is none",
                hint=f"octave install {text}",
            )
        for name in names:
            try:
                split_package(f"{kind}:{name}")
            except ValueError as error:
                raise UsageError(f"`{flag}`: {error}", hint=f"`{flag} PACKAGE`") from None


def require_there(pin: Pin, scripts: Collection[str], builds: Collection[str]) -> None:
    """Refuse to allow what nothing in the graph of `pin` does.

    Raises:
        UsageError: one of `scripts` has none, or one of `builds` is not built.
    """
    having = marked(pin.graph, "hasInstallScript")
    for name in sorted(set(scripts) - having):
        known = any(row_name(row) == name for row in pin.graph)
        what = f"`{name}` has no install script" if known else f"`{pin.package}` needs no `{name}`"
        listed = ", ".join(f"`{one}`" for one in sorted(having))
        raise UsageError(
            f"{what}, so there is nothing to allow",
            hint=f"install scripts are those of {listed}: `--allow-scripts {min(having)}`"
            if having
            else "leave it out of `--allow-scripts`",
            details={"withScripts": sorted(having)},
        )
    for name in sorted(set(map(pypi_name, builds)) - buildable(pin.graph)):
        raise UsageError(
            f"`{pin.package}` needs no `{name}`, so there is nothing to build",
            hint="leave it out of `--allow-build`",
        )


def in_vain(pin: Pin, server: ServerEntry) -> Iterator[str]:
    """Yield what `server` allows and `pin` has no use for, sentences: versions give up scripts."""
    for key, names in (
        ("allow_scripts", set(server.allow_scripts) - marked(pin.graph, "hasInstallScript")),
        ("allow_build", set(map(pypi_name, server.allow_build)) - buildable(pin.graph)),
    ):
        for name in sorted(names):
            yield (
                f"`{pin.name}` {pin.version} runs no code of `{name}` while it is installed: "
                f"`{key}` in `octave.toml` need not name it"
            )
