"""Children that write every state file through Octave's own functions, and are killed meanwhile.

    python -m tests.state_writer FOLDER KILLS SEED

Each file holds a number that grows with each write. Before a child is killed, at a random moment,
the files are read as others would; afterwards each must hold the last number that was confirmed or
the one that was being written. Prints one JSON object with what was counted.
"""

import itertools
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from octave.clients import config_file
from octave.clients import records as client_records
from octave.home import Home, Workspace
from octave.packages import lockfile, manifest, manifest_edit, offered, store, workspaces
from octave.packages.lockfile import Lock, Pin
from octave.packages.offered import Offered
from octave.packages.secrets import Secrets
from octave.runtime.marker import Run
from octave.serve import claim

LONGEST_LIFE_S = 0.05
"""A child writes each file about once in that time."""
READS_PAUSE_S = 0.002
"""Reading without a pause would take the processor from the writer."""
_HASH = "sha256:" + "0" * 64
_PIN = Pin(
    "x", "pypi:x@*", "pypi", "x", "1", _HASH, ({"name": "x", "version": "1", "hashes": [_HASH]},)
)
_RECORD = store.Record("x", "pypi", "x", "0", _HASH, _HASH, ("{folder}/python",))
_ENTRY = client_records.Record("claude", "/x.json", "/mcpServers/octave", "0", 0, None, True, None)
_PADDING = "p" * 40_000
"""More than one block: a write in place would be cut in the middle."""


@dataclass(frozen=True)
class Kept:
    """One file that holds a number."""

    name: str
    write: Callable[[int], object]
    read: Callable[[], int | None]
    """Return the number; None when it is not there, or not whole."""


@dataclass
class Counted:
    kills: int = 0
    writes: int = 0
    reads: int = 0
    kills_in_a_write: int = 0
    """Of which a temporary file stayed behind."""
    torn: int = 0
    lost: int = 0
    bad_files: int = 0
    most_litter: int = 0
    left: int = 0
    """Temporary files after the next start and one more write of everything."""


def files(root: Path) -> Iterator[Kept]:
    home = Home(root / "home")
    workspace = Workspace.of_home(home)
    workspace.prepare()
    yield from _files_of_a_person(workspace)
    yield from _files_of_the_home(home, root)
    yield from _files_of_a_workspace(workspace)


def _files_of_a_person(workspace: Workspace) -> Iterator[Kept]:
    def write_manifest(number: int) -> None:
        words = {"command": ["true"], "args": [str(number), _PADDING]}
        manifest_edit.add_server(workspace.manifest, "x", words)

    def read_manifest() -> int | None:
        args = manifest.load(workspace.manifest).servers["x"].args
        return int(str(args[0])) if args[1] == _PADDING else None

    def read_lockfile() -> int | None:
        return int(lockfile.read(workspace.lockfile).manifest_hash)

    def write_lockfile(number: int) -> None:
        pin = replace(_PIN, args=(_PADDING,))
        lockfile.write(workspace.lockfile, Lock(str(number), {"x": pin}))

    secrets = Secrets(workspace.home)
    yield Kept("octave.toml", write_manifest, read_manifest)
    yield Kept("octave.lock", write_lockfile, read_lockfile)
    yield Kept(
        "secrets.toml",
        lambda number: secrets.set("x/N", f"{number} {_PADDING}"),
        lambda: int((secrets.get("x/N") or "").split()[0]),
    )


def _files_of_the_home(home: Home, root: Path) -> Iterator[Kept]:
    project = Workspace(home, root / "project" / "octave.toml")
    project.manifest.parent.mkdir()
    lockfile.write(project.lockfile, Lock("", {"x": _PIN}))
    client = root / "client.json"

    def write_client(number: int) -> None:
        config_file.write(client, json.dumps([number, _PADDING]))

    yield Kept(
        "workspaces.json",
        lambda number: workspaces.remember(project, {"x": str(number)}),
        lambda: int(workspaces.installed(project)["x"]),
    )
    yield Kept(
        "clients.json",
        lambda number: client_records.put(home, replace(_ENTRY, created=number)),
        lambda: _created(client_records.find(home, Path(_ENTRY.file), _ENTRY.key)),
    )
    yield Kept(
        "client.json", write_client, lambda: int(json.loads(config_file.read(client) or "")[0])
    )
    (home.servers / "x" / "1").mkdir(parents=True)
    yield Kept(
        "record.json",
        lambda number: store.rewrite(home, replace(_RECORD, version=str(number)), "1"),
        lambda: _version(store.find(home, "x", "1")),
    )
    yield _versions(home)


def _created(record: client_records.Record | None) -> int | None:
    return None if record is None else record.created


def _version(record: store.Record | None) -> int | None:
    return None if record is None else int(record.version)


def _versions(home: Home) -> Kept:
    """Installed versions come and go whole; the newest is the number."""
    pieces = 3

    def write(number: int) -> None:
        staging = store.stage(home, "y")
        for piece in range(pieces):
            (staging / str(piece)).write_text(_PADDING, encoding="utf-8")
        record = replace(_RECORD, name="y", version=str(number))
        store.publish(home, staging, record, str(number))
        for folder in store.folders(home, "y"):
            if int(folder) < number:
                store.remove(home, "y", folder)

    def is_whole(folder: str) -> bool:
        place = home.servers / "y" / folder
        try:
            sizes = [(place / str(piece)).stat().st_size for piece in range(pieces)]
        except FileNotFoundError:
            sizes = [0]
        return all(sizes) and _version(store.find(home, "y", folder)) == int(folder)

    def read() -> int | None:
        folders = store.folders(home, "y")
        # One that was removed meanwhile is gone altogether.
        halves = [one for one in folders if not is_whole(one)]
        if any((home.servers / "y" / half).exists() for half in halves):
            return None
        return max(map(int, folders))

    return Kept("servers/y", write, read)


