"""Stops a debugger in the frame in which an exception was raised, although the frame has ended."""

from __future__ import annotations

import threading
from typing import Any, Callable, Tuple

from .errors import file_of
from .threads import start_untraced


def stop(pydevd: Any, error: Tuple[Any, Any, Any], is_attached: Callable[[], bool]) -> None:
    """Pause this thread until the debugger resumes it or leaves.

    Args:
        pydevd: The current pydevd.
        error: The exception, as ``sys.exc_info()`` gives it.
        is_attached: Whether a debugger is attached.
    """
    _show_files(error[2])
    thread = threading.current_thread()
    state = pydevd.set_additional_thread_info(thread)
    done = threading.Event()

    def end_stop_without_debugger() -> None:
        # If the debugger has left before the stop, nothing else would end the stop.
        while not done.wait(0.2):
            if not is_attached():
                state.pydev_step_cmd, state.pydev_state = -1, 1

    start_untraced(end_stop_without_debugger, "azureml-debuggee-watch")
    try:
        if hasattr(pydevd, "trigger_exception_handler"):
            pydevd.trigger_exception_handler(error, as_uncaught=False)
            return
        # Before debugpy 1.8.22: do what that function does.
        frame, trace = None, error[2]
        while trace is not None:
            if pydevd.get_file_type(trace.tb_frame) != pydevd.PYDEV_FILE:
                frame = trace.tb_frame
            trace = trace.tb_next
        if frame is not None:
            state.is_tracing += 1
            try:
                pydevd.do_stop_on_unhandled_exception(thread, frame, None, error)
            finally:
                state.is_tracing -= 1
    finally:
        done.set()


def _show_files(trace: Any) -> None:
    """Have pydevd show the file of functions that were sent here by value, which it would take for a library's."""
    names = {}
    while trace is not None:
        name, file = trace.tb_frame.f_code.co_filename, file_of(trace.tb_frame)
        if name.startswith("<") and name not in ("<string>", "<stdin>") and not name.startswith("<frozen ") and file:
            names[name] = file
        trace = trace.tb_next
    try:
        import pydevd_file_utils

        for name, file in names.items():
            found = pydevd_file_utils.get_abs_path_real_path_and_base_from_file(file)
            pydevd_file_utils.NORM_PATHS_AND_BASE_CONTAINER[name] = found
    except (ImportError, AttributeError):
        pass  # An unknown pydevd.
