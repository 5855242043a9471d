"""A runtime in a process of its own, to be killed: servers with the mark and nothing around them.

    python -m tests.runtime.marked_runtime STATE SCRIPT [ARGUMENT]...

Prints a line of JSON, run id and the guardian's and the server's pid, once the server answers;
then it stays until its stdin ends, which is an orderly stop.
"""

import json
import os
import sys
from pathlib import Path

import anyio
import anyio.to_thread

from octave.runtime.connection import Callbacks, connect
from octave.runtime.marker import Run
from tests.runtime.fleet import launch


async def main(state: Path, *words: str) -> None:
    run = Run(state, os.environ)
    async with run.alive():
        (spec,) = run.marked([launch(state, *words)])
        async with connect(spec, Callbacks()) as connection:
            facts = {"run": run.id, "guardian": run.guardian_pid, "server": connection.pid}
            sys.stdout.write(json.dumps(facts) + "\n")
            sys.stdout.flush()
            await anyio.to_thread.run_sync(sys.stdin.read)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), *sys.argv[2:])
