"""Qualified names are legal, stable and told apart."""

import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st

from octave.gateway.naming import LIMIT_CHARS, qualified, server_in

SERVERS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,39}", fullmatch=True)
ANY_NAME = st.text(st.characters(), max_size=200)
LEGAL_NAME = st.from_regex(r"[A-Za-z0-9_-]{0,22}", fullmatch=True)


def test_ordinary_name_gets_the_server_in_front_and_nothing_else() -> None:
    assert qualified("github", "create_issue") == "github__create_issue"


def test_illegal_character_becomes_underscore_and_a_digest_ends_the_name() -> None:
    digest = hashlib.sha256(b"files__read.file").hexdigest()[:8]
    assert qualified("files", "read.file") == f"files__read_file_{digest}"


def test_longest_name_that_fits_is_kept_and_one_more_character_is_cut() -> None:
    fits = "t" * (LIMIT_CHARS - len("s__"))
    assert qualified("s", fits) == f"s__{fits}"
    cut = qualified("s", fits + "t")
    assert len(cut) == LIMIT_CHARS
    assert cut.startswith("s__ttt")
    assert re.search(r"_[0-9a-f]{8}$", cut)


def test_long_names_that_differ_only_at_their_end_stay_apart() -> None:
    assert qualified("s", "t" * 100 + "a") != qualified("s", "t" * 100 + "b")


@given(SERVERS, ANY_NAME)
def test_every_name_is_legal_and_the_same_each_time(server: str, item: str) -> None:
    name = qualified(server, item)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
    assert name == qualified(server, item)


@given(SERVERS, LEGAL_NAME, SERVERS, LEGAL_NAME)
def test_unchanged_names_meet_only_when_server_and_item_are_the_same(
    server: str, item: str, other_server: str, other_item: str
) -> None:
    same = (server, item) == (other_server, other_item)
    assert (qualified(server, item) == qualified(other_server, other_item)) is same


@given(SERVERS, ANY_NAME)
def test_name_starts_with_its_server(server: str, item: str) -> None:
    assert qualified(server, item).startswith(f"{server}__")
    assert server_in(qualified(server, item)) == server
