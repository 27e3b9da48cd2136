"""Analyses a step's command, which is a text for bash.

The text is only parsed as far as necessary: words, quotes, operators and here-documents. What is only known when it
runs (variables, substitutions, loops) is taken literally, and text that bash would refuse is parsed without an error.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

_PYTHON = re.compile(r"python(3(\.\d+)?)?(\.exe)?")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
#: Words after which a command begins.
_RESERVED = frozenset(["if", "then", "else", "elif", "do", "while", "until", "!", "time", "{"])
#: Programs whose arguments are, or end in, another command.
_RUNNERS = frozenset(
    ["env", "exec", "command", "nohup", "nice", "ionice", "timeout", "stdbuf", "setsid", "sudo", "xargs", "numactl"]
) | frozenset(
    ["taskset", "chrt", "mpirun", "mpiexec", "srun", "conda", "mamba", "micromamba", "uv", "poetry", "pipenv", "pdm"]
)
#: Programs that start a script, whose name is on their command line without an interpreter.
_LAUNCHERS = frozenset(["torchrun", "accelerate", "accelerate-launch", "deepspeed", "horovodrun"])
#: The variable with the driver in the commands of parallel steps.
PARALLEL_DRIVER = "AZUREML_PARALLEL_RUN"
#: How many folders that `cd` may have changed to are considered.
_MOST_FOLDERS = 64
#: Launchers' options for the number of processes on a machine, with `_` for `-`: those of torchrun, accelerate,
#: deepspeed, mpirun and srun.
_COUNTS = ("__nproc_per_node", "__num_processes", "__num_gpus", "_np", "__np", "_n", "__ntasks")
#: How many ports are reserved for the ranks of a launcher whose number of processes is not known.
MOST_UNKNOWN_RANKS = 16
_LAUNCHER_MODULES = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands.launch")


@dataclass(frozen=True)
class _Word:
    """One word: its place in the text, and its text with and without quotes."""

    start: int
    end: int
    text: str
    raw: str


def debugged_command(command: str, launcher: str) -> str:
    """Insert the debuggee's launcher where Python would not load the debuggee by itself.

    That is where an interpreter is started with ``-I``, ``-E`` or ``-S``, or the command sets PYTHONPATH without its
    previous value. Everything else stays unchanged, byte for byte.

    Args:
        command: The text.
        launcher: Path of launch.py as the step sees it.
    """
    quoted = shlex.quote(launcher)
    inserted: list[tuple[int, int, str]] = []
    displaced = False
    for words in _commands(command):
        displaced = displaced or any(_displaces_path(word) for word in words)
        index = _interpreter(words)
        if index is None:
            continue
        operand = _operand(words, index)
        if operand is None or not (displaced or operand.isolated):
            continue
        word, letter = operand.word, operand.letter
        if letter == -1 or word.text == "-m":
            inserted.append((word.start, word.start, quoted + " "))
        elif word.raw == word.text:
            # `-Im mod` becomes `-I LAUNCHER -m mod`.
            before = word.raw[:letter]
            option = f"{before} " if before != "-" else ""
            inserted.append((word.start, word.end, f"{option}{quoted} -{word.raw[letter:]}"))
    done, at = list[str](), 0
    for start, end, text in inserted:
        done += [command[at:start], text]
        at = end
    return "".join([*done, command[at:]])


def names_own_script(command: str, code: Path | None, includes: Sequence[Path] = ()) -> bool:
    """Whether a command starts a script or module of the step's code, according to its text.

    Args:
        command: The text.
        code: The source folder, or the only source file.
        includes: Files and folders beside the code.
    """
    folders = [path.parent for path in includes]
    if code is not None:
        folders.insert(0, code if code.is_dir() else code.parent)
    for words in _commands(command):
        texts = [word.text for word in words]
        if texts[:1] == ["cd"] and len(texts) > 1:
            folders += [folder / texts[1] for folder in folders[:16]] if len(folders) < _MOST_FOLDERS else []
            continue
        for kind, name in _started(words):
            if any(_exists(folder, kind, name) for folder in folders):
                return True
    return False


def may_start_ranks(command: str) -> bool:
    """Whether a command starts its scripts with a program such as torchrun, which may start several processes."""
    if PARALLEL_DRIVER in command:
        return False  # When debugged, it only starts one process.
    for words in _commands(command):
        first = _program(words)
        if first is None:
            continue
        named = [word for word in words[first + 1 :] if word.text.endswith((".py", ".sh"))]
        if not _is_python(words[first]):
            if named or _basename(words[first]) in _LAUNCHERS:
                return True
            continue
        operand = _operand(words, first)
        if operand is None:
            continue
        # Another script is an argument of the script, or any script is an argument of a launcher module.
        hands_on = any(word is not operand.word for word in named)
        if hands_on or (operand.letter >= 0 and operand.name in _LAUNCHER_MODULES):
            return True
    return False


def count_started_ranks(command: str) -> int:
    """The largest number of processes that a launcher such as torchrun in a command starts of one script.

    Returns:
        1 if there is no launcher; :data:`MOST_UNKNOWN_RANKS` if the text does not have the number.
    """
    if not may_start_ranks(command):
        return 1
    most = 0
    for words in _commands(command):
        for index, word in enumerate(words):
            name, equals, value = word.text.partition("=")
            if name.replace("-", "_") in _COUNTS:
                following = words[index + 1].text if index + 1 < len(words) else ""
                count = value if equals else following
                most = max(most, int(count[:5]) if count.isascii() and count.isdigit() else 0)
    return most or MOST_UNKNOWN_RANKS


def published_port(command: str) -> int | None:
    """The port that a command requests with the published option ``--remote_debug_port``; otherwise None."""
    value = published_option(command, "--remote_debug_port")
    return int(value) if value.isascii() and value.isdigit() and 0 < int(value[:9]) < 65536 else None


def published_option(command: str, option: str) -> str:
    """The value of one of the published options in a command; empty if it has none."""
    for words in _commands(command):
        for index, word in enumerate(words):
            name, equals, value = word.text.partition("=")
            if name == option:
                return value if equals else words[index + 1].text if index + 1 < len(words) else ""
    return ""


# Python's command line ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Operand:
    """The script or module that an interpreter runs.

    Attributes:
        word: The script's word, or the one with the ``m`` of ``-m``.
        letter: The place of that ``m`` in the word; -1 for a script.
        name: The script or module.
        isolated: Whether an option before it disables the debuggee.
    """

    word: _Word
    letter: int
    name: str
    isolated: bool


def _operand(words: list[_Word], interpreter: int) -> _Operand | None:
    """The script or module after an interpreter; None for ``-c``, standard input and nothing."""
    isolated = False
    waiting = iter(range(interpreter + 1, len(words)))
    for index in waiting:
        word = words[index]
        if not word.text.startswith("-"):
            return _Operand(word, -1, word.text, isolated)
        if word.text == "-":
            return None
        if word.text.startswith("--"):
            if word.text == "--check-hash-based-pycs":
                next(waiting, None)
            continue
        for place, letter in enumerate(word.text[1:], 1):
            rest = word.text[place + 1 :]
            if letter == "c":
                return None
            if letter == "m":
                following = next(waiting, None)
                name = rest or (words[following].text if following is not None else "")
                return _Operand(word, place, name, isolated) if name else None
            if letter in "WX":
                if not rest:
                    next(waiting, None)
                break
            isolated = isolated or letter in "IES"
    return None


def _interpreter(words: list[_Word]) -> int | None:
    """The index of the word of a simple command that is the Python interpreter, or None."""
    first = _program(words)
    if first is None:
        return None
    if _is_python(words[first]):
        return first
    if _basename(words[first]) not in _RUNNERS:
        return None
    return next((index for index in range(first + 1, len(words)) if _is_python(words[index])), None)


def _program(words: list[_Word]) -> int | None:
    """The index of the word of a simple command that is the program, or None."""
    for index, word in enumerate(words):
        if word.raw not in _RESERVED and not _ASSIGNMENT.match(word.raw):
            return index
    return None


def _basename(word: _Word) -> str:
    return word.text.rpartition("/")[2]


def _is_python(word: _Word) -> bool:
    return _PYTHON.fullmatch(_basename(word)) is not None


def _displaces_path(word: _Word) -> bool:
    """Whether a word sets PYTHONPATH without its previous value."""
    return word.text.startswith("PYTHONPATH=") and re.search(r"\$\{?PYTHONPATH\b", word.raw) is None


def _started(words: list[_Word]) -> Iterator[tuple[str, str]]:
    """What a simple command starts, as pairs of ``script`` or ``module`` and its name."""
    first = _program(words)
    if first is None:
        return
    interpreter = _interpreter(words)
    launched = first
    if interpreter is not None:
        operand = _operand(words, interpreter)
        if operand is None:
            return
        if operand.letter == -1 or operand.name not in _LAUNCHER_MODULES:
            yield ("script" if operand.letter == -1 else "module"), operand.name
            return
        launched = words.index(operand.word) + 1
    else:
        yield "script", words[first].text
        if _basename(words[first]) in _RUNNERS:
            launched = next((i for i in range(first, len(words)) if _basename(words[i]) in _LAUNCHERS), -1)
        if launched == -1 or _basename(words[launched]) not in _LAUNCHERS:
            return
    for index in range(launched + 1, len(words)):
        if words[index].text in ("-m", "--module") and index + 1 < len(words):
            yield "module", words[index + 1].text
        elif words[index].text.endswith(".py"):
            yield "script", words[index].text


def _exists(folder: Path, kind: str, name: str) -> bool:
    """Whether a script or module is in a folder; it may be a folder that Python can run."""
    if not name or "\0" in name:
        return False
    if kind == "module":
        path = name.replace(".", "/")
        candidates = [f"{path}.py", f"{path}/__main__.py"]
    else:
        candidates = [name, f"{name}/__main__.py"]
    try:
        return any((folder / candidate).is_file() and _inside(folder / candidate, folder) for candidate in candidates)
    except OSError:
        return False  # The name is too long, or there is no access; bash reports that.


def _inside(path: Path, folder: Path) -> bool:
    return os.path.normpath(path).startswith(os.path.join(os.path.normpath(folder), ""))


# Shell text -----------------------------------------------------------------------------------------


def _commands(text: str) -> Iterator[list[_Word]]:
    """Split a shell text into simple commands, each a list of its words without redirections."""
    words: list[_Word] = []
    documents: list[tuple[str, bool]] = []
    target = False  # Whether the next word belongs to a redirection.
    position = 0
    while position < len(text):
        letter = text[position]
        if letter in " \t\r" or text.startswith("\\\n", position):
            position += 1 if letter != "\\" else 2
        elif letter == "#":
            end = text.find("\n", position)
            position = len(text) if end == -1 else end
        elif letter in ";&|()\n":
            if letter == "&" and text.startswith("&>", position):
                position += 2
                target = True
                continue
            if words:
                yield words
            words, target = [], False
            position += 1
            if letter == "\n" and documents:
                position = _skip_documents(text, position, documents)
                documents = []
        elif letter in "<>":
            operator = re.compile(r"<<<|<<-|<<|<>|>>|>\||[<>]&|[<>]").match(text, position)
            assert operator is not None
            position = operator.end()
            if operator[0] in ("<<", "<<-"):
                word = _read_word(text, _skip_blanks(text, position))
                documents.append((word.text, operator[0] == "<<-"))
                position = word.end
            else:
                # `<(…)` starts a command of its own.
                target = not text.startswith("(", position)
        else:
            word = _read_word(text, position)
            position = word.end
            if target:
                target = False
            elif not (word.raw.isdigit() and text[position : position + 1] in ("<", ">")):
                words.append(word)
    if words:
        yield words


def _skip_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t":
        position += 1
    return position


def _skip_documents(text: str, position: int, documents: list[tuple[str, bool]]) -> int:
    """The place after the here-documents that begin in this line."""
    for delimiter, indented in documents:
        while position < len(text):
            end = text.find("\n", position)
            line = text[position : len(text) if end == -1 else end]
            position = len(text) if end == -1 else end + 1
            if (line.lstrip("\t") if indented else line) == delimiter:
                break
    return position


def _read_word(text: str, start: int) -> _Word:
    """Read the word that begins at ``start``; an open quote extends to the end of the text."""
    position, value = start, []
    while position < len(text):
        letter = text[position]
        if letter in " \t\r\n;&|()<>":
            break
        if letter == "\\":
            if text[position + 1 : position + 2] != "\n":
                value.append(text[position + 1 : position + 2])
            position += 2
        elif letter == "'":
            end = text.find("'", position + 1)
            end = len(text) if end == -1 else end
            value.append(text[position + 1 : end])
            position = end + 1
        elif letter == '"':
            position, inner = _read_double(text, position + 1)
            value.append(inner)
        elif text.startswith(("$(", "${"), position) or letter == "`":
            end = _end_of_substitution(text, position)
            value.append(text[position:end])
            position = end
        else:
            value.append(letter)
            position += 1
    position = min(position, len(text))
    return _Word(start, position, "".join(value), text[start:position])


def _read_double(text: str, position: int) -> tuple[int, str]:
    """Read a double-quoted part: the place after it, and its content."""
    value = []
    while position < len(text) and text[position] != '"':
        if text[position] == "\\" and text[position + 1 : position + 2] in ("\\", '"', "$", "`"):
            value.append(text[position + 1])
            position += 2
        elif text.startswith(("$(", "${"), position) or text[position] == "`":
            end = _end_of_substitution(text, position)
            value.append(text[position:end])
            position = end
        else:
            value.append(text[position])
            position += 1
    return position + 1, "".join(value)


def _end_of_substitution(text: str, start: int) -> int:
    """The place after ``$(…)``, ``${…}`` or `` `…` ``."""
    if text[start] == "`":
        end = text.find("`", start + 1)
        return len(text) if end == -1 else end + 1
    closing = {"(": ")", "{": "}"}
    stack = [closing[text[start + 1]]]
    position = start + 2
    while position < len(text) and stack:
        letter = text[position]
        if letter == "\\":
            position += 1
        elif letter == "'" and stack[-1] == ")":
            end = text.find("'", position + 1)
            position = len(text) if end == -1 else end
        elif letter == stack[-1]:
            stack.pop()
        elif letter == "(" or (letter == "{" and text[position - 1] == "$"):
            stack.append(closing[letter])
        position += 1
    return min(position, len(text))
