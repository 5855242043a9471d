"""Options of the verbs that install or add servers, declared once; they load nothing else."""

from pathlib import Path
from typing import Annotated

import typer

from octave.cli.completion import registry_ids

RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry",
        metavar="NAME",
        help="Ask this registry too: `official`, or one of octave.toml.",
        autocompletion=registry_ids,
    ),
]

EnvOption = Annotated[
    list[str] | None,
    typer.Option(
        "--env", "-e", metavar="KEY[=VALUE]", help="A variable; a secret by its name alone."
    ),
]
EnvFileOption = Annotated[
    Path | None, typer.Option("--env-file", help="Variables, a `KEY=VALUE` each line.")
]
ArgsInOption = Annotated[
    str | None,
    typer.Option("--args-in", metavar="VARIABLE", hidden=True, help="All arguments, as JSON."),
]
"""How a runtime gives them: unlike argv, the environment is read by its owner alone."""
OnlyAskedOption = Annotated[
    bool,
    typer.Option("--only-asked", hidden=True, help="No variables but those that it asks for."),
]
"""What whoever asks a runtime may give."""
HeaderOption = Annotated[
    list[str] | None,
    typer.Option("--header", metavar="'K: V'", help="Sent to the address; repeatable."),
]
HeaderEnvOption = Annotated[
    list[str] | None,
    typer.Option("--header-env", metavar="'K: VARIABLE'", help="The same, from the environment."),
]
AgeOption = Annotated[
    str | None,
    typer.Option(
        "--min-release-age", metavar="AGE", help="Choose only versions that are so old: `7d`."
    ),
]
NoStartOption = Annotated[bool, typer.Option("--no-start", help="Do not start it once.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")]
