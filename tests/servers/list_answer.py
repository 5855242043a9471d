# mypy: ignore-errors
"""Answers `tools/list` with the member argv[1], such as `"result":null`, whatever that is."""

import sys

from _base import Server, raw


class S(Server):
    name = "list_answer"

    def list_tools(self, msg, params):
        raw(f'{{"jsonrpc":"2.0","id":{msg["id"]},{sys.argv[1]}}}\n')


S().run()
