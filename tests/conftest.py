"""Guards for every test: the real home is out of reach, and so is the network beyond loopback."""

import compileall
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]


def pytest_configure(config: pytest.Config) -> None:
    """Compile what thousands of children import; they themselves may not write it."""
    if not hasattr(config, "workerinput"):
        for folder in ("octave", "tests"):
            compileall.compile_dir(CHECKOUT / folder, quiet=2, workers=0)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_real_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """HOME and OCTAVE_HOME point into the test's own folders, for children too."""
    home = tmp_path_factory.mktemp("user-home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("OCTAVE_HOME", str(home / ".octave"))
    monkeypatch.delenv("OCTAVE_MANIFEST", raising=False)
    # Nor is the keyring of whoever runs the tests written to.
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    return home


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In this process connections leave loopback only by mistake."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            raise AssertionError(f"a test reached for {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    yield
