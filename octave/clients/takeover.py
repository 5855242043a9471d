"""Servers of AI tools become Octave's own: installed and written down, then lent to the tools.

Each server is taken over on its own; one that fails stays in the files as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from octave.clients.plan import Row, Written, written
from octave.errors import OctaveError
from octave.packages import install as story
from octave.packages import manifest, manifest_change, own, store, workspaces
from octave.packages.install import Outcome, Request
from octave.packages.placement import Site
from octave.packages.secrets import Secrets
from octave.packages.variables import Given


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one row."""

    row: Row
    outcome: Outcome
    said: Written
    """What octave.toml says, or would."""

    @property
    def secrets(self) -> Mapping[str, str]:
        """What is in the store, by key."""
        return self.said.secrets if self.row.stored is None else self.row.stored


def take(row: Row, site: Site, answers: Mapping[str, str]) -> Result:
    """Install the server of `row`, or write it down where there is nothing to install."""
    # What was stored for the rows before counts: another workspace may use the same name.
    look = Secrets(site.workspace.home).get
    given = None if row.is_present else answers
    said = written(row, look, site.workspace.manifest.parent, given)
    if row.is_present:
        manifest_change.edited(site.workspace, lambda: False)
        return Result(row, Outcome(row.name, "present"), said)
    try:
        outcome = _taken(row, said, site)
    except OctaveError as error:
        outcome = Outcome(row.name, "failed", error=error)
    return Result(row, outcome, said)


def _taken(row: Row, said: Written, site: Site) -> Outcome:
    if row.draft.package is None:
        return _added(row, said, site)
    keys = dict(said.keys)
    version = keys.pop("version", None)
    text = keys.pop("package") + (f"@{version}" if version else "")
    request = Request(
        text=text,
        name=row.name,
        args=said.args,
        executable=keys.pop("bin", None),
        given=Given(said.env, said.secrets),
        keys=keys,
    )
    return story.install(request, site)


def _added(row: Row, said: Written, site: Site) -> Outcome:
    """Write down a command or an address, after a start that does not fail for good."""
    workspace = site.workspace
    store.prepare(workspace.home)
    workspaces.require_trust(workspace, manifest.load(workspace.manifest))
    table = {**said.keys, "env": dict(said.env)} if said.env else dict(said.keys)
    return own.put(row.name, table, said.secrets, site)
