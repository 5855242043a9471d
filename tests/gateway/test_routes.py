"""Resources and templates of several servers: each is found where it is, by whatever names it."""

from pathlib import Path

import pytest

from octave.runtime import wire
from tests.gateway.conversation import desk
from tests.gateway.test_list_changes import begin
from tests.transparency.comparison import member
from tests.transparency.conversation import Probe, Talk
from tests.transparency.scripts import Era, Script, answer, ask, both, filled, fresh

pytestmark = pytest.mark.anyio
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
LINK = '{"type":"resource_link","uri":"hidden://1","name":"l"}'
HELD = '{"type":"resource","resource":{"uri":"hidden://2","text":"x"}}'
NAMING: Script = {
    "prompts/get": [
        answer(
            f'"messages":[{{"role":"user","content":{LINK}}},{{"role":"user","content":{HELD}}}]'
        )
    ],
    "resources/read": [fresh('"contents":[{"uri":"hidden://3","text":"x"}]')],
}


def templates(*uris: str) -> Script:
    items = ",".join(f'{{"uriTemplate":"{uri}","name":"n"}}' for uri in uris)
    return {
        "resources/list": [fresh('"resources":[]')],
        "resources/templates/list": [fresh(f'"resourceTemplates":[{items}]')],
        "completion/complete": [answer(f'"completion":{{"values":["{uris[0]}"]}}')],
    }


async def completed(talk: Talk, era: Era, identifier: str, uri: str) -> bytes:
    params = f'"ref":{{"type":"ref/resource","uri":"{uri}"}},"argument":{{"name":"a","value":""}},'
    line = filled(era, ask(identifier, "completion/complete", params))
    return await talk.once(line.encode())


@ERAS
async def test_completion_goes_to_the_server_that_lists_that_very_template(
    tmp_path: Path, era: Era
) -> None:
    """Though the text of the template is a resource of another one's."""
    wide = Probe(tmp_path, both("", [], templates("x://{a}")), era, "wide")
    narrow = Probe(tmp_path, both("", [], templates("x://{a}/{b}")), era, "narrow")
    async with desk(tmp_path, wide.spec, narrow.spec) as found:
        await found.catalogue.gather(["wide", "narrow"])
        talk = await begin(found, era)
        for number, uri in enumerate(("x://{a}", "x://{a}/{b}")):
            said = await completed(talk, era, f"{number}", uri)
            assert member(said, "result", "completion", "values") == f'["{uri}"]'.encode()


@ERAS
async def test_completion_for_a_template_of_two_servers_names_both(
    tmp_path: Path, era: Era
) -> None:
    scene = both("", [], templates("x://{a}"))
    one, two = (Probe(tmp_path, scene, era, name) for name in ("a", "b"))
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["a", "b"])
        said = await completed(await begin(found, era), era, "1", "x://{a}")
    assert member(said, "error", "code") == b"-32602"
    assert b"`a` and `b`" in said


@ERAS
@pytest.mark.parametrize(
    ("method", "params", "uri"),
    [
        ("prompts/get", '"name":"two__greet",', "hidden://1"),
        ("prompts/get", '"name":"two__greet",', "hidden://2"),
        ("resources/read", '"uri":"two://one",', "hidden://3"),
    ],
    ids=["link of a prompt", "held by a prompt", "part of a resource"],
)
async def test_resource_that_a_server_named_is_read_there(
    tmp_path: Path, era: Era, method: str, params: str, uri: str
) -> None:
    one, two = (Probe(tmp_path, both("", [], NAMING), era, name) for name in ("one", "two"))
    async with desk(tmp_path, one.spec, two.spec) as found:
        await found.catalogue.gather(["one", "two"])
        talk = await begin(found, era)
        read = filled(era, ask('"r"', "resources/read", f'"uri":"{uri}",')).encode()
        assert member(await talk.once(read), "error", "code") == b"-32602"
        await talk.once(filled(era, ask("1", method, params)).encode())
        assert wire.decode(await talk.once(read)).result
        assert not [line for line in one.received if b"hidden" in line]
