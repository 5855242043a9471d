"""Words reach verbs as typer would hand them over, without what typer loads for it."""

import subprocess
import sys

import pytest

from tests.cli.desk import Desk

TELL_MODULES = (
    "import atexit, sys\n"
    "atexit.register(lambda: sys.stderr.write('MODULES ' + ' '.join(sys.modules)))\n"
    "from octave.cli.main import run\n"
    "sys.exit(run(sys.argv[1:]))"
)


@pytest.mark.parametrize(
    "words",
    [
        ("status",),
        ("stop", "good", "--manifest", "x.toml"),
        ("logs", "good", "--since", "1h"),
        ("tools", "good"),
        ("call", "good", "echo", "text=hi"),
    ],
)
def test_verbs_whose_words_are_text_load_no_pydantic(desk: Desk, words: tuple[str, ...]) -> None:
    desk.server("good")

    done = subprocess.run(
        [sys.executable, "-c", TELL_MODULES, *words],
        env=desk.environ,
        cwd=desk.cwd,
        capture_output=True,
        text=True,
        timeout=30,
    )

    modules = done.stderr.partition("MODULES ")[2].split()
    assert "octave.cli.main" in modules
    assert "pydantic" not in modules


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("logs", "-n", "many"), "Invalid value for `--lines` / `-n`"),
        (("serve", "--port", "70000"), "Invalid value for `--port`"),
        (("call", "good", "echo", "--timeout", "0"), "Invalid value for `--timeout`"),
        (("call", "good"), "Missing argument `TOOL`"),
        (("start", "--manifest"), "Option `--manifest` requires an argument"),
    ],
)
def test_numbers_and_missing_words_are_still_checked(
    desk: Desk, words: tuple[str, ...], message: str
) -> None:
    desk.server("good")

    done = desk.octave(*words)

    assert (done.code, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {message}")
