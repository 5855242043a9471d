"""The process of a runtime ends with it, whatever its threads are at."""

from pathlib import Path

from tests.cli.desk import CHECKOUT, WAIT_S, Desk

SLOW_NAMES = """
import pathlib, socket, threading

real = socket.getaddrinfo


def look_up(host, *arguments, **options):
    if host in ("slow.example", b"slow.example"):
        pathlib.Path({marker!r}).touch()
        threading.Event().wait(600)
    return real(host, *arguments, **options)


socket.getaddrinfo = look_up
"""


def test_a_look_up_that_hangs_does_not_keep_the_process(desk: Desk, tmp_path: Path) -> None:
    marker = tmp_path / "looked-up"
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(SLOW_NAMES.format(marker=str(marker)), encoding="utf-8")
    text = 'runtime.port = 0\n[servers.peer]\nurl = "http://slow.example/mcp"\nauto_start = true\n'
    (desk.home / "octave.toml").write_text(text, encoding="utf-8")
    runtime = desk.start("serve", environ={"PYTHONPATH": f"{site}:{CHECKOUT}"})
    address = desk.home / "run" / "runtime.json"
    desk.until(lambda: marker.exists() and address.exists())
    assert desk.octave("shutdown").code == 0
    # Far sooner than the look-up ends.
    assert runtime.wait(WAIT_S) == 0
    assert not address.exists()
    _, errors = runtime.communicate()
    assert errors == b""
