"""Credential helpers in Docker's config.json that are missing or fail, so that a registry refuses a pull."""

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
_TIMEOUT = 20.0


def is_refusal(reason: str) -> bool:
    """Whether an engine's message is a registry's refusal, rather than any other failure."""
    return _REFUSED.search(reason) is not None


def credential_helper_error(image: str, reason: str) -> UserError | None:
    """The error for an image that a registry refused because its credential helper is missing or fails.

    Args:
        image: The image's name.
        reason: The engine's message.

    Returns:
        The error; None where the refusal has another cause.
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
        state, remedy = "is not installed", f"Install {program}"
    else:
        failure = _helper_failure(path, host)
        if failure is None:
            return None
        state, remedy = f"fails: {failure}", f"Mend {program}"
    target = "" if host == _HUB else f" {host}"
    return UserError(
        f"The image {image} cannot be pulled: its registry wants a login, and the credential helper {program}, "
        f"which {file} names, {state}.",
        f"{remedy}, or take it out of `{setting}` in {file} and run `docker login{target}`.",
        details=[scrub(reason.strip())],
    )


def registry_of(image: str) -> str:
    """The registry in an image's name, spelled as in config.json."""
    first, slash, _rest = image.partition("/")
    is_host = bool(slash) and ("." in first or ":" in first or first == "localhost")
    return first if is_host and first not in ("docker.io", "index.docker.io") else _HUB


def find_helper(host: str) -> tuple[str, str]:
    """The setting in config.json that names a registry's credential helper, and the helper; empty where none does."""
    found = docker_address.read_config()
    helpers = found.get("credHelpers")
    own = helpers.get(host) if isinstance(helpers, dict) else None
    if own:
        return "credHelpers", str(own)
    return "credsStore", str(found.get("credsStore") or "")


def _helper_failure(program: str, host: str) -> str | None:
    """Why a helper fails for a registry; None where it works, even if it has no credentials."""
    try:
        done = subprocess.run(
            [program, "get"], input=host, capture_output=True, text=True, timeout=_TIMEOUT, errors="replace"
        )
    except (OSError, subprocess.SubprocessError) as error:
        return scrub(str(getattr(error, "strerror", None) or error))
    # A helper without credentials says so on its standard output.
    if done.returncode == 0 or "credentials not found" in done.stdout:
        return None
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return scrub(lines[0] if lines else f"it ends with {done.returncode}").rstrip(".")


@contextlib.contextmanager
def usable_config() -> Iterator[dict[str, str]]:
    """Variables for the docker command, so that BuildKit does not fail over a helper that is not installed.

    Where config.json names such a helper, ``DOCKER_CONFIG`` is a temporary copy of the user's folder without it.
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
    # Only the owner can read a folder of mkdtemp's: config.json may have logins in it.
    with tempfile.TemporaryDirectory(prefix="azureml-debug-docker-") as copy:
        for path in folder.iterdir():
            if path.name != "config.json":
                Path(copy, path.name).symlink_to(path.absolute())
        Path(copy, "config.json").write_text(json.dumps(changed), "utf-8")
        yield {"DOCKER_CONFIG": copy}


def _is_installed(helper: object) -> bool:
    return shutil.which(f"docker-credential-{helper}") is not None
