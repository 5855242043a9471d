"""The compiled modules of wheels, kept so that nobody compiles the same ones again.

Compiling takes several times as long as everything else of an installation. What is kept is one
file for each wheel and Python, in which every module carries the hash of its source (PEP 552):
Python itself passes over what belongs to another text. A convenience, so whatever is wrong with it
only means that modules are compiled.

The file: SHA-256 of all that follows, a line of JSON `[[path, size], ...]`, the modules one after
another. Opening a zip file for each wheel takes twice as long.
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterable, Set
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from octave.home import private_folder, sweep, temporary
from octave.packages.commands import run
from octave.packages.lockfile import GraphRow

if TYPE_CHECKING:
    from octave.packages.toolchains import Python
    from octave.packages.wheels import Site

_DIGEST_BYTES = 32
_INDEX_BYTES = 4 * 2**20
"""More than the names of the largest packages take."""
_MODULE = re.compile(r"(?:[^/\\]+/)*__pycache__/[^/\\]+\.pyc")


def kept(cache: Path, row: GraphRow, python_version: str) -> Path:
    """Return where the modules of the locked `row` are kept for that Python, or would be."""
    said = json.dumps([row["name"], row["version"], row["hashes"], python_version])
    return cache / "bytecode" / f"{hashlib.sha256(said.encode()).hexdigest()}.pycs"


def compile_all(python: Path, site: Path, sources: Iterable[str]) -> None:
    """Compile the packages and modules below `site` that the paths `sources` lie in; blocks.

    What cannot be compiled is left alone, as Python leaves it.

    Raises:
        InstallFailed: it did not end in time.
    """
    places = sorted({path.partition("/")[0] for path in sources})
    words = ["-m", "compileall", "-qq", "-j", "0", "--invalidation-mode", "checked-hash"]
    if places:
        # Without the site-packages of anybody: their .pth files may hold code.
        run([python, "-I", "-S", *words, "--", *places], cwd=site, environ={})


def keep(archive: Path, site: Path, sources: Iterable[str], python_minor: str) -> None:
    """Keep the compiled modules of `sources` in `archive`, if there is room."""
    tag = f"cpython-{python_minor.replace('.', '')}"
    index, modules = [], []
    for source in sorted(sources):
        folder, _, name = source.rpartition("/")
        path = f"{folder}/__pycache__/{name[:-3]}.{tag}.pyc".lstrip("/")
        with contextlib.suppress(FileNotFoundError):
            modules.append((site / path).read_bytes())
            index.append((path, len(modules[-1])))
    body = b"".join([json.dumps(index).encode(), b"\n", *modules])
    with contextlib.suppress(OSError):
        private_folder(archive.parent)
        descriptor, partial = temporary(archive, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(hashlib.sha256(body).digest() + body)
            partial.replace(archive)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


def provide(
    names: Set[str], site: "Site", graph: Iterable[GraphRow], python: "Python", cache: Path
) -> None:
    """Put the modules of the packages `names` in place: those kept meanwhile, else compiled ones.

    Raises:
        InstallFailed: compiling did not end in time.
        OSError: the disk is full or not writable.
    """
    archives = {
        str(row["name"]): kept(cache, row, python.version)
        for row in site.held(graph)
        if row["name"] in names
    }
    missing = sorted(names - restore_all(archives.items(), site.folder))
    sources = {name: site.sources(name) for name in missing}
    compile_all(python.path, site.folder, chain.from_iterable(sources.values()))
    for name in archives.keys() & missing:
        keep(archives[name], site.folder, sources[name], python.minor)


def restore_all(archives: Iterable[tuple[str, Path]], site: Path) -> set[str]:
    """Put the kept modules below `site`; return the names of whose were there, and whole.

    A package that is locked in several versions has several, and modules of one as a rule: which
    version it is depends on the Python. With those of another one Python does nothing.

    Raises:
        OSError: the disk is full or not writable.
    """
    pairs = list(archives)
    for folder in {archive.parent for _, archive in pairs}:
        sweep(folder)
    folders: set[str] = set()
    return {name for name, archive in pairs if _restore(archive, site, folders)}


def _restore(archive: Path, site: Path, folders: set[str]) -> bool:
    try:
        content = memoryview(archive.read_bytes())
    except OSError:
        return False
    digest, body = content[:_DIGEST_BYTES], content[_DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        archive.unlink(missing_ok=True)
        return False
    line, _, _ = bytes(body[:_INDEX_BYTES]).partition(b"\n")
    start = len(line) + 1
    for path, size in json.loads(line):
        _write(site, path, body[start : start + size], folders)
        start += size
    return True


def _write(site: Path, name: str, content: memoryview, folders: set[str]) -> None:
    if not _MODULE.fullmatch(name) or ".." in name.split("/"):
        return
    path = f"{site}/{name}"
    folder = path.rpartition("/")[0]
    if folder not in folders:
        os.makedirs(folder, exist_ok=True)  # noqa: PTH103 - a Path for each costs as much again
        folders.add(folder)
    with open(path, "wb") as file:  # noqa: PTH123
        file.write(content)
