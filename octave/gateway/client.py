"""The client of a session: what it said of itself, and what it is being asked.

Questions go out under ids of the session's own, since servers number theirs as they like. What the
client answers goes back as it came, but for the id.
"""

from collections.abc import Callable
from dataclasses import dataclass

import anyio

from octave.gateway.eras import Envelope
from octave.gateway.listing import text_of
from octave.runtime import wire
from octave.runtime.handshake import Era, Opening, initialize_params
from octave.runtime.pending import plain
from octave.runtime.questions import OPEN_LIMIT, Question
from octave.runtime.wire import Message

Send = Callable[[bytes], None]
"""Takes a line without newline; must neither block nor raise."""

NEEDS = {
    "sampling/createMessage": "sampling",
    "elicitation/create": "elicitation",
    "roots/list": "roots",
}
"""What a client must have announced to be asked this (MCP 2025-11-25); other methods nothing."""


class Gone(Exception):
    """Raised to whoever waits for an answer of a client that has left."""


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    identifier: bytes
    """Under which it was asked, raw."""
    send: Send
    answered: Callable[[Message | None], None]
    """None: the client has left."""
    token: bytes | None = None
    """The server's progress token."""
    shown: bytes | None = None
    """What the client knows it as, `plain`."""
    on_progress: Send | None = None


