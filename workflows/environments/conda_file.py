"""conda.yml, read with the line of every entry."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import UserError
from .conda_packages import CondaPackage, parse_package
from .requirements import PipLines, read_line, read_text

if TYPE_CHECKING:
    from pathlib import Path

    from yaml.nodes import Node


def read_conda(file: Path, lines: PipLines) -> tuple[str, list[str], list[CondaPackage]]:
    """Read a conda.yml.

    Args:
        file: Its path.
        lines: Where its pip part goes.

    Returns:
        Its name (empty where it has none), its channels, and its packages, python and pip among them.

    Raises:
        UserError: It is not YAML, or not of conda's shape; with the line.
    """
    import yaml

    text = read_text(file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(
            f"{file.name} is not valid YAML: {problem}.",
            "Correct that line.",
            file=file,
            line=mark.line + 1 if mark is not None else None,
        ) from error
    top = _mapping(root, file, f"{file.name} has to be a mapping with a list `dependencies`")
    if "dependencies" not in top:
        raise UserError(
            f"{file.name} has no list `dependencies`.", "Add one, such as `dependencies: [pip]`.", file=file
        )
    name = _scalar(top["name"], file, "`name` has to be a text") if "name" in top else ""
    channels = [
        _scalar(node, file, "a channel has to be a text")
        for node in (_sequence(top["channels"], file, "`channels`") if "channels" in top else [])
    ]
    packages = []
    for node in _sequence(top["dependencies"], file, "`dependencies`"):
        if isinstance(node, yaml.MappingNode):
            inner = _mapping(node, file, "")
            if set(inner) != {"pip"}:
                raise _shape(node, file, "a mapping in `dependencies` can only be `pip:` with a list")
            for item in _sequence(inner["pip"], file, "`pip`"):
                entry = _scalar(item, file, "an entry of `pip` has to be a text")
                entry = re.sub(r"(^|\s+)#.*$", "", entry).strip()
                if entry:
                    line = item.start_mark.line + 1
                    read_line(lines, entry, file=file, line=line, folder=file.parent)
            continue
        entry = _scalar(node, file, "an entry of `dependencies` has to be a text or `pip:` with a list")
        package = parse_package(entry, file, node.start_mark.line + 1)
        if package is None:
            raise _shape(node, file, f"`{entry}` is not a package")
        packages.append(package)
    return re.sub(r"\s+", " ", name).strip(), channels, packages


def _shape(node: Node, file: Path, problem: str) -> UserError:
    return UserError(
        problem[0].upper() + problem[1:] + ".", "Correct that line.", file=file, line=node.start_mark.line + 1
    )


def _mapping(node: Node | None, file: Path, problem: str) -> dict[str, Node]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise UserError(problem + ".", "Correct it.", file=file, line=node.start_mark.line + 1 if node else 1)
    return {str(key.value): value for key, value in node.value}


def _sequence(node: Node, file: Path, what: str) -> list[Node]:
    import yaml

    if isinstance(node, yaml.ScalarNode) and node.tag.endswith(":null"):
        return []
    if not isinstance(node, yaml.SequenceNode):
        raise _shape(node, file, f"{what} has to be a list")
    return list(node.value)


def _scalar(node: Node, file: Path, problem: str) -> str:
    import yaml

    if not isinstance(node, yaml.ScalarNode) or node.tag.endswith(":null"):
        raise _shape(node, file, problem)
    return str(node.value)
