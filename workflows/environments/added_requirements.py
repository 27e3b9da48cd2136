"""The requirements that are added to every environment, such as debugpy, unless its definition has them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import UserError
from .conda_packages import CondaPackage, satisfies
from .requirements import Requirement, normalise, parse_requirement

#: The first version of debugpy that the debuggee works with, and the first that it does not.
_OLDEST, _END = (1, 8, 0), (2, 0, 0)
#: Added where the definition restricts debugpy, maybe to an older version than the one that is added otherwise.
_ANY_FITTING = "debugpy>=1.8,<2"
# Packages that bring another one along: azureml-defaults depends on the inference server.
_PROVIDERS = {"azureml-inference-server-http": frozenset({"azureml-defaults"})}
_VERSIONS = re.compile(r"^\s*[A-Za-z0-9._-]+\s*(?:\[[^\]]*\])?\s*(?P<versions>[^;@]*?)\s*(?: --.*)?(?:;.*)?$")
_NUMBERS = re.compile(r"\d{1,9}(?:\.\d{1,9})*")


def find_missing(
    required: Sequence[str],
    present: Sequence[Requirement],
    packages: Sequence[CondaPackage],
    constraints: Sequence[Requirement],
) -> list[Requirement]:
    """The requirements to add: those that the definition does not have, or only under a condition.

    Args:
        required: The needed requirements, such as ``debugpy>=1.8.22,<2``.
        present: The definition's requirements for pip.
        packages: Its packages for conda.
        constraints: Its constraints for pip.

    Raises:
        UserError: The definition restricts debugpy to versions that cannot be used.
    """
    if any(parse_requirement(text).name == "debugpy" for text in required):
        check_debugpy(present, packages, constraints)
    always = {item.name for item in present if ";" not in item.text} | {normalise(item.name) for item in packages}
    sometimes = {item.name for item in present} - always
    found = dict[str, Requirement]()
    for text in required:
        wanted = parse_requirement(text)
        if wanted.name in always or not always.isdisjoint(_PROVIDERS.get(wanted.name, ())):
            continue
        if wanted.name == "debugpy" and any(item.name == "debugpy" for item in (*present, *constraints)):
            found[wanted.name] = parse_requirement(_ANY_FITTING)
        elif wanted.name in sometimes:
            # Without a version: the definition's own counts where its condition holds.
            found[wanted.name] = parse_requirement(wanted.name)
        else:
            found[text] = wanted
    return list(found.values())


def check_debugpy(
    present: Sequence[Requirement], packages: Sequence[CondaPackage], constraints: Sequence[Requirement]
) -> None:
    """Check that a definition does not restrict debugpy to versions that cannot be used.

    Args:
        present: The definition's requirements for pip.
        packages: Its packages for conda.
        constraints: Its constraints for pip.

    Raises:
        UserError: It does.
    """
    specifiers: list[tuple[Requirement | CondaPackage, str]] = [
        *((item, _versions(item.text)) for item in (*present, *constraints) if item.local is None),
        *((item, item.constraint) for item in packages),
    ]
    for item, versions in specifiers:
        if item.name == "debugpy" and not _fits(versions):
            name = item.text.partition(";")[0].partition(" --")[0].strip()
            raise UserError(
                f"{name} cannot be used: debugging needs debugpy 1.8 or newer, below 2.",
                "Ask for debugpy>=1.8, or leave it out: a suitable one is added.",
                file=item.file,
                line=item.line or None,
            )


def _versions(text: str) -> str:
    """The version specifier of a requirement; empty where it has none, such as with an address."""
    match = _VERSIONS.match(text)
    return match["versions"].strip("() ").replace(" ", "") if match else ""


def _fits(rule: str) -> bool:
    """Whether a version specifier allows any version that can be used."""
    named = [tuple(map(int, text.split("."))) for text in _NUMBERS.findall(rule)]
    # Try the next version after each named one, too: `>1.8.22,<1.8.24` allows only the one between.
    near = [(*version[:-1], version[-1] + 1) for version in named]
    versions = [
        _OLDEST,
        (1, 8, 22),
        (1, 99, 0),
        *((*version, 0, 0)[: max(3, len(version))] for version in named + near),
    ]
    return any(_OLDEST <= version < _END and satisfies(version, rule) for version in versions)
