"""Which console script of a PyPI package starts the server. Pure."""

from collections.abc import Sequence

from packaging.utils import canonicalize_name

from octave.errors import Ambiguous, InstallFailed, IntegrityFailed, did_you_mean


def choose_script(package: str, scripts: Sequence[str], executable: str | None) -> str:
    """Return `executable` if it is one of the `scripts` of `package`; for None as `plain_choice`.

    Raises:
        InstallFailed: there is no such script, or none at all.
        Ambiguous: several could be meant.
    """
    if executable is None:
        return plain_choice(package, scripts)
    if executable not in scripts:
        listed = ", ".join(f"`{script}`" for script in scripts)
        raise InstallFailed(
            f"`{package}` has no executable `{executable}`, it has {listed or 'none'}",
            hint=did_you_mean(executable, scripts) or f"choose one with `--bin {scripts[0]}`"
            if scripts
            else "look for another package, or for another version of this one",
        )
    return executable


def plain_choice(package: str, scripts: Sequence[str]) -> str:
    """Return the script that is plainly meant.

    It is named like the package, or the only one, or the only one with `mcp` in its name.

    Raises:
        InstallFailed: there is none.
        Ambiguous: several could be meant.
    """
    if not scripts:
        raise InstallFailed(
            f"`{package}` has no executable, so nothing of it can be started",
            hint="check that the package is a server; its home page says how it is started",
        )
    same = [script for script in scripts if canonicalize_name(script) == canonicalize_name(package)]
    telling = [script for script in scripts if "mcp" in script.lower()]
    for candidates in (same, scripts, telling):
        if len(candidates) == 1:
            return candidates[0]
    raise Ambiguous(
        f"`{package}` has several executables: {', '.join(f'`{script}`' for script in scripts)}",
        hint=f"choose one with `--bin {scripts[0]}`",
    )


def require_own(entry: str, package: str, scripts: Sequence[str]) -> None:
    """Refuse an entry that is none of the `scripts` of `package`: those of others do other things.

    Raises:
        IntegrityFailed: it is none.
    """
    if entry not in scripts:
        raise IntegrityFailed(
            f"the lockfile's entry `{entry}` is no executable of `{package}`",
            hint="remove the server from `octave.lock`, then run `octave lock`",
        )
