"""Runs a parallel step: the program in the step's command.

python driver.py --entry-script score.py --input FOLDER [OPTIONS] -- ARGUMENTS OF THE ENTRY SCRIPT
"""

import os
import sys

sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
from azureml_parallel_run.step_driver import main  # type: ignore[import-not-found]  # noqa: E402

sys.exit(main(sys.argv[1:]))
