"""Changed definitions of tools: reported, or neither listed nor callable, at each face and era."""

import json
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from octave.errors import NotApproved
from octave.packages import approvals, offered
from octave.packages.definitions import pins_of
from octave.packages.launch import Approvals, LaunchSpec
from octave.packages.offered import Offered
from octave.runtime import wire
from octave.runtime.events import Event
from tests.gateway.conversation import SERVERS, Client, Desk, call, desk, odd, spec, texts

pytestmark = pytest.mark.anyio

META = (
    b'"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28",'
    b'"io.modelcontextprotocol/clientCapabilities":{}}'
)
GOOD = (
    b'{"name": "add", "description": "Add two numbers", "inputSchema": {"type": "object",'
    b' "properties": {"a": {"type": "number"}, "b": {"type": "number"}}},'
    b' "annotations": {"readOnlyHint": true}}'
)
FACES = [(True, b""), (False, b"changing__")]


def changing(approved: Approvals) -> LaunchSpec:
    """A server that turns evil after its first call."""
    return replace(spec("changing", SERVERS / "changing_tools.py"), approvals=approved)


def approved(mode: str, *tools: bytes) -> Approvals:
    pins = {pin.name: pin for pin in pins_of(tools)}
    return Approvals(mode, pins)  # type: ignore[arg-type] # one of the three


def params(body: bytes, *, modern: bool) -> bytes:
    return b"{%b%b%b" % (META, b"," if body != b"{}" else b"", body[1:]) if modern else body


async def listed(client: Client, *, modern: bool = False) -> set[str]:
    client.lines.clear()
    answer = json.loads(await client.ask(b'"list"', "tools/list", params(b"{}", modern=modern)))
    return {tool["name"].removeprefix("changing__") for tool in answer["result"]["tools"]}


async def called(client: Client, name: bytes, *, modern: bool = False) -> bytes:
    client.lines.clear()
    return await client.ask(b'"call"', "tools/call", params(call(name), modern=modern))


def refusal(answer: bytes) -> tuple[int, str]:
    error = json.loads(answer)["error"]
    assert error["data"]["octave"]["code"] == "not_approved"
    return error["code"], error["message"]


class Ear:
    """Hears the warnings about one server, and lets wait for them."""

    def __init__(self, found: Desk) -> None:
        self.told: list[str] = []
        self._news = anyio.Event()
        self._before = found.supervisor.on_event
        found.supervisor.on_event = self._happened

    def _happened(self, event: Event) -> None:
        self._before(event)
        if event.kind == "warning":
            self.told.append(event.details["message"])
            self._news.set()
            self._news = anyio.Event()

    async def hears(self, words: str) -> None:
        with anyio.fail_after(5):
            while not any(words in text for text in self.told):
                await self._news.wait()


@pytest.mark.parametrize("modern", [False, True])
@pytest.mark.parametrize(("single", "prefix"), FACES)
async def test_what_was_not_approved_is_blocked_in_both_eras(
    tmp_path: Path, single: bool, prefix: bytes, modern: bool
) -> None:
    other = GOOD.replace(b"Add two", b"Sum two")
    async with desk(tmp_path, changing(approved("block", other)), odd("one")) as found:
        client = await found.client("changing", single=single)
        assert await listed(client, modern=modern) == set()
        refusal(await called(client, prefix + b"add", modern=modern))


@pytest.mark.parametrize(("single", "prefix"), FACES)
async def test_a_changed_tool_vanishes_and_is_refused_where_that_is_blocked(
    tmp_path: Path, single: bool, prefix: bytes
) -> None:
    async with desk(tmp_path, changing(approved("block", GOOD)), odd("one")) as found:
        ear = Ear(found)
        client = await found.client("changing", single=single)
        assert await listed(client) == {"add"}
        assert texts(await called(client, prefix + b"add")) == "0"
        await ear.hears("`add` are not as they were approved, and hidden until they are")

        assert await listed(client) == set()
        code, message = refusal(await called(client, prefix + b"add"))
        assert code == wire.INTERNAL_ERROR
        assert message == (
            "tool `add` of `changing` is not as it was approved; octave approve changing"
        )
        _, message = refusal(await called(client, prefix + b"extra"))
        assert "tool `extra` of `changing` is not approved yet" in message


@pytest.mark.parametrize(("single", "prefix"), FACES)
async def test_a_call_that_wakes_a_server_waits_until_it_is_known_what_it_offers(
    tmp_path: Path, single: bool, prefix: bytes
) -> None:
    # What was seen of it last is as it was approved; asleep it has changed.
    old = GOOD.replace(b"Add two", b"Sum two")
    kept = Offered(b'{"capabilities":{"tools":{}}}', {"tools": (old,)})
    offered.save(tmp_path / "changing.json", kept, "1", "d")
    async with desk(tmp_path, changing(approved("block", old))) as found:
        client = await found.client("changing", single=single)
        assert await listed(client) == {"add"}
        refusal(await called(client, prefix + b"add"))
        # It was never called: a call would have made it list another tool.
        await found.catalogue.refresh("changing")
        known = found.catalogue.get("changing")
        assert known is not None
        assert known.names() == ("add",)


