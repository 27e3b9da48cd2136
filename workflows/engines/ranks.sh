# Runs a step's command in a container, once for each rank, and ends as the first that fails.
#   bash -c "$(cat ranks.sh)" ranks COMMAND COUNT [LOG VARIABLE=VALUE...]...
# COUNT variables for each rank. Told to end (TERM), it asks every process of the container to,
# and kills after half a second what is left. The init's job, collecting orphans, is not its own.
# Names that no variable of the command's own has, which would be changed with them.
_command=$1 _count=$2
shift 2

# In one rank's own process: its output into its log, its variables, then its command in place of this shell.
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
    # Without bash the command takes this shell's place: it then hears the signals itself.
    _shell=sh
    if [ $# -gt $((_count + 1)) ]; then
        echo "The image has no bash, which a step of several ranks needs." >>"$1"
        exit 127
    fi
    become "$@"
fi
_shell=$BASH

# Whatever it has started itself, the command's processes are all that is in the container.
end_all() {
    trap '' TERM INT HUP
    kill -s TERM -- -1
    # One that is stopped does not hear the first signal.
    kill -s CONT -- -1
    _tries=25
    while [ "$_tries" -gt 0 ] && kill -s 0 -- -1; do
        pause 0.02
        _tries=$((_tries - 1))
    done
    kill -s KILL -- -1
} 2>/dev/null

# Reading from a pipe that nobody writes into is a pause without a process for it.
eval 'exec 9<> <(:)'
pause() {
    read -r -t "$1" -u 9
}

# Told to end, it ends as the first rank does.
trap 'end_all; wait "$_first"; exit' TERM INT HUP

_ranks= _first=
while [ $# -gt 0 ]; do
    # A shell makes what it starts in the background deaf to Ctrl-C; the command is not to notice.
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
    # What it has left in the background may be about to finish.
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
