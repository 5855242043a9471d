from pathlib import Path

import pytest

from octave.home import Home
from octave.packages.secrets import Secrets
from octave.packages.tokens import Tokens

URL = "https://mcp.example/mcp"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def test_a_record_is_kept_among_the_secrets_of_its_server(home: Home) -> None:
    tokens = Tokens(home, "x", URL)
    assert tokens.read() is None
    tokens.write('{"hush":1}')
    assert Tokens(home, "x", URL).read() == '{"hush":1}'
    (key,) = Secrets(home).list()
    assert key.startswith("x/oauth-")
    assert home.secrets.stat().st_mode & 0o777 == 0o600
    assert (tokens.remove(), tokens.remove(), tokens.read()) == (True, False, None)


def test_another_address_has_another_record(home: Home) -> None:
    Tokens(home, "x", URL).write("theirs")
    assert Tokens(home, "x", "https://evil.example/mcp").read() is None


def test_one_at_a_time_holds_the_lock(home: Home) -> None:
    one, other = Tokens(home, "x", URL), Tokens(home, "x", URL)
    assert one.try_lock()
    assert not one.try_lock()
    assert not other.try_lock()
    assert Tokens(home, "y", URL).try_lock()
    one.unlock()
    assert other.try_lock()
    other.unlock()


def test_nothing_of_it_is_in_a_repr(home: Home) -> None:
    tokens = Tokens(home, "x", URL)
    tokens.write("hush")
    assert "hush" not in repr(tokens)
