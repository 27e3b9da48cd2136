"""What a program leaves that fails: a snapshot of the failure, and its own end as it would have been."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from debuggee_harness import over
from step_harness import INJECT, announced, lay_out, run, step_variables, version

Json = dict[str, Any]
TORCH = os.environ.get("AZUREML_DEBUG_TEST_TORCH", "")
WORK = """
    import sys, threading, time

    class Broken(Exception):
        def __str__(self):
            raise RuntimeError("not even this")
        __repr__ = __str__

    def inner(argument):
        local = argument + " and local"
        numbers = list(range(1000000))
        password = "hunter2-and-more"
        raise ValueError("it went wrong with hunter2-and-more")

    def outer():
        inner("given")

    def deep(level):
        return deep(level - 1) if level else outer()

    async def later():
        outer()

    def main(way):
        if way == "cause":
            try:
                {}["missing"]
            except KeyError as error:
                raise Broken("told", 5) from error
        if way == "thread":
            thread = threading.Thread(target=outer, name="worker 7")
            thread.start()
            thread.join()
        elif way in ("fork", "spawn", "forkserver"):
            import multiprocessing
            process = multiprocessing.get_context(way).Process(target=outer, name="child 7")
            process.start()
            process.join()
            sys.exit(process.exitcode)
        elif way in ("pool", "executor", "caught"):
            import multiprocessing
            from concurrent.futures import ProcessPoolExecutor
            context = multiprocessing.get_context("fork")
            if way == "pool":
                with context.Pool(2) as pool:
                    pool.map(inner, ["given"])
            with ProcessPoolExecutor(1, context) as pool:
                task = pool.submit(inner, "given")
                if way == "caught":
                    print(type(task.exception()))
                else:
                    task.result()
        elif way == "asyncio":
            import asyncio
            asyncio.run(later())
        elif way == "deep":
            sys.setrecursionlimit(20000)
            deep(10000)
        elif way == "endless":
            deep(-1)
        elif way == "memory":
            bytearray(1 << 62)
        elif way == "exit":
            sys.exit("told")
        elif way == "interrupt":
            raise KeyboardInterrupt
        elif way == "hook":
            sys.excepthook = lambda *_: print("theirs")
            outer()
        elif way == "others":
            waiting = threading.Event()
            threading.Thread(target=waiting.wait, args=(60,), name="waits", daemon=True).start()
            time.sleep(0.1)
            outer()
        else:
            outer()

    if __name__ == "__main__":
        main(sys.argv[1])
