"""Changes of octave.toml that resolve nothing: under its lock, with the trust it had.

The lockfile's hash of the manifest moves along, so that a change which no pin depends on does not
make it stale; one that does is still told by `lock --check`, pin for pin.
"""

from collections.abc import Callable, Mapping

from octave.errors import ManifestError, NotTrusted, ServerNotFound, UsageError, did_you_mean
from octave.home import Workspace
from octave.packages import ledger, lockfile, manifest, manifest_edit, workspaces
from octave.packages.assignments import Keys
from octave.packages.manifest import Manifest, ServerEntry


def change_server(
    workspace: Workspace,
    name: str,
    values: Mapping[Keys, object],
    unset: tuple[Keys, ...] = (),
) -> bool:
    """Set and unset keys of [servers.NAME]; tell whether the file has changed.

    Raises:
        ServerNotFound: the manifest has no such server.
        UsageError: what it would hold then does not fit together.
        ManifestError: it was wrong before.
        OSError: it cannot be written.
    """

    def change() -> bool:
        find_server(manifest.load(workspace.manifest), name)
        try:
            return manifest_edit.change_server(workspace.manifest, name, values, unset)
        except ManifestError as error:
            # It speaks of lines that are nowhere: nothing was written.
            raise UsageError(
                str(error.details["problem"]), hint=f"octave set {name} KEY=VALUE, or `--unset KEY`"
            ) from None

    return edited(workspace, change)


def edited(workspace: Workspace, change: Callable[[], bool]) -> bool:
    """Let `change` write the manifest, and tell whether it did, as it says.

    Raises:
        ManifestError: it was wrong before.
        OSError: a file cannot be written; both are as they were.
    """
    with ledger.changing(workspace):
        was_trusted = is_trusted(workspace)
        has_changed = change()
        # Also without: whoever was to do it before may have been killed after the change.
        settle(workspace, was_trusted=was_trusted)
    return has_changed


def is_trusted(workspace: Workspace) -> bool:
    """Tell whether the manifest as it stands needs no consent, or has it.

    Raises:
        ManifestError: it cannot be read.
    """
    try:
        workspaces.require_trust(workspace, manifest.load(workspace.manifest))
    except NotTrusted:
        return False
    return True


def settle(workspace: Workspace, *, was_trusted: bool) -> None:
    """Take what now stands in the manifest over into lockfile and trust.

    The caller holds `ledger.changing`.
    """
    wanted = manifest.load(workspace.manifest)
    if workspace.lockfile.exists():
        lock = lockfile.read(workspace.lockfile)
        if lock.manifest_hash != wanted.servers_hash:
            ledger.write_pins(workspace, lock.pins)
    if was_trusted:
        workspaces.trust(workspace, wanted)


def find_server(wanted: Manifest, name: str) -> ServerEntry:
    """Return the server of that name.

    Raises:
        ServerNotFound: there is none; the hint says what is near.
    """
    if name in wanted.servers:
        return wanted.servers[name]
    hint = did_you_mean(name, wanted.servers) or "octave list"
    if name == "runtime":
        hint = "`octave edit` opens the file, where the table [runtime] is"
    raise ServerNotFound(f"`{wanted.path}` has no server `{name}`", hint=hint)
