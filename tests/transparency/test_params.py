"""What nobody knows passes, whatever its params are, both ways and in both eras."""

from pathlib import Path

import pytest

from tests.transparency.comparison import assert_same
from tests.transparency.conftest import Direct
from tests.transparency.conversation import through
from tests.transparency.scripts import Era, Line, Scene, call, one, text

pytestmark = pytest.mark.anyio
ERAS: tuple[Era, Era] = ("legacy", "modern")

PARAMS = ("", ',"params":null', ',"params":[1.10, {"a":1E2}]', ',"params":[]', ',"params":{}')
"""Absent, and of each kind that is no object with members."""


def note(number: int, tail: str) -> str:
    return f'{{"jsonrpc":"2.0", "method":"notifications/own-{number}"{tail},"own":1.0}}'


NOTES = [note(number, tail) for number, tail in enumerate(PARAMS)]
SAID: list[Line] = [call("1", "say"), *NOTES, call("2", "say")]
NOTIFICATIONS = [
    one(era, f"notifications of the {era} era", SAID, {"tools/call say": [*NOTES, text("said")]})
    for era in ERAS
]
REQUESTS = one(
    "legacy",
    "requests",
    [
        f'{{"jsonrpc":"2.0","method":"own/{number}"{tail},"id":{number}.50,"more":1.0}}'
        for number, tail in enumerate(PARAMS)
    ],
    {
        f"own/{number}": [f'{{"result":{result},"jsonrpc":"2.0","id":$ID}}']
        for number, result in enumerate(("null", "1E2", "[1.10]", '"\\u00e9"', "{}"))
    },
)
QUESTIONS = one(
    "legacy",
    "questions",
    [call("1", "ask")],
    {
        "tools/call ask": [
            *(
                step
                for number, tail in enumerate(PARAMS)
                for step in (
                    f'{{"jsonrpc":"2.0","method":"own/{number}"{tail},"id":"q{number}"}}',
                    {"await": f'"q{number}"'},
                )
            ),
            text("known"),
        ]
    },
    replies={
        f"own/{number}": (f'"result":{result}',)
        for number, result in enumerate(("null", "1E2", "[1.10]", '"\\u00e9"', "{}"))
    },
)


@pytest.mark.parametrize("scene", [*NOTIFICATIONS, REQUESTS, QUESTIONS], ids=lambda s: s.name)
async def test_unknown_messages_pass_whatever_their_params_are(
    tmp_path: Path, direct: Direct, scene: Scene
) -> None:
    (era,) = scene.eras
    expected = await direct(scene, era)
    assert len(expected.client) > 1
    assert_same(expected, await through(tmp_path, scene, era))
