"""JSON with comments: what the edits of launch.json are made of."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from launch_json_files import run_python

from workflows.debugger import jsonc

# The splicing underneath ----------------------------------------------------------------------------


def test_importing_it_does_not_import_filelock() -> None:
    done = run_python(
        """
        import sys
        import workflows.debugger.jsonc, workflows.debugger.launch_json
        print(sorted({"filelock"} & set(sys.modules)))
        """
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"[1E+5, -0, 1.5e-3, 0.0]", [1e5, 0, 0.0015, 0.0]),
        (
            b'["\t\0\x01", "\\/\\b\\u00e9", "", "  // x", " /* y */ "]',
            ["\t\0\1", "/\b\u00e9", "", "  // x", " /* y */ "],
        ),
        (b'{"": 1, "a": 1, "a": true,}', {"": 1, "a": True}),
        (b"[[], {}, [ ], null,]", [[], {}, [], None]),
    ],
)
def test_every_value_that_json_knows_is_read_and_can_be_added_to(text: bytes, value: Any) -> None:
    document = jsonc.parse(b'{"a": ' + text + b"}")
    assert document.value == {"a": value}
    assert document.set(("b",), 1).value == {"a": value, "b": 1}


class Scribe:
    """Random values, written with random blanks, comments and trailing commas."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.newline = self.random.choice(["\n", "\r\n"])
        self.comments: list[str] = []

    def gap(self) -> str:
        kinds = [self.note if self.random.random() < 0.2 else self.blank for _ in range(3)]
        return "".join(kind() for kind in kinds)

    def blank(self) -> str:
        return self.random.choice(["", "", " ", "\t", self.newline])

    def note(self) -> str:
        text = f'{len(self.comments)}: ,}}]"' + self.random.choice(["", "//", "{[", "'", "é"])
        inner = f"/*{text}*/" if self.random.random() < 0.5 else f"//{text}"
        self.comments.append(inner)
        return inner + (self.newline if inner.startswith("//") else "")

    def value(self, depth: int = 0) -> Any:
        kind = self.random.choice(["list", "dict", "leaf"] if depth else ["dict"])
        count = self.random.randrange(4)
        if kind == "list" and depth < 4:
            return [self.value(depth + 1) for _ in range(count)]
        if kind == "dict" and depth < 4:
            return {key: self.value(depth + 1) for key in self.random.sample(["a", "b//", "c,}", "é"], count)}
        return self.random.choice([1, -2.5, True, None, "", "C:\\x", '"}],', "// no", "/* no */", "日本"])

    def write(self, value: Any) -> str:
        if isinstance(value, dict):
            members = [f"{json.dumps(k)}{self.gap()}:{self.gap()}{self.write(v)}" for k, v in value.items()]
            return "{" + self.listed(members) + "}"
        if isinstance(value, list):
            return "[" + self.listed([self.write(element) for element in value]) + "]"
        return json.dumps(value, ensure_ascii=self.random.random() < 0.5)

    def listed(self, parts: list[str]) -> str:
        text = ",".join(self.gap() + part + self.gap() for part in parts) or self.gap()
        return text + ("," + self.gap() if parts and self.random.random() < 0.3 else "")

    def place(self, value: Any) -> list[Any]:
        """The way to a random container."""
        way: list[Any] = []
        while True:
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            choices = [(key, v) for key, v in inner if isinstance(v, (dict, list))]
            if not choices or self.random.random() < 0.3:
                return way
            key, value = self.random.choice(choices)
            way.append(key)


def item_text(document: jsonc.Document, keys: jsonc.Keys, key: str | int) -> bytes:
    """A member from its key, or an element, to the end of its value."""
    container = document._at(keys)
    index = container.index(key)
    assert index is not None
    return document.data[container.items[index].start : container.items[index].end]


@pytest.mark.parametrize("seed", range(200))
def test_edits_give_what_they_give_in_plain_python_and_lose_no_comment(seed: int) -> None:
    scribe = Scribe(seed)
    model = scribe.value()
    document = jsonc.parse((scribe.gap() + scribe.write(model) + scribe.gap()).encode())
    for _ in range(6):
        assert document.value == model
        way = scribe.place(model)
        container = model
        for key in way:
            container = container[key]
        new, keys = scribe.value(2), tuple(way)
        gone = b""
        if isinstance(container, dict):
            key = scribe.random.choice(["a", "b//", "c,}", "é", "new"])
            if key in container and scribe.random.random() < 0.5:
                gone = item_text(document, keys, key)
                document = document.delete((*keys, key))
                del container[key]
            else:
                gone = item_text(document, keys, key) if key in container else b""
                document = document.set((*keys, key), new)
                container[key] = new
        else:
            index, target = (scribe.random.randrange(len(container) + 1) for _ in range(2))
            choice = scribe.random.choice(["insert", "delete", "move"])
            if choice == "delete" and index < len(container):
                gone = item_text(document, keys, index)
                document = document.delete((*keys, index))
                del container[index]
            elif choice == "move" and max(index, target) < len(container):
                document = document.move(keys, index, target)
                container.insert(target, container.pop(index))
            else:
                document = document.insert(keys, index, new)
                container.insert(index, new)
        # A comment may go only with the text that it stands in.
        scribe.comments = [c for c in scribe.comments if c.encode() not in gone]
        assert [c for c in scribe.comments if c.encode() not in document.data] == []
    assert document.value == model


@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"[ // none yet\n]",
        b"[1, 2]",
        b"[\n  1, // one\n  2 // two\n]",
        b"[\r\n\t{\r\n\t\t'a': 1\r\n\t},\r\n]".replace(b"'", b'"'),
        b'[{\n    "a": 1\n}, {\n    "b": 2\n}]',
        b'[{"a": 1}, // one\n]',
    ],
)
def test_elements_added_at_once_are_written_as_if_they_had_been_added_one_by_one(text: bytes) -> None:
    values = [{"name": "a", "connect": {"port": 1}}, [2, {}], "three", {}]
    single = jsonc.parse(text)
    for value in values:
        single = single.append((), value)
    assert jsonc.parse(text).extend((), values).data == single.data
    assert jsonc.parse(text).extend((), []).data == text
