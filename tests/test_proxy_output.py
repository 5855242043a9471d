"""Standard output of the proxy: written without waiting, whatever it is, its mode left alone."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, select, sys
from octave.proxy_output import Output
output = Output()
data = bytes(range(256)) * 8192
output.add(data[:1000])
output.add(data[1000:])
os.write(2, b"%d\\n" % len(output.waiting))
while output.waiting:
    select.select([], [1], [])
    output.write()
os.write(2, b"blocking\\n" if os.get_blocking(1) else b"changed\\n")
"""
DATA = bytes(range(256)) * 8192


def started(stdout: int) -> "subprocess.Popen[bytes]":
    words = [sys.executable, "-c", PROGRAM]
    folder = Path(__file__).parent.parent
    return subprocess.Popen(words, cwd=folder, stdout=stdout, stderr=subprocess.PIPE)


def read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb") as end:
        return end.read()


def what_it_said(process: "subprocess.Popen[bytes]") -> bytes:
    assert process.stderr is not None
    with process.stderr as stderr:
        said = stderr.readline()
        said += stderr.read()
    assert process.wait() == 0
    return said


@pytest.mark.parametrize("kind", ["pipe", "socket", "file"])
def test_everything_arrives_and_whoever_shares_the_file_finds_it_as_it_was(
    kind: str, tmp_path: Path
) -> None:
    if kind == "pipe":
        near, far = os.pipe()
    elif kind == "socket":
        near, far = (each.detach() for each in socket.socketpair())
    else:
        far = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
        near = os.open(tmp_path / "out", os.O_RDONLY)
    process = started(far)
    os.close(far)
    if kind == "file":
        process.wait()
    assert read_all(near) == DATA
    assert what_it_said(process).endswith(b"blocking\n")


def test_nobody_waits_for_a_reader() -> None:
    near, far = os.pipe()
    process = started(far)
    os.close(far)
    assert process.stderr is not None
    # It says so before a byte was read.
    assert int(process.stderr.readline()) > 0
    assert read_all(near) == DATA
    process.stderr.close()
    assert process.wait() == 0
