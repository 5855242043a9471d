"""Masking: no cut of the stream lets a value through, and everything else passes unchanged."""

import base64
import itertools
import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.errors import StartFailed
from octave.packages.launch import LaunchSpec
from octave.runtime.masking import LEARNED, MASK, SHORTEST, Mask
from tests.runtime.fleet import running

TOKEN = 'tok/en+"5é&? x'
FORMS = {
    "as it is": TOKEN.encode(),
    "JSON": json.dumps(TOKEN)[1:-1].encode(),
    "JSON in UTF-8": json.dumps(TOKEN, ensure_ascii=False)[1:-1].encode(),
    "base64": base64.b64encode(TOKEN.encode()),
    "base64 without padding": base64.b64encode(TOKEN.encode()).rstrip(b"="),
    "base64 for URLs": base64.urlsafe_b64encode(TOKEN.encode()),
    "URL-encoded": quote(TOKEN, safe="").encode(),
    "URL-encoded path": quote(TOKEN).encode(),
    "URL-encoded form": quote_plus(TOKEN).encode(),
    "URL-encoded in lower case": re.sub(
        "%..", lambda found: found[0].lower(), quote(TOKEN, safe="")
    ).encode(),
    "encodeURIComponent": quote(TOKEN, safe="!'()*").encode(),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_hidden_wherever_the_stream_is_cut(form: bytes) -> None:
    text = b"before " + form + b" after\n"
    for cut in range(len(text) + 1):
        stream = Mask([TOKEN]).stream()
        assert stream.feed(text[:cut]) + stream.feed(text[cut:]) == b"before *** after\n"


@pytest.mark.parametrize("user", ["", "a", "ab", "abc"])
def test_the_value_inside_longer_base64_is_hidden(user: str) -> None:
    header = base64.b64encode(f"{user}:{TOKEN}:x".encode())
    shown = Mask([TOKEN]).whole(b"Authorization: Basic " + header)
    assert MASK in shown
    left = shown.removeprefix(b"Authorization: Basic ").split(MASK)
    assert sum(map(len, left)) <= len(header) - len(TOKEN)


def test_each_line_of_a_value_is_hidden() -> None:
    key = "-----BEGIN KEY-----\nabcdefgh\nijklmnop\n-----END KEY-----\n"
    assert Mask([key]).whole(b"x abcdefgh y\nijklmnop z") == b"x *** y\n*** z"
    assert Mask([key]).whole(b"<" + key.encode() + b">") == b"<***>"


def test_a_file_s_value_is_hidden_without_its_last_line_break_too() -> None:
    assert Mask([" secret1\n"]).whole(b"secret1!") == b"***!"


def test_short_values_stay() -> None:
    assert Mask(["x" * (SHORTEST - 1), ""]).whole(b"xxxxxxxxxx") == b"xxxxxxxxxx"


def test_of_two_values_that_begin_alike_the_longer_is_hidden() -> None:
    stream = Mask(["secret", "secretlonger"]).stream()
    assert stream.feed(b"a secret") == b"a "
    assert stream.feed(b"longer b secret c\n") == b"*** b *** c\n"


def test_what_cannot_begin_a_value_is_not_held_back() -> None:
    stream = Mask([TOKEN]).stream()
    assert stream.feed(b"tok") == b""
    assert stream.feed(b"yo\n") == b"tokyo\n"
    assert stream.feed(b"half a line") == b"half a line"


def test_a_value_that_is_cut_off_by_the_end_is_hidden_and_a_few_bytes_are_not() -> None:
    stream = Mask(["abcdefghijkl"]).stream()
    assert (stream.feed(b"x abcdefghijk"), stream.end(), stream.end()) == (b"x ", MASK, b"")
    assert (stream.feed(b"x abc"), stream.end()) == (b"x ", b"abc")


def test_values_that_are_not_utf8_are_hidden() -> None:
    assert Mask([b"caf\xe9caf\xe9".decode(errors="surrogateescape")]).whole(
        b"<caf\xe9caf\xe9>"
    ) == (b"<***>")


def test_nothing_shows_the_values() -> None:
    assert repr(Mask([TOKEN])).startswith("Mask of ")
    assert Mask([TOKEN]).text(f"it said {TOKEN}") == "it said ***"


def test_what_is_learned_is_hidden_and_of_old_tokens_the_last_ones() -> None:
    mask = Mask([TOKEN])
    for number in range(LEARNED + 1):
        # As long as it is in use it is shown again and again.
        mask.learn(["client-secret", f"token-{number:04}"])
    said = f"{TOKEN} client-secret token-{LEARNED:04} token-0002 token-0001"
    assert mask.text(said) == "*** *** *** *** token-0001"


letters = st.text("ab\n", max_size=12)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[str], list[bytes]]:
    """Secrets, and a text full of them, of their pieces and of others, in random chunks."""
    secrets = draw(st.lists(st.text("ab", min_size=SHORTEST, max_size=14), max_size=3))
    pieces = [st.sampled_from(secrets), st.sampled_from(secrets).map(lambda s: s[: len(s) // 2])]
    text = "".join(draw(st.lists(st.one_of(letters, *(pieces if secrets else ())), max_size=12)))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=10)))
    edges = [0, *cuts, len(text)]
    return secrets, [text[a:b].encode() for a, b in itertools.pairwise(edges)]


