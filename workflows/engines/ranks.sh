# Runs a step's command in a container, once for each rank, and ends as the first that fails.
#   bash -c "$(cat ranks.sh)" ranks COMMAND COUNT [LOG VARIABLE=VALUE...]...
# COUNT variables for each rank. On TERM it sends TERM to every process of the container,
# and kills what is left after half a second. The container's init reaps orphans.
# The names begin with _, so that they do not change a variable of the command.
_command=$1 _count=$2
shift 2

# In one rank's own process: redirect its output into its log, set its variables, then exec its command.
become() {
    exec >>"$1" 2>&1 </dev/null || exit 126
    shift
    _left=$_count
    while [ "$_left" -gt 0 ]; do
        export "$1"
        shift
        _left=$((_left - 1))
    done
    exec "$_shell" -c "$_command"
}

if [ -z "${BASH_VERSION:-}" ]; then
    # Without bash the command replaces this shell, and then gets the signals itself.
    _shell=sh
    if [ $# -gt $((_count + 1)) ]; then
        echo "The image has no bash, which a step of several ranks needs." >>"$1"
        exit 127
    fi
    become "$@"
fi
_shell=$BASH

# All other processes of the container are the command's, in whatever session.
end_all() {
    trap '' TERM INT HUP
    kill -s TERM -- -1
    # A stopped process handles TERM only once it continues.
    kill -s CONT -- -1
    _tries=25
    while [ "$_tries" -gt 0 ] && kill -s 0 -- -1; do
        pause 0.02
        _tries=$((_tries - 1))
    done
    kill -s KILL -- -1
} 2>/dev/null

# Reading from a pipe that is never written to is a pause that needs no further process.
eval 'exec 9<> <(:)'
pause() {
    read -r -t "$1" -u 9
}

# On a signal it ends with the exit code of the first rank.
trap 'end_all; wait "$_first"; exit' TERM INT HUP

_ranks= _first=
while [ $# -gt 0 ]; do
    # A shell makes background processes ignore INT; the command has to run with the default.
    (
        trap - TERM INT QUIT HUP
        exec 9>&-
        become "$@"
    ) &
    _ranks="$_ranks $!" _first=${_first:-$!}
    shift $((_count + 1))
done

case $_ranks in
' '*' '*) ;;
*)
    wait "$!"
    _code=$?
    # Its background processes may be about to finish.
    _tries=12
    while [ "$_tries" -gt 0 ] && kill -s 0 -- -1 2>/dev/null; do
        pause 0.02
        _tries=$((_tries - 1))
    done
    exit "$_code"
    ;;
esac

# Not `wait -n`: it overlooks ranks that end while others are being started, and older ones lack it.
while [ -n "$_ranks" ]; do
    _running=
    for _rank in $_ranks; do
        if kill -s 0 "$_rank" 2>/dev/null; then
            _running="$_running $_rank"
        elif wait "$_rank"; then
            :
        else
            _code=$?
            end_all
            exit "$_code"
        fi
    done
    _ranks=$_running
    [ -z "$_ranks" ] || pause 0.05
done
