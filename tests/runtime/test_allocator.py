import platform
import subprocess
import sys

import pytest

HOLES = """
import psutil
from octave.runtime import allocator

chunks = [bytearray(100_000) for _ in range(1000)]
last = bytearray(100_000)
del chunks
process = psutil.Process()
before = process.memory_info().rss
allocator.give_back()
print(before - process.memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other libraries have no such call")
def test_what_was_freed_below_something_kept_goes_back_to_the_system() -> None:
    # In a process of its own: what this one has freed before is nobody's to know.
    words = [sys.executable, "-c", HOLES]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout) > 90_000_000
