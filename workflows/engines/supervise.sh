#!/bin/sh
# Replaces runsvdir where it is not installed: runs the services of a folder, each with
# its `finish`. A service that ends is not started again.
for service in "$1"/*/; do
    (
        cd "$service" || exit
        ./run
        code=$?
        signal=0
        # The shell reports a signal as 128 + its number; runit as -1 and the number.
        if [ "$code" -gt 128 ]; then
            signal=$((code - 128))
            code=-1
        fi
        [ ! -x ./finish ] || ./finish "$code" "$signal"
    ) &
done
wait
