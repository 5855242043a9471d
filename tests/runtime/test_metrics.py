"""Call figures and memory of real process trees."""

import os
import subprocess
import sys

import pytest

from octave.runtime.metrics import CallFigures, is_error_result, tree_memory_bytes


def test_before_the_first_call_there_is_nothing_to_say() -> None:
    figures = CallFigures()
    assert (figures.last_ms, figures.average_ms, figures.percentile_ms(50)) == (None, None, None)


def test_calls_errors_and_durations_are_counted() -> None:
    figures = CallFigures()
    figures.add(10, failed=False)
    figures.add(30, failed=True)
    assert (figures.count, figures.errors) == (2, 1)
    assert (figures.last_ms, figures.average_ms) == (30, 20)


@pytest.mark.parametrize("percent", [50, 95, 99])
def test_percentiles_are_within_five_percent(percent: int) -> None:
    figures = CallFigures()
    for index in range(1, 1001):
        figures.add(index * 0.37, failed=False)
    assert figures.percentile_ms(percent) == pytest.approx(percent * 10 * 0.37, rel=0.05)


@pytest.mark.parametrize("duration_ms", [0.0, 0.0001, 0.01, 1e12])
def test_extreme_durations_find_a_bucket(duration_ms: float) -> None:
    figures = CallFigures()
    figures.add(duration_ms, failed=False)
    assert figures.percentile_ms(99) is not None


@pytest.mark.parametrize(
    ("result", "is_error"),
    [
        (b'{"content":[],"isError":true}', True),
        (b'{"content":[], "isError" : true }', True),
        (b'{"content":[],"isError":false}', False),
        (b'{"content":[]}', False),
        (b'{"content":[{"type":"text","text":"{\\"isError\\":true}"}]}', False),
        (b'{"structuredContent":{"isError":true},"content":[]}', False),
    ],
)
def test_only_the_results_own_is_error_counts(result: bytes, is_error: bool) -> None:
    assert is_error_result(result) is is_error


def test_memory_covers_the_whole_tree_and_skips_who_is_gone() -> None:
    grow = "hold = bytearray(30_000_000)\nprint('grown', flush=True)\ninput()"
    tree = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {grow!r}])"
    with subprocess.Popen(
        [sys.executable, "-c", tree], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdin and parent.stdout
        assert parent.stdout.readline() == b"grown\n"
        found = tree_memory_bytes([parent.pid, 2**30])
        parent.stdin.close()
    assert set(found) == {parent.pid}
    assert found[parent.pid] > 30_000_000


def test_memory_of_ourselves_is_found() -> None:
    assert tree_memory_bytes([os.getpid()])[os.getpid()] > 1_000_000
