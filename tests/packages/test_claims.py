"""Where a package says itself that it belongs; whole installations: tests/cli/test_search.py."""

import json
import os
from pathlib import Path

import pytest

from octave.errors import InstallFailed
from octave.home import Home
from octave.packages.ecosystems import ECOSYSTEMS
from octave.packages.ecosystems.base import Bench

NAME = "io.github.someone/thing"


def installed(target: Path, content: str) -> Path:
    folder = target / "node_modules" / "@x" / "thing"
    folder.mkdir(parents=True)
    (folder / "package.json").write_text(content, encoding="utf-8")
    return target


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ({"mcpName": NAME}, True),
        ({"mcpName": f"{NAME}-two"}, False),
        ({"mcpName": NAME.upper()}, False),
        ({"mcpName": [NAME]}, False),
        ({"mcpname": NAME}, False),
        ({}, False),
        ([NAME], False),
    ],
)
def test_an_npm_package_says_so_in_its_package_json(
    tmp_path: Path, said: object, holds: bool
) -> None:
    target = installed(tmp_path, json.dumps(said))
    assert ECOSYSTEMS["npm"].claims("@x/thing", NAME, target) is holds


def test_an_npm_package_that_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="no readable package"):
        ECOSYSTEMS["npm"].claims("@x/thing", NAME, installed(tmp_path, "{"))


@pytest.mark.parametrize(
    ("kind", "package", "settings", "host"),
    [
        ("npm", "thing", {"npm_config_registry": "https://npm.a.test/api/"}, "npm.a.test"),
        ("npm", "@x/thing", {"npm_config_registry": "https://a.test"}, "a.test"),
        ("npm", "@x/thing", {"npm_config_registry": "https://a.test",
                             "npm_config_@x:registry": "https://b.test"}, "b.test"),
        ("pypi", "thing", {"UV_DEFAULT_INDEX": "https://u:p@pypi.example.com:8443/simple"},
         "pypi.example.com"),
        ("pypi", "thing", {"PIP_INDEX_URL": "https://c.test/simple"}, "c.test"),
        ("pypi", "thing", {}, ""),
    ],
)  # fmt: skip
def test_where_a_package_would_come_from_is_the_users_setting(
    tmp_path: Path, kind: str, package: str, settings: dict[str, str], host: str
) -> None:
    plain = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_CONFIG_DIRS": str(tmp_path)}
    bench = Bench(Home(tmp_path), plain | settings)
    assert ECOSYSTEMS[kind].index_host(package, tmp_path, bench) == host
