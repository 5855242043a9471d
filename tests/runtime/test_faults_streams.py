"""What servers write that is no message, or too much of it: rows 18 to 27 of the fault table."""

import json
import re
import time
from pathlib import Path

import anyio
import anyio.abc
import httpx
import pytest
from anyio.streams.buffered import BufferedByteReceiveStream

from octave.errors import OctaveError
from octave.packages.launch import Policy
from octave.runtime import wire
from octave.runtime.incoming import NOISE_BYTES
from octave.runtime.log_reader import Entry, read
from octave.runtime.logs import LINE_LIMIT_BYTES, NOISE_LINES, NOISE_WINDOW_S
from octave.serve.guard import BODY_LIMIT_BYTES
from tests.runtime.fleet import Run, call, launch, running
from tests.serve.running import home_workspace, manifest_text
from tests.serve.running import running as serving
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.anyio

FLOOD_S = 20.0
"""For what takes a second or two where nothing else happens."""
QUICK_S = 3.0
"""For a call to a neighbour on a busy machine; how quick it is in peace, tests/bench tells."""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path


def entries(run: Run, name: str, stream: str) -> list[bytes]:
    found: list[Entry] = list(read(run.state / f"{name}.log"))
    return [entry.line for entry in found if entry.stream == stream]


async def quick_echo(run: Run, name: str = "good") -> None:
    with anyio.fail_after(QUICK_S):
        assert await call(run[name], "echo", text="x") == "x"


def without_ready(run: Run, name: str) -> list[str]:
    return [kind for kind in run.kinds(name) if kind not in {"starting", "ready"}]


# Stdout.


async def test_row_18_banners_and_json_that_is_no_message_are_counted_and_kept_up_to_a_rate(
    state: Path,
) -> None:
    began_s = time.monotonic()
    async with running(state, launch(state, "banner_on_stdout")) as run:
        banner = run["banner-on-stdout"]
        for _ in range(40):
            assert await call(banner, "echo", text="x") == "x"
        # Two lines at the start that are not empty, six with each call.
        assert banner.snapshot["noise"] == 2 + 40 * 6
        assert without_ready(run, "banner-on-stdout") == []
    kept = entries(run, "banner-on-stdout", "out")
    assert "Banner MCP server" in kept[0].decode()
    assert kept[2:8] == [
        *(b"DEBUG: handling call", b"{not json}", b"[1,2,3]", b'"str"'),
        *(b"42", b"null"),
    ]
    windows = 1 + (time.monotonic() - began_s) // NOISE_WINDOW_S
    assert NOISE_LINES <= len(kept) <= NOISE_LINES * windows


@pytest.mark.parametrize("kind", ["objects", "scalars", "lines", "empty lines", "broken answers"])
async def test_row_18_a_flood_of_it_delays_neither_the_server_s_own_calls_nor_its_neighbour_s(
    state: Path, kind: str
) -> None:
    async with running(state, launch(state, "worst", kind), launch(state, "good")) as run:
        await quick_echo(run)
        with anyio.fail_after(FLOOD_S):
            assert await call(run["worst"], "go") == "going"
            for _ in range(2):
                await quick_echo(run)
                assert await call(run["worst"], "echo", text="x") == "x"
        noise = run["worst"].snapshot["noise"]
        assert noise == 0 if kind == "empty lines" else noise > 100
        assert without_ready(run, "worst") == []


async def test_row_18_of_one_line_of_noise_so_much_is_kept_as_shows_what_it_is(state: Path) -> None:
    policy = Policy(max_message_bytes=2**22)
    async with running(state, launch(state, "worst", "1 MB of noise", policy=policy)) as run:
        assert await call(run["worst"], "go") == "going"
        assert await call(run["worst"], "echo", text="x") == "x"
        assert run["worst"].snapshot["noise"] == 1
    assert [len(line) for line in entries(run, "worst", "out")] == [NOISE_BYTES]


