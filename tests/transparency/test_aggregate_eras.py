"""Two servers behind one face: of another era than its client, and what only one era has."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.gateway.conversation import desk
from tests.transparency import questions, scenes
from tests.transparency.comparison import (
    BRIDGE_SAYS,
    OWN_METHODS,
    Record,
    as_server,
    assert_bridged,
    assert_same,
)
from tests.transparency.conversation import Probe, Talk, directly, sit_down
from tests.transparency.scripts import Era, Scene, fence
from tests.transparency.test_aggregate import (
    SCENES,
    conversation,
    located,
    qualified,
    said,
    together,
)

pytestmark = pytest.mark.anyio
OTHER: dict[Era, Era] = {"legacy": "modern", "modern": "legacy"}
BRIDGED = [each for each in SCENES if each.is_bridged]
_META = replace(
    scenes.VENDOR_KEYS,
    client={
        era: [line for line in lines if "own/method" not in str(line)]
        for era, lines in scenes.VENDOR_KEYS.client.items()
    },
)
"""Without the method that belongs to no server."""
MORE = [
    _META,
    scenes.LOGGING,
    scenes.PING,
    scenes.MISSING_CAPABILITY,
    *(
        each
        for each in questions.SCENES
        if len(each.eras) == 1 and each.name != "elicitation is complete"
    ),
]
EACH = [pytest.param(each, era, id=f"{era}-{each.name}") for each in MORE for era in each.eras]


@pytest.mark.parametrize("era", OTHER)
@pytest.mark.parametrize("scene", BRIDGED, ids=lambda scene: scene.name)
async def test_each_end_sees_its_own_era_at_the_face_of_two(
    tmp_path: Path, scene: Scene, era: Era
) -> None:
    other = OTHER[era]
    own = await directly(tmp_path / "own", said(located, scene, era), era, name="one")
    its = await directly(tmp_path / "its", said(located, scene, other), other, name="one")
    one, two = Probe(tmp_path, scene, other, "one"), Probe(tmp_path, scene, era, "two")
    talk = Talk(era, scene.replies)
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        await sit_down(found, talk)
        await talk.play(said(qualified, scene, era), qualified(fence(era)))
    assert_bridged(own, its, Record(talk.heard, one.received))
    assert as_server(two.received, OWN_METHODS | BRIDGE_SAYS) == []


@pytest.mark.parametrize(("scene", "era"), EACH)
async def test_what_one_era_has_is_the_same_at_the_face_of_two(
    tmp_path: Path, scene: Scene, era: Era
) -> None:
    direct = await directly(tmp_path / "direct", said(located, scene, era), era, name="one")
    proxied, _ = await together(tmp_path / "through", scene, era)
    assert_same(conversation(direct), conversation(proxied))
