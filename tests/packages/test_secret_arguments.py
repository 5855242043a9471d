"""Arguments that are secrets: recognised, kept in the store, and never typed."""

import json
from collections.abc import Iterator

import pytest

from octave.packages.registry import Registry, bundled_folder
from octave.packages.secret_arguments import hide
from octave.settings import Reference
from tests.packages.mcp_registry import RegistryServer, configure, package
from tests.packages.story import ECHO, World

SECRET = "hush-of-the-argument"
URL = "postgresql://u:p@h/d"


@pytest.fixture
def registry(world: World) -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        arguments = [
            {"type": "named", "name": "--calm", "format": "boolean"},
            {"type": "named", "name": "--key", "isSecret": True, "valueHint": "KEY"},
        ]
        made.add("com.example/quokka", package("pypi", "quokka-mcp", packageArguments=arguments))
        configure(world.home, company=made.url)
        world.offer("quokka-mcp", ECHO, readme="mcp-name: com.example/quokka")
        yield made


@pytest.mark.parametrize(
    ("server", "args", "found"),
    [
        ("postgres", (URL,), {"x/DATABASE_URL": URL}),
        ("postgres", ("--read-only", URL), {"x/DATABASE_URL": URL}),
        ("postgres", (URL, URL), {"x/DATABASE_URL": URL, "x/DATABASE_URL_2": URL}),
        ("postgres", (Reference("secret", "postgres/DATABASE_URL"),), {}),
        ("postgres", (), {}),
        ("context7", ("--api-key", "hush"), {"x/API_KEY": "hush"}),
        ("context7", ("--api-key", "-hush"), {"x/API_KEY": "-hush"}),
        ("context7", ("--api-key=hush",), {"x/API_KEY": "--api-key=hush"}),
        ("context7", ("--api-key",), {}),
        ("context7", ("--other", "x"), {}),
        ("filesystem", ("/tmp",), {}),
    ],
)
def test_arguments_that_are_secrets_are_recognised(
    server: str, args: tuple[str | Reference, ...], found: dict[str, str]
) -> None:
    hidden = hide("x", args, Registry(bundled_folder()).get(server).preferred())
    assert hidden.secrets == found
    shown = [found.get(word.key) if isinstance(word, Reference) else word for word in hidden.args]
    assert found == {} or shown == list(args)


def test_a_secret_that_is_typed_is_refused_and_a_reference_to_it_is_taken(
    world: World, registry: RegistryServer
) -> None:
    typed = world.octave("install", "quokka", "--arg=--calm", "--arg=--key", "--arg", SECRET)
    assert typed.told[:2] == (2, "")
    assert "`--key` is a secret, and a command line can be read by others" in typed.stderr
    assert "octave secret set quokka KEY, then octave install quokka with --arg" in typed.stderr
    assert SECRET not in typed.stderr
    assert world.octave("install", "quokka", "--dry-run", f"--arg=--key={SECRET}").code == 2

    reference = '{ env = "KEY_OF_QUOKKA" }'
    environ = {"KEY_OF_QUOKKA": SECRET}
    words = ("--arg=--key", "--arg", reference)
    done = world.octave("install", "quokka", *words, environ=environ)
    assert done.code == 0, done.stderr
    assert 'args = ["--key", {env = "KEY_OF_QUOKKA"}]' in world.manifest
    assert "an argument alone, which other users of this machine can see" in done.stderr
    told = world.octave("call", "quokka", "env", "--json", environ=environ)
    assert json.loads(told.json["content"][0]["text"])["argv"][-2:] == ["--key", SECRET]
