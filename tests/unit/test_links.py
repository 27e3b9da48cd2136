"""Links that lead out of the folders that a container is given: where what they lead to has to be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from workflows.engines import links
from workflows.errors import UserError

APP, MODELS = "/var/azureml-app", "/var/azureml-models"


def tree(root: Path, *names: str, **linked: str) -> Path:
    """Files below a folder, and links by name with `__` for `/`."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    for name, target in linked.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    return root


def places(root: Path, *mounts: tuple[str, str]) -> dict[str, str]:
    """The places, with what lies in the root shown from there."""
    found = links.find_outward_links([(root / name, place) for name, place in mounts or [("app", APP)]])
    assert not found.notes
    return {place: os.path.relpath(local, root) for place, local in found.places.items()}


@pytest.mark.parametrize(
    ("linked", "expected"),
    [
        ({"app__a": "../shared/lib"}, {"/var/shared/lib": "shared/lib"}),
        ({"app__a": "../shared/lib/x.py"}, {"/var/shared/lib": "shared/lib"}),
        ({"app__deep__a": "../../shared"}, {"/var/shared": "shared"}),
        ({"app__a": "../alone.txt"}, {"/var/alone.txt": "alone.txt"}),
        ({"app__a": "b", "app__b": "../shared"}, {"/var/shared": "shared"}),
        ({"app__a": "../one", "one": "two", "two": "shared"}, {"/var/one": "shared"}),
        ({"app__a": "../one", "one": "shared/lib/x.py"}, {"/var/one": "shared/lib/x.py"}),
        ({"app__a": "../shared", "app__b": "../shared/lib/x.py"}, {"/var/shared": "shared"}),
        ({"app__a": "../shared", "shared__n": "../far"}, {"/var/shared": "shared", "/var/far": "far"}),
        ({"app__a": "../shared/lib", "shared__lib__n": "x.py"}, {"/var/shared/lib": "shared/lib"}),
        ({"app__a": "sub", "app__sub__b": "../own.py"}, {}),
        ({"app__a": "../nowhere", "app__b": "b", "app__c": "d", "app__d": "c"}, {}),
        ({"app__.git__a": "../../shared"}, {}),
    ],
)  # fmt: skip
def test_each_kind_of_link(tmp_path: Path, linked: dict[str, str], expected: dict[str, str]) -> None:
    tree(tmp_path, "app/own.py", "app/sub/y.py", "shared/lib/x.py", "alone.txt", "far/z.py", **linked)
    assert places(tmp_path) == expected


def test_an_absolute_link_leads_to_the_same_place(tmp_path: Path) -> None:
    tree(tmp_path, "app/own.py", "data/x/y.txt", app__a=str(tmp_path / "data"), app__b=str(tmp_path / "app" / "own.py"))
    # Its folder is the service's own, so no more than the file itself.
    assert places(tmp_path) == {str(tmp_path / "data"): "data", str(tmp_path / "app" / "own.py"): "app/own.py"}


def test_links_that_lead_through_each_other_in_circles_come_to_an_end(tmp_path: Path) -> None:
    tree(tmp_path, "app/own.py", "d/x.py", app__a="../d", app__b="../d/loop")
    tree(tmp_path, d__loop="up/d", d__up="..", d__back="../app")
    found = links.find_outward_links([(tmp_path / "app", APP)])
    assert found.places["/var/d"] == str(tmp_path / "d")


def test_a_model_in_the_layout_of_hugging_faces_cache_takes_one_place(tmp_path: Path) -> None:
    blobs = {f"hub/blobs/{number:04x}" for number in range(1000)}
    tree(tmp_path, *blobs, "hub/snapshots/main/readme")
    for number in range(1000):
        (tmp_path / f"hub/snapshots/main/part-{number}").symlink_to(f"../../blobs/{number:04x}")
    assert places(tmp_path, ("hub/snapshots/main", MODELS)) == {"/blobs": "hub/blobs"}
    assert places(tmp_path, ("hub", MODELS)) == {}


def test_two_links_that_need_different_things_at_one_place_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "one/app/x", "one/data/x", "two/model/x", "two/data/x")
    tree(tmp_path, one__app__a="../data", two__model__b="../data")
    with pytest.raises(UserError, match=r"two/model/b would lead to /var/data in the container, where \S+/a leads to"):
        links.find_outward_links([(tmp_path / "one/app", APP), (tmp_path / "two/model", MODELS)])
    (tmp_path / "two/model/b").unlink()
    tree(tmp_path, two__model__b=str(tmp_path / "two/data"))
    links.find_outward_links([(tmp_path / "one/app", APP), (tmp_path / "two/model", MODELS)])


def test_what_the_container_has_of_its_own_is_left_and_named(tmp_path: Path) -> None:
    tree(tmp_path, "app/own.py", app__a="/etc/hostname", app__b="..", app__c="/", app__d="/usr/lib", app__e="/tmp")
    found = links.find_outward_links([(tmp_path / "app", APP)])
    assert found.places == {}
    assert len(found.notes) == 4 and found.notes[-1] == "so do 2 more"
    assert all("app/" in note and "of its own" in note for note in found.notes[:-1])


def test_a_virtual_environment_in_the_folder_is_passed_by(tmp_path: Path) -> None:
    tree(tmp_path, "app/own.py", "app/env3/lib/x.py", "far/python", app__env3__bin__python="../../../far")
    assert places(tmp_path) == {"/var/far": "far"}
    tree(tmp_path, "app/env3/pyvenv.cfg")
    assert places(tmp_path) == {}


def test_links_to_too_many_places_are_refused_with_what_to_do(tmp_path: Path) -> None:
    for number in range(links.MOST_PLACES + 1):
        tree(tmp_path, f"far/{number}/x", **{f"app__{number}": f"../far/{number}"})
    with pytest.raises(UserError, match=f"lead to {links.MOST_PLACES + 1} places") as caught:
        links.find_outward_links([(tmp_path / "app", APP)])
    assert "cp -rL" in caught.value.remedy


def test_the_search_is_bounded_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, *(f"app/{number}/x" for number in range(30)), app__0__far="../../far", far="app/1")
    monkeypatch.setattr(links, "MOST_ENTRIES", 20)
    (note,) = links.find_outward_links([(tmp_path / "app", APP)]).notes
    assert note.startswith("links were looked for in the first 20 files only")


def test_a_folder_of_many_files_costs_no_look_at_any_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree(tmp_path, *(f"app/{number}" for number in range(3000)), "far/x", app__a="../far")
    looked: list[object] = []
    plain = os.stat

    def stat(*one: Any, **more: Any) -> os.stat_result:
        looked.append(one)
        return plain(*one, **more)

    monkeypatch.setattr(os, "stat", stat)
    assert places(tmp_path) == {"/var/far": "far"}
    assert len(looked) < 100


def test_a_container_that_lacks_what_a_new_link_leads_to_is_told(tmp_path: Path) -> None:
    tree(tmp_path, "app/own.py", "far/sub/x", app__a="../far/sub")
    found = links.find_outward_links([(tmp_path / "app", APP)])
    assert links.find_missing_path(found, {}) == str(tmp_path / "far/sub")
    assert links.find_missing_path(found, found.places) is None
    assert links.find_missing_path(found, {"/var/far": str(tmp_path / "far")}) is None
