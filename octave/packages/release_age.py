"""How old a version must be to be chosen: most malicious ones are withdrawn within days. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from octave.errors import InstallFailed, UsageError, VersionNotFound
from octave.settings import parse_duration

_LONGEST_S = 100 * 365 * 86400.0


@dataclass(frozen=True, slots=True)
class ReleaseAge:
    """The least age of a version, counted from one moment for a whole piece of work."""

    text: str
    """As it was asked for: `7d`."""
    now: datetime
    before: datetime
    """What was published later is too young."""

    @property
    def cutoff(self) -> str:
        """`before` as npm and uv take it, RFC 3339."""
        return f"{self.before:%Y-%m-%dT%H:%M:%SZ}"

    def admits(self, published: str) -> bool:
        """Whether what was published then, RFC 3339, is old enough; what cannot be read is not."""
        try:
            return _moment(published) <= self.before
        except ValueError:
            return False

    def age(self, published: str) -> str:
        """Return how old that is, for a person."""
        try:
            seconds = (self.now - _moment(published)).total_seconds()
        except ValueError:
            return "of unknown age"
        for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
            count = int(seconds // length_s)
            if count >= (2 if unit == "day" else 1):
                return f"{count} {unit}{'s' if count > 1 else ''} old"
        return "less than a minute old"

    def nothing(self, package: str, found: Mapping[str, str]) -> VersionNotFound:
        """Return the error for a `package` of which all that fits is too young.

        `found` has those versions and when they were published, the newest first.
        """
        newest = ", ".join(f"`{version}`, {self.age(when)}" for version, when in found.items())
        return VersionNotFound(
            f"`{package}` has no fitting version that is {self.text} old: the newest is "
            f"{newest or 'none'}",
            hint="wait, ask for an older range, or leave out `--min-release-age`",
            details={"package": package, "tooYoung": dict(found), "minReleaseAge": self.text},
        )

    def unknown(self, package: str) -> InstallFailed:
        """Return the error for a registry that does not say how old `package` is."""
        return InstallFailed(
            f"the registry does not tell when the versions of `{package}` were published, so "
            f"nobody knows which are {self.text} old",
            hint="leave out `--min-release-age`, or use a registry that tells",
            details={"package": package, "minReleaseAge": self.text},
        )


def release_age(text: str | None, now: datetime | None = None) -> ReleaseAge | None:
    """Return what `text`, a duration such as `7d`, asks of versions; None for None and `0d`.

    Raises:
        UsageError: it is no duration, or endless.
    """
    if text is None:
        return None
    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise UsageError(f"`--min-release-age`: {error}", hint="--min-release-age 7d") from None
    if seconds is None or seconds > _LONGEST_S:
        raise UsageError(f"no version will ever be `{text}` old", hint="--min-release-age 7d")
    moment = now or datetime.now(UTC)
    return ReleaseAge(text, moment, moment - timedelta(seconds=seconds)) if seconds else None


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
