"""What goes into a command: arguments, environment, working directory, standard input, and what cannot start."""

from __future__ import annotations

import json
import os
import re
from typing import Any

import pytest

from agentic_isolation import (
    InvalidArgumentError,
    PathEscapesError,
    ProgramNotExecutableError,
    ProgramNotFoundError,
    StartError,
    WorkingDirNotFoundError,
)
from tests.support import proc
from tests.support.jobs import python
from tests.support.ways import Way, Workspace

SHOW_ARGUMENTS = "import json, sys; print(json.dumps(sys.argv[1:]))"
SHOW_ENVIRONMENT = ["cat", "/proc/self/environ"]
COUNT_INPUT = "import sys; print(len(sys.stdin.buffer.read()))"

AWKWARD = [
    "",
    " ",
    "two words",
    "it's",
    'say "hi"',
    "back\\slash",
    "line\nbreak",
    "\ttab",
    "$HOME",
    "`date`",
    "$(date)",
    "*",
    "~",
    "-x",
    "--",
    "a;b|c&d>e<f",
    "grüße 世界 🎉",
    "\x01\x7f",
]


async def environment_of(ws: Workspace, env: dict[str, str] | None = None) -> dict[str, str]:
    """Returns the environment that a command sees."""
    result = await ws.execute(SHOW_ENVIRONMENT, env=env)
    return dict(part.split("=", 1) for part in result.stdout.split("\0") if part)


async def test_arguments_arrive_as_they_are(ws: Workspace) -> None:
    result = await ws.execute(python(SHOW_ARGUMENTS, *AWKWARD))
    assert json.loads(result.stdout) == AWKWARD


async def test_a_string_is_a_line_for_the_shell(ws: Workspace) -> None:
    result = await ws.execute("printf '%s|' \"a b\" c$((1+1)) 'd;e' && echo ok")
    assert result.stdout == "a b|c2|d;e|ok\n"


async def test_a_list_knows_no_shell(ws: Workspace) -> None:
    assert (await ws.execute(["echo", "$HOME", "&&", "false"])).stdout == "$HOME && false\n"


async def test_arguments_of_half_a_megabyte_in_all(ws: Workspace) -> None:
    arguments = ["x" * 100_000] * 5
    result = await ws.execute(python("import sys; print([len(a) for a in sys.argv[1:]])", *arguments))
    assert result.stdout == "[100000, 100000, 100000, 100000, 100000]\n"


async def test_environment_is_clean_of_the_servers(ws: Workspace, way: Way) -> None:
    """Nothing of the service's environment but its PATH, and nothing of the guest's settings."""
    server = {part.partition("=")[0] for part in proc.environment(way.service_pid)} | set(os.environ)
    environment = await environment_of(ws)
    assert set(environment) & server <= {"PATH", "HOME", "LANG", "PWD", "TMPDIR"}
    assert not [name for name in environment if name.startswith("AGENTIC")]
    assert environment["HOME"] != os.environ.get("HOME")
    assert environment.get("PWD") != os.environ.get("PWD")


async def test_environment_of_workspace_and_command(way: Way) -> None:
    config = way.config(environment={"KEPT": "workspace", "CHANGED": "workspace", "AWKWARD": "a=b\n'\" ü"})
    async with way.open(config) as ws:
        environment = await environment_of(ws, {"CHANGED": "command", "ADDED": "command", "EMPTY": ""})
        expected = {"KEPT": "workspace", "CHANGED": "command", "ADDED": "command", "EMPTY": "", "AWKWARD": "a=b\n'\" ü"}
        assert {name: environment.get(name) for name in expected} == expected
        # It was for that command alone.
        assert (await environment_of(ws))["CHANGED"] == "workspace"
        assert [line async for line in ws.stream("echo $CHANGED $ADDED", env={"ADDED": "2"})] == ["workspace 2"]


async def test_program_is_looked_up_in_the_commands_own_path(ws: Workspace) -> None:
    await ws.write_file("bin/hello", "#!/bin/sh\necho found\n", mode=0o755)
    here = (await ws.execute("pwd")).stdout.strip()
    assert (await ws.execute(["hello"], env={"PATH": f"{here}/bin"})).stdout == "found\n"
    with pytest.raises(ProgramNotFoundError):
        await ws.execute(["hello"])


