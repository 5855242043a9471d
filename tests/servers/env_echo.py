# mypy: ignore-errors
"""Tool 'env' returns its environment, argv, cwd, uid, umask and open fds.

A good runtime passes only an allow-list plus the server's own secrets, leaks no fd (sockets,
other pipes), no secret in argv, and masks values in logs.
"""

import contextlib
import json
import os
import pathlib
import sys

from _base import Server, err, text, tool


class S(Server):
    name = "env_echo"

    def on_start(self):
        err("starting with token=" + os.environ.get("SECRET_TOKEN", "(none)") + "\n")

    def tools(self):
        return [*super().tools(), tool("env", "Environment as JSON")]

    def call(self, name, args, msg):
        if name == "env":
            um = os.umask(0o77)
            os.umask(um)
            fds = {}
            for f in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names are wanted
                with contextlib.suppress(OSError):
                    fds[f] = str(pathlib.Path(f"/proc/self/fd/{f}").readlink())
            return text(
                json.dumps(
                    {
                        "env": dict(os.environ),
                        "argv": sys.argv,
                        "cwd": str(pathlib.Path.cwd()),
                        "uid": os.getuid(),
                        "umask": oct(um),
                        "pgid": os.getpgid(0),
                        "sid": os.getsid(0),
                        "ppid": os.getppid(),
                        "fds": fds,
                    }
                )
            )
        return super().call(name, args, msg)


S().run()
