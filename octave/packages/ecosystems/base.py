"""What one package ecosystem can do for Octave: npm, PyPI, folders, bundles and images."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from octave.home import Home
from octave.packages.commands import Output
from octave.packages.lockfile import GraphRow, Pin
from octave.packages.release_age import ReleaseAge


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request to an ecosystem: which package, within which limits."""

    package: str
    """Name in the registry, `@scope/name` or `name`, without a kind in front."""
    version_range: str = "*"
    """`*`, an exact version, an npm range or a PEP 440 specifier; `latest` reads as `*`."""
    constraints: tuple[str, ...] = ()
    """Limits on dependencies, `mcp<2`."""
    executable: str | None = None
    """Which of the package's executables; None: the one that is plainly meant."""
    requires: Mapping[str, str] = field(default_factory=dict)
    """Ranges the registry entry knows: `{"node": ">=22"}`, `{"python": ">=3.12"}`."""
    told: str = ""
    """The version its registry entry speaks of; for kinds that know no newest one of their own."""
    scripts: tuple[str, ...] = ()
    """Packages of the graph whose install scripts may run; the locked graph remembers them."""
    builds: tuple[str, ...] = ()
    """Packages of the graph that may be built from source; the locked graph remembers them."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The exact answer to a `Wanted`."""

    version: str
    integrity: str
    """Empty: of a `Bench` that runs nothing, and `graph` may lack rows."""
    graph: tuple[GraphRow, ...]
    requires: Mapping[str, str]
    toolchain: Mapping[str, str]
    entry: str = ""
    """Where the ecosystem can tell before anything is installed (npm)."""
    notes: tuple[str, ...] = ()
    """Sentences the user should read: deprecations, a private toolchain, ignored settings."""


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest version within a `Wanted`, as its registry has it."""

    version: str
    problem: str = ""
    """Why it cannot run on this machine, a sentence; empty: nothing is known to prevent it."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and with what package work is done."""

    home: Home
    environ: Mapping[str, str] = field(repr=False)
    """The user's environment: registry settings, proxies and certificates come from it."""
    progress: Callable[[str], None] = lambda _: None
    """Called with a short sentence, in the present tense, when the next step begins; with an
    empty one when a person is asked something."""
    note: Callable[[str], None] = lambda _: None
    """Called with a sentence the user should read: a deprecation, an ignored setting."""
    offline: bool = False
    base: Path = Path()
    """The manifest's folder, from which relative paths in it count."""
    detail: Callable[[str], None] = lambda _: None
    """Called with a sentence for whoever wants to know more: why npm was needed."""
    counted: Callable[[int, int, str], None] = lambda _done, _total, _unit: None
    """Called now and then with how much of the present step is done, of how much, and of what:
    `packages` or `bytes`."""
    answers: dict[tuple[str, ...], Output] = field(default_factory=dict, repr=False, compare=False)
    """Of commands that only ask, by what was asked: in one piece of work nobody asks twice."""
    runs_code: bool = True
    """False: nothing of a package is run to learn of it, and what only that could tell is left
    out: `Resolved.integrity` is empty then."""
    min_age: ReleaseAge | None = None
    """How old versions must be to be chosen; what is locked is chosen already."""
    asking: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)
    """Held while one is asked: several servers may be installed at once."""

    def ask(self, question: tuple[str, ...], run: Callable[[], Output]) -> Output:
        """Return the answer to `question`, from `run` the first time; blocks.

        Raises:
            InstallFailed: `run` could not be done.
        """
        with self.asking:
            if question not in self.answers:
                self.answers[question] = run()
        return self.answers[question]


class Ecosystem(Protocol):
    """Resolve, install and start packages of one kind. Synchronous; blocks on network and disk."""

    kind: str

    def resolve(self, wanted: Wanted, staging: Path, bench: Bench) -> Resolved:
        """Return the exact version and its whole graph; `staging` is an empty scratch folder.

        Raises:
            PackageNotFound, VersionNotFound, Ambiguous: exit 4.
            RegistryUnreachable: exit 8.
            InstallFailed: no toolchain fits, nothing can be resolved.
        """

    def check(self, pin: Pin, bench: Bench, target: Path | None = None) -> None:
        """Refuse a pin that `install` could make nothing of, without making anything.

        With the folder `target` it is one that is started from what is installed there.

        Raises:
            IntegrityFailed: its rows do not hold together, lack what is needed here, or it would
                be started as no package of its name is.
            InstallFailed: it is not meant for this machine.
        """

    def install(self, pin: Pin, target: Path, bench: Bench) -> None:
        """Fill the empty folder `target` with exactly what `pin` says, and verify it.

        Raises:
            IntegrityFailed: a hash does not hold, or the tree is not what the graph says.
            RegistryUnreachable, InstallFailed: as above.
        """

    def find_entry(self, package: str, executable: str | None, target: Path) -> str:
        """Return the entry of an installed `target`, in the form of `Pin.entry`.

        Raises:
            InstallFailed: the package has no executable.
            Ambiguous: several, and none is plainly meant; the hint says `--bin NAME`.
        """

    def index_host(self, package: str, staging: Path, bench: Bench) -> str:
        """Return the host from which `package` would come here; empty: the public default."""

    def claims(self, package: str, name: str, target: Path) -> bool:
        """Whether the package in an installed `target` says itself that it is the server `name`.

        Name and rule are those of the official registry, which asks for it at publication.
        """

    def argv(self, pin: Pin, target: Path, bench: Bench) -> tuple[str, ...]:
        """Return interpreter and entry file, absolute; arguments are the caller's.

        Called once, before the record is written, with the folder `target` will be renamed to.

        Raises:
            InstallFailed: no toolchain fits.
        """
