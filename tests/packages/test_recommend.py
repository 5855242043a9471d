"""What is worth having here: each with its reason, and no value of a variable in any of them."""

import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path

import pytest

from octave.packages.recommend import recommend
from octave.packages.registry import Registry, bundled_folder

REGISTRY = Registry(bundled_folder())


def told(
    folder: Path, installed: Collection[str] = ("time",), environ: Mapping[str, str] | None = None
) -> dict[str, tuple[str, ...]]:
    found = recommend(REGISTRY, installed, folder, environ or {})
    return {one.entry.short_name: one.reasons for one in found}


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_git_checkout_gets_git_and_where_it_comes_from(tmp_path: Path) -> None:
    config = '[remote "origin"]\n\turl = git@github.com:someone/thing.git\n'
    write(tmp_path, ".git/config", config)
    deep = tmp_path / "deep" / "er"
    deep.mkdir(parents=True)

    assert told(deep) == {
        "git": ("this is a git checkout",),
        "github": ("this checkout has a remote on github.com",),
    }
    assert "git" not in told(deep, ["git"])


@pytest.mark.parametrize(
    "url",
    [
        "https://gitlab.com/x/y.git",
        "ssh://git@gitlab.com/x/y",
        "git@gitlab.com:x/y.git",
        "https://user:token@gitlab.com/x/y",
    ],
)
def test_a_remote_is_known_however_it_is_written(tmp_path: Path, url: str) -> None:
    write(tmp_path, ".git/config", f'[remote "x"]\n\turl = {url}\n')
    found = told(tmp_path)
    assert found["gitlab"] == ("this checkout has a remote on gitlab.com",)
    assert "token" not in str(found)


def test_packages_a_project_depends_on(tmp_path: Path) -> None:
    package = {
        "dependencies": {"pg": "1", "@sentry/node": "8", "left-pad": "*"},
        "devDependencies": {"@playwright/test": "1"},
    }
    write(tmp_path, "package.json", json.dumps(package))
    write(tmp_path, "pyproject.toml", '[project]\ndependencies = ["pymongo[srv]>=4", "psycopg"]\n')
    write(tmp_path, "requirements.txt", "# none\nRedis==5\n-r other.txt\n")

    assert told(tmp_path) == {
        "dbhub": ("the project depends on `pg`", "the project depends on `psycopg`"),
        "sentry": ("the project depends on `@sentry/node`",),
        "playwright": ("the project depends on `@playwright/test`",),
        "mongodb": ("the project depends on `pymongo`",),
        "redis": ("the project depends on `redis`",),
    }


def test_addresses_of_databases_are_known_by_name_and_never_shown(tmp_path: Path) -> None:
    write(
        tmp_path,
        ".env",
        'export DATABASE_URL="postgresql+asyncpg://u:hush@db/x"\nCACHE=rediss://:hush@h\nX=1\n',
    )
    found = told(tmp_path, environ={"MONGODB_URI": "mongodb+srv://u:hush@h/x", "HOME": "/x"})

    assert found == {
        "mongodb": ("`MONGODB_URI` in the environment is the address of a mongodb database",),
        "dbhub": ("`DATABASE_URL` in `.env` is the address of a postgresql database",),
        "redis": ("`CACHE` in `.env` is the address of a rediss database",),
    }
    assert "hush" not in str(found)


def test_services_of_a_compose_file(tmp_path: Path) -> None:
    text = 'services:\n  db:\n    image: "postgres:16"\n  q:\n    image: docker.io/qdrant/qdrant\n'
    write(tmp_path, "docker-compose.yml", text)

    assert told(tmp_path) == {
        "dbhub": ("`docker-compose.yml` runs `postgres`",),
        "qdrant": ("`docker-compose.yml` runs `docker.io/qdrant/qdrant`",),
        "docker": ("`docker-compose.yml` is here",),
    }


def test_files_that_tell(tmp_path: Path) -> None:
    for name in ("data.sqlite", "Chart.yaml", "x.duckdb"):
        write(tmp_path, name, "")
    assert list(told(tmp_path)) == ["duckdb", "dbhub", "kubernetes"]


def test_installed_servers_bring_their_replacement_and_their_kin(tmp_path: Path) -> None:
    found = told(tmp_path, ["postgres", "notion"])

    assert found["dbhub"][0] == "it replaces `postgres`, which is installed and archived"
    kin = [name for name, reasons in found.items() if "it goes with" in reasons[-1]]
    assert 1 <= len(kin) <= 3
    assert not {"postgres", "notion"} & set(found)


def test_a_deprecated_server_is_never_recommended(tmp_path: Path) -> None:
    write(tmp_path, "package.json", '{"dependencies": {"puppeteer": "1"}}')
    deprecated = {entry.short_name for entry in REGISTRY.entries() if entry.deprecated}
    found = told(tmp_path)
    assert not deprecated & set(found)


def test_whoever_has_nothing_gets_something_to_begin_with(tmp_path: Path) -> None:
    assert list(told(tmp_path, [])) == ["filesystem", "fetch", "memory"]
    assert told(tmp_path) == {}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "[" * 100_000, '{"dependencies": 3}', '{"dependencies": ["pg"]}'],
    ids=range(7),
)
def test_broken_files_tell_nothing(tmp_path: Path, text: str) -> None:
    for name in ("package.json", "pyproject.toml", ".git/config", "compose.yaml"):
        write(tmp_path, name, text)
    assert set(told(tmp_path)) <= {"git", "docker", "dbhub"}


def test_pipes_folders_and_bytes_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    (tmp_path / "package.json").mkdir()
    (tmp_path / "requirements.txt").write_bytes(b"\xff\xfepg\n")
    assert told(tmp_path) == {}
