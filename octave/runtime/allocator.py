"""Memory of large messages is used again at once, and goes back to the system in a quiet moment.

Left alone, glibc gives back what a message of a megabyte needed as soon as it has passed: the next
has to be given each page anew, which takes longer than all else that is done with it. Or it keeps
as much as all needed that were under way at once: 80-170 MiB were seen after a few of 8 MB.
"""

import ctypes

_library = ctypes.CDLL(None)
_trim = getattr(_library, "malloc_trim", None)
"""malloc_trim(3); None where the C library is not glibc."""
_set = getattr(_library, "mallopt", None)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""mallopt(3)."""

KEPT_BYTES = 8 * 2**20
"""So much that is free is kept between two messages; and none of it after `give_back`."""
LARGE_BYTES = 4 * 2**20
"""What is larger is given back at once."""


def prepare() -> None:
    """Set the limits; to be called once, when the process begins."""
    if _trim is not None and _set is not None:
        _set(_M_MMAP_THRESHOLD, LARGE_BYTES)
        _set(_M_TRIM_THRESHOLD, KEPT_BYTES)


def give_back() -> None:
    """Return freed pages to the system; blocks, some 15 ms for 170 MiB and 0.01 ms for none."""
    if _trim is not None:
        _trim(0)
