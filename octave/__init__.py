"""Octave: the package manager and runtime for MCP servers.

The way through, each phase handing one small thing to the next:

    octave.toml -> resolve -> octave.lock -> install       packages/  what is on disk (synchronous)
                        == LaunchSpec ==                   packages/launch.py
    spawn -> supervise -> observe                          runtime/   what is alive (anyio)
                        == Server, Offered ==              runtime/supervisor.py, packages/offered
    name -> route -> bridge eras                           gateway/   how a message crosses
                        == Session ==                      gateway/session.py
    unix socket, HTTP API, MCP over HTTP                   serve/     how it is reached
                        == local socket, HTTP ==
    proxy, CLI verbs, client configurations                 proxy.py, remote.py, cli/, clients/
    what other engines read                                 export/

Imports go down this list only. Below it all: settings.py (durations, sizes, the [runtime] table),
background.py (starts a runtime and waits until it is ready), home.py (every path), errors.py.

Glossary, the code's words and the user's:
    client      an AI tool (Claude Code, Cursor)
    face        an endpoint
    era         a protocol version: the handshake ones up to 2025-11-25, or 2026-07-28
    instance    a process of a server: the first one, the other era's, or one session's own
    job         an installation or removal that was asked for over HTTP
    manifest    octave.toml, what is wanted
    parked      a modern client's call whose legacy server waits for an answer of the client
    pin         an entry of octave.lock, exactly what that is
    record      record.json in an installed version's folder: it is there, whole and verified
    session     one MCP conversation with one client, whatever carries it
    workspace   a manifest, its lockfile and its state
"""

__version__ = "0.1.0"
