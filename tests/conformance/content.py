"""What the reference server gives out: what it lists, and the blocks its answers are made of.

Names and schemas are those that the conformance suite asks for, to the letter.
"""

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

Json = dict[str, Any]

DEFINITIONS: dict[str, Any] = json.loads(
    Path(__file__).with_name("definitions.json").read_text(encoding="utf-8")
)
"""Lists of `tools`, `prompts`, `resources` and `resourceTemplates` as they go over the wire;
`questions`: schemas of what the user is asked, by a short name."""


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _red_pixel() -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    pixel = _chunk(b"IDAT", zlib.compress(b"\0\xff\0\0"))
    return b"\x89PNG\r\n\x1a\n" + header + pixel + _chunk(b"IEND", b"")


def _silence() -> bytes:
    samples = bytes(16)
    form = struct.pack("<HHIIHH", 1, 1, 8000, 8000, 1, 8)
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(samples)) + samples
    return b"RIFF" + struct.pack("<I", len(body)) + body


PNG = base64.b64encode(_red_pixel()).decode()
"""One red pixel."""
WAV = base64.b64encode(_silence()).decode()
"""Two milliseconds of silence."""


def text(words: str) -> Json:
    return {"type": "text", "text": words}


def image() -> Json:
    return {"type": "image", "data": PNG, "mimeType": "image/png"}


def audio() -> Json:
    return {"type": "audio", "data": WAV, "mimeType": "audio/wav"}


def resource(uri: str, mime_type: str, words: str) -> Json:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime_type, "text": words}}


def tool_result(*blocks: Json) -> Json:
    return {"content": list(blocks)}


def user_message(block: Json) -> Json:
    return {"role": "user", "content": block}
