"""What became of several servers: told one by one, or as one JSON document; and the exit code."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from octave.cli import render
from octave.cli.options import Manners
from octave.cli.output import safe, tell, tell_error, write, write_json
from octave.errors import OctaveError, StartFailed, common_code, storage_told
from octave.packages.install import Outcome

_NEW = frozenset({"installed", "added"})


def each(name: str, act: Callable[[str], Outcome]) -> Outcome:
    """Do `act` to the server `name`; what goes wrong is its outcome, and the others' go on."""
    try:
        with storage_told():
            return act(name)
    except OctaveError as error:
        return Outcome(name, "failed", error=error)


def report(
    terms: Manners,
    outcomes: Sequence[Outcome],
    took_s: float,
    *,
    check: bool = False,
    more: Mapping[str, object] | None = None,
) -> int:
    """Tell what became of each, and return the exit code: the failures' common one, else 1.

    With `check` a server that could not be started once counts as one. `more` is what scripts are
    told besides.
    """
    failures = [outcome.error for outcome in outcomes if outcome.error is not None]
    if terms.as_json:
        if len(outcomes) == len(failures) == 1:
            raise failures[0]
        results = [outcome_json(outcome) for outcome in outcomes]
        write_json({"results": results, "tookSeconds": round(took_s, 3), **(more or {})})
    else:
        for outcome in outcomes:
            tell_outcome(outcome)
        if not outcomes:
            tell("`octave.toml` names no package, so there is nothing to do")
        if not terms.quiet and not failures and outcomes:
            tell(f"done in {took_s:.1f} s")
        if not terms.quiet and any(o.status in _NEW and o.checked for o in outcomes):
            first = next(o.name for o in outcomes if o.checked)
            tell(f"next: `octave tools {first}`, or `octave client add claude`")
    if check and any(o.status in {*_NEW, "present"} and not o.checked for o in outcomes):
        failures.append(StartFailed("it could not be checked"))
    return common_code(failures)


def tell_outcome(outcome: Outcome) -> None:
    """Write what became of one server."""
    if outcome.error is not None:
        tell_error(outcome.error, as_json=False)
        return
    tools = f" ({render.count(outcome.tools, 'tool')})" if outcome.tools is not None else ""
    version = f" {outcome.version}" if outcome.version else ""
    if outcome.previous and outcome.previous != outcome.version:
        version = f" {outcome.previous} -> {outcome.version}"
    write(safe(f"{outcome.status} {outcome.name}{version}{tools}"))
    if outcome.warning:
        tell(f"warning: {safe(outcome.warning)}")
    if outcome.note:
        tell(f"note: {safe(outcome.note)}")


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return one of the `results` of `--json`."""
    return {
        "name": outcome.name,
        "status": outcome.status,
        "version": outcome.version or None,
        "checked": outcome.checked,
        "tools": outcome.tools,
        "warning": outcome.warning or None,
        "error": outcome.error.as_json() if outcome.error else None,
        **({"note": outcome.note} if outcome.note else {}),
        **({"previous": outcome.previous} if outcome.previous else {}),
        **outcome.facts,
    }
