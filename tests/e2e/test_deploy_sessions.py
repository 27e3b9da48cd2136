"""Debug sessions of a deployed model, on both engines: stops, values, holds, edits."""

from __future__ import annotations

import json

from projects import ANY_ENGINE, PLAIN, PLAIN_LINE, Project, post, until
from services import CONFIGURATION, Posting, attach, stop_of, stop_thread_and_continue, value_of

from workflows.vscode.f5 import READY


def test_sessions_stop_show_values_leave_and_come_back_with_and_without_an_editor(project: Project) -> None:
    debug = project.debug()
    for _ in range(2):
        with attach(project, debug, PLAIN_LINE) as client:
            posting = Posting(debug["scoring_url"])
            frame = stop_of(client)
            assert frame["line"] == PLAIN_LINE
            assert frame["source"]["path"] == str(project.score)
            assert value_of(client, frame, "total") == "6"
            client.request("setExpression", {"expression": "total", "value": "7", "frameId": frame["id"]}, 20)
            client.request("continue", {"threadId": frame["thread"]}, 20)
            assert posting.finish() == {"answer": 70}
            client.disconnect()
        assert post(debug["scoring_url"]) == {"answer": 60}
    # A debugger that leaves during a pause lets the request go on.
    client = attach(project, debug, PLAIN_LINE)
    posting = Posting(debug["scoring_url"])
    stop_of(client)
    client.close()
    assert posting.finish() == {"answer": 60}
    inspect_shows_stack_values_and_response(project)
    # While an editor is attached, it is left alone.
    with attach(project, debug) as client:
        project.inv("deploy.inspect", f"score.py:{PLAIN_LINE}").says("attached", "Shift+F5")
        assert post(debug["scoring_url"]) == {"answer": 60}
        client.disconnect()


def inspect_shows_stack_values_and_response(project: Project) -> None:
    request = project.folder / "a request.json"
    request.write_text('{"data": [4, 5]}')
    arguments = ["--request", str(request), "--eval", "total + 1", "--eval", "nothing"]
    result = project.ok("deploy.inspect", f"score.py:{PLAIN_LINE}", *arguments, "--json").json
    assert result["stopped"] == {"file": str(project.score), "line": PLAIN_LINE, "function": "run"}
    assert result["stack"][0]["function"] == "run"
    assert result["locals"]["total"] == "9" and "answer" not in result["locals"]
    assert result["values"]["total + 1"] == "10"
    assert result["values"]["nothing"].startswith("NameError")
    assert result["response"] == {"status": 200, "body": {"answer": 90}}
    text = project.ok("deploy.inspect", f"score.py:{PLAIN_LINE}", "--request", str(request)).out
    assert "total = 9" in text and 'Response 200: {"answer": 90}' in text


@ANY_ENGINE
def test_inspect_refuses_what_it_cannot_do_in_two_lines(project: Project) -> None:
    project.inv("deploy.inspect", "score.py:15").says("No service", "inv deploy.debug")
    project.debug()
    assert project.inv("deploy.inspect", "score.py:x").code == 2
    project.inv("deploy.inspect", "other.py:3").says("other.py")
    project.inv("deploy.inspect", "score.py:900").says("900")
    project.inv("deploy.inspect", "score.py:5").says("score.py", "5")
    project.inv("deploy.inspect", "score.py:15", "--request", "none.json").says("none.json")
    project.inv("deploy.inspect", "score.py:9").says("score.py:9 was not reached")


