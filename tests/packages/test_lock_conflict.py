"""Lockfiles that real merges of git left in conflict."""

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.errors import IntegrityFailed, ManifestError
from octave.home import Home, Workspace
from octave.packages import ledger, lockfile, manifest
from octave.packages.definitions import ToolPin
from octave.packages.ecosystems.base import Bench
from octave.packages.install import Outcome
from octave.packages.lock_conflict import choose, settle, sides
from octave.packages.lockfile import Lock, Pin
from octave.packages.offered import Offered
from octave.packages.placement import Site
from octave.packages.registry import Registry, bundled_folder
from octave.packages.sync import lock_all
from tests.packages.story import World
from tests.packages.test_lockfile import NPM, PYPI
from tests.packages.wheel_index import WheelIndex

A = '[servers.a]\npackage = "pypi:pkg-a"\n'
B = '[servers.b]\npackage = "pypi:pkg-b"\n'
C = '[servers.c]\npackage = "pypi:pkg-c"\n'


@dataclass
class Repository:
    """A project under git with a manifest and a lockfile that answers it."""

    folder: Path
    index: WheelIndex
    site: Site

    def git(self, *words: str) -> int:
        named = ("-c", "user.name=x", "-c", "user.email=x@example.invalid")
        done = subprocess.run(["git", *named, *words], cwd=self.folder, capture_output=True)
        return done.returncode

    def branch(self, name: str, manifest_text: str, *, at: str = "main") -> str:
        """Make a branch in which that manifest is locked; return its lockfile."""
        self.git("checkout", "-q", "-B", name, *([at] if at else []))
        self.says(manifest_text)
        self.lock()
        self.git("add", "octave.toml", "octave.lock")
        assert self.git("commit", "-q", "-m", name) == 0
        return self.lockfile

    def merge(self, name: str, manifest_text: str, *options: str) -> None:
        """Merge that branch, which ends in conflict, and say what the manifest becomes."""
        assert self.git(*options, "merge", name) == 1
        assert self.is_in_conflict
        self.says(manifest_text)

    def says(self, text: str) -> None:
        (self.folder / "octave.toml").write_text(text, encoding="utf-8")

    def lock(self) -> list[Outcome]:
        self.index.asked.clear()
        return lock_all(self.site)

    @property
    def lockfile(self) -> str:
        return (self.folder / "octave.lock").read_text(encoding="utf-8")

    @property
    def is_in_conflict(self) -> bool:
        return "\n<<<<<<< " in self.lockfile

    @property
    def versions(self) -> dict[str, str]:
        pins = lockfile.read(self.folder / "octave.lock").pins
        return {name: pin.version for name, pin in pins.items()}

    def is_fresh(self) -> bool:
        workspace = self.site.workspace
        ledger.require_fresh(manifest.load(workspace.manifest), lockfile.read(workspace.lockfile))
        return True


@pytest.fixture
def repository(tmp_path: Path, world: World) -> Iterator[Repository]:
    folder = tmp_path / "project"
    folder.mkdir()
    home = Home(world.home)
    site = Site(
        workspace=Workspace(home, folder / "octave.toml"),
        registry=Registry(bundled_folder()),
        bench=Bench(home, world.environ),
        check=lambda _: Offered(b"{}", {}),
    )
    for name in ("a", "b", "c"):
        world.index.add(f"pkg-{name}", "1.0", scripts=[f"pkg-{name}"])
    made = Repository(folder, world.index, site)
    made.git("init", "-q", "-b", "main")
    made.branch("main", A, at="")
    yield made


def newer(repository: Repository, version: str, *requires: str) -> None:
    """Let there be a newer version of the package of `a`, and have it locked anew next time."""
    repository.index.add("pkg-a", version, scripts=["pkg-a"], requires=requires)
    (repository.folder / "octave.lock").unlink()


@pytest.mark.parametrize("style", ["merge", "diff3", "zdiff3"])
def test_servers_that_two_branches_add_are_all_locked_and_nothing_is_resolved(
    repository: Repository, style: str
) -> None:
    repository.branch("one", A + B)
    repository.branch("two", A + C)
    repository.merge("one", A + B + C, "-c", f"merge.conflictStyle={style}")
    outcomes = repository.lock()
    assert [(one.name, one.status, one.note) for one in outcomes] == [
        ("a", "locked", ""),
        ("b", "locked", ""),
        ("c", "locked", ""),
    ]
    assert repository.index.asked == []
    merged = repository.lockfile
    (repository.folder / "octave.lock").unlink()
    repository.lock()
    assert merged == repository.lockfile


