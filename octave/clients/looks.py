"""What looks like a secret: by the registry's word, by its name, or by itself. Pure.

It errs on the side of the store: a plain value that is kept there is found again just as well.
No reason quotes the value.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from octave.packages import variables

_HARMLESS = re.compile(
    r"|true|false|yes|no|on|off|none|null|auto|default|enabled?|disabled?|[0-9]{1,5}", re.I
)
"""Switches and small numbers, whatever they are called (`USE_AUTH=true`)."""
_ABOUT = re.compile(r"_(?:file|path|dir|type|name|mode|header|ttl|limit|max)$", re.I)
"""Of names that say where or how, `TOKEN_FILE`, `MAX_TOKEN_LIMIT`."""
_FORMS = (
    ("a GitHub token", r"gh[pousr]_\w{16,}|github_pat_\w{16,}"),
    ("a GitLab token", r"gl(?:pat|dt|rt|cbt|ptt|ft)-[\w-]{16,}"),
    ("a Slack token", r"xox[a-z]-[\w-]{8,}|xapp-[\w-]{8,}"),
    ("an API key", r"(?:sk|pk|rk)[-_][\w-]{16,}|AIza[\w-]{30,}|(?:gsk|xai|r8|hf|npm|ntn)_\w{16,}"),
    ("an API key", r"(?:pypi|tvly|fc|pplx|ctx7sk|figd|lin_api|dop_v1|pat-\w{2}\d)[-_][\w-]{12,}"),
    ("an AWS key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    ("a SendGrid key", r"SG\.[\w-]{16,}\.[\w-]{16,}"),
    ("a Google token", r"ya29\.[\w.-]{16,}"),
    ("a signed token", r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"),
    ("a private key", r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    ("the words of a login", r"(?i:bearer|basic|token) +[\w.~+/=-]{8,}"),
    ("an address with a password", r"[A-Za-z][\w+.-]*://[^\s/:@]*:[^\s/@]+@"),
)
_FORM = re.compile("|".join(f"(?P<f{i}>{form})" for i, (_, form) in enumerate(_FORMS)), re.ASCII)
_QUERY = re.compile(r"[?&;]([^=&#;\s]+)=([^&#;\s]+)")
_ASSIGNED = re.compile(r"-{0,2}([A-Za-z_][\w.-]*)=(.*)", re.DOTALL)
_RUN = re.compile(r"[A-Za-z0-9+_=-]{20,}", re.ASCII)
_LONG = 32
"""Characters of a key without form; shorter ones are too often words and names."""
_BITS = 3.5
"""Of entropy for each character: English runs below 3.3, random base64 of that length above 4."""
_HEX = re.compile(r"[0-9a-fA-F]{32,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def why_secret(name: str, value: str, *, said: bool | None = None) -> str | None:
    """Return why `value` belongs into the secret store, None when it may be shown.

    `name` is that of a variable, a header or a flag, empty for a bare word; `said` is the
    registry's word on it, None when it has none.
    """
    if not value:
        return None
    if said:
        return "the registry calls it a secret"
    by_itself = why_value(value)
    if by_itself is not None or said is False or _HARMLESS.fullmatch(value):
        return by_itself
    if name and is_secret_name(name):
        return "its name is that of a secret"
    return None


def why_value(value: str) -> str | None:
    """Return what in `value` looks like a secret, whatever it is called."""
    form = _FORM.search(value)
    if form is not None:
        return f"it looks like {_FORMS[int((form.lastgroup or 'f0')[1:])][0]}"
    for name, inner in _QUERY.findall(value) if "?" in value else ():
        if is_secret_name(name) and not _HARMLESS.fullmatch(inner):
            return "a part of the address has the name of a secret"
    assigned = _ASSIGNED.fullmatch(value)
    if assigned is not None and "/" not in assigned[1]:
        return why_secret(assigned[1], assigned[2])
    return "it looks random" if any(map(_is_random, _RUN.findall(value))) else None


def in_clear(words: Sequence[str]) -> Iterator[str]:
    """Yield what a command line gives a secret to: its flag, else `ARG` and the word's number."""
    for number, (name, _, is_secret) in enumerate(_named(words), 1):
        if is_secret:
            yield name or f"ARG{number}"


def masked(words: Sequence[str]) -> Iterator[str]:
    """Yield `words` with `<hidden>` in the place of what looks like a secret."""
    for word, (name, is_own, is_secret) in zip(words, _named(words), strict=True):
        kept = f"{name}=" if is_own else ""
        yield f"{kept}<hidden>" if is_secret else word


def _named(words: Sequence[str]) -> Iterator[tuple[str, bool, bool]]:
    """Yield of each word its flag, whether that is a part of it, and whether it is a secret."""
    flag = ""
    for word in words:
        name, equals, inner = word.partition("=")
        is_flag = re.match(r"--?[A-Za-z]", word) is not None
        if is_flag and not equals:
            yield word, False, False
            flag = word
            continue
        found = why_secret(name, inner) if is_flag else why_secret(flag, word)
        yield name if is_flag else flag, is_flag, found is not None
        flag = ""


def is_secret_name(name: str) -> bool:
    """Whether a variable, header or flag of that name holds a secret as a rule."""
    plain = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
    return not _ABOUT.search(plain) and (
        variables.is_secret(plain, None) or variables.is_secret_header(name)
    )


def _is_random(run: str) -> bool:
    if _HEX.fullmatch(run):
        return True
    if len(run) < _LONG or not (re.search(r"[0-9]", run) and re.search(r"[A-Za-z]", run)):
        return False
    # Words with hyphens are names: `mcp-server-postgres-for-everybody-2026`.
    if max(map(len, re.split(r"[-_]", run))) < _LONG // 2:
        return False
    total = len(run)
    return -sum(n / total * math.log2(n / total) for n in Counter(run).values()) >= _BITS