"""


def variables(folder: Path, **more: str) -> dict[str, str]:
    """What an engine sets for a step that nobody debugs."""
    logs = folder / "logs"
    logs.mkdir(exist_ok=True)
    return {
        "PYTHONPATH": INJECT,
        "AZUREML_DEBUGGEE_SNAPSHOTS": str(logs),
        "AZUREML_DEBUGGEE_STORY": "pipeline",
        "AZUREML_DEBUGGEE_RUN": "run-1/train",
        **more,
    }


def snapshots(folder: Path) -> list[Json]:
    """What has been written, which is for its owner alone; nothing else lies there."""
    found = sorted((folder / "logs").iterdir())
    assert all(path.name.startswith("snapshot-train-rank") and path.suffix == ".json" for path in found)
    assert all(path.stat().st_mode & 0o777 == 0o600 and path.stat().st_size <= 2_000_000 for path in found)
    return [json.loads(path.read_text()) for path in found]


def locals_of(snapshot: Json, function: str) -> dict[str, Json]:
    """The variables of a frame, by name."""
    frame = next(one for one in snapshot["frames"] if one["function"] == function)
    return {name: snapshot["values"][index] for name, index in frame["locals"] if index is not None}


def failed(folder: Path, way: str, python: str = sys.executable, **more: str) -> list[Json]:
    """Run the program with snapshots and without: it ends alike. What it has left."""
    code = lay_out(folder, {"work.py": WORK})
    command = "{python} work.py " + way
    bare = run(code, command, python, more)
    assert run(code, command, python, variables(folder, **more)) == bare
    return snapshots(folder)


@over("way", ["main", "thread", "fork", "spawn", "forkserver", "asyncio", "deep", "hook", "others"])
def test_what_fails_leaves_its_frames_and_variables_and_ends_as_ever(python: str, way: str, tmp_path: Path) -> None:
    (snapshot,) = failed(tmp_path, way, python)
    assert (snapshot["format"], snapshot["version"]) == ("azureml-debug-snapshot", 1)
    assert snapshot["where"] == {"story": "pipeline", "run": "run-1", "step": "train", "rank": 0, "request": None}
    program = snapshot["program"]
    assert program["python"] == version(python) and program["folder"] == str(tmp_path / "code")
    assert program["process"] == ("child 7" if way in ("fork", "spawn", "forkserver") else "MainProcess")
    assert snapshot["thread"] == ("worker 7" if way == "thread" else "MainThread")
    (error,) = snapshot["exceptions"]
    assert (error["type"], error["module"]) == ("ValueError", "builtins")
    frames = [snapshot["frames"][index] for index in error["frames"]]
    assert [frame["function"] for frame in frames[-2:]] == ["outer", "inner"]
    nearest = frames[-1]
    lines = (tmp_path / "code" / "work.py").read_text().splitlines()
    first, shown = nearest["source"]["first"], nearest["source"]["lines"]
    assert nearest["file"] == str(tmp_path / "code" / "work.py") and nearest["own"]
    assert "raise ValueError" in lines[nearest["line"] - 1] and "raise ValueError" in shown[nearest["line"] - first]
    assert shown[1] == lines[first] and len(nearest["source"]["sha256"]) == 64
    found = locals_of(snapshot, "inner")
    assert found["argument"]["value"] == "given" and found["local"]["text"] == "'given and local'"
    assert found["numbers"]["length"] == 1000000 and found["numbers"]["more"] == 1000000 - len(
        found["numbers"]["items"]
    )
    assert found["numbers"]["text"].startswith("[0, 1, 2")
    # What is left out by its name is nowhere else either: not in the message, and not in the source.
    assert found["password"]["kind"] == "secret" and "hunter2" not in json.dumps(snapshot)
    if way == "deep":
        assert len(frames) == 200 and frames[0]["function"] == "<module>"
        assert any(said.startswith("9,8") and "frames" in said for said in snapshot["left_out"])
    if way == "others":
        (other,) = snapshot["threads"]
        assert other["name"] == "waits" and other["daemon"]
        assert snapshot["frames"][other["frames"][-1]]["function"] == "wait"


@over("way", ["pool", "executor"])
def test_what_a_task_of_a_pool_raises_is_left_with_its_variables(python: str, way: str, tmp_path: Path) -> None:
    found = failed(tmp_path, way, python)
    parent, worker = sorted(found, key=lambda one: str(one["program"]["process"] != "MainProcess"))
    assert worker["program"]["parent"] == parent["program"]["pid"] and worker["written"] <= parent["written"]
    assert locals_of(worker, "inner")["local"]["value"] == "given and local"
    # The parent's own has the worker's traceback as a text.
    behind = parent["exceptions"][parent["exceptions"][0]["cause"]]
    assert behind["type"].endswith("RemoteTraceback") and "in inner" in behind["text"]


def test_what_a_parent_catches_of_a_pool_leaves_none(tmp_path: Path) -> None:
    assert failed(tmp_path, "caught") == []


def test_the_chain_of_exceptions_is_told_without_asking_them(tmp_path: Path) -> None:
    (snapshot,) = failed(tmp_path, "cause")
    error, cause = snapshot["exceptions"]
    assert (error["type"], error["module"], error["text"]) == ("Broken", "__main__", "('told', 5)")
    assert (error["cause"], error["suppress_context"]) == (1, True)
    assert (cause["type"], cause["text"]) == ("KeyError", "'missing'")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="groups and notes are of Python 3.11")
def test_groups_and_notes_are_in_it(tmp_path: Path) -> None:
    code = lay_out(
        tmp_path,
        {
            "work.py": """
            def one():
                error = ValueError("first")
                error.add_note("a note")
                raise error
            def both():
                found = []
                for function in (one, lambda: 1 / 0):
                    try:
                        function()
                    except Exception as error:
                        found.append(error)
                raise ExceptionGroup("several", found)
            both()
            """
        },
    )
    assert run(code, "{python} work.py", sys.executable, variables(tmp_path))[0] == 1
    (snapshot,) = snapshots(tmp_path)
    group, first, second = snapshot["exceptions"][:3]
    assert group["text"] == "several (2 sub-exceptions)" and group["group"] == [1, 2]
    assert first["notes"] == ["a note"] and second["type"] == "ZeroDivisionError"
    assert snapshot["frames"][first["frames"][-1]]["function"] == "one"


@pytest.mark.parametrize("way", ["endless", "memory"])
def test_what_has_no_stack_or_no_memory_left_leaves_one(way: str, tmp_path: Path) -> None:
    (snapshot,) = failed(tmp_path, way)
    assert snapshot["exceptions"][0]["type"] == {"endless": "RecursionError", "memory": "MemoryError"}[way]


@pytest.mark.parametrize("way", ["exit", "interrupt"])
def test_an_exit_and_an_interrupt_leave_none(way: str, tmp_path: Path) -> None:
    assert failed(tmp_path, way) == []


def test_each_rank_leaves_its_own(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"work.py": WORK})
    command = "for rank in 0 1 2; do RANK=$rank {python} work.py main & done; wait; true"
    run(code, command, sys.executable, variables(tmp_path))
    assert [one["where"]["rank"] for one in snapshots(tmp_path)] == [0, 1, 2]


def test_a_python_that_ignores_its_environment_leaves_one_as_well(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"work.py": WORK})
    bare = run(code, "{python} -I work.py main", sys.executable, {})
    assert run(code, "{python} -I {launcher} work.py main", sys.executable, variables(tmp_path)) == bare
    (snapshot,) = snapshots(tmp_path)
    assert snapshot["frames"][snapshot["exceptions"][0]["frames"][0]]["function"] == "<module>"
    assert snapshot["program"]["argv"] == ["work.py", "main"]


@pytest.mark.parametrize(
    ("way", "more"), [("spawn", {}), ("main", {"ON_ERROR": "1"}), ("spawn", {"ON_ERROR": "1", "CHILDREN": "1"})]
)
def test_what_is_debugged_leaves_one_and_holds_all_the_same(way: str, more: dict[str, str], tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"work.py": WORK})
    events = tmp_path / "events.jsonl"
    debugged = step_variables(code, TIMEOUT="1", WAIT="0", EVENTS=str(events), **more)
    run(code, "{python} work.py " + way, sys.executable, {**debugged, **variables(tmp_path)})
    (snapshot,) = snapshots(tmp_path)
    assert snapshot["program"]["process"] == ("child 7" if way == "spawn" else "MainProcess")
    assert len(announced(events, "waiting")) == len(more.get("ON_ERROR", ""))


def test_what_others_run_leaves_none(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"broken.json": "{"})
    assert run(code, "{python} -m json.tool nothing.json", sys.executable, variables(tmp_path))[0] != 0
    assert run(code, "{python} -c 'import runpy; 1 / 0'", sys.executable, variables(tmp_path))[0] == 1
    (snapshot,) = snapshots(tmp_path)
    assert snapshot["exceptions"][0]["type"] == "ZeroDivisionError"


def test_the_lines_nearest_to_a_failure_are_there_however_little_time_there_is(tmp_path: Path) -> None:
    source = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from azureml_debuggee import snapshot
        snapshot.SECONDS = -1.0
        def inner(argument):
            raise ValueError(argument)
        inner("given")
    """
    code = lay_out(tmp_path, {"work.py": source})
    run(code, "{python} work.py " + str(Path(INJECT).parent), sys.executable, variables(tmp_path))
    (snapshot,) = snapshots(tmp_path)
    nearest, other = (snapshot["frames"][index] for index in snapshot["exceptions"][0]["frames"][::-1])
    assert "raise ValueError(argument)" in nearest["source"]["lines"][nearest["line"] - nearest["source"]["first"]]
    assert other["source"]["lines"] == [] and "the source of 1 frames" in snapshot["left_out"]


