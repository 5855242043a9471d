"""Texts in definitions of tools that look as if they were meant to mislead: flagged, with a reason.

Pure. A definition is read by a model, which may take it for orders; what people do not see in it,
or would not expect there, deserves a look. It makes no claim to find everything, and what it finds
may be harmless: a tool that sends files may well speak of `~/.ssh`.
"""

import html
import json
import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

LONG_TEXT = 10_000
"""Of characters: the longest description of the real servers looked at has 6,549."""
SHOWN = 80
"""So much of what was found is quoted."""
_DEPTH = 200

Severity = Literal["high", "medium", "low"]
"""Hidden from people, or plainly meant to mislead; likely so; unusual."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something in a definition that deserves a look."""

    tool: str
    where: str
    """The path of the text in the definition: `description`, `inputSchema.properties.x`."""
    severity: Severity
    reason: str
    """What it is, in words that follow `holds`."""
    quote: str
    """The text, as the server wrote it; whoever shows it makes hidden characters visible."""

    @property
    def sentence(self) -> str:
        """All of it in one sentence."""
        return f"`{self.where}` of `{self.tool}` holds {self.reason}: {json.dumps(self.quote)}"

    def as_json(self) -> dict[str, str]:
        """Return it as an object of `--json`."""
        return {
            "tool": self.tool,
            "where": self.where,
            "severity": self.severity,
            "reason": self.reason,
            "quote": self.quote,
        }


def suspicions(definition: bytes, others: Mapping[str, Collection[str]] = {}) -> list[Suspicion]:
    """Return what is suspicious in the definition of a tool, or of whatever else is shown a model.

    `others` are the names of the tools of other servers, by server. At most one finding of a kind
    for each text.
    """
    try:
        found = json.loads(definition.decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        return []
    name = found.get("name") if isinstance(found, dict) else None
    tool = name if isinstance(name, str) else "?"
    names = {name: server for server, names in others.items() for name in names}
    return [
        Suspicion(tool, where, severity, reason, quote)
        for where, text in _texts(found, ())
        for severity, reason, quote in _in_text(text, names)
    ]


def of_tools(tools: Iterable[bytes], others: Mapping[str, Collection[str]] = {}) -> list[Suspicion]:
    """Return what is suspicious in a list of definitions."""
    return [each for tool in tools for each in suspicions(tool, others)]


def of_server(initialize: bytes, others: Mapping[str, Collection[str]] = {}) -> list[Suspicion]:
    """Return what is suspicious in what a server says of itself at its greeting."""
    return [replace(each, tool="the server") for each in suspicions(initialize, others)]


def _texts(found: object, path: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """Yield each text, those of keys and enums too: a model reads all of them alike."""
    if len(path) > _DEPTH:
        return
    if isinstance(found, str):
        yield ".".join(path) or "text", found
    elif isinstance(found, dict):
        for key, value in found.items():
            label = key if len(key) <= SHOWN else key[:SHOWN]
            if not key.isascii() or " " in key:
                yield ".".join((*path, label)), key
            yield from _texts(value, (*path, label))
    elif isinstance(found, list):
        for index, item in enumerate(found):
            yield from _texts(item, (*path, str(index)))


_Found = tuple[Severity, str, str]


def _in_text(text: str, names: Mapping[str, str]) -> Iterator[_Found]:
    yield from _hidden(text)
    plain = _as_read(text)
    for severity, reason, pattern in _PATTERNS:
        match = pattern.search(plain)
        if match is not None:
            yield severity, reason, _around(plain, match)
    if names and any(word in names for word in set(_WORD.findall(plain))):
        word = next(word for word in _WORD.findall(plain) if word in names)
        yield "medium", f"the name of a tool of `{names[word]}`", word
    if len(text) > LONG_TEXT:
        yield (
            "low",
            f"{len(text):,} characters, where hardly anybody reads to the end",
            text[:SHOWN],
        )


_LOOK_ALIKE = str.maketrans(
    "\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456\u0458\u0501\u051b\u051d\u04bb"
    "\u0406\u0410\u0412\u0415\u041a\u041c\u041d\u041e\u0420\u0421\u0422\u0425\u0405\u0408"
    "\u03b1\u03bf\u03bd\u03c1\u03b9\u0391\u0392\u0395\u0396\u0397\u0399\u039a\u039c\u039d\u039f"
    "\u03a1\u03a4\u03a5\u03a7\u0131\u0261",
    "aeopcyxsijdqwh" + "IABEKMHOPCTXSJ" + "aovpi" + "ABEZHIKMNOPTYX" + "ig",
)
"""Letters of other scripts that look like Latin ones (Unicode TR39, confusables)."""
_MIXED = re.compile("[A-Za-z][\u0370-\u052f]|[\u0370-\u052f][A-Za-z]")
_MARKS = re.compile("[\u0300-\u036f]")
_SPACED = re.compile(
    r"(?<![A-Za-z0-9])[A-Za-z]([ .\-_])(?:[A-Za-z]\1){2,30}[A-Za-z](?![A-Za-z0-9])"
)
"""A word with something between all of its letters."""


def _as_read(text: str) -> str:
    """Return the text as a model may read it.

    Letters that look alike are the same, those are left out that nobody sees, references of HTML
    and words in spaced letters are resolved.
    """
    plain = _INVISIBLE.sub("", text)
    if "&#" in plain or "&lt;" in plain:
        plain = html.unescape(plain)
    if not plain.isascii():
        plain = _MARKS.sub("", unicodedata.normalize("NFKD", plain))
        plain = unicodedata.normalize("NFKC", plain)
        if _MIXED.search(plain):
            plain = plain.translate(_LOOK_ALIKE)
    return _SPACED.sub(lambda word: word[0][::2], plain)


_TAGS = re.compile("[\U000e0000-\U000e007f]+")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_ZERO_WIDTH = re.compile("[\u00ad\u034f\u180e\u200b\u2060-\u2064\ufeff\ufff9-\ufffb]")
_BLANK = re.compile("[\u115f\u1160\u2800\u3164\uffa0]")
_MARKED = re.compile("(?<=[\x20-\x7e])[\u200e\u200f](?=[\x20-\x7e])")
_JOINERS = re.compile("(?<=[\x21-\x7e])[\u200c\u200d]|[\u200c\u200d](?=[\x21-\x7e])")
"""Between plain letters they join nothing; in emoji and in some scripts they belong."""
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]")
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{2,}")
_FLAG = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,8}\U000e007f")
"""The flags of England, Scotland and Wales are spelled with tags."""
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb"
    "\ufe00-\ufe0f\U000e0000-\U000e01ef]"
)
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[_-][A-Za-z0-9]+)+")


