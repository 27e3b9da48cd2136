"""Each module of the program can be the first one that a command loads beside its tasks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Prints the modules of a folder's program that cannot be loaded alone.
EACH = """
import importlib, os, pkgutil, sys, traceback
sys.path.insert(0, sys.argv[1])
import invoke.main, workflows
assert workflows.namespace
for module in pkgutil.walk_packages(workflows.__path__, "workflows."):
    # What travels into the debugged process is no part of any command.
    if module.name.startswith("workflows.debuggee.") or module.name.endswith("__main__"):
        continue
    pid = os.fork()
    if not pid:
        try:
            importlib.import_module(module.name)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    if os.waitpid(pid, 0)[1]:
        print(module.name, flush=True)
"""


def test_each_module_can_be_loaded_alone() -> None:
    done = subprocess.run([sys.executable, "-c", EACH, str(ROOT)], cwd="/", capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
