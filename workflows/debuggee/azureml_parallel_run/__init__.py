"""Runs an entry script with `init()` and `run(mini_batch)`, as Azure ML's parallel jobs do.

`driver.py` is the step's command. It cuts the input into mini-batches, sends them to workers (`worker.py`,
processes of the same Python), appends their results to the output, and decides whether the step has failed. Names and
folders are those of Azure's container:
https://learn.microsoft.com/azure/machine-learning/reference-yaml-job-parallel and
https://learn.microsoft.com/azure/machine-learning/how-to-debug-parallel-run-step.

Like the debuggee it runs in containers, on Python 3.8 and later, with the standard library only. Tables need pandas in
the step's own environment.
"""
