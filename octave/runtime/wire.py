"""JSON-RPC messages: envelopes out of lines, values put into lines.

Pure. Only the envelope is decoded; whatever lies deeper is kept as the text it arrived in, so
key order, number text, escapes and unknown members survive. Time is linear in a line's length.
"""

import codecs
import contextlib
import json
import re
from collections.abc import Iterable, Mapping

import msgspec

from octave.runtime import json_text
from octave.runtime.framing import HEAD_BYTES as HEAD_BYTES
from octave.runtime.framing import TAIL_BYTES as TAIL_BYTES
from octave.runtime.framing import Framer as Framer
from octave.runtime.framing import Oversize as Oversize
from octave.runtime.json_text import Path as Path

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603

BACKSLASH = ord("\\")
"""Without one a text holds no escapes. In bytes a number is found several times as fast."""

_UTF8 = codecs.getincrementaldecoder("utf-8")
_PIECE_BYTES = 16 * 1024
_BOM = b"\xef\xbb\xbf"
_PLACE = re.compile(r"\(byte (\d+)\)")
_CONSTANT = re.compile(rb"-?(?:NaN|Infinity)")
_VERSION = rb'"jsonrpc"\s*:\s*"2\.0"\s*'
_BEGINS_WITH_OUTCOME = re.compile(rb"\s*\{\s*(?:" + _VERSION + rb',\s*)?"(?:result|error)"\s*:')
# Right before the last brace is the outermost object, and in a string the quotes were escaped.
_ID_AT_END = re.compile(rb'"id"\s*:\s*("[^"\\]*"|[-+.0-9eE]+)\s*(?:,\s*' + _VERSION + rb")?\}\s*\Z")


_ID: Path = ("id",)


class Malformed(ValueError):
    """The line is no JSON-RPC message; `code` is the JSON-RPC error it deserves."""

    def __init__(self, reason: str, code: int = PARSE_ERROR) -> None:
        super().__init__(reason)
        self.code = code


class Message(msgspec.Struct, frozen=True):
    """One JSON-RPC message: its line, and the members of its envelope as raw JSON text.

    None means absent; an id of ``null`` is ``b"null"``. `method` is the decoded name.
    """

    line: bytes
    id: bytes | None
    method: str | None
    params: bytes | None
    result: bytes | None
    error: bytes | None

    @property
    def is_request(self) -> bool:
        """It wants an answer."""
        return self.method is not None and self.id is not None

    @property
    def is_notification(self) -> bool:
        """It wants none."""
        return self.method is not None and self.id is None

    @property
    def is_answer(self) -> bool:
        """It is a result or an error."""
        return self.method is None


_ABSENT = msgspec.Raw()
_RAW = ("id", "params", "result", "error")


class _Envelope(msgspec.Struct):
    jsonrpc: str
    id: msgspec.Raw = _ABSENT
    method: str | None = None
    params: msgspec.Raw = _ABSENT
    result: msgspec.Raw = _ABSENT
    error: msgspec.Raw = _ABSENT


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_STRING = msgspec.json.Decoder(str)


def is_object(line: bytes) -> bool:
    """Whether the line begins like a message; a cheap look that most of what is none fails."""
    return line.startswith(b"{") or line.removeprefix(_BOM).lstrip().startswith(b"{")


def decode(line: bytes) -> Message:
    """Read the envelope of one line; of members given twice the last one counts.

    A leading byte order mark is dropped and bytes that are not UTF-8 are replaced by U+FFFD, in
    `Message.line` too, so that what is passed on is text.

    Raises:
        Malformed: no JSON, NaN or Infinity, nested too deeply, a batch, or not JSON-RPC 2.0.
    """
    if not line.isascii():
        line = _as_text(line)
    try:
        envelope = _ENVELOPE.decode(line)
    except msgspec.ValidationError as error:
        raise Malformed(f"not a JSON-RPC message: {error}", INVALID_REQUEST) from error
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except msgspec.DecodeError as error:
        # msgspec refuses lone surrogates such as "\ud800" even where it skips; they are legal JSON.
        legible = json_text.legible(line)
        if legible is line:
            raise Malformed(_reason(error, line)) from error
        envelope = _decode_slowly(line, legible)
    if envelope.jsonrpc != "2.0":
        raise Malformed("`jsonrpc` is not 2.0", INVALID_REQUEST)
    return _message(line, envelope)


