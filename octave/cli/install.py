"""`install`: servers by name, by package or all of octave.toml."""

import time
from typing import Annotated

import typer

from octave.cli.asking import ask, can_ask
from octave.cli.completion import registry_names
from octave.cli.options import manners
from octave.cli.outcomes import each, report
from octave.cli.site import (
    AgeOption,
    EnvFileOption,
    EnvOption,
    NoStartOption,
    RegistryOption,
    YesOption,
    open_site,
)
from octave.errors import UsageError
from octave.packages import install as story
from octave.packages import own, variables
from octave.packages.install import Request
from octave.packages.variables import Answers

Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME[@RANGE]", autocompletion=registry_names)
]


def install(
    context: typer.Context,
    names: Names = None,
    *,
    env: EnvOption = None,
    env_file: EnvFileOption = None,
    arg: Annotated[
        list[str] | None, typer.Option("--arg", help="An argument for the server; repeatable.")
    ] = None,
    name: Annotated[str | None, typer.Option("--as", help="Call it this.")] = None,
    executable: Annotated[
        str | None, typer.Option("--bin", help="Which of the package's executables.")
    ] = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Exactly the lockfile, or exit 7. For CI.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Only what is in the cache.")] = False,
    no_start: NoStartOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 6 when a server could not be checked.")
    ] = False,
    allow_scripts: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-scripts", metavar="PKG", help="Run the install scripts of this npm package."
        ),
    ] = None,
    allow_build: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-build", metavar="PKG", help="Build this PyPI package from its source."
        ),
    ] = None,
    min_release_age: AgeOption = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Connect it where it is hosted; installs nothing.")
    ] = False,
    registry: RegistryOption = None,
    yes: YesOption = False,
) -> int:
    """Install servers: NAME, npm:PACKAGE or pypi:PACKAGE; without names, all of octave.toml."""
    terms = manners(context)
    allowed = [allow_scripts, allow_build]
    given = [arg, env, env_file, name, executable, *allowed]
    if len(names or ()) != 1 and any(given):
        raise UsageError(
            "`--env`, `--env-file`, `--arg`, `--as`, `--bin`, `--allow-scripts` and "
            "`--allow-build` go with one name"
        )
    if remote and (not names or any([arg, env, env_file, executable, locked, offline, *allowed])):
        raise UsageError(
            "`--remote` takes names of the registry, and only `--as`, `--no-start`, `--check`"
        )
    if locked and names:
        raise UsageError("`--locked` installs what the lockfile says, so it takes no names")
    answers = Answers(
        tuple(env or ()),
        variables.read_file(env_file) if env_file else {},
        ask if can_ask(yes=yes) else None,
    )
    began = time.monotonic()
    with open_site(
        terms,
        start=not no_start,
        offline=offline,
        creates=bool(names),
        registry=registry,
        min_age=min_release_age,
    ) as site:
        if names and remote:
            outcomes = [each(text, lambda text: own.connect(text, name, site)) for text in names]
        elif names:
            outcomes = [
                each(
                    text,
                    lambda text: story.install(
                        Request(
                            text,
                            name,
                            tuple(arg or ()),
                            answers,
                            executable,
                            scripts=_listed(allow_scripts),
                            builds=_listed(allow_build),
                        ),
                        site,
                    ),
                )
                for text in names
            ]
        else:
            outcomes = story.install_all(site, locked=locked)
    return report(terms, outcomes, time.monotonic() - began, check=check)


def _listed(words: list[str] | None) -> tuple[str, ...]:
    """Return the names that `words` list, each of them one or several with commas between."""
    names = (name.strip() for word in words or () for name in word.split(","))
    return tuple(dict.fromkeys(name for name in names if name))
