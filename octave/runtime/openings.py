"""In which era a process is opened, and what is learned of its server from how that goes.

What is known of the installed version comes first. It may be wrong: a command of one's own was
changed, a remote server replaced, or the answer that told of it meant something else. Then the
other era is tried, by turns and as seldom as a failed start is repeated at all; what opens is what
is known from then on. A server that fails in both keeps what was known of it.
"""

from octave.errors import AuthorizationNeeded, OctaveError, RemoteUnreachable
from octave.runtime import handshake
from octave.runtime.handshake import ALL_CAPABILITIES, Era, Opening, initialize_params
from octave.runtime.subject import Role, Subject

DOUBTFUL = 2
"""A process that ends while it is opened may have had its own reasons, once."""


class Openings:
    """The openings of one process."""

    def __init__(self, subject: Subject, role: Role) -> None:
        self._subject = subject
        self._role = role
        self._doubt = 0
        """Grows with what speaks against the era; from `DOUBTFUL` on the other one is tried."""

    @property
    def era(self) -> Era:
        """Of the next one."""
        believed = self._believed
        if self._doubt < DOUBTFUL:
            return believed
        return "legacy" if believed == "modern" else "modern"

    @property
    def is_sure(self) -> bool:
        """Whether `era` is no guess: the server was opened in it before."""
        return not self._doubt and self.era in self._subject.opened

    @property
    def next(self) -> Opening:
        """How to go about it."""
        if self.era == "modern":
            return Opening("modern")
        if self._role.opening is not None:
            return self._role.opening
        # It may serve any client, and lists what it has for those that can answer, too.
        return Opening(params=initialize_params(ALL_CAPABILITIES))

    def failed(self, error: OctaveError) -> bool:
        """Take note of one that came to nothing; return whether `error` tells why."""
        if self._doubt >= DOUBTFUL:
            is_telling = self.era == "legacy"
            self._doubt = 0
            if self._role.era == "modern" and "legacy" in self._subject.open:
                # There is room for one process only, or for one era: the one that is up will do.
                self._learn(("legacy",))
            return is_telling
        self._doubt += self._against(error)
        return True

    def opened(self, era: Era) -> None:
        """Take note of one that succeeded."""
        self._doubt = 0
        self._subject.opened.add(era)
        if era == "modern" and self._role.era is None:
            # It refused the other one, or did not live through it.
            self._learn(("modern",))
        elif era == "legacy" and (self._role.era == "modern" or self._known == ("modern",)):
            self._learn(("legacy",))

    @property
    def _believed(self) -> Era:
        known = self._known
        is_for_modern = self._role.era == "modern" and known != ("legacy",)
        return "modern" if is_for_modern or known == ("modern",) else "legacy"

    @property
    def _known(self) -> tuple[str, ...]:
        offered = self._subject.offered
        return () if offered is None else offered.eras

    def _against(self, error: OctaveError) -> int:
        """Return how much a failure speaks against the era."""
        phase = error.details.get("phase")
        is_about_the_way = isinstance(error, AuthorizationNeeded | RemoteUnreachable)
        if is_about_the_way or phase not in ("initialize", "timeout"):
            return 0
        is_answer = isinstance(error.__cause__, handshake.Refused)
        if self.era == "modern":
            return DOUBTFUL if is_answer or phase == "timeout" else 1
        # An answer would have said that it is the era, and the other one been tried there and then.
        return 1 if self._known and phase == "initialize" and not is_answer else 0

    def _learn(self, eras: tuple[str, ...]) -> None:
        offered = self._subject.offered
        if offered is not None and offered.eras != eras:
            discover = offered.discover if "modern" in eras else None
            self._subject.learned(eras=eras, discover=discover)
