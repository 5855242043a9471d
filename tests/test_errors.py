import errno
import re

import pytest

from octave import errors
from octave.errors import OctaveError


def _kinds(root: type[OctaveError] = OctaveError) -> list[type[OctaveError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _kinds(child))]


def test_the_tree_in_the_docstring_is_the_tree_of_classes():
    drawn = re.findall(r"^[ │├└─]*(\w+) +(\w+) +(\d+)$", errors.__doc__ or "", re.MULTILINE)
    built = [(kind.__name__, kind.code, str(kind.exit_code)) for kind in _kinds()]
    assert sorted(drawn) == sorted(built)


def test_every_code_is_unique_and_every_exit_code_is_in_the_table():
    kinds = _kinds()
    assert len({kind.code for kind in kinds}) == len(kinds)
    assert {kind.exit_code for kind in kinds} <= errors.EXIT_CODES.keys()
    assert {errors.TOOL_ERROR_EXIT, errors.INTERRUPTED_EXIT} <= errors.EXIT_CODES.keys()


@pytest.mark.parametrize("kind", _kinds(), ids=lambda kind: kind.code)
def test_an_error_crosses_the_wire_unchanged(kind):
    sent = kind("`x` failed", hint="octave x", details={"exitCode": 3})
    got = errors.from_json(sent.as_json())
    assert type(got) is kind
    assert got.as_json() == sent.as_json()
    assert str(got) == "`x` failed"


def test_an_error_of_a_newer_octave_becomes_the_plain_kind():
    got = errors.from_json({"code": "invented_later", "message": "m", "details": 3})
    assert (type(got), got.message, got.hint, got.details) == (OctaveError, "m", None, {})


def test_an_empty_error_still_has_a_message():
    assert errors.from_json({}).message == "unknown error"


def test_details_of_two_errors_are_not_shared():
    first = OctaveError("a")
    first.details["x"] = 1
    assert OctaveError("b").details == {}


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM),
        *(errno.ENAMETOOLONG, errno.ELOOP),
    ],
)
def test_a_full_or_foreign_disk_is_a_storage_error_with_path_and_hint(number):
    found = errors.from_os_error(OSError(number, "no", "/a/file"))
    assert found is not None
    assert (found.code, found.exit_code) == ("storage_failed", 1)
    assert found.message == "cannot write `/a/file`: no"
    assert found.hint


def test_another_system_error_is_not_about_storage():
    assert errors.from_os_error(OSError(errno.EPIPE, "broken pipe")) is None
    assert errors.from_os_error(OSError("no number")) is None


@pytest.mark.parametrize("error", [errors.Locked("x"), OSError(errno.ENOSPC, "full")])
def test_what_a_task_group_met_is_raised_as_it_is(error):
    with pytest.raises(type(error)) as caught, errors.ungrouped():
        raise ExceptionGroup("tasks", [ExceptionGroup("inner", [error])])
    assert caught.value is error


def test_a_bug_among_what_a_task_group_met_stays_in_sight():
    with pytest.raises(ExceptionGroup), errors.ungrouped():
        raise ExceptionGroup("tasks", [errors.Locked("x"), KeyError("bug")])


def test_the_nearest_names_come_best_first_in_their_own_spelling():
    assert errors.nearest("githb", ["gitlab", "GitHub", "slack"]) == ["GitHub", "gitlab"]
    assert errors.nearest("x", []) == []
    assert len(errors.nearest("aaaa", ["aaab", "aaac", "aaad", "aaae"], 2)) == 2


def test_a_suggestion_names_all_that_are_close_or_nothing():
    assert errors.did_you_mean("githb", ["github", "slack"]) == "did you mean `github`?"
    assert errors.did_you_mean("aaa", ["aab", "aac"]) == "did you mean `aac` or `aab`?"
    assert errors.did_you_mean("zzz", ["github"]) is None
