"""Entry point of `octave` and `octave-mcp`: the verbs that must be instant come before the rest."""

import sys


def main() -> None:
    """Run the command line and exit with its code."""
    words = sys.argv[1:]
    if words[:1] == ["proxy"]:
        from octave.proxy import main as proxy

        sys.exit(proxy(words[1:]))
    if words == ["--version"]:
        from octave import __version__

        sys.stdout.write(f"octave {__version__}\n")
        sys.exit(0)
    from octave.cli.main import run

    sys.exit(run(words))


if __name__ == "__main__":
    main()
