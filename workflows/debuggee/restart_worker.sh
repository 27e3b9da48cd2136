#!/bin/sh
# restart_worker.sh WORKER FOLDER
# Ends the process that has score.py loaded; the server's master starts another at once.
# A worker that is paused at a breakpoint or in the middle of a request does not hear the
# polite signal, so it is killed after a moment. Where the whole service is down, since
# score.py could not be loaded, runit brings it up again.
worker=$1
if [ "$worker" -gt 0 ] && kill -TERM "$worker" 2>/dev/null; then
    for _ in 1 2 3 4 5 6; do
        sleep 0.05
        kill -0 "$worker" 2>/dev/null || break
    done
    kill -KILL "$worker" 2>/dev/null
fi
# Not by `sv up`: it writes nothing while runsv still means to obey a `down` that it has not read.
for service in "$2"/*/; do
    [ ! -p "${service}supervise/control" ] || printf u 1<>"${service}supervise/control"
done
exit 0
