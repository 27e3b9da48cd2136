"""Images that a pipeline file names: an image by its name, or one that is built from a folder with a Dockerfile."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from .. import line_ends
from ..environments.locking import exclusive
from ..environments.pip_failures import is_disk_full
from ..errors import UserError
from ..ignore_files import read_patterns
from ..models import ImageRef
from ..paths import cache_folder
from . import docker_credentials
from .docker_build import run_build
from .docker_build_log import Log
from .docker_client import connect
from .docker_images import (
    DIGEST,
    ENVIRONMENT,
    KIND,
    PREFIX,
    SOURCE,
    connection_lost_error,
    engine_disk_full_error,
    inspect,
    pull,
)

if TYPE_CHECKING:
    import docker

    from ..pipelines.definition import EnvironmentReference

# Increased whenever the way such images are built changes.
_VERSION = "1"

# The engine's errors where it cannot reach a registry; a registry without such an image answers otherwise.
_UNREACHABLE = re.compile(
    r"no such host|dial tcp|connection refused|timeout|Timeout|unreachable|proxyconnect|Temporary failure|x509|TLS"
)


class ImageUnreachable(UserError):
    """An image is not in the engine, and its registry cannot be reached."""


def image_by_name(name: str, report: Callable[[str], None], *, file: Path, line: int) -> ImageRef:
    """An image by its name, pulled where the engine does not have it.

    Args:
        name: As in the pipeline file.
        report: Called with each line of progress.
        file: The file that names it, for errors.
        line: The line in that file.

    Raises:
        UserError: The engine does not have it, and it cannot be pulled.
    """
    from docker.errors import APIError, DockerException, ImageNotFound
    from requests.exceptions import RequestException

    with contextlib.closing(connect()) as client:
        try:
            with contextlib.suppress(ImageNotFound):
                return ImageRef("docker", _image_id(client, name), name, reused=True)
            report(f"pulling the image {name}")
            reason = pull(client, name, report)
            with contextlib.suppress(ImageNotFound):
                return ImageRef("docker", _image_id(client, name), name)
        except (APIError, DockerException) as error:
            reason = str(getattr(error, "explanation", None) or error)
        except RequestException as error:
            raise connection_lost_error(error) from error
    explained = docker_credentials.credential_helper_error(name, reason)
    if explained is not None:
        raise UserError(explained.problem, explained.remedy, file=file, line=line, details=explained.details)
    # The reason is at the end of the engine's chain of "Get …: dial …: lookup …".
    short = reason.strip().rstrip(".").rpartition(": ")[2] or "no reason given"
    kind = ImageUnreachable if _UNREACHABLE.search(reason) else UserError
    raise kind(
        f"The image {name} is not here and cannot be pulled: {short}.",
        "Pull or load it (`docker pull`, or `docker save` and `docker load`), or name another.",
        file=file,
        line=line,
        details=[reason.strip()] if reason else (),
    )


def find_image(reference: EnvironmentReference) -> ImageRef | None:
    """The image that a reference names, or that its context was built to; None where the engine does not have it.

    Raises:
        UserError: The context cannot be read.
    """
    from docker.errors import ImageNotFound

    with contextlib.closing(connect()) as client:
        if reference.build is not None:
            dockerfile = reference.dockerfile or "Dockerfile"
            try:
                digest = _digest(reference.build, dockerfile, _list_files(reference.build, dockerfile))
            except OSError as error:
                raise _unreadable(reference.build, error, reference.file, reference.line) from error
            return _find_built(client, digest, _image_name(reference.build, digest))
        assert reference.image is not None
        with contextlib.suppress(ImageNotFound):
            return ImageRef("docker", _image_id(client, reference.image), reference.image, reused=True)
    return None


def _image_id(client: docker.DockerClient, name: str) -> str:
    return str(inspect(client, name)["Id"]).removeprefix("sha256:")


def build_context_image(
    folder: Path, dockerfile: str, report: Callable[[str], None], *, file: Path, line: int
) -> ImageRef:
    """The image of a build context, built where the same content has not been built before.

    Args:
        folder: The context; its .dockerignore counts.
        dockerfile: The Dockerfile, relative to the context.
        report: Called with each line of progress.
        file: The file that names the context, for errors.
        line: The line in that file.

    Raises:
        UserError: It cannot be built. No image and no container of it is left.
    """
    from requests.exceptions import RequestException

    cache = cache_folder()
    try:
        with (
            contextlib.closing(connect()) as client,
            tempfile.TemporaryFile(prefix="azureml-debug-context-") as archive,
        ):
            files = _list_files(folder, dockerfile)
            digest = _digest(folder, dockerfile, files)
            name = _image_name(folder, digest)
            found = _find_built(client, digest, name)
            if found is not None:
                return found
            # One build at a time, as in docker_built_images: a failed build's leftovers are what was not there before.
            with exclusive(cache / "locks" / "images.lock", "an image", report):
                found = _find_built(client, digest, name)
                if found is not None:
                    return found
                _archive(folder, files, archive)
                labels = {KIND: "environment", DIGEST: digest, ENVIRONMENT: folder.name, SOURCE: "context"}
                _build(client, archive, dockerfile, name, labels, report, folder=folder, place=(file, line))
    except RequestException as error:
        raise connection_lost_error(error) from error
    except OSError as error:
        if is_disk_full(str(error)):
            raise engine_disk_full_error() from error
        raise _unreadable(folder, error, file, line) from error
    return ImageRef("docker", digest, name)


def _unreadable(folder: Path, error: OSError, file: Path, line: int) -> UserError:
    return UserError(
        f"The build context {folder} cannot be read: {error.strerror or error}.",
        "Make it readable, or list what is not needed in its .dockerignore.",
        file=file,
        line=line,
    )


def _image_name(folder: Path, digest: str) -> str:
    plain = re.sub(r"[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "context"
    return f"{PREFIX}/{plain}:{digest[:12]}"


def _find_built(client: docker.DockerClient, digest: str, name: str) -> ImageRef | None:
    from docker.errors import ImageNotFound

    with contextlib.suppress(ImageNotFound):
        inspect(client, name)
        return ImageRef("docker", digest, name, reused=True)
    return None


def _list_files(folder: Path, dockerfile: str) -> list[str]:
    """The relative names of the context's files and folders."""
    from docker.utils.build import exclude_paths

    patterns = [".git", ".azureml-debug"]
    ignore = folder / f"{dockerfile}.dockerignore"
    if not ignore.is_file():
        ignore = folder / ".dockerignore"
    if ignore.is_file():
        patterns += [text for text in map(str.strip, read_patterns(ignore)) if text and not text.startswith("#")]
    return sorted(exclude_paths(str(folder), patterns, dockerfile=dockerfile))


