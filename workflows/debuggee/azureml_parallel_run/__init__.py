"""Runs an entry script with `init()` and `run(mini_batch)`, as Azure ML's parallel jobs do.

`driver.py` is started as a step's command. It cuts the input into mini-batches, hands them to workers (`worker.py`,
processes of the same Python), appends what they return to the output, and decides whether the step has failed. What is
in Azure's container beside it is imitated by names and places only:
https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-parallel and
https://learn.microsoft.com/azure/machine-learning/how-to-debug-parallel-run-step.

It travels into containers as the debuggee does: Python 3.8, standard library only; tables need the pandas of the
step's own environment.
"""
