"""The helper of entry scripts: ``from azureml_user.parallel_run import EntryScript``.

https://learn.microsoft.com/azure/machine-learning/how-to-debug-parallel-run-step
"""

from __future__ import annotations

import logging
import os
from typing import Any


class EntryScript:
    """One object for each worker: where it logs and writes to.

    Attributes:
        agent_name: The worker's name, ``process000`` and so on.
        log_dir: A folder for its own log files: ``logs/user/entry_script_log/NODE``.
        output_dir: The folder of the step's output.
        working_dir: The folder that the step runs in.
        logger: Writes to ``NAME.log.txt`` in :attr:`log_dir`.
    """

    _only: Any = None

    def __new__(cls) -> EntryScript:
        """The only one of this process."""
        if cls._only is None:
            cls._only = super().__new__(cls)
            cls._only._begin()
        found: EntryScript = cls._only
        return found

    def _begin(self) -> None:
        self.agent_name = os.environ.get("AZUREML_PARALLEL_AGENT", "process000")
        self.working_dir = os.getcwd()
        self.log_dir = os.environ.get("AZUREML_PARALLEL_LOG_DIR") or os.path.join(self.working_dir, "logs", "user")
        self.output_dir = os.environ.get("AZUREML_BI_OUTPUT_PATH", "")
        self.logger = logging.getLogger("EntryScript")
        self.logger.setLevel(os.environ.get("AZUREML_PARALLEL_LOGGING_LEVEL", "INFO"))
        self.logger.propagate = False
        os.makedirs(self.log_dir, exist_ok=True)
        handler = logging.FileHandler(os.path.join(self.log_dir, self.agent_name + ".log.txt"), encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s|%(levelname)s|%(process)d|%(message)s"))
        self.logger.addHandler(handler)
