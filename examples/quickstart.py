"""The README's quick start: a file, a command, and a program's output as it is printed.

Run it with `python examples/quickstart.py`. It needs no server and no Docker: the `local` provider makes a workspace of
a directory on this machine, without isolation. Leave `provider` out and the same code runs in a hardened container.
"""

import asyncio

from agentic_isolation import AgenticWorkspace

COUNTDOWN = """\
import time
for number in (3, 2, 1):
    print(number)
    time.sleep(0.2)
print("lift-off")
"""


async def main() -> None:
    async with AgenticWorkspace.create(provider="local") as ws:
        await ws.write_file("hello.py", "print('hi')")
        result = await ws.execute("python3 hello.py")
        print(result.exit_code, result.stdout.strip())

        await ws.write_file("countdown.py", COUNTDOWN)
        async for line in ws.stream(["python3", "-u", "countdown.py"]):
            print(line)


if __name__ == "__main__":
    asyncio.run(main())
