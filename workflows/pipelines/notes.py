"""What is done differently here than in Azure, for the person who runs it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ..paths import shown
from .yaml_file import Value

#: Takes one remark, and the place that it is about.
Say = Callable[[str, Value], None]


@dataclass
class Notes:
    """Fields that are not acted on, each once with the steps that have it; and whole remarks.

    Attributes:
        fields: Steps by field.
        remarks: Each with the step or nested pipeline that it concerns, empty for the whole.
    """

    fields: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, step: str = "") -> None:
        """Note a field that is not acted on."""
        steps = self.fields.setdefault(name, [])
        if step not in steps:
            steps.append(step)

    def say(self, text: str, place: Value | None = None, step: str = "") -> None:
        """Note anything else; a place in a file is told behind it."""
        if place is not None and place.file is not None:
            text = f"{text} ({shown(place.file)}:{place.line})"
        if (step, text) not in self.remarks:
            self.remarks.append((step, text))

    def of(self, step: str) -> Say:
        """Notes remarks of one step."""
        return lambda text, place: self.say(text, place, step)

    def lines(self, steps: Collection[str] | None = None) -> tuple[str, ...]:
        """One line each.

        Args:
            steps: The steps that count; None for all.
        """

        def counts(step: str) -> bool:
            if not step or steps is None or step in steps:
                return True
            return any(one.startswith(f"{step}.") for one in steps)  # it is a nested pipeline

        lines = []
        for name, owners in self.fields.items():
            named = [step for step in owners if step and counts(step)]
            if named or "" in owners:
                lines.append(f"`{name}` is not acted on here" + (f" ({', '.join(named)})" if named else ""))
        return (*lines, *(text for step, text in self.remarks if counts(step)))
