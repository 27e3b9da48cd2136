"""A workspace, or a node of one, that lies: addresses, archives, logs, tags and names are not trusted."""

from __future__ import annotations

import base64
import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from conftest import Hostile

from workflows.azureml import build_context, limited_requests
from workflows.azureml.announcements import LogReader, StepState, TagReader
from workflows.azureml.child_run import FollowedStep
from workflows.azureml.cloud_pipeline import ChildRun
from workflows.azureml.service import PipelineService
from workflows.errors import UserError
from workflows.received import Refused
from workflows.runs import record as records

NAMES = ["../../escaped.sh", "/tmp/escaped-by-a-workspace", "a/../../escaped.sh", "..", "a\0b", "C:\\x", "..\\x",
         "\x1b[2J", "x" * 300, "ok", "ok/in a file", "azureml-app/main.py", "./ok2", "link/escaped.sh"]  # fmt: skip


class Web:
    """Serves what :attr:`files` has, by path; a function gets the handler and does as it likes."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        web = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = web.files.get(self.path.partition("?")[0])
                if callable(found):
                    return found(self)
                self.send_response(404 if found is None else 200)
                self.send_header("Content-Length", str(len(found or b"")))
                self.end_headers()
                self.wfile.write(found or b"")

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


class Artifacts:
    """In the place of the workspace's: every file is on the server of the tests."""

    def __init__(self, web: Web, listed: list[str] | None = None) -> None:
        self._web, self._listed = web, listed or []

    def address(self, origin: str, container: str, path: str) -> Any:
        return f"{self._web.url}/{path}"

    def list_files(self, origin: str, container: str, prefix: str) -> list[tuple[Any, Any]]:
        return [(name, f"{self._web.url}/ok") for name in self._listed]


def _inline(path: Any, content: bytes = b"FROM x\n") -> dict[str, Any]:
    return {"entryType": "inline", "path": path, "encoding": "base64", "content": base64.b64encode(content).decode()}


def _save(web: Web, folder: Path, entries: Any, listed: list[str] | None = None) -> None:
    web.files["/manifest"] = json.dumps({"context": entries}).encode()
    web.files["/ok"] = b"ok"
    build_context.save_build_context(f"{web.url}/manifest", Artifacts(web, listed), folder)


def _tar(members: list[tarfile.TarInfo], mode: Any = "w:gz") -> bytes:
    found = io.BytesIO()
    with tarfile.open(fileobj=found, mode=mode) as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return found.getvalue()


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, size: int = 1, link: str = "", mode: int = 0o755
) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.size, made.linkname, made.mode = kind, size if kind == tarfile.REGTYPE else 0, link, mode
    return made


UNPACKED = {"entryType": "remote", "path": ".", "uri": "aml://artifact/o/c/archive", "unpack": True}


def test_a_build_context_is_brought_as_it_is_meant(web: Web, tmp_path: Path) -> None:
    web.files["/archive"] = _tar([_member("azureml-app", tarfile.DIRTYPE), _member("azureml-app/main.py", size=70_000)])
    below = {"entryType": "remote", "path": "models", "uri": "aml://artifact/o/c/some/prefix", "unpack": False}
    _save(web, tmp_path / "context", [_inline("Dockerfile"), UNPACKED, below], ["some/prefix/a.bin", "some/prefix/b/c"])
    files = {str(path.relative_to(tmp_path / "context")) for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {"Dockerfile", "azureml-app/main.py", "models/prefix/a.bin", "models/prefix/b/c"}
    for path in (tmp_path / "context").rglob("*"):
        assert path.is_dir() or stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert (tmp_path / "context" / "azureml-app" / "main.py").stat().st_size == 70_000
    assert os.listdir(tmp_path) == ["context"]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(("ok", "azureml", "./", "link"))])
