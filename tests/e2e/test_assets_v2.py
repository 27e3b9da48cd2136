"""Data, models and environments of a workspace by SDK v2's routes, over HTTPS: found, brought here, built here."""

from __future__ import annotations

import os
import pty
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from azureml_server import AzureMLServer, write_configuration
from azureml_server.server import CLIENT
from azureml_server.state import ARTIFACTS, DATASTORE

from workflows.azureml.data_references import AssetName, DatastorePath, parse
from workflows.azureml.downloads import short_digest
from workflows.azureml.errors import NotAllowed, NotFound
from workflows.azureml.v2 import container_download, storage
from workflows.azureml.v2.asset_downloads import AssetDownloader, DownloadedAsset
from workflows.console import Console
from workflows.errors import UserError
from workflows.settings import Settings, resolve

OWN = "azureml_server_credential:ServerCredential"
STORE = "azureml://datastores/workspaceblobstore/paths"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[AzureMLServer]:
    with AzureMLServer(secure=True) as made:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(made.certificate))
        monkeypatch.setenv("ARM_CLOUD_METADATA_URL", f"{made.url}/metadata/endpoints")
        monkeypatch.setenv("REGISTRY_DISCOVERY_ENDPOINT_URL", made.url)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.delenv("AZUREML_CURRENT_CLOUD", raising=False)
        monkeypatch.syspath_prepend(str(CLIENT))
        original = socket.getaddrinfo

        def local(host: Any, *arguments: Any, **more: Any) -> Any:
            return original("127.0.0.1" if str(host).endswith(".localhost") else host, *arguments, **more)

        monkeypatch.setattr(socket, "getaddrinfo", local)
        made.state.open_storage = False
        yield made
        assert made.unknown == []


@pytest.fixture
def settings(server: AzureMLServer, tmp_path: Path) -> Settings:
    write_configuration(server, tmp_path)
    return resolve(tmp_path, environ={"AML_AUTH": OWN})


