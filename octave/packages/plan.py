"""What a first installation would bring, in full, before anything of the package runs."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from octave.errors import Ambiguous, MissingAnswer, OctaveError
from octave.packages import specs, store, variables
from octave.packages.ecosystems import ECOSYSTEMS
from octave.packages.graph_rows import buildable, marked
from octave.packages.imitation import imitated
from octave.packages.launch_place import Place
from octave.packages.lockfile import Pin
from octave.packages.manifest import ServerEntry
from octave.packages.placement import Site, record_of
from octave.packages.preview import Preview, preview
from octave.packages.registry import Registry, bundled_folder
from octave.packages.resolve import Choice


@dataclass(frozen=True, slots=True)
class Asked:
    """A variable that the server gets or wants; its value is never part of this."""

    name: str
    secret: bool
    required: bool
    given: bool
    """There is a value, in the manifest, on the command line or by default."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One server as it would be installed."""

    pin: Pin
    choice: Choice
    command: tuple[str, ...]
    """Interpreter, entry file and arguments; empty where only the installed package can tell."""
    told: Preview
    variables: tuple[Asked, ...]
    looks_like: str | None = None
    """A known package that this one may be mistaken for."""

    @property
    def is_whole(self) -> bool:
        """Whether all is known; else the rest is, once its build code was run."""
        return bool(self.pin.integrity)

    @property
    def is_curated(self) -> bool:
        """Whether the bundled registry stands for it."""
        return self.choice.entry is not None and not self.choice.entry.registry

    @property
    def standing(self) -> str:
        """What Octave's registry says of it: `official`, `listed`, `archived`, `deprecated`.

        `named` where another registry names it, `unknown` where none does; `own` of a folder.
        """
        entry, known = self.choice.entry, self.choice.known
        if self.choice.kind == "folder":
            return "own"
        if entry is None:
            return "unknown"
        if entry.registry:
            return "named"
        if entry.deprecated is not None:
            return "deprecated"
        if known is not None and known.archived:
            return "archived"
        return "official" if entry.vendor_official else "listed"

    @property
    def scripts(self) -> frozenset[str]:
        """Packages whose install scripts run."""
        return marked(self.pin.graph, "runScripts")

    @property
    def idle_scripts(self) -> frozenset[str]:
        """Packages with install scripts that do not run."""
        return marked(self.pin.graph, "hasInstallScript") - self.scripts

    @property
    def builds(self) -> frozenset[str]:
        """Packages that are built from source, a folder of Python's too, to be locked."""
        has_built = self.choice.kind == "folder" and bool(buildable(self.pin.graph))
        own = {self.choice.source} if has_built else set()
        return marked(self.pin.graph, "build") | own

    def as_json(self) -> dict[str, object]:
        """Return it as scripts get it."""
        return {
            "package": self.choice.source,
            "range": self.choice.version_range,
            "integrity": self.pin.integrity or None,
            "standing": self.standing,
            "registry": (self.choice.entry.registry or "bundled") if self.choice.entry else None,
            "publisher": {
                "by": self.told.published_by or None,
                "maintainers": list(self.told.maintainers),
                "page": self.told.page or None,
            },
            "command": list(self.command) or None,
            "packages": len(self.pin.graph) if self.is_whole else None,
            "variables": [
                {
                    "name": one.name,
                    "secret": one.secret,
                    "required": one.required,
                    "given": one.given,
                }
                for one in self.variables
            ],
            "scripts": {"run": sorted(self.scripts), "ignored": sorted(self.idle_scripts)},
            "builds": sorted(self.builds),
            "looksLike": self.looks_like,
        }


@dataclass(frozen=True, slots=True)
class Consent:
    """How somebody agrees to a first installation."""

    agrees: Callable[[Plan], bool]
    """Shows the plan, asks where that is possible, and tells whether it may go on."""
    can_ask: bool = False
    is_given: bool = False
    """Agreed to beforehand; not to what only looks like something known."""
    is_shown: bool = True
    """Somebody reads the plan; else it is made only where somebody is asked."""


def require_answerable(choice: Choice, consent: Consent, command: str) -> str | None:
    """Return the known package that `choice` looks like, before anything is asked of a registry.

    `command` is what was typed, without its options.

    Raises:
        Ambiguous: it looks like one, and nobody can be asked which is meant.
        MissingAnswer: nothing vouches for it, and nobody can be asked.
    """
    known = None
    if choice.entry is None:
        known = imitated(choice.kind, choice.package, Registry(bundled_folder()))
    if known is not None and not (consent.can_ask and not consent.is_given):
        raise Ambiguous(
            f"`{choice.source}` looks like `{known}`, which Octave knows, and is another package",
            hint=f"`octave install {known}`; if you do mean the other one, answer on a terminal, "
            f'or write `package = "{choice.source}"` into `octave.toml`',
            details={"candidates": [known, choice.source]},
        )
    is_curated = choice.entry is not None and not choice.entry.registry
    if choice.kind == "folder":
        return None
    if not (is_curated or consent.is_given or consent.can_ask):
        raise MissingAnswer(
            f"`{choice.source}` is not in Octave's registry, and nobody can be asked for consent",
            hint=f"`{command} -y`; `octave install {choice.source} --dry-run` shows what it brings",
        )
    return known


def plan_of(pin: Pin, choice: Choice, server: ServerEntry, site: Site, staging: Path) -> Plan:
    """Return what `pin` would bring as `server`; `staging` is a scratch folder.

    Raises:
        RegistryUnreachable, InstallFailed: nobody can tell, or no toolchain fits.
    """
    is_whole = bool(pin.integrity)
    told = preview(pin, server.version, staging, site.bench) if is_whole else Preview()
    return Plan(
        pin,
        choice,
        _command(pin, told.entry, server, site),
        told,
        tuple(_variables(pin, choice, server, site.bench.environ)),
    )


def _command(pin: Pin, entry: str, server: ServerEntry, site: Site) -> tuple[str, ...]:
    home = site.workspace.home
    folder = home.servers / pin.name / pin.folder
    whole = replace(pin, entry=pin.entry or entry)
    if not whole.entry and pin.kind != "oci":
        return ()

    try:
        argv = ECOSYSTEMS[pin.kind].argv(whole, folder, site.bench)
        record = record_of(whole, store.portable(argv, folder, home))
        place = Place(site.workspace, server, record, folder)
        return (*place.told(specs.passed(site.bench.environ)), *map(str, server.args))
    except OctaveError:
        return ()


def _variables(
    pin: Pin, choice: Choice, server: ServerEntry, environ: Mapping[str, str]
) -> Iterator[Asked]:
    required = {*pin.required_env, *(name for group in pin.env_one_of[:1] for name in group)}
    given = {*server.env, *pin.env, *(name for name in server.pass_env if name in environ)}
    for name in sorted({*required, *given, *server.pass_env}):
        secret = variables.is_secret(name, choice.known)
        yield Asked(name, secret, name in required, name in given)
