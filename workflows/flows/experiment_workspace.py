"""An experiment's runs in a workspace, submitted as jobs of SDK v2."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..backends.base import DebugRequest
from ..console import Console
from ..errors import UserError
from ..experiments import catalog
from ..paths import shown
from ..project import read_json, write_json
from ..runs.record import RunRecord
from ..settings import Settings
from .watching import check_rank

if TYPE_CHECKING:
    from ..azureml.v2.job_file import LoadedJob
    from ..backends.azureml import AzureBackend
    from ..experiments.configure import RunOptions

KIND = "experiment"
#: Flags without which another command would do something else.
_FLAGS = ("backend", "compute_target")
#: A file in a run's folder: the paths of the outputs that its job file names.
_NAMED = "outputs.json"


@dataclass
class WorkspaceRuns:
    """Submits runs and fetches their outputs.

    Attributes:
        settings: The settings.
        console: Where progress is shown.
    """

    settings: Settings
    console: Console
    _backend: AzureBackend | None = field(default=None, init=False)

    @property
    def backend(self) -> AzureBackend:
        """The workspace."""
        if self._backend is None:
            from ..backends.azureml import AzureBackend

            self._backend = AzureBackend(self.settings, self.console, KIND)
        return self._backend

    def submit(self, name: str, options: RunOptions, debug: DebugRequest | None) -> RunRecord:
        """Start a run in the workspace.

        Args:
            name: The experiment.
            options: What was typed for the run.
            debug: How it is debugged; None if it is not.

        Raises:
            UserError: It cannot be started. Nothing of it is left then.
        """
        self._require_v2()
        job = self._job_file(name, options.job, options) if options.job is not None else self._configured(name, options)
        if debug is not None:
            from ..pipelines.commands import count_started_ranks

            (step,) = job.steps
            check_rank(debug.rank, step.ranks if step.ranks > 1 else count_started_ranks(step.command), "the run has")
        run = self.backend.submit(job, debug, self._rerun_options(options))
        catalog.record_run(self.settings.project, name, run.folder.name if debug is not None else None)
        return run

    def fetch_outputs(self, run: RunRecord) -> dict[str, str]:
        """Fetch a run's `outputs` and `logs` into its folder; those of a run that is over are fetched only once.

        Returns:
            The paths of the outputs that its job file names, by name.

        Raises:
            UserError: They cannot be fetched. What was fetched before stays.
        """
        from ..azureml import run_outputs
        from ..azureml.v2.workspace import JOBS_VERSION

        known = run.folder / _NAMED
        if run_outputs.is_complete(run):
            return read_json(known) or {}
        with self.console.step("outputs") as step:
            history = self.backend.history(run, step)
            named = run_outputs.job_outputs(run, history, JOBS_VERSION, step.detail)
            write_json(known, named)
            run_outputs.fetch(self.settings, self.console, step, run, history)
        return named

    def _require_v2(self) -> None:
        """Check that SDK v2 is installed and chosen.

        Raises:
            UserError: It is not.
        """
        from ..azureml.sdk import install_command
        from ..azureml.sdk_choice import chosen_sdk

        if chosen_sdk(self.settings) == "v1":
            wrong = " and AML_SDK=v1 asks for v1" if self.settings.sdk == "v1" else ", which is not installed"
            raise UserError(
                f"An experiment runs in a workspace by SDK v2 (azure-ai-ml){wrong}.",
                f"Set AML_SDK=v2, with the extra [azureml]: {install_command('v2')}; or run it here: --backend local",
            )

    def _job_file(self, name: str, file: Path, options: RunOptions) -> LoadedJob:
        from ..azureml.v2.experiment_job import job_from_file
        from .pipeline import Wanted

        wanted = Wanted(options.inputs)
        return self.backend.load_job(file, lambda sdk, _: job_from_file(file, name, self.settings, sdk, wanted))

    def _configured(self, name: str, options: RunOptions) -> LoadedJob:
        from ..azureml.v2.experiment_job import job_from_configuration
        from ..experiments.configure import configure

        settings = self.settings
        config = configure(settings, self.console, name, options)
        file = catalog.runconfig_path(settings.project, name)

        def load(_sdk: Any, workspace: Any) -> LoadedJob:
            from ..azureml.v2.assets import Assets

            return job_from_configuration(
                settings, config, name, file, lambda: Assets(settings, self.console.line, workspace)
            )

        return self.backend.load_job(file, load)

    def _rerun_options(self, options: RunOptions) -> str:
        """The options that, with the experiment's name, run it there again."""
        words: list[str] = []
        for flag in _FLAGS:
            named = f"--{flag.replace('_', '-')}"
            if self.settings.set_by.get(flag) == named:
                words += [named, str(getattr(self.settings, flag))]
        if options.job is not None:
            words += ["--job", str(shown(options.job))]
        words += [word for name, text in options.inputs.items() for word in ("--input", f"{name}={text}")]
        return shlex.join(words)
