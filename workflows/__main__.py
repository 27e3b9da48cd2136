"""``azureml-debug``: the same tasks as ``inv`` has, in any folder, with or without a tasks.py."""

from __future__ import annotations


def main() -> None:
    """Run the command that was typed."""
    from . import command_name

    command_name.set_command(command_name.OWN)
    try:
        from .byte_code import byte_code_enabled

        with byte_code_enabled():
            from .tasks._program import OwnProgram
            from .tasks.all_tasks import namespace
        program = OwnProgram(namespace)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    program.run()


if __name__ == "__main__":
    main()
