"""What an AI tool has said and not been answered: enough to go on with another runtime.

All bytes of `octave proxy` pass through here. Nothing is decoded: two anchored patterns find the id
of all ordinary messages, and a walk over the quotes and brackets finds it in the others. Ids are
kept and given back as the text they came in.
"""

import re
from collections.abc import Callable, Iterator

_LIMIT_BYTES = 4 * 2**20
"""Of ids, and again of lines to be said anew; beyond it the oldest ids and new lines are let go."""

_LINE_LIMIT_BYTES = 32 * 2**20
"""Twice the largest message: of a longer line, which no runtime takes, the beginning is let go."""

_ENTRY_BYTES = 128
"""What an id costs beyond its text."""

_APART_BYTES = 64 * 1024
"""Shorter pieces of a line are joined at once: kept each for itself they take more."""

_UNSETTLED_BYTES = 4 * 1024
"""Looked at together; of more the time would be felt."""

_TAIL_BYTES = 256
"""Ids and methods of messages that begin with their params stand in the last bytes."""

# Texts without a backslash only; the few others are found by the walk.
_TEXT = rb'"[^"\\]*"'
_SCALAR = _TEXT + rb'|[^\s,:"{}\[\]\\]+'
_MEMBER = (
    rb'(?:"jsonrpc"\s*:\s*' + _TEXT + rb'|"id"\s*:\s*(?P<id>' + _SCALAR + rb")"
    rb'|"method"\s*:\s*(?P<method>' + _TEXT + rb"))"
)
_HEAD = re.compile(rb"\s*\{\s*(?:" + _MEMBER + rb'\s*[,}]\s*)*(?:"(?P<next>result|error)"\s*:)?')
"""The members before the first that may hold others: nothing there can be nested."""

_TAIL = re.compile(rb"(?:[,{]\s*" + _MEMBER + rb"\s*)+\}\s*\Z")
"""The members after the last such: what stands directly before the last brace is on top."""

_TOKEN = re.compile(rb'"[^"]*"|[{}\[\]]')
_ON_TOP = re.compile(rb'"(id|method|result|error)"\s*:\s*("[^"]*"|[^\s,"{}\[\]]+)?')
_REQUEST_ID = re.compile(rb'"requestId"\s*:\s*(' + _SCALAR + rb")")
_URI = re.compile(rb'"uri"\s*:\s*(' + _TEXT + rb")")

_LISTS = (b"tools", b"prompts", b"resources")
_LOST = (
    b'{"jsonrpc":"2.0","id":%b,"error":{"code":-32603,"message":"%b","data":{"octave":'
    b'{"code":"server_died","message":"%b","hint":null,"details":{}}}}}\n'
)
_WHY = b"the runtime ended before it answered; outcome unknown"


