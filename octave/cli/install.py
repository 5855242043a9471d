"""`install`: servers by name, by package or all of octave.toml."""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from octave.cli.asking import ask, can_ask
from octave.cli.completion import client_ids, registry_names
from octave.cli.consent import address_consent, consent_of, dry_run_report
from octave.cli.options import Manners, manners
from octave.cli.outcomes import each, report
from octave.cli.site import open_site
from octave.cli.site_options import (
    AgeOption,
    ArgsInOption,
    EnvFileOption,
    EnvOption,
    NoStartOption,
    OnlyAskedOption,
    RegistryOption,
    YesOption,
)
from octave.errors import OctaveError, UsageError
from octave.packages import assignments, own, project_indexes, sync, variables
from octave.packages import install as story
from octave.packages.entries import Entry
from octave.packages.install import Outcome, Request
from octave.packages.own import Own
from octave.packages.placement import Site
from octave.packages.rehearsal import Rehearsed, rehearse, rehearse_all
from octave.packages.resolve import folder_of, folder_request, short_name
from octave.packages.variables import Answers

Names = Annotated[
    list[str] | None, typer.Argument(metavar="NAME[@RANGE]", autocompletion=registry_names)
]


def install(
    context: typer.Context,
    names: Names = None,
    *,
    env: EnvOption = None,
    env_file: EnvFileOption = None,
    arg: Annotated[
        list[str] | None,
        typer.Option("--arg", help="An argument, or a `{ secret = ... }`; repeatable."),
    ] = None,
    args_in: ArgsInOption = None,
    only_asked: OnlyAskedOption = False,
    name: Annotated[str | None, typer.Option("--as", help="Call it this.")] = None,
    executable: Annotated[
        str | None, typer.Option("--bin", help="Which of the package's executables.")
    ] = None,
    locked: Annotated[
        bool, typer.Option("--locked", help="Exactly the lockfile, or exit 7. For CI.")
    ] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Only what is in the cache.")] = False,
    no_start: NoStartOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 6 when a server could not be checked.")
    ] = False,
    allow_scripts: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-scripts", metavar="PKG", help="Run the install scripts of this npm package."
        ),
    ] = None,
    allow_build: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-build", metavar="PKG", help="Build this PyPI package from its source."
        ),
    ] = None,
    min_release_age: AgeOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what it would do, and change nothing.")
    ] = False,
    client: Annotated[
        list[str] | None,
        typer.Option(
            "--client",
            metavar="ID",
            help="Then connect this AI tool, as `client add` does.",
            autocompletion=client_ids,
        ),
    ] = None,
    remote: Annotated[
        bool, typer.Option("--remote", help="Connect it where it is hosted; installs nothing.")
    ] = False,
    registry: RegistryOption = None,
    yes: YesOption = False,
) -> int:
    """Install servers: NAME, npm:PACKAGE, pypi:PACKAGE, a folder or an https:// address.

    Also oci:IMAGE, mcpb:URL#sha256=HEX and a bundle's file. Without names: all of octave.toml.
    """
    terms = manners(context)
    allowed = [allow_scripts, allow_build]
    _check_words(
        names or [], [arg, args_in, env, env_file, name, executable, *allowed], locked=locked
    )
    if remote or any(map(_is_address, names or [])):
        without = [arg, args_in, env, env_file, executable, locked, offline, dry_run, *allowed]
        _check_remote(names or [], without, remote=remote)
    if client:
        _require_tools(client)
    known = variables.read_file(env_file) if env_file else {}
    answers = Answers(tuple(env or ()), known, ask if can_ask(yes=yes) else None)
    answers = replace(answers, only_known=only_asked)
    consent = consent_of(terms, yes=yes)
    args = tuple(map(assignments.argument, arg or ())) or _args_in(args_in)
    request = Request("", name, args, bool(arg), answers=answers, executable=executable)
    request = replace(request, consent=consent)
    request = replace(request, scripts=_listed(allow_scripts), builds=_listed(allow_build))
    began = time.monotonic()
    with open_site(
        terms,
        start=not no_start,
        offline=offline,
        creates=bool(names),
        registry=registry,
        min_age=min_release_age,
    ) as site:
        for text in project_indexes.ignored(Path.cwd()):
            site.bench.note(text)
        if dry_run:
            found = _rehearse(names or [], request, site, locked=locked)
            return _report_rehearsed(terms, found, time.monotonic() - began, client or ())
        if names:
            agrees = address_consent(terms, yes=yes) if remote else None
            act = partial(_install, request=request, site=site, agrees=agrees)
            outcomes = [each(text, act) for text in names]
        else:
            outcomes = sync.install_all(site, locked=locked)
    took_s = time.monotonic() - began
    if client and not any(outcome.error for outcome in outcomes):
        return _report_lent(terms, outcomes, took_s, client, check=check)
    return report(terms, outcomes, took_s, check=check)


