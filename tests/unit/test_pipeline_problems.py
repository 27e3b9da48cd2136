"""Files with several faults: every one is told, each once, in the order of the files and of their lines.

What is wrong with a line stands behind it, after ``#!``: a part of each problem that is told of it, in order.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.errors import UserError
from workflows.pipelines.problems import split_errors
from workflows.pipelines.reader import survey

TOP = """\
type: pipeline
name: x
jobs: 3             #! `jobs` has to be a mapping, not a number
inputs: [1]         #! `inputs` has to be a mapping, not a list
settings: x         #! `settings` has to be a mapping, not a text
outputs: 5          #! `outputs` has to be a mapping, not a number
conponent: y        #! has a key `conponent`
"""
NAMES = """\
type: pipeline
imputs:                           #! has a key `imputs`
  n: 5
  bad: {type: flot, optional: so, min: low}  #! has the type `flot` | `optional` of input `bad` | `min` of input `bad`
  worse: [1]                      #! Input `worse` cannot be a list
  list: {type: string, enum: a}   #! `enum` of input `list`
outputs:
  o: {type: nothing}              #! Output `o` has the type `nothing`
  p: {type: integer}
settings: {continue_on_step_failure: perhaps}  #! `continue_on_step_failure`
jobs:
  a b: {command: ls}              #! cannot be called `a b`
  c: {command: ls}
  C: {command: ls}                #! differ only in case
  d: ls                           #! Step `d` has to be a mapping
  e: {type: comand}               #! is of type `comand`
  f:                              #! neither a command nor a component
  g: {command: 'ls ${{inputs.x}}', inputs: {x: '${{parent.inputs.bad}}', y: '${{parent.inputs.worse}}'}}
  h: {command: ls, inputs: {x: '${{parent.inputs.nn}}', y: '${{parent.inputs.n}}'}}  #! no input `nn`
  i: {command: ls, inputs: {x: '${{parent.jobs.e.outputs.o}}', y: '${{parent.jobs.z.outputs.o}}'}}  #! no job `z`
"""
STEP = """\
type: pipeline
jobs:
  a:
    command: python y.py ${{inputs.q}} ${{outputs.z}} ${{search_space.k}}  #! `${{inputs.q}}` | `${{outputs.z}}` | means
    code: ./nowhere               #! should be in
    environment:
      conda_file: no.yml          #! no.yml, which does not exist
      build: {path: nowhere}      #! nowhere, which does not exist
      imge: x                     #! has a key `imge`
    inputs:
      x: ${{parent.inputs.none}}  #! no input `none`
      y: {type: uri_folder, path: ./gone}  #! gone, which does not exist
      z: {tpye: string}           #! has a key `tpye`
      w: ${{parent.jobs.b.inputs.o}}  #! cannot be `${{parent.jobs.b.inputs.o}}`
      v: {type: uri_folder, path: ''}  #! has to be a path
    outputs:
      o: {type: integer}          #! the type `integer`
      p: ${{parent.outputs.none}}  #! no output `none`
    environment_variables:
      A: ${{parent.inputs.m}}     #! no input `m`
      B: fine
    resources: {instance_count: two, shm_size: [1], instance_tpye: a}  #! `instance_tpye` | `instance_count` | shm
    distribution: {type: pytorh, process_count_per_instance: none}  #! `pytorh` | `process_count_per_instance`
    additional_includes:
      - ./gone                    #! gone, which does not exist
      - {type: x}                 #! a package of a feed
      - ./src
  b: {command: [1], inputs: [1], outputs: 3}  #! `inputs` of step `b` | `outputs` of step `b` | must be a string
  c: {command: 'ls ${{inputs.x}}', inputs: {x: '${{parent.jobs.b.outputs.o}}'}}
"""
KINDS = """\
type: pipeline
jobs:
  p:
    type: parallel
    mini_batch_size: [1]          #! `mini_batch_size` of step `p`
    max_concurrency_per_instance: some  #! `max_concurrency_per_instance`
    mini_batch_error_threshold: -2  #! `mini_batch_error_threshold`
    retry_settings: {timeout: a, max_retries: b}  #! `max_retries` | `timeout`
    input_data: ${{inputs.z}}     #! no input `z`
    task:
      type: run_functon           #! of type `run_functon`
      entry_script: no.py         #! no.py, is not in
      code: src
      append_row_to: [1]          #! `append_row_to`
      environment: [1]            #! `environment` of step `p`
    inputs: {x: {type: uri_folder, path: data}}
  q:                              #! has no `input_data`
    type: parallel
    task: 3                       #! `task` of step `q`
  s:
    type: sweep
    trial: {command: ls, code: nowhere}  #! should be in
    search_space:
      a: {type: chioce}           #! is of type `chioce`
      b: {type: uniform}          #! has no `min_value`
      c: 3                        #! has to be a mapping
      d: {type: choice, values: []}  #! has no values
    objective: {goal: minimise, primary_metric: [1]}  #! `primary_metric` | `minimise`
  l: {command: ls, inputs: {x: '${{parent.jobs.m.outputs.o}}'}, outputs: {o: }}
  m: {command: ls, inputs: {x: '${{parent.jobs.l.outputs.o}}'}, outputs: {o: }}  #! l → m → l
  n: {command: ls, inputs: {x: '${{parent.jobs.n.outputs.o}}'}, outputs: {o: }}  #! n → n