def test_names_in_a_build_context_that_lead_out_are_refused(name: str, web: Web, tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two" / "context"
    web.files["/archive"] = _tar([_member("inside")])
    with pytest.raises(Refused):
        _save(web, folder, [_inline(name)])
    with pytest.raises(Refused):
        _save(web, folder, [{**UNPACKED, "path": name}])
    if "\0" not in name:
        web.files["/archive"] = _tar([_member("before"), _member(name)])
        with pytest.raises(Refused):
            _save(web, folder, [UNPACKED])
    listed = {"entryType": "remote", "path": ".", "uri": "aml://artifact/o/c/p", "unpack": False}
    with pytest.raises(Refused):
        _save(web, folder, [listed], [name])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "member",
    [
        _member("link", tarfile.SYMTYPE, link="/etc"),
        _member("link", tarfile.SYMTYPE, link="ok"),
        _member("hard", tarfile.LNKTYPE, link="../../x"),
        _member("pipe", tarfile.FIFOTYPE),
        _member("disk", tarfile.BLKTYPE),
        _member("zero", tarfile.CHRTYPE),
        _member("ok"),
        _member("ok/x"),
    ],
)
def test_links_devices_and_duplicates_in_an_archive_are_refused(
    member: tarfile.TarInfo, web: Web, tmp_path: Path
) -> None:
    web.files["/archive"] = _tar([_member("ok"), member])
    with pytest.raises(Refused):
        _save(web, tmp_path / "context", [UNPACKED])
    assert os.listdir(tmp_path / "context") == []


def test_an_archive_that_is_none_ends_early_or_grows_too_much_is_refused(web: Web, tmp_path: Path) -> None:
    whole = _tar([_member("a", size=50_000), _member("b", size=50_000)], "w")
    bomb = _tar([_member("a", size=0)], "w")[:512]
    lying = tarfile.TarInfo("a")
    lying.size = 1 << 50
    for archive in (
        b"",
        b"x" * 2000,
        whole[:60_000],
        _tar([_member("a")])[:40],
        bomb[:300],
        lying.tobuf() + b"x" * 5000,
    ):
        web.files["/archive"] = archive
        with pytest.raises(UserError):
            _save(web, tmp_path / "context", [UNPACKED])
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "entries",
    [None, {}, [1], [{}], [{"entryType": "x", "path": "a"}], [_inline(None)], [{**_inline("a"), "content": "%"}],
     [{**_inline("a"), "encoding": "utf-8"}], [{**UNPACKED, "uri": "https://x/y"}], [{**UNPACKED, "uri": None}],
     [{**UNPACKED, "unpack": "yes"}], [{"entryType": "remote", "path": "a"}]],
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(entries: Any, web: Web, tmp_path: Path) -> None:
    with pytest.raises(Refused):
        _save(web, tmp_path / "context", entries)


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", None, "/etc/passwd", "data:,x"])
def test_only_addresses_of_the_web_are_read(address: Any, tmp_path: Path) -> None:
    http = requests.Session()
    with pytest.raises(Refused):
        limited_requests.fetch_part(http, address, 0)
    with pytest.raises(Refused), open(tmp_path / "x", "wb") as file:
        limited_requests.download(http, address, file)
    with pytest.raises(Refused):
        build_context.save_build_context(address, None, tmp_path / "context")


def test_a_log_without_an_end_is_read_in_parts_and_a_file_without_one_is_refused(web: Web, tmp_path: Path) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            pass

    web.files["/endless"] = endless
    with requests.Session() as http:
        assert limited_requests.fetch_part(http, f"{web.url}/endless", 1000, 100_000) == b"x" * 100_000
        with pytest.raises(Refused), open(tmp_path / "x", "wb") as file:
            limited_requests.download(http, f"{web.url}/endless", file, 1_000_000)
    assert (tmp_path / "x").stat().st_size <= 1_000_000


def test_who_does_not_know_parts_is_read_from_where_it_is_known(web: Web) -> None:
    web.files["/log"] = bytes(range(256)) * 1000
    with requests.Session() as http:
        for offset in (0, 1, 65535, 65536, 65537, 255_999, 256_000, 300_000):
            assert limited_requests.fetch_part(http, f"{web.url}/log", offset) == (bytes(range(256)) * 1000)[offset:]
        assert limited_requests.fetch_part(http, f"{web.url}/none", 0) == b""


