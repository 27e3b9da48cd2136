"""Pipeline files that cannot run: each with what is wrong, what to do, and the line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from test_pipeline_reader import COMPONENT, job
from test_pipeline_reader import load as load  # a fixture

from workflows.errors import UserError
from workflows.pipelines.definition import Pipeline
from workflows.pipelines.problems import split_errors
from workflows.pipelines.reader import load_pipeline

Load = Callable[..., Pipeline]


def refused(load: Load, text: str) -> UserError:
    with pytest.raises(UserError) as caught:
        load(text)
    error = caught.value
    assert error.exit_code == 1
    assert error.problem.endswith(".")
    assert error.remedy[-1] in ".?"
    return error


P = "type: pipeline\n"
IN = "command: ls ${{inputs.x}}\ninputs:\n  x: "
FIT = "component: fit/fit.yml\ninputs:\n  data: {path: ./data}\n"


@pytest.mark.parametrize(
    ("text", "problem", "remedy", "line"),
    [
        # Not a pipeline at all.
        ("", "pipeline.yml is empty", "", 1),
        ("# only a comment\n", "is empty", "", 1),
        ("- a\n- b\n", "holds a list", "", 1),
        ("just text", "holds a text", "", 1),
        ("a: [1\nb: 2\n", "is not valid YAML", "Correct", 2),
        ("a: 1\n\tb: 2\n", "is not valid YAML", "use spaces", 2),
        ("a: b: c\n", "mapping values are not allowed", "Correct", 1),
        ("a: 1\n---\nb: 2\n", "is not valid YAML", "", 2),
        ("a: *nowhere\n", "undefined alias", "", 1),
        (P + "jobs: {a: {command: ls}}\nb: !!python/object:os.system x\n", "could not determine a constr", "", 3),
        ("a: 1\nb: \x01\n", "is not valid YAML", "", 2),
        ("a: &a\n  b: *a\n", "contains itself", "", 2),
        (P + "jobs:\n  a:\n    command: x\n    command: y\n", "twice: in line 4 and in line 5", "Take one", 5),
        (P + "jobs: {a: {command: ls}}\njobs: {}\n", "`jobs` is there twice: in line 2 and in line 3", "", 3),
        (P + "jobs:\n  a:\n    command: ls\n    <<: 3\n", "`<<` takes a mapping", "anchor", 5),
        ("name: x\ndependencies: [pip]\n", "is a conda file, not a pipeline or a job", "`conda_file: pipeline.yml`", 1),
        ("type: spark\nentry: {file: a.py}\n", "is a Spark job, which runs in Azure only", "stands in for it there", 1),
        (
            "name: b\nendpoint_name: e\nmodel: {path: m}\n",
            "is an online deployment",
            "inv deploy.debug --deployment",
            1,
        ),
        ("a: 1\n", "pipeline.yml is not a pipeline or a job", "another file", 1),
        ("type: sweep\ntrial: {command: ls}\nsearch_space: {a: {type: choice, values: []}}", "has no values", "", 3),
        (
            "type: sweep\ntrial: {command: ls}\nsearch_space: {a: {type: chioce, values: [1]}}",
            "is unknown",
            "choice",
            3,
        ),
        ("type: sweep\ntrial: {command: ls}\nsearch_space: {a: {type: uniform}}", "has no `min_value`", "needs", 3),
        (
            "type: sweep\ntrial: {command: ls}\nsearch_space: {a: {type: normal, mu: b}}",
            "to be a number, not `b`",
            "",
            3,
        ),
        ("type: sweep\ntrial: {command: ls}\nsearch_space: {a: 1}", "has to be a mapping", "type: choice", 3),
        (
            "type: sweep\ntrial:\n  command: ls ${{search_space.b}}\nsearch_space: {}",
            "means nothing",
            "search_space",
            3,
        ),
        ("type: sweep\nsearch_space: {}", "neither a command", "", 1),
        (P, "has no jobs", "under `jobs:`", 1),
        (P + "jobs:\n", "has no jobs", "", 2),
        (P + "jobs: {}\n", "has no jobs", "", 2),
        (P + "jobs: [a]\n", "`jobs` has to be a mapping, not a list", "", 2),
        (P + "job:\n  a: {command: ls}\n", "has a key `job`", "Did you mean `jobs`?", 2),
        (job("command: ls", top="setings: {}\n"), "has a key `setings`", "Did you mean `settings`?", 2),
        (job("command: ls", top="settings: {continue_on_step_failure: perhaps}\n"), "true or false", "", 2),
        # Jobs.
        (P + "jobs:\n  a b:\n    command: ls\n", "cannot be called `a b`", "letters, digits", 3),
        (P + "jobs:\n  ../a:\n    command: ls\n", "cannot be called `../a`", "", 3),
        (P + "jobs:\n  a: {command: ls}\n  A: {command: ls}\n", "differ only in case", "Rename", 4),
        (P + "jobs:\n  a: ls\n", "Step `a` has to be a mapping, not a text", "", 3),
        (P + "jobs:\n  a:\n", "neither a command nor a component", "Add `command:`", 3),
        (job("comand: ls"), "has a key `comand`", "Did you mean `command`?", 5),
        (job("command: [a, b]"), "must be a string", "", 5),
        (job("command: ''"), "must be a string", "", 5),
        (job("command: ls\ninputs: [a]"), "`inputs` of step `s` has to be a mapping", "", 6),
        (P + "jobs:\n  s:\n    trial: {}\n", "neither a command", "", 4),
        *[
            (P + f"jobs:\n  s:\n    type: {name}\n", f"of type `{name}`, which cannot run", "", 4)
            for name in ("spark", "automl", "import", "data_transfer", "do_while", "if_else", "finetuning")
        ],
        (P + "jobs:\n  s:\n    type: comand\n", "of type `comand`, which is unknown", "Did you mean `command`?", 4),
        # References.
        (job(IN + "${{parent.inputs.nam}}", top="inputs: {name: 1}\n"), "no input `nam`", "`name`?", 8),
        (job(IN + "${{parent.inputs.nam}}"), "no input `nam`", "There are: none", 7),
        (job(IN + "${{parent.jobs.t.outputs.o}}"), "no job `t`", "There are: `s`", 7),
        (job(IN + "${{parent.jobs.s.outputs.o}}"), "Job `s` has no output `o`", "There are: none", 7),
        (job(IN + "${{parent.jobs.s.inputs.o}}"), "cannot be `${{parent.jobs.s.inputs.o}}`", "outputs.NAME", 7),
        (job(IN + "${{parent.outputs.o}}", top="outputs: {o: }\n"), "cannot be", "", 8),
        (job("command: ls\noutputs: {o: '${{parent.outputs.none}}'}"), "no output `none`", "There are: none", 6),
        (job("command: ls ${{inputs.y}}\ninputs: {x: 1}"), "names `${{inputs.y}}`", "There are: `x`", 5),
        (job("command: ls ${{outputs.y}}"), "names `${{outputs.y}}`", "There are: none", 5),
        (job("command: ls ${{search_space.x}}"), "`${{search_space.x}}`", "sweep", 5),
        (job("command: ls ${{name}}"), "means nothing", "${{inputs.NAME}}", 5),
        (job("command: ls ${{parent.inputs.x}}", top="inputs: {x: 1}\n"), "means nothing", "${{inputs.NAME}}", 6),
        (job("command: ls $[[--x ${{inputs.x}}\ninputs: {x: 1}"), "has no `]]`", "", 5),
        (job("command: ls ${{inputs.x\ninputs: {x: 1}"), "has no `}}`", "", 5),
        (
            P + "jobs:\n"
            "  a: {command: ls, outputs: {o: }, inputs: {i: '${{parent.jobs.c.outputs.o}}'}}\n"
            "  b: {command: ls, outputs: {o: }, inputs: {i: '${{parent.jobs.a.outputs.o}}'}}\n"
            "  c: {command: ls, outputs: {o: }, inputs: {i: '${{parent.jobs.b.outputs.o}}'}}\n",
            "wait for each other: a → b → c → a",
            "Take one",
            4,
        ),
        (
            job("command: ls\noutputs: {o: }\ninputs:\n  i: ${{parent.jobs.s.outputs.o}}"),
            "wait for each other: s → s",
            "",
            8,
        ),
        # Values.
        (job("component: fit/fit.yml"), "Input `data` of step `s` is required", "under `inputs` of `s`", 3),
        (job("component: fit/fit.yml\ninputs: {data: }"), "`data` of step `s` is required", "", 3),
        (job(IN + "${{parent.inputs.y}}", top="inputs:\n  y:\n"), "required", "--input y=", 3),
        (job(FIT + "  schedule: [a]"), "cannot be a list", "", 8),
        (job(FIT + "  epochs: ${{parent.jobs.s.outputs.model}}"), "literal (integer)", "uri_folder", 8),
        (job("component: fit/fit.yml\ninputs: {data: 5}"), "has to be a path, not `5`", "", 6),
        (job("command: ls\ninputs: {x: {tpye: string}}"), "has a key `tpye`", "Did you mean `type`?", 6),
        (job("command: ls\ninputs: {x: {type: flot}}"), "type `flot`", "", 6),
        (job("command: ls\noutputs: {x: {type: integer}}"), "type `integer`", "uri_folder", 6),
        # Data and code.
        (job(IN + "{type: uri_folder, path: ./dta}"), "dta, which does not exist", "--input s.x=PATH", 7),
        (job(IN + "{type: uri_folder, path: 'https://example.org/d'}"), "only single files", "--input s.x=PATH", 7),
        (job(IN + "{type: uri_folder, path: 'azureml:name:1'}"), "registered asset `azureml:name:1`", "s.x=PATH", 7),
        (job(IN + "azureml:name@latest"), "registered asset", "--input s.x=PATH", 7),
        *[
            (job(IN + f"{{type: uri_file, path: '{url}'}}"), "lies in the cloud", "--input s.x=PATH", 7)
            for url in (
                "azureml://datastores/d/paths/${{name}}/p",
                "wasbs://c@a.blob.core.windows.net/p",
                "abfss://c@a.dfs.core.windows.net/p",
                "s3://bucket/key",
                "ftp://somewhere/x",
            )
        ],
        (
            job(IN + "${{parent.inputs.raw}}", top="inputs:\n  raw: {type: uri_file, path: 'azureml://d/p'}\n"),
            "Input `x` of step `s` lies in the cloud",
            "--input raw=PATH",
            3,
        ),
        (job("command: ls\ncode: ./nowhere"), "nowhere, which does not exist", "`code`", 6),
        (job("command: ls\ncode: git+https://github.com/a/b#main:c"), "Git repository", "Clone", 6),
        (job("command: ls\ncode: azureml:code:1"), "not on this machine", "./src", 6),
        (job("command: python y.py\ncode: src"), "starts y.py, which is not in", "Correct", 5),
        (job("command: python x.py"), "has no `code`", "", 5),
        # Components.
        (job("component: ./none.yml"), "no component file none.yml", "", 5),
        (job("component: ./fit"), "fit is a folder", "`fit.yml`", 5),
        (job("component: azureml:fitt:1"), "registered component `azureml:fitt:1`", "component: ./", 5),
        (job("component: azureml://registries/r/components/c/versions/1"), "registered component", "", 5),
        (job("component: fitt:1"), "registered component `fitt:1`", "", 5),
        (job("component: fitt@latest"), "registered component", "", 5),
        (job("component:\n  type: spark\n  command: ls"), "component of step `s` is of type `spark`", "", 6),
        (job("component:\n  type: command"), "neither a command", "", 5),
        (job("component:\n  command: ls\n  inputs:\n    x: {optional: true}"), "`x` has no type", "`string`", 8),
        # Environments.
        (job("command: ls\nenvironment: {conda_file: nowhere.yml}"), "nowhere.yml, which does not exist", "", 6),
        (job("command: ls\nenvironment: {build: {path: nowhere}}"), "nowhere, which does not exist", "", 6),
        (job("command: ls\nenvironment: {build: {path: data}}"), "no Dockerfile in", "dockerfile_path", 6),
        (job("command: ls\nenvironment: {build: {}}"), "has no `path`", "", 6),
        (job("command: ls\nenvironment: {build: {path: 'https://github.com/a/b.git'}}"), "not on this", "", 6),
        (job("command: ls\nenvironment: {tags: {a: b}}"), "defines nothing", "`image`", 6),
        (job("command: ls\nenvironment: [a]"), "must be a string", "", 6),
        (job("command: ls\nenvironment: {imge: x}"), "has a key `imge`", "Did you mean `image`?", 6),
        (job("command: ls\nenvironment: {dependencies: [pip]}"), "conda file's content", "conda_file", 6),
        (job("command: ls\nenvironment: file:./none.yml"), "no environment file none.yml", "", 6),
        (job("command: ls\nenvironment: {build: {path: docker/Dockerfile}}"), "is a file", "folder it is in", 6),
        (job("command: python y.py\ncode: src/x.py"), "starts y.py", "", 5),
        (P + "component: azureml:p:1\n", "registered component `azureml:p:1`", "pipeline.yml", 2),
        (P + "component: p.yml\n", "no component file p.yml", "", 2),
        (
            P + "component: elsewhere/p.yml\ninputs:\n  n: 1\n",
            "The component has no input `n`",
            "There are: `m`",
            4,
        ),
        # Processes.
        (job("command: ls\nresources: {instance_count: '${{parent.inputs.n}}'}"), "no input `n` with a value", "", 6),
        (job("command: ls\nresources: {instance_count: two}"), "whole number from 1, not `two`", "", 6),
        (job("command: ls\nresources: {instance_cout: 2}"), "has a key", "Did you mean `instance_count`?", 6),
        (job("command: ls\ndistribution: {process_count_per_instance: 2}"), "has no type", "", 6),
        (job("command: ls\nresources: {shm_size: [1]}"), "`shm_size` cannot be", "2g", 6),
        (job("command: ls\ndistribution: {type: ry}"), "distributed by `ry`", "`pytorch`", 6),
    ],
)
def test_what_cannot_run_is_refused_with_its_line(load: Load, text: str, problem: str, remedy: str, line: int) -> None:
    Path("elsewhere/p.yml").write_text("type: pipeline\ninputs: {m: 1}\njobs: {s: {command: ls}}\n")
    error = refused(load, text)
    assert problem in error.problem
    assert remedy in error.remedy
    assert (error.file, error.line) == (Path("pipeline.yml"), line)
    assert split_errors(error) == (error,), "what follows from it is told as well"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (job("component: file:gone.yml"), "There is no component file"),
        (job("component: file:gone"), "There is no component file"),
        (job("command: ls\nenvironment: file:gone.yml"), "There is no environment file"),
        (job("command: ls\nenvironment: file:gone"), "There is no environment file"),
    ],
)
def test_a_file_that_is_named_as_one_is_no_registered_name(load: Load, text: str, problem: str) -> None:
    error = refused(load, text)
    assert error.problem.startswith(problem)
    assert error.remedy == "Check the path."


def test_resources_that_are_none_are_told_with_their_step(load: Load) -> None:
    assert refused(load, job("command: ls\nresources: 3")).problem.startswith("`resources` of step `s` has to be")


def test_all_data_that_is_elsewhere_is_named_at_once(load: Load) -> None:
    error = refused(
        load,
        """\