def test_a_script_that_cannot_be_compiled_leaves_its_place(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"work.py": "def broken(:\n    pass\n"})
    run(code, "{python} work.py", sys.executable, variables(tmp_path))
    (snapshot,) = snapshots(tmp_path)
    (index,) = snapshot["exceptions"][0]["frames"]
    assert (snapshot["frames"][index]["line"], snapshot["frames"][index]["file"]) == (1, str(code / "work.py"))


@pytest.mark.parametrize("broken", ["full", "gone", "file", "unwritable"])
def test_where_none_can_be_written_the_program_ends_as_ever(broken: str, tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"work.py": WORK})
    command, more = "{python} work.py main", variables(tmp_path)
    if broken == "full":
        # A file may have a kilobyte here: writing fails in the midst of it, as on a disk that fills up.
        command = "ulimit -f 1; " + command
    elif broken == "unwritable":
        more["AZUREML_DEBUGGEE_SNAPSHOTS"] = "/proc/self"
    else:
        (tmp_path / "logs").rmdir()
    if broken == "file":
        (tmp_path / "logs").write_text("a file")
    assert run(code, command, sys.executable, more) == run(code, command, sys.executable, {})
    if broken == "full":
        assert snapshots(tmp_path) == []


def test_names_that_look_secret_are_left_out_at_every_depth_and_those_of_a_pattern(tmp_path: Path) -> None:
    code = lay_out(
        tmp_path,
        {
            "work.py": """
            import os, sys
            class Client:
                def __init__(self):
                    self.__token = "hidden-01"
                    self.options = {"nested": [{"connection_string": "hidden-02"}], "customer": "hidden-03"}
            class Slots:
                __slots__ = ("sas_url",)
            def work(api_key="hidden-04"):
                client, slots = Client(), Slots()
                slots.sas_url = "https://host/?sig=hidden-05"
                headers = [("Authorization", "Bearer hidden-06"), (b"Cookie", b"hidden-07")]
                environment, copied = os.environ, dict(os.environ)
                tokenizer, monkey, max_tokens, key = "kept one", "kept two", 77, None
                address = "https://user:hidden-08@host/"
                config = f"password=hidden-09; retries=3"
                raise RuntimeError("refused: AccountKey=hidden-10;EndpointSuffix=x " + os.environ["SERVICE_SECRET"])
            work()
            """
        },
    )
    command = "SERVICE_SECRET=hidden-11 MINE=hidden-12 "
    command += "{python} work.py --password hidden-13 --token=hidden-14"
    run(code, command, sys.executable, variables(tmp_path, AZUREML_DEBUGGEE_REDACT="^cust"))
    (snapshot,) = snapshots(tmp_path)
    assert "hidden" not in json.dumps(snapshot)
    found = locals_of(snapshot, "work")
    assert found["tokenizer"]["value"] == "kept one" and found["monkey"]["value"] == "kept two"
    assert found["max_tokens"]["value"] == 77 and found["key"]["text"] == "None"
    assert {"api_key", "connection_string", "customer", "sas_url"} <= {
        said.partition(" (")[0] for said in snapshot["left_out"]
    }
    assert snapshot["program"]["argv"][1:] == ["--password", "***", "--token=***"]


