"""A real Docker Engine with gVisor for tests, on a bare Debian machine with root and no registry.

`python -m tests.engine up` and `down` are for people, `ensure()` and `session()` for fixtures. Where DOCKER_HOST names
an engine, that one is used: nothing is installed or started, and only the test images are put into it.

    state directory ($XDG_CACHE_HOME/agentic-isolation/engine)
    ├── images/            archives of the test images, made once per machine
    ├── roots/             engines of other Debian releases, for tests that ask for one
    ├── apt/               package lists with backports on, apart from the machine's own
    └── shared/            one private engine (others by name): dockerd.log, containerd.log, data/
        └── run/           docker.sock, network namespace, everything that goes with `down`
"""

from tests.engine.engine import Engine, down, ensure, session
from tests.engine.errors import EngineError
from tests.engine.images import Images

__all__ = ["Engine", "EngineError", "Images", "down", "ensure", "session"]