@given(streams())
def test_no_chunking_lets_a_secret_through_or_changes_anything_else(
    found: tuple[list[str], list[bytes]],
) -> None:
    secrets, chunks = found
    text = b"".join(chunks) + b"\n"
    stream = Mask(secrets).stream()
    shown = b"".join([*(stream.feed(chunk) for chunk in chunks), stream.feed(b"\n"), stream.end()])
    assert not any(secret.encode() in shown for secret in secrets)
    # What remains is the text with some parts cut out of it, whole secrets or forms of them.
    kept = b".{6,}?".join(map(re.escape, shown.split(MASK)))
    assert re.fullmatch(kept, text, re.DOTALL)
    assert Mask(secrets).whole(text) == shown
    if not any(secret.encode() in text for secret in secrets):
        assert shown == text


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=10))
def test_text_without_the_secret_passes_unchanged(data: bytes, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    stream = Mask(["not in random bytes"]).stream()
    shown = [stream.feed(data[a:b]) for a, b in itertools.pairwise(edges)]
    assert b"".join([*shown, stream.end()]) == data


# What a server says, wherever it goes.


def telling(folder: Path, program: str) -> LaunchSpec:
    environment = {**os.environ, "SECRET": TOKEN, "PYTHONDONTWRITEBYTECODE": "1"}
    return LaunchSpec(
        "teller",
        (sys.executable, "-c", program, "in-the-arguments"),
        folder,
        lambda: environment,
        secret_variables=frozenset({"SECRET"}),
        secret_arguments=frozenset({"in-the-arguments"}),
    )


WHISPERS = """
import os, sys, json
secret = os.environb[b"SECRET"]
for byte in secret + b" " + sys.argv[1].encode() + b"\\n":
    os.write(2, bytes([byte]))
os.write(1, b"Banner " + secret + b"\\n")
request = json.loads(sys.stdin.readline())
message = f"refused {secret.decode()}"
answer = {"jsonrpc": "2.0", "id": request["id"], "error": {"code": 1, "message": message}}
os.write(1, json.dumps(answer).encode() + b"\\n")
sys.stdin.read()
os.write(2, b"cut off: " + secret[:-1])
"""


@pytest.mark.anyio
async def test_no_value_reaches_log_error_event_or_status(tmp_path: Path) -> None:
    async with running(tmp_path, telling(tmp_path, WHISPERS)) as run:
        server = run["teller"]
        with pytest.raises(StartFailed) as raised:
            await server.start()
        told = [repr(server.snapshot), repr(run.events), repr(raised.value.as_json())]
    log = (tmp_path / "teller.log").read_bytes()
    assert b" err *** ***\n" in log
    assert b" out Banner ***\n" in log
    assert b" err cut off: ***\n" in log
    assert b"refused `initialize`: refused ***\n" in log
    assert "refused ***" in told[2]
    for text in (*told, log.decode()):
        assert TOKEN[:-1] not in text
        assert "in-the-arguments" not in text


@pytest.mark.anyio
async def test_no_value_reaches_the_tail_of_a_server_that_dies(tmp_path: Path) -> None:
    program = "import os; os.write(2, os.environb[b'SECRET'][:-1]); os._exit(3)"
    async with running(tmp_path, telling(tmp_path, program)) as run:
        with pytest.raises(StartFailed) as raised:
            await run["teller"].start()
    assert raised.value.details["stderrTail"] == ["***"]
