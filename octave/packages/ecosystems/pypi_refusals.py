"""Why uv found nothing to choose, read from its words. Pure."""

import re

from octave.errors import InstallFailed, OctaveError, PackageNotFound, UsageError
from octave.packages.release_age import ReleaseAge

_TOO_YOUNG = re.compile(
    r"`([\w.-]+)` was filtered by `exclude-newer`.*?The latest version satisfying the requirement"
    r" is v?(\S+?)(?:, published at (\S+?))?\.(?:\s|$)"
)
"""Without a time where the index tells none."""


def refusal(text: str, package: str, min_age: ReleaseAge | None) -> OctaveError | None:
    """Return the error that `text`, uv's words in one line, means for `package`; None: unknown.

    No such package, too young, source only, or wheels only where a source was asked for.
    """
    if re.search(rf"Because {re.escape(package)} was not found in the package registry", text):
        return PackageNotFound(
            f"the package index has no package `{package}`", hint="check the spelling of the name"
        )
    if min_age is not None and (young := _too_young(text, min_age)) is not None:
        return young
    source_only = re.search(r"([\w.-]+)(?:[=<>!]\S+)? ha(?:s|ve) no usable wheels", text)
    if source_only:
        return InstallFailed(
            f"`{source_only[1]}` is offered as source only, and to build that runs its code",
            hint=f"if you trust it: `octave install pypi:{package} "
            f"--allow-build {source_only[1]}`; or choose a version that has wheels, with "
            "`constraints` in `octave.toml`",
        )
    wheels_only = re.search(r"([\w.-]+)(?:[=<>!]\S+)? ha(?:s|ve) no source distribution", text)
    if wheels_only:
        return UsageError(
            f"`{wheels_only[1]}` is offered as wheels only, so there is nothing to build",
            hint="leave it out of `--allow-build`, and of `allow_build` in `octave.toml`",
        )
    return None


def _too_young(text: str, age: ReleaseAge) -> OctaveError | None:
    """Return the error where uv says that only versions are there that are not old enough."""
    hidden = _TOO_YOUNG.search(text)
    if hidden is None:
        return None
    package, version, published = hidden.groups()
    return age.nothing(package, {version: published}) if published else age.unknown(package)
