"""conda.yml's `variables`, whose values may refer to others by `${NAME}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ..errors import UserError
from ..paths import shown

_REFERENCE = re.compile(r"\$\{(\w+)\}", re.ASCII)


def expand_variables(variables: Mapping[str, str], *known: Mapping[str, str], file: Path) -> dict[str, str]:
    """The variables, with references replaced by their values.

    Args:
        variables: As in the file; one may refer to those before it, and to its own earlier value.
        known: Further variables, in order of precedence.
        file: The file, for messages.

    Raises:
        UserError: One refers to a variable that is not set.
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
