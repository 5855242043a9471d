"""Where package verbs act: the workspace, with all that installing takes and shows."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from octave.cli import render
from octave.cli.completion import registry_ids
from octave.cli.options import Manners
from octave.cli.output import safe, tell
from octave.cli.reach import reload, swap
from octave.packages import suspicious
from octave.packages.ecosystems.base import Bench
from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.packages.placement import Site
from octave.packages.registries import of_workspace
from octave.packages.release_age import release_age

SUSPICIONS = 5
"""So many suspicious texts are told at an installation."""
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="NAME",
        help="Ask this registry too: `official`, or one of octave.toml.",
        autocompletion=registry_ids,
    ),
]

EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env", "-e", metavar="KEY[=VALUE]", help="A variable; a secret by its name alone."
    ),
]
EnvFileOption = Annotated[
    Path | None, typer.Option("--env-file", help="Variables, a `KEY=VALUE` each line.")
]
AgeOption = Annotated[
    str | None,
    typer.Option(
        "--min-release-age", metavar="AGE", help="Choose only versions that are so old: `7d`."
    ),
]
NoStartOption = Annotated[bool, typer.Option("--no-start", help="Do not start it once.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]


@contextmanager
def open_site(
    terms: Manners,
    *,
    start: bool = True,
    offline: bool = False,
    creates: bool = False,
    registry: str | None = None,
    min_age: str | None = None,
) -> Iterator[Site]:
    """Yield the site of the workspace of `terms`, its progress shown meanwhile.

    With `creates` the manifest need not be there yet; `registry` is asked besides those in it;
    `min_age` is how old versions must be.

    Raises:
        UsageError: `min_age` is no duration.
    """
    workspace = terms.workspace(may_be_missing=creates)
    age = release_age(min_age)
    with render.progress(quiet=terms.quiet or terms.as_json) as step:
        yield Site(
            workspace=workspace,
            registry=of_workspace(workspace, also=registry, offline=offline, warn=_note(terms)),
            bench=Bench(
                workspace.home,
                os.environ,
                step,
                _note(terms),
                offline,
                _note(terms) if terms.verbose else lambda _: None,
                min_age=age,
            ),
            check=lambda spec: _looked_at(check_once(spec), _note(terms)),
            changed=lambda: reload(workspace),
            swapped=lambda name: swap(workspace, name),
            start=start,
        )


def check_once(spec: LaunchSpec) -> Offered:
    """Start a server once and return what it offers; raises as `probe` does."""
    # Imported late: asyncio is only needed when a server is really started.
    from octave.runtime.probe import probe

    return probe(spec)


def _looked_at(found: Offered, note: Callable[[str], None]) -> Offered:
    """Return `found`; say what in it looks as if it was meant to mislead a model."""
    looks = [*suspicious.of_tools(found.tools), *suspicious.of_server(found.initialize)]
    for each in looks[:SUSPICIONS]:
        note(f"suspicious: {each.sentence}".replace("\n", "\\n"))
    if len(looks) > SUSPICIONS:
        note(f"{len(looks) - SUSPICIONS} more suspicious texts: `octave audit` shows them")
    return found


def _note(terms: Manners) -> Callable[[str], None]:
    return (
        (lambda _: None)
        if terms.quiet or terms.as_json
        else lambda text: tell(f"note: {safe(text)}")
    )
