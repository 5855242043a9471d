"""FAULTS.md and the tests: no promise without a test, no such test without a promise."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROW = re.compile(r"^\| (\d\d) \|", re.MULTILINE)
TEST = re.compile(r"^ *(?:async )?def test_row_(\d\d)_", re.MULTILINE)


def test_every_promise_has_a_test_and_every_row_of_a_test_is_a_promise() -> None:
    promised = ROW.findall((TESTS / "FAULTS.md").read_text(encoding="utf-8"))
    shown = {
        row
        for path in TESTS.rglob("test_*.py")
        for row in TEST.findall(path.read_text(encoding="utf-8"))
    }
    assert promised == sorted(set(promised))
    assert shown == set(promised)
