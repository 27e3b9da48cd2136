"""A machine behind `--remote` that lies: nothing is written or listened on that should not be, and two lines say it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from conftest import Hostile
from hostile_machine import Liar, Machine

from workflows.console import Console
from workflows.errors import UserError
from workflows.remote import check, fetch, follower, keeper, session, sync, task, tunnels
from workflows.remote.address import Address
from workflows.remote.request import TypedTask
from workflows.settings import Settings, resolve

ADDRESS = Address("box", "box", 22, "azureuser")
MINE = {"name": "mine", "type": "node", "request": "launch", "program": "mine.js"}
ENTRY = {"name", "type", "request", "connect", "pathMappings", "justMyCode"}


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.close()


class Laptop:
    """A project here, with the process that keeps its tunnels in this one."""

    def __init__(self, folder: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch, patience: float = 10) -> None:
        self.folder, self.project = folder, folder / "project"
        self.keepers: list[tuple[keeper.Keeper, threading.Thread]] = []
        self.opened: list[Any] = []
        self.patience = patience
        (self.project / ".vscode").mkdir(parents=True)
        (self.project / ".azureml").mkdir()
        (folder / "outside").mkdir()
        for name in ("tasks.py", "train.py", "outside/mine.txt"):
            (self.project / name if "/" not in name else folder / name).write_text("mine")
        (self.project / ".azureml" / "link.runconfig").symlink_to(folder / "outside" / "mine.txt")
        (self.project / "link").symlink_to(folder / "outside")
        self.launch = self.project / ".vscode" / "launch.json"
        self.launch.write_text(json.dumps({"version": "0.2.0", "configurations": [MINE]}))
        self.settings: Settings = resolve(self.project, {"remote_host": "box"}, environ={})
        monkeypatch.chdir(self.project)

        monkeypatch.setattr(session, "open_connection", lambda *_arguments: machine.connection)
        monkeypatch.setattr(check, "open_connection", lambda *_arguments: machine.connection)
        monkeypatch.setattr(check, "_network", lambda _address: ())
        monkeypatch.setattr(check, "resolve", lambda _settings: ADDRESS)
        monkeypatch.setattr(task, "resolve", lambda _settings: ADDRESS)
        monkeypatch.setattr(tunnels, "open_tunnels", self.ensure)
        monkeypatch.setattr("workflows.open_with.open_file", self.opened.append)
        monkeypatch.setattr("workflows.vscode.dev_containers.open_in_code", lambda _console, where: {"address": where})
        monkeypatch.setattr(follower, "RECONNECT_SECONDS", patience)
        for module in (session, fetch):
            monkeypatch.setattr(module, "ANSWER_SECONDS", patience)
        monkeypatch.setattr(session, "EXIT_SECONDS", min(patience, 1))
        monkeypatch.setattr(task, "INSTALL_SECONDS", patience)
        monkeypatch.setattr(sync, "WORK_SECONDS", patience)

    def ensure(self, *given: Any) -> dict[str, int]:
        _project, address, _passphrases, paths, owner, name, report, wanted, named = given
        made = keeper.Keeper(self.project, address, {}, b"key")
        thread = threading.Thread(target=made.stay_connected, daemon=True)
        thread.start()
        self.keepers.append((made, thread))
        answer = made.answer(
            {
                "do": "ensure", "owner": owner, "name": name, "report": report[0], "offset": report[1],
                "root": paths.root, "named": [], "tunnels": wanted, "seconds": self.patience, "fresh": True,
                "ports_named": list(named),
            }
        )  # fmt: skip
        if "problem" in answer:
            raise UserError(str(answer["problem"]), "x")
        return dict(answer["ports"])

    def listeners(self) -> set[tuple[str, int]]:
        """Where this process listens."""
        found = psutil.Process().net_connections(kind="inet")
        return {(one.laddr.ip, one.laddr.port) for one in found if one.status == psutil.CONN_LISTEN}

    def settle(self) -> None:
        """Wait until what the keepers were told by now has been done."""
        deadline = time.monotonic() + min(self.patience, 1)
        while self.keepers and time.monotonic() < deadline and any(one._owners for one, _thread in self.keepers):
            time.sleep(0.005)

    def close(self) -> None:
        """End the keepers."""
        for made, thread in self.keepers:
            made._stopped.set()
            made._wake.set()
            for name in list(made._owners):
                made.drop_owner(name)
            if made._session is not None:
                made._session.close()
            thread.join(20)
            assert not thread.is_alive()
        self.keepers.clear()

    def snapshot(self) -> dict[str, tuple[int, bytes]]:
        """All files and links but for those that a machine may have a part in."""
        found = {}
        for parent, _folders, files in os.walk(self.folder):
            for name in files:
                path = Path(parent, name)
                inner = path.relative_to(self.folder).as_posix()
                if inner.startswith(("project/.azureml-debug/", "results/outputs/", "results/logs/")):
                    assert stat.S_ISREG(os.lstat(path).st_mode) and not os.lstat(path).st_mode & 0o111, inner
                    continue
                if inner == "project/.vscode/launch.json" or inner.startswith("project/.azureml/new"):
                    continue
                found[inner] = (os.lstat(path).st_mode, b"" if path.is_symlink() else path.read_bytes())
        return found

    def check_launch(self) -> None:
        """Nothing in launch.json starts a program that the person has not put there, or attaches elsewhere."""
        value = json.loads(self.launch.read_text())
        assert value["configurations"][0] == MINE
        for entry in value["configurations"][1:]:
            assert entry.keys() <= ENTRY and entry["name"].startswith("Azure Machine Learning "), entry
            assert (entry["type"], entry["request"], entry["connect"]["host"]) == ("debugpy", "attach", "127.0.0.1")
            assert type(entry["connect"]["port"]) is int


def _command(laptop: Laptop, kind: str) -> None:
    """What a person types, by what the task there reports."""
    console = Console(as_json=True)
    if kind == "check":
        assert list(check.findings(laptop.settings))
        return
    if kind == "sync":
        own = task.RemoteTask(laptop.settings, console)
        listed = own.list_files()
        opened = own.connect()
        try:
            own.send(opened, listed)
        except session.ConnectionLost as error:
            raise UserError("lost", "x") from error
        finally:
            opened.close()
        return
    values: dict[str, Any] = {"run": None}
    if kind in ("copy", "open"):
        values |= {"open": None, "copy": None}
        values[kind] = str(laptop.folder / "results") if kind == "copy" else "outputs/a.txt"
    if kind == "debug":
        values = {"name": "e", "data": []}
    if kind == "print":
        values["print"] = True
    names = {"debug": "experiment.debug", "print": "deploy.attach-config", "code": "container.code"}
    task.run_remotely(laptop.settings, console, TypedTask(names.get(kind, "experiment.outputs"), values, {}, (), {}))


KINDS = ("copy", "open", "debug", "print", "code", "check", "sync")


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_tells_the_truth_is_believed(
    kind: str, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = Laptop(tmp_path, machine, monkeypatch)
    machine.start = lambda: Liar(random.Random(0), kind, None)
    try:
        _command(laptop, kind)
        laptop.settle()
    finally:
        laptop.close()
    if kind == "copy":
        assert stat.S_IMODE((tmp_path / "results/outputs/a.txt").stat().st_mode) == 0o600
        assert (tmp_path / "results/logs/b.txt").is_file()
    if kind == "open":
        assert [path.name for path in laptop.opened] == ["a.txt"]
    if kind == "debug":
        assert "e (rank 2)" in laptop.launch.read_text()
        assert (laptop.project / ".azureml/new.runconfig").is_file()
    laptop.check_launch()


def test_whatever_a_machine_says_nothing_is_written_or_listened_on_that_should_not_be(
    hostile: Hostile,
    machine: Machine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    # Where it waits for nothing: how long it would wait is no matter here.
    laptop = Laptop(tmp_path, machine, monkeypatch, 0.15)
    before, listening = laptop.snapshot(), laptop.listeners()
    outside = {path: path.exists() for path in (Path("/tmp/escaped-by-a-machine"), Path.home() / "escaped.sh")}
    refused = 0
    # Each is a whole conversation.
    for index in range((hostile.count + 1) // 2):
        rng = hostile.random(index)
        kind = KINDS[index % len(KINDS)]
        liars: list[Liar] = []

        def start(rng: Any = rng, kind: str = kind, liars: list[Liar] = liars) -> Liar:
            liars.append(Liar(rng, kind, rng.randrange(1 if kind == "check" else 14) + (not liars)))
            return liars[-1]

        machine.start = start
        try:
            _command(laptop, kind)
        except UserError as error:
            refused += 1
            assert len(str(error).splitlines()) == 2, (index, str(error))
        laptop.settle()
        said = f"input {index}, {kind}: {[lie for liar in liars for lie in liar.lies]}"
        new = laptop.listeners() - listening
        assert all(place == "127.0.0.1" for place, _port in new), said
        allowed = [range(5678, 6679), range(8000, 9001), range(32768, 65536)]
        assert all(any(port in some for some in allowed) for _place, port in new), (said, new)
        laptop.close()
        assert laptop.listeners() == listening, said
        assert laptop.snapshot() == before, said
        assert all(path.exists() == there for path, there in outside.items()), said
        laptop.check_launch()
        shutil.rmtree(tmp_path / "results", ignore_errors=True)
        capsysbinary.readouterr()
    assert refused > hostile.count // 10


def test_a_session_that_was_never_greeted_ends(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop = Laptop(tmp_path, machine, monkeypatch)

    class Flood(Liar):
        def talk(self, channel: Any) -> None:
            with contextlib.suppress(OSError, EOFError):
                for _piece in range(200):
                    channel.sendall(b"\x1b[2J" * 10_000)

    machine.start = lambda: Flood(None, "", None)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="azureuser@box:22 has sent more than a megabyte"):
        _command(laptop, "sync")
