"""The engine that the tests use runs containers, with and without gVisor."""

import pytest

from tests.engine import Engine

pytestmark = [
    pytest.mark.docker,
    pytest.mark.parametrize("runtime", ["runc", pytest.param("runsc", marks=pytest.mark.gvisor)]),
]


def run(engine: Engine, image: str, *command: str, runtime: str) -> int:
    """The exit code of a command in a container without a network, which is removed afterwards."""
    content = {
        "Image": image,
        "Entrypoint": command,
        "Labels": {"agentic-isolation.test": "engine"},
        "HostConfig": {"Runtime": runtime, "NetworkMode": "none"},
    }
    container = engine.api.json("POST", "/containers/create", content=content)["Id"]
    try:
        engine.api.request("POST", f"/containers/{container}/start")
        return int(engine.api.json("POST", f"/containers/{container}/wait")["StatusCode"])
    finally:
        engine.api.request("DELETE", f"/containers/{container}", query={"force": "1", "v": "1"})


@pytest.mark.parametrize(("command", "exit_code"), [("/bin/true", 0), ("/bin/false", 1)])
def test_runs_a_command_without_shell_or_libc(engine: Engine, runtime: str, command: str, exit_code: int) -> None:
    assert run(engine, engine.images.tiny, command, runtime=runtime) == exit_code


def test_runs_python(engine: Engine, runtime: str) -> None:
    assert run(engine, engine.images.python, "python", "-c", "import ssl", runtime=runtime) == 0


def test_image_with_an_entrypoint_of_its_own(engine: Engine, runtime: str) -> None:
    script = '[ "$FROM_THE_IMAGE" = 1 ] && [ "$(id -un)" = nobody ] && [ "$PWD" = /srv ]'
    assert run(engine, engine.images.entrypoint, "sh", "-c", script, runtime=runtime) == 0
