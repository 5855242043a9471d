from pathlib import Path

import pytest

from octave.errors import (
    InstallFailed,
    IntegrityFailed,
    OctaveError,
    RegistryUnreachable,
    StorageFailed,
)
from octave.home import Home
from octave.packages import uv
from octave.packages.commands import Output
from octave.packages.ecosystems.base import Bench


def bench_with(tmp_path: Path, **environ: str) -> Bench:
    """A user whose home, configuration folder included, lies in `tmp_path`."""
    nowhere = str(tmp_path / "nowhere")
    return Bench(
        Home(tmp_path / "octave"), {"HOME": str(tmp_path), "XDG_CONFIG_DIRS": nowhere, **environ}
    )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_the_index_and_certificate_of_pip_conf_are_handed_on(tmp_path: Path) -> None:
    text = "[global]\nindex-url = https://mirror.invalid/simple\ncert = /ca.pem\n"
    write(tmp_path / ".config/pip/pip.conf", text)
    environ = uv.environ(bench_with(tmp_path))
    assert environ["UV_DEFAULT_INDEX"] == "https://mirror.invalid/simple"
    assert environ["SSL_CERT_FILE"] == "/ca.pem"


def test_the_old_place_of_pip_conf_counts(tmp_path: Path) -> None:
    write(tmp_path / ".pip/pip.conf", "[install]\nindex-url = https://old.invalid/simple\n")
    assert uv.environ(bench_with(tmp_path))["UV_DEFAULT_INDEX"] == "https://old.invalid/simple"


@pytest.mark.parametrize(
    "text",
    [
        'index-url = "https://uv.invalid/simple"\n',
        '[pip]\nindex-url = "https://uv.invalid/simple"\n',
        '[[index]]\nurl = "https://uv.invalid/simple"\ndefault = true\n',
    ],
)
def test_the_index_of_uv_toml_goes_before_pip(tmp_path: Path, text: str) -> None:
    write(tmp_path / ".config/pip/pip.conf", "[global]\nindex-url = https://pip.invalid/simple\n")
    write(tmp_path / ".config/uv/uv.toml", text)
    assert uv.environ(bench_with(tmp_path))["UV_DEFAULT_INDEX"] == "https://uv.invalid/simple"


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"])
def test_variables_go_before_files(tmp_path: Path, name: str) -> None:
    write(tmp_path / ".config/uv/uv.toml", 'index-url = "https://file.invalid/simple"\n')
    bench = bench_with(tmp_path, **{name: "https://variable.invalid/simple"})
    assert uv.environ(bench)["UV_DEFAULT_INDEX"] == "https://variable.invalid/simple"


def test_an_unreadable_file_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path / ".config/uv/uv.toml", "index-url = ")
    write(tmp_path / ".config/pip/pip.conf", "no section")
    write(tmp_path / ".pip/pip.conf", "[global]\nindex-url = https://good.invalid/simple\n")
    assert uv.environ(bench_with(tmp_path))["UV_DEFAULT_INDEX"] == "https://good.invalid/simple"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("pip/pip.conf", "[global]\nextra-index-url = https://extra.invalid/simple\n"),
        ("uv/uv.toml", '[[index]]\nurl = "https://extra.invalid/simple"\n'),
    ],
)
def test_extra_indexes_are_ignored_with_a_note(tmp_path: Path, file: str, text: str) -> None:
    write(tmp_path / ".config" / file, text)
    bench = bench_with(tmp_path)
    assert "extra.invalid" not in str(uv.environ(bench))
    assert uv.notes(bench) == ("Extra package indexes of your uv or pip settings are ignored.",)


def test_no_variable_changes_what_is_chosen(tmp_path: Path) -> None:
    bench = bench_with(
        tmp_path,
        UV_EXCLUDE_NEWER="2020-01-01",
        UV_EXTRA_INDEX_URL="https://extra.invalid/simple",
        PIP_FIND_LINKS="/wheels",
        VIRTUAL_ENV="/venv",
        PYTHONPATH="/modules",
        UV_HTTP_TIMEOUT="99",
        HTTPS_PROXY="http://proxy.invalid",
    )
    environ = uv.environ(bench)
    dropped = ("UV_EXCLUDE_NEWER", "UV_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "VIRTUAL_ENV")
    assert not {*dropped, "PYTHONPATH"} & set(environ)
    assert environ["UV_HTTP_TIMEOUT"] == "99"
    assert environ["HTTPS_PROXY"] == "http://proxy.invalid"
    assert environ["UV_CACHE_DIR"] == str(tmp_path / "octave/cache/uv")
    assert (environ["UV_NO_CONFIG"], environ["UV_PYTHON_DOWNLOADS"]) == ("1", "never")


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            "error: x\n  cause: No space left on device (os error 28)",
            StorageFailed,
            "No space left",
        ),
        (
            "error: Failed to initialize cache at `/c`\n  cause: Permission denied (os error 13)",
            StorageFailed,
            "Permission denied",
        ),
        (
            "  cause: Because there are no versions of some-server and you require some-server, we "
            "can conclude that your\n  requirements are unsatisfiable.",
            RegistryUnreachable,
            "no version",
        ),
        (
            "  cause: Because there are no versions of some-server>=5 and you require "
            "some-server>=5",
            InstallFailed,
            "no versions",
        ),
        ("error: x\n  cause: dns error\n  cause: failed to lookup", RegistryUnreachable, "lookup"),
        ("  cause: Hash mismatch for `a==1`\n", IntegrityFailed, "`a==1`"),
    ],
)
def test_what_uv_says_becomes_the_error_it_means(
    text: str, kind: type[OctaveError], words: str
) -> None:
    error = uv.failure(Output(("uv",), 1, "", text), "some-server")
    assert type(error) is kind
    assert words in error.message
    assert error.hint or kind is InstallFailed
