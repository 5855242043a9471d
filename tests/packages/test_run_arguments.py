"""What an entry may have a container run with."""

from typing import Any

import msgspec
import pytest

from octave.packages.run_arguments import RunArguments, read
from octave.packages.server_json import PackageArgument

IMAGE = "h.test/o/thing:1.0"


def judged(*arguments: dict[str, Any]) -> RunArguments:
    return read([msgspec.convert(each, PackageArgument) for each in arguments], IMAGE)


def named(name: str, value: str | None = None, **more: Any) -> dict[str, Any]:
    return {"type": "named", "name": name, "value": value} | more


def placed(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "positional", "value": value} | more


def test_what_octave_says_itself_is_passed_over() -> None:
    words = ("run", "h.test/o/thing", "h.test/o/thing:2", "-i", "--rm")
    found = judged(named("-i", "true"), named("--rm"), named("--init"), *map(placed, words))
    assert found == RunArguments()


def test_variables_are_taken_over_however_they_are_written() -> None:
    token = {"token": {"isRequired": True, "isSecret": True, "description": "From the settings"}}
    found = judged(
        named("-e", "TOKEN={token}", variables=token),
        named("--env=MODE=calm"),
        placed("-e"),
        placed("PLAIN"),
        named("-e", "URL=https://{host}/", variables={"host": {}}, isRequired=True),
    ).variables
    assert [(v.name, v.is_required, v.is_secret, v.value) for v in found] == [
        ("TOKEN", True, True, None),
        ("MODE", False, False, "calm"),
        ("PLAIN", False, False, None),
        ("URL", True, False, None),
    ]
    assert found[0].description == "From the settings"


@pytest.mark.parametrize("given", [named("-v", "/:/host"), named("--mount=type=bind,src={p}")])
def test_folders_are_the_users_to_give(given: dict[str, Any]) -> None:
    found = judged(given)
    assert len(found.mounts) == 1
    assert not found.refused


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (named("--privileged"), "--privileged"),
        (named("--network", "host"), "--network host"),
        (named("--network=host"), "--network host"),
        (placed("--privileged"), "--privileged"),
        (named("--cap-add", "SYS_ADMIN"), "--cap-add SYS_ADMIN"),
        (named("--entrypoint", "sh"), "--entrypoint sh"),
        (placed("other/image"), "other/image"),
        (named("-e", "A B=1"), "-e A B=1"),
    ],
)
def test_whatever_else_is_refused_in_its_own_words(given: dict[str, Any], told: str) -> None:
    assert judged(given).refused == (told,)