def _message(line: bytes, envelope: _Envelope) -> Message:
    identifier = bytes(envelope.id) or None
    if identifier is not None and identifier[0] in b"{[":
        raise Malformed("`id` is not a string or number", INVALID_REQUEST)
    params, result, error = envelope.params, envelope.result, envelope.error
    if envelope.method is None and result is _ABSENT and error is _ABSENT:
        raise Malformed("neither request nor answer", INVALID_REQUEST)
    if error is not _ABSENT and result is not _ABSENT and bytes(error) == b"null":
        # JSON-RPC 1.0 has both members in every answer.
        error = _ABSENT
    return Message(
        line,
        identifier,
        envelope.method,
        None if params is _ABSENT else bytes(params),
        None if result is _ABSENT else bytes(result),
        None if error is _ABSENT else bytes(error),
    )


def splice(text: bytes, changes: Mapping[Path, bytes]) -> bytes:
    """Return the JSON object `text` with the values at the given member paths replaced.

    Every other byte is kept. A member given twice is replaced each time, so that no reader,
    whichever one it believes, sees the old value.

    Args:
        text: an object, well-formed, as `decode` accepts it.
        changes: raw JSON by path, such as ``("params", "name")``; no path a prefix of another.

    Raises:
        KeyError: nothing is at one of the paths.
    """
    return _spliced(text, json_text.spans(text, changes), changes)


def rewrite(message: Message, changes: Mapping[Path, bytes]) -> bytes:
    """Return the line of `message` with other values, as `splice` does but sooner.

    Its envelope is known already, so nothing is decoded again to find the id.

    Raises:
        KeyError: nothing is at one of the paths.
    """
    line = _rewritten(message, changes)
    if line is not None:
        return line
    values = {name: getattr(message, name) for name in _RAW}
    known = {name: value for name, value in values.items() if value is not None}
    return _spliced(message.line, json_text.spans(message.line, changes, known), changes)


def _rewritten(message: Message, changes: Mapping[Path, bytes]) -> bytes | None:
    """Return its line with other values; None unless the one place for each is plain to see."""
    line = message.line
    if len(line) > json_text.SHORT_BYTES or (BACKSLASH in line and b"\\u" in line):
        return None
    cuts: list[tuple[int, int, bytes]] = []
    for path, value in changes.items():
        old = message.id if path == _ID else _param(message, path)
        name = json_text.quoted(path[-1])
        at = line.find(name)
        start = at + len(name) + 1
        # As in `json_text`: what looks like a quoted name is one.
        if old is None or at < 0 or not line.startswith(b":" + old, start - 1):
            return None
        if line.find(name, start) >= 0:
            return None
        cuts.append((start, start + len(old), value))
    cuts.sort()
    pieces: list[bytes] = []
    position = 0
    for start, end, value in cuts:
        pieces += (line[position:start], value)
        position = end
    pieces.append(line[position:])
    return b"".join(pieces)


def _param(message: Message, path: Path) -> bytes | None:
    if len(path) != 2 or path[0] != "params" or message.params is None:
        return None
    return member(message.params, path[1])


def _spliced(
    text: bytes, spans: Iterable[tuple[int, int, Path]], changes: Mapping[Path, bytes]
) -> bytes:
    view = memoryview(text)
    pieces: list[bytes | memoryview] = []
    position = 0
    for start, end, path in spans:
        pieces += (view[position:start], changes[path])
        position = end
    pieces.append(view[position:])
    return b"".join(pieces)


def member(text: bytes, *path: str) -> bytes | None:
    """Return the raw JSON at the member path, None when there is none; the last of twins counts."""
    for key in path:
        try:
            found: Mapping[str, bytes | msgspec.Raw] = json_text.OBJECT.decode(text)
        except msgspec.ValidationError:
            return None
        except json_text.UNDECODED:
            found = json_text.members_by_name(text) if text.lstrip().startswith(b"{") else {}
        if key not in found:
            return None
        text = bytes(found[key])
    return text


def elements(text: bytes) -> list[bytes]:
    """Return the raw JSON of each element of the array `text`; none when it is something else."""
    try:
        return [bytes(element) for element in json_text.ARRAY.decode(text)]
    except msgspec.ValidationError:
        return []
    except json_text.UNDECODED:
        return json_text.elements(text)


