"""VS Code's own workbench for the tests: code-server on 127.0.0.1, looked at with Chromium and worked by its keys.

What is seen is what a person sees: the line it stopped at, the Variables pane, the Problems pane, the terminal.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote
from urllib.request import urlopen

from projects import ROOT, until

PARTS = Path(__file__).parent / "vscode"
#: Where `install.sh` has put code-server.
FOLDER = "AZUREML_DEBUG_TEST_EDITOR"
#: Where screenshots are kept; a folder of pytest's by default.
PICTURES = "AZUREML_DEBUG_TEST_PICTURES"
#: Whether the README's pictures are made anew.
README = "AZUREML_DEBUG_TEST_README"
IMAGES = ROOT / "docs" / "images"
#: Seconds for what the workbench does by itself.
SECONDS = 120.0
#: Milliseconds after which a key is pressed once more where nothing has come of it.
_AGAIN = 10_000.0
_T = TypeVar("_T")
#: A person's settings that keep the workbench quiet, and its terminal readable for `terminal`.
_SETTINGS = {
    "security.workspace.trust.enabled": False,
    "files.autoSave": "off",
    "remote.autoForwardPorts": False,
    "chat.disableAIFeatures": True,
    "workbench.startupEditor": "none",
    "workbench.secondarySideBar.defaultVisibility": "hidden",
    "workbench.tips.enabled": False,
    "workbench.reduceMotion": "on",
    "workbench.colorTheme": "Default Light Modern",
    "telemetry.telemetryLevel": "off",
    "terminal.integrated.gpuAcceleration": "off",
    "terminal.integrated.shellIntegration.enabled": False,
    "debug.toolBarLocation": "docked",
    "debug.inlineValues": "off",
    "editor.minimap.enabled": False,
    "editor.cursorBlinking": "solid",
    "git.enabled": False,
    "extensions.ignoreRecommendations": True,
    "extensions.autoCheckUpdates": False,
    "extensions.autoUpdate": False,
    "workbench.enableExperiments": False,
    "window.restoreWindows": "none",
}
#: Those of VS Code's own extensions that the tests use. Each window would read and start all ninety of them.
_EXTENSIONS = (
    "configuration-editing",
    "json",
    "json-language-features",
    "python",
    "theme-defaults",
    "theme-seti",
    "yaml",
)
#: What moves is drawn sixty times a second, by the CPU here.
_STILL = """addEventListener("DOMContentLoaded", () => {
    const style = document.createElement("style");
    style.textContent = "*, *::before, *::after { animation: none !important }";
    document.head.append(style);
})"""
#: Waits for a change of what is shown, and for what comes with it (100 ms), but for a second at most: a change
#: may have come before.
_CHANGE = """() => new Promise((resolve) => {
    const observer = new MutationObserver(() => done(100));
    const done = (milliseconds) => {
        observer.disconnect();
        setTimeout(resolve, milliseconds);
    };
    observer.observe(document, {subtree: true, childList: true, attributes: true, characterData: true});
    setTimeout(() => done(0), 1000);
})"""


def what_is_missing() -> str:
    """Why the editor cannot be had here; empty where it can."""
    import importlib.util

    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed (pip install -e '.[editor]')"
    if _chromium() is None:
        return "no chromium is installed"
    folder = os.environ.get(FOLDER, "")
    if not folder or not Path(folder, "installed").is_file():
        return f"{FOLDER} names no folder that {PARTS / 'install.sh'} has filled"
    return ""


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@dataclass(frozen=True)
class Stop:
    """Where the editor shows that the program has stopped."""

    file: str
    line: int
    function: str


class Workbench:
    """A running code-server and a browser, shared by tests; each opens its own folder in it.

    Args:
        folder: For its data.
        pictures: Where screenshots go.
        size: Of the window.
    """

    def __init__(self, folder: Path, pictures: Path) -> None:
        from playwright.sync_api import sync_playwright

        self.pictures = pictures
        self._log = folder / "code-server.log"
        self._port = _free_port()
        self._server = self._start(folder)
        self._stack = contextlib.ExitStack()
        try:
            address = f"http://127.0.0.1:{self._port}"
            until(lambda: self._answers(f"{address}/healthz"), f"code-server ({self._log})", SECONDS)
            playwright = self._stack.enter_context(sync_playwright())
            # One profile: what a window loads lies compiled in it for the next ones.
            self._browser = playwright.chromium.launch_persistent_context(
                folder / "profile",
                executable_path=_chromium(),
                # One process for all windows: the workbench is compiled in it already for all but the first.
                args=["--no-sandbox", "--disable-gpu", "--process-per-site"],
                viewport={"width": 1280, "height": 800},
                timeout=SECONDS * 1000,
            )
            self._stack.callback(self._browser.close)
            self._browser.set_default_timeout(SECONDS * 1000)
            # That process ends with its last page.
            self._browser.pages[0].goto(f"{address}/healthz")
            self._browser.add_init_script(_STILL)
        except BaseException:
            self.close()
            raise

    def _start(self, folder: Path) -> subprocess.Popen[bytes]:
        data, extensions, own = folder / "data", folder / "extensions", folder / "own-extensions"
        (data / "User").mkdir(parents=True)
        (data / "User" / "settings.json").write_text(json.dumps(_SETTINGS))
        shutil.copytree(PARTS / "ready", extensions / "tests.ready-1.0.0")
        stand_in = extensions / "tests.debugpy-1.0.0"
        shutil.copytree(PARTS / "debugpy", stand_in)
        manifest = json.loads((stand_in / "package.json").read_text())
        schema = json.loads((PARTS / "attach.schema.json").read_text())
        taken = {name: value for name, value in schema["properties"].items() if name not in ("name", "type", "request")}
        manifest["contributes"]["debuggers"][0]["configurationAttributes"] = {"attach": {"properties": taken}}
        (stand_in / "package.json").write_text(json.dumps(manifest))
        installed = Path(os.environ[FOLDER])
        node = installed / "node_modules" / "node" / "bin" / "node"
        code_server = installed / "node_modules" / "code-server"
        own.mkdir()
        for name in _EXTENSIONS:
            (own / name).symlink_to(code_server / "lib" / "vscode" / "extensions" / name)
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("VSCODE", "VIRTUAL_ENV"))}
        with open(self._log, "wb") as log:
            return subprocess.Popen(
                [
                    *(str(node), str(code_server / "out" / "node" / "entry.js")),
                    *("--bind-addr", f"127.0.0.1:{self._port}", "--auth", "none"),
                    *("--user-data-dir", str(data), "--extensions-dir", str(extensions)),
                    *("--builtin-extensions-dir", str(own)),
                    *("--config", str(folder / "config.yaml"), "--disable-telemetry", "--disable-update-check"),
                    "--disable-workspace-trust",
                ],
                # As from a desktop: no activated environment, and another folder than the project's.
                env={**environ, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _answers(self, address: str) -> bool:
        assert self._server.poll() is None, self._log.read_text()
        try:
            with urlopen(address, timeout=5) as answer:
                return int(answer.status) == 200
        except OSError:
            return False

    @contextlib.contextmanager
    def open(self, folder: Path, name: str) -> Iterator[Editor]:
        """Open a folder in a new window; closed at the end, with a last picture where the test has failed."""
        page = self._browser.new_page()
        try:
            editor = Editor(page, self.pictures, name)
            address = f"http://127.0.0.1:{self._port}"
            # Nothing is remembered of the windows before.
            self._browser.new_cdp_session(page).send(
                "Storage.clearDataForOrigin", {"origin": address, "storageTypes": "cookies,indexeddb,local_storage"}
            )
            page.goto(f"{address}/?folder={quote(str(folder))}")
            editor.ready()
            try:
                yield editor
            except BaseException:
                with contextlib.suppress(Exception):
                    editor.picture("failed")
                raise
            # A session that goes on would be told as one that was left.
            editor.stop()
        finally:
            page.close()

    def close(self) -> None:
        """End browser and server."""
        self._stack.close()
        if self._server.poll() is None:
            os.killpg(self._server.pid, signal.SIGTERM)
            try:
                self._server.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._server.pid, signal.SIGKILL)
                self._server.wait()


class Editor:
    """One window of VS Code."""

    def __init__(self, page: Any, pictures: Path, name: str) -> None:
        self.page = page
        self._pictures = pictures
        self._name = name
        self._taken = 0

    def ready(self) -> None:
        """Wait until the workbench stands and its extensions have been started."""
        self.page.wait_for_selector(".monaco-workbench")
        self.page.wait_for_selector(".explorer-viewlet .monaco-list-row")
        # Until then F5 does nothing: VS Code knows no debugger before its extension host runs.
        self.page.locator(".statusbar-item", has_text="Ready for F5").wait_for()

    def picture(self, what: str, readme: str = "") -> Path:
        """Keep a screenshot; where it is asked for, the README's picture of that name is made anew from it.

        What such a picture shows lies beside it as text, and has to be what is there now.
        """
        self._taken += 1
        plain = re.sub(r"[^\w.-]+", "-", f"{self._name}-{self._taken:02}-{what}")
        path = self._pictures / f"{plain}.png"
        self.page.screenshot(path=str(path))
        if readme:
            shown, text = IMAGES / Path(readme).with_suffix(".txt"), self._text()
            if os.environ.get(README):
                IMAGES.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, IMAGES / readme)
                shown.write_text(text, encoding="utf-8")
            assert shown.read_text(encoding="utf-8") == text, f"{readme} is stale: set {README}=1 and run this again"
        return path

    def _text(self) -> str:
        """What a picture of a stop is for, in words: the session, the frames, the variables."""
        frames = self.page.locator(".debug-call-stack .monaco-list-row .stack-frame").all_inner_texts()
        session = self.page.locator(".statusbar-item[id='status.debug']").first.inner_text().strip()
        rows = [f"{key} = {value}" for key, value in self.variables().items()]
        return "\n".join([session, *(" ".join(one.split()) for one in frames), *rows, ""])

    def _until(self, look: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
        def patient() -> Any:
            found = look()
            # Nothing comes any more once VS Code asks what to do.
            assert found or look == self.dialog or not self.dialog(), f"{what} will not happen"
            if not found:
                self.page.evaluate(_CHANGE)
            return found

        try:
            return until(patient, what, seconds)
        except AssertionError as error:
            shown = "\n".join(filter(None, [self.dialog(), self.notifications(), self.terminal()]))
            raise AssertionError(f"{error}; VS Code shows:\n{shown}") from None

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def _ask(self, key: str, text: str, answer: Callable[[], _T]) -> _T:
        """Type into the quick input, and do something with the rows that it finds.

        It closes when something else takes the focus. On a busy machine the workbench may do that by itself long after
        the key: it is opened again then.
        """
        from playwright.sync_api import TimeoutError as TooLate

        box = self.page.locator(".quick-input-widget:visible .quick-input-box input")
        found: list[_T] = []

        def done() -> bool:
            try:
                if not box.is_visible():
                    self.press(key)
                    box.wait_for(timeout=_AGAIN)
                box.fill(text, timeout=_AGAIN)
                found.append(answer())
            except TooLate:
                return False
            return True

        self._until(done, f"{text!r} typed into the quick input")
        return found[0]

    def _pick(self, key: str, text: str, row: str) -> None:
        """Type into the quick input, and choose the row that it finds."""
        rows = self.page.locator(".quick-input-widget:visible .quick-input-list .monaco-list-row", has_text=row)
        self._ask(key, text, lambda: rows.first.click(timeout=_AGAIN))
        self.page.locator(".quick-input-widget:visible").wait_for(state="hidden")

    def command(self, title: str) -> None:
        """Run a command by its title."""
        self._pick("F1", f">{title}", title)

    # Files and breakpoints

    def open_file(self, name: str, line: int = 1) -> None:
        """Open a file of the folder by Ctrl+P, at a line."""
        base = Path(name).name
        self._pick("Control+P", f"{name}:{line}", base)
        self.page.locator(f".tab.active[data-resource-name='{base}']").wait_for()
        self._until(lambda: self.line == line, f"the cursor on line {line}")

    @property
    def line(self) -> int:
        """The cursor's line, as the status bar has it."""
        found = re.search(r"Ln (\d+)", self.page.locator(".statusbar").inner_text())
        return int(found[1]) if found else 0

    def breakpoint(self, name: str, line: int) -> None:
        """Set a breakpoint with F9."""
        self.open_file(name, line)
        before = self._breakpoints()
        self.press("F9")
        self._until(lambda: self._breakpoints() == before + 1, f"a breakpoint at {name}:{line}")

    def _breakpoints(self) -> int:
        return int(self.page.locator(".cgmr.codicon-debug-breakpoint").count())

    # Debugging

    def choose(self, configuration: str) -> None:
        """Choose a configuration in Run and Debug."""
        from playwright.sync_api import Error

        self.press("Control+Shift+D")
        chosen = self.page.locator(".start-debug-action-item-label")
        chosen.wait_for()
        item = self.page.get_by_role("menuitem", name=configuration, exact=True).or_(
            self.page.get_by_role("menuitemcheckbox", name=configuration, exact=True)
        )

        def done() -> bool:
            if chosen.inner_text() == configuration:
                return True
            # A list that opens while the pane is still being drawn is closed again, and drawn anew as it is filled.
            if not item.is_visible():
                chosen.click()
                self.page.wait_for_timeout(300)
            with contextlib.suppress(Error):
                item.click(timeout=1000)
            return bool(chosen.inner_text() == configuration)

        self._until(done, f"the configuration {configuration} chosen")

    def start(self, configuration: str) -> None:
        """Choose a configuration and press F5, and nothing else."""
        self.choose(configuration)
        self.press("F5")

    def stop(self) -> None:
        """End every debug session, as the red square does."""
        while self.debugging:
            self.press("Shift+F5")
            self.page.wait_for_timeout(200)

    def stopped(self, file: str, line: int, seconds: float = 120) -> Stop:
        """Wait until the editor shows that the program has stopped at a line."""
        self._until(lambda: self._stop() and self._at(file, line), f"a stop at {file}:{line}", seconds)
        found = self._stop()
        assert found is not None
        return found

    def _at(self, file: str, line: int) -> bool:
        found = self._stop()
        return found is not None and (found.file, found.line) == (file, line)

    def _stop(self) -> Stop | None:
        """The first frame in the Call Stack pane of the session in focus."""
        found = self.page.evaluate(
            """() => {
                const row = document.querySelector(".debug-call-stack .monaco-list-row .stack-frame");
                const parts = [".file-name", ".line-number", ".label"];
                return row && parts.map((part) => row.querySelector(part)?.innerText ?? "");
            }"""
        )
        if found is None:
            return None
        name, place, function = found
        line = place.partition(":")[0]
        return Stop(name, int(line), function) if line.isdigit() else None

    def variables(self) -> dict[str, str]:
        """The rows of the Variables pane."""
        rows = self.page.locator(".debug-variables .monaco-list-row").evaluate_all(
            """(rows) => rows
                .map((row) => [row.querySelector(".name"), row.querySelector(".value")])
                .filter(([, value]) => value)
                .map((parts) => parts.map((part) => (part?.innerText ?? "").trim()))"""
        )
        return {name.removesuffix("=").strip().removesuffix(":"): value for name, value in rows}

    def until_variable(self, name: str, value: str) -> None:
        """Wait until the Variables pane has a value."""
        self._until(lambda: self.variables().get(name) == value, f"{name} = {value} (of {self.variables()})")

    def set_value(self, name: str, value: str) -> None:
        """Change a variable in the Variables pane, by a double click on it."""
        row = self.page.locator(".debug-variables .monaco-list-row").filter(
            has=self.page.locator(".name", has_text=re.compile(rf"^{re.escape(name)}\b"))
        )
        row.first.locator(".value").dblclick()
        # Rows are used again, with the hidden boxes of earlier values in them.
        box = self.page.locator(".debug-variables .inputBoxContainer input:visible")
        box.wait_for()
        box.fill(value)
        box.press("Enter")
        box.wait_for(state="hidden")

    def open_variable(self, name: str) -> None:
        """Open what is in a variable."""
        row = self.page.locator(".debug-variables .monaco-list-row").filter(
            has=self.page.locator(".name", has_text=re.compile(rf"^{re.escape(name)}\b"))
        )
        row.first.locator(".monaco-tl-twistie").click()

    def until_row(self, text: str) -> None:
        """Wait until the Variables pane has a row with a text."""
        rows = self.page.locator(".debug-variables .monaco-list-row")
        self._until(lambda: any(text in row for row in rows.all_inner_texts()), f"a row {text}")

    def watch(self, expression: str, value: str) -> None:
        """Add a watch, and wait until its value is shown."""
        self.command("Debug: Focus on Watch View")
        pane = self.page.locator(".pane", has=self.page.locator(".debug-watch"))
        pane.locator(".pane-header").hover()
        pane.locator("a.action-label[aria-label='Add Expression']").click()
        box = self.page.locator(".debug-watch .inputBoxContainer input:visible")
        box.wait_for()
        box.fill(expression)
        box.press("Enter")
        rows = self.page.locator(".debug-watch .monaco-list-row")

        def is_shown() -> bool:
            return any(expression in row and value in row for row in rows.all_inner_texts())

        self._until(is_shown, f"{expression} = {value} (of {rows.all_inner_texts()})")

    def until_exception(self, *parts: str) -> None:
        """Wait until what was raised is shown in the file."""
        from playwright.sync_api import Error

        box = self.page.locator(".exception-widget")

        def is_shown() -> bool:
            text = box.first.inner_text() if box.count() else ""
            if not text:
                # On a busy machine VS Code fetches the stack twice, and then takes the frame in focus for another one.
                with contextlib.suppress(Error):
                    self.page.locator(".debug-call-stack .monaco-list-row .stack-frame").first.click(timeout=1000)
                self.page.wait_for_timeout(500)
            return all(part in text.replace("\u00a0", " ") for part in parts)

        self._until(is_shown, f"an exception with {parts}")

    def until_notification(self, text: str) -> None:
        """Wait until a notification, or a dialog, says something."""
        self._until(lambda: text in self.notifications(), f"a notification {text}")

    def until_running(self, seconds: float = SECONDS) -> None:
        """Wait until no thread is stopped."""
        self._until(lambda: self._stop() is None, "the program going on", seconds)

    def until_debugging(self, seconds: float = SECONDS) -> None:
        """Wait until a session is there."""
        self._until(lambda: self.debugging, "a debug session", seconds)

    def until_over(self, seconds: float = SECONDS) -> None:
        """Wait until there is no debug session."""
        self._until(lambda: not self.debugging, "the end of the session", seconds)

    @property
    def debugging(self) -> bool:
        """Whether a session is attached: it can be disconnected from then."""
        return bool(self.page.locator(".title-actions .codicon-debug-disconnect:visible").count())

    # What VS Code says

    def dialog(self) -> str:
        """The text of a dialog; empty where there is none."""
        box = self.page.locator(".monaco-dialog-box")
        return str(box.first.inner_text()) if box.count() else ""

    def until_dialog(self, seconds: float = 120) -> str:
        """Wait for a dialog; its text."""
        return str(self._until(self.dialog, "a dialog", seconds))

    def answer(self, button: str) -> None:
        """Press a button of a dialog."""
        self.page.locator(".monaco-dialog-box .monaco-button", has_text=button).first.click()
        self._until(lambda: not self.dialog(), "the dialog gone")

    def notifications(self) -> str:
        """The texts of notifications."""
        return "\n".join(self.page.locator(".notification-list-item-message").all_inner_texts())

    def problems(self) -> list[str]:
        """The rows of the Problems pane, which is opened where it is not."""
        pane = self.page.locator(".markers-panel")
        if not pane.is_visible():
            self.command("Problems: Focus on Problems View")
            pane.wait_for()
        return [text.replace("\n", " ") for text in pane.locator(".monaco-list-row").all_inner_texts()]

    def until_problem(self, *parts: str) -> list[str]:
        """Wait until the Problems pane has rows with these texts; all of its rows."""

        def look() -> list[str]:
            rows = self.problems()
            return rows if all(any(part in row for row in rows) for part in parts) else []

        found: list[str] = self._until(look, f"{parts} among the problems")
        return found

    def terminal(self) -> str:
        """The visible text of the terminal."""
        rows = self.page.locator(".terminal-wrapper.active .xterm-rows > div, .xterm-rows > div")
        return "\n".join(text.replace("\u00a0", " ").rstrip() for text in rows.all_inner_texts()).strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
