# %% [markdown]
# # An agent analyses data in a workspace
#
# The agent gets a CSV and a question. It uploads the file into a workspace of its own, writes code, runs it, reads what
# came of it, repairs what failed, and downloads the plot that it has drawn. Nothing that it wrote runs on this machine:
# in a container where there is a Docker Engine, and only for want of one in a plain directory.
#
# Run it as a program, `python examples/data_analysis.py [PLOT]`, or cell by cell in a notebook or an editor. The
# "model" is a small scripted policy, so that the example needs neither a key nor a package; it decides on what really
# happened.

# %%
from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path

from agentic_isolation import ExecuteResult, ImageUnavailableError, ProviderUnavailableError
from agentic_isolation.sync import Workspace

DATA = Path(__file__).parent / "data" / "temperatures.csv"
PLOT = Path(sys.argv[1] if len(sys.argv) > 1 else "temperatures.svg")
QUESTION = "How do the two stations' temperatures differ over the year?"

# %% [markdown]
# ## What the model writes
#
# Its first program looks at the data, the second one reckons with numbers that are not all there, and the third draws.

# %%
LOOK = """\
import csv, json
rows = list(csv.DictReader(open("temperatures.csv")))
print(json.dumps({"columns": list(rows[0]), "rows": len(rows), "stations": sorted({row["station"] for row in rows})}))
"""

MEANS = """\
import collections, csv, json

values = collections.defaultdict(list)
for row in csv.DictReader(open("temperatures.csv")):
    values[row["station"], int(row["day"][5:7])].append(float(row["temperature_c"]))
means = collections.defaultdict(dict)
for (station, month), found in sorted(values.items()):
    means[station][month] = round(sum(found) / len(found), 1)
json.dump(means, open("means.json", "w"))
warmest = {station: max(months, key=months.get) for station, months in means.items()}
print(json.dumps({"warmest_month": warmest}))
"""

REPAIR = (
    '    values[row["station"]',
    '    if row["temperature_c"] == "n/a":\n        continue\n    values[row["station"]',
)

DRAW = """\
import json

WIDTH, HEIGHT, LEFT, TOP = 640, 360, 48, 24
COLOURS = {"harbour": "#1f77b4", "hill": "#d62728"}
means = json.load(open("means.json"))
every = [value for months in means.values() for value in months.values()]
low, high = min(every), max(every)


def place(month, value):
    x = LEFT + (month - 1) * (WIDTH - 2 * LEFT) / 11
    y = TOP + (high - value) * (HEIGHT - 3 * TOP) / (high - low)
    return f"{x:.1f},{y:.1f}"


parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif">']
parts.append(f'<text x="{LEFT}" y="16">Mean temperature by month, in degrees Celsius</text>')
for position, (station, months) in enumerate(means.items()):
    points = " ".join(place(int(month), value) for month, value in months.items())
    colour = COLOURS[station]
    parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
    parts.append(f'<text x="{LEFT + 120 * position}" y="{HEIGHT - 8}" fill="{colour}">{station}</text>')
for value in (low, high):
    parts.append(f'<text x="4" y="{place(1, value).split(",")[1]}" font-size="12">{value}</text>')
open("plot.svg", "w").write("\\n".join([*parts, "</svg>"]))
print("drawn")
"""


Step = tuple[str, str, str]
"""A thought, the name of a file, and the program that goes into it."""


def model() -> Generator[Step, ExecuteResult, None]:
    """Yields the next step and is sent what became of its program."""
    result = yield "I look at the data first.", "look.py", LOOK
    program = MEANS
    result = yield f"There are {result.stdout.strip()}. I compare monthly means.", "means.py", program
    if not result.success and "could not convert string to float: 'n/a'" in result.stderr:
        program = program.replace(*REPAIR)
        result = yield "Some values are missing: I leave those out.", "means.py", program
    if result.success:
        yield f"The means say {result.stdout.strip()}. A plot shows it better.", "draw.py", DRAW


# %% [markdown]
# ## The agent's loop


# %%
def analyse(workspace: Workspace, plot: Path) -> bool:
    """Answers the question in a workspace; returns whether there is a plot."""
    workspace.upload(DATA)
    thoughts = model()
    step = next(thoughts)
    while True:
        thought, name, program = step
        print(f"- {thought}")
        workspace.write_file(name, program)
        result = workspace.execute(["python3", name], timeout=30)
        if not result.success:
            print(f"  {name} failed: {result.stderr.strip().splitlines()[-1]}")
        try:
            step = thoughts.send(result)
        except StopIteration:
            break
    if not workspace.file_exists("plot.svg"):
        return False
    workspace.download("plot.svg", plot)
    return True


# %%
def new_workspace() -> Workspace:
    """Makes a hardened container, or where there is no engine, a plain directory."""
    try:
        return Workspace.create(provider="docker")
    except (ProviderUnavailableError, ImageUnavailableError) as reason:
        print(f"No container ({reason}): a plain directory of this machine, NOT ISOLATED.", file=sys.stderr)
    return Workspace.create(provider="local")


# %%
if __name__ == "__main__":
    print(QUESTION)
    with new_workspace() as workspace:
        drawn = analyse(workspace, PLOT)
    print(f"The plot is in {PLOT}." if drawn else "There is no plot.")
    sys.exit(0 if drawn else 1)