def scan_id(head: bytes, *, of_request: bool = False) -> bytes | None:
    """Return the `id` of an answer whose line is cut or broken, where `head` still shows it.

    With `of_request` that of a request. None for the other and for a notification, and when a long
    member stands before the id.
    """
    found: bytes | None = None
    is_request = False
    if b'id"' not in head and b"\\u" not in head:
        return None
    # What is cut ends in a member that cannot be read.
    with contextlib.suppress(ValueError):
        for key, start, end in json_text.members(head):
            is_request = is_request or key == "method"
            if key == "id" and end < len(head):
                found = head[start:end]
    return found if is_request is of_request else None


def id_at_end(head: bytes, tail: bytes) -> bytes | None:
    """Return the `id` of an answer that begins with its result, from its first and last bytes.

    That is how the TypeScript SDK writes; there `scan_id` finds none when the line is broken.
    """
    found = _ID_AT_END.search(tail) if _BEGINS_WITH_OUTCOME.match(head) else None
    return found[1] if found else None


def string(raw: bytes) -> str | None:
    """Return the string that a JSON text is; None when it is something else.

    Raises:
        ValueError: it is no JSON.
    """
    try:
        return _STRING.decode(raw)
    except msgspec.ValidationError:
        return None
    except json_text.UNDECODED:
        # The standard library reads lone surrogates, which a name or URI may hold.
        value = json.loads(raw)
    return value if isinstance(value, str) else None


def text(value: object) -> bytes:
    """Return a value as JSON text, lone surrogates as the escapes that they came from."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def request(identifier: int | bytes, method: str, params: bytes | None = None) -> bytes:
    """Return a request's line, without newline; `params` and a bytes id are raw JSON."""
    raw_id = identifier if isinstance(identifier, bytes) else b"%d" % identifier
    body = b'{"jsonrpc":"2.0","id":%b,"method":%b' % (raw_id, text(method))
    return body + (b"}" if params is None else b',"params":%b}' % params)


def notification(method: str, params: bytes | None = None) -> bytes:
    """Return a notification's line, without newline; `params` is raw JSON."""
    body = b'{"jsonrpc":"2.0","method":%b' % text(method)
    return body + (b"}" if params is None else b',"params":%b}' % params)


def result(identifier: bytes, value: bytes) -> bytes:
    """Return an answer's line, without newline; both arguments are raw JSON."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (identifier, value)


def error(identifier: bytes | None, code: int, message: str, data: bytes | None = None) -> bytes:
    """Return an error answer's line, without newline; `data` is raw JSON, id None is null."""
    body = text({"code": code, "message": message})
    if data is not None:
        body = b'%b,"data":%b}' % (body[:-1], data)
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (identifier or b"null", body)


def _as_text(line: bytes) -> bytes:
    if line.startswith(_BOM):
        line = line[len(_BOM) :]
    try:
        line.decode()
    except UnicodeDecodeError:
        # In pieces, as most of them are plain: a megabyte of text made anew takes 10 ms.
        decoder = _UTF8(errors="replace")
        pieces = (line[n : n + _PIECE_BYTES] for n in range(0, len(line), _PIECE_BYTES))
        texts = [decoder.decode(piece).encode() for piece in pieces]
        return b"".join((*texts, decoder.decode(b"", final=True).encode()))
    return line


def _decode_slowly(line: bytes, legible: bytes) -> _Envelope:
    try:
        values = json_text.OBJECT.decode(legible)
    except msgspec.ValidationError as error:
        raise Malformed("not an object", INVALID_REQUEST) from error
    except RecursionError as error:
        raise Malformed("nested too deeply") from error
    except msgspec.DecodeError as error:
        raise Malformed(_reason(error, line)) from error
    members = json_text.members(line, 0, values, legible)
    found = {key: line[start:end] for key, start, end in members}
    method = json.loads(found["method"]) if "method" in found else None
    if not isinstance(method, str | None):
        raise Malformed("`method` is not a string", INVALID_REQUEST)
    return _Envelope(
        jsonrpc=json.loads(found.get("jsonrpc", b"null")),
        method=method,
        **{name: msgspec.Raw(found[name]) for name in _RAW if name in found},
    )


def _reason(error: msgspec.DecodeError, line: bytes) -> str:
    place = _PLACE.search(str(error))
    constant = _CONSTANT.match(line, int(place[1])) if place else None
    # What Python, among others, writes for them.
    return f"{constant[0].decode()} is not JSON" if constant else f"not JSON: {error}"
