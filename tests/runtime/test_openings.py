"""Which era a process is opened in next, after what became of the openings before."""

from collections.abc import Callable
from pathlib import Path

import pytest

from octave.errors import AuthorizationNeeded, OctaveError, RemoteUnreachable, ServerDied
from octave.errors import StartFailed as Failed
from octave.packages.launch import LaunchSpec
from octave.packages.offered import Offered
from octave.runtime.events import Clock
from octave.runtime.handshake import Era, Refused
from octave.runtime.logs import ServerLog
from octave.runtime.openings import Openings
from octave.runtime.subject import Listeners, Role, Subject

LEGACY, MODERN, BOTH = ("legacy",), ("modern",), ("legacy", "modern")
Make = Callable[..., tuple[Openings, Subject]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def made(eras: tuple[str, ...], role: Era | None = None) -> tuple[Openings, Subject]:
        told = Listeners(lambda _: None, lambda _, __: None, lambda _: None)
        spec = LaunchSpec("x", ("x",), tmp_path, dict)
        subject = Subject(spec, ServerLog(tmp_path / "x.log"), told, Clock(float, float))
        subject.offered = Offered(b"{}", {}, eras=eras)
        return Openings(subject, Role(role)), subject

    return made


def failure(
    cause: Exception | None, phase: str = "initialize", kind: type[OctaveError] = Failed
) -> OctaveError:
    error = kind("`x` did not start", details={"phase": phase})
    error.__cause__ = cause
    return error


DEATH = failure(ServerDied("`x` ended"))
ANSWER = failure(Refused("no"))
SILENCE = failure(None, "timeout")


def course(openings: Openings, *errors: OctaveError) -> list[Era]:
    """The era of each opening: of the next one, and of the one after each failure."""
    found: list[Era] = [openings.era]
    for error in errors:
        openings.failed(error)
        found.append(openings.era)
    return found


@pytest.mark.parametrize(
    ("eras", "role", "first", "other"),
    [
        (LEGACY, None, "legacy", "modern"),
        (BOTH, None, "legacy", "modern"),
        (MODERN, None, "modern", "legacy"),
        (BOTH, "modern", "modern", "legacy"),
    ],
)
def test_after_two_deaths_the_other_era_has_one_try(
    make: Make, eras: tuple[str, ...], role: Era | None, first: Era, other: Era
) -> None:
    openings, _ = make(eras, role)
    assert course(openings, *[DEATH] * 5) == [first, first, other, first, first, other]


@pytest.mark.parametrize("error", [ANSWER, SILENCE])
def test_a_refusal_of_the_modern_era_is_enough(make: Make, error: OctaveError) -> None:
    assert course(make(MODERN)[0], error, DEATH) == ["modern", "legacy", "modern"]


@pytest.mark.parametrize("error", [ANSWER, SILENCE])
def test_a_refusal_of_the_handshake_says_nothing_of_the_era(make: Make, error: OctaveError) -> None:
    assert course(make(LEGACY)[0], *[error] * 3) == ["legacy"] * 4


@pytest.mark.parametrize(
    "error",
    [
        failure(ServerDied("`x` is away"), kind=RemoteUnreachable),
        failure(ServerDied("`x` wants a login"), kind=AuthorizationNeeded),
        failure(None, "start"),
    ],
)
def test_what_is_in_the_way_says_nothing_of_the_era(make: Make, error: OctaveError) -> None:
    assert course(make(MODERN)[0], *[error] * 3) == ["modern"] * 4


def test_where_no_era_is_known_the_handshake_alone_is_tried(make: Make) -> None:
    assert course(make(())[0], *[DEATH] * 4) == ["legacy"] * 5


def test_what_opens_is_what_is_known_and_ends_all_doubt(make: Make) -> None:
    openings, subject = make(MODERN)
    course(openings, ANSWER)
    before = openings.is_sure
    openings.opened("legacy")
    assert subject.offered is not None
    assert subject.offered.eras == LEGACY
    assert (before, openings.is_sure, openings.era) == (False, True, "legacy")


def test_a_server_of_both_eras_keeps_them_when_each_is_opened(make: Make) -> None:
    first, subject = make(BOTH)
    first.opened("legacy")
    Openings(subject, Role("modern")).opened("modern")
    assert subject.offered is not None
    assert subject.offered.eras == BOTH


def test_the_failure_of_a_mere_try_does_not_tell_why_it_does_not_start(make: Make) -> None:
    openings, _ = make(LEGACY)
    assert [openings.failed(DEATH) for _ in range(4)] == [True, True, False, True]
    openings, _ = make(MODERN)
    assert [openings.failed(error) for error in (ANSWER, DEATH)] == [True, True]