@pytest.mark.skipif(not TORCH, reason="AZUREML_DEBUG_TEST_TORCH names no Python with torch, pandas and debugpy")
def test_tensors_arrays_and_tables_are_described_and_none_of_them_does_harm(tmp_path: Path) -> None:
    code = lay_out(
        tmp_path,
        {
            "work.py": """
            import numpy, pandas, torch
            class Hostile(torch.Tensor):
                @classmethod
                def __torch_function__(cls, *arguments, **options):
                    print("called")
                    raise RuntimeError
            def work():
                batch = torch.zeros(2, 3); batch[0, 1] = float("nan"); batch[1, 2] = float("inf")
                hostile = torch.zeros(2).as_subclass(Hostile)
                freed = torch.zeros(1000)
                freed.untyped_storage().resize_(0)
                elsewhere = torch.zeros(3, device="meta")
                large = numpy.zeros(20_000_000, dtype="float32")
                counts, single = numpy.arange(4), numpy.float32(0.5)
                named = numpy.array([("a-token-123", 1)], dtype=[("token", "U20"), ("x", "i4")])
                mapped = numpy.memmap("data.bin", dtype="u1", mode="w+", shape=(4096 * 4,))
                open("data.bin", "wb").close()  # What it was mapped from has gone.
                houses = pandas.DataFrame({"price": [1.5, None], "token": ["a-token-123", "b"]}, index=["a", "b"])
                prices = houses["price"]
                raise ValueError("shapes")
            work()
            """
        },
    )
    assert run(code, "{python} work.py", TORCH, variables(tmp_path))[:2] == (1, [])
    (snapshot,) = snapshots(tmp_path)
    found = locals_of(snapshot, "work")
    batch = found["batch"]
    assert (batch["kind"], batch["shape"], batch["dtype"], batch["device"]) == ("array", [2, 3], "float32", "cpu")
    assert (batch["nan"], batch["inf"], len(batch["items"])) == (1, 1, 6)
    assert found["hostile"]["shape"] == [2] and found["freed"]["shape"] == [1000] and found["freed"]["items"] == []
    assert (found["elsewhere"]["device"], found["elsewhere"]["nan"]) == ("meta", None)
    assert found["large"]["nan"] is None and found["large"]["more"] == 20_000_000 - 20
    assert found["counts"]["nan"] is None and found["single"]["text"] == "0.5"
    assert found["mapped"]["shape"] == [16384] and found["mapped"]["items"] == []
    houses = found["houses"]
    assert (houses["kind"], houses["shape"]) == ("table", [2, 2]) and houses["columns"][0] == ["price", "float64"]
    assert len(houses["items"]) == 2 and "a-token-123" not in json.dumps(snapshot)
    assert found["prices"]["shape"] == [2] and {"numpy", "pandas", "torch"} <= set(snapshot["packages"])