def _files_of_a_workspace(workspace: Workspace) -> Iterator[Kept]:
    catalogue = workspace.catalogue("x")

    def write_lists(number: int) -> None:
        tool = json.dumps({"name": _PADDING}).encode()
        lists = Offered(b'{"number":%d}' % number, {"tools": (tool,)})
        offered.save(catalogue, lists, "1", _HASH)

    def read_lists() -> int | None:
        found = offered.load(catalogue, "1", _HASH)
        return None if found is None else int(json.loads(found.initialize)["number"])

    def write_facts(number: int) -> None:
        claim.write_facts(workspace, {"pid": number}, None)

    def read_facts() -> int | None:
        pid = workspace.runtime().get("pid")
        return pid if isinstance(pid, int) else None

    def write_run(_: int) -> None:
        Run(workspace.run, {}).mend()

    def read_runs() -> int | None:
        runs = list(workspace.run.glob("*.run"))
        for path in runs:
            assert json.loads(path.read_bytes())["pid"] > 1
        return None

    yield Kept("catalogue/x.json", write_lists, read_lists)
    yield Kept("runtime.json", write_facts, read_facts)
    yield Kept(
        "stopped.json",
        lambda number: claim.write_choices(workspace, frozenset({f"s{number}"})),
        lambda: max(int(name[1:]) for name in claim.read_choices(workspace)),
    )
    yield Kept("run/ID.run", write_run, read_runs)


class Campaign:
    """Kills children one after another and keeps count."""

    def __init__(self, root: Path, chance: random.Random) -> None:
        self.counted = Counted()
        self._root = root
        self._chance = chance
        self._files = list(files(root))
        # Shared with the children: per file the last number that was surely written.
        self._memory = mmap.mmap(-1, 8 * len(self._files))
        for place, kept in enumerate(self._files):
            kept.write(1)
            self._confirm(place, 1)

    def kill_one(self) -> None:
        first = self._chance.randrange(len(self._files))
        deadline = time.monotonic() + self._chance.uniform(0, LONGEST_LIFE_S)
        pid = os.fork()
        if pid == 0:
            self._write_for_ever(first)
        while (left_s := deadline - time.monotonic()) > 0:
            self._check(self._chance.randrange(len(self._files)))
            time.sleep(min(READS_PAUSE_S, left_s))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status), "a child ended by itself"
        self.counted.kills += 1
        litter = self._litter()
        self.counted.kills_in_a_write += litter > 0
        self.counted.most_litter = max(self.counted.most_litter, litter)
        for place in range(len(self._files)):
            found = self._check(place)
            if found is not None:
                self._confirm(place, found)

    def end(self) -> None:
        Workspace.of_home(Home(self._root / "home")).prepare()
        for place, kept in enumerate(self._files):
            self.counted.writes += self._confirmed(place)
            kept.write(self._confirmed(place) + 1)
        self.counted.left = self._litter()
        self.counted.bad_files = len(list(self._root.rglob("*.bad-*")))

    def _check(self, place: int) -> int | None:
        """Return the number in the file; one that cannot be is counted."""
        kept = self._files[place]
        self.counted.reads += 1
        lowest = self._confirmed(place)
        try:
            found = kept.read()
        except Exception as error:  # noqa: BLE001 - whatever a reader meets is a torn file
            print(f"{kept.name}: {error!r}", file=sys.stderr)
            self.counted.torn += 1
            return None
        if kept.name == "run/ID.run":
            return None
        if found is None:
            self.counted.torn += 1
        elif not lowest <= found <= self._confirmed(place) + 1:
            print(f"{kept.name}: {found} after {lowest}", file=sys.stderr)
            self.counted.lost += 1
        return found

    def _write_for_ever(self, first: int) -> None:
        try:
            # As every start does.
            Workspace.of_home(Home(self._root / "home")).prepare()
            for turn in itertools.count(first):
                place = turn % len(self._files)
                number = self._confirmed(place) + 1
                self._files[place].write(number)
                self._confirm(place, number)
        except BaseException:  # noqa: BLE001 - a forked child must not run the parent's code
            traceback.print_exc()
        finally:
            os._exit(1)

    def _confirmed(self, place: int) -> int:
        return int(struct.unpack_from("q", self._memory, 8 * place)[0])

    def _confirm(self, place: int, number: int) -> None:
        struct.pack_into("q", self._memory, 8 * place, number)

    def _litter(self) -> int:
        return sum(name.endswith(".tmp") for _, _, names in os.walk(self._root) for name in names)


def main() -> None:
    campaign = Campaign(Path(sys.argv[1]), random.Random(int(sys.argv[3])))
    for _ in range(int(sys.argv[2])):
        campaign.kill_one()
    campaign.end()
    print(json.dumps(asdict(campaign.counted)))


if __name__ == "__main__":
    main()
