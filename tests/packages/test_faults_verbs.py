"""Package verbs that are interrupted, killed, run beside each other, or without a network."""

import os
import pty
import random
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from octave.home import Home
from octave.packages import store
from tests.packages.forked import Told, begin, octave
from tests.packages.furnished import copied
from tests.packages.story import GOOD, WAIT_S, World
from tests.packages.wheel_index import WheelIndex

SIGNALS = {"Ctrl-C": signal.SIGINT, "TERM": signal.SIGTERM, "KILL": signal.SIGKILL}
VERBS = (
    "install pypi:story-next",
    "update -y",
    "rollback story-good",
    "install pypi:story-good@1.0",
    "uninstall story-good",
    "set story-good auto_start=true",
    "secret set story-good KEY",
    "import cursor -y",
    "client add cursor",
    "lock",
    "clean",
    "audit",
)
LONGEST_S = 1.0
"""What the longest of them takes at first; it is learned."""
ORPHANS_S = 8.0
"""Within that everything of a killed verb is gone: uv and npm end by themselves."""


def processes_of(world: World) -> list[str]:
    """Return the command lines of what runs for this home."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        environ = process.info["environ"] or {}
        words = " ".join(process.info["cmdline"] or ())
        if environ.get("OCTAVE_HOME") == str(world.home) or f"{world.home}/" in words:
            found.append(words)
    return found


def check_nobody_is_left(world: World) -> None:
    deadline = time.monotonic() + ORPHANS_S
    while left := processes_of(world):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def check_previous_state_works(world: World, words: list[str]) -> None:
    """What was there before is still there, unless the verb was about to take it away."""
    assert octave(world, "list").code == 0
    if words[0] != "uninstall":
        assert octave(world, "call", "story-good", "echo", "text=hi").stdout == "hi\n"


def check_it_can_be_finished(world: World, words: list[str]) -> None:
    again = octave(world, *words, stdin=b"value\n")
    assert again.code == 0 or (words[0], again.code) == ("uninstall", 4), again
    assert octave(world, "lock", "--check").code == 0
    assert octave(world, "clean").code == 0
    litter = [*world.root.rglob("*.tmp"), *(world.home / "staging").iterdir()]
    assert litter == []


@pytest.mark.parametrize("how", SIGNALS)
@pytest.mark.parametrize(
    "hits", [1, pytest.param(60, marks=[pytest.mark.campaign, pytest.mark.timeout(1800)])]
)
def test_row_42_a_verb_that_is_cut_off_at_any_moment_loses_nothing(
    furnished: World, tmp_path: Path, how: str, hits: int
) -> None:
    chance = random.Random(f"{how} {hits}")
    longest_s = dict.fromkeys(VERBS, LONGEST_S)
    verbs = list(VERBS) if hits > len(VERBS) else chance.sample(VERBS[:4], 1)
    found = 0
    for turn in range(8 * hits):
        verb = verbs[turn % len(verbs)]
        (tmp_path / str(turn)).mkdir()
        world = copied(furnished, tmp_path / str(turn))
        running = begin(world, *verb.split(), stdin=b"value\n")
        time.sleep(chance.uniform(0.01, longest_s[verb]))
        running.signal(SIGNALS[how])
        done = running.end()
        is_hit = done.code not in {0, 1} if verb == "audit" else done.code != 0
        longest_s[verb] *= 1.2 if is_hit else 0.6
        if not is_hit:
            continue
        found += 1
        if how != "KILL":
            assert (done.code, done.stderr.splitlines()[-1:]) == (130, ["error: interrupted"]), done
        check_nobody_is_left(world)
        check_previous_state_works(world, verb.split())
        check_it_can_be_finished(world, verb.split())
        if found == hits:
            return
    raise AssertionError(f"only {found} of {hits} were hit")


def cursor_file(world: World) -> Path:
    return world.root / ".cursor" / "mcp.json"


@pytest.mark.parametrize("verb", ["set story-good version=2.0", "import cursor -y"])
def test_row_42_what_was_killed_between_the_two_files_is_finished_by_the_same_verb(
    home: World, verb: str
) -> None:
    behind = {path: path.read_bytes() for path in (home.home / "octave.lock", cursor_file(home))}
    assert octave(home, *verb.split()).code == 0
    after = home.lockfile
    for path, content in behind.items():
        path.write_bytes(content)
    assert octave(home, "lock", "--check").code == 7
    assert octave(home, *verb.split()).code == 0
    assert home.lockfile == after


def together(world: World, *verbs: str) -> list[Told]:
    """Run verbs at once; return how each ended."""
    running = [begin(world, *verb.split()) for verb in verbs]
    return [each.end() for each in running]


def named(world: World) -> tuple[set[str], dict[str, str]]:
    """Return the servers of the manifest, and the versions that are locked."""
    wanted = tomllib.loads(world.manifest)["servers"]
    locked = tomllib.loads(world.lockfile).get("server", [])
    return set(wanted), {pin["name"]: pin["version"] for pin in locked}


def check_sound(world: World) -> None:
    assert octave(world, "lock", "--check").code == 0
    assert octave(world, "audit").code == 0
    assert list((world.home / "staging").iterdir()) == []


def test_row_43_ten_installations_at_once_are_all_there(home: World) -> None:
    names = [f"story-n{number}" for number in range(10)]
    for name in names:
        home.offer(name, GOOD)
    done = together(home, *(f"install pypi:{name} --no-start" for name in names))
    assert [each.code for each in done] == [0] * len(names), done
    assert named(home) == (
        {"story-good", *names},
        {"story-good": "2.0"} | dict.fromkeys(names, "1.0"),
    )
    assert octave(home, "lock", "--check").code == 0


BESIDE: dict[str, tuple[tuple[str, ...], tuple[dict[str, str], ...]]] = {
    "the same": (("install pypi:story-next",) * 2, ({"story-good": "2.0", "story-next": "1.0"},)),
    "removed": (
        ("uninstall story-good", "install pypi:story-next"),
        ({"story-next": "1.0"},),
    ),
    "updated": (("update -y", "update -y"), ({"story-good": "3.0"},)),
    "updated and returned": (
        ("update -y", "rollback story-good"),
        ({"story-good": "3.0"}, {"story-good": "2.0"}, {"story-good": "1.0"}),
    ),
    "everything": (
        ("install", "install pypi:story-next", "lock", "set story-good auto_start=true", "clean"),
        ({"story-good": "2.0", "story-next": "1.0"},),
    ),
}
"""Verbs that run at once, and what may be locked afterwards: what some order of them gives."""


@pytest.mark.parametrize("what", BESIDE)
def test_row_43_verbs_beside_each_other_give_what_some_order_of_them_gives(
    home: World, what: str
) -> None:
    verbs, allowed = BESIDE[what]
    done = together(home, *verbs)
    assert [each.code for each in done] == [0] * len(verbs), done
    servers, locked = named(home)
    assert locked in allowed
    assert servers == set(locked)
    check_sound(home)
    if what == "everything":
        assert tomllib.loads(home.manifest)["servers"]["story-good"]["auto_start"] is True


def test_row_43_while_a_person_is_asked_nobody_waits_and_what_was_asked_must_still_be_there(
    home: World,
) -> None:
    before, place = home.state(), Home(home.home)
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "octave", "update"],
        env={key: value for key, value in home.environ.items() if key != "CI"},
        cwd=home.cwd,
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        os.close(theirs)
        assert child.stderr is not None
        shown = ""
        while not shown.endswith("Update story-good? [y/N]: "):
            piece = child.stderr.read(1)
            assert piece, shown
            shown += piece
        with store.locked(place, "story-good", wait_s=0.0):
            (new,) = (f for f in store.folders(place, "story-good") if f.startswith("3.0-"))
            store.remove(place, "story-good", new)
        os.write(ours, b"y\n")
        assert "was changed by somebody else meanwhile" in child.stderr.read()
        assert child.wait(WAIT_S) == 1
    os.close(ours)
    assert home.state() == before


LOCAL = ("search fetch", "info fetch", "list", "lock", "lock --check", "install --offline", "audit")
"""Verbs that need no network where everything is there."""


class Portal(WheelIndex):
    """What answers in the place of everything until somebody logs in."""

    def answer(self, path: str) -> bytes:
        return b"<html><body><a href='/login'>Log in</a></body></html>"


@pytest.fixture
def strange(home: World) -> Iterator[dict[str, str]]:
    """Addresses at which something else than an index is, by what that is."""
    portal = Portal()
    yield {
        "refused": "http://127.0.0.1:9/simple",
        "no such host": "http://index.invalid/simple",
        "no TLS": home.index.url.replace("http:", "https:"),
        "login page": portal.url,
    }
    portal.close()


@pytest.mark.parametrize(
    "what",
    [
        "refused",
        "login page",
        pytest.param("no such host", marks=pytest.mark.campaign),
        pytest.param("no TLS", marks=pytest.mark.campaign),
    ],
)
def test_row_68_without_the_network_what_needs_none_works_and_the_rest_says_what_to_do(
    home: World, strange: dict[str, str], what: str
) -> None:
    environ = {"UV_DEFAULT_INDEX": strange[what]}
    for verb in LOCAL:
        assert octave(home, *verb.split(), environ=environ).code == 0, verb
    for verb in ("install pypi:story-next", "update -y", "outdated"):
        done = octave(home, *verb.split(), environ=environ)
        assert done.code == 8, done
        hint = done.stderr.splitlines()[-1]
        assert ("login page" if what == "login page" else "--offline") in hint, done
    assert octave(home, "rollback", "story-good", environ=environ).code == 0
