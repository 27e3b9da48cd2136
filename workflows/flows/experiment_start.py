"""The end of an experiment's run before its script was started: a failed start, or a cancel by another command."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from ..engines import reservations
from ..errors import UserError
from ..runs import record as records
from ..runs import store
from ..runs.record import RunRecord

#: Seconds between two checks whether a run is to be canceled while its environment is built.
POLL_SECONDS = 0.05


class Canceled(UserError):
    """Another command has canceled the run."""


def check_canceled(run: RunRecord) -> None:
    """Raise an error if another command has canceled a run.

    Raises:
        Canceled: One has.
    """
    if (run.folder / "cancel").exists():
        again = f"inv experiment.{'debug' if run.debugged else 'run'} {run.name}"
        raise Canceled(f"The run {run.run_id} was canceled.", f"Start it again: {again}")


@contextlib.contextmanager
def interrupt_when_canceled(run: RunRecord) -> Iterator[None]:
    """Interrupt the block, as Ctrl-C does, when another command cancels the run."""
    over = threading.Event()
    main = threading.main_thread().ident

    def look() -> None:
        while not over.wait(POLL_SECONDS):
            if (run.folder / "cancel").exists():
                # The main thread cleans up what it has begun.
                if hasattr(signal, "pthread_kill") and main is not None:
                    signal.pthread_kill(main, signal.SIGINT)
                else:
                    import _thread

                    _thread.interrupt_main()
                return

    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        # A shell's background job ignores SIGINT.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = threading.Thread(target=look, name="cancel", daemon=True)
    thread.start()
    try:
        yield
    except KeyboardInterrupt:
        check_canceled(run)
        raise
    finally:
        over.set()
        thread.join()
        if before is signal.SIG_IGN:
            signal.signal(signal.SIGINT, before)


def record_failed_start(run: RunRecord, error: BaseException) -> None:
    """Record the end of a run whose script was not started."""
    reservations.release([port for step in run.steps for port in step.ports.values()])
    # If nothing can be written, a later command finds that the run has no runner.
    with contextlib.suppress(OSError):
        if isinstance(error, (KeyboardInterrupt, Canceled)):
            store.close(run, records.CANCELED, "before its script was started")
        else:
            reason = error.problem if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            store.close(run, records.FAILED, reason)
