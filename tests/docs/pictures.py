"""Pictures of the documents as SVG, drawn from data: the way of a recipe, and the rooms of the code."""

from dataclasses import dataclass
from html import escape
from itertools import pairwise
from pathlib import Path

from tests.docs.pages import SITE
from tests.structure.contract import CONTRACT

IMAGES = SITE / "images"

STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #222 }
.small { font-size: 11px; fill: #555 }
.title { font-weight: 600 }
rect { fill: #f4f5fb; stroke: #5c6bc0; rx: 6px }
.band { fill: #fff; stroke: #c5cae9 }
path { stroke: #5c6bc0; fill: none; marker-end: url(#head) }
</style>
<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
<polygon points="0,0 8,4 0,8" fill="#5c6bc0"/></marker></defs>
"""

SOURCE = {
    "dataset": (0, 1),
    "source": (0, 0),
    "calibration set": (1, 1),
    "leakage": (2, 1),
    "statistics": (1, 0),
}
MADE = {"sensitivity": (2, 2), "quantized checkpoint": (2, 0), "sharded checkpoint": (3, 0), "engine": (4, 0)}
JUDGED = {"baseline": (4, 2), "measurement": (4, 1), "evaluation": (5, 0), "gate": (5, 1), "registry": (5, 2)}
STEPS = {**SOURCE, **MADE, **JUDGED}
"""Step -> column and row of the picture."""

ARROWS = (
    ("source", "statistics"),
    ("dataset", "calibration set"),
    ("calibration set", "statistics"),
    ("calibration set", "leakage"),
    ("statistics", "quantized checkpoint"),
    ("statistics", "sensitivity"),
    ("quantized checkpoint", "sharded checkpoint"),
    ("sharded checkpoint", "engine"),
    ("engine", "measurement"),
    ("engine", "evaluation"),
    ("evaluation", "gate"),
    ("gate", "registry"),
)

BASELINE = "from source"
"""What the picture says of the baseline instead of a long arrow."""

FLOORS = {
    "cli": "the rim: commands, Prefect, other systems, rebuilds",
    "run": "running a plan; what people read",
    "advice": "deciding, without torch",
    "child": "building and judging, mostly in child processes",
    "trtllm": "what backends share",
    "weights": "the base",
    "process": "",
}
"""First room of a floor -> what the floor is for. The order is that of the contract."""

PACKAGES = {
    "calibration": "from text to scales",
    "artifacts": "store, registry, trust",
    "recipes": "schema, formats, library",
}

WIDTH, HEIGHT = 172, 46


@dataclass(frozen=True)
class Box:
    """A rectangle with a name and a line below it."""

    x: int
    y: int
    name: str
    below: str = ""
    width: int = WIDTH

    def svg(self) -> str:
        """The rectangle and its texts."""
        middle = self.x + self.width // 2
        up = 8 if self.below else 0
        lines = [
            f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{HEIGHT}"/>',
            f'<text class="title" text-anchor="middle" x="{middle}" y="{self.y + 28 - up}">{escape(self.name)}</text>',
        ]
        if self.below:
            lines.append(
                f'<text class="small" text-anchor="middle" x="{middle}" y="{self.y + 37}">{escape(self.below)}</text>'
            )
        return "\n".join(lines)


def picture(width: int, height: int, title: str, parts: list[str]) -> str:
    """An SVG document."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" role="img">\n'
        f"<title>{escape(title)}</title>\n{STYLE}"
        f'<rect class="band" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def flow() -> str:
    """The steps from a recipe to a registered version."""
    across, down = WIDTH + 34, HEIGHT + 40
    boxes = {
        name: Box(24 + column * across, 54 + row * down, name, BASELINE if name == "baseline" else "")
        for name, (column, row) in STEPS.items()
    }
    parts = [
        '<text x="24" y="30"><tspan class="title">recipe</tspan> + facts of model, data and host -> '
        '<tspan class="title">plan</tspan>: every step below, its key known before it is built</text>'
    ]
    parts += [_arrow(boxes[start], boxes[end]) for start, end in ARROWS]
    parts.append(_arrow(boxes["baseline"], boxes["evaluation"]))
    parts += [box.svg() for box in boxes.values()]
    return picture(24 + 6 * across, 54 + 3 * down, "From a recipe to a registered version", parts)


def _arrow(start: Box, end: Box) -> str:
    """A line from the side of one box to the facing side of another."""
    if start.x == end.x:
        x = start.x + WIDTH // 2
        ends = (start.y + HEIGHT, end.y) if start.y < end.y else (start.y, end.y + HEIGHT)
        return f'<path d="M{x} {ends[0]} V{ends[1]}"/>'
    middle = end.x - 17
    return f'<path d="M{start.x + WIDTH} {start.y + HEIGHT // 2} H{middle} V{end.y + HEIGHT // 2} H{end.x}"/>'


def rooms() -> str:
    """The packages and the rooms of `pipeline`: each imports rooms to its right and below it."""
    parts, y, width = ['<text class="title" x="24" y="26">pipeline/</text>'], 40, 5 * 140 + 36
    starts = [*(CONTRACT.index(room) for room in FLOORS), len(CONTRACT)]
    for (start, end), title in zip(pairwise(starts), FLOORS.values(), strict=True):
        if title:
            parts.append(f'<text class="small" x="24" y="{y + 8}">{escape(title)}</text>')
            y += 16
        parts += [Box(24 + n * 140, y, name, width=128).svg() for n, name in enumerate(CONTRACT[start:end])]
        y += HEIGHT + 14
    y += 14
    parts += [
        Box(24 + n * 234, y, f"{name}/", line, width=220).svg()
        for n, (name, line) in enumerate(PACKAGES.items())
    ]
    parts.append(
        f'<text class="small" x="24" y="{y + HEIGHT + 20}">A room imports rooms to its right and below it.</text>'
    )
    return picture(width, y + HEIGHT + 36, "Packages and rooms", parts)


def write() -> list[str]:
    """Writes the pictures that differ; returns their names."""
    changed = []
    for name, text in pictures().items():
        file: Path = IMAGES / name
        if not file.is_file() or file.read_text() != text:
            file.write_text(text)
            changed.append(name)
    return changed


def pictures() -> dict[str, str]:
    """File name of each picture -> its text."""
    return {"flow.svg": flow(), "rooms.svg": rooms()}
