# Removes what a testbed made, after the process that made it is gone in whatever way.
# Reads one line per object, "<testbed> <kind> <arguments>", and acts when the pipe closes.
# Written for sh, so that nothing has to be installed or found beside the test binary.
trap '' HUP INT QUIT TERM PIPE
entries=
kept=' '
while read -r line; do
    case $line in
        'keep '*) kept="$kept${line#keep } " ;;
        *) entries="$entries$line
" ;;
    esac
done

each() { # each KIND COMMAND: run COMMAND with the arguments of every entry of that kind
    printf '%s' "$entries" | while read -r testbed kind first second; do
        case $kept in *" $testbed "*) continue ;; esac
        [ "$kind" = "$1" ] && "$2" "$first" "$second"
    done
}
# A process id alone may meanwhile belong to somebody else: the start time (field 22 of
# proc_pid_stat(5), counted behind the command name, which may hold anything) tells.
is_process() {
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    started=$2
    set -- ${stat##*) }
    # Its parent is gone and nobody waits for it: a zombie will not go away.
    [ "${20}" = "$started" ] && [ "$1" != Z ]
}
kill_process() { is_process "$1" "$2" && kill -9 "$1" 2>/dev/null; }
# PostgreSQL's immediate shutdown, which gives its shared memory back.
stop_postgres() {
    is_process "$1" "$2" && kill -QUIT "$1" 2>/dev/null
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        is_process "$1" "$2" || return 0
        sleep 1
    done
    kill_process "$1" "$2"
}
kill_inside() {
    [ -e "/run/netns/$1" ] || return 0
    for process in /proc/[0-9]*; do
        [ "$process/ns/net" -ef "/run/netns/$1" ] && kill -9 "${process#/proc/}" 2>/dev/null
    done
}
remove_netns() {
    umount -l "/run/netns/$1" 2>/dev/null
    rm -f "/run/netns/$1"
}
remove_mount() { umount -l "$1" 2>/dev/null; }
remove_dir() {
    case $1 in
        */../* | */..) ;;
        /run/quilt-mesh-testbed/?*) rm -rf --one-file-system "$1" ;;
    esac
}
remove_postgres_dir() {
    case $1 in
        */../* | */..) ;;
        /*/qm-?*-postgres) rm -rf --one-file-system "$1" ;;
    esac
}
# Empty ones that an engine left: a process that was killed leaves its group a moment later.
remove_cgroup() {
    case $1 in
        */*) return 0 ;;
        qm-?*) ;;
        *) return 0 ;;
    esac
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        left=
        for group in "/sys/fs/cgroup/$1" /sys/fs/cgroup/*/"$1"; do
            [ -d "$group" ] || continue
            find "$group" -depth -type d -exec rmdir {} \; 2>/dev/null
            [ -d "$group" ] && left=1
        done
        [ -n "$left" ] || return 0
        sleep 0.2
    done
}
each pid kill_process
each postgres stop_postgres
each postgres-dir remove_postgres_dir
# Twice: a process may have forked while the list was walked.
each netns kill_inside
each netns kill_inside
each cgroup remove_cgroup
each mount remove_mount
each netns remove_netns
each dir remove_dir
rmdir /run/quilt-mesh-testbed 2>/dev/null
exit 0
