#!/usr/bin/env bash
# Puts VS Code in a browser (code-server), and the Node that it wants, into a folder: install.sh FOLDER
#
# Nothing is compiled: what has a build step of its own (logging, single sign-on) is left out, and VS Code does without.
set -euo pipefail
folder=$1
node=24.21.0
code_server=4.139.1
stamp="node $node, code-server $code_server"
if [ "$(cat "$folder/installed" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
echo '{"private": true}' >package.json
quiet=(--no-audit --no-fund --loglevel=error)
npm install "${quiet[@]}" --ignore-scripts --force "node@$node" "code-server@$code_server"
# Its install step fetches the program for this machine, from npm too.
npm rebuild "${quiet[@]}" node
PATH="$folder/node_modules/node/bin:$PATH"
cd node_modules/code-server/lib/vscode
npm install "${quiet[@]}" --ignore-scripts --omit=dev
echo "$stamp" >"$folder/installed"