def test_a_server_that_neither_branch_locked_is_resolved_alone(repository: Repository) -> None:
    repository.branch("one", A + B)
    repository.branch("two", A + C)
    repository.merge("one", A + B.replace("pkg-b", "pkg-c"))
    repository.lock()
    assert repository.is_fresh()
    assert {path for path in repository.index.asked if "simple" in path} == {"/simple/pkg-c/"}


def moved(repository: Repository) -> None:
    """Two branches in which one server has versions of its own, with other dependencies."""
    for name in ("d", "e", "f"):
        repository.index.add(f"dep-{name}", "1.0")
    repository.git("checkout", "-q", "-b", "one")
    newer(repository, "2.0", "dep-d", "dep-e")
    repository.branch("one", A, at="")
    repository.git("checkout", "-q", "main")
    newer(repository, "3.0", "dep-e", "dep-f")
    repository.branch("two", A, at="")


def test_of_two_versions_that_both_fit_the_newer_is_taken_from_either_side(
    repository: Repository,
) -> None:
    moved(repository)
    third = repository.lockfile
    for here, there in (("one", "two"), ("two", "one")):
        repository.git("checkout", "-q", here)
        repository.merge(there, A)
        (outcome,) = repository.lock()
        assert outcome.note == "both sides answer `octave.toml`: 2.0 is not taken"
        assert repository.lockfile == third
        assert repository.index.asked == []
        repository.git("merge", "--abort")


def test_the_side_that_answers_the_manifest_is_taken_be_it_the_older(
    repository: Repository,
) -> None:
    older = A + 'version = "<3"\n'
    repository.index.add("pkg-a", "2.0", scripts=["pkg-a"])
    repository.index.add("pkg-a", "3.0", scripts=["pkg-a"])
    locked = repository.branch("one", older)
    (repository.folder / "octave.lock").unlink()
    repository.branch("two", A + 'version = ">2"\n')
    repository.merge("one", older)
    (outcome,) = repository.lock()
    assert (outcome.version, outcome.note) == ("2.0", "")
    assert repository.lockfile == locked
    assert repository.index.asked == []


def test_a_server_that_one_branch_removed_and_the_other_moved_is_as_the_manifest_says(
    repository: Repository,
) -> None:
    repository.branch("main", A + B, at="")
    repository.branch("one", B)
    repository.git("checkout", "-q", "main")
    newer(repository, "2.0")
    repository.branch("two", A + B)
    repository.merge("one", B)
    repository.lock()
    assert repository.versions == {"b": "1.0"}
    repository.git("checkout", "-q", "-f", "two")
    repository.merge("one", A + B)
    repository.lock()
    assert repository.versions == {"a": "2.0", "b": "1.0"}
    assert repository.index.asked == []


def test_a_conflict_that_was_committed_is_settled_by_its_marks(repository: Repository) -> None:
    repository.branch("one", A + B)
    repository.branch("two", A + C)
    repository.merge("one", A + B + C)
    repository.git("add", ".")
    assert repository.git("commit", "-q", "-m", "as it is") == 0
    repository.lock()
    assert repository.is_fresh()
    assert repository.index.asked == []


def test_what_a_merge_tore_is_resolved_anew_where_git_no_longer_has_the_sides(
    repository: Repository,
) -> None:
    moved(repository)
    third = repository.lockfile
    repository.merge("one", A)
    torn = repository.lockfile.replace('name = "dep-e"', 'name = "dep-x"')
    repository.git("add", ".")
    (repository.folder / "octave.lock").write_text(torn, encoding="utf-8")
    repository.lock()
    assert repository.lockfile == third
    assert repository.index.asked != []


def test_a_side_of_a_newer_format_is_refused_and_the_file_stays(repository: Repository) -> None:
    path = repository.folder / "octave.lock"
    text = "<<<<<<< x\nversion = 1\n=======\nversion = 2\n>>>>>>> y\n"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(IntegrityFailed, match="has format 2"):
        settle(repository.site.workspace, repository.site.bench.environ)
    assert path.read_text(encoding="utf-8") == text


