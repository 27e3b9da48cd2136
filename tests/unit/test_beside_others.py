"""The debuggee beside other threads of the program and other processes of the machine: neither keeps the other."""

from __future__ import annotations

import subprocess
import sys
import textwrap

from debuggee_harness import EVERY, LIMIT

from workflows.debuggee import FOLDER


def said(python: str, source: str) -> str:
    """What a program says that can import the debuggee."""
    text = f"import sys\nsys.path.insert(0, {FOLDER!r})\n" + textwrap.dedent(source)
    done = subprocess.run([python, "-c", text], capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_whoever_comes_to_the_adapters_port_first_and_says_nothing_keeps_nobody_waiting() -> None:
    source = f"""
        import os, socket
        import debugpy
        from azureml_debuggee.adapter import Adapter
        folder = os.path.dirname(os.path.dirname(os.path.abspath(debugpy.__file__)))
        adapter = Adapter(folder, dict(os.environ), 1)
        adapter.wait_until_ready()
        peers = [socket.create_connection(("127.0.0.1", adapter.pydevd_endpoint[0]), {LIMIT}) for _ in range(3)]
        for peer in peers:
            asked = b""
            while b"pydevdAuthorize" not in asked:
                received = peer.recv(4096)
                assert received, asked
                asked += received
        print("asked")
        adapter.end()
        """
    assert said(sys.executable, source) == "asked"


@EVERY
def test_a_thread_that_goes_through_the_finders_misses_none_when_the_debuggee_has_imported(python: str) -> None:
    source = """
        from importlib.machinery import PathFinder
        from azureml_debuggee import import_hooks, imports
        import_hooks.change_when_imported("colorsys", lambda module: print("changed", module.__name__))
        with imports.own:
            import wave
            before = list(sys.meta_path)
            ours = [at for at, finder in enumerate(before) if type(finder).__module__.startswith("azureml_debuggee")]
            # As an import does that has come to one of ours.
            passing = [iter(sys.meta_path) for _ in ours]
            for at, finders in zip(ours, passing):
                for _ in range(at + 1):
                    next(finders)
        import colorsys
        print([PathFinder in list(finders) for finders in passing])
        """
    assert said(python, source).splitlines() == ["changed colorsys", "[True, True]"]