async def test_row_19_five_megabytes_of_garbage_harm_nobody(state: Path) -> None:
    async with running(state, launch(state, "garbage", "5"), launch(state, "good")) as run:
        await quick_echo(run)
        async with anyio.create_task_group() as tasks:
            done = anyio.Event()

            async def garbage() -> None:
                with anyio.fail_after(FLOOD_S):
                    assert await call(run["garbage"], "echo", text="x") == "x"
                done.set()

            tasks.start_soon(garbage)
            while not done.is_set():
                await quick_echo(run)
        # Each block of 64 KiB has 256 lines; a call adds one.
        assert run["garbage"].snapshot["noise"] >= 5 * 16 * 256
        assert without_ready(run, "garbage") == []
    kept = entries(run, "garbage", "out")
    # Half of the noise would be a megabyte.
    assert sum(map(len, kept)) < 2 * NOISE_LINES * 1024


@pytest.mark.parametrize("size", [20, pytest.param(100, marks=pytest.mark.campaign)])
async def test_row_20_a_message_beyond_the_limit_fails_its_call_and_the_server_lives(
    state: Path, size: int
) -> None:
    async with running(state, launch(state, "worst", f"{size} MB answers")) as run:
        assert await call(run["worst"], "echo", text="x") == "x"
        pid = run["worst"].pid
        # Long before the call's time is up, which is minutes.
        with anyio.fail_after(FLOOD_S):
            with pytest.raises(OctaveError) as failed:
                await call(run["worst"], "go")
            assert await call(run["worst"], "echo", text="x") == "x"
        sent, limit = re.findall(r"[0-9,]{9,}", failed.value.message)
        assert "too large" in failed.value.message
        assert int(sent.replace(",", "")) > size * 10**6
        assert limit == f"{2**24:,}"
        assert "max_message" in (failed.value.hint or "")
        assert run["worst"].pid == pid
        assert run["worst"].snapshot["noise"] == 1


# Requests of a client.


async def test_row_22_a_request_over_the_cap_is_refused_and_below_it_nothing_is_cut(
    state: Path,
) -> None:
    workspace = home_workspace(state / "h", manifest_text("good"))
    async with serving(workspace) as told:
        token = workspace.token.read_text(encoding="utf-8").strip()
        headers = {"Authorization": f"Bearer {token}"}
        async with httpx.AsyncClient(base_url=str(told.facts["url"]), headers=headers) as client:
            for size in (BODY_LIMIT_BYTES - 1000, 20 * 10**6):
                body = {"toolName": "echo", "arguments": {"text": "x" * size}}
                response = await client.post("/mcp/call", json=body, timeout=FLOOD_S)
                if size > BODY_LIMIT_BYTES:
                    assert response.status_code == 413
                    assert response.json()["error"]["code"] == "body_too_large"
                else:
                    assert response.json()["content"][0]["text"] == "x" * size


async def test_row_22_a_line_over_the_cap_is_refused_and_the_session_goes_on(state: Path) -> None:
    workspace = home_workspace(state / "h", manifest_text("good"))
    hello = b'{"octave":{"version":1,"proxy":{"servers":["good"]}}}\n'
    params = b'{"name":"echo","arguments":{"text":"%b"}}'
    async with serving(workspace) as told:
        stream = BufferedByteReceiveStream(await anyio.connect_unix(told.facts["socket"]))
        connection = stream.receive_stream
        assert isinstance(connection, anyio.abc.SocketStream)

        async def asked(line: bytes) -> bytes:
            await connection.send(line + b"\n")
            with anyio.fail_after(FLOOD_S):
                return await stream.receive_until(b"\n", 2**25)

        async with connection:
            await asked(hello.strip())
            huge = await asked(wire.request(1, "tools/call", params % (b"x" * 20 * 10**6)))
            legal = await asked(wire.request(2, "tools/call", params % (b"x" * 10**7)))
    assert json.loads(huge)["id"] == 1
    assert "too large" in json.loads(huge)["error"]["message"]
    assert json.loads(legal)["id"] == 2
    assert json.loads(legal)["result"]["content"][0]["text"] == "x" * 10**7


# Stderr.


