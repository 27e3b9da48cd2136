"""Reads conda.yml, with the line of every entry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UserError
from ..redaction import keep_variables
from .conda_packages import CondaPackage, parse_package
from .requirements import PipLines, read_line, read_text, strip_comment

if TYPE_CHECKING:
    from yaml.nodes import Node


def read_conda(file: Path, lines: PipLines) -> tuple[str, list[str], list[CondaPackage], dict[str, str]]:
    """Read a conda.yml.

    Args:
        file: Its path.
        lines: Gets the lines of its pip part.

    Returns:
        Its name (empty where it has none), its channels, its packages including python and pip, and its variables.

    Raises:
        UserError: It is not YAML, or does not have conda's form; with the line.
    """
    import yaml

    from ..yaml_nodes import compose  # with requirements.txt alone there may be no yaml yet

    root = compose(read_text(file), file)
    top = _mapping(root, file, f"{file.name} has to be a mapping with a list `dependencies`")
    if "dependencies" not in top:
        raise UserError(
            f"{file.name} has no list `dependencies`.", "Add one, such as `dependencies: [pip]`.", file=file
        )
    variables = {}
    if isinstance(top.get("variables"), yaml.MappingNode):
        given = _mapping(top["variables"], file, "")
        variables = {key: str(node.value) for key, node in given.items() if isinstance(node, yaml.ScalarNode)}
        keep_variables(variables)
    name = _scalar(top["name"], file, "`name` must be a string") if "name" in top else ""
    channels = [
        _scalar(node, file, "a channel must be a string")
        for node in (_sequence(top["channels"], file, "`channels`") if "channels" in top else [])
    ]
    packages = []
    for node in _sequence(top["dependencies"], file, "`dependencies`"):
        if isinstance(node, yaml.MappingNode):
            inner = _mapping(node, file, "")
            if set(inner) != {"pip"}:
                raise _shape(node, file, "a mapping in `dependencies` can only be `pip:` with a list")
            for item in _sequence(inner["pip"], file, "`pip`"):
                entry = _scalar(item, file, "an entry of `pip` must be a string")
                entry = strip_comment(entry)
                if entry:
                    line = item.start_mark.line + 1
                    read_line(lines, entry, file=file, line=line, folder=file.parent)
            continue
        entry = _scalar(node, file, "an entry of `dependencies` must be a string or `pip:` with a list")
        package = parse_package(entry, file, node.start_mark.line + 1)
        if package is None:
            raise _shape(node, file, f"`{entry}` is not a package")
        packages.append(package)
    return re.sub(r"\s+", " ", name).strip(), channels, packages, variables


def _shape(node: Node, file: Path, problem: str) -> UserError:
    return UserError(
        problem[0].upper() + problem[1:] + ".", "Correct that line.", file=file, line=node.start_mark.line + 1
    )


def _mapping(node: Node | None, file: Path, problem: str) -> dict[str, Node]:
    import yaml

    if not isinstance(node, yaml.MappingNode):
        raise UserError(problem + ".", "Correct it.", file=file, line=node.start_mark.line + 1 if node else 1)
    own, merged = dict[str, "Node"](), dict[str, "Node"]()
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _shape(key, file, "a key must be a string")
        if key.tag.endswith(":merge"):
            for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                for name, inherited in _mapping(source, file, "`<<` takes a mapping").items():
                    merged.setdefault(name, inherited)
        else:
            own[str(key.value)] = value
    return {**merged, **own}


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
    text = str(node.value).strip()
    if len(text.splitlines()) > 1:
        # pip would read further lines as options or requirements of their own, unchecked.
        raise _shape(node, file, f"{problem} on one line")
    if "\0" in text:
        raise _shape(node, file, f"{problem} without a NUL")
    return text