"""
FILES = """\
type: pipeline
jobs:
  a:
    component: ./b.yml
    inputs: {x: '${{parent.jobs.c.outputs.k}}', z: '${{parent.jobs.zz.outputs.k}}'}  #! no job `zz`
  c:
    component: ./none.yml         #! no component file none.yml
    environment: {conda_file: none.yml}  #! The conda file of step `c`
    inputs: {x: '${{parent.inputs.nope}}'}  #! no input `nope`
  d:
    component: ./a.yml
    inputs: {t: '${{parent.inputs.nope}}'}  #! no input `nope`
  e: {component: ./bad.yml}
  f: {component: ./pipeline.yml, inputs: {q: 1}}  #! contain each other
  g: {component: ./twice.yml}
"""
COMPONENT = """\
type: command
command: python z.py ${{inputs.x}} ${{inputs.u}}  #! `${{inputs.u}}` | starts z.py
code: ./src
inputs:
  x: {optional: true}             #! has no type
  y: {type: integer, min: x, optional: true}  #! `min` of input `y`
  z: {type: uri_folder}
outputs: {o: {type: nothing}}     #! the type `nothing`
environment: {imge: 3}            #! `imge`
"""
NESTED = """\
type: pipeline
inputs:
  r: {type: uri_folder, default: ./data}
  s: {type: foldr}                #! the type `foldr`
  t: {type: string}
jobs:
  one:
    command: ls ${{inputs.x}} ${{inputs.r}} ${{inputs.s}}
    inputs:
      x: ${{parent.inputs.never}}  #! The pipeline `d` has no input `never`
      r: ${{parent.inputs.r}}
      s: ${{parent.inputs.s}}
      t: ${{parent.inputs.t}}
  two: {}                         #! Step `d.two` has neither
  three: {component: ./a.yml, inputs: {t: x}}  #! contain each other
"""
TWICE = """\
type: command
command: ls
command: ls                       #! `command` is there twice
inputs:
  x: {type: integer, default: !!int a}  #! What is marked `!!int`
  x: {type: integer}              #! `x` is there twice
"""
BATCH = """\
name: b
endpoint_name: e
type: model
model: {path: ./gone}             #! gone, which does not exist
code_configuration: {code: src}   #! has no `scoring_script`
environment: {conda_file: none.yml}  #! none.yml, which does not exist
settings:
  output_action: nothing          #! `output_action`
  output_file_name: a/b           #! `output_file_name`
  max_concurrency_per_instance: x  #! `max_concurrency_per_instance`
  mini_batch_size: 3
"""
JOB = """\
type: command
comand: python y.py               #! has a key `comand`
code: nowhere                     #! should be in
inputs: {x: {type: uri_folder, path: gone}}  #! gone, which does not exist
environment: {conda_file: none.yml}  #! none.yml
resources: 3                      #! `resources` of step
"""

TABLE = {
    "keys of a wrong type at the top": {"pipeline.yml": TOP},
    "inputs, outputs and names": {"pipeline.yml": NAMES},
    "one step": {"pipeline.yml": STEP},
    "kinds of steps": {"pipeline.yml": KINDS},
    "several files": {
        "pipeline.yml": FILES,
        "b.yml": COMPONENT,
        "a.yml": NESTED,
        "bad.yml": "a: [1\nb: 2             #! is not valid YAML\n",
        "twice.yml": TWICE,
    },
    "a batch deployment": {"pipeline.yml": BATCH},
    "a command job": {"pipeline.yml": JOB},
}


def expected(files: dict[str, str]) -> list[tuple[str, str]]:
    """The places and the problems that stand behind the lines."""
    found = []
    for name, text in files.items():
        for number, line in enumerate(text.splitlines(), 1):
            _, mark, parts = line.partition("#! ")
            found += [(f"{name}:{number}", part.strip()) for part in parts.split(" | ")] if mark else []
    return found


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("src/x.py", "data/a.csv"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    return tmp_path


def told(error: UserError | None) -> list[tuple[str, str]]:
    return [(f"{one.file}:{one.line}", one.problem) for one in split_errors(error)]


@pytest.mark.parametrize("case", TABLE)
def test_every_fault_is_told_once_and_in_the_order_of_the_files(project: Path, case: str) -> None:
    for name, text in TABLE[case].items():
        (project / name).write_text(text)
    inputs = {"data": "data"} if case == "a batch deployment" else {}
    try:
        _, error = survey(Path("pipeline.yml"), inputs)
    except UserError as caught:
        error = caught
    wanted, found = expected(TABLE[case]), told(error)
    assert [place for place, _ in found] == [place for place, _ in wanted], "\n".join(map(str, found))
    assert [problem for (_, part), (_, problem) in zip(wanted, found, strict=True) if part not in problem] == []
