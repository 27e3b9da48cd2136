"""What runs first on the remote machine: a greeting by its login shell, then a suitable Python, then the agent."""

from __future__ import annotations

import shlex
from pathlib import Path

#: The first output of the remote shell. Nothing is sent before it has arrived: a start-up file may have replaced the
#: shell with another program, which would execute every line as a command of its own.
GREETING = b"\0azureml-debug shell\n"
#: Seconds to wait for the greeting; start-up files such as conda's take up to ten on a slow disk.
SHELL_SECONDS = 30.0
#: Seconds to wait after the input has been closed, to find out which program was reading it.
ENDED_SECONDS = 3.0
#: The exit code of the remote shell if it has found no suitable Python.
NO_PYTHON = 97

#: The command works in every login shell: fish and csh, too, leave the text in the single quotes as it is.
COMMAND = 'exec sh -c \'printf "\\000azureml-debug shell\\n"; IFS= read -r script && eval "$script"\''

#: Makes a Python print its version as a number, its version, and whether it can create virtual environments.
_QUERY = (
    "import sys; v = sys.version_info; "
    'ok = v[:2] > (3, 9) and all(map(__import__("importlib.util").util.find_spec, ("venv", "ensurepip"))); '
    'print("%d %d.%d.%d %d" % (v[0] * 1000000 + v[1] * 1000 + v[2], v[0], v[1], v[2], ok))'
)
_LOADER = (
    "import sys; n = int(sys.stdin.buffer.readline()); "
    "exec(compile(sys.stdin.buffer.read(n), 'agent', 'exec'), {'__name__': '__main__'})"
)
#: The agent's modules; each imports only from modules before it.
_MODULES = ("wire", "machine", "folder", "environment", "task", "following", "watching", "facts", "server")
_TOGETHER = """
import sys
package = sys.modules["agent"] = type(sys)("agent")
package.__path__ = []
for name, text in TEXTS:
    module = sys.modules["agent." + name] = type(sys)("agent." + name)
    module.__package__ = "agent"
    setattr(package, name, module)
    exec(compile(text, "agent/" + name + ".py", "exec"), module.__dict__)
module.main("".join(sys.argv[1:]))
"""
#: Where users' own Pythons are: of conda and the like, pyenv, uv, mise, asdf, Homebrew, and of compute instances.
_HOMES = """
/anaconda*/envs/*/bin/python3 /anaconda*/bin/python3 /opt/*conda*/bin/python3 /opt/*conda*/envs/*/bin/python3
/opt/*forge*/bin/python3 /usr/local/bin/python3 /opt/homebrew/bin/python3 /home/linuxbrew/.linuxbrew/bin/python3
"$HOME"/*conda*/bin/python3 "$HOME"/*conda*/envs/*/bin/python3 "$HOME"/.conda/envs/*/bin/python3
"$HOME"/*forge*/bin/python3 "$HOME"/*forge*/envs/*/bin/python3 "$HOME"/*mamba*/bin/python3
"$HOME"/*mamba*/envs/*/bin/python3 "$HOME"/.local/share/mamba/envs/*/bin/python3 "$HOME"/.local/bin/python3
"${MAMBA_ROOT_PREFIX:-$HOME/micromamba}"/envs/*/bin/python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/*/bin/python3
"${UV_PYTHON_INSTALL_DIR:-${XDG_DATA_HOME:-$HOME/.local/share}/uv/python}"/*/bin/python3
"$HOME"/.local/share/mise/installs/python/*/bin/python3 "$HOME"/.asdf/installs/python/*/bin/python3
"""
#: Joined to one line, since `read` reads it. The agent follows on standard input, which the script must not read.
_SCRIPT = """
exec 3<&0 </dev/null; seen=; second=; nl=$(printf '\\nx'); nl=${nl%x};
start() { "$1" -I -S -u -c "$loader" "$seen" <&3 3<&-; exit; };
ask() {
 if said=$("$1" -I -S -c "$query" 2>&1); then said=${said##*"$nl"};
 else last=${said##*"$nl"}; named=$("$1" -V 2>&1) || named=;
  case $named in "Python "[12].*|"Python 3."[0-9]|"Python 3."[0-9].*) said="2 ${named#Python } 0";;
   *) said="0 ${last:-it ends without a word}";; esac;
 fi;
};
try() {
 key=${1%% *}; rest=${1#* };
 case $key in 0) seen="$seen${seen:+; }$2 does not start ($rest)"; return;; esac;
 version=${rest% *};
 if [ "$key" -lt 3010000 ]; then seen="$seen${seen:+; }$2 is Python $version";
 elif [ "${rest##* }" = 1 ]; then start "$2";
 else seen="$seen${seen:+; }$2, Python $version, makes no virtual environments"; second=${second:-$2};
 fi;
};
look() {
 for name in python3 python3.15 python3.14 python3.13 python3.12 python3.11 python3.10; do
  place=$(command -v "$name") || continue; ask "$place"; try "$said" "$place";
 done;
 found=$(
  { for place in HOMES; do echo "$place"; done; [ ! -r "$HOME/.conda/environments.txt" ] ||
    sed 's,$,/bin/python3,' "$HOME/.conda/environments.txt"; } | sort -u |
  while IFS= read -r place; do [ -x "$place" ] || continue; ask "$place"; echo "$said|$place"; done | sort -rn
 );
 IFS=$nl; set -f;
 for one in $found; do unset IFS; try "${one%|*}" "${one##*|}"; done;
};
named() {
 case $wanted in "~"/*) wanted=$HOME/${wanted#"~/"};; '$HOME'/*) wanted=$HOME/${wanted#'$HOME/'};; esac;
 for place in "$wanted" "$wanted/bin/python3" "$wanted/bin/python"; do
  place=$(command -v "$place") || continue; [ ! -d "$place" ] || continue; ask "$place"; try "$said" "$place";
  return;
 done;
 seen="there is no Python at $wanted";
};
if [ -n "$wanted" ]; then named; else look; fi;
[ -z "$second" ] || start "$second";
echo "${seen:-there is none}" >&2; exit NO_PYTHON
"""


def script(python: str = "") -> bytes:
    """What is sent to the remote shell after its greeting: the script that finds a Python, and the agent.

    Args:
        python: The remote Python that the user has named. If empty, the script looks for one: first on the PATH,
            then the newest.
    """
    body = _SCRIPT.replace("HOMES", " ".join(_HOMES.split())).replace("NO_PYTHON", str(NO_PYTHON))
    values = {"wanted": python.replace("\n", " "), "query": _QUERY, "loader": _LOADER}
    first = " ".join(f"{name}={shlex.quote(value)};" for name, value in values.items())
    source = agent_source()
    return f"{first} {' '.join(body.split())}\n{len(source)}\n".encode() + source


def agent_source() -> bytes:
    """The agent as one program, which creates a package of the agent's modules where it runs."""
    folder = Path(__file__).parent / "agent"
    texts = [(name, (folder / f"{name}.py").read_text("utf-8")) for name in _MODULES]
    return _TOGETHER.replace("TEXTS", repr(texts)).encode()