def test_a_lockfile_without_conflict_is_not_touched(repository: Repository) -> None:
    path = repository.folder / "octave.lock"
    before = path.stat()
    assert settle(repository.site.workspace, repository.site.bench.environ) == {}
    assert path.stat() == before


VERBS = ("install", "install --locked", "lock --check", "update", "audit", "call a x")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_that_reads_a_conflict_names_the_verb_that_settles_it(
    world: World, verb: str
) -> None:
    world.home.mkdir(mode=0o700)
    (world.home / "octave.toml").write_text(A, encoding="utf-8")
    text = "version = 1\n<<<<<<< x\n=======\n>>>>>>> y\n"
    (world.home / "octave.lock").write_text(text, encoding="utf-8")
    done = world.octave(*verb.split(), "--json")
    assert done.code == 7
    assert done.error["message"] == "`octave.lock` line 2: an unresolved merge conflict"
    assert done.error["hint"] == "octave lock"
    assert (world.home / "octave.lock").read_text(encoding="utf-8") == text


@pytest.mark.parametrize("mark", ["<<<<<<< ours", "||||||| base", "=======", ">>>>>>> theirs"])
def test_a_manifest_in_conflict_is_told_with_its_line(tmp_path: Path, mark: str) -> None:
    text = f"{A}{mark}\n"
    with pytest.raises(ManifestError) as caught:
        manifest.parse(tmp_path / "octave.toml", text)
    assert caught.value.message == "`octave.toml` line 3, column 1: an unresolved merge conflict"
    assert caught.value.exit_code == 2


def test_the_sides_of_a_conflict_are_what_was_merged() -> None:
    text = "1\n<<<<<<< x\n2\n||||||| b\n3\n=======\n4\n>>>>>>> y\n5\r\n<<<<<<< x\r\n=======\r\n6\n"
    assert sides(text) == ("1\n2\n5\r\n", "1\n4\n5\r\n6\n")


# Which approvals survive: pure, so for any pins whatever.

TOOL = st.builds(ToolPin, st.sampled_from("abc"), st.sampled_from("01"), st.just("0"))
TOOLS = st.lists(TOOL, max_size=3, unique_by=lambda tool: tool.name).map(
    lambda tools: tuple(sorted(tools, key=lambda tool: tool.name))
)
MOVED = replace(
    PYPI,
    version="10.0",
    graph=({**PYPI.graph[0], "version": "10.0"}, PYPI.graph[1]),
)
PINS = st.builds(
    lambda pin, tools: replace(pin, tools=tools), st.sampled_from([PYPI, MOVED]), TOOLS
)


@given(st.lists(PINS, min_size=1, max_size=3))
def test_whichever_side_is_whose_the_same_is_chosen_and_nothing_nobody_approved(
    pins: Sequence[Pin],
) -> None:
    chosen = choose(pins)
    assert choose(pins[::-1]) == chosen
    assert chosen.pin.version == max((pin.version for pin in pins), key=float)
    same = [pin for pin in pins if pin.folder == chosen.pin.folder]
    assert set(chosen.pin.tools) <= {tool for pin in same for tool in pin.tools}
    # None at all would have the next start approve whatever it finds.
    assert bool(chosen.pin.tools) == any(pin.tools for pin in same)


def test_approvals_of_the_same_packages_add_up_but_not_where_they_disagree() -> None:
    def pin(**tools: str) -> Pin:
        return replace(NPM, tools=tuple(ToolPin(name, tools[name], "0") for name in sorted(tools)))

    chosen = choose([pin(both="1", mine="1", other="1"), pin(both="1", other="2", theirs="1")])
    assert [tool.name for tool in chosen.pin.tools] == ["both", "mine", "theirs"]
    assert chosen.note == "the sides approve `other` differently: `octave approve github`"


def test_one_version_with_two_graphs_is_chosen_by_a_rule_that_knows_no_sides() -> None:
    other = replace(PYPI, graph=PYPI.graph[:1])
    chosen = choose([PYPI, other])
    assert chosen == choose([other, PYPI])
    assert chosen.note == "the sides lock 2.0 with other dependencies: one is taken"
    assert lockfile.dump(Lock("", {"fetch": chosen.pin}))
