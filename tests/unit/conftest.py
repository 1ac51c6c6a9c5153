"""The unit tier has no network: opening an Internet socket fails the test, event loops keep their Unix pairs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def no_network() -> Iterator[None]:
    """Refuse every socket but Unix ones during a test."""
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()
