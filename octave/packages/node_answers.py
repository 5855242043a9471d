"""What a node said of itself, kept while its file stays the same: starting one to ask takes long.

In the cache, one file for each node and question: `{"path": PATH, "status": [NUMBER, ...], "said":
TEXT}`. A convenience, so whatever is wrong with it only means that the node is asked.
"""

import contextlib
import hashlib
import json
import os
from pathlib import Path

from octave.home import atomic_write, private_folder

_FOLDER = "node"


def kept(cache: Path, program: str, question: str) -> str | None:
    """Return what `program` answered last time, or None where it may say another thing now."""
    path = os.path.realpath(program)
    try:
        known = json.loads(_place(cache, path, question).read_bytes())
        if known["path"] == path and known["status"] == _status(path):
            return str(known["said"])
    except (OSError, ValueError, TypeError, KeyError):
        pass
    return None


def keep(cache: Path, program: str, question: str, executable: str, said: str) -> None:
    """Keep what `program`, which runs as `executable`, said, if there is a cache and room in it.

    What a version manager has under that name may be another node in each folder: it is not kept.
    """
    path = os.path.realpath(program)
    if path != os.path.realpath(executable) or not cache.is_dir():
        return
    with contextlib.suppress(OSError):
        document = {"path": path, "status": _status(path), "said": said}
        place = _place(cache, path, question)
        private_folder(place.parent)
        atomic_write(place, json.dumps(document).encode())


def _place(cache: Path, path: str, question: str) -> Path:
    digest = hashlib.sha256(b"\0".join([os.fsencode(path), question.encode()])).hexdigest()
    return cache / _FOLDER / f"{digest[:32]}.json"


def _status(path: str) -> list[int]:
    found = os.stat(path)  # noqa: PTH116 - a name, as the others here
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]
