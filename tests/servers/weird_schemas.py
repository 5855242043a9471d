# mypy: ignore-errors
"""Good tools between such that no client can use: null, wrong, missing, endless and bottomless
schemas. argv[1] is where its remote references lead; whoever lists tools must not go there. The
names of good tools begin with `good`. After a call of `good_first` one tool is nested 20 000 deep.
"""

import json
import sys

from _base import Server, raw, text

ELSEWHERE = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:9/schema.json"


def nested(depth):
    return '{"type":"object","properties":{"a":' * depth + "{}" + "}}" * depth


def defined(name, schema='{"type":"object"}', more=""):
    return f'{{"name":{json.dumps(name)},"inputSchema":{schema}{more}}}'


PLAIN = '{"type":"object","properties":{"%s":%s}}'
TOOLS = [
    defined("good_first"),
    defined("null_schema", "null"),
    defined("boolean_schema", "true"),
    defined("array_schema", '[{"type":"object"}]'),
    defined("text_schema", json.dumps('{"type":"object"}')),
    '{"name":"no_schema"}',
    defined("empty_schema", "{}"),
    defined("list_type", '{"type":"array"}'),
    defined("null_properties", '{"type":"object","properties":null}'),
    defined("array_properties", '{"type":"object","properties":[]}'),
    defined("boolean_property", PLAIN % ("a", "true")),
    defined("required_text", '{"type":"object","required":"a"}'),
    defined("required_numbers", '{"type":"object","required":[1]}'),
    defined("required_below", PLAIN % ("a", '{"type":"object","required":true}')),
    defined("type_below", PLAIN % ("a\\n\\u001b[2J\\ud800", '{"type":null}')),
    defined("null_output", more=',"outputSchema":null'),
    defined("null_description", more=',"description":null'),
    defined("annotations_text", more=',"annotations":"readOnly"'),
    defined("too_deep", nested(130)),
    defined("too_long", PLAIN % ("a", json.dumps({"enum": ["x" * 300_000]}))),
    defined("too_many_digits", PLAIN % ("a", f'{{"maximum":{"9" * 5000}}}')),
    defined("", more=',"title":"no name"'),
    '{"inputSchema":{"type":"object"}}',
    "null",
    '"text"',
    defined("good_recursive", PLAIN % ("a", '{"$ref":"#"}')),
    defined("good_circle", '{"type":"object","$defs":{"a":{"$ref":"#/$defs/a"}}}'),
    defined("good_remote", PLAIN % ("a", json.dumps({"$ref": ELSEWHERE}))),
    defined("good_dialect", f'{{"$schema":"{ELSEWHERE}","type":"object"}}'),
    defined("good_deep", nested(55)),
    defined("good_numbers", PLAIN % ("a", '{"maximum":1e400,"enum":[null,-0,1E2]}')),
    defined("good_keywords", PLAIN % ("required", '{"type":["string","null"],"own":[1]}')),
    defined("good_last", more=',"outputSchema":{"type":"object","additionalProperties":false}'),
]


class S(Server):
    name = "weird_schemas"
    list_changed = True
    bomb = ()

    def list_tools(self, msg, params):
        tools = ",".join((*TOOLS, *self.bomb))
        raw(f'{{"jsonrpc":"2.0","id":{msg["id"]},"result":{{"tools":[{tools}]}}}}\n')

    def call(self, name, args, msg):
        if name == "good_first":
            self.bomb = (defined("bomb", nested(20_000)), defined("good_news"))
            raw('{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}\n')
        return text(name)


S().run()
