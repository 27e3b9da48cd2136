"""Settings: flag, then environment variable, then `.env`, then default."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from workflows.errors import BadValue, UserError
from workflows.settings import resolve
from workflows.settings_table import SETTINGS, Setting

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / ".env").write_text("AML_SCORING_PORT=1001\nAML_IMAGE_TAG=stored:1\nAML_DEBUG_TIMEOUT=11\n")
    return tmp_path


def test_a_flag_wins_over_a_variable_over_dot_env_over_the_default(project: Path) -> None:
    environ = {"AML_SCORING_PORT": "2002", "AML_IMAGE_TAG": "variable:1"}
    settings = resolve(project, {"scoring_port": "3003"}, environ=environ, cwd=project)
    assert settings.scoring_port == 3003
    assert settings.image_tag == "variable:1"
    assert settings.debug_timeout == 11
    assert settings.debug_port == 5678
    assert settings.set_by["scoring_port"] == "--scoring-port"
    assert settings.set_by["image_tag"] == "AML_IMAGE_TAG"
    assert "debug_port" not in settings.set_by


def test_an_empty_variable_counts_as_not_set_and_an_empty_flag_is_refused(project: Path) -> None:
    assert resolve(project, environ={"AML_SCORING_PORT": ""}, cwd=project).scoring_port == 1001
    with pytest.raises(BadValue):
        resolve(project, {"image_tag": ""}, environ={}, cwd=project)


def test_paths_in_settings_belong_to_the_project_and_on_the_command_line_to_the_current_folder(
    tmp_path: Path,
) -> None:
    project, cwd = tmp_path / "project", tmp_path / "elsewhere"
    project.mkdir()
    cwd.mkdir()
    (project / ".env").write_text("AML_MODEL_DIR=models\n")
    assert resolve(project, environ={}, cwd=cwd).model_dir == project / "models"
    assert resolve(project, environ={"AML_MODEL_DIR": "../m"}, cwd=cwd).model_dir == tmp_path / "m"
    assert resolve(project, {"model_dir": "models"}, environ={}, cwd=cwd).model_dir == cwd / "models"


def test_a_byte_order_mark_quotes_export_and_other_peoples_variables_are_fine(tmp_path: Path) -> None:
    text = "\ufeffexport AML_ENGINE=\"process\"\r\nOTHER_THING=1\r\nAML_MODEL_DIR='a folder'\r\n# AML_ODD=1\r\n"
    (tmp_path / ".env").write_text(text, newline="")
    settings = resolve(tmp_path, environ={}, cwd=tmp_path)
    assert settings.engine == "process"
    assert settings.model_dir == tmp_path / "a folder"


@pytest.mark.parametrize("value", ["80a", "-1", "65536", "8000.0", "٣", " "])
def test_a_port_that_is_none_is_refused_where_it_was_set(tmp_path: Path, value: str) -> None:
    with pytest.raises(BadValue) as typed:
        resolve(tmp_path, {"scoring_port": value}, environ={}, cwd=tmp_path)
    assert typed.value.exit_code == 2 and "--scoring-port" in typed.value.remedy
    with pytest.raises(UserError) as variable:
        resolve(tmp_path, environ={"AML_SCORING_PORT": value}, cwd=tmp_path)
    assert variable.value.exit_code == 1 and "AML_SCORING_PORT" in variable.value.problem


def test_the_content_of_a_malformed_line_is_not_shown_since_it_may_be_a_secret(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AML_ENGINE=auto\nhunter2 is the password\n")
    with pytest.raises(UserError) as found:
        resolve(tmp_path, environ={}, cwd=tmp_path)
    assert found.value.line == 2
    assert "hunter2" not in str(found.value)


@pytest.mark.parametrize(
    "text",
    ["A=1\nB='secret\n", 'A=1\nB="secret\nC=2\n', "A=1\nexport B = 'secret\\'\n", "A=1\nAML_ENGINE=\"docker'\n"],
)
def test_a_quote_that_is_not_closed_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / ".env").write_text(text)
    with pytest.raises(UserError) as caught:
        resolve(tmp_path, environ={})
    assert caught.value.problem == "The quote is not closed." and caught.value.line == 2
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["B\n", "B='a' b\n", "=1\n", "'B=1\n"])
def test_another_malformed_line_is_no_open_quote(tmp_path: Path, text: str) -> None:
    (tmp_path / ".env").write_text(text)
    with pytest.raises(UserError, match="This line is not NAME=value") as caught:
        resolve(tmp_path, environ={})
    assert caught.value.line == 1


def test_what_to_do_about_an_env_that_cannot_be_read_fits_the_case(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_bytes(b"A=1\n" * 70000)
    with pytest.raises(UserError, match="it is larger than 256 kB") as caught:
        resolve(tmp_path, environ={})
    assert caught.value.remedy == "Leave only settings in it, and move all else to another file."


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_plain_file_in_the_place_of_env_is_to_be_moved(tmp_path: Path, kind: str) -> None:
    if kind == "folder":
        (tmp_path / ".env").mkdir()
    elif hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / ".env")
    else:
        pytest.skip("there are no named pipes")
    with pytest.raises(UserError, match=r"\.env cannot be read") as caught:
        resolve(tmp_path, environ={})
    assert caught.value.remedy.startswith("Rename it, or remove it")


def test_the_example_lists_every_setting_with_its_default() -> None:
    text = (ROOT / ".env.example").read_text()
    listed = dict(re.findall(r"^# (AML_[A-Z_]+)=(.*)$", text, re.MULTILINE))
    assert set(listed) == {setting.variable for setting in SETTINGS}
    for setting in SETTINGS:
        if setting.default:
            assert listed[setting.variable] == setting.default
    uncommented = re.sub(r"^# (AML_)", r"\1", text, flags=re.MULTILINE)
    assert "AML_ENGINE=auto" in uncommented


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.variable)
def test_help_that_begins_with_a_capital_spells_no_value_with_one(setting: Setting) -> None:
    word = re.split(r"[\s,:;(]", setting.help, maxsplit=1)[0]
    assert word not in (setting.default, "docker", "relay", "network", "v1", "v2", "on", "off", "interactive", "local")


def test_the_example_with_everything_uncommented_means_the_defaults(tmp_path: Path) -> None:
    text = (ROOT / ".env.example").read_text()
    (tmp_path / ".env").write_text(re.sub(r"^# (AML_)", r"\1", text, flags=re.MULTILINE))
    (tmp_path / "plain").mkdir()
    stored = resolve(tmp_path, environ={}, cwd=tmp_path)
    plain = resolve(tmp_path / "plain", environ={}, cwd=tmp_path)
    for setting in SETTINGS:
        if not setting.path:
            assert getattr(stored, setting.field) == getattr(plain, setting.field)


def test_a_script_is_named_from_the_source_folder_or_as_any_path_that_leads_into_it(tmp_path: Path) -> None:
    (tmp_path / "src" / "code").mkdir(parents=True)
    (tmp_path / "src" / "code" / "main.py").write_text("")
    script = tmp_path / "src" / "code" / "main.py"
    (tmp_path / ".env").write_text("AML_SOURCE_DIR=src\nAML_SCORE_SCRIPT=code/main.py\n")
    found = resolve(tmp_path, environ={}, cwd=tmp_path / "src" / "code")
    assert (found.score_script, found.source_root) == (script, tmp_path / "src")
    for text in ("src/code/main.py", str(script)):
        found = resolve(tmp_path, {"score_script": text}, environ={}, cwd=tmp_path)
        assert found.score_script == script
    (tmp_path / ".env").unlink()
    alone = resolve(tmp_path, {"source_directory": "src"}, environ={}, cwd=tmp_path)
    assert alone.score_script == tmp_path / "src" / "score.py"
    without = resolve(tmp_path, {"score_script": "src/code/main.py"}, environ={}, cwd=tmp_path)
    assert without.source_directory is None and without.source_root == tmp_path / "src" / "code"
