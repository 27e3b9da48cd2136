"""``azureml-debug``: Invoke's command line with this program's tasks, without a tasks.py."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from invoke import Argument, Collection, Exit, Program
from invoke.completion.complete import print_completion_script
from invoke.exceptions import ParseError

from ..command_name import OWN
from ..version import __version__

#: The flags of Invoke that make sense for this program.
_KEPT = frozenset(
    ("complete", "help", "list", "list-depth", "list-format", "print-completion-script", "version"),
)


class OwnProgram(Program):
    """The program that ``azureml-debug`` starts.

    Args:
        tasks: Its tasks.
    """

    def __init__(self, tasks: Collection) -> None:
        super().__init__(version=__version__, namespace=tasks, name=OWN, binary=OWN, binary_names=[OWN])

    def core_args(self) -> list[Argument]:
        """Invoke's flags, without those such as ``-f`` and ``-p`` that have other meanings in other programs."""
        return [argument for argument in super().core_args() if argument.name in _KEPT]

    def parse_core(self, argv: list[str] | None) -> None:
        """Read Invoke's own flags.

        Raises:
            Exit: The version or the completion script has been printed.
        """
        self.normalize_argv(argv)
        with _short_errors():
            self.parse_core_args()
            if self.args.version.value:
                self.print_version()
                raise Exit
            if shell := self.args["print-completion-script"].value:
                print_completion_script(shell=shell, names=self.binary_names)
                raise Exit

    def parse_tasks(self) -> None:
        """Read the tasks and their flags."""
        with _short_errors():
            super().parse_tasks()

    def parse_cleanup(self) -> None:
        """Show the help or the list if one was requested instead of a task.

        Raises:
            Exit: It has been shown.
            ParseError: There is no such task or collection.
        """
        from . import _hints

        task, collection = self.args.help.value, self.args.list.value
        if isinstance(task, str) and task not in self.parser.contexts:
            raise _hints.parse_error(_hints.unknown_task(task, self.parser.contexts, []), None)
        if isinstance(collection, str) and collection not in self.collection.collections:
            raise _hints.parse_error(_hints.unknown_collection(collection, self.collection.collections), None)
        super().parse_cleanup()

    def update_config(self, merge: bool = True) -> None:
        """Use Invoke's settings unchanged: this program has none of the flags that would change them."""
        self.config.merge()


@contextmanager
def _short_errors() -> Iterator[None]:
    """Show Invoke's errors in two lines, with exit code 2."""
    try:
        yield
    except ParseError as error:
        from . import _hints

        raise _hints.as_program_error(error) from None