def test_an_array_of_a_library_that_only_looks_like_one_is_an_object(tmp_path: Path) -> None:
    code = lay_out(
        tmp_path,
        {
            "numpy.py": "class ndarray:\n    shape = property(lambda self: 1 / 0)\nclass generic:\n    pass\n",
            "work.py": "import numpy\nfake = numpy.ndarray()\nraise ValueError\n",
        },
    )
    run(code, "{python} work.py", sys.executable, variables(tmp_path))
    (snapshot,) = snapshots(tmp_path)
    assert locals_of(snapshot, "<module>")["fake"]["kind"] == "object"


def test_a_program_with_modules_called_like_pythons_own_leaves_one(tmp_path: Path) -> None:
    code = lay_out(
        tmp_path, {"json.py": "raise ImportError\n", "hashlib.py": "", "re.py": "", "work.py": "raise ValueError\n"}
    )
    bare = run(code, "{python} work.py", sys.executable, {})
    assert run(code, "{python} work.py", sys.executable, variables(tmp_path)) == bare
    assert snapshots(tmp_path)[0]["exceptions"][0]["type"] == "ValueError"


def test_a_process_that_goes_on_after_many_failures_leaves_some_of_them(tmp_path: Path) -> None:
    code = lay_out(
        tmp_path,
        {
            "work.py": """
            import threading
            def fail():
                raise ValueError
            threading.excepthook = threading.excepthook
            for _ in range(15):
                thread = threading.Thread(target=fail)
                thread.start()
                thread.join()
            fail()
            """
        },
    )
    run(code, "{python} work.py", sys.executable, variables(tmp_path))
    found = snapshots(tmp_path)
    # The first ones, and the one that ended it.
    assert len(found) == 11 and sum(one["thread"] == "MainThread" for one in found) == 1


def test_a_program_that_does_not_fail_imports_nothing_for_it(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"work.py": "import sys\nprint(sorted(one for one in sys.modules if 'azureml' in one))"})
    status, shown, errors = run(code, "{python} work.py", sys.executable, variables(tmp_path))
    assert (status, errors) == (0, "")
    assert shown == [str(["azureml_debuggee", "azureml_debuggee.failures", "azureml_debuggee.import_hooks"])]
    assert os.listdir(tmp_path / "logs") == []


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root gives files away")
def test_what_root_leaves_in_somebodys_folder_is_theirs(tmp_path: Path) -> None:
    code = lay_out(tmp_path, {"work.py": WORK})
    made = variables(tmp_path)
    os.chown(tmp_path / "logs", 1234, 2345)
    assert run(code, "{python} work.py main", sys.executable, made)[0] == 1
    (left,) = (tmp_path / "logs").iterdir()
    assert (left.stat().st_uid, left.stat().st_gid, left.stat().st_mode & 0o777) == (1234, 2345, 0o600)
