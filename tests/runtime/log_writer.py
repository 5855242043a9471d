"""A process that logs numbered lines: PATH ROTATE_BYTES KEEP FIRST COUNT BATCH PACED.

After each batch that is in the file it says the number of the next line on stdout.
Paced, it waits for packing, so that every file has the size it should have.
"""

import asyncio
import sys
from pathlib import Path

from octave.runtime.logs import ServerLog


async def main(log: ServerLog, first: int, count: int, batch: int, paced: int) -> None:
    for start in range(first, first + count, batch):
        numbers = range(start, min(start + batch, first + count))
        log.feed("err", b"".join(b"line %d.\n" % number for number in numbers))
        log.flush()
        print(numbers.stop, flush=True)
        await asyncio.sleep(0)
        while paced and log.is_packing:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0)
    log.close()


if __name__ == "__main__":
    path, *numbers = sys.argv[1:]
    rotate_bytes, keep, *rest = map(int, numbers)
    asyncio.run(main(ServerLog(Path(path), rotate_bytes=rotate_bytes, keep=keep), *rest))
