"""What is said of an entry script that nobody has run: only what is sure to keep the server from loading it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workflows.debuggee import entry_script

BOTH = "def init(): pass\ndef run(data): pass\n"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "score.py"


@pytest.mark.parametrize(
    "text",
    [
        BOTH,
        "async def init(): pass\nclass run: pass\n",
        "init = run = print\n",
        "(init, *run) = print, print\n",
        "init: object = print\nif (run := print): pass\n",
        "from a import init, go as run\n",
        "import init.deeply, b as run\n",
        "from a import *\n",
        "try:\n    from a import init\nexcept ImportError:\n    init = 1\nelse:\n    run = 2\n",
        "if x:\n    init = 1\nwhile y:\n    with z as run: pass\n",
        "for init in (1, 2): run = 3\n",
        "match x:\n    case {'a': init, **run}: pass\n",
        "def make():\n    global init, run\n    init = run = 1\nmake()\n",
        "globals().update(init=1, run=2)\n",
        "import sys\nsetattr(sys.modules[__name__], 'init', 1)\n",
        "def __getattr__(name): return print\n",
        "exec(open('other.py').read())\n",
    ],
)
def test_functions_that_may_be_there_by_any_means_are_not_missed(script: Path, text: str) -> None:
    script.write_text(text)
    assert entry_script.find_fault(str(script)) is None


@pytest.mark.parametrize(
    ("text", "kind", "part", "line"),
    [
        ("", "UserScriptError", "init()", None),
        ("def init(): pass\n", "UserScriptError", "run()", None),
        ("class A:\n    def init(self): pass\n    def run(self): pass\n", "UserScriptError", "init()", None),
        ("def init():\n    run = 1\n", "UserScriptError", "run()", None),
        ("import a.init\na.run = 1\n", "UserScriptError", "init()", None),
        (BOTH + "x = (\n", "SyntaxError", "", 3),
        (BOTH + "return 1\n", "SyntaxError", "outside function", 3),
        (BOTH + "  x\n", "IndentationError", "indent", 3),
    ],
)
def test_what_is_sure_is_said(script: Path, text: str, kind: str, part: str, line: int | None) -> None:
    script.write_text(text)
    found = entry_script.find_fault(str(script))
    assert found is not None
    assert (found["type"], found["line"]) == (kind, line)
    assert part in found["message"]


def looked_at(script: Path, *roots: Path) -> dict[str, Any] | None:
    """What the program says, as it is run beside a service."""
    command = [sys.executable, entry_script.__file__, str(script), *map(str, roots)]
    out = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    value: dict[str, Any] | None = json.loads(out)
    return value


@pytest.mark.parametrize(
    "line",
    [
        "import broken",
        "import inner.broken",
        "from inner import broken",
        "from inner.broken import x",
        "import chain",
        "from inner import relative",
        "import inner.relative as r",
    ],
)
def test_a_syntax_error_in_a_module_that_is_imported_in_any_case_is_found(script: Path, line: str) -> None:
    (script.parent / "inner").mkdir()
    for name in ("broken.py", "inner/broken.py"):
        (script.parent / name).write_text("x = 1\nx = (\n")
    (script.parent / "inner" / "__init__.py").write_text("")
    (script.parent / "inner" / "relative.py").write_text("from . import broken\n")
    (script.parent / "chain.py").write_text("import script\nfrom inner.broken import x\n")
    script.write_text(f"{line}\n{BOTH}")
    found = looked_at(script, script.parent)
    assert found is not None
    assert (Path(found["file"]).name, found["line"]) == ("broken.py", 2)


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    import broken\nexcept Exception: pass\n",
        "def later():\n    import broken\n",
        "if False:\n    import broken\n",
        # The installed one is imported, not the one that lies there.
        "import json\n",
        "import nowhere, broken_not\nfrom . import nothing\n",
    ],
)
def test_a_module_that_may_not_be_imported_is_no_hindrance(script: Path, text: str) -> None:
    for name in ("broken.py", "json.py"):
        (script.parent / name).write_text("x = (\n")
    script.write_text(text + BOTH)
    assert looked_at(script, script.parent) is None
