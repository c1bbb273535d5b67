"""The image, built once for all tests here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine import Engine
from tests.image.building import built


@pytest.fixture(scope="session")
def image(engine: Engine) -> Iterator[str]:
    """The name of the service's image."""
    with built(engine) as name:
        yield name


@pytest.fixture(autouse=True)
def nothing_in_the_engine(image: str, leaves_nothing_in_the_engine: None) -> None:
    """Every test here is looked after, and the image does not count."""