async def test_working_directory_per_command(ws: Workspace) -> None:
    await ws.files.make_directory("deep/er")
    await ws.write_file("deep/er/file", "here")
    assert (await ws.execute("cat file", cwd="/workspace/deep/er")).stdout == "here"
    assert [line async for line in ws.stream("cat file", cwd="/workspace/deep/er")] == ["here"]
    assert (await ws.execute("cat deep/er/file")).stdout == "here"


async def test_working_directory_of_the_workspace(way: Way) -> None:
    async with way.open(way.config(working_dir="/home/some one/project")) as ws:
        await ws.write_file("file", "here")
        assert await ws.read_file("/home/some one/project/file") == b"here"
        assert (await ws.execute("cat file")).stdout == "here"
        assert (await ws.execute("cat file", cwd="/home/some one/project")).stdout == "here"
        assert ws.info.working_dir == "/home/some one/project"


async def test_no_standard_input_is_an_empty_one(ws: Workspace) -> None:
    assert (await ws.execute(python(COUNT_INPUT))).stdout == "0\n"
    assert [line async for line in ws.stream(python(COUNT_INPUT))] == ["0"]


async def test_standard_input_arrives_whole(ws: Workspace) -> None:
    for length in (0, 1, 65_536, 1 << 20):
        data = os.urandom(length)
        result = await ws.execute(["cat"], stdin=data, output_limit=2 << 20)
        assert result.output[0].head == data
        assert [line async for line in ws.stream(python(COUNT_INPUT), stdin=data)] == [str(length)]


async def test_standard_input_as_text(ws: Workspace) -> None:
    assert (await ws.execute("cat", stdin="grüße\n")).stdout == "grüße\n"


async def test_command_need_not_read_its_standard_input(ws: Workspace) -> None:
    assert (await ws.execute("echo done", stdin=bytes(1 << 20))).stdout == "done\n"
    assert (await ws.execute(["head", "-c", "3"], stdin="abc" * 300_000)).stdout == "abc"
    assert [line async for line in ws.stream("exec <&-; echo done", stdin=bytes(1 << 20))] == ["done"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"command": ["echo", "a\0b"]}, "command.argv.args[1]"),
    ({"command": ["ec\0ho"]}, "command.argv.args[0]"),
    ({"command": "echo \0"}, "command.shell"),
    ({"command": []}, "command.argv"),
    ({"command": [""]}, "command.argv"),
    ({"command": ""}, "command.shell"),
    ({"command": "  \n"}, "command.shell"),
    ({"command": "true", "timeout": -1.0}, "command.timeout"),
    ({"command": "true", "timeout": -0.5}, "command.timeout"),
    ({"command": "true", "timeout": 0.0}, "command.timeout"),
    ({"command": "true", "timeout": 1e10}, "command.timeout"),
    ({"command": "true", "timeout": float("nan")}, "command.timeout"),
    ({"command": "true", "timeout": float("inf")}, "command.timeout"),
    ({"command": "true", "cwd": "relative/dir"}, "command.working_dir"),
    ({"command": "true", "cwd": "/workspace/../etc"}, "command.working_dir"),
    ({"command": "true", "cwd": "/work\0space"}, "command.working_dir"),
    ({"command": "true", "env": {"": "x"}}, "command.environment"),
    ({"command": "true", "env": {"A=B": "x"}}, "command.environment"),
    ({"command": "true", "env": {"A\0B": "x"}}, "command.environment"),
    ({"command": "true", "env": {"A": "x\0y"}}, 'command.environment["A"]'),
    ({"command": "true", "stdin": bytes((1 << 20) + 1)}, "command.stdin"),
    ({"command": ["echo", "x" * 600_000]}, "command.argv.args[1]"),
    ({"command": ["echo", *["x" * 100_000] * 6]}, "command"),
    ({"command": "true", "env": {"A": "x" * 600_000}}, "command.environment"),
    ({"command": "true", "env": {str(number): "x" * 100_000 for number in range(6)}}, "command"),
    ({"command": ["echo", "\udcff"]}, "command.argv.args[1]"),
    ({"command": "echo \udcff"}, "command.shell"),
    ({"command": "true", "env": {"A": "\udcff"}}, 'command.environment["A"]'),
]


