"""Ctrl-C in threads: Python tells only the main one, the others look here whenever they wait.

What a thread raises then is what the main one does, so that both clean up the same way.
"""

import threading
from contextvars import ContextVar

LOOK_S = 0.1
"""How long Ctrl-C may go unnoticed in a thread that waits."""

_OVER: ContextVar[threading.Event | None] = ContextVar("over", default=None)


def obey(over: threading.Event) -> None:
    """Let the calling thread look at `over` from now on; set, it means that the work is over."""
    _OVER.set(over)


def is_over() -> bool:
    """Whether the work of the calling thread is to end; always False where it obeys nothing."""
    over = _OVER.get()
    return over is not None and over.is_set()


def look() -> None:
    """Raise KeyboardInterrupt when the work of the calling thread is to end."""
    if is_over():
        raise KeyboardInterrupt


def patience_s(longest_s: float | None) -> float | None:
    """Return how long the calling thread may wait, seconds, before it has to `look`.

    None: as long as it takes, because Python wakes it.
    """
    if _OVER.get() is None:
        return longest_s
    return LOOK_S if longest_s is None else min(LOOK_S, longest_s)
