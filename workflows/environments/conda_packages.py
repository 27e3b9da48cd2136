"""conda's package specifications, and their translation to requirements for pip.

Source: conda's documentation, "Package match specifications": ``=1.26`` is a prefix, ``==1.26.4`` is exact,
``name version build`` may be separated by spaces, and a channel before the name ends in ``::``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_SPEC = re.compile(r"^(?:[^\s:]+::)?(?P<name>[A-Za-z0-9_][A-Za-z0-9_.-]*)\s*(?P<rest>.*)$")
_CLAUSE = re.compile(r"^(?P<op>==|>=|<=|!=|~=|=|>|<)?\s*(?P<version>[0-9A-Za-z.*+!_-]+)$")

# Names that differ between conda's channels and the Python package index.
_RENAMED = {
    "pytorch": "torch",
    "pytorch-cpu": "torch",
    "matplotlib-base": "matplotlib",
    "msgpack-python": "msgpack",
    "opencv": "opencv-python-headless",
    "py-opencv": "opencv-python-headless",
    "py-xgboost": "xgboost",
    "pytables": "tables",
}
# Programs and C libraries that the index does not have.
_CONDA_ONLY = re.compile(
    r"^(?:_.*|lib.*|ld_impl.*|gcc.*|gxx.*|gfortran.*|compilers|binutils.*|sysroot.*|cuda.*|cudnn|nccl|"
    r"blas|openblas|nomkl|openssl|ca-certificates|bzip2|xz|zlib|zstd|sqlite|tk|readline|ncurses|git|"
    r"openmpi|mpich|ffmpeg|pytorch-cuda|python_abi|vc|vs20\d\d_runtime|ucrt)$"
)


@dataclass(frozen=True)
class CondaPackage:
    """A package in conda.yml that conda installs.

    Attributes:
        text: As written.
        name: Its name in lower case, without channel.
        constraint: conda's version specification, empty where there is none.
        file: The file that names it.
        line: Its line, counted from 1.
    """

    text: str
    name: str
    constraint: str
    file: Path
    line: int


def parse_package(text: str, file: Path, line: int) -> CondaPackage | None:
    """Parse a specification such as ``conda-forge::numpy=1.26=py311_0``; None if it is not valid."""
    match = _SPEC.match(text.strip())
    if match is None:
        return None
    rest = match["rest"].strip()
    if rest and rest[0] not in "=<>!~":
        rest = rest.split()[0]  # "name version build"
        rest = rest if rest[-1] == "*" else f"=={rest}"
    elif rest.startswith("="):
        equals = "==" if rest.startswith("==") else "="
        rest = equals + re.split(r"[= ]", rest[len(equals) :].strip())[0]  # the build comes after
    return CondaPackage(text, match["name"].lower(), rest.replace(" ", ""), file, line)


def satisfies(version: tuple[int, ...], constraint: str) -> bool:
    """Whether a Python version fits a constraint of conda's, such as ``>=3.9,<3.12`` or ``=3.10``.

    A clause that cannot be read counts as satisfied.
    """
    return any(
        all(_clause(version, clause) for clause in option.split(",") if clause.strip())
        for option in constraint.split("|")
    )


def _clause(version: tuple[int, ...], clause: str) -> bool:
    match = _CLAUSE.match(clause.strip())
    if match is None:
        return True
    numbers = re.match(r"\d{1,9}(?:\.\d{1,9})*", match["version"])
    if numbers is None:
        return True
    wanted = tuple(int(part) for part in numbers.group().split("."))
    size = max(len(wanted), len(version))
    ours = version + (0,) * (size - len(version))
    theirs = wanted + (0,) * (size - len(wanted))
    begins = version[: len(wanted)] == wanted
    operator = match["op"] or "="
    if operator == "~=":
        return ours >= theirs and version[: len(wanted) - 1] == wanted[:-1]
    # "==3.11" for Python is always meant as 3.11.x.
    return {
        "=": begins,
        "==": begins,
        "!=": not begins,
        ">=": ours >= theirs,
        "<=": ours <= theirs or begins,
        ">": ours > theirs and not begins,
        "<": ours < theirs,
    }[operator]


def translate_package(package: CondaPackage) -> tuple[str | None, str]:
    """The requirement that pip installs in place of a conda package.

    Returns:
        The requirement, or None where pip has no such package; and a note for the user, which may be empty.
    """
    if package.name in ("python", "pip"):
        return None, ""
    if _CONDA_ONLY.match(package.name):
        return None, f"{package.text} is left out: only conda has it"
    name = _RENAMED.get(package.name, package.name)
    note = f"{package.name} is called {name} in the package index" if name != package.name else ""
    if "|" in package.constraint:
        return name, f"{package.text}: pip has no such version rule, so any version is taken"
    clauses = []
    for clause in filter(None, package.constraint.split(",")):
        match = _CLAUSE.match(clause)
        if match is None:
            return name, f"{package.text}: pip has no such version rule, so any version is taken"
        operator, version = match["op"] or "=", match["version"]
        if version == "*":
            continue
        if operator == "=":
            version = version if version.endswith("*") else f"{version}.*"
            operator = "=="
        if version.endswith("*") and not version.endswith(".*"):
            version = version[:-1].rstrip(".") + ".*"
        if operator not in ("==", "!="):
            version = version.removesuffix(".*")
        clauses.append(operator + version)
    return name + ",".join(clauses), note
