"""What the docker provider decides by itself, without an engine."""

from __future__ import annotations

import pytest

from agentic_isolation import InvalidArgumentError
from agentic_isolation_service.providers.docker.container import DEFAULT_CPU_MILLIS, default_cpu_millis
from agentic_isolation_service.providers.docker.images import check_image

DIGEST = "sha256:" + "0123456789abcdef" * 4


GOOD = (
    "python python:3.12-slim library/python a.b-c_d__e/f localhost/x localhost:5000/x:y 127.0.0.1:5000/x "
    "host:5000/a/b/c registry.example.org/team/image Registry.Example.org/team/image:Tag_1.0-x [::1]:5000/x "
    "0123456789ab"
).split()
BAD = "Python Team/image a: :a a:b:c /a a/ a//b a@b a@sha256:1 ../a a/../b a?b a#b a%2f -a a- a..b a:-b".split()
LONG = [piece * 50_000 for piece in ("a", "a/", "a.", "a-", "a:")]


@pytest.mark.parametrize("image", [*GOOD, DIGEST, f"python@{DIGEST}", f"python:3@{DIGEST}", "a" * 255])
def test_image_names_that_engines_take(image: str) -> None:
    check_image(image)


@pytest.mark.parametrize("image", [*BAD, "", "a b", "a\n", "a" * 256, *LONG], ids=lambda image: image[:20])
def test_image_names_that_make_no_sense(image: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        check_image(image)
    assert raised.value.field == "image"
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(("cpus", "millis"), [(0, DEFAULT_CPU_MILLIS), (1, 1000), (2, 2000), (64, DEFAULT_CPU_MILLIS)])
def test_default_of_cpus_is_what_the_engine_has(cpus: int, millis: int) -> None:
    """An engine refuses a limit of more than it has."""
    assert default_cpu_millis(cpus) == millis
