"""Why a registry refused, where config.json names a credential helper that could not be asked."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ..errors import UserError
from ..redaction import scrub
from . import docker_address

_HUB = "https://index.docker.io/v1/"
_REFUSED = re.compile(
    r"unauthorized|access denied|denied|authentication required|no basic auth|\b40[13]\b|error getting credentials",
    re.IGNORECASE,
)
_PATIENCE = 20.0


def is_refusal(reason: str) -> bool:
    """Whether what the engine says is a registry's refusal, rather than any other failure."""
    return _REFUSED.search(reason) is not None


def credential_helper_error(image: str, reason: str) -> UserError | None:
    """The error for an image that was refused since its registry's credential helper gives nothing.

    Args:
        image: The image's name.
        reason: What the engine said.

    Returns:
        None where the refusal has another cause.
    """
    if not is_refusal(reason):
        return None
    host = registry_of(image)
    setting, helper = find_helper(host)
    if not helper:
        return None
    program = f"docker-credential-{helper}"
    path = shutil.which(program)
    file = docker_address.config_folder() / "config.json"
    if path is None:
        why, mend = "is not installed", f"Install {program}"
    else:
        said = _asked(path, host)
        if said is None:
            return None
        why, mend = f"fails: {said}", f"Mend {program}"
    return UserError(
        f"The image {image} cannot be pulled: its registry wants a login, and the credential helper {program}, "
        f"which {file} names, {why}.",
        f"{mend}, or take it out of `{setting}` in {file} and run `docker login{'' if host == _HUB else ' ' + host}`.",
        details=[scrub(reason.strip())],
    )


def registry_of(image: str) -> str:
    """The registry of an image's name, as config.json names it."""
    first, slash, _rest = image.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first if is_host and first not in ("docker.io", "index.docker.io") else _HUB


def find_helper(host: str) -> tuple[str, str]:
    """The setting in config.json that names a registry's credential helper, and the helper; empty for none."""
    found = docker_address.read_config()
    helpers = found.get("credHelpers")
    own = helpers.get(host) if isinstance(helpers, dict) else None
    if own:
        return "credHelpers", str(own)
    return "credsStore", str(found.get("credsStore") or "")


def _asked(program: str, host: str) -> str | None:
    """Why a helper gives nothing for a registry; None where it works, be it that it has nothing."""
    try:
        done = subprocess.run(
            [program, "get"], input=host, capture_output=True, text=True, timeout=_PATIENCE, errors="replace"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return scrub(str(getattr(error, "strerror", None) or error))
    # A helper says on its standard output why it has none.
    if done.returncode == 0 or "credentials not found" in done.stdout:
        return None
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return scrub(lines[0] if lines else f"it ends with {done.returncode}").rstrip(".")


@contextlib.contextmanager
def usable_config() -> Iterator[dict[str, str]]:
    """Variables for the docker command, whose BuildKit asks a helper that is not installed, and then fails.

    With such a helper in config.json it gets a folder like the person's, without that helper.
    """
    found, folder = docker_address.read_config(), docker_address.config_folder()
    helpers = found.get("credHelpers")
    helpers = helpers if isinstance(helpers, dict) else {}
    kept = {host: helper for host, helper in helpers.items() if _is_installed(helper)}
    store = found.get("credsStore")
    if len(kept) == len(helpers) and (not store or _is_installed(store)):
        yield {}
        return
    changed = {**found, "credHelpers": kept}
    if not _is_installed(store):
        changed.pop("credsStore", None)
    # mkdtemp's folder is the owner's alone: config.json may have logins in it.
    with tempfile.TemporaryDirectory(prefix="azureml-debug-docker-") as copy:
        for path in folder.iterdir():
            if path.name != "config.json":
                Path(copy, path.name).symlink_to(path.absolute())
        Path(copy, "config.json").write_text(json.dumps(changed), "utf-8")
        yield {"DOCKER_CONFIG": copy}


def _is_installed(helper: object) -> bool:
    return shutil.which(f"docker-credential-{helper}") is not None
