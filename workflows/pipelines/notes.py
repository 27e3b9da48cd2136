"""Notes for the user about what works differently here than in Azure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from ..paths import shown
from .yaml_file import Value

#: Adds a remark about a place.
AddRemark = Callable[[str, Value], None]


@dataclass
class Notes:
    """Fields that are ignored, each with the steps that have it, and other remarks.

    Attributes:
        fields: Steps by field.
        remarks: Pairs of a step or nested pipeline (empty for the whole pipeline) and a remark about it.
    """

    fields: dict[str, list[str]] = field(default_factory=dict)
    remarks: list[tuple[str, str]] = field(default_factory=list)

    def add_field(self, name: str, step: str = "") -> None:
        """Note a field that is ignored."""
        steps = self.fields.setdefault(name, [])
        if step not in steps:
            steps.append(step)

    def add_remark(self, text: str, place: Value | None = None, step: str = "") -> None:
        """Note anything else; the place in a file is appended."""
        if place is not None and place.file is not None:
            text = f"{text} ({shown(place.file)}:{place.line})"
        if (step, text) not in self.remarks:
            self.remarks.append((step, text))

    def remarks_for(self, step: str) -> AddRemark:
        """A function that notes remarks about one step."""
        return lambda text, place: self.add_remark(text, place, step)

    def lines(self, steps: Collection[str] | None = None) -> tuple[str, ...]:
        """The notes, one line each.

        Args:
            steps: Only include notes about these steps; None for all.
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
