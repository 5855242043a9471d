"""`info` and `install` of what configured registries have: whose word counts and whose does not."""

import hashlib
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cli.terminal import on_terminal
from tests.packages.mcp_registry import RegistryServer, configure, item, package, server
from tests.packages.story import GOOD, World, ended
from tests.packages.web_host import Answer


@pytest.fixture
def registry() -> Iterator[RegistryServer]:
    with RegistryServer() as made:
        yield made


CLAIM = "An MCP server.\n<!-- mcp-name: com.example/quokka -->"


def quokka(registry: RegistryServer, **official: Any) -> None:
    arguments = [{"type": "named", "name": "--mode", "value": "calm"}]
    one = package("pypi", "quokka-mcp", packageArguments=arguments)
    registry.add("com.example/quokka", one, **official)


def test_info_and_install_find_what_a_configured_registry_has(
    world: World, registry: RegistryServer
) -> None:
    quokka(registry)
    world.offer("quokka-mcp", GOOD, readme=CLAIM)
    configure(world.home, company=registry.url)

    told = world.octave("info", "quokka")
    assert told.code == 0
    assert "registry: company, as com.example/quokka\n" in told.stdout
    assert "install it with `octave install com.example/quokka`" in told.stdout
    done = world.octave("install", "quokka", "--json")
    assert done.code == 0, done.stderr
    assert done.json["results"][0]["name"] == "quokka"
    assert world.record("quokka")["args"] == ["--mode", "calm"]
    assert 'package = "pypi:quokka-mcp"' in world.manifest
    assert 'registry_name = "com.example/quokka"' in world.manifest
    assert 'registry-name = "com.example/quokka"' in world.lockfile
    assert registry.url not in world.lockfile
    again = world.octave("info", "quokka", "--json").json
    assert (again["registryName"], again["installed"]["version"]) == ("com.example/quokka", "1.0")


def test_an_address_that_only_a_registry_names_is_agreed_to(
    world: World, registry: RegistryServer
) -> None:
    url = "https://quokka.example/mcp"
    registry.items.append(
        item(server("com.example/quokka", remotes=[{"type": "streamable-http", "url": url}]))
    )
    configure(world.home, company=registry.url)
    words = ("quokka", "--remote", "--no-start")
    asked = ended(world.run([sys.executable, "-m", "octave", "install", *words]))
    assert (asked.code, "`octave install" not in asked.stderr) == (2, True)
    assert "hint: octave install com.example/quokka --remote -y" in asked.stderr
    assert "servers" not in world.manifest
    question = [("Connect `quokka`? [y/N]: ", "")]
    code, shown = on_terminal(world.environ, world.cwd, question, "install", *words)
    assert (code, f"com.example/quokka: {url}, named by the registry `company`" in shown) == (
        7,
        True,
    )
    assert world.octave("install", *words).code == 0


def test_a_sha256_that_an_entry_tells_must_be_that_of_a_file(
    world: World, registry: RegistryServer
) -> None:
    world.offer("quokka-mcp", GOOD, readme=CLAIM)
    configure(world.home, company=registry.url)
    registry.add("com.example/quokka", package("pypi", "quokka-mcp", fileSha256="0" * 64))
    done = world.octave("install", "quokka", "--json")
    assert (done.code, done.error["code"]) == (7, "integrity_failed")
    assert world.installed() == []

    registry.items.clear()
    (wheel,) = world.index.files.values()
    good = hashlib.sha256(wheel).hexdigest()
    registry.add("com.example/quokka", package("pypi", "quokka-mcp", fileSha256=good))
    world.octave("registry", "update")
    done = world.octave("install", "quokka")
    assert done.code == 0, done.stderr
    assert "is not checked" not in done.stderr


def test_what_is_locked_needs_no_registry(world: World, registry: RegistryServer) -> None:
    quokka(registry)
    world.offer("quokka-mcp", GOOD, readme=CLAIM)
    configure(world.home, company=registry.url)
    assert world.octave("install", "com.example/quokka", "--no-start").code == 0
    registry.close()
    registry.told()

    assert world.octave("install").code == 0
    assert world.octave("install", "--locked").code == 0
    assert world.octave("lock", "--check").code == 0
    assert "`com.example/quokka`" not in world.octave("info", "quokka").stderr


@pytest.mark.parametrize(
    "readme",
    [
        "",
        "mcp-name: com.example/quokka-two",
        "mcp-name: com.example/quokka/x",
        "mcp-name: com.example/quokka.evil",
        "mcp-name: com.example/other",
        "com.example/quokka",
    ],
)
def test_a_package_that_does_not_say_so_is_not_what_the_registry_says(
    world: World, registry: RegistryServer, readme: str
) -> None:
    quokka(registry)
    world.offer("quokka-mcp", GOOD, readme=readme)
    configure(world.home, company=registry.url)
    before = world.manifest

    assert world.octave("install", "quokka", "-q").told == (
        7,
        "",
        "error: `pypi:quokka-mcp` 1.0 does not say that it is `com.example/quokka`, as a registry "
        "has it\n"
        "hint: its author may not know of that entry; if you trust the package itself: `octave "
        "install pypi:quokka-mcp`\n",
    )
    assert (world.installed(), world.manifest) == ([], before)


def test_what_lies_here_already_must_say_so_too(world: World, registry: RegistryServer) -> None:
    quokka(registry)
    world.offer("quokka-mcp", GOOD)
    configure(world.home, company=registry.url)
    assert world.octave("install", "pypi:quokka-mcp", "--as", "quokka", "--no-start").code == 0
    (world.home / "octave.lock").unlink()
    assert world.octave("install", "quokka").code == 7


