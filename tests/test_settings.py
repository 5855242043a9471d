import pytest
from hypothesis import given
from hypothesis import strategies as st

from octave.settings import (
    Reference,
    Settings,
    WrongValue,
    parse_duration,
    parse_size,
    read_settings,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30.0),
        ("5m", 300.0),
        ("1h", 3600.0),
        ("7d", 604800.0),
        ("500ms", 0.5),
        ("1.5h", 5400.0),
        ("2 m", 120.0),
        ("0s", 0.0),
        ("never", None),
    ],
)
def test_a_duration_is_read_into_seconds(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "-1s", "5 minutes", "1e3s", "٣s", "9" * 400 + "s", "5m\n", "Never"]
)
def test_what_is_no_duration_is_refused_with_examples(text):
    with pytest.raises(ValueError, match='is not a duration such as "30s"'):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("100MB", 100_000_000),
        ("16MiB", 16_777_216),
        ("512kb", 512_000),
        ("1KiB", 1024),
        ("1.5GB", 1_500_000_000),
        ("2 GiB", 2_147_483_648),
        ("7B", 7),
    ],
)
def test_a_size_is_read_into_bytes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "100", "0MB", "MB", "-1MB", "1TB", "0.1B", "1MB "])
def test_what_is_no_size_is_refused_with_examples(text):
    with pytest.raises(ValueError, match='is not a size such as "512KB"'):
        parse_size(text)


@given(st.text())
def test_durations_and_sizes_raise_nothing_but_value_errors(text):
    for parse in (parse_duration, parse_size):
        try:
            parse(text)
        except ValueError as error:
            assert text in str(error)


def test_an_empty_table_gives_the_documented_defaults():
    assert read_settings({}) == Settings(
        host="127.0.0.1",
        port=None,
        idle_timeout_s=300.0,
        runtime_idle_s=600.0,
        health_interval_s=30.0,
        start_timeout_s=30.0,
        call_timeout_s=300.0,
        call_timeout_max_s=3600.0,
        tool_cache_s=60.0,
        log_rotate_bytes=100_000_000,
        log_keep=5,
        max_message_bytes=16_777_216,
        definitions="warn",
        token=None,
        allowed_hosts=(),
    )


def test_every_key_is_read_into_its_unit():
    settings = read_settings(
        {
            "host": "0.0.0.0",
            "port": 0,
            "idle_timeout": "never",
            "runtime_idle": "1m",
            "health_interval": "2s",
            "start_timeout": "3s",
            "call_timeout": "4s",
            "call_timeout_max": "5s",
            "tool_cache": "6s",
            "log_rotate": "1MB",
            "log_keep": 0,
            "max_message": "1MiB",
            "definitions": "block",
            "token": {"file": "token"},
            "allowed_hosts": ["octave:3737"],
        }
    )
    assert settings == Settings(
        "0.0.0.0",
        0,
        None,
        60.0,
        2.0,
        3.0,
        4.0,
        5.0,
        6.0,
        10**6,
        0,
        2**20,
        "block",
        Reference("file", "token"),
        ("octave:3737",),
    )


@pytest.mark.parametrize(
    ("key", "found", "text", "path"),
    [
        ("port", "3737", "{} must be an integer, not a string", ("port",)),
        ("port", True, "{} must be an integer, not a boolean", ("port",)),
        ("port", 65536, "{} must be between 0 and 65535", ("port",)),
        ("host", "", "{} must not be empty or contain control characters", ("host",)),
        ("host", 1.5, "{} must be a string, not a float", ("host",)),
        ("idle_timeout", 300, '{} must be a duration such as "5m", not an integer', None),
        ("call_timeout", "never", '{} must be longer than nothing, and not "never"', None),
        ("start_timeout", "0s", '{} must be longer than nothing, and not "never"', None),
        ("log_rotate", 100, '{} must be a size such as "100MB", not an integer', None),
        ("definitions", "deny", '{} must be one of warn, block, allow, not "deny"', None),
        ("definitions", [], "{} must be one of warn, block, allow, not an array", None),
        ("allowed_hosts", "a", "{} must be an array, not a string", None),
        ("allowed_hosts", ["a", 1], "{} must be a string, not an integer", ("allowed_hosts", 1)),
        ("token", 5, '{} must be a string or { secret = "..." }, not an integer', None),
        ("token", {"env": "A", "file": "b"}, "{} must have exactly one of env, secret, file", None),
        ("token", {}, "{} must have exactly one of env, secret, file", None),
        ("token", {"secret": "A"}, "{} must have the form SERVER/VARIABLE", ("token", "secret")),
        ("token", {"secrt": "A"}, "unknown key {}; did you mean `secret`?", ("token", "secrt")),
        ("prot", 1, "unknown key {}; did you mean `port`?", None),
    ],
)
def test_a_wrong_value_says_what_was_expected_and_where(key, found, text, path):
    with pytest.raises(WrongValue) as caught:
        read_settings({key: found})
    assert (caught.value.text, caught.value.path) == (text, path or (key,))


def test_a_key_like_no_other_lists_the_known_ones():
    with pytest.raises(WrongValue, match=r"unknown key \{\}; known: host, port, idle_timeout"):
        read_settings({"zzz": 1})


def test_a_table_that_is_none_is_refused():
    with pytest.raises(WrongValue, match="must be a table, not an array"):
        read_settings([])


def test_the_value_of_a_wrong_string_is_not_told_to_be_a_secret():
    with pytest.raises(WrongValue) as caught:
        read_settings({"token": "hush\0"})
    assert "hush" not in str(caught.value)


def test_a_reference_shows_itself_as_it_is_written():
    assert str(Reference("env", "TOKEN")) == '{ env = "TOKEN" }'