class Ledger:
    """The lines of one client on their way, its open requests, and what a runtime knows of it.

    The last is the handshake, the log level and the subscriptions to resources. Not bounded here:
    how much is said and not taken yet; whoever says it looks at `unsent_bytes`. What passed is not
    looked at before somebody wants to know, or has the time for it: `settle`.
    """

    def __init__(self) -> None:
        self._said: bytes | bytearray = b""
        self._sent_bytes = 0
        self._heard: list[bytes] = []
        self._passed: list[tuple[Callable[[bytes], object], bytes]] = []
        self._passed_bytes = 0
        self._open: dict[bytes, int] = {}
        self._open_bytes = 0
        self._standing: dict[bytes, tuple[bytes | None, bytes]] = {}
        self._standing_bytes = 0
        self._unwanted: set[bytes] = set()
        self._lists: tuple[bytes, ...] = ()

    def say(self, piece: bytes) -> None:
        """Add what the client wrote."""
        if not self._said:
            self._said = piece
        else:
            self._own().extend(piece)

    @property
    def unsent_bytes(self) -> int:
        """How much the runtime has still to take."""
        return len(self._said) - self._sent_bytes

    @property
    def is_settled(self) -> bool:
        """Everything that passed was looked at."""
        return not self._passed

    @property
    def is_due(self) -> bool:
        """So much has passed that `settle` should not wait for a lull."""
        return self._passed_bytes > _UNSETTLED_BYTES

    def send(self, take: Callable[[bytes | bytearray | memoryview], int]) -> None:
        """Let `take` have what is unsent; it returns how many bytes of that it took.

        A line is kept until its end was taken. From then on its request is open, once `settle` was
        there.
        """
        before = self._sent_bytes
        if before:
            with memoryview(self._said) as said, said[before:] as unsent:
                self._sent_bytes += take(unsent)
        else:
            self._sent_bytes = take(self._said)
        if self._sent_bytes == len(self._said) and self._said.endswith(b"\n"):
            lines, self._said, self._sent_bytes = bytes(self._said), b"", 0
            self._pass(self._left, lines)
            return
        end = self._said.rfind(b"\n", before, self._sent_bytes) + 1
        if end:
            with memoryview(self._said) as said, said[:end] as left:
                self._pass(self._left, bytes(left))
        elif self._sent_bytes > _LINE_LIMIT_BYTES:
            end = self._sent_bytes
        del self._own()[:end]
        self._sent_bytes -= end

    def _own(self) -> bytearray:
        """Return what was said as it can be changed in place."""
        if isinstance(self._said, bytes):
            self._said = bytearray(self._said)
        return self._said

    def hear(self, piece: bytes) -> bytes:
        """Take what the runtime wrote; return the lines for the client that end in it.

        What they answer is open until `settle`, which may come after the client has them.
        """
        end = piece.rfind(b"\n") + 1
        if not end:
            self._keep(piece)
            return b""
        rest = piece[end:]
        lines = piece if not rest else piece[:end]
        if self._heard:
            lines = b"".join((*self._heard, lines))
            self._heard.clear()
        if rest:
            self._heard.append(rest)
        if not self._unwanted:
            self._pass(self._answered, lines)
            return lines
        self.settle()
        every = lines.split(b"\n")
        wanted = [line for line in every if self._is_wanted(line)]
        return lines if len(wanted) == len(every) else b"\n".join(wanted)

    def _keep(self, piece: bytes) -> None:
        # Put together once, where it is long: what grows is copied again and again.
        if self._heard and len(self._heard[-1]) < _APART_BYTES:
            self._heard[-1] += piece
        else:
            self._heard.append(piece)

    def settle(self) -> None:
        """Take note of what the lines that passed ask and answer."""
        passed, self._passed, self._passed_bytes = self._passed, [], 0
        for look, lines in passed:
            look(lines)

    def _pass(self, look: Callable[[bytes], object], lines: bytes) -> None:
        self._passed.append((look, lines))
        self._passed_bytes += len(lines)

    def lost(self) -> bytes:
        """The runtime ended; return the answers to what it had taken and not answered.

        A handshake without an answer stays open: the next runtime gives it. What it had not taken
        to the end of the line is unsent again, and the half line that it wrote is forgotten.
        """
        self.settle()
        self._sent_bytes = 0
        self._heard.clear()
        handshake = self._initialize()
        answers = [
            _LOST % (identifier, _WHY, _WHY)
            for identifier, count in self._open.items()
            if identifier != handshake
            for _ in range(count)
        ]
        for key, (identifier, _line) in list(self._standing.items()):
            if identifier in self._open and identifier != handshake:
                self._forget(key)
        is_open = handshake is not None and handshake in self._open
        self._open = {handshake: 1} if handshake is not None and is_open else {}
        self._open_bytes = sum(map(_cost_bytes, self._open))
        self._unwanted.clear()
        return b"".join(answers)

    def anew(self) -> bytes:
        """Return the lines another runtime begins with; the answers to them will be swallowed."""
        self.settle()
        ids = {identifier for identifier, _ in self._standing.values() if identifier is not None}
        self._unwanted = ids - self._open.keys()
        return b"".join(line + b"\n" for _, line in self._standing.values())

    def news(self) -> bytes:
        """Return what makes the client ask again for every list it was promised."""
        self.settle()
        line = b'{"jsonrpc":"2.0","method":"notifications/%b/list_changed"}\n'
        return b"".join(line % kind for kind in self._lists)

    def _answered(self, lines: bytes) -> None:
        if self._open:
            for line in _each(lines):
                self._is_wanted(line)

    def _left(self, lines: bytes) -> None:
        for line in _each(lines):
            identifier, method = envelope(line)
            if method is None:
                continue
            if identifier is not None:
                self._begin(identifier)
            elif method == b'"notifications/cancelled"':
                for cancelled in _REQUEST_ID.findall(line):
                    self._end(cancelled)
            self._remember(identifier, method, line)

    def _is_wanted(self, line: bytes) -> bool:
        identifier, method = envelope(line)
        if identifier is None or method is not None:
            return True
        if identifier in self._unwanted:
            self._unwanted.discard(identifier)
            return False
        if identifier in self._open:
            self._end(identifier)
            if identifier == self._initialize():
                self._lists = tuple(kind for kind in _LISTS if b'"%b"' % kind in line)
        return True

    def _begin(self, identifier: bytes) -> None:
        self._open[identifier] = self._open.get(identifier, 0) + 1
        self._open_bytes += _cost_bytes(identifier)
        while self._open_bytes > _LIMIT_BYTES:
            oldest = next(iter(self._open))
            self._open_bytes -= _cost_bytes(oldest) * self._open.pop(oldest)

    def _end(self, identifier: bytes) -> None:
        count = self._open.get(identifier, 0)
        if count:
            self._open_bytes -= _cost_bytes(identifier)
        if count > 1:
            self._open[identifier] = count - 1
        else:
            self._open.pop(identifier, None)

    def _initialize(self) -> bytes | None:
        return self._standing.get(b'"initialize"', (None, b""))[0]

    def _remember(self, identifier: bytes | None, method: bytes, line: bytes) -> None:
        if method in {b'"initialize"', b'"notifications/initialized"', b'"logging/setLevel"'}:
            key = method
        elif method in {b'"resources/subscribe"', b'"resources/unsubscribe"'}:
            uri = _URI.search(line)
            key = b"uri " + (uri[1] if uri is not None else b"")
        else:
            return
        self._forget(key)
        fits = self._standing_bytes + len(line) <= _LIMIT_BYTES
        if fits and method != b'"resources/unsubscribe"':
            self._standing[key] = (identifier, line.removesuffix(b"\n"))
            self._standing_bytes += len(line)

    def _forget(self, key: bytes) -> None:
        _, line = self._standing.pop(key, (None, b""))
        self._standing_bytes -= len(line)


