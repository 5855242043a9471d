"""What looks like a secret. Tokens here are made up, in the forms that the issuers use."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.clients.looks import is_secret_name, why_secret, why_value

_ALPHANUMERIC = string.ascii_letters + string.digits


def _runs(size: int, letters: str = _ALPHANUMERIC) -> st.SearchStrategy[str]:
    return st.text(letters, min_size=size, max_size=size + 8)


tokens = st.one_of(
    st.tuples(st.sampled_from(["ghp_", "gho_", "ghs_", "github_pat_"]), _runs(30)).map("".join),
    st.tuples(st.just("glpat-"), _runs(20)).map("".join),
    st.tuples(st.sampled_from(["xoxb-", "xoxp-", "xapp-"]), _runs(20)).map("".join),
    st.tuples(st.sampled_from(["sk-", "sk-ant-", "sk_live_"]), _runs(24)).map("".join),
    st.tuples(st.just("AKIA"), _runs(16, string.ascii_uppercase)).map("".join),
    st.tuples(st.just("AIza"), _runs(35)).map("".join),
    st.tuples(st.sampled_from(["Bearer ", "bearer ", "Basic "]), _runs(12)).map("".join),
    st.tuples(_runs(12), _runs(12)).map(lambda p: f"eyJ{p[0]}.eyJ{p[1]}.x"),
    st.tuples(_runs(3), _runs(6)).map(lambda p: f"postgresql://{p[0]}:{p[1]}@db.local/x"),
    st.text("0123456789abcdef", min_size=32, max_size=64),
    st.uuids().map(str),
)
names = st.one_of(st.text(max_size=12), st.sampled_from(["", "MODE", "--path", "LANG", "X-Trace"]))


@given(names, tokens)
def test_a_token_is_seen_whatever_it_is_called(name, token):
    assert why_secret(name, token) is not None
    assert why_secret(name, token, said=False) is not None
    assert why_secret("", f"--x={token}") is not None


@given(names, st.text(max_size=40), st.sampled_from([None, True, False]))
def test_any_text_gets_an_answer_that_does_not_quote_it(name, value, said):
    reason = why_secret(name, value, said=said)
    assert reason is None or len(value) < 4 or value not in reason
    if value and said:
        assert reason == "the registry calls it a secret"
    if not value:
        assert reason is None
    if why_value(value) is not None:
        assert reason is not None


@given(st.sampled_from(["API_KEY", "GITHUB_TOKEN", "--password", "Authorization", "X-Api-Key"]))
def test_names_of_secrets_make_plain_values_secret_but_no_switches(name):
    assert is_secret_name(name)
    assert why_secret(name, "hush") is not None
    assert why_secret(name, "true") is None
    assert why_secret(name, "hush", said=False) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("", "@modelcontextprotocol/server-filesystem"),
        ("", "mcp-server-postgres-for-everybody-2026"),
        ("", "/home/somebody/Documents/projects/octave-2026/notes"),
        ("", "https://mcp.example.com/v1/mcp?mode=full&limit=20"),
        ("", "postgresql://localhost:5432/everything"),
        ("", "--local-timezone=Europe/Berlin"),
        ("TOKEN_FILE", "/run/secrets/token"),
        ("MAX_TOKEN_LIMIT", "128000"),
        ("MODEL", "claude-opus-4-20260101-preview-long-name-of-a-model"),
        ("LOG_LEVEL", "debug"),
        ("Content-Type", "application/json"),
        ("", "ThisIsAVeryLongNameOfSomethingInCamelCase"),
    ],
)
def test_ordinary_values_stay_readable(name, value):
    assert why_secret(name, value) is None


@pytest.mark.parametrize(
    "value",
    [
        "https://mcp.example.com/mcp?apiKey=q1w2e3r4",
        "https://mcp.example.com/mcp?x=1&access_token=q1w2e3r4",
        "GITHUB_TOKEN=hush-hush",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nabc",
        "Kj8sL2mQ9xZ4vB7nT1wR5yU3pA6dF0gH",
    ],
)
def test_secrets_inside_of_other_texts_are_seen(value):
    assert why_value(value) is not None
