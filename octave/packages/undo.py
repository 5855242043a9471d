"""Files as they were before something failed, put back without room: the disk may be full."""

import contextlib
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from octave.home import atomic_write


@contextlib.contextmanager
def restored_on_error(*paths: Path) -> Iterator[None]:
    """Put the files at `paths` back as they were when this is left with an error.

    What went wrong matters more than that it could not be undone: it is told first.
    """
    with contextlib.ExitStack() as stack:
        before = [stack.enter_context(_kept(Path(os.path.realpath(path)))) for path in paths]
        try:
            yield
        except BaseException:
            for each in before:
                with contextlib.suppress(OSError):
                    each.put_back()
            raise


@dataclass(frozen=True, slots=True)
class _Before:
    path: Path
    content: bytes | None
    """None: there was no file."""
    link: Path | None
    """Another name of that file; None where there can be none."""

    def put_back(self) -> None:
        if self.content is None:
            self.path.unlink(missing_ok=True)
        elif self.path.read_bytes() == self.content:
            pass
        elif self.link is not None and self.link.read_bytes() == self.content:
            self.link.replace(self.path)
        else:
            atomic_write(self.path, self.content, stat.S_IMODE(self.path.stat().st_mode))


@contextlib.contextmanager
def _kept(path: Path) -> Iterator[_Before]:
    if not path.is_file():
        yield _Before(path, None, None)
        return
    with path.open("rb") as file:
        link = None
        # Named and locked like a temporary file of a living writer: nobody sweeps it meanwhile,
        # and whoever writes next does when we were killed.
        with contextlib.suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            name = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
            name.hardlink_to(path)
            link = name
        try:
            yield _Before(path, file.read(), link)
        finally:
            if link is not None:
                with contextlib.suppress(OSError):
                    link.unlink(missing_ok=True)
