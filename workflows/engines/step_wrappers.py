"""Wrappers of programs by which a step would change the environment that all runs share: conda, sudo, and uv.

pip and uv install into the step's own folder (:mod:`workflows.engines.step_packages`). conda cannot do that, sudo drops
the variables that name the folder, and uv's ``--system`` and ``--python`` override them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..private import make_folder

#: Names the environment that a step must not change.
ENVIRONMENT = "AZUREML_DEBUGGEE_ENVIRONMENT"
_NAMES = ("conda", "mamba", "micromamba", "sudo", "uv")
_SCRIPT = """#!/bin/sh
name=${0##*/} here=${0%/*} rest=
set -f; IFS=:
for one in $PATH; do [ "$one" = "$here" ] || rest=$rest${rest:+:}$one; done
unset IFS; set +f
real=$(PATH=$rest command -v "$name")

say() { echo "azureml_debug: $1" >&2; }

go_on() {
    [ -n "$real" ] && exec "$real" "$@"
    echo "$name: command not found" >&2
    exit 127
}

case $name in
conda|mamba|micromamba)
    verb= other=
    for word do
        case $word in
        -n|--name|-p|--prefix|--name=*|--prefix=*|-n?*|-p?*) other=yes ;;
        -*) ;;
        *) [ -n "$verb" ] && [ "$verb" != env ] || verb="$verb${verb:+ }$word" ;;
        esac
    done
    instead="Add the packages to the environment's conda file, or install them by pip, which goes into this step alone."
    case $verb in
    install|update|upgrade|remove|uninstall|"env update"|"env remove")
        if [ -z "$other" ]; then
            say "\\`$name $verb\\` is not done: it would change what later runs share. $instead"
            exit 1
        fi ;;
    esac
    go_on "$@" ;;
sudo)
    program() {
        while [ $# -gt 0 ]; do
            case $1 in
            -[ughpCDRTU]) shift ;;
            -*|*=*) ;;
            *) break ;;
            esac
            [ $# -gt 0 ] && shift
        done
        echo "${1##*/} $2 $3"
    }
    case $(program "$@") in
    pip\\ *|pip[0-9]*|uv\\ *|conda\\ *|mamba\\ *|micromamba\\ *|python*\\ -m\\ pip|python*\\ -m\\ uv)
        while [ $# -gt 0 ]; do
            case $1 in
            -[ughpCDRTU]) shift ;;
            -*) ;;
            *=*) export "$1" ;;
            *) break ;;
            esac
            shift
        done
        say "\\`${1##*/}\\` runs without sudo, so that what it installs is this step's alone."
        exec "$@" ;;
    esac
    go_on "$@" ;;
uv)
    case " $* " in
    *" pip install "*|*" pip uninstall "*|*" pip sync "*)
        unset UV_SYSTEM_PYTHON
        count=$# skip= dropped=
        while [ $count -gt 0 ]; do
            word=$1 count=$((count - 1)); shift
            case $word in
            --system) dropped=yes; continue ;;
            -p|--python) skip=$word; continue ;;
            --python=*) asked=${word#--python=} ;;
            *) asked=$word; [ -n "$skip" ] || { set -- "$@" "$word"; continue; } ;;
            esac
            case $asked in
            python|python[0-9]*|[0-9]*|"$AZUREML_DEBUGGEE_ENVIRONMENT"/*|"$AZUREML_DEBUGGEE_ENVIRONMENT") dropped=yes ;;
            *) set -- "$@" --python "$asked" ;;
            esac
            skip=
        done
        [ -z "$dropped" ] || say "what uv installs is this step's alone, whatever --system and --python say." ;;
    esac
    go_on "$@" ;;
esac
"""


def make_wrappers(folder: Path, path: str) -> None:
    """Write the wrappers into a folder that comes first on a step's PATH.

    Args:
        folder: The folder.
        path: The rest of the step's PATH. A program that is not on it gets no wrapper, so that a script that looks
            for it finds none.

    Raises:
        OSError: They cannot be written.
    """
    make_folder(folder)
    script = folder / ".program"
    script.write_text(_SCRIPT, "utf-8")
    script.chmod(0o700)
    for name in _NAMES:
        if shutil.which(name, path=path):
            os.symlink(script.name, folder / name)