@pytest.mark.timeout(60)
async def test_row_23_two_hundred_thousand_lines_on_stderr_are_all_kept_while_calls_go_on(
    state: Path,
) -> None:
    count = 200_000
    async with running(state, launch(state, "flood_stderr", "0"), launch(state, "good")) as run:
        await quick_echo(run)
        async with anyio.create_task_group() as tasks:
            done = anyio.Event()

            async def flood() -> None:
                with anyio.fail_after(FLOOD_S):
                    assert await call(run["flood-stderr"], "flood", n=count) == f"wrote {count}"
                    assert await call(run["flood-stderr"], "echo", text="x") == "x"
                done.set()

            tasks.start_soon(flood)
            while not done.is_set():
                await quick_echo(run)
        assert run["flood-stderr"].snapshot["dropped"] == 0
    lines = entries(run, "flood-stderr", "err")
    assert [int(line.split()[1]) for line in lines] == list(range(count))


async def test_row_25_bytes_on_stderr_are_kept_as_they_came(state: Path) -> None:
    async with running(state, launch(state, "binary_stderr")) as run:
        assert await call(run["binary-stderr"], "echo", text="x") == "x"
    kept = b"\n".join(entries(run, "binary-stderr", "err"))
    assert b"\xff\xfe\x00binary\x80\x81\n" in kept
    assert b"\xed\xa0\x80 surrogate\n\xc3\xa9 copyright split over two writes\n" in kept
    assert b"\x1b]0;pwned title\x07\x1b[2J\x1b[1;31mred\x1b[0m\n" in kept
    assert bytes(range(256)) in kept


async def test_row_26_twenty_megabytes_without_a_line_s_end_are_split_and_the_last_part_is_kept(
    state: Path,
) -> None:
    spec = launch(state, "no_newline_stderr", "20")
    async with running(state, spec, launch(state, "good")) as run:
        with anyio.fail_after(FLOOD_S):
            assert await call(run["no-newline-stderr"], "echo", text="x") == "x"
        await quick_echo(run)
    lines = entries(run, "no-newline-stderr", "err")
    assert {len(line) for line in lines[:-1]} == {LINE_LIMIT_BYTES}
    assert lines[-1] == b"LAST-PARTIAL"
    assert sum(map(len, lines)) == 20 * 16 * 65536 + len("LAST-PARTIAL")


async def test_row_27_while_the_disk_of_the_logs_is_full_calls_go_on_and_lost_lines_are_told(
    state: Path,
) -> None:
    disk = state / "logs"
    with small_disk(disk, "1m"):
        async with running(disk, launch(disk, "flood_stderr", "0")) as run:
            server = run["flood-stderr"]
            assert await call(server, "echo", text="x") == "x"
            filler = fill(disk)
            with anyio.fail_after(FLOOD_S):
                assert await call(server, "flood", n=20_000) == "wrote 20000"
                assert await call(server, "echo", text="y") == "y"
            dropped = server.snapshot["dropped"]
            assert 15_000 < dropped <= 20_002
            assert without_ready(run, "flood-stderr") == []
            filler.unlink()
            assert await call(server, "flood", n=3) == "wrote 3"
            await run.supervisor.stop(["flood-stderr"])
            assert server.snapshot["dropped"] == dropped
        lines = list(read(disk / "flood-stderr.log"))
    told = [entry.line for entry in lines if b"could not be written" in entry.line]
    assert told == [b"%d lines could not be written" % dropped]
    whole = [entry.line for entry in lines if re.fullmatch(rb"call \d{9} y{80}", entry.line)]
    assert [int(line.split()[1]) for line in whole[-3:]] == [0, 1, 2]
    # The runtime's own lines may have waited for the first write, too.
    own = [entry.line for entry in lines if entry.stream == "octave"]
    events_lost = sum(event not in own for event in (b"starting", b"ready"))
    assert len(whole) == 20_000 - (dropped - events_lost) + 3


async def test_a_text_of_ten_megabytes_with_a_lone_surrogate_passes_as_it_came(
    state: Path,
) -> None:
    async with running(state, launch(state, "worst", "10 MB of surrogates")) as run:
        with anyio.fail_after(FLOOD_S):
            text = await call(run["worst"], "go")
    assert text.startswith("\ud800x")
    assert len(json.dumps(text)) > 9 * 10**6
