"""pip in an image whose Python is not the host's has the person's settings, and leaves none of their secrets there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import missing
from image_builds import OwnImages
from packages import Index, serving, wheel
from projects import ROOT

from workflows.engines import docker_built_images, docker_images
from workflows.environments.definition import load_definition
from workflows.errors import UserError
from workflows.models import ImageRef

#: Stands in for conda, which cannot be had here: it makes an environment that has pip, which is what is tried. All have
#: the same pip: to install and compile one takes longer than all else in a build.
CONDA_IMAGE = """\
FROM {base}
RUN mkdir -p /opt/conda/bin && python3 -m venv /opt/conda/made && printf '%s\\n' '#!/bin/sh' \\
    'while [ "$1" != --prefix ]; do shift; done' 'python3 -m venv --without-pip "$2"' \\
    'echo /opt/conda/made/lib/python3*/site-packages >"$(echo "$2"/lib/python3*/site-packages)/pip.pth"' \\
    >/opt/conda/bin/conda && chmod 755 /opt/conda/bin/conda
"""
ANSWER = "/opt/env/bin/python -c 'import ours; print(ours.answer)'"


@dataclass
class Images:
    """Builds images, and looks for what must not be in them."""

    own: OwnImages
    folder: Path
    base: str
    secret: str = field(default_factory=lambda: secrets.token_hex(12))
    lines: list[str] = field(default_factory=list)

    def build(self, requirements: str = "ours\n", dockerfile: str = "") -> ImageRef:
        folder = self.folder / "own-settings"
        folder.mkdir(exist_ok=True)
        (folder / "requirements.txt").write_text(requirements)
        if dockerfile:
            (folder / "Dockerfile").write_text(dockerfile)
        definition = load_definition(folder, default_dockerfile=ROOT / "env" / "training" / "Dockerfile")
        return docker_built_images.build_image(
            self.own.client, definition, self.base, self.folder / "cache", self.lines.append
        )

    def check(self, image: ImageRef) -> None:
        """It is installed, and the secret is in no layer, not in the history, and was not shown."""
        assert self.own.run(image.name, ANSWER) == "42\n"
        told = subprocess.run(["docker", "history", "--no-trunc", image.name], capture_output=True, check=True).stdout
        for text in (told, str(docker_images.inspect(self.own.client, image.name)).encode(), *self.layers(image.name)):
            assert self.secret.encode() not in text
        assert self.secret not in "\n".join(self.lines)

    def layers(self, image: str) -> Iterator[bytes]:
        """What is in the layers above the base image, also in those that later ones hide."""
        base = self._folders(self.base)
        above = [folder for folder in self._folders(image) if folder not in base]
        if not above or not all(folder.is_dir() for folder in above):
            # The engine keeps them elsewhere, or in another way.
            yield b"".join(self.own.client.api.get_image(image))
        for folder in above:
            yield from (path.read_bytes() for path in folder.rglob("*") if path.is_file() and not path.is_symlink())

    def _folders(self, image: str) -> list[Path]:
        data = docker_images.inspect(self.own.client, image)["GraphDriver"]["Data"] or {}
        return [Path(name) for key in ("UpperDir", "LowerDir") for name in data.get(key, "").split(":") if name]


@pytest.fixture(scope="session")
def conda(images_of_this_process: OwnImages) -> Iterator[str]:
    """The base image with what stands in for conda."""
    client, base = images_of_this_process.client, images_of_this_process.base
    name = base.replace(":", "-conda:")
    client.images.build(fileobj=io.BytesIO(CONDA_IMAGE.replace("{base}", base).encode()), tag=name, rm=True)
    yield name
    client.api.remove_image(name, force=True)


@pytest.fixture
def images(own: OwnImages, conda: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Images]:
    home = tmp_path / "home"
    home.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_") or name.upper().endswith("_PROXY")]:
        monkeypatch.delenv(name)
    for name in ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Those of this machine are not the test's.
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path / "none"))
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("HOME", str(home))
    (tmp_path / "pip.conf").write_text("")
    known = own.names()
    yield Images(own, tmp_path, conda)
    own.remove_environments()
    assert own.names() == known


@pytest.fixture
def index(images: Images) -> Iterator[Index]:
    """An index on this machine that asks for a password."""
    wheel(images.folder / "wheels", "ours")
    with serving(images.folder / "wheels", f"me:{images.secret}") as found:
        yield found


# That a variable says the same as a file is tried in tests/unit/test_environment_settings.py.
def test_indexes_whose_passwords_are_in_a_file_in_netrc_and_in_the_requirements(
    images: Images, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    password = f"me:{images.secret}"
    with contextlib.ExitStack() as stack:
        of_netrc, of_requirements = (
            stack.enter_context(serving(wheel(images.folder / name, name).parent, password))
            for name in ("more", "most")
        )
        # Passwords in .netrc are for a machine, with any of its ports.
        without = of_netrc.address().replace("127.0.0.1", "localhost")
        settings = f"[global]\nindex-url = {index.address(password)}\nextra-index-url = {without}\n"
        (images.folder / "pip.conf").write_text(settings)
        (images.folder / "home" / ".netrc").write_text(f"machine localhost login me password {images.secret}\n")
        monkeypatch.setenv("OUR_TOKEN", images.secret)
        line = f"--extra-index-url http://me:${{OUR_TOKEN}}@127.0.0.1:{of_requirements.port}/simple"
        image = images.build(f"{line}\nours\nmore\nmost\n")
    images.check(image)
    assert images.own.run(image.name, "/opt/env/bin/python -c 'import more, most; print(most.answer)'") == "42\n"
    assert all(password in one.seen for one in (index, of_netrc, of_requirements))


@pytest.mark.parametrize("setting", ["PIP_CERT", "REQUESTS_CA_BUNDLE"])
def test_the_certificates(images: Images, setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        missing("openssl is not installed")
    certificate, key = images.folder / "certificate.pem", images.folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    more = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command, *more], check=True, capture_output=True)
    both = images.folder / "both.pem"
    both.write_text(key.read_text() + certificate.read_text())
    # As large as those of systems are: longer than a variable may be.
    certificate.write_text("# a comment of some length that stands in such files\n" * 5000 + certificate.read_text())
    wheel(images.folder / "wheels", "ours")
    with serving(images.folder / "wheels", certificate=both) as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.address().replace("http:", "https:"))
        monkeypatch.setenv("PIP_RETRIES", "0")
        if setting == "PIP_CERT":
            with pytest.raises(UserError, match="could not reach the package index") as refused:
                images.build()
            assert "index-url" in refused.value.remedy
        monkeypatch.setenv(setting, str(certificate))
        images.check(images.build())


def test_the_proxy_with_its_password(images: Images, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://packages.invalid/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "packages.invalid")
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{images.secret}@127.0.0.1:{index.port}")
    images.check(images.build())
    assert f"me:{images.secret}" in index.seen


def test_folders_of_packages_and_constraints(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("1.0", "2.0"):
        wheel(images.folder / "some wheels", "ours", version)
    (images.folder / "constraints.txt").write_text("ours<2\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", (images.folder / "some wheels").as_uri())
    monkeypatch.setenv("PIP_CONSTRAINT", str(images.folder / "constraints.txt"))
    image = images.build()
    images.check(image)
    assert images.own.run(image.name, "/opt/env/bin/python -m pip list").count("1.0") >= 1


OWN = {
    "one stage": "FROM {base}\nCOPY .azureml-debug /tmp/it\nRUN sh /tmp/it/install.sh\nRUN ls /opt/env\n",
    "base image": (
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE} AS one\nCOPY .azureml-debug /tmp/it\n"
        'RUN ["sh", "/tmp/it/install.sh", "/opt/env"]\nFROM ${BASE_IMAGE}\nCOPY --from=one /opt/env /opt/env\n'
    ),
}


@pytest.mark.parametrize("form", ["one stage", "base image"])
def test_a_dockerfile_of_ones_own_that_runs_install_sh(
    images: Images, index: Index, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", index.address(f"me:{images.secret}"))
    images.check(images.build(dockerfile=OWN[form].replace("{base}", images.base)))


@pytest.mark.parametrize("where", ["variables", "config.json"])
def test_what_a_build_runs_itself_has_the_proxies_and_keeps_none(
    images: Images, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://me:{images.secret}@127.0.0.1:1"
    monkeypatch.setenv("HTTPS_PROXY", proxy)
    monkeypatch.setenv("NO_PROXY", "inside.invalid")
    if where == "config.json":
        # What is set for containers goes before what holds on this machine.
        monkeypatch.setenv("HTTPS_PROXY", "http://this-machine.invalid")
        monkeypatch.setenv("DOCKER_CONFIG", str(images.folder))
        entry = {"httpsProxy": proxy, "noProxy": "inside.invalid"}
        (images.folder / "config.json").write_text(json.dumps({"proxies": {"default": entry}}))
    folder = wheel(images.folder / "wheels", "ours").parent
    same = 'test -n "$HTTPS_PROXY" && test "$https_proxy" = "$HTTPS_PROXY" && test "$no_proxy" = inside.invalid'
    text = (
        f'FROM {images.base}\nCOPY wheels /w\nRUN case "$HTTPS_PROXY" in *this-machine*) exit 1;; esac; {same}\n'
        "RUN /opt/conda/bin/conda --prefix /opt/env && /opt/env/bin/python -m pip install --no-index -f /w ours\n"
    )
    shutil.copytree(folder, images.folder / "own-settings" / "wheels")
    images.check(images.build(dockerfile=text))


def test_an_index_that_cannot_be_reached_is_told_with_the_settings_that_count(
    images: Images, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:{images.secret}@127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    monkeypatch.setenv("NO_PROXY", "inside.invalid")
    with pytest.raises(UserError, match="could not reach the package index") as refused:
        images.build()
    # This machine may have more of them.
    assert all(name in refused.value.remedy for name in ("index-url", "retries", "NO_PROXY"))
    assert images.secret not in str(refused.value)


def test_a_setting_that_cannot_be_read_is_named(images: Images, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_CERT", str(images.folder / "gone.pem"))
    with pytest.raises(UserError, match=r"gone\.pem"):
        images.build()