class Client:
    """What is known of the other end of a session."""

    def __init__(self) -> None:
        self.params = initialize_params()
        """Of its `initialize`, raw."""
        self.capabilities = b"{}"
        """What it announced in a handshake, raw."""
        self.is_modern = False
        """It has sent a modern request."""
        self.is_listening = False
        """It has opened a legacy conversation: before that it hears nothing unasked."""
        self.level: str | None = None
        """The least severe log level it wants; None: it never said."""
        self._asked: dict[bytes, _Asked] = {}
        """By id, `plain`."""
        self._is_gone = False
        self._last_id = 0
        self._late: dict[bytes, None] = {}
        """Ids of what was withdrawn: an answer on its way must not be one to something else."""
        self._elicitations: dict[str, None] = {}
        """Ids of those that are completed elsewhere, the latest last."""
        self._looked_at = b"{}"
        self._can_answer = False
        """What `_looked_at` comes to."""

    @property
    def era(self) -> Era | None:
        """Of what it said so far; None: nothing yet."""
        if self.is_listening:
            return "legacy"
        return "modern" if self.is_modern else None

    def can_answer(self, said: Envelope | None) -> bool:
        """Whether it can be asked something; `said` is the envelope of a modern request."""
        capabilities = self.capabilities if said is None else said.capabilities
        if capabilities != self._looked_at:
            # Looked at anew only when it says something else.
            self._looked_at = capabilities
            self._can_answer = any(announces(capabilities, need) for need in NEEDS.values())
        return self._can_answer

    def opening(self, said: Envelope | None) -> Opening:
        """Return how a legacy server is opened for this client alone: as it would do itself."""
        if said is None:
            return Opening(params=self.params)
        return Opening(params=initialize_params(said.capabilities, said.client_info))

    @property
    def as_envelope(self) -> Envelope:
        """What a modern server is told of a legacy client."""
        info = wire.member(self.params, "clientInfo") or b""
        return Envelope(self.capabilities, info if info.startswith(b"{") else None, self.level)

    def greeted(self, params: bytes | None) -> None:
        """Take the params of its `initialize`."""
        self.params = params or initialize_params()
        capabilities = wire.member(self.params, "capabilities") or b""
        self.capabilities = capabilities if capabilities.startswith(b"{") else b"{}"
        self.is_listening = True

    def pass_on(self, question: Question, send: Send, *, keeps_id: bool) -> None:
        """Ask it what a server asks, through `send`, and pass the answer back.

        With `keeps_id` under the server's own id, if that is free.
        """
        message = question.message
        if self._is_gone:
            question.refuse(wire.INTERNAL_ERROR, "the client has left")
            return
        method = message.method or ""
        lacks = lack(self.capabilities, method, message.params)
        if lacks is not None or not self.is_listening:
            text = f"the client has no `{lacks}`" if lacks else f"Method not found: {method}"
            question.refuse(wire.METHOD_NOT_FOUND, text)
            return
        self._remember(message.params)
        own = message.id or b"null"
        is_kept = keeps_id and self._is_free(plain(own))
        identifier = own if is_kept else self._next_id()
        key = plain(identifier)
        changes: dict[wire.Path, bytes] = {} if is_kept else {("id",): identifier}
        token = wire.member(message.params or b"{}", "_meta", "progressToken")
        if token is not None and not is_kept:
            changes["params", "_meta", "progressToken"] = identifier

        def answered(answer: Message | None) -> None:
            if answer is None:
                question.refuse(wire.INTERNAL_ERROR, "the client has left")
            else:
                question.answer(answer.line)

        shown = plain(token or b"null") if is_kept else key
        self._asked[key] = _Asked(identifier, send, answered, token, shown, question.send)
        question.on_withdrawn = lambda said: self.withdraw(key, said)
        send(wire.splice(message.line, changes))

    async def ask(self, method: str, params: bytes | None, send: Send) -> Message:
        """Ask it something through `send` and return its answer; cancelled, it is told so.

        Raises:
            Gone: it has left.
        """
        if self._is_gone:
            raise Gone
        self._remember(params)
        identifier, done, found = self._next_id(), anyio.Event(), list[Message | None]()

        def answered(answer: Message | None) -> None:
            found.append(answer)
            done.set()

        self._asked[identifier] = _Asked(identifier, send, answered)
        send(wire.request(identifier, method, params))
        try:
            await done.wait()
        finally:
            self.withdraw(identifier)
        if found[0] is None:
            raise Gone
        return found[0]

    def was_sent_to(self, elicitation: str | None) -> bool:
        """Whether it was asked to open a URL, for the elicitation of that id."""
        return elicitation is not None and elicitation in self._elicitations

    def _remember(self, params: bytes | None) -> None:
        elicitation = text_of(params, "elicitationId")
        if elicitation is not None:
            self._elicitations[elicitation] = None
            if len(self._elicitations) > OPEN_LIMIT:
                del self._elicitations[next(iter(self._elicitations))]

    def answered(self, message: Message) -> None:
        """Take an answer of the client; one to nothing is dropped."""
        key = plain(message.id or b"null")
        asked = self._asked.pop(key, None)
        if asked is not None:
            asked.answered(message)
        else:
            self._late.pop(key, None)

    def progressed(self, message: Message) -> bool:
        """Take a progress notification of the client; False when it is not about a question."""
        shown = plain(wire.member(message.params or b"{}", "progressToken") or b"null")
        asked = next((each for each in self._asked.values() if each.shown == shown), None)
        if asked is None or asked.token is None or asked.on_progress is None:
            return False
        asked.on_progress(wire.splice(message.line, {("params", "progressToken"): asked.token}))
        return True

    def withdraw(self, key: bytes, said: Message | None = None) -> None:
        """Tell it that nobody wants to know any more; nothing happens when it has answered.

        `key` is the id of the question, `plain`, and `said` how the server took it back.
        """
        asked = self._asked.pop(key, None)
        if asked is None:
            return
        self._late[key] = None
        if len(self._late) > OPEN_LIMIT:
            del self._late[next(iter(self._late))]
        if said is not None:
            asked.send(wire.splice(said.line, {("params", "requestId"): asked.identifier}))
        else:
            params = b'{"requestId":%b}' % asked.identifier
            asked.send(wire.notification("notifications/cancelled", params))

    def leave(self) -> None:
        """Answer every question in its stead, those to come as well: it is gone."""
        self._is_gone = True
        while self._asked:
            _, asked = self._asked.popitem()
            asked.answered(None)

    def _next_id(self) -> bytes:
        while True:
            self._last_id += 1
            identifier = b'"octave-%d"' % self._last_id
            # A server may have thought of the same.
            if self._is_free(identifier):
                return identifier

    def _is_free(self, key: bytes) -> bool:
        return key not in self._asked and key not in self._late


def announces(capabilities: bytes, *need: str) -> bool:
    """Whether a client that announced these capabilities has that one, which may lie deeper."""
    return wire.member(capabilities, *need) not in (None, b"null")


def lack(capabilities: bytes, method: str, params: bytes | None) -> str | None:
    """Return which capability a client lacks that is to be asked that; None when it has them all.

    (MCP 2025-11-25: a client without modes of elicitation shows forms; sampling, tools)
    """
    need = NEEDS.get(method)
    if need is None:
        return None
    if not announces(capabilities, need):
        return need
    part = None
    if method == "elicitation/create":
        part = "url" if text_of(params, "mode") == "url" else "form"
    elif method == "sampling/createMessage" and announces(params or b"{}", "tools"):
        part = "tools"
    if part is None or announces(capabilities, need, part):
        return None
    shows_forms = part == "form" and not announces(capabilities, need, "url")
    return None if shows_forms else f"{need}.{part}"
