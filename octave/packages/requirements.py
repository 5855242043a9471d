"""Whether the wheels in an environment are those that its package needs, by their own metadata.

A lockfile lists the packages of PyPI, and not which of them needs which: only what is installed
tells that one is missing, or has nothing to do with the others.
"""

import re
from collections.abc import Iterator

from packaging.markers import default_environment
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from octave.errors import IntegrityFailed
from octave.packages.wheels import Site

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"\bextra\b")


def require_whole(site: Site, root: Requirement, python_version: str) -> None:
    """Compare what is in `site` with what `root` and its dependencies ask for.

    `python_version` is that of the interpreter it is for. Extras and markers count only where
    something is missing: what is there may be there for any of them.

    Raises:
        IntegrityFailed: something is missing, or nothing asks for it.
    """
    wanted = {name: list(site.requirements(name)) for name in site.packages}
    named = _named(wanted, canonicalize_name(root.name))
    stray = sorted(wanted.keys() - named)
    if stray:
        raise IntegrityFailed(
            f"the lockfile's `{stray[0]}` is nothing that `{root.name}` needs", hint=_HINT
        )
    missing = sorted(_missing(wanted, root, python_version))
    if missing:
        raise IntegrityFailed(
            f"`{root.name}` needs `{missing[0]}`, which the lockfile does not have", hint=_HINT
        )


_HINT = "remove the server from `octave.lock`, then run `octave lock`"


def _named(wanted: dict[str, list[str]], root: str) -> set[str]:
    """Return `root` and all names that it, or what is there of those, asks for."""
    found: set[str] = set()
    waiting = [root]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            heads = (_NAME.match(text) for text in wanted.get(name, ()))
            waiting += [canonicalize_name(head[0]) for head in heads if head]
    return found


def _missing(wanted: dict[str, list[str]], root: Requirement, python_version: str) -> Iterator[str]:
    here = {key: str(value) for key, value in default_environment().items()}
    here["python_full_version"] = python_version
    here["python_version"] = ".".join(python_version.split(".")[:2])
    seen: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root.name), extra) for extra in ("", *root.extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        if name not in wanted:
            yield name
            continue
        for asked in _asked(wanted[name], {**here, "extra": extra}):
            waiting += [(canonicalize_name(asked.name), more) for more in ("", *asked.extras)]


def _asked(texts: list[str], environment: dict[str, str]) -> Iterator[Requirement]:
    for text in texts:
        # Most of what is listed is for extras that nobody wants, and reading it takes long.
        if not environment["extra"] and _EXTRA.search(text):
            continue
        try:
            found = Requirement(text)
            if found.marker is None or found.marker.evaluate(environment):
                yield found
        except (InvalidRequirement, ValueError):
            # What uv could not read either asks for nothing.
            continue