def _each(lines: bytes) -> Iterator[bytes]:
    """Yield each line; one that is alone with its newline, as it is."""
    begin = 0
    # Not by `split`, which looks at each byte and copies each line.
    while (end := lines.find(b"\n", begin)) >= 0:
        yield lines[begin:end] if begin or end + 1 < len(lines) else lines
        begin = end + 1


def _cost_bytes(identifier: bytes) -> int:
    return len(identifier) + _ENTRY_BYTES


def envelope(line: bytes) -> tuple[bytes | None, bytes | None]:
    """Return id and method of a JSON-RPC message as JSON texts; None for what it has not.

    Only members of the outermost object count. A message with a result or an error has no method,
    an id that is no scalar is none. What is no JSON object gives anything, and raises nothing.
    """
    head = _HEAD.match(line)
    if head is None:
        return _walk(line)
    identifier, method, outcome = head.group("id", "method", "next")
    if identifier is None or not (method or outcome):
        tail = _TAIL.search(line[-_TAIL_BYTES:])
        if tail is not None:
            identifier, method = identifier or tail["id"], method or tail["method"]
    if identifier is None and b'"id"' in line:
        return _walk(line)
    if not (method or outcome) and b'"method"' in line:
        return _walk(line)
    return identifier, None if outcome else method


def _walk(line: bytes) -> tuple[bytes | None, bytes | None]:
    found: dict[bytes, bytes | None] = {}
    # Same length, and every quote that is left begins or ends a text.
    plain = line.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    depth = 0
    for token in _TOKEN.finditer(plain):
        character = plain[token.start()]
        if character in b"{[":
            depth += 1
        elif character in b"}]":
            depth -= 1
        elif depth == 1:
            member = _ON_TOP.match(plain, token.start())
            if member is not None:
                value = line[slice(*member.span(2))] if member[2] else None
                found[member[1]] = value
    if b"result" in found or b"error" in found:
        return found.get(b"id"), None
    return found.get(b"id"), found.get(b"method")
