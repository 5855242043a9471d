"""What a node of Octave's choice is started with, so that the server in it stays small.

Decided at each start and written nowhere, so it holds for versions installed long ago. Measured
by `tests/bench/memory.py`: a fifth less memory when idle and 40 % less after 5,000 calls, for 5 to
30 % more CPU. `--max-semi-space-size` saves as much only when idle. `--lite-mode` and `--jitless`
would save more, but `fetch()` needs WebAssembly, and without it the process ends. A worker thread
that is handed `process.execArgv` refuses any flag of V8: such a server needs `node_flags = []`.
"""

from pathlib import Path

from octave.home import Home
from octave.packages import store
from octave.packages.store import Record

FLAGS = ("--optimize-for-size",)
"""Known to node 20, 22, 24 and 26 alike, so no version has to be asked for."""
_TRIM_BYTES = 128 * 1024
"""glibc's own start value. Setting it keeps glibc from raising it whenever a large block is freed,
after which what a start left behind is never given back: up to 12 MiB of a server."""


def arguments(record: Record, wanted: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the flags between the interpreter and the entry file of `record`.

    `wanted` are the manifest's in place of Octave's; None when it says nothing.
    """
    if not _is_node(record):
        return ()
    return FLAGS if wanted is None else wanted


def variables(
    home: Home, record: Record, folder: Path, wanted: tuple[str, ...] | None
) -> dict[str, str]:
    """Return the variables that go with Octave's own flags; none with those of the manifest.

    `folder` is where the version lies. Variables of the same name from elsewhere come first.
    """
    if wanted is not None or not _is_node(record):
        return {}
    found = {"MALLOC_TRIM_THRESHOLD_": str(_TRIM_BYTES)}
    # What is compiled of a staged version would never be found again: node goes by the path.
    if folder.is_relative_to(home.servers):
        # Since node 22.1; older ones ignore it. Each node keeps a folder of its own in there.
        cache = store.compile_cache(home, record.name, folder.name)
        found["NODE_COMPILE_CACHE"] = str(cache)
    return found


def _is_node(record: Record) -> bool:
    # What only poses as node on somebody's PATH may know none of its flags.
    is_known = record.kind in {"npm", "folder", "mcpb"}
    return is_known and Path(record.command[0]).name in ("node", "nodejs")
