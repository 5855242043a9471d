"""`edit` and `init`: octave.toml in a person's own editor, and a first one for a project."""

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import typer

from octave.cli.asking import can_ask
from octave.cli.options import Manners, manners
from octave.cli.output import tell, tell_error, write, write_json
from octave.cli.reach import reload
from octave.errors import ManifestError, MissingAnswer, OctaveError, UsageError
from octave.home import MANIFEST, Workspace
from octave.packages import ledger, manifest, manifest_change, manifest_edit

_EDITORS = ("sensible-editor", "nano", "vi")
"""Where nobody says which one."""


def edit(context: typer.Context) -> int:
    """Open octave.toml in your editor, and check it afterwards."""
    terms = manners(context)
    workspace = terms.workspace()
    path = workspace.manifest
    words = _editor(os.environ)
    with ledger.changing(workspace):
        if not path.exists():
            manifest_edit.begin(path)
    before, was_trusted = _seen(workspace)
    while True:
        _open(words, path)
        try:
            manifest.load(path)
            break
        except ManifestError as error:
            if not can_ask():
                raise _left_broken(error) from None
            tell_error(error, as_json=terms.as_json)
            if not typer.confirm("Edit it again?", default=True, err=True):
                raise _left_broken(error) from None
    changed = path.read_bytes() != before
    if changed:
        with ledger.changing(workspace):
            manifest_change.settle(workspace, was_trusted=was_trusted)
        reload(workspace)
    if terms.as_json:
        write_json({"manifest": str(path), "status": "changed" if changed else "unchanged"})
    else:
        write(f"{'changed' if changed else 'unchanged'} {path}")
        if changed and not terms.quiet:
            tell("note: `octave install` installs what is new in it")
    return 0


def _seen(workspace: Workspace) -> tuple[bytes, bool]:
    """Return the manifest as it stands, and whether it is trusted; a broken one is not."""
    content = workspace.manifest.read_bytes()
    try:
        return content, manifest_change.is_trusted(workspace)
    except ManifestError:
        return content, workspace.is_home


def _editor(environ: Mapping[str, str]) -> list[str]:
    named = environ.get("VISUAL") or environ.get("EDITOR")
    if named:
        try:
            words = shlex.split(named)
        except ValueError as error:
            raise UsageError(f"EDITOR is no command: {error}", hint="export EDITOR=nano") from None
        if words:
            return words
    if not can_ask():
        raise MissingAnswer(
            "nobody is there to edit, and EDITOR names no program",
            hint="change single keys with `octave set NAME KEY=VALUE`",
        )
    found = next((name for name in _EDITORS if shutil.which(name)), None)
    if found is None:
        raise UsageError("no editor is known here", hint="export EDITOR=PROGRAM")
    return [found]


def _open(words: list[str], path: Path) -> None:
    """Run the editor in front until it ends."""
    try:
        with _unimpressed():
            done = subprocess.run([*words, str(path)], check=False)
    except OSError as error:
        raise UsageError(
            f"the editor `{words[0]}` cannot be run: {error.strerror}",
            hint="export EDITOR=PROGRAM",
        ) from None
    if done.returncode:
        raise OctaveError(
            f"the editor `{words[0]}` ended with {done.returncode}, so nothing was taken over",
            hint=f"`{path}` is as the editor left it",
        )


@contextlib.contextmanager
def _unimpressed() -> Iterator[None]:
    # Ctrl-C in an editor is the editor's, and reaches the whole terminal. A handler, since the
    # editor would inherit that the signal is ignored.
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _left_broken(error: ManifestError) -> ManifestError:
    return ManifestError(
        f"{error.message}; the file is left as you saved it",
        hint="`octave edit` opens it again; a running runtime goes on with what it had",
        details=error.details,
    )


def init(context: typer.Context) -> int:
    """Make a commented octave.toml for the project in this folder."""
    terms = manners(context)
    workspace = _here(terms)
    path = workspace.manifest
    if os.path.lexists(path):
        raise UsageError(f"there is a `{path}` already", hint="octave edit")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder `{path.parent}`", hint=f"mkdir -p {path.parent}")
    with ledger.changing(workspace):
        if os.path.lexists(path):
            raise UsageError(f"there is a `{path}` already", hint="octave edit")
        manifest_edit.begin(path, manifest_edit.EXAMPLE)
    if terms.as_json:
        write_json({"manifest": str(path), "status": "created"})
        return 0
    write(f"created {path}")
    if not terms.quiet:
        tell("next: `octave install NAME`, then commit `octave.toml` and `octave.lock`")
    return 0


def _here(terms: Manners) -> Workspace:
    """Return the workspace of this very folder, whatever lies above it."""
    if terms.home_only or terms.manifest or os.environ.get("OCTAVE_MANIFEST"):
        return terms.workspace(may_be_missing=True)
    return replace(terms, manifest=MANIFEST).workspace(may_be_missing=True)
