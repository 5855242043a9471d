"""A person with a browser who consents to everything, as fast as a thread can."""

import sys
import threading
import urllib.request
from collections.abc import Callable


def browser(shown: list[str]) -> Callable[[str], None]:
    """Return what takes the address to consent at, keeps it in `shown`, and goes there."""

    def show(address: str) -> None:
        shown.append(address)
        threading.Thread(target=_visit, args=(address,), daemon=True).start()

    return show


def _visit(address: str) -> None:
    # Redirects lead back to the port of whoever logs in.
    without_proxies = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxies.open(address, timeout=10) as response:
        response.read()


if __name__ == "__main__":
    _visit(sys.argv[1])
