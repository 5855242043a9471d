import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from octave.errors import (
    Ambiguous,
    InstallFailed,
    IntegrityFailed,
    PackageNotFound,
    RegistryUnreachable,
    UsageError,
    VersionNotFound,
)
from octave.home import Home
from octave.packages.ecosystems.base import Bench, Resolved, Wanted
from octave.packages.ecosystems.pypi import Pypi
from octave.packages.ecosystems.pypi_rows import (
    as_requirements,
    constraint,
    lowest_python,
    parse_requirements,
    python_range,
    requirement,
)
from octave.packages.ecosystems.pypi_scripts import plain_choice
from octave.packages.lockfile import Pin
from tests.packages.wheel_index import WheelIndex

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
COMPILED = f"""cffi==2.1.1 ; platform_python_implementation != 'PyPy' \\
    --hash={B} \\
    --hash={A}
Anyio==4.16.0 \\
    --hash={A}
"""
ROWS = [
    {"name": "anyio", "version": "4.16.0", "hashes": [A]},
    {
        "name": "cffi",
        "version": "2.1.1",
        "marker": "platform_python_implementation != 'PyPy'",
        "hashes": [A, B],
    },
]


@pytest.fixture
def index() -> Iterator[WheelIndex]:
    index = WheelIndex()
    yield index
    index.close()


@pytest.fixture
def bench(index: WheelIndex, tmp_path: Path) -> Bench:
    environ = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(tmp_path),
        "UV_DEFAULT_INDEX": index.url,
        "UV_HTTP_RETRIES": "0",
    }
    home = Home(tmp_path / "home")
    home.prepare()
    return Bench(home, environ)


def resolve(bench: Bench, package: str, version_range: str = "*", **more: Any) -> Resolved:
    staging = bench.home.staging / "resolve"
    staging.mkdir(exist_ok=True)
    return Pypi().resolve(Wanted(package, version_range, **more), staging, bench)


def pin_of(package: str, resolved: Resolved) -> Pin:
    return Pin(
        name="server",
        request=f"pypi:{package}",
        kind="pypi",
        package=package,
        version=resolved.version,
        integrity=resolved.integrity,
        graph=resolved.graph,
        requires=resolved.requires,
        toolchain=resolved.toolchain,
    )


def install(bench: Bench, pin: Pin, name: str = "installed") -> Path:
    target = bench.home.staging / name
    target.mkdir()
    Pypi().install(pin, target, bench)
    return target


def test_compiled_requirements_become_sorted_rows_with_sorted_hashes() -> None:
    assert parse_requirements(COMPILED) == ROWS


def test_rows_go_back_to_requirements_and_give_the_same_rows() -> None:
    assert parse_requirements(as_requirements(ROWS)) == ROWS


@pytest.mark.parametrize(
    "row",
    [
        {"name": "anyio", "version": "4.16.0"},
        {"name": "anyio", "version": "4.16.0", "hashes": []},
        {"name": "anyio", "version": "4.16.0", "hashes": ["md5:0"]},
        {"name": "--index-url=https://evil.invalid/simple", "version": "1", "hashes": [A]},
        {"name": "a", "version": "1\n-r /etc/passwd", "hashes": [A]},
        {"name": "a", "version": "1", "marker": "os_name == '${HOME}'", "hashes": [A]},
        {"name": "a @ https://evil.invalid/a.whl #", "version": "1", "hashes": [A]},
    ],
)
def test_a_row_without_hash_or_with_more_than_a_requirement_is_refused(
    row: Mapping[str, object],
) -> None:
    with pytest.raises(IntegrityFailed):
        as_requirements([row])


def test_a_compiled_line_without_hash_is_refused() -> None:
    with pytest.raises(InstallFailed, match="cannot be locked"):
        parse_requirements("anyio==4.16.0\n")


@pytest.mark.parametrize(
    ("version_range", "specifier"),
    [("*", ""), ("latest", ""), ("1.2.3", "==1.2.3"), (">=1,<2", "<2,>=1"), ("~=1.4", "~=1.4")],
)
def test_ranges_become_specifiers(version_range: str, specifier: str) -> None:
    assert str(requirement("some-server[cli]", version_range).specifier) == specifier