async def test_commands_that_make_no_sense_are_refused_by_their_field(ws: Workspace) -> None:
    async def stream(**arguments: Any) -> None:
        async for _ in ws.stream(**arguments):
            pass

    for arguments, field in REFUSED:
        for attempt in (ws.execute, stream):
            with pytest.raises(InvalidArgumentError) as caught:
                await attempt(**arguments)
            assert caught.value.field == field, f"{arguments!r:.100}"
    assert (await ws.execute("echo still here")).stdout == "still here\n"


async def test_what_is_larger_than_a_message_is_refused(ws: Workspace) -> None:
    """gRPC itself refuses it, where there is gRPC."""
    bulk = "x" * (5 << 20)
    with pytest.raises(InvalidArgumentError, match="as a file"):
        await ws.execute("cat", stdin=bulk)
    with pytest.raises(InvalidArgumentError, match="file"):
        await anext(ws.stream(["echo", bulk]))
    with pytest.raises(InvalidArgumentError, match="file"):
        await ws.start("true", env={"BULK": bulk})
    assert (await ws.execute("echo still here")).stdout == "still here\n"


async def test_output_limit_out_of_range_is_refused(ws: Workspace) -> None:
    for limit in (-1, (16 << 20) + 1, 1 << 40):
        with pytest.raises(InvalidArgumentError) as caught:
            await ws.execute("true", output_limit=limit)
        assert caught.value.field == "output_limit_bytes"


async def test_missing_program(ws: Workspace) -> None:
    for program in ("no-such-program", "/no/such/program", "./no-such-program"):
        with pytest.raises(ProgramNotFoundError, match=re.escape(program)):
            await ws.execute([program, "argument"])
        with pytest.raises(ProgramNotFoundError, match=re.escape(program)):
            await anext(ws.stream([program]))


async def test_missing_program_within_a_shell_line_is_the_shells_result(ws: Workspace) -> None:
    result = await ws.execute("no-such-program")
    assert result.exit_code == 127
    assert "not found" in result.stderr


async def test_file_that_is_not_executable(ws: Workspace) -> None:
    await ws.write_file("plain.txt", "#!/bin/sh\necho no\n", mode=0o644)
    with pytest.raises(ProgramNotExecutableError, match=r"plain\.txt"):
        await ws.execute(["./plain.txt"])


async def test_directory_is_not_executable(ws: Workspace) -> None:
    await ws.files.make_directory("folder")
    with pytest.raises(ProgramNotExecutableError):
        await ws.execute(["./folder"])


async def test_files_of_no_executable_format(ws: Workspace) -> None:
    for content in (b"\x7fELF garbage", b"", b"\0\1\2"):
        await ws.write_file("broken", content, mode=0o755)
        with pytest.raises(StartError):
            await ws.execute(["./broken"])


async def test_argument_and_variable_as_long_as_may_be(ws: Workspace) -> None:
    """What is longer is refused before it comes to the kernel, which would not say which one it was."""
    variable = {"A": "x" * 131_069}
    assert (await ws.execute(["sh", "-c", 'echo "${#1} ${#A}"', "sh", "x" * 131_071], env=variable)).stdout == (
        "131071 131069\n"
    )
    for command, env, field in (
        ("x" * 131_072, {}, "command.shell"),
        (["true", "x" * 131_072], {}, "command.argv.args[1]"),
        ("true", {"A": "x" * 131_070}, "command.environment"),
    ):
        with pytest.raises(InvalidArgumentError, match="131071") as raised:
            await ws.execute(command, env=env)
        assert raised.value.field == field


async def test_script_with_a_missing_interpreter(ws: Workspace) -> None:
    await ws.write_file("script", "#!/no/such/interpreter\n", mode=0o755)
    with pytest.raises(StartError):
        await ws.execute(["./script"])


async def test_missing_working_directory(ws: Workspace) -> None:
    with pytest.raises(WorkingDirNotFoundError, match="nowhere"):
        await ws.execute("true", cwd="/workspace/nowhere")
    await ws.write_file("file", "")
    with pytest.raises(WorkingDirNotFoundError):
        await ws.execute("true", cwd="/workspace/file")


@pytest.mark.places("local")
async def test_working_directory_through_a_symlink_out_is_refused(ws: Workspace) -> None:
    await ws.execute("ln -s / out")
    with pytest.raises((PathEscapesError, WorkingDirNotFoundError)):
        await ws.execute("pwd", cwd="/workspace/out/etc")
