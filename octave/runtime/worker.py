"""Work that blocks goes into a thread; where none can be had, it is done all the same."""

from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

import anyio.to_thread

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")

_NO_THREAD = "can't start new thread"
"""What `threading` says when the system refuses one (EAGAIN of pthread_create(3)); it has no class
of its own."""


async def run(
    function: Callable[[*Arguments], Result],
    *arguments: *Arguments,
    abandon_on_cancel: bool = False,
) -> Result:
    """Return what `function` gives, called in a thread; as `anyio.to_thread.run_sync`.

    On a machine that refuses the thread everything waits meanwhile, which is better than the end.
    """
    try:
        return await anyio.to_thread.run_sync(
            function, *arguments, abandon_on_cancel=abandon_on_cancel
        )
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        return function(*arguments)
