"""Which rank a process is, and on which node, by what launchers say."""

from __future__ import annotations

import json

import pytest

from workflows.azureml.announcements import LogReader, StepState, TagReader
from workflows.debuggee.azureml_debuggee.ranks import node_of, rank_of, world_of
from workflows.debuggee.azureml_debuggee.tags import Tags

KEY, OTHER = "SHA256:" + "A" * 43, "SHA256:" + "B" * 43


def tensorflow(kind: str, index: int) -> dict[str, str]:
    cluster = {"ps": ["a:3"], "worker": ["a:1", "b:2"], "chief": ["b:9"]}
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def mpi(rank: str, local: str) -> dict[str, str]:
    return {"OMPI_COMM_WORLD_RANK": rank, "OMPI_COMM_WORLD_LOCAL_SIZE": local, "OMPI_COMM_WORLD_NODE_RANK": "1"}


@pytest.mark.parametrize(
    ("environment", "rank", "world", "node"),
    [
        ({}, None, None, None),
        ({"RANK": "3", "WORLD_SIZE": "4", "NODE_RANK": "1", "LOCAL_RANK": "1"}, 3, 4, 1),
        ({**mpi("5", "2"), "OMPI_COMM_WORLD_SIZE": "6"}, 5, 6, 2),
        (mpi("1", "0"), 1, None, None),
        (tensorflow("chief", 0), 0, 4, 0),
        (tensorflow("worker", 0), 1, 4, 1),
        (tensorflow("worker", 1), 2, 4, 0),
        (tensorflow("ps", 0), 3, 4, 1),
        (tensorflow("ps", 7), 10, 4, None),
        (tensorflow("nobody", 0), None, None, None),
        ({"TF_CONFIG": "{"}, None, None, None),
        ({"TF_CONFIG": "[]", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "3"}, 2, 3, None),
        ({"AZUREML_DEBUGGEE_RANK": "0", **tensorflow("ps", 0)}, 0, 4, 1),
    ],
)
def test_a_process_knows_its_rank_and_node(
    environment: dict[str, str], rank: int | None, world: int | None, node: int | None
) -> None:
    assert (rank_of(environment), world_of(environment), node_of(environment)) == (rank, world, node)


def test_the_node_of_each_rank_goes_with_its_place_in_one_tag_request() -> None:
    sent: list[dict[str, str]] = []

    class Run:
        def set_tags(self, tags: dict[str, str]) -> None:
            sent.append(tags)

        def seconds_to_renewal(self) -> None:
            return None

    tags = Tags("/code", Run, node=1)
    tags.add_event({"event": "listening", "pid": 7, "rank": 3, "host": "127.0.0.1", "port": 5678})
    tags.finish(5)
    assert sent[0]["azureml_debug.node.3"] == "1" and sent[0]["azureml_debug.3"].startswith("127.0.0.1:5678")


def test_nodes_and_host_keys_are_heard_by_tags_and_by_the_log_alike() -> None:
    by_tags, by_log = StepState(), StepState()
    TagReader(by_tags).read(
        {
            "azureml_debug.node.3": "1",
            "azureml_debug.hostkeys.1": f"{KEY} {OTHER} nonsense",
            "azureml_debug.node.x": "1",
        }
    )
    reader = LogReader(by_log, rank=3)
    lines = ["azureml_debug: node 1", f"azureml_debug: host key {KEY}", f"azureml_debug: host key {OTHER}"]
    assert list(reader.read(lines)) == []
    assert by_tags.nodes == by_log.nodes == {3: 1}
    assert by_tags.keys == by_log.keys == {1: {KEY, OTHER}}
