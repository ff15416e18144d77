"""What all tests share."""

import inspect
import logging
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import aioresponses.core
import pytest

import retrykit
from retrykit.core.listeners import get_listeners

pytest_plugins = ["retrykit.testing.plugin"]


class _BridgedResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 makes responses without the `stream_writer` that aiohttp wants from 3.14 on."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, stream_writer=Mock(output_size=0), **kwargs)


@pytest.fixture(autouse=True)
def _bridge_aioresponses(monkeypatch: pytest.MonkeyPatch) -> None:
    if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
        monkeypatch.setattr(aioresponses.core, "ClientResponse", _BridgedResponse)


@pytest.fixture(autouse=True)
def _give_back_the_listeners() -> Iterator[None]:
    before = get_listeners()
    yield
    retrykit.set_listeners(*before)


@pytest.fixture
def events() -> list[retrykit.RetryEvent | retrykit.GiveUpEvent]:
    """All events from now on."""
    told: list[retrykit.RetryEvent | retrykit.GiveUpEvent] = []
    retrykit.set_listeners(told.append)
    return told


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """The records of the logger `retrykit`."""
    caplog.set_level(logging.INFO, "retrykit")
    return caplog
