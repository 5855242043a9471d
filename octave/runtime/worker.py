"""Work that blocks goes into a thread; where none can be had, it is done all the same."""

import asyncio
import contextlib
import threading
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


async def run_apart(function: Callable[[], Result]) -> Result:
    """Return what `function` gives, called in a thread that nobody ever waits for.

    For what a person may never answer: it takes no place of those that `run` has, cancelling leaves
    it behind, and so does the end of the process.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Result] = loop.create_future()

    def tell(result: Result | None, error: BaseException | None) -> None:
        if answer.done():
            return  # whoever asked has gone
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(result)  # type: ignore[arg-type] # it is one without an error

    def work() -> None:
        result, error = None, None
        try:
            result = function()
        except BaseException as raised:  # noqa: BLE001 - it is raised again where it is waited for
            error = raised
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is interested
            loop.call_soon_threadsafe(tell, result, error)

    try:
        threading.Thread(target=work, name="asking", daemon=True).start()
    except RuntimeError as error:
        if str(error) != _NO_THREAD:
            raise
        return function()
    return await answer