def test_wait_holds_before_score_is_loaded_and_f5_attaches_to_what_holds_but_not_to_what_serves(
    project: Project,
) -> None:
    def created() -> float:
        return float(json.loads((project.state / "session.json").read_text())["created"])

    result = project.ok("deploy.debug", "--wait", "--json")
    held = result.json
    assert "holds for a debugger" in result.err
    assert "loaded" not in [event["event"] for event in project.events()]
    first = created()
    for flags in ([], ["--wait"]):
        pressed = project.ok("deploy.debug", *flags, AZUREML_DEBUG_F5=CONFIGURATION)
        assert pressed.out.strip().splitlines()[-1] == READY
        assert "is there already: holds for a debugger" in pressed.out and created() == first
    # What score.py imports can be debugged.
    with attach(project, held, 4, 9) as client:
        assert stop_of(client)["line"] == 4
        frame = stop_thread_and_continue(client)
        assert (frame["name"], frame["line"]) == ("init", 9)
        client.disconnect()
    assert post(held["scoring_url"]) == {"answer": 60}
    log = project.ok("container.logs").out
    assert "Timeout for debug connection: 300" in log.splitlines()
    assert "Debugger attached = True" in log.splitlines()
    pressed = project.ok("deploy.debug", "--wait", AZUREML_DEBUG_F5=CONFIGURATION)
    assert "is there already" not in pressed.out and created() > first
    assert "loaded" not in [event["event"] for event in project.events()]
    # With another score.py it is not what is wanted any more.
    other = project.score.with_name("other.py")
    other.write_text(PLAIN)
    project.ok("deploy.debug", AZUREML_DEBUG_F5=CONFIGURATION, AML_SCORE_SCRIPT="service/other.py")
    assert "loaded" in [event["event"] for event in project.events()]


def test_wait_ends_after_the_timeout_and_the_service_serves(project: Project) -> None:
    debug = project.debug("--wait", "--debug-timeout", "1")
    until(lambda: "loaded" in [event["event"] for event in project.events()], "serving after the wait")
    assert post(debug["scoring_url"]) == {"answer": 60}
    assert "Debugger attached = False" in project.ok("container.logs").out.splitlines()
    with attach(project, debug, PLAIN_LINE) as client:
        posting = Posting(debug["scoring_url"])
        assert stop_of(client)["line"] == PLAIN_LINE
        client.disconnect()
    assert posting.finish() == {"answer": 60}


PUBLISHED = "import debugpy\ndebugpy.listen(('0.0.0.0', 5678))\ndebugpy.wait_for_client()\n" + PLAIN


def test_the_published_lines_at_the_top_of_score_work_untouched(project: Project) -> None:
    project.write_score(PUBLISHED)
    result = project.ok("deploy.debug", "--json")
    assert "holds for a debugger" in result.err and "waits by itself" in result.err
    with attach(project, result.json, PLAIN_LINE + 3) as client:
        posting = Posting(result.json["scoring_url"])
        assert stop_of(client)["line"] == PLAIN_LINE + 3
        client.disconnect()
    assert posting.finish() == {"answer": 60}
    assert project.score.read_text() == PUBLISHED


def test_reload_puts_edits_into_the_service_whatever_is_attached(project: Project) -> None:
    debug = project.debug()
    for model, paused in ((20, False), (30, True)):
        client = attach(project, debug, PLAIN_LINE)
        if paused:
            posting = Posting(debug["scoring_url"])
            stop_of(client)
        # The same length in the same second: byte code must not hide it.
        project.write_score(PLAIN.replace("model = 10", f"model = {model}"))
        project.ok("deploy.reload")
        client.close()
        assert post(debug["scoring_url"]) == {"answer": 6 * model}
        with attach(project, debug, PLAIN_LINE) as again:
            posting = Posting(debug["scoring_url"])
            assert value_of(again, stop_of(again), "model") == str(model)
            again.disconnect()
        assert posting.finish() == {"answer": 6 * model}
    broken_edits_are_told_with_their_line_and_mended_ones_serve(project, debug["scoring_url"])


def broken_edits_are_told_with_their_line_and_mended_ones_serve(project: Project, url: str) -> None:
    project.write_score("raise ValueError\n" + PLAIN)
    for _ in range(2):
        project.inv("deploy.reload").says("service/score.py:1: error: ValueError", "inv deploy.reload")
    rows = project.ok("container.list", "--json").json["services"]
    assert [row["state"] for row in rows if row["project"] == str(project.folder)] == ["down"]
    # Mended at once: the service may be on its way down still.
    project.write_score(PLAIN)
    project.ok("deploy.reload")
    assert post(url) == {"answer": 60}
    project.write_score(PLAIN.replace("total = sum(numbers)", "total = = 3"))
    project.inv("deploy.reload").says("service/score.py:14: error: SyntaxError")
    project.write_score(PLAIN.replace("model = 10", "model = 30"))
    project.ok("deploy.reload")
    assert post(url) == {"answer": 180}
