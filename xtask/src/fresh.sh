# The inside of `cargo xtask fresh`: process 1 of its own pid namespace, with mounts, host name and System V IPC of its
# own. $1 is the root file system, the rest the command. Nothing here is seen outside: unshare made all mounts private.
root=$1
shift
# pivot_root wants a mount point.
mount --bind "$root" "$root"
cd "$root"

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t bpf bpf sys/fs/bpf
# Container engines make groups below; there is no namespace for what is already there.
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mount -t tmpfs -o mode=1777 tmp tmp
mkdir -m 1777 run/lock

# Not the machine's own /dev: what is made there would be made for everybody.
mount -t tmpfs -o mode=755 dev dev
mkdir dev/pts dev/shm dev/mqueue dev/net
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t mqueue mqueue dev/mqueue
device() {
    mknod -m "$2" "dev/$1" "$3" "$4" "$5"
}
device null 666 c 1 3
device zero 666 c 1 5
device full 666 c 1 7
device random 666 c 1 8
device urandom 666 c 1 9
device kmsg 600 c 1 11
device tty 666 c 5 0
device net/tun 666 c 10 200
device fuse 666 c 10 229
device loop-control 600 c 10 237
loop=0
while [ "$loop" -lt 64 ]; do
    device "loop$loop" 600 b 7 "$loop"
    loop=$((loop + 1))
done
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
ln -s pts/ptmx dev/ptmx

hostname fresh
mkdir run/outside
pivot_root . run/outside
# Not the command itself: process 1 hears only signals that it handles, and has to wait for orphans.
exec chroot . /bin/sh -euc 'umount -l /run/outside; rmdir /run/outside; cd /root/quilt-mesh; "$@" || exit $?' fresh "$@"
