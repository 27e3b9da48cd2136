"""Creates environments and installs their packages: with uv, and with pip where only pip can."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import storage
from ..redaction import scrub
from . import bytecode, pythons, uv
from .pip_failures import install_error, no_venv_error
from .pip_settings import PipSettings, read_settings
from .processes import Finished, run

if TYPE_CHECKING:
    from .definition import EnvironmentDefinition

#: Settings of pip or Python that would install packages elsewhere than into the environment.
_UNSET = (
    "PYTHONHOME",
    "PYTHONPATH",
    "PIP_USER",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_PYTHON",
    "__PYVENV_LAUNCHER__",
)
_SHOWN_NAMES = 6
# Prints the wheels of pip that ensurepip, or the distribution instead of it, has for new environments.
_SEEDS = (
    "import importlib.util, glob, os, sys, sysconfig\n"
    "found = importlib.util.find_spec('ensurepip')\n"
    "own = found and os.path.join(os.path.dirname(found.origin), '_bundled')\n"
    "for folder in filter(None, (sysconfig.get_config_var('WHEEL_PKG_DIR'), own, '/usr/share/python-wheels')):\n"
    # Since Python 3.12 an environment begins without setuptools.
    "    for name in ('pip', 'setuptools')[: 2 if sys.version_info < (3, 12) else 1]:\n"
    "        print(*sorted(glob.glob(os.path.join(glob.escape(folder), name + '-*.whl')))[-1:], sep='\\n')\n"
)


@dataclass(frozen=True)
class Work:
    """One environment that is being built.

    Attributes:
        definition: Its definition.
        folder: Its folder.
        scratch: A folder for temporary files that only this user can read.
        cache: The program's cache folder.
        report: Called with each line of progress.
        files: The requirement files by name, as :func:`.context.pip_files` makes them.
        relocatable: Whether it is moved to another path afterwards.
    """

    definition: EnvironmentDefinition
    folder: Path
    scratch: Path
    cache: Path
    report: Callable[[str], None]
    files: Mapping[str, str]
    relocatable: bool = False

    def environment(self) -> dict[str, str]:
        """The environment variables for the programs that build it."""
        kept = {key: value for key, value in os.environ.items() if key not in _UNSET}
        # Temporary files belong to the environment's folder, so that they are removed with it, even after a kill.
        place = str(self.scratch)
        return {**kept, "TMPDIR": place, "TEMP": place, "TMP": place, "PYTHONUNBUFFERED": "1"}

    def write_files(self) -> list[Path]:
        """Write the requirement files to the scratch folder; their paths in the order of installation."""
        for name, text in self.files.items():
            (self.scratch / name).write_text(text, "utf-8", errors="surrogateescape")
        names = ("requirements.txt", "requirements-added.txt")
        return [self.scratch / name for name in names if name in self.files]

    def read_pip_settings(self) -> PipSettings:
        """The user's settings of pip, with what the definition's own options add to them."""
        environment = self.environment()
        # For an image, the settings of this program's own pip count.
        found = read_settings(environment, prefix=Path(sys.prefix) if self.relocatable else self.folder)
        for line in self.definition.options:
            found.apply_line(line, environment)
        return found

    @property
    def uv_cache(self) -> Path:
        """The cache of uv: beside the environments, so that they can share files, unless the user has set another."""
        return Path(os.environ.get("UV_CACHE_DIR") or self.cache / "uv")

    def uv_variables(self, translation: uv.Translation) -> dict[str, str]:
        """The environment variables for uv."""
        return {**translation.environment, "UV_CACHE_DIR": str(self.uv_cache)}


def make_empty_environment(work: Work, python: str) -> None:
    """Create an environment with nothing but pip.

    Args:
        work: The environment.
        python: The interpreter.

    Raises:
        UserError: It cannot be created.
        OSError: The disk is full.
    """
    program = uv.find_uv()
    if program is None or not uv.is_utf8(str(work.folder)):
        _with_venv(work, python)
        return
    environment = work.uv_variables(uv.translate(PipSettings(), work.environment()))
    command = [program, "venv", "--no-config", "--no-project", "--allow-existing", "--no-python-downloads"]
    command += ["--relocatable"] if work.relocatable else []
    run_required(work, [*command, "--quiet", "--python", python, str(work.folder)], environment)
    _seed(work, program, python, environment)


def _with_venv(work: Work, python: str) -> None:
    environment = work.environment()
    made = run([python, "-m", "venv", "--without-pip", str(work.folder)], work.report, environment=environment)
    if made.code == 0:
        # venv would do this itself, but hide the output of a failure.
        ensure = [str(pythons.environment_python(work.folder)), "-I", "-m", "ensurepip", "--upgrade", "--default-pip"]
        made = run(ensure, work.report, environment=environment)
    if made.code != 0:
        raise no_venv_error(python, made.lines) or _failure(work, made, "venv")


def _seed(work: Work, program: str, python: str, environment: Mapping[str, str]) -> None:
    """Install the pip that comes with Python; where none does, the one from the package index."""
    listing = subprocess.run(
        [python, "-I", "-c", _SEEDS], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    wheels = dict[str, str]()
    for path in filter(None, listing.stdout.splitlines()):
        wheels.setdefault(os.path.basename(path).partition("-")[0], path)
    inside = pythons.environment_python(work.folder)
    if "pip" not in wheels:
        # pip is only for installing by hand; an environment works without it.
        _run_uv_install(
            replace(work, report=_ignore_line), program, ["pip"], work.read_pip_settings(), inside, needed=False
        )
        return
    offline = ["--no-config", "--offline", "--no-deps", "--no-index", "--quiet", "--python", str(inside)]
    run_required(work, [program, "pip", "install", *offline, *wheels.values()], environment)


def install_packages(work: Work, python: Path) -> str | None:
    """Install a definition's packages into an environment.

    Args:
        work: The environment.
        python: The environment's interpreter.

    Returns:
        Where pip was used, a note on why, which applies to this build only.

    Raises:
        UserError: They cannot be installed.
        OSError: The disk is full.
    """
    reason = install_with_uv(work, python)
    if reason is None:
        return None
    note = f"pip installs the packages: {reason}"
    work.report(note)
    pip = [str(python), "-I", "-m", "pip", "--disable-pip-version-check", "--no-input"]
    # --no-user: pip refuses a setting `user = true` in an environment.
    command = [*pip, "install", "--no-user", "--progress-bar", "off", "-r"]
    for path in work.write_files():
        run_required(work, [*command, str(path)], work.environment(), what="pip", folder=work.definition.folder)
    return note


def install_with_uv(work: Work, python: Path) -> str | None:
    """Install a definition's packages with uv only; None when it is done, otherwise why pip has to do it.

    Raises:
        UserError: They cannot be installed, and pip could not either.
        OSError: The disk is full.
    """
    program = uv.find_uv()
    if program is None:
        return "uv is not installed here"
    if not all(map(uv.is_utf8, (str(work.folder), *work.files.values()))):
        return "uv takes only names in UTF-8"
    settings = work.read_pip_settings()
    reason = uv.why_only_pip(settings, (*work.definition.pip, *work.definition.translate_conda()[0]))
    if reason is None:
        # uv prints nothing until it has resolved all requirements, which may take long.
        work.report(f"installing {_package_names(work.definition)}")
    # What is there and what arrives is compiled while the packages are installed, and then the rest of them.
    arriving = bytecode.compile_arriving(python, work.uv_cache, work.scratch, work.environment())
    with _compiling(work, python), arriving:
        for path in work.write_files() if reason is None else ():
            reason = _run_uv_install(work, program, ["--requirements", str(path)], settings, python)
            if reason is not None:
                break
        if reason is None and work.relocatable and work.definition.live:
            # The first run installed copies of them, with their dependencies; now make these packages editable.
            wanted = [word for path in work.definition.live for word in ("--editable", path.as_uri())]
            reason = _run_uv_install(work, program, ["--no-deps", *wanted], settings, python, stay=True)
    with _compiling(work, python):
        shared = bytecode.SharedBytecode(work.folder, work.uv_cache)
    shared.link()
    return reason


@contextmanager
def _compiling(work: Work, python: Path) -> Iterator[None]:
    """Compile the environment's packages while the block runs."""
    with bytecode.compile_in_background(work.folder, python, work.scratch, work.environment()) as ended:
        yield
    for done in ended:
        if done.code != 0:
            # Without byte code programs only start later. A full disk is an error, since more has to be written.
            _raise_disk_full(done)
            work.report(f"not all byte code could be compiled: {(done.lines or ('',))[-1]}")


