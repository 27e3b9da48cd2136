"""A service that serves, and what takes its place: whatever is wrong with that, nothing gets worse unsaid."""

from __future__ import annotations

import signal

from projects import ANY_ENGINE, PLAIN, Project, post, until

WRONG = PLAIN.replace("total = sum(numbers)", "total = (")


@ANY_ENGINE
def test_code_that_is_sure_not_to_load_leaves_the_old_code_serving(project: Project) -> None:
    debug = project.debug()
    helper = project.score.parent / "helper.py"
    helper.write_text("x = 1\nx = (\n")
    for text, place in (
        (WRONG, "service/score.py:14: error: SyntaxError"),
        (PLAIN.replace("def run", "def go"), "service/score.py: error: score.py has no function run()"),
        ("import helper\n" + PLAIN, "service/helper.py:2: error: SyntaxError"),
    ):
        project.write_score(text)
        for command in ("deploy.reload", "deploy.debug"):
            project.inv(command).says(place, f"then: inv {command}")
            assert post(debug["scoring_url"]) == {"answer": 60}
    # Nobody imports it in any case.
    for command, added in (("deploy.reload", 1), ("deploy.debug", 2)):
        text = f"try:\n    import helper\nexcept SyntaxError:\n    pass\n{PLAIN}".replace("* model", f"+ {added}")
        project.write_score(text)
        url = project.ok(command, "--json").json["scoring_url"]
        assert post(url) == {"answer": 6 + added}


def test_the_earlier_code_or_service_is_said_to_serve_only_where_it_does(project: Project) -> None:
    first = project.debug()
    project.write_score(WRONG)
    result = project.inv("deploy.reload")
    result.says("SyntaxError", "The earlier code goes on serving.")
    project.write_score("raise ValueError('x')\n" + PLAIN)
    project.inv("deploy.reload").says("service/score.py:1: error: ValueError: x", "then: inv deploy.reload")
    project.write_score(WRONG)
    result = project.inv("deploy.reload")
    result.says("service/score.py:14: error: SyntaxError")
    assert "goes on serving" not in result.err
    # What the advice names works.
    project.write_score(PLAIN)
    assert post(project.ok("deploy.reload", "--json").json["scoring_url"]) == {"answer": 60}
    # A second service that fails takes the first one's place.
    project.write_score("raise ValueError('x')\n" + PLAIN)
    result = project.inv("deploy.debug")
    result.says("ValueError: x")
    assert f"note: the service {first['container']} that ran before is gone" in result.out
    result = project.inv("deploy.debug")
    assert "is gone" not in result.out


def test_ctrl_c_in_a_second_debug_leaves_the_service_before_or_says_that_it_is_gone(project: Project) -> None:
    first = project.debug()
    folder = project.folder / "environment"
    folder.mkdir()
    # A package whose build does not end by itself.
    (folder / "endless").mkdir()
    begun = folder / "begun"
    text = f"import time\nopen({str(begun)!r}, 'w').close()\ntime.sleep(600)\n"
    (folder / "endless" / "setup.py").write_text(text)
    (folder / "requirements.txt").write_text("./endless\n")
    child = project.start("deploy.debug", AML_INFERENCE_ENV="environment")
    until(begun.exists, "the build of the package")
    child.send_signal(signal.SIGINT)
    result = project.finish(child, 120)
    assert result.code == 130
    assert "Interrupted in build" in result.err and "is gone" not in result.out
    assert post(first["scoring_url"]) == {"answer": 60}
    # Later, its place has been taken.
    project.write_score("import time\ntime.sleep(60)\n" + PLAIN)
    child = project.start("deploy.debug")

    def loading() -> bool:
        kinds = [event["event"] for event in project.events()]
        return "worker" in kinds and "loaded" not in kinds

    until(loading, "the loading of the second one")
    child.send_signal(signal.SIGINT)
    result = project.finish(child, 60)
    assert result.code == 130, result
    assert "Interrupted" in result.err
    assert f"note: the service {first['container']} that ran before is gone" in result.out
    project.inv("deploy.reload").says("No service of this project is running.", "inv deploy.debug")
