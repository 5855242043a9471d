import os
import sys
import time
from pathlib import Path

import pytest

from octave.errors import InstallFailed
from octave.packages.commands import Output, run

PYTHON = sys.executable


def test_output_and_exit_code_of_a_command_are_returned(tmp_path: Path) -> None:
    code = "import os,sys; print(os.getcwd(), os.environ['A'], sys.stdin.read()); sys.exit(3)"
    output = run([PYTHON, "-c", code], cwd=tmp_path, environ={"A": "b"}, stdin="in")
    assert output.exit_code == 3
    assert output.stdout == f"{tmp_path} b in\n"


def test_nothing_but_the_given_environment_reaches_a_command(tmp_path: Path) -> None:
    output = run(["/usr/bin/env"], cwd=tmp_path, environ={"ONLY": "this"})
    assert output.stdout == "ONLY=this\n"


def test_a_command_without_input_sees_its_end(tmp_path: Path) -> None:
    assert run(["/bin/cat"], cwd=tmp_path, environ={}).stdout == ""


def test_no_shell_reads_the_words(tmp_path: Path) -> None:
    words = ["; touch pwn", "$(touch pwn)", "`touch pwn`", "a\nb", "*"]
    code = "import sys; print(sys.argv[1:])"
    assert run([PYTHON, "-c", code, *words], cwd=tmp_path, environ={}).stdout == f"{words}\n"
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_text_are_replaced(tmp_path: Path) -> None:
    code = r"import sys; sys.stdout.buffer.write(b'a\xffb')"
    assert run([PYTHON, "-c", code], cwd=tmp_path, environ={}).stdout == "a\ufffdb"


def test_a_missing_program_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="cannot run `/nowhere/x`: No such file"):
        run(["/nowhere/x", "y"], cwd=tmp_path, environ={})


def test_a_command_that_takes_too_long_ends_with_all_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)\n"
    )
    with pytest.raises(InstallFailed, match="did not end within 1 s"):
        run([PYTHON, "-c", code], cwd=tmp_path, environ={}, timeout_s=1.0)
    child = int((tmp_path / "pid").read_text(encoding="utf-8"))
    deadline = time.monotonic() + 5.0
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.01)  # it dies by itself, and is nobody's here to wait for
    assert not _is_alive(child)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except (ProcessLookupError, FileNotFoundError):
        return False
    return status.rpartition(")")[2].split()[0] not in {"Z", "X"}


def test_the_tail_is_the_end_of_stderr_else_of_stdout() -> None:
    lines = "\n".join(map(str, range(30)))
    assert Output(("x",), 1, "out", lines).tail.splitlines() == [str(n) for n in range(18, 30)]
    assert Output(("x",), 1, "out\n", " \n").tail == "out"
