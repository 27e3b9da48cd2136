"""Cold builds of the example's environment, compared with `docker build` and `pip install` of the same packages.

Cold means that each build starts with empty caches, on this machine and in the engine, and with an idle disk. What is
built stays until all rounds are over: for up to five minutes after files have been deleted, ext4 skips their inodes
when it creates a file (`recently_deleted` in the kernel's fs/ext4/ialloc.c), which would slow down the next build. For
the same reason, measure on a disk on which nothing has been deleted for five minutes. All of it takes a quarter of an
hour.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import sys
import tempfile
from pathlib import Path

from workflows.errors import UserError

from .harness import INV, ROOT, Bench, docker, new_project
from .measure import run, seconds, wait_for_idle_disk

TIMES = 10
#: The most seconds for one build; reached only if something is broken.
LIMIT = 900
WHAT = "cold build of the example's environment"
DOCKERFILE = """\
FROM {base}
# Nothing of an earlier round is taken from the engine's cache.
ENV BENCH_ROUND={round} PIP_CERT=/tmp/certificates.pem PIP_CONSTRAINT=/tmp/constraints.txt
ARG PIP_INDEX_URL
COPY certificates.pem constraints.txt requirements.txt /tmp/
RUN python3 -m venv /opt/env && /opt/env/bin/pip install --no-cache-dir -r /tmp/requirements.txt
"""


def main(bench: Bench) -> None:
    """Measure builds with and without Docker."""
    with tempfile.TemporaryDirectory(prefix="azureml-debug-bench-") as name:
        builds = Builds(Path(name), ROOT / "env/inference/requirements.txt", bench.quick)
        with bench.part("environments without Docker"):
            found = bench.measure(TIMES, ours=builds.without_docker, pip=builds.pip)
            bench.ratio(f"{WHAT}, without Docker", "python -m venv and pip install", found, 0.25, theirs="pip")
        with bench.part("environments in Docker"):
            docker()
            try:
                found = bench.measure(TIMES, ours=builds.in_docker, docker=builds.docker_build)
            finally:
                builds.remove_images()
            bench.ratio(f"{WHAT}, in Docker", "docker build of the same packages", found, 1.0, theirs="docker")


class Builds:
    """The builds that are compared. Images are removed by `remove_images`, everything else with the folder.

    Args:
        folder: The folder for builds and caches.
        requirements: The file with the packages that are installed.
        quick: Whether to install only one small package.
    """

    def __init__(self, folder: Path, requirements: Path, quick: bool) -> None:
        self._folder = folder
        self._round = 0
        self._images: list[str] = []
        self._project = new_project(folder / "project")
        self._definition = self._project / "env"
        shutil.copytree(ROOT / "env/inference", self._definition)
        text = "debugpy\n" if quick else requirements.read_text()
        (self._definition / "requirements.txt").write_text(text)
        self._dockerfile = (self._definition / "Dockerfile").read_text()
        self._environ = {"AML_INFERENCE_ENV": "env", "AML_SCORE_SCRIPT": str(ROOT / "examples/deployment/score.py")}

    def _empty(self) -> Path:
        """A new folder for the caches of one build."""
        self._round += 1
        folder = self._folder / f"cache-{self._round}"
        folder.mkdir()
        return folder

    def without_docker(self) -> float:
        """Time `deploy.build` without Docker."""
        cache = self._empty()
        environ = {**self._environ, **_caches(cache), "AML_ENGINE": "process"}
        wait_for_idle_disk()
        return seconds(lambda: run([*INV, "deploy.build"], self._project, environ, timeout=LIMIT))

    def pip(self) -> float:
        """Time the creation of a virtual environment and `pip install` in it."""
        folder = self._empty() / "env"

        def build() -> None:
            run([sys.executable, "-m", "venv", str(folder)], self._folder)
            install = [str(folder / "bin/python"), "-m", "pip", "install", "-q", "--no-cache-dir", "-r"]
            run([*install, str(self._definition / "requirements.txt")], self._folder, timeout=LIMIT)

        wait_for_idle_disk()
        return seconds(build)

    def in_docker(self) -> float:
        """Time `deploy.build` of an image."""
        cache = self._empty()
        fresh = [
            line + (f"\nENV BENCH_ROUND={os.getpid()}.{self._round}" if line.startswith("FROM ") else "")
            for line in self._dockerfile.splitlines()
        ]
        (self._definition / "Dockerfile").write_text("\n".join(fresh) + "\n")
        environ = {**self._environ, **_caches(cache), "AML_ENGINE": "docker"}
        output: list[str] = []
        wait_for_idle_disk()
        took = seconds(lambda: output.append(run([*INV, "deploy.build"], self._project, environ, timeout=LIMIT)))
        built = re.search(r"(\S+) \(built\)", output[0])
        if built is None:
            raise UserError("Nothing was built.", "Its last lines are above.", details=output[0].splitlines()[-20:])
        self._images.append(built.group(1))
        return took

    def docker_build(self) -> float:
        """Time `docker build` of an ordinary Dockerfile on the same base image."""
        from workflows.engines.docker_client import connect
        from workflows.engines.docker_images import resolve_base_image

        folder = self._empty()
        constraints = os.environ.get("PIP_CONSTRAINT")
        (folder / "constraints.txt").write_text(Path(constraints).read_text() if constraints else "")
        shutil.copy(self._definition / "requirements.txt", folder)
        shutil.copy(ssl.get_default_verify_paths().cafile or ssl.get_default_verify_paths().openssl_cafile,
                    folder / "certificates.pem")  # fmt: skip
        base = resolve_base_image(connect(), None)
        number = f"{os.getpid()}.{self._round}"
        (folder / "Dockerfile").write_text(DOCKERFILE.format(base=base, round=number))
        tag = f"azureml-debug-bench-plain:{number}"
        build = ["docker", "build", "-q", "--build-arg", "PIP_INDEX_URL", "-t", tag, "."]
        wait_for_idle_disk()
        took = seconds(lambda: run(build, folder, timeout=LIMIT))
        self._images.append(tag)
        return took

    def remove_images(self) -> None:
        """Remove the images that were built."""
        if self._images:
            run(["docker", "rmi", *self._images], self._folder)


def _caches(folder: Path) -> dict[str, str]:
    """The environment variables that put the caches of this program, pip and uv into a folder."""
    return {"XDG_CACHE_HOME": str(folder), "PIP_CACHE_DIR": str(folder / "pip"), "UV_CACHE_DIR": str(folder / "uv")}
