"""Words of the command line without pydantic: what is text already needs no conversion.

Typer 0.29 converts every value, text and absent ones too, through pydantic, whose import costs
more than most verbs do. Numbers, paths and choices still go that way, and only when given. To be
removed once typer does so itself.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

from typer.core import TyperArgument, TyperOption


@cache
def spare_pydantic() -> None:
    """Have typer convert the values of this process only where they must be converted."""
    for kind in (TyperArgument, TyperOption):
        converter_of: Any = getattr(kind, "get_runtime_param", None)
        if converter_of is not None:
            setattr(kind, "get_runtime_param", _sparing(converter_of))  # noqa: B010 - typed as Any


def _sparing(converter_of: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda parameter: _Converter(lambda: converter_of(parameter))


class _Converter:
    """Converts what needs it; made for each value, so it holds nothing but the way there."""

    def __init__(self, thorough: Callable[[], Any]) -> None:
        self._thorough = thorough

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value a verb gets."""
        if value is None:
            return () if param.multiple or param.nargs == -1 else None
        wanted = param.type_descriptor.annotation
        if type(value) is wanted:
            return value
        if wanted == list[str] and isinstance(value, list | tuple):
            return list(value)
        return self._thorough().coerce(value, param=param, ctx=ctx)
