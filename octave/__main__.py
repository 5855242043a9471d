"""Entry point of `octave` and `octave-mcp`: the verbs that must be instant come before the rest."""

import gc
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

    code = run(words)
    # Looking once more through all there is for what nobody uses takes 30 ms; the process ends.
    gc.freeze()
    sys.exit(code)


if __name__ == "__main__":
    main()
