"""Draw docs/assets/baseline.svg from docs/baseline.md.

It shows how long people wait while a compaction runs.

    python benchmarks/plot.py          # writes the picture
    python benchmarks/plot.py --check  # exits with 1 when it is not what the table says

The figures are read from the table, so the picture cannot say anything else.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "docs" / "baseline.md"
PICTURE = ROOT / "docs" / "assets" / "baseline.svg"

# The rows that are drawn: how the table names them, and what a person would say.
ROWS = {
    "message to the same session: accepted / answered": "by hand (/compact)",
    "automatic, same session: accepted / answered": "automatic",
}
STORES = ("files (OpenClaw 2026.5.18)", "SQLite (OpenClaw 2026.9.6)", "sessiondb")
COLOURS = ("#b3541e", "#c98a2b", "#1f7a5c")

WIDTH, LEFT, RIGHT, TOP, BAR, GAP = 760, 230, 70, 64, 22, 6
SECONDS_MAX = 90.0


HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">
<title>Seconds until a message is answered that arrives while its conversation is compacted</title>
<style>
text {{ font: 14px system-ui, sans-serif; fill: #333 }}
.group, .title {{ font-weight: 600 }}
.store {{ text-anchor: end }}
.note {{ font-size: 12px; fill: #666 }}
</style>
<rect width="{width}" height="{height}" fill="#fff"/>
<text x="16" y="30" class="title">Seconds until a message is answered that arrives while its \
conversation is compacted</text>
<text x="16" y="48" class="note">A summary of 20 s; one trial each. All figures: docs/baseline.md\
</text>"""


@dataclass(frozen=True)
class Bar:
    """One store in one row."""

    store: str
    seconds: float
    colour: str


def answered_s(cell: str) -> float:
    """Return the second time of a cell such as `+1.9 s / +46.9 s`, in seconds."""
    number, unit = re.findall(r"\+([\d.]+) (ms|s)\b", cell)[1]
    return float(number) / (1000 if unit == "ms" else 1)


def groups(table: str) -> dict[str, list[Bar]]:
    """Read the rows that are drawn from the table's text."""
    found: dict[str, list[Bar]] = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and cells[0] in ROWS:
            seconds = [answered_s(cell.replace("*", "")) for cell in cells[1:4]]
            bars = [Bar(*bar) for bar in zip(STORES, seconds, COLOURS, strict=True)]
            found[ROWS[cells[0]]] = bars
    if set(found) != set(ROWS.values()):
        raise SystemExit(f"{TABLE}: a row that is drawn is missing; the table has {sorted(found)}")
    return found


def draw(table: str) -> str:
    """Return the picture."""
    scale = (WIDTH - LEFT - RIGHT) / SECONDS_MAX
    body, y = [], TOP
    for name, bars in groups(table).items():
        body.append(f'<text x="16" y="{y + 16}" class="group">{name}</text>')
        y += 26
        for bar in bars:
            width = max(2.0, bar.seconds * scale)
            shown = f"{bar.seconds:.1f} s" if bar.seconds >= 1 else f"{bar.seconds:.2f} s"
            body += [
                f'<text x="{LEFT - 10}" y="{y + 16}" class="store">{bar.store}</text>',
                (
                    f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR}" '
                    f'fill="{bar.colour}"/>'
                ),
                f'<text x="{LEFT + width + 8:.1f}" y="{y + 16}">{shown}</text>',
            ]
            y += BAR + GAP
        y += 14
    body.append("</svg>\n")
    return "\n".join([HEAD.format(width=WIDTH, height=y + 18), *body])


def main(arguments: list[str]) -> int:
    picture = draw(TABLE.read_text("utf-8"))
    if "--check" in arguments:
        return 0 if PICTURE.exists() and PICTURE.read_text("utf-8") == picture else 1
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(picture, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