type: pipeline
inputs:
  raw: {type: uri_folder, path: 'azureml://datastores/d/paths/p'}
  rate: 0.1
jobs:
  a:
    command: ls ${{inputs.x}} ${{inputs.y}}
    inputs:
      x: ${{parent.inputs.raw}}
      y: {type: uri_file, path: 'azureml:name:1'}
  b:
    command: ls ${{inputs.x}} ${{inputs.z}}
    inputs:
      x: ${{parent.inputs.raw}}
      z: {type: uri_folder, path: 'https://example.org/d'}
""",
    )
    assert error.problem == (
        "Input `x` of step `a` lies in the cloud: azureml://datastores/d/paths/p. "
        "Not on this machine either: `a.y`, `b.z`."
    )
    assert error.remedy == "Give local ones: `--input raw=PATH --input a.y=PATH --input b.z=PATH`."
    assert error.line == 3


@pytest.mark.parametrize(
    ("includes", "problem", "line"),
    [
        ("[../none]", "includes {root}/none, which does not exist", 20),
        ("\n  - ../data\n  - ../none/\n", "includes {root}/none, which does not exist", 22),
        ("\n  - ../more/fit.py\n", "includes fit.py, which is in its code already", 21),
        ("[../data/a.csv, ../more/a.csv]", "includes two that are called a.csv", 20),
        ("../data", "has to be a list", 20),
        ("['']", "includes ``, which is not a name", 20),
        ("[/]", "includes `/`, which is not a name", 20),
        ("\n  - ../more/outputs\n", "includes outputs, which every step has", 21),
        ("[{type: artifact, name: x}]", "includes a package of a feed", 20),
        ("['https://example.org/a.zip']", "includes https://example.org/a.zip", 20),
    ],
)
def test_additional_includes_that_cannot_be_there_are_refused(
    load: Load, tmp_path: Path, includes: str, problem: str, line: int
) -> None:
    (tmp_path / "more").mkdir()
    for name in ("a.csv", "fit.py", "outputs"):
        (tmp_path / "more" / name).touch()
    (tmp_path / "fit" / "fit.yml").write_text(f"{COMPONENT}additional_includes: {includes}")
    error = refused(load, job(FIT))
    assert problem.format(root=tmp_path) in error.problem
    assert (str(error.file), error.line) == ("fit/fit.yml", line)


def test_a_missing_line_of_a_file_of_additional_includes_is_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "fit" / "fit.additional_includes").write_text("../data\n../none\n")
    error = refused(load, job(FIT))
    assert "none, which does not exist" in error.problem
    assert (str(error.file), error.line) == ("fit/fit.additional_includes", 2)


def test_a_script_may_be_one_of_the_additional_includes(load: Load) -> None:
    assert load(job("command: python src/x.py && python x.py\nadditional_includes: [src]")).steps
    error = refused(load, job("command: python elsewhere/c.py\nadditional_includes: [elsewhere]"))
    assert "starts elsewhere/c.py" in error.problem


@pytest.mark.parametrize(
    ("content", "problem", "line"),
    [
        (COMPONENT.replace("type: command", "type: spark"), "is of type `spark`", 2),
        (COMPONENT.replace("./src", "./nowhere"), "nowhere, which does not exist", 14),
        (COMPONENT.replace("python fit.py", "python fitt.py"), "starts fitt.py", 16),
        (COMPONENT.replace("default: step", "default: {a: b}"), "has to be a string, not a mapping", 10),
        (COMPONENT.replace("min: 1", "min: low"), "has to be a number, not `low`", 7),
        (COMPONENT.replace("enum: [step, time-based]", "enum: step"), "has to be a list", 10),
        (COMPONENT.replace("optional: true", "optional: maybe"), "true or false", 11),
        (
            COMPONENT.replace("$[[--start-from ${{inputs.start_from}}]]", "${{inputs.start_from}}"),
            "optional and not",
            16,
        ),
        ("- a\n", "is not a component file", 1),
        ("a: [\n", "is not valid YAML", 2),
        ("", "is empty", 1),
    ],
)
def test_what_is_wrong_in_a_component_is_said_with_the_components_line(
    load: Load, tmp_path: Path, content: str, problem: str, line: int
) -> None:
    (tmp_path / "fit" / "fit.yml").write_text(content)
    error = refused(load, job(FIT))
    assert problem in error.problem
    assert (error.file, error.line) == (Path("fit/fit.yml"), line)


@pytest.mark.parametrize(
    ("make", "problem", "remedy"),
    [
        (lambda file: None, "There is no pipeline file pipeline.yml", "Check the path"),
        (lambda file: file.mkdir(), "pipeline.yml is a folder", "Name a pipeline file"),
        (lambda file: (file.mkdir(), (file / "p.yml").touch()), "is a folder", "`p.yml`"),
        (lambda file: file.write_bytes(b"type: pipeline\nname: \xff\xfe\n"), "is not UTF-8", "Save it"),
        (lambda file: file.write_bytes("type: pipeline".encode("utf-16")), "is not UTF-8", "Save it"),
        (lambda file: file.write_text("a: " + "[" * 5000), "", ""),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], problem: str, remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "pipeline.yml")
    with pytest.raises(UserError) as caught:
        load_pipeline(Path("pipeline.yml"))
    assert problem in caught.value.problem
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    "command",
    [
        "cd sub && python y.py",
        "python $SCRIPT.py",
        "python ${{inputs.x}}/y.py",
        "wget https://example.org/y.py && python y.py",
        "python -m y.py",
        "python /opt/y.py",
        "python -c 'import y' y.py",
        "make; python y.py",
        "bash y.sh && python y.py",
        "Rscript y.R",
        "python x.py && python y.py",
        "pip install -r r.txt && python -u x.py",
        "A=1 python3.11 -W ignore ./x.py",
        "echo start\npython \\\n  x.py",
        "python 'it is not closed",
    ],
)
def test_a_script_that_may_be_there_is_not_looked_for(load: Load, command: str) -> None:
    lines = "".join(f"\n  {line}" for line in command.splitlines())
    assert load(job(f"command: |{lines}\ncode: src\ninputs: {{x: a}}")).steps


@pytest.mark.parametrize(
    ("command", "script"),
    [
        ("echo start && python y.py", "y.py"),
        ("pip install x\npython y.py --a $B", "y.py"),
        ("A=1 python3 -u -W ignore ./sub/y.py", "./sub/y.py"),
        ("python \\\n  y.py ${{inputs.x}}", "y.py"),
    ],
)
def test_a_script_that_is_certainly_missing_is_named(load: Load, command: str, script: str) -> None:
    lines = "".join(f"\n  {line}" for line in command.splitlines())
    error = refused(load, job(f"command: |{lines}\ncode: src\ninputs: {{x: a}}"))
    assert f"starts {script}, which is not in" in error.problem
