"""The README's recording of a terminal: an SVG that types commands and shows what they have printed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

#: Pixels: the width, a line, the margin; and of the font.
WIDTH, LINE, MARGIN, FONT_SIZE = 960, 20, 20, 13
#: Seconds for typing a command, for reading what it has printed, and until the recording begins again.
TYPING, READING, PAUSE = 1.2, 2.0, 5.0
#: Columns of a line; a longer one is cut.
COLUMNS = 118
_SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Typed:
    """A command that was typed.

    Attributes:
        command: As it was typed.
        lines: What it printed.
        seconds: How long it took.
    """

    command: str
    lines: Sequence[str]
    seconds: float


def _cut(line: str) -> str:
    return line if len(line) <= COLUMNS else f"{line[: COLUMNS - 1]}…"


def draw(title: str, session: Sequence[Typed]) -> str:
    """The recording as SVG: each line appears when it was printed, and stays. Readers who want no motion see it whole.

    Args:
        title: What it shows, for those who do not see it.
        session: The commands, in their order.
    """
    rows: list[tuple[float, str, str]] = []
    now = 0.5
    for one in session:
        words = one.command.split(" ")
        typed = [(now + TYPING * number / len(words), " ".join(words[: number + 1])) for number in range(len(words))]
        rows += [(moment, "typed", f"$ {text}") for moment, text in typed]
        now += TYPING
        lines = list(one.lines)
        rows += [(now + one.seconds * (n + 1) / len(lines), "printed", _cut(line)) for n, line in enumerate(lines)]
        rows.append((now, "end", ""))
        now += one.seconds + READING
    whole = now + PAUSE
    height = 2 * MARGIN + LINE * sum(len(one.lines) + 2 for one in session)
    root = ElementTree.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {WIDTH} {height}",
            "font-family": "ui-monospace, SFMono-Regular, Menlo, Consolas, 'Liberation Mono', monospace",
            "font-size": str(FONT_SIZE),
            "role": "img",
        },
    )
    ElementTree.SubElement(root, "title").text = title
    style = ElementTree.SubElement(root, "style")
    rules = ["text{fill:#d1d9e0;white-space:pre}", ".typed{fill:#ffffff;font-weight:bold}"]
    ElementTree.SubElement(root, "rect", {"width": str(WIDTH), "height": str(height), "rx": "8", "fill": "#1f2328"})
    y = MARGIN + LINE / 2
    for number, (moment, kind, text) in enumerate(rows):
        if kind == "end":
            continue
        later = next((row for row in rows[number + 1 :]), (whole, "", ""))
        percent = 100 * moment / whole
        until = 100.0
        if kind == "typed" and later[1] == "typed":
            # The next word takes the place of this line.
            until = 100 * later[0] / whole
        name = f"r{number}"
        frames = f"0%,{percent:.2f}%{{opacity:0}}{percent + 0.01:.2f}%,{until - 0.01:.2f}%{{opacity:1}}"
        rules.append(f"@keyframes {name}{{{frames}{'' if until == 100 else f'{until:.2f}%,100%{{opacity:0}}'}}}")
        rules.append(f".{name}{{animation:{name} {whole:.1f}s step-end infinite}}")
        whole_line = until == 100
        hidden = {} if whole_line else {"data-part": "yes", "opacity": "0"}
        place = {"x": str(MARGIN), "y": f"{y:.0f}", "class": f"{kind} {name}", "xml:space": "preserve", **hidden}
        ElementTree.SubElement(root, "text", place).text = text
        if whole_line:
            y += LINE
            if later[1] in ("typed", "") and kind == "printed":
                y += LINE
    rules.append("@media (prefers-reduced-motion){text{animation:none!important}}")
    style.text = "".join(rules)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def read(svg: str) -> list[tuple[str, list[str]]]:
    """The commands of a recording, each with the lines below it."""
    found: list[tuple[str, list[str]]] = []
    for text in ElementTree.fromstring(svg).iter(f"{_SVG}text"):
        line = text.text or ""
        if text.get("data-part"):
            continue
        if re.match(r"typed\b", text.get("class", "")):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line.removesuffix("…"))
    return found
