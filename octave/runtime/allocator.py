"""Memory that was freed goes back to the system.

glibc keeps what large messages needed for the next ones, up to the size of all that were under way
at once: 80-170 MiB were seen after a few of 8 MB. Set limits (mallopt(3)) would prevent that and
cost every large message a tenth to a third more CPU; giving back when nothing is due costs none.
"""

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""malloc_trim(3); None where the C library is not glibc."""


def give_back() -> None:
    """Return freed pages to the system; blocks, some 15 ms for 170 MiB and 0.01 ms for none."""
    if _trim is not None:
        _trim(0)
