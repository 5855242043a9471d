"""Error objects as servers really write them: of whatever kind, they arrive as they were."""

from pathlib import Path

import pytest

from tests.transparency.comparison import assert_bridged, assert_same
from tests.transparency.conftest import Direct
from tests.transparency.conversation import directly, through
from tests.transparency.scripts import Era, Scene, both, call, error
from tests.transparency.test_aggregate import conversation, located, said, together

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
OTHER: dict[Era, Era] = {"legacy": "modern", "modern": "legacy"}


def raw(value: str) -> str:
    return f'{{"jsonrpc":"2.0","error":{value},"id":$ID}}'


ODD = {
    "say": error(-32099, '"data":{"n":1.10,"a":[1e400,-0],"z":{},"u":"\\u00e9 \\/"}'),
    "ask": raw('{"code":-7}'),
    "touch": raw('{"message":"no code"}'),
    "change": raw('{"code":1.50,"message":7,"data":null}'),
    "log": raw('{"code":"text","message":"\\ud800"}'),
    "silent": raw('"text"'),
    "progress": raw("[1.10]"),
    "hang": raw("{}"),
    "fails": raw('{"code":99999999999999999999999,"code":1,"message":"twice"}'),
}
"""By the tool that answers so."""
WITH_RESULTS = {
    "first": '{"error":null,"jsonrpc":"2.0","id":$ID,"result":{$DONE"content":[]}}',
    "second": '{"error":{"code":-1,"message":"no"},"id":$ID,"jsonrpc":"2.0","result":{"own":1.0}}',
}


def scene(name: str, answers: dict[str, str]) -> Scene:
    return both(
        name,
        [call(f"{number}", tool) for number, tool in enumerate(answers)],
        {f"tools/call {tool}": [line] for tool, line in answers.items()},
    )


ERRORS = scene("odd errors", ODD)
AMBIGUOUS = scene("errors and results in one", WITH_RESULTS)
NULL = scene("null for an error", {"first": WITH_RESULTS["first"]})
SCENES = pytest.mark.parametrize("scene", [ERRORS, AMBIGUOUS], ids=lambda scene: scene.name)


@ERAS
@SCENES
async def test_error_objects_arrive_untouched(
    tmp_path: Path, direct: Direct, scene: Scene, era: Era
) -> None:
    assert_same(await direct(scene, era), await through(tmp_path, scene, era))


@ERAS
@SCENES
async def test_error_objects_arrive_untouched_at_the_face_of_two(
    tmp_path: Path, scene: Scene, era: Era
) -> None:
    direct = await directly(tmp_path / "direct", said(located, scene, era), era, name="one")
    proxied, _ = await together(tmp_path / "through", scene, era)
    assert_same(conversation(direct), conversation(proxied))


@ERAS
@pytest.mark.parametrize("scene", [ERRORS, NULL], ids=lambda scene: scene.name)
async def test_error_objects_cross_the_bridge_untouched(
    tmp_path: Path, direct: Direct, scene: Scene, era: Era
) -> None:
    own, other = await direct(scene, era), await direct(scene, OTHER[era])
    assert_bridged(own, other, await through(tmp_path, scene, era, OTHER[era]))