@pytest.mark.parametrize(("single", "prefix"), FACES)
async def test_a_changed_tool_is_told_once_and_works_where_that_is_warned_of(
    tmp_path: Path, single: bool, prefix: bytes
) -> None:
    async with desk(tmp_path, changing(approved("warn", GOOD))) as found:
        ear = Ear(found)
        client = await found.client("changing", single=single)
        await called(client, prefix + b"add")
        await ear.hears("are not as they were approved")
        await ear.hears("`extra` are not approved yet")
        assert await listed(client) == {"add", "extra"}
        assert texts(await called(client, prefix + b"add")) == "0"
        await found.catalogue.refresh("changing")
        assert len(ear.told) == 2


async def test_a_list_that_passes_unseen_is_looked_at_too(tmp_path: Path) -> None:
    silent = changing(approved("warn", GOOD))
    async with desk(tmp_path, silent) as found:
        ear = Ear(found)
        found.supervisor.on_notification = lambda _speaker, _message: None
        client = await found.client("changing", single=True)
        await called(client, b"add")
        assert not ear.told
        assert await listed(client) == {"add", "extra"}
        assert any("`add` are not as they were approved" in text for text in ear.told)


async def test_what_is_seen_first_counts_where_nothing_was_approved(tmp_path: Path) -> None:
    async with desk(tmp_path, changing(Approvals("warn"))) as found:
        ear = Ear(found)
        client = await found.client("changing", single=True)
        await called(client, b"add")
        await ear.hears("are not as they were approved")
        await found.catalogue.refresh("changing")
    kept = approvals.texts(tmp_path / "changing.json", "1", "d")
    assert kept is not None
    assert pins_of(kept.values()) == pins_of([GOOD])


async def test_where_nothing_was_approved_everything_is_blocked(tmp_path: Path) -> None:
    async with desk(tmp_path, changing(Approvals("block"))) as found:
        client = await found.client("changing", single=True)
        assert await listed(client) == set()
        refusal(await called(client, b"add"))
    assert not (tmp_path / "changing.approved.json").exists()


async def test_a_tool_that_no_list_shows_is_refused_where_others_are_blocked(
    tmp_path: Path,
) -> None:
    async with desk(tmp_path, changing(approved("block", GOOD))) as found:
        client = await found.client("changing", single=True)
        answer = json.loads(await called(client, b"unlisted"))
        assert answer["error"]["data"]["octave"]["code"] == "tool_not_found"


async def test_approval_shows_the_tools_again_and_clients_are_told(tmp_path: Path) -> None:
    async with desk(tmp_path, changing(Approvals("block"))) as found:
        client = await found.client("changing", single=True)
        await client.open()
        assert await listed(client) == set()
        await found.supervisor.reload([changing(approved("block", GOOD))])
        found.catalogue.approving.respecified(found.supervisor.servers)
        await client.heard("notifications/tools/list_changed")
        assert await listed(client) == {"add"}
        assert texts(await called(client, b"add")) == "0"


async def test_other_annotations_are_told_apart(tmp_path: Path) -> None:
    other = GOOD.replace(b"true", b"false")
    async with desk(tmp_path, changing(approved("warn", other))) as found:
        await found.catalogue.refresh("changing")
        known = found.catalogue.listing("changing")
        assert known is not None
        assert dict(known.unapproved) == {0: "annotations"}


async def test_a_command_is_refused_alike(tmp_path: Path) -> None:
    async with desk(tmp_path, changing(approved("block", GOOD.replace(b"Add", b"Sum")))) as found:
        with pytest.raises(NotApproved) as caught:
            await found.router.find_tool("add", "changing")
        assert caught.value.exit_code == 7
        server = found.supervisor.servers["changing"]
        diff = await found.catalogue.approving.difference(server, "add")
        assert '+  description: "Add two numbers"' in diff


@pytest.mark.parametrize("mode", ["warn", "block"])
async def test_what_the_process_of_the_other_era_lists_otherwise_is_told_too(
    tmp_path: Path, mode: str
) -> None:
    async with desk(tmp_path, changing(approved(mode, GOOD))) as found:
        ear = Ear(found)
        old, new = [await found.client("changing", single=True) for _ in range(2)]
        await found.catalogue.refresh("changing")
        await found.catalogue.know_eras("changing")
        assert await listed(old) == {"add"}
        assert texts(await called(new, b"add", modern=True)) == "0"
        await ear.hears("to clients of the modern era, tools `add` are not as they were approved")
        assert await listed(old) == {"add"}
        assert not any(text.startswith("tools") for text in ear.told)
