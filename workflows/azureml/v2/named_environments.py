"""Finds environments by name in a workspace or a registry, and returns definitions that can be built here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...console import Console
from ...errors import UserError
from ...pipelines.definition import EnvironmentReference
from ...private import make_folder
from ...project import read_json, write_json
from ...received import image_name, one_line, relative_path, sent_by, text
from ...settings import Settings
from ..data_references import ENVIRONMENTS, AssetName, parse
from ..downloads import downloads_folder, short_digest
from ..errors import NotFound, Report
from ..workspace import find_workspace
from .assets import Asset, Assets

#: ``NAME``, ``NAME:VERSION`` and ``NAME@latest`` without a prefix, as curated environments are often named.
_BARE = re.compile(r"[A-Za-z0-9][\w.-]*(?:[:@][\w.-]+)?", re.ASCII)
_CONDA_BYTES = 1 << 20


def find_definition(reference: EnvironmentReference, settings: Settings, report: Report) -> EnvironmentReference:
    """The definition of a named environment.

    Args:
        reference: The name.
        settings: Which workspace, and who signs in.
        report: Called with what is being waited for.

    Raises:
        NotFound: There is none of that name.
        UserError: It cannot be read, or is of a kind that cannot be built here.
    """
    named = _named(str(reference.name))
    own = find_workspace(settings)
    # A version never changes, so it is cached; the latest version may change.
    place = [own.subscription_id, own.resource_group, own.workspace, named.registry, named.name]
    known = downloads_folder().parent / "environments-by-name" / f"{short_digest([*place, named.version])}.json"
    kept = read_json(known) if named.version else None
    if kept is not None and isinstance(kept.get("properties"), dict):
        found = _defined(kept["properties"], str(kept.get("context") or ""), reference)
        if found is not None:
            return found
    assets = Assets(settings, report)
    asset = assets.find(named)
    with sent_by(assets.description_of_source(named)):
        properties = _needed(asset)
    context = str(_context(properties["context"], asset, assets, settings)) if properties["context"] else ""
    known = known.with_name(f"{short_digest([*place, asset.named.version])}.json")
    make_folder(known.parent)
    write_json(known, {"properties": properties, "context": context})
    with sent_by(assets.description_of_source(named)):
        found = _defined(properties, context, reference)
    if found is None:
        raise UserError(f"The environment {asset.named} has neither an image nor a build context.", "Name another one.")
    return found


def _named(text_: str) -> AssetName:
    """The environment that a text names.

    Raises:
        NotFound: It is not the name of an environment.
    """
    text_ = text_.strip()
    if _BARE.fullmatch(text_):
        text_ = f"azureml:{text_}"
    try:
        found = parse(text_, ENVIRONMENTS)
    except UserError as error:
        raise UserError(f"{text_} is not the name of an environment.", "Write azureml:NAME:VERSION.") from error
    if not isinstance(found, AssetName) or found.collection != ENVIRONMENTS:
        raise NotFound(f"{text_} is not the name of an environment.", "Write azureml:NAME:VERSION.")
    return found


def _needed(asset: Asset) -> dict[str, str]:
    """The properties of an environment that are needed here, checked."""
    build = asset.properties.get("build")
    description: Mapping[str, Any] = build if isinstance(build, dict) else {}
    image = asset.properties.get("image")
    return {
        "image": image_name(image, "the name of an image") if image else "",
        "conda": text(asset.properties.get("condaFile") or "", "a conda file", _CONDA_BYTES),
        "context": one_line(description.get("contextUri") or "", "an address", 8192),
        "dockerfile": relative_path(description.get("dockerfilePath") or "Dockerfile", "a Dockerfile's path"),
    }


def _defined(
    properties: Mapping[str, str], context: str, reference: EnvironmentReference
) -> EnvironmentReference | None:
    """The definition; None where there is nothing to build, or its build context is gone."""
    if properties["context"]:
        dockerfile = Path(context, properties["dockerfile"])
        if not context or not dockerfile.is_file():
            return None
        return replace(reference, name=None, build=Path(context), dockerfile=properties["dockerfile"])
    conda = _conda(properties["conda"]) if properties["conda"].strip() else None
    if not properties["image"] and conda is None:
        return None
    return replace(reference, name=None, image=properties["image"] or None, conda=conda)


def _conda(content: str) -> Mapping[str, Any]:
    import yaml

    from ...received import Refused
    from ...redaction import keep_conda_variables

    try:
        found = yaml.safe_load(content)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise Refused("a conda file that is not YAML") from error
    if not isinstance(found, dict):
        raise Refused("a conda file that is not a mapping")
    keep_conda_variables(found)
    return found


def _context(uri: str, asset: Asset, assets: Assets, settings: Settings) -> Path:
    """Download a build context; returns its folder."""
    from .asset_downloads import AssetDownloader

    console = Console(as_json=True)
    with console.step("environment") as step:
        got = AssetDownloader(settings, console, step, assets).download_address(
            uri, asset, f"the build context of {asset.named}"
        )
        step.text = f"the build context of {asset.named}"
    return got.path