@pytest.mark.parametrize(
    "place",
    ["127.0.0.1:6379", "0.0.0.0:5678", "169.254.169.254:8080", "localhost:8080", "10.0.0.4:22",
     "[::1]:5678", "10.0.0.4:70000", "224.0.0.1:5678", "255.255.255.255:5678", "2130706433:5678", "-x:5678", "a;b:5678",
     "x.localhost:5678"],
)  # fmt: skip
def test_a_node_does_not_send_the_token_to_this_machine_or_to_everybody(place: str) -> None:
    state = StepState()
    TagReader(state).read({"azureml_debug.0": f"{place} 7:listening,7:waiting"})
    host, _colon, port = place.rpartition(":")
    list(LogReader(state).read(["Timeout for debug connection: 3", f"ip_address: {host}", f"debug_port: {port}", "x"]))
    assert state.addresses == {}
    for good in ("10.0.0.4:5678", "node-1:5678", "[fd00::4]:5678"):
        TagReader(state).read({"azureml_debug.0": f"{good} 7:listening"})
        assert state.addresses.pop(0)[1] == 5678


def test_whatever_tags_and_logs_say_is_taken_or_left(hostile: Hostile, tmp_path: Path) -> None:
    words = ["azureml_debug.", "0", "1", "root", "error.0", "²", "9" * 5000, "10.0.0.4:5678", "7:listening",
             "7:waiting", ",", " ", "ip_address: ", "debug_port: ", "rank: ", "Timeout for debug connection: ", "\n",
             "Debugger attached = True", "127.0.0.1", "\x1b[2J",
             "azureml_debug: source root ", "/mnt/x", "../..", "\0", "1e9", "-1", "raised"]  # fmt: skip

    class Service:
        """In the place of the workspace: says what it is told to."""

        def __init__(self) -> None:
            self.logs: dict[str, bytes] = {}

        def details(self, run_id: str) -> tuple[Mapping[str, str], str]:
            return {name: name for name in self.logs}, ""

        def read(self, url: str, offset: int) -> bytes:
            return self.logs[url][offset:]

        def compute_state(self, name: str) -> str:
            return ""

    for index in range(hostile.count):
        rng = hostile.random(index)

        def made(rng: Any = rng) -> str:
            return "".join(rng.choice(words) for _ in range(rng.randint(0, 8)))

        folder = tmp_path / str(index)
        folder.mkdir()
        step = records.StepRecord(name="train", run_id="", ranks=2)
        run = records.RunRecord(
            "run", 1, "pipeline", "mine", folder / "run", folder, records.IN_WORKSPACE, steps=[step]
        )
        service: Any = Service()
        names = ["azureml-logs/70_driver_log_0.txt", "user_logs/std_log_process_1.txt", "../../70_driver_log.txt",
                 "azureml-logs/70_driver_log_99999999999.txt", "/etc/passwd",
                 "azureml-logs/../../20_image_build_log.txt",
                 "user_logs/std_log_²"]  # fmt: skip
        service.logs = {name: "\n".join(made() for _ in range(5)).encode() for name in rng.sample(names, 3)}
        tags: dict[str, Any] = {"azureml_debug.0": made(), made(): made(), made(): rng.choice([None, 1, "x"])}
        with ThreadPoolExecutor(2) as threads:
            followed = FollowedStep(run, step, None, service, "", threads)
            for status in ("Queued", "Running", made()[:20] or "x", "Failed"):
                followed.update(ChildRun("train", "child", status, tags, made()), lambda: None)
        inside = {path.relative_to(folder).parts[0] for path in folder.rglob("*")}
        assert inside == {"run"} and not (tmp_path / "70_driver_log.txt").exists(), index
        for line in run.events(step).read_text().splitlines() if run.events(step).exists() else []:
            assert isinstance(json.loads(line), dict)


@pytest.mark.parametrize("name", ["../../x", "a/b", "", None, 7, "x\0", "..", "x" * 300, "\x1b[2J"])
def test_a_step_whose_name_cannot_be_a_folders_is_named_by_its_run(name: Any) -> None:
    child = {"runId": "child_1", "status": "Running", "properties": {"azureml.moduleName": name}}
    history: Any = SimpleNamespace(children=lambda _run: [child])
    service = PipelineService(history, "run", lambda: None)
    assert [one.step for one in service.children()] == ["child_1"]
    child["runId"] = "../x"
    with pytest.raises(Refused):
        service.children()


def test_a_log_at_an_address_of_another_kind_is_not_read() -> None:
    told = {"logFiles": {"azureml-logs/70_driver_log.txt": "file:///etc/shadow"}, "error": None}
    history: Any = SimpleNamespace(details=lambda _run: told)
    with pytest.raises(Refused):
        PipelineService(history, "run", lambda: None).details("child")
