"""An `octave` that starts within milliseconds: forks of one process that has loaded everything.

Reads an argument list a line, as JSON; answers each with the pid of a child that runs it, and when
that has ended with its exit code, negative for a signal. What the child prints goes to stderr.
"""

import importlib
import json
import os
import sys


def main() -> None:
    run = importlib.import_module("octave.cli.main").run
    for module in (
        "octave.cli.packages",
        "octave.packages.ecosystems.pypi",
        "octave.runtime.probe",
    ):
        importlib.import_module(module)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
            code = 70
            try:
                code = run(json.loads(line))
            finally:
                os._exit(code)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
