"""A runtime that nobody else can reach: no lock, socket, port or token; for one call."""

import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

import anyio

from octave.errors import UNWRITABLE, ungrouped
from octave.home import NotPrivate, Workspace
from octave.packages import manifest
from octave.packages.specs import launch_specs
from octave.runtime.marker import Run
from octave.serve.control import Control, Runtime
from octave.serve.parts import assemble, supervise


@contextlib.asynccontextmanager
async def private(workspace: Workspace, environ: Mapping[str, str]) -> AsyncIterator[Control]:
    """Give the operations of a runtime that nobody else can reach, for one call.

    It takes no lock, socket, port or token, starts only what is called, and writes the same logs
    where they can be written.

    Raises:
        ManifestError, NotTrusted: the manifest cannot be used.
        OSError: the state folder is no folder of one's own.
    """
    try:
        workspace.prepare()
    except OSError as error:
        if isinstance(error, NotPrivate) or error.errno not in UNWRITABLE:
            raise
    settings = manifest.load(workspace.manifest).settings
    run = Run(workspace.run, environ, must_record=False)
    specs = [
        replace(spec, policy=replace(spec.policy, auto_start=False))
        for spec in run.marked(launch_specs(workspace, environ))
    ]
    parts = assemble(workspace, specs, settings)
    runtime = Runtime(lambda: specs, lambda: {"running": False}, lambda: None)
    with ungrouped():
        async with anyio.create_task_group() as tasks:
            ended = anyio.Event()
            await tasks.start(parts.catalogue.run)
            await tasks.start(supervise, parts, run, ended)
            try:
                yield Control(parts.supervisor, parts.router, runtime)
            finally:
                parts.supervisor.close()
                with anyio.CancelScope(shield=True):
                    await ended.wait()
                tasks.cancel_scope.cancel()
