"""What a tenant is told of an image that the engine cannot pull."""

from __future__ import annotations

import logging

import aiodocker
import pytest

from agentic_isolation import ImageUnavailableError
from agentic_isolation_service.providers.docker.images import _explained

PAGE = "error parsing HTTP 403 response body: invalid character '<' looking for beginning of value: 'password=hunter2'"


def test_pages_that_an_engine_quotes_are_for_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """An image's name leads the engine to any address: to pages that its caller could not read itself."""
    caplog.set_level(logging.INFO)
    with pytest.raises(ImageUnavailableError) as raised, _explained("10.0.0.1/a"):
        raise aiodocker.DockerError(500, PAGE)
    assert "error parsing HTTP 403" in raised.value.message
    assert "hunter2" not in raised.value.message
    assert "hunter2" in caplog.text


def test_answers_of_registries_are_passed_on() -> None:
    with pytest.raises(ImageUnavailableError, match="manifest unknown"), _explained("a"):
        raise aiodocker.DockerError(404, "manifest for a:latest not found: manifest unknown: manifest unknown")