def _hidden(text: str) -> Iterator[_Found]:
    tags = _TAGS.search(_FLAG.sub("", text))
    if tags is not None:
        told = "".join(chr(ord(each) - 0xE0000) for each in tags[0] if ord(each) >= 0xE0020)
        yield "high", "text in tag characters, which nobody sees and models read", told[:SHOWN]
    for severity, reason, pattern in _UNSEEN:
        match = pattern.search(text)
        if match is not None:
            yield severity, reason, _around(text, match)


_UNSEEN: tuple[tuple[Severity, str, re.Pattern[str]], ...] = (
    ("high", "characters that turn the direction of the text", _BIDI),
    ("high", "a run of variation selectors, which can carry hidden text", _SELECTORS),
    ("high", "control characters", _CONTROL),
    ("medium", "characters without any width", _ZERO_WIDTH),
    ("medium", "letters that are blank", _BLANK),
    ("medium", "marks of direction in a text that has but one", _MARKED),
    ("medium", "joiners between letters that they do not join", _JOINERS),
)


def _pattern(text: str) -> re.Pattern[str]:
    # A blank in a pattern is anything that parts words: line breaks are a known disguise.
    return re.compile(text.replace(" ", r"[\s_*\-]{1,20}"), re.IGNORECASE)


_PATTERNS: tuple[tuple[Severity, str, re.Pattern[str]], ...] = (
    (
        "high",
        "an order to ignore what was said before",
        _pattern(
            r"\b(?:ignore|disregard|forget|override)(?: all| any| the| your| these| those)*"
            r" (?:previous|prior|earlier|above|preceding|other|existing|system)"
            r"(?: \w+)? (?:instructions?|rules?|prompts?|directions?|guidelines?|messages?)\b"
            r"|\b(?:ignore|disregard|forget) (?:everything|all|anything)"
            r" (?:above|before this|you (?:were|have been|are) told|said before)\b"
            r"|\bignorier\w{0,3}(?: alle)?(?: \w+)? (?:vorherigen|bisherigen|obigen) (?:\w+ )?\w+"
            r"|\bignore[rz]?(?: toutes)?(?: les)? instructions (?:precedentes|anterieures)\b"
            r"|\bignor[ae]r?(?: todas)?(?: las)? (?:instrucciones|instrucoes) anteriores\b"
            "|[\u5ffd\u7121\u65e0](?:\u7565|\u8996|\u89c6)[\u4e00-\u9fff]{0,8}"
            "(?:\u6307\u4ee4|\u6307\u793a|\u6307\u4ee4)"
        ),
    ),
    (
        "medium",
        "new orders to a model",
        _pattern(
            r"\b(?:new|updated|real|actual) instructions?:"
            r"|\bfrom now on,? (?:you|act|always|never|respond|answer)\b"
        ),
    ),
    (
        "high",
        "an order to keep something from the user",
        _pattern(
            r"\b(?:do not|don.t|never|must not|without) (?:ever )?"
            r"(?:tell(?:ing)?|inform(?:ing)?|mention(?:ing)?|reveal(?:ing)?|notify(?:ing)?"
            r"|show(?:ing)?|alert(?:ing)?|let(?:ting)?)"
            r" (?:this |it |that |anything |about this )?(?:to )?"
            r"(?:(?:the |your )?(?:user|human)|anyone|anybody)\b"
            r"(?! (?:names?|ids?|agent|interface|input|data|profile|account))"
            r"|\b(?:user|human) (?:must|should|may) (?:not|never) (?:know|notice|learn|find out)\b"
        ),
    ),
    (
        "high",
        "a heading in the manner of orders to a model",
        _pattern(
            r"<\s?(?:important|system|secret|instructions?|admin|hidden)\s?>|\[/?INST\]"
            r"|<\|(?:im_start|system|user|assistant)\|>|\[system\]:? you\b"
        ),
    ),
    (
        "high",
        "a place where secrets are kept",
        _pattern(
            r"(?:~|\$HOME|\$\{HOME\}|/root|/home/[\w.-]{1,40}|/Users/[\w.-]{1,40}|%USERPROFILE%)"
            r"[/\\]\.(?:ssh|aws|gnupg|kube|docker|netrc|npmrc|pypirc|git-credentials"
            r"|config[/\\](?:gcloud|gh)\b|cursor[/\\]mcp\.json|claude\.json)"
            r"|/proc/(?:self|\d{1,9})/environ\b|\bLibrary/Keychains\b"
            r"|\bid_(?:rsa|ed25519|ecdsa|dsa)\b|/etc/(?:passwd|shadow|sudoers)\b"
            r"|\.ssh/(?:authorized_keys|config|id_)|\bclaude_desktop_config\.json\b"
            r"|\.aws/credentials\b|(?:^|[\s\"'`/(])\.bash_history\b"
        ),
    ),
    (
        "medium",
        "the name of a file where secrets are kept",
        _pattern(
            r"(?:read|content|contents|open|cat|load|send|include|pass)\b[^.\n]{0,60}"
            r"(?:^|[\s\"'`/(])\.env\b(?!\.)"
        ),
    ),
    (
        "high",
        "an order to read something else before this tool is used",
        _pattern(
            r"\b(?:before|prior to|when|whenever) (?:you )?(?:using|use|calling|call|invoking"
            r"|invoke|running|run) (?:this|any|any other|every|other) tools?\b[^.\n]{0,80}"
            r"\b(?:read|open|cat|send|fetch|upload|access) (?:the |all |any |your )?"
            r"(?:files?|contents?|~|/|secrets?|keys?|credentials?|conversation|messages?)"
        ),
    ),
    (
        "high",
        "an order to hand over what was said, or secrets",
        _pattern(
            r"\b(?:send|forward|pass|include|append|upload|leak|exfiltrate|bcc|copy|put|paste)\b"
            r"[^.\n]{0,40}"
            r"\b(?:the (?:whole|entire|full|complete) (?:conversation|chat|history|context)"
            r"|(?:conversation|chat) history|system prompt|(?:private|ssh|secret) keys?"
            r"|(?:all|any|the user's|your) (?:passwords?|credentials|secrets))\b"
        ),
    ),
    (
        "medium",
        "an order about the tools of others",
        _pattern(
            r"\b(?:instead of|rather than|do not use|don't use|never use|overrides?|replaces?)"
            r" (?:all |any |the )?other (?:servers?|tools?|mcp)\b"
            r"|\bmust (?:always )?be (?:called|used|run|invoked) (?:first|before (?:any|all|every))"
            r"(?: other)? tools?\b"
        ),
    ),
    (
        "medium",
        "a comment, which is not shown where the text is formatted",
        _pattern(r"<!--(?!-*>)"),
    ),
    (
        "medium",
        "encoded text that is to be decoded",
        _pattern(r"\b(?:decode|base64)\b[^\n]{0,40}?[\s\"'`:(][A-Za-z0-9+/]{32,}"),
    ),
    (
        "medium",
        "a long run of encoded text",
        # Digits and both cases, so that long words and paths are none.
        re.compile(
            r"(?<![A-Za-z0-9+/=])(?=[A-Za-z+/]{0,80}[0-9])(?=[0-9A-Z+/]{0,80}[a-z])"
            r"(?=[0-9a-z+/]{0,80}[A-Z])[A-Za-z0-9+/]{120,}={0,2}"
            r"|(?:[0-9a-fA-F]{2}){64,}|(?:\\x[0-9a-fA-F]{2}){16,}|(?:%[0-9a-fA-F]{2}){24,}"
        ),
    ),
)


def _around(text: str, match: re.Match[str]) -> str:
    spare = max(0, SHOWN - (match.end() - match.start())) // 2
    return text[max(0, match.start() - spare) : match.end() + spare][: 2 * SHOWN]
