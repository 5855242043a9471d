"""`run`: one server, once, on stdin and stdout; the process becomes the server.

Nothing of Octave's own gets into stdout, which belongs to the protocol.
"""

import fcntl
import os
import shlex
import signal
import sys
from typing import Annotated, NoReturn

import typer

from octave.cli.completion import registry_names
from octave.cli.options import Manners, manners
from octave.cli.site_options import EnvFileOption, EnvOption, RegistryOption, YesOption
from octave.errors import StartFailed, UsageError
from octave.packages import manifest, one_off, variables
from octave.packages.one_off import Found, Launch, Wish
from octave.packages.variables import Answers


def run(
    context: typer.Context,
    spec: Annotated[str, typer.Argument(metavar="NAME[@RANGE]", autocompletion=registry_names)],
    words: Annotated[list[str] | None, typer.Argument(metavar="ARG")] = None,
    *,
    env: EnvOption = None,
    env_file: EnvFileOption = None,
    executable: Annotated[
        str | None, typer.Option("--bin", help="Which of the package's executables.")
    ] = None,
    refresh: Annotated[
        bool, typer.Option("--refresh", help="Look for a newer version within the range.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Only what is in the cache.")] = False,
    registry: RegistryOption = None,
    yes: YesOption = False,
) -> int:
    """Run a server once on stdin and stdout, without installing it: SPEC -- ARG..."""
    _require_package(spec)
    terms = manners(context)
    answers = Answers(tuple(env or ()), variables.read_file(env_file) if env_file else {})
    wish = Wish(spec, executable, _registries(terms, spec, registry))
    home = terms.workspace(may_be_missing=True).home
    place = one_off.place_of(home, wish)
    with one_off.held(place) as descriptor:
        found = one_off.find(place)
        if found is None or refresh or not (offline or found.is_fresh(one_off.now())):
            found = _fetched(terms, wish, registry, offline=offline, yes=yes)
        launch = one_off.launch(home, wish, found, words or (), answers, os.environ)
        _become(launch, descriptor, spec)


def _require_package(text: str) -> None:
    """Refuse what nothing can be fetched of: it would have to be installed."""
    is_address = text.lower().startswith(("https://", "http://"))
    is_place = text in {".", ".."} or text.startswith(("./", "../", "/", "folder:"))
    if is_address or is_place:
        raise UsageError(
            f"`{text}` is {'an address' if is_address else 'a place on this machine'}, and "
            "`octave run` fetches packages",
            hint=f"`octave install {shlex.quote(text)}`, then `octave proxy NAME` speaks for it",
        )


def _registries(terms: Manners, text: str, registry: str | None) -> dict[str, str]:
    """Return where the name `text` may come from; a package comes from nowhere else."""
    if ":" in text:
        return {}
    entries = manifest.load(terms.workspace(may_be_missing=True).manifest).registries
    known = {name: entry.url for name, entry in entries.items()}
    return {**known, **({registry: known.get(registry, "")} if registry else {})}


def _fetched(
    terms: Manners, wish: Wish, registry: str | None, *, offline: bool, yes: bool
) -> Found:
    # Imported late: what lies in the cache starts without all that installing takes.
    from octave.cli.site import open_site
    from octave.packages.one_off_install import fetch

    with open_site(terms, offline=offline, creates=True, registry=registry) as site:
        home = site.workspace.home
        into = one_off.place_of(home, wish)
        return fetch(into, wish, site.registry, site.bench, is_agreed=yes)


def _become(launch: Launch, descriptor: int, text: str) -> NoReturn:
    """Replace this process by the server, which keeps `descriptor` open as long as it lives.

    Raises:
        StartFailed: its interpreter cannot be started.
    """
    fcntl.fcntl(descriptor, fcntl.F_SETFD, 0)
    sys.stderr.flush()
    # Python ignores them, and what is ignored stays so in the next program (execve(2)).
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(launch.argv[0], launch.argv, launch.environment)
    except OSError as error:
        raise StartFailed(
            f"cannot start `{launch.argv[0]}`: {error.strerror}",
            hint=f"octave run --refresh {text}",
        ) from error