def _digest(folder: Path, dockerfile: str, files: list[str]) -> str:
    total = hashlib.sha256()

    def feed(part: bytes) -> None:
        # With the length in front, ("ab", "c") and ("a", "bc") differ.
        total.update(b"%d:" % len(part))
        total.update(part)

    feed(_VERSION.encode())
    feed(os.fsencode(dockerfile))
    for name in files:
        path = folder / name
        mode = path.lstat().st_mode
        feed(os.fsencode(name))
        feed(b"%o" % (stat.S_IFMT(mode) | (mode & 0o111)))
        if stat.S_ISLNK(mode):
            feed(os.fsencode(os.readlink(path)))
        elif stat.S_ISREG(mode):
            with path.open("rb") as file:
                feed(hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else file.read())
    return total.hexdigest()


def _archive(folder: Path, files: list[str], target: IO[bytes]) -> None:
    from docker.utils.build import create_archive

    # The docker command recognizes an archive by its first header, which must not be an extended one (for times).
    first = tarfile.TarInfo(".")
    first.type, first.mode = tarfile.DIRTYPE, 0o755
    target.write(first.tobuf(tarfile.GNU_FORMAT))
    create_archive(root=str(folder), files=files, fileobj=target)


def _build(
    client: docker.DockerClient,
    context: IO[bytes],
    dockerfile: str,
    name: str,
    labels: Mapping[str, str],
    report: Callable[[str], None],
    *,
    folder: Path,
    place: tuple[Path, int],
) -> None:
    path = folder / dockerfile
    log, failure = run_build(client, context, name, labels, report, path=path, dockerfile=dockerfile)
    if not failure:
        return
    if log.disk_full(failure):
        raise engine_disk_full_error()
    explained = docker_credentials.credential_helper_error(log.image, failure) if log.image else None
    if explained is not None:
        raise UserError(explained.problem, explained.remedy, file=place[0], line=place[1], details=explained.details)
    remedy = f"Correct {folder / dockerfile}, then run the same command again."
    if log.instruction == "RUN" and (script := _windows_script(folder, dockerfile, log)):
        remedy = f"{script} has Windows line ends (CRLF): save it with LF (`sed -i 's/\\r$//' {script}`), then again."
    raise UserError(
        f"Building the image of {folder} failed at `{log.step}`: {failure.rstrip('.')}.",
        remedy,
        file=place[0],
        line=place[1],
        details=log.shown,
    )


def _windows_script(folder: Path, dockerfile: str, log: Log) -> Path | None:
    """A script with Windows line ends that the failed instruction or its output names."""
    output = "\n".join([log.rest, *log.shown])
    for name in _list_files(folder, dockerfile):
        path = folder / name
        with contextlib.suppress(OSError):
            if path.name in output and path.is_file() and line_ends.has_windows_ends(path):
                return path
    return None
