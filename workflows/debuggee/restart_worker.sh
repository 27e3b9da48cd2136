#!/bin/sh
# restart_worker.sh WORKER FOLDER
# Ends the process that has score.py loaded; the server's master starts another at once.
# A worker that is paused at a breakpoint or in the middle of a request does not react to
# SIGTERM, so it is killed after 0.3 s. If the service is down because score.py could
# not be loaded, runit starts it again.
worker=$1
if [ "$worker" -gt 0 ] && kill -TERM "$worker" 2>/dev/null; then
    for _ in 1 2 3 4 5 6; do
        sleep 0.05
        kill -0 "$worker" 2>/dev/null || break
    done
    kill -KILL "$worker" 2>/dev/null
fi
# `sv up` is not used: it writes nothing while runsv has not yet read an earlier `down`.
for service in "$2"/*/; do
    [ ! -p "${service}supervise/control" ] || printf u 1<>"${service}supervise/control"
done
exit 0