def test_resolved_anew_it_is_still_what_its_registry_says(
    world: World, registry: RegistryServer
) -> None:
    quokka(registry)
    world.offer("quokka-mcp", GOOD, readme=CLAIM)
    configure(world.home, company=registry.url)
    assert world.octave("install", "quokka", "--no-start").code == 0
    (world.home / "octave.lock").unlink()
    assert world.octave("lock").code == 0
    assert '"--mode"' in world.lockfile
    world.offer("quokka-mcp", GOOD, "2.0", readme="taken over")
    (world.home / "octave.lock").unlink()
    done = world.octave("install", "--no-start")
    assert done.code == 7
    assert "`pypi:quokka-mcp` 2.0 does not say that it is `com.example/quokka`" in done.stderr


def test_a_companys_own_package_is_taken_from_nowhere_else(
    world: World, registry: RegistryServer
) -> None:
    for name, url in (("ours", "http://127.0.0.1:1/simple"), ("public", "https://elsewhere.test")):
        one = package("pypi", "quokka-mcp", registryBaseUrl=url)
        registry.add(f"com.example/{name}", one)
    world.offer(
        "quokka-mcp", GOOD, readme="mcp-name: com.example/ours mcp-name: com.example/public"
    )
    configure(world.home, company=registry.url)
    public = {"UV_DEFAULT_INDEX": f"http://localhost:{world.index.url.rpartition(':')[2]}"}

    done = world.octave("install", "ours", "-q", environ=public)
    assert done.told == (
        1,
        "",
        "error: `pypi:quokka-mcp` lies at `127.0.0.1`, but would be looked for at `localhost`: "
        "there anybody could have taken its name\n"
        "hint: set uv or pip to http://127.0.0.1:1/simple, then try again\n",
    )
    assert world.octave("install", "ours", "--no-start").code == 0
    assert world.octave("install", "public", "--no-start", environ=public).code == 0


def test_deprecated_is_noted_and_deleted_is_refused(world: World, registry: RegistryServer) -> None:
    quokka(registry, status="deprecated", statusMessage="use another")
    one = package("pypi", "gone-mcp")
    registry.add("com.example/gone", one, status="deleted", statusMessage="malware")
    world.offer("quokka-mcp", GOOD, readme=CLAIM)
    configure(world.home, company=registry.url)

    done = world.octave("install", "quokka", "--no-start")
    assert done.code == 0
    assert "note: `com.example/quokka` is deprecated by its publisher: use another\n" in done.stderr
    assert world.octave("install", "com.example/gone").told == (
        4,
        "",
        "asking `company`\n"
        "error: `com.example/gone` was deleted from the registry `company`: malware\n"
        "hint: octave search gone\n",
    )
    assert "deleted from its registry: malware" in world.octave("info", "com.example/gone").stdout


def test_several_of_one_name_are_listed_and_none_is_installed(
    world: World, registry: RegistryServer
) -> None:
    for owner in ("com.a", "com.b"):
        registry.add(f"{owner}/quokka", package("pypi", "quokka-mcp"))
    configure(world.home, company=registry.url)
    for verb, step in (("install", "asking `company`\n"), ("info", "")):
        assert world.octave(verb, "quokka").told == (
            4,
            "",
            f"{step}error: `quokka` could be `com.a/quokka` or `com.b/quokka`\n"
            "hint: give the full name, such as `com.a/quokka`\n",
        )


def test_a_kind_octave_cannot_install_is_shown_and_refused(
    world: World, registry: RegistryServer
) -> None:
    registry.add("com.example/odd", package("nuget", "Odd.Thing"))
    configure(world.home, company=registry.url)

    assert "nuget:Odd.Thing 1.0 (not installed by Octave" in world.octave("info", "odd").stdout
    done = world.octave("install", "odd")
    assert done.code == 1
    assert "it comes only as nuget package" in done.stderr


def test_a_full_name_nobody_was_asked_for_says_how(world: World) -> None:
    assert world.octave("install", "com.example/quokka").told == (
        4,
        "",
        "error: the registry has no server `com.example/quokka`\n"
        "hint: `--registry official` asks the official registry\n",
    )


def test_offline_only_what_is_kept_is_known(world: World, registry: RegistryServer) -> None:
    quokka(registry)
    configure(world.home, company=registry.url)
    done = world.octave("install", "quokka", "--offline")
    assert done.code == 8
    assert "nothing is kept of what the registry `company` says" in done.stderr
    assert registry.told() == []


def test_a_lying_registry_is_an_error_and_no_bug(world: World, registry: RegistryServer) -> None:
    configure(world.home, company=registry.url)
    for body in (b"<html>", b"[" * 100_000, b'{"servers": [3]}', b"\xff"):
        registry.answer = lambda asked, body=body: Answer(body)  # type: ignore[misc]
        for words in (("search", "quokka"), ("install", "quokka"), ("info", "com.example/x")):
            assert world.octave(*words).code in {0, 4, 8}


def test_an_address_with_parts_for_the_user_to_fill_in_is_not_connected_as_it_is(
    world: World, registry: RegistryServer
) -> None:
    remotes = [{"type": "streamable-http", "url": "https://x.test/{tenant}/mcp"}]
    registry.items.append(item(server("com.example/quokka", remotes=remotes)))
    configure(world.home, company=registry.url)
    done = world.octave("install", "quokka", "--remote", "--no-start")
    assert done.code == 2
    assert "with your `{tenant}`" in done.stderr
    assert "servers.quokka" not in world.manifest