def test_an_npm_range_is_refused_with_its_equivalent() -> None:
    with pytest.raises(UsageError, match=r">=1\.2,<2"):
        requirement("some-server", "^1.2")


@pytest.mark.parametrize("name", ["-r", "a b", "https://example.invalid/a.whl", "../a", ""])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        requirement(name, "*")


def test_an_option_is_no_constraint() -> None:
    with pytest.raises(UsageError):
        constraint("--index-url=https://evil.invalid")


def test_the_oldest_python_within_the_limits_is_resolved_for() -> None:
    limits = SpecifierSet(">=3.12.1,<3.14")
    floor = lowest_python(limits)
    assert str(floor) == "3.12.1"
    assert python_range(floor, limits) == ">=3.12.1,<3.14"
    assert str(lowest_python(SpecifierSet(">=3.8"))) == "3.11"


@pytest.mark.parametrize(
    ("scripts", "chosen"),
    [
        (["other", "some_server"], "some_server"),
        (["run-it"], "run-it"),
        (["convert", "serve-mcp"], "serve-mcp"),
    ],
)
def test_the_script_that_is_plainly_meant_is_chosen(scripts: list[str], chosen: str) -> None:
    assert plain_choice("some-server", scripts) == chosen


def test_several_scripts_and_none_plainly_meant_is_ambiguous() -> None:
    with pytest.raises(Ambiguous) as caught:
        plain_choice("some-server", ["a", "b"])
    assert caught.value.hint == "choose one with `--bin a`"


def test_a_package_is_resolved_installed_and_runs_after_its_folder_was_renamed(
    index: WheelIndex, bench: Bench
) -> None:
    index.add("Some-Server", "1.0", scripts=["some-server"], requires=["helper>=2"])
    index.add("helper", "2.1")
    resolved = resolve(bench, "some-server")
    assert resolved.version == "1.0"
    assert [row["name"] for row in resolved.graph] == ["helper", "some-server"]
    assert (resolved.requires, resolved.toolchain) == ({"python": ">=3.11"}, {"python": "3.11"})
    pin = pin_of("some-server", resolved)
    target = install(bench, pin)
    assert [path.name for path in target.iterdir()] == ["venv"]
    pin = replace(pin, entry=Pypi().find_entry("some-server", None, target))
    final = target.rename(bench.home.servers / "1.0-12345678")
    argv = Pypi().argv(pin, final, bench)
    said = subprocess.run([*argv, "hello"], capture_output=True, text=True, check=True)
    assert said.stdout == "some-server 1.0 hello\n".replace("some-server", "Some-Server")
    assert all(Path(word).is_absolute() for word in argv)