def blob(server: AzureMLServer, name: str, content: str | bytes, container: str = DATASTORE) -> Path:
    path = server.state.file(container, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def data(server: AzureMLServer, name: str, uri: str, version: str = "1", type_: str = "uri_folder") -> None:
    server.assets.register("", "data", name, version, {"dataType": type_, "dataUri": uri})


def download(settings: Settings, text: str, collection: str = "data", named_folder: bool = False) -> DownloadedAsset:
    console = Console()
    with console.step("data") as step:
        return AssetDownloader(settings, console, step).download(parse(text, collection), "it", named_folder)


def files_in(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def reads(server: AzureMLServer, container: str = DATASTORE) -> list[str]:
    start = f"/{container}/"
    seen = [one for one in server.requests if one.path.startswith(start) and one.method == "GET"]
    return [one.path.removeprefix(start) for one in seen]


def left(tmp_path: Path) -> list[str]:
    """What is on its way."""
    return [path.name for path in (tmp_path / "cache").rglob("*.part")]


def test_a_folder_is_brought_once_whatever_its_files_are_called(server: AzureMLServer, settings: Settings) -> None:
    names = {
        "a b.txt": "1",
        "50%.txt": "2",
        "%20.txt": "3",
        "ü/日本 ?#&+.txt": "4",
        "[1].txt": "",
        "in/it/x": "6" * 9,
    }
    for name, text in names.items():
        blob(server, f"sums/v1/{name}", text)
    blob(server, "sums/v10/other", "not this one")
    data(server, "sums", f"{STORE}/sums/v1/")
    got = download(settings, "azureml:sums:1")
    assert files_in(got.path) == names and not got.reused and got.size == 13
    assert all(path.stat().st_mode & 0o777 == 0o400 for path in got.path.rglob("*") if path.is_file())
    before = len(reads(server))
    again = download(settings, "azureml:sums@latest")
    assert again.path == got.path and again.reused and len(reads(server)) == before
    # Changed content is another folder; who reads the old one goes on reading it.
    blob(server, "sums/v1/a b.txt", "11")
    changed = download(settings, "azureml:sums")
    assert files_in(changed.path)["a b.txt"] == "11" and files_in(got.path)["a b.txt"] == "1"


def test_the_newest_version_is_taken_and_an_older_one_stays_in_the_cache(
    server: AzureMLServer, settings: Settings
) -> None:
    for number in ("9", "10"):
        blob(server, f"sums/{number}/numbers.txt", number)
    data(server, "sums", f"{STORE}/sums/9", "9")
    first = download(settings, "azureml:sums")
    data(server, "sums", f"{STORE}/sums/10", "10")
    assert files_in(download(settings, "azureml:sums").path) == {"numbers.txt": "10"}
    before = len(reads(server))
    pinned = download(settings, "azureml:sums:9")
    assert pinned.path == first.path and pinned.reused and len(reads(server)) == before


def test_a_file_a_table_and_what_jobs_have_left_are_read_from_where_they_lie(
    server: AzureMLServer, settings: Settings
) -> None:
    scope = server.state.scope.replace("resourceGroups", "resourcegroups")
    blob(server, "one/numbers.csv", "1,2")
    blob(server, "table/MLTable", "paths: []")
    blob(server, "ExperimentRun/dcid.job-1/model/MLmodel", "flavors: {}", ARTIFACTS)
    blob(server, "azureml/job-2/out/part.txt", "of a job")
    data(server, "file", f"azureml:/{scope}/datastores/workspaceblobstore/paths/one/numbers.csv", type_="uri_file")
    data(server, "table", f"{STORE}/table/", type_="mltable")
    for name, uri in (("logged", "azureml://jobs/job-1/outputs/artifacts/paths/model"), ("run", "runs:/job-1/model")):
        server.assets.register("", "models", name, "3", {"modelType": "mlflow_model", "modelUri": uri})
    got = download(settings, "azureml:file:1")
    assert got.path.name == "numbers.csv" and got.path.read_text() == "1,2"
    assert files_in(download(settings, f"azureml:/{scope}/data/table/versions/1").path) == {"MLTable": "paths: []"}
    for name in ("logged", "run"):
        got = download(settings, f"azureml:{name}", "models", named_folder=True)
        assert got.path.name == "model" and files_in(got.path) == {"MLmodel": "flavors: {}"}


def test_addresses_of_storage_are_read_by_whoever_may(server: AzureMLServer, settings: Settings) -> None:
    host = f"storage.blob.localhost:{server.url.rpartition(':')[2]}"
    dfs = host.replace(".blob.", ".dfs.")
    blob(server, "a b/numbers.txt", "1 2")
    for name, uri in (
        ("https", f"https://{host}/{DATASTORE}/a%20b"),
        ("signed", f"https://{host}/{DATASTORE}/a%20b?sv=2024&sig=of-its-own"),
        ("dfs", f"https://{dfs}/{DATASTORE}/a%20b/"),
        ("abfss", f"abfss://{DATASTORE}@{dfs}/a b"),
        ("wasbs", f"wasbs://{DATASTORE}@{host}/a b"),
    ):
        data(server, name, uri)
        assert files_in(download(settings, f"azureml:{name}").path) == {"numbers.txt": "1 2"}, name
    # Public data is read by nobody in particular: no token goes to an account that is none of this cloud's.
    server.state.open_storage = True
    assert download(settings, "azureml:https").reused


def test_datastores_are_read_by_their_key_or_by_whoever_is_signed_in(server: AzureMLServer, settings: Settings) -> None:
    server.state.datastores |= {"keyed": "account", "mine": "identity", "lake": "gen2", "share": "file"}
    blob(server, "in/ü x.txt", "1")
    for store in ("workspaceblobstore", "keyed", "mine", "lake"):
        blob(server, f"in/{store}", store)
        got = download(settings, f"azureml://datastores/{store}/paths/in")
        assert files_in(got.path)["ü x.txt"] == "1" and files_in(got.path)[store] == store
    with pytest.raises(UserError, match="of the kind AzureFile, which cannot be read from here"):
        download(settings, "azureml://datastores/share/paths/in")
    with pytest.raises(UserError, match="There is no datastore elsewhere") as caught:
        download(settings, "azureml://datastores/elsewhere/paths/in")
    assert "keyed, lake, mine" in caught.value.remedy


def test_who_may_not_see_a_datastores_key_reads_it_as_themselves(server: AzureMLServer, settings: Settings) -> None:
    blob(server, "in/x", "1")
    server.faults.fail("listSecrets", 403)
    assert files_in(download(settings, f"{STORE}/in").path) == {"x": "1"}


def test_a_registrys_data_and_models_are_read_with_its_signature(server: AzureMLServer, settings: Settings) -> None:
    host = f"other.blob.localhost:{server.url.rpartition(':')[2]}"
    blob(server, "shared/model/weights", "7")
    uri = f"https://{host}/{DATASTORE}/shared/model"
    server.assets.register("common", "models", "net", "2", {"modelType": "custom_model", "modelUri": uri})
    server.assets.register("common", "data", "sums", "1", {"dataType": "uri_folder", "dataUri": f"{uri}/"})
    got = download(settings, "azureml://registries/common/models/net/labels/latest", named_folder=True)
    assert got.path.name == "model" and files_in(got.path) == {"weights": "7"}
    assert got.location.named == AssetName("net", "2", "", "models", "common")
    assert files_in(download(settings, "azureml://registries/common/data/sums/versions/1").path) == {"weights": "7"}
    for text, problem, remedy in (
        ("azureml://registries/none/data/sums/versions/1", "There is no registry none", "az ml registry list"),
        ("azureml://registries/common/data/sums/versions/4", "There is no data asset sums:4 in the registry", "1."),
        ("azureml://registries/common/data/sum/versions/4", "no data asset sum:4 in the registry", "az ml data list"),
    ):
        with pytest.raises(NotFound, match=problem) as caught:
            download(settings, text)
        assert remedy in caught.value.remedy


def test_what_is_not_there_is_told_with_what_is(server: AzureMLServer, settings: Settings) -> None:
    for number in range(25):
        data(server, f"set-{number:02}", f"{STORE}/x")
    data(server, "numbers", f"{STORE}/nothing", "3")
    data(server, "numbers", f"{STORE}/nothing", "4")
    data(server, "gen1", "adl://store.azuredatalakestore.net/x")
    for text, problem, remedy in (
        ("azureml:number", r"There is no data asset number in the workspace workspace\.", "There are: numbers."),
        ("azureml:set_24", "There is no data asset set_24", "set-24"),
        ("azureml:numbers:7", "There is no data asset numbers:7", "Its versions: 4, 3."),
        ("azureml:numbers@best", "There is no data asset numbers@best", "Its versions: 4, 3."),
        ("azureml:numbers", "There is nothing at .*paths/nothing", "Correct the path"),
        ("azureml:gen1", "lies at adl://", "name the local path"),
        ("azureml:/subscriptions/s/resourcegroups/g/workspaces/w/data/x/versions/1", "is in the workspace w", "AML_"),
    ):
        with pytest.raises(UserError, match=problem) as caught:
            download(settings, text)
        assert remedy in caught.value.remedy, text
    with pytest.raises(NotFound, match="There is no model net") as none:
        download(settings, "azureml:net", "models")
    assert "It has none" in none.value.remedy


def test_a_listing_of_many_pages_is_read_to_its_end(
    server: AzureMLServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "PAGE", 7)
    for number in range(50):
        blob(server, f"many/{number}", str(number))
    got = download(settings, f"{STORE}/many")
    assert files_in(got.path) == {str(number): str(number) for number in range(50)}
    listings = [seen for seen in server.requests if seen.path == f"/{DATASTORE}"]
    assert len(listings) == 8


@pytest.mark.parametrize("name", ["../x", "a/../../x", "a\\..\\x", "a//x", "a/./x"])
def test_a_name_that_would_leave_the_folder_is_refused(
    name: str, server: AzureMLServer, settings: Settings, tmp_path: Path
) -> None:
    server.state.listed_only[f"bad/{name}"] = blob(server, "elsewhere", "1")
    with pytest.raises(UserError, match="has a path that no file here can have"):
        download(settings, f"{STORE}/bad")
    assert reads(server) == [] and not (tmp_path / "cache" / "azureml-debug" / "data").exists()


def test_no_permission_for_storage_is_told_with_the_role_that_is_missing(
    server: AzureMLServer, settings: Settings, tmp_path: Path
) -> None:
    blob(server, "in/x", "1")
    for pattern in (rf"GET /{DATASTORE}$", rf"GET /{DATASTORE}/in/x"):
        fault = server.faults.fail(pattern, 403)
        with pytest.raises(NotAllowed, match="no permission to read the datastore workspaceblobstore") as caught:
            download(settings, f"{STORE}/in")
        assert "Storage Blob Data Reader" in caught.value.remedy
        server.faults.remove(fault)
    assert files_in(download(settings, f"{STORE}/in").path) == {"x": "1"} and left(tmp_path) == []


def test_a_connection_that_is_cut_goes_on_where_it_was(
    server: AzureMLServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_download, "PART_BYTES", 100_000)
    content = os.urandom(350_000)
    blob(server, "in/large", content)
    fault = server.faults.cut(rf"GET /{DATASTORE}/in/large", times=3)
    got = download(settings, f"{STORE}/in")
    assert (got.path / "large").read_bytes() == content and fault.hit == 3
    # Four parts, and the rests of those that broke off.
    assert len(reads(server)) == 7


def test_what_has_come_before_it_was_given_up_is_not_read_again(
    server: AzureMLServer, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(container_download, "PART_BYTES", 100_000)
    monkeypatch.setattr(container_download, "WORKERS", 1)
    large = os.urandom(350_000)
    for name, content in (("a", b"small"), ("b large", large), ("c", b"last")):
        blob(server, f"in/{name}", content)
    server.faults.fail(rf"GET /{DATASTORE}/in/c", 403)
    with pytest.raises(NotAllowed):
        download(settings, f"{STORE}/in")
    assert len(left(tmp_path)) == 1 and not list((tmp_path / "cache" / "azureml-debug" / "data").glob("*/*/a"))
    server.faults.clear()
    # Of the large file one part is missing, as if somebody had pressed Ctrl-C.
    (part,) = (tmp_path / "cache" / "azureml-debug" / "data").rglob("*.part")
    (part / "files" / "b large").chmod(0o600)
    name = short_digest(["b large"])
    os.replace(part / "files" / "b large", part / "open" / name)
    (part / "open" / f"{name}.parts").write_text("0\n1\n3\n")
    before = len(reads(server))
    got = download(settings, f"{STORE}/in")
    assert (got.path / "b large").read_bytes() == large and (got.path / "c").read_text() == "last"
    assert reads(server)[before:] == ["in/b%20large", "in/c"] and left(tmp_path) == []


def test_a_part_of_what_lay_there_earlier_is_never_used(
    server: AzureMLServer, settings: Settings, tmp_path: Path
) -> None:
    blob(server, "in/a", "old")
    blob(server, "in/b", "old")
    server.faults.fail(rf"GET /{DATASTORE}/in/b", 403)
    with pytest.raises(NotAllowed):
        download(settings, f"{STORE}/in")
    server.faults.clear()
    blob(server, "in/a", "new")
    assert files_in(download(settings, f"{STORE}/in").path) == {"a": "new", "b": "old"} and left(tmp_path) == []


def test_a_file_that_changes_while_it_is_read_is_not_half_of_each(
    server: AzureMLServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(container_download, "PART_BYTES", 100)
    monkeypatch.setattr(container_download, "WORKERS", 1)
    path = blob(server, "in/x", "a" * 300)
    served = server.respond

    def changing(request: Any, authorization: str | None) -> Any:
        answer = served(request, authorization)
        if request.path.endswith("/in/x"):
            path.write_text("b" * 300)
        return answer

    monkeypatch.setattr(server, "respond", changing)
    with pytest.raises(UserError, match="has changed while it was read"):
        download(settings, f"{STORE}/in")


def test_a_disk_that_is_too_small_is_told_before_anything_is_read(
    server: AzureMLServer, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob(server, "in/x", "1")
    server.state.sizes["in/x"] = 1 << 43
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UserError, match=r"has 8\.8 TB, and there is room for") as caught:
        download(settings, f"{STORE}/in")
    assert "XDG_CACHE_HOME" in caught.value.remedy and reads(server) == []


def test_more_than_was_agreed_to_is_asked_about_and_without_a_terminal_refused(
    server: AzureMLServer, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blob(server, "in/x", b"1" * 1_500_000)
    small = resolve(tmp_path, environ={"AML_AUTH": OWN, "AML_DOWNLOAD_MB": "1"})
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        with pytest.raises(UserError, match=r"more than 1\.0 MB are not downloaded without asking") as caught:
            download(small, f"{STORE}/in")
    assert "--download-mb 2, or AML_DOWNLOAD_MB" in caught.value.remedy and reads(server) == []
    ours, theirs = pty.openpty()
    with os.fdopen(theirs) as stdin, os.fdopen(os.dup(theirs), "w") as stdout:
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        os.write(ours, b"n\n")
        with pytest.raises(UserError, match="was not downloaded"):
            download(small, f"{STORE}/in")
        assert reads(server) == []
        os.write(ours, b"y\n")
        got = download(small, f"{STORE}/in")
        shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "it has 1.5 MB" in shown and "[y/N]" in shown and (got.path / "x").stat().st_size == 1_500_000


def test_two_commands_that_want_the_same_fetch_it_once(server: AzureMLServer, settings: Settings) -> None:
    blob(server, "in/x", "1")
    blob(server, "in/y", "2")
    server.faults.slow(rf"GET /{DATASTORE}/in/", 1, times=2)
    found: list[DownloadedAsset] = []
    threads = [threading.Thread(target=lambda: found.append(download(settings, f"{STORE}/in"))) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(60)
    assert len({one.path for one in found}) == 1 and len(found) == 3
    assert sorted(reads(server)) == ["in/x", "in/y"]


def test_a_path_of_a_datastore_may_have_wildcards(server: AzureMLServer, settings: Settings) -> None:
    for name in ("2026/a.csv", "2026/b.txt", "2025/c.csv"):
        blob(server, f"in/{name}", name)
    assert set(files_in(download(settings, f"{STORE}/in/**/*.csv").path)) == {"2026/a.csv", "2025/c.csv"}


def test_names_are_told_apart() -> None:
    assert parse("azureml:x") == AssetName("x")
    assert parse("azureml:x@latest") == AssetName("x", label="latest") and str(parse("azureml:x@best")) == "x@best"
    found = parse("azureml://registries/r/models/m/versions/3")
    assert found == AssetName("m", "3", "", "models", "r") and str(found) == "m:3"
    assert parse("azureml://datastores/s/paths/p/") == DatastorePath("s", "p")
    for wrong in ("azureml:", "azureml:a:b:c", "azureml://registries/r/models/m/versions/3/x", "azureml:a/b"):
        with pytest.raises(UserError, match="is not the name of data"):
            parse(wrong)
