"""Whether a runtime is used over HTTP: requests that had the token, while they last and before."""

import contextlib
from collections.abc import Iterator


class Use:
    """Counts requests that were let in."""

    def __init__(self) -> None:
        self.count = 0
        """How many there were."""
        self.in_flight = 0
        """How many are being answered; a stream is until its end."""

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Answer one of them within it."""
        self.count += 1
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
