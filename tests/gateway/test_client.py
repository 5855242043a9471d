"""What a client is asked, and under which ids: an answer always finds its own question."""

import json
from collections.abc import Callable
from functools import partial

import anyio
import pytest

from octave.gateway.client import Client, Gone
from octave.runtime import wire
from octave.runtime.questions import OPEN_LIMIT, Question
from tests.gateway.asking import ALL, FORM

FIRST = b'"octave-1"'
"""The first id that a client of this module makes."""


class Asking:
    """A client that has opened, and the servers that ask it."""

    def __init__(self) -> None:
        self.client = Client()
        self.client.greeted(json.dumps({"capabilities": ALL}).encode())
        self.lines: list[bytes] = []
        """What the client was sent."""
        self.answers: dict[str, list[wire.Message]] = {}
        """What servers were told, by the key of the question."""
        self.noted: list[bytes] = []
        """What else they were told."""

    def ask(
        self, key: str, identifier: bytes, *, keeps_id: bool = True, params: bytes = b"{}"
    ) -> Question:
        """Let a server ask, and return its question."""
        line = wire.request(identifier, FORM, params)
        told = self.answers.setdefault(key, [])
        question = Question(
            wire.decode(line), lambda line: told.append(wire.decode(line)), self.noted.append
        )
        self.client.pass_on(question, self.lines.append, keeps_id=keeps_id)
        return question

    @property
    def last_id(self) -> bytes:
        """Under which the client was asked last."""
        return wire.decode(self.lines[-1]).id or b""

    def reply(self, identifier: bytes, key: str) -> None:
        """Answer a question, saying in the answer which it is."""
        line = wire.result(identifier, json.dumps({"key": key}).encode())
        self.client.answered(wire.decode(line))

    def keys(self) -> dict[str, list[str]]:
        """What each was told."""
        return {
            key: [json.loads(each.result or b"{}").get("key", "refused") for each in told]
            for key, told in self.answers.items()
        }


def test_id_of_a_server_that_is_like_ours_is_not_given_twice() -> None:
    asking = Asking()
    asking.ask("own", FIRST)
    assert asking.last_id == FIRST
    # Another process of the same server, as two at once serve a session.
    asking.ask("other", FIRST)
    assert asking.last_id != FIRST
    asking.reply(asking.last_id, "other")
    asking.reply(FIRST, "own")
    assert asking.keys() == {"own": ["own"], "other": ["other"]}


def test_id_of_ours_is_not_taken_by_a_server_while_it_is_open() -> None:
    asking = Asking()
    asking.ask("ours", b"1", keeps_id=False)
    assert asking.last_id == FIRST
    asking.ask("own", FIRST)
    second = asking.last_id
    assert second not in (FIRST, b"1")
    asking.reply(FIRST, "ours")
    asking.reply(second, "own")
    assert asking.keys() == {"ours": ["ours"], "own": ["own"]}


def test_answer_to_what_was_withdrawn_is_none_to_what_comes_after_it() -> None:
    asking = Asking()
    before = asking.ask("before", FIRST)
    before.on_withdrawn(None)
    assert wire.decode(asking.lines[-1]).method == "notifications/cancelled"
    asking.ask("own", FIRST)
    own = asking.last_id
    asking.ask("ours", b"7", keeps_id=False)
    ours = asking.last_id
    assert len({FIRST, own, ours}) == 3
    asking.reply(FIRST, "before")
    assert asking.keys() == {"before": [], "own": [], "ours": []}
    asking.reply(ours, "ours")
    asking.reply(own, "own")
    assert asking.keys() == {"before": [], "own": ["own"], "ours": ["ours"]}
    # The late answer has come: now the id is free.
    asking.ask("again", FIRST)
    assert asking.last_id == FIRST


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (b'"\\u0071"', b'"q"'),
        (b'"a\\/b"', b'"a/b"'),
        (b'"\xc3\xa9\xe2\x80\xa8"', b'"\\u00e9\\u2028"'),
        (b'"\\ud83d\\ude00"', '"\U0001f600"'.encode()),
        (b'"\\ud800"', b'"\\uD800"'),
        (b"1.0", b"1"),
        (b"1E2", b"100"),
        (b"-0", b"0"),
        (b"2.50", b"2.5"),
        (b"12345678901234567890123", b"12345678901234567890123"),
        (b"1e400", b"1e400"),
        (b"9" * 5000, b"9" * 5000),
        (b"null", b"null"),
    ],
)
def test_answer_is_known_however_its_id_is_written(asked: bytes, answered: bytes) -> None:
    asking = Asking()
    asking.ask("q", asked)
    assert asking.last_id == asked
    asking.reply(answered, "q")
    assert asking.keys() == {"q": ["q"]}