def _package_names(definition: EnvironmentDefinition) -> str:
    """The names of a definition's first packages, for a line of progress."""
    wanted = (*definition.pip, *definition.translate_conda()[0])
    names = [item.local.name if item.local is not None else item.name or scrub(item.text) for item in wanted]
    rest = f" and {len(names) - _SHOWN_NAMES} more" if len(names) > _SHOWN_NAMES else ""
    return ", ".join(names[:_SHOWN_NAMES]) + rest if names else "nothing but pip"


def _run_uv_install(
    work: Work,
    program: str,
    wanted: Sequence[str],
    settings: PipSettings,
    python: Path,
    *,
    needed: bool = True,
    stay: bool = False,
) -> str | None:
    """Run ``uv pip install``; None when it worked, otherwise why pip may still succeed.

    Raises:
        UserError: It failed, and pip would fail as well.
    """
    translation = uv.translate(settings, work.environment())
    for note in translation.notes:
        work.report(note)
    configuration = work.scratch / uv.SETTINGS
    configuration.touch(mode=0o600)  # passwords of indexes are in it
    configuration.write_text(translation.text, "utf-8", errors="surrogateescape")
    command = [program, "pip", "install", "--config-file", str(configuration), "--python", str(python)]
    command += translation.arguments
    # The folders of local packages do not exist where a relocatable environment is used.
    command += ["--no-editable"] if work.relocatable and not stay else []
    if any((item.local is not None and item.local.is_dir()) or "+" in item.text for item in work.definition.pip):
        # A folder or repository may have changed since uv cached its build.
        command.append("--refresh")
    done = run(
        [*command, *wanted], work.report, environment=work.uv_variables(translation), folder=work.definition.folder
    )
    if done.code == 0 or not needed:
        return None
    _raise_disk_full(done)
    reason = uv.why_pip_may_work(done.lines, translation.several)
    if reason is None:
        raise _failure(work, done, "uv")
    return reason


def _ignore_line(line: str) -> None:
    """Drop a line of progress that is not shown."""


def run_required(
    work: Work, command: Sequence[str], environment: Mapping[str, str], *, what: str = "uv", folder: Path | None = None
) -> None:
    """Run a program that has to succeed.

    Args:
        work: The environment it is run for.
        command: Argument list.
        environment: Its environment variables.
        what: Its name in a message.
        folder: Its working folder.

    Raises:
        UserError: It failed.
        OSError: The disk is full.
    """
    done = run(command, work.report, environment=environment, folder=folder)
    if done.code != 0:
        _raise_disk_full(done)
        raise _failure(work, done, what)


def _raise_disk_full(done: Finished) -> None:
    if (number := storage.find_disk_error(done.lines)) is not None:
        raise OSError(number, os.strerror(number))


def _failure(work: Work, done: Finished, what: str) -> Exception:
    return install_error(work.definition, done.lines, what=what, conda=work.definition.translate_conda()[0])
