"""conda.yml's `variables`, whose values may refer to others by `${NAME}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..paths import shown

_REFERENCE = re.compile(r"\$\{(\w+)\}", re.ASCII)


def expand_variables(variables: Mapping[str, str], *known: Mapping[str, str], file: Path) -> dict[str, str]:
    """The variables with what they refer to put in.

    Args:
        variables: As they stand in the file; one may refer to those before it, and to itself as it was.
        known: Where other names are looked for, in this order.
        file: The file, for messages.

    Raises:
        UserError: One refers to what is set nowhere.
    """
    found: dict[str, str] = {}
    for name, text in variables.items():

        def replace(reference: re.Match[str], name: str = name) -> str:
            wanted = reference[1]
            for place in (found, *known):
                if wanted in place:
                    return place[wanted]
            raise UserError(
                f"`variables` of {shown(file)}: {name} refers to ${{{wanted}}}, which is not set.",
                f"Set {wanted} before you type inv, or write the value itself.",
            )

        found[name] = _REFERENCE.sub(replace, text)
    return found
