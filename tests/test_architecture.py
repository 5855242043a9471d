"""One command tells all: formatting, lint, types, import contracts, sizes, and what loads what."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULE_LINES = 420
FUNCTION_LINES = 50
PUBLIC_METHODS = 12
HEAVY = ("mcp", "mcp_types", "starlette", "uvicorn", "httpx", "httpx2", "pydantic")
SOURCES = sorted((ROOT / "octave").rglob("*.py"))


def run(*words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "words",
    [
        ("ruff", "format", "--check", "octave", "tests"),
        ("ruff", "check", "octave", "tests"),
        ("mypy",),
    ],
    ids=["format", "lint", "types"],
)
def test_the_checkers_find_nothing(words: tuple[str, ...]) -> None:
    run(*words)


def test_types_hold_where_there_is_no_faster_zlib(tmp_path: Path) -> None:
    alone = ("--no-site-packages", "--follow-imports=skip", "--ignore-missing-imports")
    run("mypy", *alone, f"--cache-dir={tmp_path}", "octave/packages/ecosystems/npm_tar.py")
    hidden = "import sys; sys.modules['zlib_ng'] = None; from octave.packages.ecosystems import "
    code = f"{hidden}npm_tar; import zlib; sys.exit(npm_tar.zlib is not zlib)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_imports_go_down_only() -> None:
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_functions_and_classes_stay_small(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= MODULE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size = (node.end_lineno or node.lineno) - node.lineno + 1
            # A verb's options are its signature; what is counted is what it does.
            size -= node.body[0].lineno - node.lineno
            assert size <= FUNCTION_LINES, f"{node.name}: {size} lines"
        elif isinstance(node, ast.ClassDef):
            methods = [
                child.name
                for child in node.body
                if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
                and not child.name.startswith("_")
                and not child.decorator_list  # properties are facts, not things to do
            ]
            assert len(methods) <= PUBLIC_METHODS, f"{node.name}: {methods}"


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("octave.cli.main", HEAVY),
        ("octave.cli.install", (*HEAVY, "importlib.metadata", "nodesemver", "rich")),
        ("octave.cli.packages", (*HEAVY, "importlib.metadata", "nodesemver", "rich")),
        ("octave.cli.tools", (*HEAVY, "asyncio", "anyio", "rich")),
        ("octave.cli.runtime", (*HEAVY, "asyncio", "anyio")),
        ("octave.cli.change", (*HEAVY, "asyncio", "anyio", "rich")),
        ("octave.packages.secrets", (*HEAVY, "keyring", "tomlkit")),
        ("octave.background", (*HEAVY, "asyncio", "typer", "msgspec")),
        ("octave.proxy", (*HEAVY, "asyncio", "typer", "msgspec", "json", "octave.errors")),
    ],
)
def test_what_starts_often_loads_little(module: str, forbidden: tuple[str, ...]) -> None:
    code = f"import sys, {module}; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(done.stdout.split()).isdisjoint(forbidden)


def test_the_project_names_no_package_registry_and_no_machine() -> None:
    hosts = ["registry." + "npmjs", "pypi." + "org", "files.python" + "hosted", "deb." + "debian"]
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    guilty = [
        name
        for name in tracked
        if (ROOT / name).is_file()
        and any(
            host in (ROOT / name).read_text(encoding="utf-8", errors="replace") for host in hosts
        )
    ]
    assert guilty == []