def test_extras_bring_their_dependencies(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", requires=["helper; extra == 'cli'"])
    index.add("helper", "2.1")
    assert [row["name"] for row in resolve(bench, "some-server[cli]").graph] == [
        "helper",
        "some-server",
    ]


def test_a_constraint_holds_and_the_version_passed_over_is_told(
    index: WheelIndex, bench: Bench
) -> None:
    index.add("some-server", "1.0", requires=["helper"])
    index.add("some-server", "2.0", requires=["helper>=2"])
    index.add("helper", "1.5")
    index.add("helper", "2.5")
    resolved = resolve(bench, "some-server", constraints=("helper<2",))
    assert {row["name"]: row["version"] for row in resolved.graph} == {
        "helper": "1.5",
        "some-server": "1.0",
    }
    assert "`some-server` 2.0 is out" in " ".join(resolved.notes)


def test_a_constraint_nothing_fits_is_said(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", requires=["helper>=2"])
    index.add("helper", "2.5")
    with pytest.raises(InstallFailed) as caught:
        resolve(bench, "some-server", constraints=("helper<2",))
    assert "helper>=2" in caught.value.message
    assert "constraints" in str(caught.value.hint)


def test_an_unknown_package_is_not_found(bench: Bench) -> None:
    with pytest.raises(PackageNotFound, match="no package `no-such-server`"):
        resolve(bench, "no-such-server")


def test_an_unknown_version_is_not_found_and_the_newest_is_named(
    index: WheelIndex, bench: Bench
) -> None:
    index.add("some-server", "1.0")
    index.add("some-server", "1.4")
    with pytest.raises(VersionNotFound, match=r"no version `==9\.9`") as caught:
        resolve(bench, "some-server", "9.9")
    assert caught.value.hint == "the newest is `1.4`"


def test_a_package_without_wheels_is_refused(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", requires=["sourcy"])
    index.add_source("sourcy", "1.0")
    with pytest.raises(InstallFailed, match="`sourcy` is offered as source only"):
        resolve(bench, "some-server")


def test_a_python_nobody_has_is_named(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", requires_python=">=3.99")
    with pytest.raises(InstallFailed, match=r"Python `>=3\.99` is needed"):
        resolve(bench, "some-server")


def test_the_newest_version_for_the_pythons_here_is_chosen_with_a_note(
    index: WheelIndex, bench: Bench
) -> None:
    index.add("some-server", "1.0")
    index.add("some-server", "2.0", requires_python=">=3.99")
    resolved = resolve(bench, "some-server")
    assert resolved.version == "1.0"
    assert resolved.notes == ("`some-server` 2.0 needs Python 3.99 or newer.",)


def test_an_upper_limit_of_the_package_itself_is_kept(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", requires_python="<3.11")
    pin = pin_of("some-server", resolve(bench, "some-server"))
    with pytest.raises(InstallFailed, match=r"<3\.11"):
        install(bench, pin)


def test_a_wrong_hash_is_refused_and_names_the_package(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0")
    pin = pin_of("some-server", resolve(bench, "some-server"))
    pin = replace(pin, graph=({**pin.graph[0], "hashes": [A]},))
    with pytest.raises(IntegrityFailed, match=r"some-server==1\.0") as caught:
        install(bench, pin)
    assert A in caught.value.details["hashes"]


def test_a_damaged_cache_is_healed_from_the_index(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", scripts=["some-server"])
    pin = pin_of("some-server", resolve(bench, "some-server"))
    damage(bench, install(bench, pin))
    target = install(bench, pin, "again")
    assert "evil" not in module(target).read_text(encoding="utf-8")


def test_a_damaged_cache_is_refused_offline(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", scripts=["some-server"])
    pin = pin_of("some-server", resolve(bench, "some-server"))
    damage(bench, install(bench, pin))
    with pytest.raises(IntegrityFailed, match=r"`some_server/__init__.py` of `some-server`"):
        install(replace(bench, offline=True), pin, "again")


def module(target: Path) -> Path:
    return next(target.glob("venv/lib/python3.*/site-packages/some_server/__init__.py"))


def damage(bench: Bench, target: Path) -> None:
    assert module(target).is_file()
    cached = list(bench.home.cache.glob("uv/archive-v*/*/some_server/__init__.py"))
    assert cached
    for path in cached:
        path.write_text("evil = 1\n", encoding="utf-8")


def test_modules_are_compiled_once_and_come_back_with_the_packages(
    index: WheelIndex, bench: Bench
) -> None:
    index.add("some-server", "1.0", scripts=["some-server"])
    pin = pin_of("some-server", resolve(bench, "some-server"))
    steps: list[str] = []
    bench = replace(bench, progress=steps.append)
    modules = [bytecode_of(install(bench, pin, name)) for name in ("one", "two")]
    assert modules[0] == modules[1] != {}
    assert sum("compiling" in step for step in steps) == 1


def test_servers_share_the_modules_of_a_package_they_both_need(
    index: WheelIndex, bench: Bench
) -> None:
    index.add("shared", "1.0")
    for name in ("one-server", "two-server"):
        index.add(name, "1.0", scripts=[name], requires=["shared"])
        install(bench, pin_of(name, resolve(bench, name)), name)
    archives = bench.home.cache.glob("bytecode/*.pycs")
    kept = [json.loads(path.read_bytes()[32:].partition(b"\n")[0]) for path in archives]
    folders = sorted(path.partition("/")[0] for index in kept for path, _ in index)
    assert folders == ["one_server", "shared", "two_server"]


def bytecode_of(target: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(target)): path.read_bytes()
        for path in target.glob("venv/lib/python3.*/site-packages/some_server/**/*.pyc")
    }


def test_a_damaged_store_of_modules_only_costs_time(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", scripts=["some-server"])
    pin = pin_of("some-server", resolve(bench, "some-server"))
    before = bytecode_of(install(bench, pin))
    (archive,) = bench.home.cache.glob("bytecode/*.pycs")
    archive.write_bytes(archive.read_bytes().replace(b"some_server", b"same_server", 1))
    assert bytecode_of(install(bench, pin, "again")).keys() == before.keys()
    assert b"same_server" not in archive.read_bytes()


def test_a_wheel_published_with_a_wrong_record_is_installed(
    index: WheelIndex, bench: Bench
) -> None:
    index.add("some-server", "1.0", scripts=["some-server"], wrong_record=True)
    install(bench, pin_of("some-server", resolve(bench, "some-server")))


def test_what_was_installed_before_installs_offline(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0", scripts=["some-server"])
    pin = pin_of("some-server", resolve(bench, "some-server"))
    install(bench, pin)
    index.close()
    install(replace(bench, offline=True), pin, "again")


def test_offline_with_an_empty_cache_is_unreachable(bench: Bench) -> None:
    with pytest.raises(RegistryUnreachable, match="stay offline"):
        resolve(replace(bench, offline=True), "some-server")


def test_an_index_that_does_not_answer_is_unreachable(index: WheelIndex, bench: Bench) -> None:
    index.close()
    with pytest.raises(RegistryUnreachable, match="Connection refused"):
        resolve(bench, "some-server")


@pytest.mark.parametrize("status", [401, 403, 500])
def test_an_index_that_refuses_is_unreachable(index: WheelIndex, bench: Bench, status: int) -> None:
    index.add("some-server", "1.0")
    index.status = status
    with pytest.raises(RegistryUnreachable):
        resolve(bench, "some-server")


def test_a_package_without_scripts_has_no_entry(index: WheelIndex, bench: Bench) -> None:
    index.add("some-server", "1.0")
    target = install(bench, pin_of("some-server", resolve(bench, "some-server")))
    with pytest.raises(InstallFailed, match="has no executable"):
        Pypi().find_entry("some-server", None, target)


def test_the_named_executable_is_taken_and_a_wrong_name_gets_a_near_one(
    index: WheelIndex, bench: Bench
) -> None:
    index.add("some-server", "1.0", scripts=["alpha", "beta"])
    target = install(bench, pin_of("some-server", resolve(bench, "some-server")))
    assert Pypi().find_entry("some-server", "beta", target) == "beta"
    with pytest.raises(InstallFailed) as caught:
        Pypi().find_entry("some-server", "betta", target)
    assert caught.value.hint == "did you mean `beta`?"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("package", "constraints"), [("mcp-server-time", ()), ("mcp-server-sqlite", ("mcp<2",))]
)
def test_a_published_server_answers_the_handshake(
    package: str, constraints: tuple[str, ...], tmp_path: Path, user_environ: dict[str, str]
) -> None:
    bench = Bench(Home(tmp_path / "home"), user_environ)
    bench.home.prepare()
    pin = pin_of(package, resolve(bench, package, constraints=constraints))
    target = install(bench, pin)
    pin = replace(pin, entry=Pypi().find_entry(package, None, target))
    final = target.rename(bench.home.servers / "final")
    client = {"protocolVersion": "2025-11-25", "capabilities": {}}
    client["clientInfo"] = {"name": "test", "version": "1"}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}
    said = subprocess.run(
        Pypi().argv(pin, final, bench),
        input=json.dumps(asked) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert json.loads(said.stdout.splitlines()[0])["result"]["serverInfo"]["name"]
