"""`add`: a server of one's own, by its command, or a remote one by its address."""

import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer

from octave.cli.asking import ask, can_ask
from octave.cli.headers import read_headers
from octave.cli.options import manners
from octave.cli.outcomes import report
from octave.cli.output import safe, tell
from octave.cli.site import open_site
from octave.cli.site_options import (
    EnvFileOption,
    EnvOption,
    HeaderEnvOption,
    HeaderOption,
    NoStartOption,
    YesOption,
)
from octave.clients import looks
from octave.errors import UsageError
from octave.packages import own, variables
from octave.packages.own import Own
from octave.packages.variables import Answers

_RUNNERS = {"npx": "npm", "bunx": "npm", "pnpx": "npm", "uvx": "pypi", "pipx": "pypi"}
"""Programs that look for a package anew at each start."""

_PARAMETER = re.compile(r"[?&]([^?&=#]+)=")


def add(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME")],
    words: Annotated[list[str] | None, typer.Argument(metavar="WORD")] = None,
    *,
    header: HeaderOption = None,
    header_env: HeaderEnvOption = None,
    env: EnvOption = None,
    env_file: EnvFileOption = None,
    no_start: NoStartOption = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit 6 when it could not be checked.")
    ] = False,
    yes: YesOption = False,
) -> int:
    """Add a server of your own: NAME -- COMMAND [ARG...], or NAME URL."""
    terms = manners(context)
    command = tuple(words or ())
    if not command:
        raise UsageError(
            f"nothing says what `{name}` is",
            hint=f"octave add {name} -- COMMAND, or octave add {name} https://HOST/mcp",
        )
    url = command[0] if _is_address(command) else ""
    if url and (env or env_file):
        raise UsageError("a remote server has no environment", hint="use `--header-env`")
    if not url and (header or header_env):
        raise UsageError(
            "`--header` and `--header-env` go with an address",
            hint=f"octave add {name} https://HOST/mcp --header 'K: V'",
        )
    answers = Answers(
        tuple(env or ()),
        variables.read_file(env_file) if env_file else {},
        ask if can_ask(yes=yes) else None,
    )
    headers = read_headers(header or (), header_env or ())
    began = time.monotonic()
    with open_site(terms, start=not no_start, creates=True) as site:
        wish = Own(name, () if url else command, url, headers, Path.cwd(), answers)
        outcome = own.add(wish, site)
    if not (terms.quiet or terms.as_json):
        for note in _notes(name, command, url):
            tell(f"note: {safe(note)}")
    return report(terms, [outcome], time.monotonic() - began, check=check)


def _notes(server: str, command: Sequence[str], url: str) -> Iterator[str]:
    """Yield what could be better about what was added."""
    program = command[0]
    for name in () if url else looks.in_clear(command[1:]):
        key = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
        yield (
            f"`{name}` looks like a secret, and `octave.toml` has it in clear: "
            f"`octave secret set {server} {key}`, then `octave edit`, with "
            f'`{{ secret = "{server}/{key}" }}` in its place'
        )
    if program in _RUNNERS:
        yield (
            f"`{program}` looks for its package anew at each start; "
            f"`octave install {_RUNNERS[program]}:PACKAGE` locks it and starts faster"
        )
    for name in _PARAMETER.findall(url):
        if variables.is_secret(name, None):
            yield f"`{name}` in the address looks like a secret, and `octave.toml` has it in clear"


def _is_address(words: Sequence[str]) -> bool:
    return len(words) == 1 and words[0].lower().startswith(("http://", "https://"))