def test_ids_that_are_the_same_number_are_told_apart() -> None:
    asking = Asking()
    ids = []
    for key, identifier in (("a", b"1"), ("b", b"1.0"), ("c", b'"1"'), ("d", b"1e0")):
        asking.ask(key, identifier)
        ids.append((key, asking.last_id))
    assert [identifier for _, identifier in ids][::2] == [b"1", b'"1"']
    for key, identifier in reversed(ids):
        asking.reply(identifier, key)
    assert asking.keys() == {key: [key] for key in "abcd"}


def test_withdrawal_names_the_id_as_it_was_given() -> None:
    asking = Asking()
    question = asking.ask("q", b'"\\u0071"')
    said = wire.notification("notifications/cancelled", b'{"requestId":"\\u0071","reason":1.0}')
    question.on_withdrawn(wire.decode(said))
    assert asking.lines[-1] == said


@pytest.mark.parametrize("keeps_id", [True, False])
def test_progress_of_the_client_is_about_its_own_question(keeps_id: bool) -> None:
    asking = Asking()
    params = b'{"_meta":{"progressToken":%b}}'
    for number, token in enumerate((b'"\\u00e9"', b"1.50", b"1"), 1):
        asking.ask("q", b"%d" % number, keeps_id=keeps_id, params=params % token)
    for line in asking.lines:
        token = wire.member(line, "params", "_meta", "progressToken") or b""
        # As a library writes it that has read it.
        raw = json.dumps(json.loads(token), ensure_ascii=False).encode()
        said = wire.notification("notifications/progress", b'{"progressToken":%b}' % raw)
        assert asking.client.progressed(wire.decode(said))
    tokens = [wire.member(line, "params", "progressToken") for line in asking.noted]
    assert tokens == [b'"\\u00e9"', b"1.50", b"1"]
    for other in (b"99", b'"1"', b"null"):
        said = wire.notification("notifications/progress", b'{"progressToken":%b}' % other)
        assert not asking.client.progressed(wire.decode(said))
    assert len(asking.noted) == 3


def test_memory_of_what_was_withdrawn_is_bounded() -> None:
    asking = Asking()
    for number in range(2 * OPEN_LIMIT):
        asking.ask("q", b"%d" % number).on_withdrawn(None)
    # The first ones are forgotten, the last ones are not.
    for number, is_kept in ((0, True), (2 * OPEN_LIMIT - 1, False)):
        asking.ask("again", b"%d" % number)
        assert (asking.last_id == b"%d" % number) is is_kept


@pytest.mark.anyio
async def test_client_that_has_left_is_asked_nothing() -> None:
    asking = Asking()
    asking.ask("open", b"1")
    asking.client.leave()
    asking.ask("late", b"2")
    assert asking.keys() == {"open": ["refused"], "late": ["refused"]}
    assert len(asking.lines) == 1
    with pytest.raises(Gone):
        await asking.client.ask(FORM, None, asking.lines.append)
    assert len(asking.lines) == 1
    asking.client.leave()
    assert asking.keys() == {"open": ["refused"], "late": ["refused"]}


@pytest.mark.anyio
async def test_what_octave_asks_itself_and_what_a_server_asks_are_told_apart() -> None:
    asking = Asking()
    asking.ask("own", FIRST)
    found: list[wire.Message] = []

    async def ask(heard: Callable[[wire.Message], None]) -> None:
        heard(await asking.client.ask(FORM, b"{}", asking.lines.append))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(partial(ask, found.append))
        await anyio.wait_all_tasks_blocked()
        ours = asking.last_id
        asking.reply(ours, "ours")
    asking.reply(FIRST, "own")
    assert [json.loads(each.result or b"")["key"] for each in found] == ["ours"]
    assert asking.keys() == {"own": ["own"]}


@pytest.mark.parametrize("said", [b"null", b"[]", b'"x"', b"7", b"{}"])
def test_client_whose_capabilities_are_odd_has_none(said: bytes) -> None:
    asking = Asking()
    asking.client.greeted(b'{"capabilities":%b,"clientInfo":%b}' % (said, said))
    asking.ask("q", b"1")
    assert asking.keys() == {"q": ["refused"]}
    assert not asking.client.can_answer(None)
    envelope = asking.client.as_envelope
    assert envelope.capabilities == b"{}"
    assert envelope.client_info in (None, b"{}")
