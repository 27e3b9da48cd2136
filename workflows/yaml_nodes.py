"""YAML as a tree of nodes, composed from the parser's events within limits.

PyYAML's own composers recurse for every level, and code that reads their trees walks an alias each time that it occurs:
a few lines can stand for billions of values, or for more levels than the stack can hold.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from .errors import UserError
from .reading import line_at

if TYPE_CHECKING:
    from yaml.nodes import Node

#: Keys, values, lists and mappings of one file, with every alias expanded.
MOST_NODES = 100_000
#: Levels of lists and mappings inside each other.
MOST_LEVELS = 100

#: libyaml compares each directive with all before it.
_MOST_DIRECTIVES = 100
_DIRECTIVE = re.compile(r"^%TAG\b", re.MULTILINE)


@dataclass
class _Open:
    """A list or mapping whose end has not been read yet."""

    node: Any
    anchor: str | None
    #: How many nodes there were in front of it.
    before: int
    #: The key that waits for its value.
    key: Any = None

    def add(self, node: Node) -> None:
        if isinstance(self.node, yaml.SequenceNode):
            self.node.value.append(node)
        elif self.key is None:
            self.key = node
        else:
            self.node.value.append((self.key, node))
            self.key = None


def compose(text: str, file: Path, loader_class: Any = None) -> Node | None:
    """Parse a file's only document into a tree of nodes; None if it is empty.

    An alias becomes the node that it names; no node contains itself.

    Args:
        text: The file's text.
        file: For the message.
        loader_class: By default libyaml's, some twenty times as fast, where PyYAML has been built with it.

    Raises:
        UserError: It is not YAML, or exceeds the limits; with the line.
    """
    if (last := next(itertools.islice(_DIRECTIVE.finditer(text), _MOST_DIRECTIVES, None), None)) is not None:
        problem = f"{file.name} has more than {_MOST_DIRECTIVES} %TAG directives."
        raise UserError(problem, "Take them out.", file=file, line=line_at(text, last.start()))
    with _errors(text, file):
        loader = (loader_class or getattr(yaml, "CSafeLoader", yaml.SafeLoader))(text)
        try:
            return _compose(loader, file)
        finally:
            loader.dispose()


@contextmanager
def _errors(text: str, file: Path) -> Iterator[None]:
    try:
        yield
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        position = getattr(error, "position", None)
        line = None
        if mark is not None:
            line = mark.line + 1
        elif position is not None:
            line = line_at(text, position)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        remedy = "Correct that line."
        if line is not None and _begins_with_tab(text, line):
            remedy = "YAML takes no tabs in front of a line: use spaces."
        raise UserError(f"{file.name} is not valid YAML: {problem}.", remedy, file=file, line=line) from error


def _begins_with_tab(text: str, line: int) -> bool:
    lines = text.splitlines()
    found = lines[line - 1] if line <= len(lines) else ""
    return "\t" in found[: len(found) - len(found.lstrip())]


def _compose(loader: Any, file: Path) -> Node | None:
    anchors: dict[str, tuple[Node, int]] = {}
    above: list[_Open] = []
    root: Node | None = None
    nodes = 0
    documents = 0
    while True:
        event = loader.get_event()
        kind = type(event)
        if kind is yaml.ScalarEvent:
            tag = event.tag
            if tag is None or tag == "!":
                tag = loader.resolve(yaml.ScalarNode, event.value, event.implicit)
            node: Any = yaml.ScalarNode(tag, event.value, event.start_mark, event.end_mark, style=event.style)
            nodes += 1
        elif kind is yaml.AliasEvent:
            node, size = _resolve_alias(event, anchors, above, file)
            nodes += size
        elif kind in (yaml.SequenceStartEvent, yaml.MappingStartEvent):
            made = yaml.SequenceNode if kind is yaml.SequenceStartEvent else yaml.MappingNode
            tag = event.tag
            if tag is None or tag == "!":
                tag = loader.resolve(made, None, event.implicit)
            opened = made(tag, [], event.start_mark, None, flow_style=event.flow_style)
            _check_new_anchor(event, anchors, above)
            above.append(_Open(opened, event.anchor, nodes))
            nodes += 1
            if len(above) > MOST_LEVELS:
                raise _limit_error(f"more than {MOST_LEVELS} levels of lists and mappings", event, file)
            continue
        elif kind in (yaml.SequenceEndEvent, yaml.MappingEndEvent):
            done = above.pop()
            done.node.end_mark = event.end_mark
            node = done.node
            if done.anchor is not None:
                anchors[done.anchor] = (node, nodes - done.before)
        elif kind is yaml.DocumentStartEvent:
            documents += 1
            if documents > 1:
                problem = "but found another document"
                raise yaml.composer.ComposerError(
                    "expected a single document in the stream", None, problem, event.start_mark
                )
            continue
        elif kind is yaml.StreamEndEvent:
            return root
        else:
            continue
        if nodes > MOST_NODES:
            problem = f"more than {MOST_NODES} values"
            if kind is yaml.AliasEvent:
                problem += f" with `*{event.anchor}` and every other alias in full"
            raise _limit_error(problem, event, file)
        if kind is yaml.ScalarEvent and event.anchor is not None:
            _check_new_anchor(event, anchors, above)
            anchors[event.anchor] = (node, 1)
        if above:
            above[-1].add(node)
        else:
            root = node


def _resolve_alias(
    event: Any, anchors: dict[str, tuple[Node, int]], above: list[_Open], file: Path
) -> tuple[Node, int]:
    """The node that an alias names, and how many nodes it has."""
    if event.anchor in anchors:
        return anchors[event.anchor]
    line = event.start_mark.line + 1
    if any(one.anchor == event.anchor for one in above):
        raise UserError("An anchor contains itself.", "Remove that alias.", file=file, line=line)
    raise yaml.composer.ComposerError(None, None, f"found undefined alias `{event.anchor}`", event.start_mark)


def _check_new_anchor(event: Any, anchors: dict[str, tuple[Node, int]], above: list[_Open]) -> None:
    name = event.anchor
    if name is not None and (name in anchors or any(one.anchor == name for one in above)):
        problem = f"the anchor `{name}` is there a second time"
        raise yaml.composer.ComposerError(None, None, problem, event.start_mark)


def _limit_error(what: str, event: Any, file: Path) -> UserError:
    return UserError(f"{file.name} has {what}.", "Simplify it.", file=file, line=event.start_mark.line + 1)
