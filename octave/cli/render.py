"""Tables and progress on a terminal. The only importer of rich, loaded when it is first used.

Foreign text goes through `safe` and into `Text`, never into markup.
"""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from octave.cli.output import safe, tell


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Write a table to stdout; in a pipe nothing is cut and nothing is coloured."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    terminal = sys.stdout.isatty()
    width = None if terminal else max(200, *(sum(map(len, row)) + 3 * len(row) for row in rows))
    console = Console(file=sys.stdout, width=width, highlight=False)
    shown = Table(box=box.SIMPLE_HEAD if terminal else None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(column, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(safe(cell)) for cell in row))
    console.print(shown)


@contextlib.contextmanager
def progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """Show the current step of longer work on stderr; yield the function that names the step.

    A terminal gets a spinner with the time; elsewhere each step is a line, unless `quiet`. An
    empty step hides the spinner: else it would be drawn over a question.
    """
    if quiet:
        yield lambda _: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.text import Text

        console = Console(stderr=True)
        status = console.status("")
        began = time.monotonic()

        def show(step: str) -> None:
            # Not before the first step: a question may come first, and would be drawn over.
            if not step:
                status.stop()
                return
            status.update(Text(f"{safe(step)} ({time.monotonic() - began:.0f} s)"))
            status.start()

        try:
            yield show
        finally:
            status.stop()
    else:
        yield lambda step: tell(safe(step)) if step else None


def size(count_bytes: float | None) -> str:
    """Return a size for a person: `12 MB`; a dash for None."""
    if count_bytes is None:
        return "-"
    return f"{count_bytes / 1e6:.0f} MB"


def percent(share: float) -> str:
    """Return a share for a person: `99.953 %`; rounded down, so that 100 % means all of it."""
    return f"{math.floor(share * 100_000) / 1000:g} %"


def count(number: int, noun: str) -> str:
    """Return a number of things for a person: `1 tool`, `2 tools`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def span(seconds: float | None) -> str:
    """Return a duration for a person: `3 h 12 min`; a dash for None."""
    if seconds is None:
        return "-"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"
