import contextlib
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import anyio.abc
import pytest

from octave.errors import ServerNotFound, UsageError
from octave.gateway.session import SessionOverflow
from octave.runtime import wire
from octave.serve import socket as serve_socket
from octave.serve.socket import HELLO_LIMIT_BYTES, Door, Send, Wish, bind, peer_uid, read_hello

pytestmark = pytest.mark.anyio

PROXY = b'{"octave":{"version":1,"proxy":{}}}\n'
WELCOME = b'{"octave":{"version":1,"runtime":'
BOUND_S = 5.0


class Parrot:
    """Says back what it is told; `flood` makes it say more than anybody reads."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.spoke = anyio.Event()
        self.ended = anyio.Event()
        self.heard: list[bytes] = []

    async def run(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        task_status.started()
        await self.ended.wait()

    def receive(self, line: bytes | wire.Oversize) -> None:
        assert isinstance(line, bytes)
        self.heard.append(line)
        if line == b"raise":
            raise ValueError(line)
        with contextlib.suppress(SessionOverflow):
            self._send(b"x" * 2**20 if line == b"flood" else line)
        self.spoke.set()

    def finish(self) -> None:
        self._send(b"bye")
        self.close()

    def close(self) -> None:
        self.ended.set()


class House:
    """A door with a parrot behind it for everybody."""

    def __init__(self) -> None:
        self.wishes: list[Wish | None] = []
        self.parrots: list[Parrot] = []

    def open(self, wish: Wish | None, send: Send) -> Parrot:
        if wish is not None and "nobody" in wish.servers:
            raise ServerNotFound("no server `nobody`", hint="octave list")
        self.wishes.append(wish)
        self.parrots.append(Parrot(send))
        return self.parrots[-1]


@pytest.fixture
def house() -> House:
    return House()


Connect = Callable[[], Awaitable[anyio.abc.SocketStream]]


@pytest.fixture
async def connect(house: House, tmp_path: Path) -> AsyncIterator[Connect]:
    path = tmp_path / "s"
    door = Door(house.open, 2**20)
    streams: list[anyio.abc.SocketStream] = []

    async def connect() -> anyio.abc.SocketStream:
        streams.append(await anyio.connect_unix(path))
        return streams[-1]

    async with anyio.create_task_group() as tasks:
        await tasks.start(door.run, bind(path))
        yield connect
        for stream in streams:
            await stream.aclose()
        tasks.cancel_scope.cancel()


async def receive_until(stream: anyio.abc.SocketStream, end: bytes) -> bytes:
    data = b""
    with anyio.fail_after(BOUND_S):
        while not data.endswith(end):
            data += await stream.receive()
    return data


async def receive_all(stream: anyio.abc.SocketStream) -> bytes:
    data = b""
    with anyio.fail_after(BOUND_S):
        try:
            while True:
                data += await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            return data


async def test_what_follows_the_first_line_at_once_is_not_lost(
    connect: Connect, house: House
) -> None:
    stream = await connect()
    await stream.send(PROXY + b"one\ntwo\r\nthr")
    data = await receive_until(stream, b"two\n")
    assert data.startswith(WELCOME)
    assert data.splitlines()[1:] == [b"one", b"two"]
    await stream.send(b"ee\n")
    await receive_until(stream, b"three\n")


async def test_a_first_line_in_pieces_is_understood(connect: Connect, house: House) -> None:
    stream = await connect()
    for byte in PROXY:
        await stream.send(bytes([byte]))
    await receive_until(stream, b"\n")
    assert house.wishes == [Wish((), None)]


async def test_a_refusal_is_one_line_and_the_end(connect: Connect) -> None:
    stream = await connect()
    await stream.send(b'{"octave":{"version":1,"proxy":{"servers":["nobody"]}}}\nmore\n')
    assert await receive_all(stream) == (
        b'{"octave":{"error":{"code":"server_not_found",'
        b'"message":"no server `nobody`","hint":"octave list"}}}\n'
    )


async def test_a_first_line_that_never_ends_is_cut(connect: Connect, house: House) -> None:
    stream = await connect()
    await stream.send(b"x" * (HELLO_LIMIT_BYTES + 1))
    assert await receive_all(stream) == b""
    assert not house.parrots


async def test_who_says_nothing_is_sent_away(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_socket, "HELLO_TIMEOUT_S", 0.05)
    assert await receive_all(await connect()) == b""


async def test_the_end_of_input_lets_the_conversation_finish(connect: Connect) -> None:
    stream = await connect()
    await stream.send(PROXY + b"last\n")
    await stream.send_eof()
    assert (await receive_all(stream)).splitlines()[1:] == [b"last", b"bye"]


async def test_a_peer_that_leaves_closes_its_conversation(connect: Connect, house: House) -> None:
    stream = await connect()
    await stream.send(PROXY)
    await receive_until(stream, b"\n")
    await stream.aclose()
    with anyio.fail_after(BOUND_S):
        await house.parrots[0].ended.wait()


async def test_a_peer_that_is_behind_is_read_no_more_until_it_reads(
    connect: Connect, house: House
) -> None:
    stream = await connect()
    await stream.send(PROXY)
    await receive_until(stream, b"\n")
    (parrot,) = house.parrots
    await stream.send(b"flood\n" * 4)
    await parrot.spoke.wait()
    await stream.send(b"after\n")
    assert b"after" not in parrot.heard
    data = await receive_until(stream, b"after\n")
    assert len(data) == 4 * (2**20 + 1) + len(b"after\n")


async def test_a_peer_that_never_reads_is_cut(
    connect: Connect, house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve_socket, "CUT_AFTER_BYTES", 8 * 2**20)
    stream = await connect()
    await stream.send(PROXY)
    await receive_until(stream, b"\n")
    await stream.send(b"flood\n" * 64)
    with anyio.fail_after(BOUND_S):
        await house.parrots[0].ended.wait()
    assert len(await receive_all(stream)) < 9 * 2**20


async def test_a_bug_in_one_conversation_leaves_the_others_alone(connect: Connect) -> None:
    first, second = await connect(), await connect()
    await first.send(PROXY + b"raise\n")
    await second.send(PROXY + b"fine\n")
    assert (await receive_until(second, b"fine\n")).startswith(WELCOME)
    await receive_all(first)


async def test_the_socket_is_private_and_replaces_a_stale_one(tmp_path: Path) -> None:
    path = tmp_path / "s"
    bind(path).close()
    mask = os.umask(0)
    try:
        listener = bind(path)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    listener.close()


def test_the_user_at_the_other_end_is_known() -> None:
    one, other = socket.socketpair()
    with one, other:
        assert peer_uid(one) == os.getuid()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"GET / HTTP/1.1",
        b"[]",
        b'{"octave":{"version":2,"control":{}}}',
        b'{"octave":{"version":1}}',
        b'{"octave":{"version":1,"control":{},"proxy":{}}}',
        b'{"octave":{"version":1,"proxy":{"servers":"x"}}}',
        b'{"jsonrpc":"2.0","id":1,"method":"initialize"}',
    ],
)
def test_other_first_lines_are_refused(line: bytes) -> None:
    with pytest.raises(UsageError):
        read_hello(line)


def test_first_lines_of_later_versions_may_say_more() -> None:
    line = b'{"octave":{"version":1,"proxy":{"servers":["a"],"profile":"p","clientPid":1,"x":2}}}'
    assert read_hello(line) == Wish(("a",), "p")
    assert read_hello(b'{"octave":{"version":1,"control":{"x":1},"y":2}}') is None
