import base64
import hashlib
from pathlib import Path

import pytest

from octave.errors import InstallFailed, IntegrityFailed
from octave.packages.wheels import Site

TEXT = b"answer = 42\n"
DIGEST = hashlib.sha256(TEXT)
BASE64 = base64.urlsafe_b64encode(DIGEST.digest()).rstrip(b"=").decode()
ROWS = [{"name": "some-server", "version": "1.0"}]


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """A virtual environment with one package, whose RECORD holds."""
    folder = tmp_path / "lib/python3.11/site-packages"
    info = folder / "Some_Server-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "some_server.py").write_bytes(TEXT)
    (folder / "some_server.pyc").write_bytes(b"made later")
    files = {
        "METADATA": "Name: Some_Server\nVersion: 1.0\nRequires-Python: >=3.10\n",
        "entry_points.txt": "[console_scripts]\nserve = some_server:run\n../up = some_server:run\n",
        "RECORD": f"some_server.py,sha256={BASE64},12\nsome_server.pyc,sha256=old,1\n"
        "Some_Server-1.0.dist-info/RECORD,,\n",
    }
    for name, text in files.items():
        (info / name).write_text(text, encoding="utf-8")
    return tmp_path


def record(environment: Path) -> Path:
    return next(environment.glob("lib/*/*/*.dist-info/RECORD"))


def test_scripts_are_read_from_the_entry_points_and_paths_are_no_names(environment: Path) -> None:
    assert Site.of(environment).console_scripts("some-server") == ["serve"]


def test_the_range_of_pythons_is_read_from_the_metadata(environment: Path) -> None:
    assert Site.of(environment).requires_python("some-server") == ">=3.10"


def test_files_that_are_as_recorded_are_unchanged(environment: Path) -> None:
    assert Site.of(environment).changed_files() == {}


def test_a_record_in_hexadecimal_digits_is_understood(environment: Path) -> None:
    path = record(environment)
    text = path.read_text(encoding="utf-8").replace(BASE64, DIGEST.hexdigest())
    path.write_text(text, encoding="utf-8")
    assert Site.of(environment).changed_files() == {}


def test_a_changed_file_is_found(environment: Path) -> None:
    (environment / "lib/python3.11/site-packages/some_server.py").write_bytes(b"answer = 41\n")
    assert Site.of(environment).changed_files() == {"some-server": "some_server.py"}


def test_a_missing_file_is_found(environment: Path) -> None:
    (environment / "lib/python3.11/site-packages/some_server.py").unlink()
    assert Site.of(environment).changed_files() == {"some-server": "some_server.py"}


@pytest.mark.parametrize("path", ["/dev/zero", f"{'../' * 40}dev/zero"])
def test_a_device_in_a_record_is_not_read(environment: Path, path: str) -> None:
    record(environment).write_text(f"{path},sha256={BASE64},12\n", encoding="utf-8")
    assert Site.of(environment).changed_files() == {"some-server": path}


def test_a_missing_record_is_found(environment: Path) -> None:
    record(environment).unlink()
    assert Site.of(environment).changed_files() == {"some-server": "RECORD"}


def test_the_locked_packages_are_accepted(environment: Path) -> None:
    absent = {"name": "pywin32", "version": "312", "marker": "sys_platform == 'win32'"}
    Site.of(environment).check_packages([*ROWS, absent])


@pytest.mark.parametrize(
    "rows",
    [[], [{"name": "some-server", "version": "1.1"}], [*ROWS, {"name": "more", "version": "1"}]],
)
def test_other_packages_than_the_locked_ones_are_refused(
    environment: Path, rows: list[dict[str, object]]
) -> None:
    with pytest.raises(IntegrityFailed, match="is not what is locked"):
        Site.of(environment).check_packages(rows)


def test_a_folder_that_is_no_environment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InstallFailed, match="not a virtual environment"):
        Site.of(tmp_path)


def test_rows_that_are_held_are_those_of_the_version_that_is_here(environment: Path) -> None:
    rows = [{"name": "some-server", "version": version} for version in ("0.9", "1.0.0", "1.1")]
    assert Site.of(environment).held([*rows, {"name": "more", "version": "1"}]) == rows[1:2]


def test_sources_are_the_modules_inside_the_folder(environment: Path) -> None:
    with record(environment).open("a", encoding="utf-8") as file:
        file.write("../../../bin/run.py,,\n/etc/x.py,,\n")
    assert Site.of(environment).sources("some-server") == ["some_server.py"]
