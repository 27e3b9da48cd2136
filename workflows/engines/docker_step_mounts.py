"""The paths and mounts in a step's container."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..environments import local_packages
from ..errors import UserError
from .docker_custom_containers import ANNOUNCE_ROOT, DEBUGGEE_ROOT, DEBUGPY_ROOT
from .links import Links, find_outward_links, is_below
from .steps import StepSpec
from .work_folder import include_roots, input_file_name

ROOT = "/mnt/azureml"
CODE, WORK, RUN, TRACKED = f"{ROOT}/code", f"{ROOT}/work", f"{ROOT}/run", f"{ROOT}/mlflow"
#: Folders of a step's container at which targets of links are not mounted.
_OWN = (CODE, WORK, RUN, TRACKED, f"{ROOT}/outputs", DEBUGPY_ROOT, DEBUGGEE_ROOT, ANNOUNCE_ROOT)


def code_mounts(spec: StepSpec) -> list[tuple[Path, str]]:
    """The folders of the code and of the additional includes, and where they are mounted."""
    code = [(spec.code_root, CODE)] if spec.code_root is not None else []
    return [*code, *((root, f"{ROOT}/includes/{number}") for number, root in enumerate(include_roots(spec)))]


def code_links(spec: StepSpec) -> Links:
    """The targets of links in the code and in the additional includes that lead out of these folders."""
    return find_outward_links(code_mounts(spec), _OWN)


def live_packages(spec: StepSpec) -> dict[str, str]:
    """Where the folders of editable packages are mounted: their paths in the container, and here.

    Raises:
        UserError: A folder is gone.
    """
    try:
        return local_packages.mount_places(spec.image.live, spec.code_root)
    except FileNotFoundError as error:
        raise UserError(
            f"The package folder {error}, which the step {spec.step} runs, is gone.",
            "Correct the environment's requirements.txt or conda.yml, then run the same command again.",
        ) from error


def is_in_code(spec: StepSpec, folder: str) -> bool:
    """Whether a folder is inside the folder of the step's code."""
    return spec.code_root is not None and spec.code_root in Path(folder).parents


def input_path(name: str, path: Path) -> str:
    """The path of an input in the container."""
    folder = f"{ROOT}/inputs/{name}"
    return folder if path.is_dir() else f"{folder}/{input_file_name(path)}"


def step_mounts(spec: StepSpec) -> list[Any]:
    """All mounts of the step's own files and folders."""
    places: list[tuple[str, Path, bool]] = [
        (WORK, spec.folder / "work", False),
        (f"{RUN}/azureml-logs", spec.folder / "azureml-logs", False),
        (ANNOUNCE_ROOT, spec.folder / "announce", False),
    ]
    places += [(seen, root, False) for root, seen in code_mounts(spec)]
    places += [(input_path(name, path), path, True) for name, path in spec.inputs.items()]
    for name, (path, is_file) in spec.outputs.items():
        places.append((f"{ROOT}/outputs/{name}", path.parent if is_file else path, False))
    code = code_links(spec).places
    places += [(target, Path(local), False) for target, local in code.items()]
    folders = [(path, input_path(name, path)) for name, path in spec.inputs.items() if path.is_dir()]
    data = find_outward_links([*code_mounts(spec), *folders], _OWN).places if folders else {}
    places += [(target, Path(local), True) for target, local in data.items() if not is_below(target, code)]
    places += [(target, Path(local), True) for target, local in live_packages(spec).items()]
    return [bind_mount(target, str(source), read_only) for target, source, read_only in places]


def bind_mount(target: str, source: str, read_only: bool) -> dict[str, Any]:
    """A mount in the form of the engine's API."""
    # A mount of this type refuses a missing source; `Binds` would create a folder instead.
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
