"""A runtime that is killed, upgraded or told to end leaves no process, whatever its servers do."""

import os
import signal
import sys

import psutil
import pytest

from octave.background import RUN_MARK
from octave.runtime.guardian import find
from tests.e2e.conftest import Octave
from tests.e2e.fleet import (
    BOUND_S,
    GONE_S,
    guardian_of,
    records,
    served,
    wait_until,
    write_manifest,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts processes by /proc")

SHAPES = ("good", "deaf", "stubborn", "group", "session", "daemon", "npm")
PROCESSES = 12
"""One of each, a grandchild of three, and of the npm tree two shells around the server."""


def test_row_33_a_killed_runtime_leaves_no_process_of_any_tree(octave: Octave) -> None:
    with served(octave, *SHAPES) as (process, mark):
        guardian = guardian_of(process)
        wait_until(lambda: len(find([mark])) == PROCESSES)
        process.kill()
        process.wait(BOUND_S)
        wait_until(lambda: not find([mark]), GONE_S)
        wait_until(lambda: not psutil.pid_exists(guardian))


def test_row_34_killed_with_its_guardian_what_it_left_ends_before_the_next_is_ready(
    octave: Octave,
) -> None:
    with served(octave, "stubborn", "session", "daemon") as (process, old):
        for pid in (guardian_of(process), process.pid):
            os.kill(pid, signal.SIGKILL)
        process.wait(BOUND_S)
        assert find([old])
        with served(octave, "good"):
            assert not find([old])
            assert not any(old.decode().endswith(path.stem) for path in records(octave))


def test_an_ordered_end_leaves_neither_servers_nor_guardian(octave: Octave) -> None:
    with served(octave, "good", "group", "session", "daemon") as (process, mark):
        guardian = guardian_of(process)
        octave("shutdown")
        assert not find([mark])
        assert not psutil.pid_exists(guardian)
        assert records(octave) == []
        assert process.wait(BOUND_S) == 0


@pytest.mark.parametrize("verb", ["stop", "restart"])
def test_row_32_what_one_server_started_ends_with_it(octave: Octave, verb: str) -> None:
    with served(octave, "session", "daemon", "good") as (_, mark):
        wait_until(lambda: len(find([mark])) == 5)
        before = set(find([mark]))
        octave(verb, "session", "daemon")
        left = 1 if verb == "stop" else 5
        wait_until(lambda: len(find([mark])) == left)
        assert len(before.intersection(find([mark]))) == 1


def test_a_killed_call_without_a_runtime_leaves_no_server(octave: Octave) -> None:
    write_manifest(octave, ("good",))
    calling = octave.start("call", "good", "sleep", "s=600")
    wait_until(lambda: calls(octave))
    (record,) = records(octave)
    mark = f"{RUN_MARK}={record.stem}".encode()
    assert find([mark])
    calling.kill()
    calling.communicate()
    wait_until(lambda: not find([mark]), GONE_S)


def calls(octave: Octave) -> bool:
    return any(find([f"{RUN_MARK}={record.stem}".encode()]) for record in records(octave))


def test_a_runtime_that_a_server_had_started_in_the_background_stays(octave: Octave) -> None:
    write_manifest(octave, ())
    marked = Octave(octave.home, octave.cwd, {RUN_MARK: "outer", "OCTAVE_PROCESS": "outer"})
    marked("serve", "--detach")
    assert find([f"{RUN_MARK}=outer".encode(), b"OCTAVE_PROCESS=outer"]) == []
    marked("status")
