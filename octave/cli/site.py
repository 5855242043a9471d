"""Where package verbs act: the workspace, with all that installing takes and shows."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from octave.cli import render
from octave.cli.options import Manners
from octave.cli.output import json_text, safe, tell
from octave.cli.reach import reload, swap
from octave.errors import RuntimeSilent
from octave.home import Workspace
from octave.packages.ecosystems.base import Bench
from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.packages.placement import Site
from octave.packages.registries import Asking, of_workspace
from octave.packages.release_age import release_age

Counted = Callable[[int, int, str], None]
"""As `Bench.counted`."""

SUSPICIONS = 5
"""So many suspicious texts are told at an installation."""


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
    with _steps(terms) as (step, counted):
        yield Site(
            workspace=workspace,
            registry=of_workspace(
                workspace, Asking(os.environ, offline, _note(terms), step), also=registry
            ),
            bench=Bench(
                workspace.home,
                os.environ,
                step,
                _note(terms),
                offline,
                workspace.manifest.parent,
                _note(terms) if terms.verbose else lambda _: None,
                min_age=age,
                counted=counted,
            ),
            check=lambda spec: _looked_at(workspace, spec.name, check_once(spec), _note(terms)),
            changed=lambda: reload(workspace),
            swapped=_swapping(workspace),
            start=start,
        )


def _swapping(workspace: Workspace) -> Callable[[str], None]:
    """Return what tells a running runtime of another version; a silent one is asked only once."""
    silent: list[RuntimeSilent] = []

    def swapped(name: str) -> None:
        if silent:
            raise silent[0]
        try:
            swap(workspace, name)
        except RuntimeSilent as error:
            silent.append(error)
            raise

    return swapped


def check_once(spec: LaunchSpec) -> Offered:
    """Start a server once and return what it offers; raises as `probe` does."""
    # Imported late: asyncio is only needed when a server is really started.
    from octave.runtime.probe import probe

    return probe(spec)


def _looked_at(
    workspace: Workspace, name: str, found: Offered, note: Callable[[str], None]
) -> Offered:
    """Return `found`; say what in it looks as if it was meant to mislead a model."""
    # Imported late: only what is really started is looked at.
    from octave.packages import neighbours

    looks = neighbours.suspicions_of(workspace, name, found)
    for each in looks[:SUSPICIONS]:
        note(f"suspicious: {each.sentence}".replace("\n", "\\n"))
    if len(looks) > SUSPICIONS:
        note(f"{len(looks) - SUSPICIONS} more suspicious texts: `octave audit` shows them")
    return found


@contextmanager
def _steps(terms: Manners) -> Iterator[tuple[Callable[[str], None], Counted]]:
    """Yield what shows the steps of longer work, and how much of one is done.

    With `--json -v` each is a line of JSON.
    """
    now = ""

    def named(step: str) -> None:
        nonlocal now
        now = step
        show(step)

    def told(step: str) -> None:
        if step:
            tell(json_text({"progress": step}))

    def counted(done: int, total: int, unit: str) -> None:
        if is_told:
            said = {"progress": now, "done": done, "total": total, "unit": unit}
            tell(json_text(said))
        elif sys.stderr.isatty():
            shown = render.size if unit == "bytes" else str
            show(f"{now}: {shown(done)} of {shown(total)}")

    is_told = terms.as_json and terms.verbose
    with (
        nullcontext(told)
        if is_told
        else render.progress(quiet=terms.quiet or terms.as_json) as show
    ):
        yield named, counted


def _note(terms: Manners) -> Callable[[str], None]:
    if terms.as_json and terms.verbose:
        return lambda text: tell(json_text({"note": text}))
    if terms.quiet or terms.as_json:
        return lambda _: None
    return lambda text: tell(f"note: {safe(text)}")
