"""A systemd unit that runs `octave serve` for a manifest of this machine."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from octave.errors import UsageError
from octave.export.subject import Exported, Subject
from octave.packages.manifest import Reference

_STOP_S = 90
"""Calls in flight get a minute, then servers some seconds to end."""


@dataclass(frozen=True, slots=True)
class Unit:
    """Who runs it, and how."""

    words: Sequence[str]
    """The absolute words that are `octave serve` for the manifest."""
    env: Mapping[str, str]
    """What it needs besides: PATH, OCTAVE_HOME."""
    user: str | None = None
    """A unit of the system that runs as this user; None: one of the user's own."""


def unit(subject: Subject, how: Unit) -> Exported:
    """Return the unit.

    References are resolved where they are now; those to the environment come from a file.

    Raises:
        UsageError: a path cannot stand in a unit.
    """
    names = tuple(item.server.name for item in subject.items)
    file = "/etc/octave/environment" if how.user else "%h/.config/octave/environment"
    wanted = dict.fromkeys(_variables(subject))
    lines = [*_head(how), *_service(how, file), *_hardening(how)]
    target = "multi-user.target" if how.user else "default.target"
    lines += ["", "[Install]", f"WantedBy={target}"]
    if wanted:
        lines[:0] = [f"# It needs in {file.replace('%h', '~')} (0600), a NAME=VALUE each line:"]
        lines[1:1] = [f"#     {name}=" for name in wanted]
    notes = [f"`{name}` has to stand in `{file.replace('%h', '~')}`" for name in wanted]
    return Exported("\n".join([*_install(how), *lines]) + "\n", names, tuple(notes))


def _variables(subject: Subject) -> Iterator[str]:
    """Yield the variables that the runtime itself has to have."""
    settings = subject.wanted.settings
    values: list[object] = [settings.token]
    for server in subject.wanted.servers.values():
        values += [*server.env.values(), *server.headers.values(), *server.args]
        values += server.command or ()
        yield from server.pass_env
    yield from (v.key for v in values if isinstance(v, Reference) and v.kind == "env")


def _install(how: Unit) -> Iterator[str]:
    if how.user:
        yield "# Written by `octave export systemd --system`. As root:"
        yield "#     octave export systemd --system -o /etc/systemd/system/octave.service"
        yield "#     systemctl daemon-reload && systemctl enable --now octave"
    else:
        yield "# Written by `octave export systemd`."
        yield "#     octave export systemd -o ~/.config/systemd/user/octave.service"
        yield "#     systemctl --user daemon-reload && systemctl --user enable --now octave"
        yield "#     loginctl enable-linger    # to start it without a login"


def _head(how: Unit) -> Iterator[str]:
    yield "[Unit]"
    yield "Description=Octave, the runtime for MCP servers"
    if how.user:
        yield "Wants=network-online.target"
        yield "After=network-online.target"


def _service(how: Unit, file: str) -> Iterator[str]:
    yield ""
    yield "[Service]"
    yield "Type=exec"
    if how.user:
        yield f"User={how.user}"
    yield f"ExecStart={' '.join(_quoted(word, is_command=True) for word in how.words)}"
    yield "ExecReload=/bin/kill -HUP $MAINPID"
    for name, value in how.env.items():
        yield f"Environment={_quoted(f'{name}={value}')}"
    yield f"EnvironmentFile=-{file}"
    yield "Restart=on-failure"
    yield "RestartSec=5"
    yield "KillMode=mixed"
    yield f"TimeoutStopSec={_STOP_S}"


def _hardening(how: Unit) -> Iterator[str]:
    """Yield what no server minds: they write to homes and /tmp, and compile as they run."""
    yield "UMask=0077"
    yield "NoNewPrivileges=yes"
    yield "LockPersonality=yes"
    yield "RestrictRealtime=yes"
    yield "RestrictSUIDSGID=yes"
    yield "SystemCallArchitectures=native"
    if how.user:
        # Of a user's own manager these need namespaces, which not every system allows.
        yield "CapabilityBoundingSet="
        yield "ProtectSystem=full"
        yield "ProtectClock=yes"
        yield "ProtectHostname=yes"
        yield "ProtectControlGroups=yes"
        yield "ProtectKernelLogs=yes"
        yield "ProtectKernelModules=yes"
        yield "ProtectKernelTunables=yes"
        yield "PrivateDevices=yes"


def _quoted(word: str, *, is_command: bool = False) -> str:
    """Return `word` as systemd reads it (systemd.syntax(7), systemd.service(5)).

    Raises:
        UsageError: it has control characters.
    """
    if not word.isprintable():
        raise UsageError(f"{word!r} cannot stand in a unit", hint="rename the folder")
    text = word.replace("%", "%%")
    if is_command:
        text = text.replace("$", "$$")
    if re.fullmatch(r"[\w/.:=@%$+,-]+", text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
