"""Finds the deployment of an endpoint whose file was named instead of a deployment's.

An endpoint's file does not say what serves. Its deployments are in files beside it or, in files of the preview, in the
endpoint's file under ``deployments``.
"""

from __future__ import annotations

from pathlib import Path

from ..assets import kinds
from ..assets.kinds import Kind
from ..errors import UserError
from ..paths import shown
from ..pipelines.local_paths import local_path
from ..pipelines.yaml_file import Value, listed, read_yaml, refuse

#: The kind of a deployment of each kind of endpoint, and what is typed to debug one.
_DEPLOYMENTS = {
    kinds.ONLINE_ENDPOINT: (kinds.ONLINE_DEPLOYMENT, "inv deploy.debug --deployment {}"),
    kinds.BATCH_ENDPOINT: (kinds.BATCH_DEPLOYMENT, "inv deploy.debug --deployment {} --data FOLDER"),
}


def find_deployment(root: Value) -> tuple[Value, str]:
    """The deployment of an endpoint, where its file is named instead of a deployment's.

    Args:
        root: The file's mapping.

    Returns:
        The deployment's mapping and a note; for any other file its own mapping and an empty note.

    Raises:
        UserError: There is no deployment of it here, or there are several; with the command for each.
    """
    kind = kinds.kind_of(root)
    if kind not in _DEPLOYMENTS or root.file is None:
        return root, ""
    wanted, typed = _DEPLOYMENTS[kind]
    named = root.get("name")
    name = str(named.data) if named is not None else ""
    found = _read_listed(root, wanted, name) or _find_beside(root.file, wanted, name)
    called = f"{root.file.name} is {kind.with_article}"
    if len(found) == 1:
        only = found[0]
        place = "which is in it" if only.file == root.file else f"in {shown(only.file)}" if only.file else ""
        return only, f"{called}; its deployment is `{_name(only)}`, {place}"
    if not found:
        others = [str(shown(one.file)) for one in _find_beside(root.file, wanted, "") if one.file is not None]
        remedy = f"Name the file of one: {'; '.join(typed.format(file) for file in others or ['FILE'])}"
        of_others = f" (of other endpoints: {listed(others)})" if others else ""
        raise refuse(root, f"{called}, and no file beside it is a deployment of {name or 'it'}{of_others}.", remedy)
    files = list(dict.fromkeys(str(shown(one.file)) for one in found if one.file is not None and one.file != root.file))
    inside = [_name(one) for one in found if one.file == root.file]
    problem = f"{called} with {len(found)} deployments{f': {listed(inside)}' if inside else ''}."
    if inside:
        raise refuse(root, problem, "Put the one that is meant into a file of its own, and name that.")
    raise refuse(root, problem, f"Name one of them: {'; '.join(typed.format(file) for file in files)}")


def _name(deployment: Value) -> str:
    named = deployment.get("name")
    return str(named.data) if named is not None else deployment.file.name if deployment.file is not None else ""


def _read_listed(root: Value, wanted: Kind, endpoint: str) -> list[Value]:
    """The deployments under ``deployments`` of an endpoint's file: mappings, or names of files."""
    entries = root.get("deployments")
    if entries is None:
        return []
    if entries.is_mapping:
        pairs = list(entries.data.items())
    elif isinstance(entries.data, list):
        pairs = [("", one) for one in entries.data]
    else:
        raise refuse(entries, "`deployments` is a list of deployments.", "Write one under it, or take it away.")
    found = []
    for key, entry in pairs:
        if isinstance(entry.data, str):
            file = local_path(entry, entry.data.removeprefix("file:").strip())
            entry = read_yaml(file, "deployment file", entry)
            if kinds.kind_of(entry) is not wanted:
                raise kinds.wrong_kind(entry, f"a deployment of {endpoint or 'this endpoint'}")
        elif entry.is_mapping:
            own = {
                "name": Value(key, entry.file, entry.line) if key else None,
                "endpoint_name": Value(endpoint, entry.file, entry.line) if endpoint else None,
            }
            entry = Value(
                {**{name: value for name, value in own.items() if value is not None}, **entry.data},
                entry.file,
                entry.line,
                entry.column,
            )
        else:
            raise refuse(entry, "A deployment is a mapping, or the name of a file.", "Correct that line.")
        found.append(entry)
    return found


def _find_beside(file: Path, wanted: Kind, endpoint: str) -> list[Value]:
    """The deployments in an endpoint's folder that name it, or that name no endpoint."""
    found = []
    for one in sorted(path for path in file.parent.iterdir() if path.suffix.lower() in kinds.SUFFIXES and path != file):
        try:
            root = read_yaml(one, "file")
        except UserError:
            continue
        named = root.get("endpoint_name")
        if kinds.kind_of(root) is wanted and (named is None or not endpoint or str(named.data) == endpoint):
            found.append(root)
    return found
