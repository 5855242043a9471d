"""What the toolbox answers, for itself and for the tests."""

PICTURE = b"\x89PNG not really"
ODD_RESULT = (
    b'{"content" : [{"type":"text","text":"caf\\u00e9 \xc3\xa9 \xe2\x80\xae"}],'
    b' "n":1.0e5,"big":123456789012345678901234567890, "isError":false, "later":{"a" :[ ]} }'
)
EVERY_TYPE = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "whole": {"type": "integer"},
        "number": {"type": "number"},
        "flag": {"type": "boolean"},
        "nothing": {"type": "null"},
        "list": {"type": "array", "items": {"type": "string"}},
        "object": {"type": "object"},
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "loose": {"type": ["integer", "string"]},
        "level": {"enum": [1, 2, 3]},
        "colour": {"$ref": "#/$defs/Colour"},
        "point": {"allOf": [{"$ref": "#/$defs/Point"}]},
        "free": {},
    },
    "required": ["whole", "text"],
    "$defs": {
        "Colour": {"type": "string", "enum": ["red", "blue"]},
        "Point": {"type": "object", "properties": {"x": {"type": "number"}}},
    },
}
