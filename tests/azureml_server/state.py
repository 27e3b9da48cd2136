"""The workspace's state: in memory, except for files, which are in folders as in a storage account."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

#: Containers of the storage account: the first part of a blob's address.
ARTIFACTS, DATASTORE, SNAPSHOTS = "azureml", "azureml-blobstore", "snapshots"
#: Folders of a run whose files are its logs.
LOG_FOLDERS = ("azureml-logs/", "logs/", "user_logs/", "system_logs/")
ENDED = ("Completed", "Failed", "Canceled")
#: What the pipeline service calls the states of runs.
PIPELINE_WORDS = {"Completed": "Finished", "Preparing": "Queued", "Provisioning": "Queued", "Starting": "Queued"}


def now() -> str:
    return datetime.now(timezone.utc).isoformat()


@dataclass
class Experiment:
    name: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created: str = field(default_factory=now)
    description: str | None = None
    tags: dict[str, str] = field(default_factory=dict)


@dataclass
class Run:
    """A run as run history keeps it."""

    id: str
    experiment: Experiment
    number: int
    type: str | None = None
    parent: str | None = None
    root: str = ""
    name: str | None = None
    status: str = "NotStarted"
    target: str | None = None
    script: str | None = None
    created: str = field(default_factory=now)
    started: str | None = None
    ended: str | None = None
    tags: dict[str, str] = field(default_factory=dict)
    properties: dict[str, str] = field(default_factory=dict)
    error: dict[str, Any] | None = None
    warnings: list[dict[str, str]] = field(default_factory=list)
    definition: dict[str, Any] | None = None
    snapshot: str | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    #: Its outputs: where each lies on the datastore.
    outputs: dict[str, str] = field(default_factory=dict)
    #: Each state with the time at which it came.
    history: list[tuple[str, float]] = field(default_factory=list)
    #: Set when somebody wants the run to end.
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def container(self) -> str:
        """Where its files are."""
        return f"dcid.{self.id}"


@dataclass
class Compute:
    """A compute target.

    Attributes:
        name: Its name.
        type: `AmlCompute`, `ComputeInstance`, …
        state: `Succeeded`, `Failed`, …
        nodes: How many may run at a time; with 0 its runs stay queued for good.
        subnet: The virtual network that it is in, if any.
        node: The address of its nodes.
        power: How an instance is: `Running`, `Stopped`, …
        public_key: The key that Azure has for an instance; empty where its SSH access is off.
        owner: Who an instance belongs to: the user that the tests' tokens name, or another one.
        sshd: Where an instance's SSH server listens.
        jupyter: What Azure tells of an instance's Jupyter in place of its address; empty for nothing.
    """

    name: str
    type: str = "AmlCompute"
    state: str = "Succeeded"
    nodes: int = 4
    subnet: str | None = None
    node: str = "127.0.0.1"
    power: str = "Running"
    public_key: str = ""
    owner: str = "tester"
    sshd: tuple[str, int] | None = None
    jupyter: str | None = None


class State:
    """One workspace.

    Args:
        root: The folder for files.
        subscription: The subscription's id.
        group: The resource group.
        workspace: The workspace's name.
    """

    def __init__(self, root: Path, subscription: str, group: str, workspace: str) -> None:
        self.root, self.subscription, self.group, self.workspace = root, subscription, group, workspace
        self.workspace_id = str(uuid.uuid4())
        self.url = ""
        #: For how many seconds the token holds that a run has for itself.
        self.run_token_seconds = 86400.0
        self.lock = threading.RLock()
        self.experiments: dict[str, Experiment] = {}
        self.runs: dict[str, Run] = {}
        self.computes: dict[str, Compute] = {"cpu": Compute("cpu")}
        self.snapshots: dict[str, dict[str, str]] = {}
        self.environments: dict[str, list[dict[str, Any]]] = {}
        #: What whoever signs in may do, as the resource manager tells it.
        self.actions = ["*/read", "Microsoft.MachineLearningServices/workspaces/*"]
        #: Whether it takes no requests of SDK v2.
        self.legacy = False
        #: Seconds by which its clock is ahead of this machine's.
        self.clock = 0.0
        #: The quota of the region: what it is called, what is used of it, and how much there is.
        self.usages = [
            ("Total Cluster Dedicated Regional vCPUs", 0, 24),
            ("Standard Dv2 Family Cluster Dedicated vCPUs", 0, 24),
            ("Total Cluster Low Priority Regional vCPUs", 0, 6),
        ]
        #: Where its services are, as `HOST`, with a certificate for `*.api.localhost`; by default where all is.
        self.services_host = ""
        #: The secrets of service principals that sign in here, and what refuses them: an error of AADSTS.
        self.principals: dict[str, str] = {}
        self.sign_in_error = ""
        #: Whether storage is read without a signature or a token, as every test but those of storage itself has it.
        self.open_storage = True
        #: Blobs that are in listings under another name than a file here can have.
        self.listed_only: dict[str, Path] = {}
        #: Sizes of blobs in listings, where that is not their own.
        self.sizes: dict[str, int] = {}
        #: Datastores, which are all of one container; `key`, `identity` for one that keeps no key, or for v2
        #: `account` for one that gives the account's own, `gen2` or `file` for one of another kind.
        self.datastores = {"workspaceblobstore": "key"}
        #: The steps of each version of a dataset, as they are saved; see :meth:`add_dataset`.
        self.datasets: dict[str, list[list[dict[str, Any]]]] = {}
        #: Data assets of SDK v2 by name and version: `dataType`, `dataUri`.
        self.data_assets: dict[tuple[str, str], dict[str, str]] = {}
        self.assets: dict[str, dict[str, Any]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        self.operations: dict[str, dict[str, Any]] = {}
        for container in (ARTIFACTS, DATASTORE, SNAPSHOTS):
            (root / container).mkdir(parents=True, exist_ok=True)

    @property
    def scope(self) -> str:
        """The workspace's path."""
        return (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"
        )

    def add_dataset(self, name: str, *paths: str, datastore: str = "workspaceblobstore", then: str = "") -> None:
        """A further version of a dataset of files; with `then`, a step of that kind comes after them."""
        named = {"subscription": self.subscription, "resourceGroup": self.group, "workspaceName": self.workspace}
        sources = [{**named, "datastoreName": datastore, "path": path} for path in paths]
        blocks = [{"type": "Microsoft.DPrep.GetDatastoreFilesBlock", "arguments": {"datastores": sources}}]
        more = [{"type": f"Microsoft.DPrep.{then}", "arguments": {}}] if then else []
        with self.lock:
            self.datasets.setdefault(name, []).append([*blocks, *more])

    def experiment(self, name: str) -> Experiment:
        """An experiment, made where it is not there yet."""
        with self.lock:
            return self.experiments.setdefault(name, Experiment(name))

    def add_run(self, run_id: str, experiment: str, **more: Any) -> Run:
        """A new run; or the one that there is under this id."""
        with self.lock:
            if run_id not in self.runs:
                run = Run(run_id, self.experiment(experiment), len(self.runs) + 1, **more)
                parent = self.runs.get(run.parent or "")
                run.root = parent.root if parent else run_id
                run.history.append((run.status, time.time()))
                self.runs[run_id] = run
            return self.runs[run_id]

    def move(self, run: Run, status: str, error: str = "") -> bool:
        """Give a run its next state; False where it has ended already."""
        with self.lock:
            if run.status in ENDED or (run.cancelled.is_set() and status not in ENDED):
                return False
            run.status = status
            run.history.append((status, time.time()))
            if status == "Running":
                run.started = run.started or now()
            if status in ENDED:
                run.ended = now()
            if error:
                run.error = {"error": {"code": "UserError", "message": error, "details": []}, "time": now()}
            return True

    def children(self, run_id: str) -> list[Run]:
        with self.lock:
            return [run for run in self.runs.values() if run.parent == run_id]

    # Files

    def file(self, container: str, path: str) -> Path:
        """Where a blob lies; never outside its container."""
        root = (self.root / container).resolve()
        whole = (root / path).resolve()
        if not whole.is_relative_to(root):
            raise ValueError(path)
        return whole

    def artifact(self, run: Run, path: str) -> Path:
        """Where a run's file lies."""
        return self.file(ARTIFACTS, f"ExperimentRun/{run.container}/{path}")

    def files(self, container: str, prefix: str) -> dict[str, Path]:
        """The blobs whose names begin so, by name."""
        root = self.root / container
        start = self.file(container, prefix)
        folder = start if start.is_dir() else start.parent
        found = {}
        for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
            name = path.relative_to(root.resolve()).as_posix()
            if path.is_file() and name.startswith(prefix):
                found[name] = path
        return found

    def logs(self, run: Run) -> list[str]:
        """The names of a run's logs."""
        prefix = f"ExperimentRun/{run.container}/"
        names = [name.removeprefix(prefix) for name in self.files(ARTIFACTS, prefix)]
        return [name for name in names if name.startswith(LOG_FOLDERS)]
