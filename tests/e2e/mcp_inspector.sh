#!/usr/bin/env bash
# Puts the inspector of the Model Context Protocol, and the Node that it wants, into a folder: mcp_inspector.sh FOLDER
set -euo pipefail
folder=$1
node=24.21.0
inspector=0.15.0
stamp="node $node, inspector $inspector"
if [ "$(cat "$folder/installed" 2>/dev/null)" = "$stamp" ]; then
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder"
cd "$folder"
echo '{"private": true}' >package.json
quiet=(--no-audit --no-fund --loglevel=error)
npm install "${quiet[@]}" --ignore-scripts --force "node@$node" "@modelcontextprotocol/inspector@$inspector"
# Its install step fetches the program for this machine, from npm too.
npm rebuild "${quiet[@]}" node
echo "$stamp" >"$folder/installed"
