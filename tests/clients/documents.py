"""Configuration files as people and programs write them: JSON, JSONC, any layout."""

import json
from typing import Any

from hypothesis import strategies as st

PATH = ("mcpServers", "octave")
ENTRY = {"type": "stdio", "command": "/opt/octave", "args": ["proxy"], "env": {"A": "ü"}}

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["// no comment", "/* nor this */", "}", "\\", '"', "octave", "a,}"]),
)
_names = st.one_of(st.text(max_size=3), st.sampled_from(["a", "b", "octave", "mcpServers", "//"]))
_values = st.recursive(
    _scalars,
    lambda children: st.one_of(
        st.lists(children, max_size=3), st.dictionaries(_names, children, max_size=3)
    ),
    max_leaves=6,
)
_servers = st.dictionaries(_names.filter(lambda name: name != "octave"), _values, max_size=3)


@st.composite
def values(draw: st.DrawFn) -> dict[str, Any]:
    """What a file says: an object, often with servers in it, never with ours."""
    others = draw(st.dictionaries(_names.filter(lambda n: n != "mcpServers"), _values, max_size=3))
    if draw(st.booleans()):
        return others
    members = [*others.items()]
    members.insert(draw(st.integers(0, len(members))), ("mcpServers", draw(_servers)))
    return dict(members)


@st.composite
def tidy_texts(draw: st.DrawFn) -> str:
    """JSON as a program lays it out."""
    indent, separators = draw(
        st.sampled_from([(None, None), (None, (",", ":")), (2, None), (4, None), ("\t", None)])
    )
    text = json.dumps(
        draw(values()), indent=indent, separators=separators, ensure_ascii=draw(st.booleans())
    )
    text += draw(st.sampled_from(["", "\n"]))
    # Strings hold no line breaks of their own: they are escaped.
    text = text.replace("\n", draw(st.sampled_from(["\n", "\r\n"])))
    return draw(st.sampled_from(["", "\ufeff"])) + text


_BLANKS = ("", "", " ", "  ", "\t", "\n", "\r\n", "\n\n  ", " \t\n\t")
_COMMENTS = ("// it's, {\n", "//\r\n", "/**/", "/* a, } */", '/* "octave": {\n */', "\n  // x\n")
_trivia = st.lists(st.sampled_from((*_BLANKS, *_COMMENTS)), max_size=2).map("".join)


@st.composite
def wild_texts(draw: st.DrawFn) -> str:
    """JSONC as nobody would write it: comments, blanks and commas wherever they may stand."""

    def between() -> str:
        return draw(_trivia)

    def render(value: object) -> str:
        if isinstance(value, dict):
            parts = [
                f"{between()}{json.dumps(name)}{between()}:{between()}{render(item)}{between()}"
                for name, item in value.items()
            ]
        elif isinstance(value, list):
            parts = [f"{between()}{render(item)}{between()}" for item in value]
        else:
            return json.dumps(value, ensure_ascii=False)
        inside = ",".join(parts) or between()
        if draw(st.booleans()) and parts:
            inside += "," + between()
        return f"{{{inside}}}" if isinstance(value, dict) else f"[{inside}]"

    before = draw(st.sampled_from(["", "\ufeff"])) + between()
    return f"{before}{render(draw(values()))}{between()}"


texts = st.one_of(tidy_texts(), wild_texts())
