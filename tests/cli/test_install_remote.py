"""`install --remote`: a server of the registry where it is hosted, without a package."""

import tomllib

import pytest

from tests.cli.desk import Desk

REMOTE = ("install", "github", "--remote", "--no-start")
ADDRESS = "https://api.githubcopilot.com/mcp/"


def test_server_is_added_by_its_address(desk: Desk) -> None:
    done = desk.octave(*REMOTE)
    assert (done.code, done.stdout) == (0, "added github\n")
    written = tomllib.loads((desk.home / "octave.toml").read_text(encoding="utf-8"))
    assert written["servers"] == {"github": {"url": ADDRESS}}
    assert not (desk.home / "servers").exists() or not list((desk.home / "servers").iterdir())


def test_it_is_called_as_asked_and_said_in_json(desk: Desk) -> None:
    (result,) = desk.octave(*REMOTE, "--as", "hub", "--json").json["results"]
    assert (result["name"], result["status"], result["checked"]) == ("hub", "added", False)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("install", "everything", "--remote"), 1, "is hosted nowhere that is known"),
        (("install", "nobody-knows-this", "--remote"), 4, "nobody-knows-this"),
        (("install", "--remote"), 2, "`--remote` takes names"),
        ((*REMOTE, "--arg", "x"), 2, "`--remote` takes names"),
        ((*REMOTE, "-e", "X=1"), 2, "`--remote` takes names"),
        (("install", "--remote", "--locked"), 2, "`--remote` takes names"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(
    desk: Desk, words: tuple[str, ...], code: int, said: str
) -> None:
    done = desk.octave(*words)
    assert done.code == code
    assert said in done.stderr
    assert not (desk.home / "octave.toml").exists()


def test_name_that_is_taken_stays_what_it_is(desk: Desk) -> None:
    desk.octave(*REMOTE)
    before = (desk.home / "octave.toml").read_bytes()
    done = desk.octave(*REMOTE)
    assert done.code == 2
    assert "already has a server `github`" in done.stderr
    assert (desk.home / "octave.toml").read_bytes() == before
