"""Fetch what `octave run` is to run: choose, resolve, install, say which version answers.

The same calls as an installation, into a home of its own in the cache: no manifest or lockfile of
anybody changes. Not started once: it is started at once, by whoever wants it.
"""

from typing import NoReturn

from octave.errors import RegistryUnreachable
from octave.home import Home, Workspace
from octave.packages import manifest, one_off, store
from octave.packages.ecosystems.base import Bench
from octave.packages.install import resolved
from octave.packages.launch import LaunchSpec
from octave.packages.manifest import ServerEntry, is_server_name
from octave.packages.one_off import Found, Wish
from octave.packages.placement import Site, place, undone_on_error
from octave.packages.plan import Consent, require_answerable
from octave.packages.registry import Lookup
from octave.packages.resolve import Choice, choose, described

_NAMELESS = "server"
"""What a server is called whose package gives no usable name."""


def fetch(
    into: Home, wish: Wish, registry: Lookup, bench: Bench, *, is_agreed: bool = False
) -> Found:
    """Return the version that answers `wish` now, installed; what answered before if it must.

    The caller holds `into`, the place of `wish`. Nobody can be asked: `is_agreed` says that
    somebody has agreed to a package that nothing vouches for.

    Raises:
        OctaveError: nothing answers; what was there before is untouched.
    """
    began, before = one_off.now(), one_off.find(into)
    bench.home.prepare()
    site = Site(Workspace.of_home(into), registry, bench, check=_never, start=False)
    try:
        choice = described(choose(wish.text, registry), bench)
        if before is None:
            consent = Consent(lambda _: True, is_given=is_agreed)
            require_answerable(choice, consent, f"octave run {wish.text}")
        for note in choice.entry.notes_for(choice.known) if choice.entry and choice.known else ():
            bench.note(note)
        return _fetched(choice, wish, site, began)
    except RegistryUnreachable as error:
        if before is None:
            raise
        bench.note(f"{error.message}; the version found before is started")
        return before


def _fetched(choice: Choice, wish: Wish, site: Site, began: float) -> Found:
    name = choice.name if is_server_name(choice.name) else _NAMELESS
    home = site.workspace.home
    server = ServerEntry(
        name, package=choice.source, version=choice.version_range, executable=wish.executable
    )
    store.prepare(home)
    with store.locked(home, name, site.bench.progress), undone_on_error(name, site):
        found = one_off.find(home)
        if found is not None and found.at >= began:
            # Somebody else has just done it.
            return found
        pin = resolved(choice, server, site)
        nothing = manifest.parse(site.workspace.manifest, "")
        placed = place(pin, nothing, server, choice.known, site)
        exact = choice.version_range.removeprefix("==").strip() == placed.pin.version
        found = Found(one_off.FORMAT, name, placed.pin.folder, exact, one_off.now(), choice.known)
        one_off.keep(home, found)
        return found


def _never(spec: LaunchSpec) -> NoReturn:
    raise AssertionError(f"{spec.name} is not started here")