def _args_in(variable: str | None) -> tuple[str, ...]:
    """Return the arguments in the environment's `variable`, which nothing started here inherits."""
    if variable is None:
        return ()
    try:
        found = json.loads(os.environ.pop(variable, ""))
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise UsageError(f"`{variable}` is no JSON array of arguments")
    return tuple(found)


def _require_tools(ids: Sequence[str]) -> None:
    # Imported late, here and below: an installation for CI connects nothing.
    from octave.cli import client as clients

    for one in ids:
        clients.tool_of(one)


def _report_rehearsed(
    terms: Manners, found: Sequence[Rehearsed], took_s: float, ids: Sequence[str]
) -> int:
    if not ids or any(one.error for one in found):
        return dry_run_report(terms, found, took_s)
    from octave.cli import client as clients

    lent = clients.lend(ids, terms, dry_run=True)
    more = {"clients": clients.rows(lent, dry_run=True)}
    code = dry_run_report(terms, found, took_s, more=more)
    return code or clients.tell_lent(terms, lent, dry_run=True)


def _report_lent(
    terms: Manners, outcomes: Sequence[Outcome], took_s: float, ids: Sequence[str], *, check: bool
) -> int:
    """Connect the AI tools of `ids`, and tell of them, too."""
    from octave.cli import client as clients

    lent = clients.lend(ids, terms)
    code = report(terms, outcomes, took_s, check=check, more={"clients": clients.rows(lent)})
    return code or clients.tell_lent(terms, lent)


def _install(
    text: str, *, request: Request, site: Site, agrees: Callable[[Entry], bool] | None
) -> Outcome:
    if _is_address(text):
        return own.add(Own(request.name or own.name_of(text), url=text), site)
    if agrees is not None:
        return own.connect(text, request.name, site, agrees)
    return story.install(_meant(text, request, site), site)


def _meant(text: str, request: Request, site: Site) -> Request:
    """Return `request` for what `text` means; a folder gives its name to the server."""
    folder = folder_of(text, Path.cwd())
    if folder is None:
        return replace(request, text=text)
    name = request.name if request.name is not None else short_name(folder.name) or None
    return replace(request, text=folder_request(folder, site.bench.base), name=name)


def _rehearse(
    names: Sequence[str], request: Request, site: Site, *, locked: bool
) -> list[Rehearsed]:
    def one(text: str) -> Rehearsed:
        try:
            return rehearse(_meant(text, request, site), site)
        except OctaveError as error:
            return Rehearsed(text, error=error)

    return [one(text) for text in names] if names else rehearse_all(site, locked=locked)


def _check_words(names: Sequence[str], given: Sequence[object], *, locked: bool) -> None:
    if len(names) != 1 and any(given):
        raise UsageError(
            "`--env`, `--env-file`, `--arg`, `--as`, `--bin`, `--allow-scripts` and "
            "`--allow-build` go with one name",
            hint="`octave install NAME` for each of them",
        )
    if locked and names:
        raise UsageError(
            "`--locked` installs what the lockfile says, so it takes no names",
            hint="octave install --locked",
        )


def _check_remote(names: Sequence[str], without: Sequence[object], *, remote: bool) -> None:
    if remote and (not names or any(without)):
        raise UsageError(
            "`--remote` takes names of the registry, and only `--as`, `--no-start`, `--check`",
            hint="octave install NAME --remote",
        )
    if any(without):
        raise UsageError(
            "an address takes only `--as`, `--no-start`, `--check`",
            hint="octave add NAME URL --header-env 'K: VARIABLE'",
        )


def _is_address(text: str) -> bool:
    return text.lower().startswith(("https://", "http://"))


def _listed(words: list[str] | None) -> tuple[str, ...]:
    """Return the names that `words` list, each of them one or several with commas between."""
    names = (name.strip() for word in words or () for name in word.split(","))
    return tuple(dict.fromkeys(name for name in names if name))
