"""`tools` and `call`: what servers offer, and using it."""

import base64
import binascii
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from octave.cli.arguments import arguments_of
from octave.cli.completion import server_names, tool_names
from octave.cli.options import manners
from octave.cli.output import safe, tell, write, write_json
from octave.cli.reach import reach
from octave.errors import (
    TOOL_ERROR_EXIT,
    RuntimeNotRunning,
    ServerNotFound,
    ToolNotFound,
    UsageError,
    did_you_mean,
)
from octave.home import Workspace
from octave.packages import manifest
from octave.remote import Remote

TIMEOUT_S = 60.0
"""A person at a terminal waits no longer without having said so."""


def tools(
    context: typer.Context,
    server: Annotated[
        str | None, typer.Argument(metavar="[SERVER]", autocompletion=server_names)
    ] = None,
    *,
    schema: Annotated[bool, typer.Option("--schema", help="The input schemas too.")] = False,
) -> int:
    """List tools as signatures one can read."""
    terms = manners(context)
    workspace = terms.workspace()
    _require_server(workspace, server)
    found = _known_tools(workspace, server)
    if terms.as_json:
        write_json(found)
        return 0
    several = server is None
    for tool in found:
        name = tool["qualifiedName"] if several else tool.get("name")
        write(safe(signature(str(name), tool.get("inputSchema"))))
        summary = str(tool.get("description") or "").strip().partition("\n")[0]
        if summary:
            write(f"    {safe(summary)}")
        if schema:
            for line in json.dumps(tool.get("inputSchema"), indent=2).splitlines():
                write(f"    {safe(line)}")
    if not found:
        tell("no tools are known yet; `octave start --all` asks the servers")
    return 0


def call(
    context: typer.Context,
    server: Annotated[str, typer.Argument(autocompletion=server_names)],
    tool: Annotated[str, typer.Argument(autocompletion=tool_names)],
    words: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    *,
    args: Annotated[
        str | None, typer.Option("--args", metavar="JSON", help="All arguments; `-`: from stdin.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="DIR", help="Keep images and audio there.")
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=0.001, help="Seconds to wait for the answer.")
    ] = TIMEOUT_S,
) -> int:
    """Call a tool and print its result: key=value, key:=JSON, key=@FILE, or --args."""
    terms = manners(context)
    workspace = terms.workspace()
    _require_server(workspace, server)
    with reach(workspace) as runtime:
        offered = json.loads(runtime.request_raw("octave/tools", {"server": server}))
        definition = _definition(server, tool, offered)
        params = {
            "server": server,
            "tool": tool,
            "arguments": arguments_of(words or (), args, definition.get("inputSchema")),
            "timeoutSeconds": timeout,
        }
        raw = runtime.request_raw("octave/call", params, _show_progress)
    result = json.loads(raw)
    if terms.as_json:
        sys.stdout.write(raw.decode("utf-8", "surrogatepass") + "\n")
    else:
        _show_result(result, save)
    return TOOL_ERROR_EXIT if result.get("isError") is True else 0


def signature(name: str, schema: Any) -> str:
    """Return `name(key: type, optional?: type)` from a tool's input schema."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict):
        return f"{name}()"
    required = schema.get("required")
    needed = set(required) if isinstance(required, list) else set()
    shown = [
        f"{key}{'' if key in needed else '?'}: {_type_name(value)}"
        for key, value in sorted(properties.items(), key=lambda item: item[0] not in needed)
    ]
    return f"{name}({', '.join(shown)})"


def _type_name(schema: Any) -> str:
    if not isinstance(schema, dict):
        return "any"
    if isinstance(schema.get("enum"), list):
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    named = schema.get("type")
    if named == "array":
        return f"{_type_name(schema.get('items'))}[]"
    if isinstance(named, list):
        return " | ".join(map(str, named))
    for key in ("anyOf", "oneOf"):
        if isinstance(schema.get(key), list):
            return " | ".join(_type_name(choice) for choice in schema[key])
    return str(named or "any")


def _require_server(workspace: Workspace, server: str | None) -> None:
    names = manifest.load(workspace.manifest).servers
    if server is not None and server not in names:
        raise ServerNotFound(
            f"`{server}` is not installed here",
            hint=did_you_mean(server, names) or f"octave install {server}",
        )


def _known_tools(workspace: Workspace, server: str | None) -> list[dict[str, Any]]:
    try:
        with Remote.connect(workspace) as remote:
            found: list[dict[str, Any]] = remote.request("octave/tools", {"server": server})
            return found
    except RuntimeNotRunning:
        return _kept_tools(workspace, server)


def _kept_tools(workspace: Workspace, server: str | None) -> list[dict[str, Any]]:
    """Return what the catalogue on disk has, in the runtime's form."""
    from octave.gateway.naming import qualified

    names = [server] if server else list(manifest.load(workspace.manifest).servers)
    found = []
    for name in names:
        try:
            kept = json.loads(workspace.catalogue(name).read_bytes())
            offered = kept["lists"].get("tools", [])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
        found += [
            {"server": name, "qualifiedName": qualified(name, str(tool["name"])), **tool}
            for tool in offered
        ]
    return found


def _definition(server: str, tool: str, offered: list[dict[str, Any]]) -> dict[str, Any]:
    for definition in offered:
        if tool in (definition.get("name"), definition.get("qualifiedName")):
            return definition
    names = [str(definition.get("name")) for definition in offered]
    raise ToolNotFound(
        f"`{server}` has no tool `{tool}`",
        hint=did_you_mean(tool, names) or f"octave tools {server}",
    )


def _show_progress(method: str, params: Any) -> None:
    if method != "octave/progress" or not sys.stderr.isatty():
        return
    told = params.get("params") or {}
    parts = [str(told.get("progress", ""))]
    parts += [f"of {told['total']}"] if "total" in told else []
    parts += [str(told["message"])] if "message" in told else []
    tell(f"progress: {safe(' '.join(parts))}")


def _show_result(result: dict[str, Any], save: Path | None) -> None:
    content = result.get("content")
    blocks = content if isinstance(content, list) else []
    for number, block in enumerate(blocks, 1):
        if isinstance(block, dict):
            _show_block(block, number, save)
    if not blocks and "structuredContent" in result:
        write_json(result["structuredContent"])


def _show_block(block: dict[str, Any], number: int, save: Path | None) -> None:
    kind = block.get("type")
    if kind == "text":
        write(safe(str(block.get("text", ""))))
    elif kind in {"image", "audio"}:
        _show_media(block, number, save)
    elif kind == "resource" and isinstance(block.get("resource"), dict):
        resource = block["resource"]
        write(safe(str(resource.get("text") or resource.get("uri"))))
    else:
        write(safe(str(block.get("uri") or json.dumps(block, ensure_ascii=False))))


def _show_media(block: dict[str, Any], number: int, save: Path | None) -> None:
    kind, media_type = block["type"], str(block.get("mimeType", ""))
    try:
        data = base64.b64decode(str(block.get("data", "")))
    except binascii.Error:
        tell(f"warning: {kind} {number} is not valid base64")
        return
    if save is None:
        write(safe(f"[{kind} {media_type}, {len(data)} bytes; `--save DIR` keeps it]"))
        return
    suffix = "".join(c for c in media_type.rpartition("/")[2] if c.isalnum()) or "bin"
    try:
        save.mkdir(parents=True, exist_ok=True)
        path = save / f"{kind}-{number}.{suffix}"
        path.write_bytes(data)
    except OSError as error:
        raise UsageError(f"cannot save to `{save}`: {error.strerror}") from error
    write(str(path))
