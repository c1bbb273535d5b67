"""How far a place's clock is from this machine's: what latencies between the two are worth."""

from __future__ import annotations

import time

from benchmarks.contender import Stage, Unsupported
from benchmarks.scale import Scale

_QUESTIONS = 200
_TELLING = """
import sys, time
for _ in sys.stdin:
    sys.stdout.write(f"{time.time_ns()}\\n")
    sys.stdout.flush()
"""


async def turn(stage: Stage, scale: Scale) -> dict[str, list[float]]:
    """Asks it for the time, again and again.

    It answers after the question and before the answer is here: the narrowest gaps bound by how much it is ahead.
    """
    place = await stage.place()
    if place.clock == "monotonic":
        raise Unsupported("shares this machine's clock")
    after, before = [], []
    async with place.conversation([place.python, "-c", _TELLING]) as ask:
        for _ in range(_QUESTIONS):
            asked = time.time_ns()
            told = int(await ask("?"))
            after.append((told - asked) / 1e6)
            before.append((time.time_ns() - told) / 1e6)
    highest, lowest = min(after), -min(before)
    return {"clock_ahead_ms": [(highest + lowest) / 2], "clock_within_ms": [(highest - lowest) / 2]}
