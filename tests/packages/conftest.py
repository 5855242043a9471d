import os

import pytest


@pytest.fixture
def user_environ() -> dict[str, str]:
    """The environment of whoever runs the tests, with their proxies and certificates."""
    return dict(os.environ)
