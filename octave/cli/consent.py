"""What a person is shown before something is installed for the first time, and is asked."""

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from octave.cli import render
from octave.cli.asking import can_ask, confirm
from octave.cli.options import Manners
from octave.cli.output import one_line, safe, tell, tell_error, write, write_json
from octave.errors import MissingAnswer, common_code
from octave.packages.entries import Entry
from octave.packages.plan import Asked, Consent, Plan
from octave.packages.preview import Preview
from octave.packages.rehearsal import Rehearsed

_STANDING = {
    "official": "in Octave's registry; the maker of the product maintains it",
    "listed": "in Octave's registry",
    "archived": "in Octave's registry; archived upstream, no longer maintained",
    "deprecated": "in Octave's registry; deprecated",
    "named": "named by the registry `{}`, in which anybody may publish",
    "own": "a folder of this machine",
    "unknown": "not in Octave's registry; nobody vouches for it",
}


def consent_of(terms: Manners, *, yes: bool) -> Consent:
    """Return how this invocation agrees to first installations.

    What Octave's registry knows goes on where nobody can be asked; all else needs `-y` then.
    """

    asks = can_ask(yes=yes)
    is_shown = not (terms.quiet or terms.as_json)

    def agrees(plan: Plan) -> bool:
        if is_shown or asks:
            for line in lines(plan):
                tell(one_line(line))
        if not asks:
            return True
        if plan.looks_like is not None:
            tell(
                f"`{safe(plan.choice.source)}` looks like `{plan.looks_like}`, and is another "
                "package"
            )
        return confirm(
            f"Install `{plan.pin.name}`?", default=plan.is_curated or plan.standing == "own"
        )

    return Consent(agrees, can_ask=asks, is_given=yes, is_shown=is_shown)


def address_consent(terms: Manners, *, yes: bool) -> Callable[[Entry], bool]:
    """Return how this invocation agrees to the address that a registry names for a server."""

    def agrees(entry: Entry) -> bool:
        url = entry.remotes[0].url
        key = "named" if entry.registry else "listed"
        asks = bool(entry.registry) and can_ask(yes=yes)
        if asks or not (terms.quiet or terms.as_json):
            tell(one_line(f"{entry.request}: {url}, {_STANDING[key].format(entry.registry)}"))
        if asks:
            return confirm(f"Connect `{entry.short_name}`?")
        if entry.registry and not yes:
            raise MissingAnswer(
                f"`{entry.request}` is hosted where only the registry `{entry.registry}` says, and "
                "nobody can be asked for consent",
                hint=f"octave install {entry.request} --remote -y",
            )
        return True

    return agrees


def lines(plan: Plan) -> Iterator[str]:
    """Yield all that decides what is installed and run, nothing of it shortened."""
    pin, entry = plan.pin, plan.choice.entry
    standing = _STANDING[plan.standing].format(entry.registry if entry else "")
    yield f"{pin.name}: {plan.choice.source} {pin.version or '(version unknown)'}, {standing}"
    if plan.standing != "own":
        yield f"  publisher, by its own account: {_publisher(plan.told)}"
    command = " ".join(map(shlex.quote, plan.command))
    yield f"  runs: {command or 'known once it is installed'}"
    brings = render.count(len(pin.graph), "package")
    if plan.is_whole:
        yield f"  brings: {brings}, each locked by its hash"
    else:
        yield f"  brings: {brings} at least; all of it is known once its build code was run"
    if plan.variables:
        yield f"  variables: {', '.join(map(_variable, plan.variables))}"
    for said, names in (
        ("RUNS the install scripts of", plan.scripts),
        ("RUNS the build code of", plan.builds),
        ("install scripts that do not run", plan.idle_scripts),
    ):
        if names:
            yield f"  {said}: {', '.join(sorted(names))}"


def _publisher(told: Preview) -> str:
    people = _one_line(", ".join(told.maintainers))
    by = _one_line(told.published_by)
    who = f"{by} (maintainers: {people})" if by and people else by or people or "unknown"
    return who + (f", {_one_line(told.page)}" if told.page else "")


def dry_run_report(
    terms: Manners,
    found: Sequence[Rehearsed],
    took_s: float,
    *,
    more: Mapping[str, object] | None = None,
) -> int:
    """Tell what an installation would do; return the exit code: the failures' common one, else 1.

    `more` is what scripts are told besides.

    Raises:
        OctaveError: with `--json`, where it is all there is to tell.
    """
    failures = [one.error for one in found if one.error is not None]
    if terms.as_json:
        if len(found) == len(failures) == 1:
            raise failures[0]
        rows = [_row(one) for one in found]
        told = {"results": rows, "dryRun": True, "tookSeconds": round(took_s, 3)}
        write_json({**told, **(more or {})})
    else:
        for one in found:
            if one.error is not None:
                tell_error(one.error, as_json=False)
            if one.plan is not None:
                version = safe(one.plan.pin.version)
                write(f"{_STATUS[_status(one)]} {one.name} {version}".rstrip())
                for line in lines(one.plan):
                    write(one_line(f"  {line}"))
                if one.download_bytes is not None:
                    write(f"    download: {render.size(one.download_bytes)} at most")
        if not found:
            tell("`octave.toml` names no package, so there is nothing to do")
    return common_code(failures)


_STATUS = {"would-install": "would install", "present": "present"}


def _status(one: Rehearsed) -> str:
    return "present" if one.is_present and one.is_locked else "would-install"


def _row(one: Rehearsed) -> dict[str, object]:
    if one.plan is None:
        error = one.error.as_json() if one.error else None
        return {"name": one.name, "status": "failed", "version": None, "error": error}
    return {
        "name": one.name,
        "status": _status(one),
        "version": one.plan.pin.version or None,
        "error": None,
        "locked": one.is_locked,
        "downloadBytes": one.download_bytes,
        "plan": one.plan.as_json(),
    }


def _variable(variable: Asked) -> str:
    marks = [
        word
        for word, holds in (
            ("secret", variable.secret),
            ("required, not given", variable.required and not variable.given),
        )
        if holds
    ]
    return variable.name + (f" ({', '.join(marks)})" if marks else "")


def _one_line(text: str) -> str:
    # What a package says of itself must not look like a line of Octave's own.
    return " ".join(text.split())
