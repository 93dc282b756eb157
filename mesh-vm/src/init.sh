#!/bin/sh
# First program of the guest: mounts what a host has, then runs the checks and powers off, or
# gives a shell. What fails shows on the console; the host has a deadline.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t bpf bpf /sys/fs/bpf
ip link set lo up
uname -a
if [ -n "$QUILT_MESH_VM_SHELL" ]; then
    setsid -c sh </dev/ttyS0 >/dev/ttyS0 2>&1
else
    /usr/bin/mesh-vm-guest
    echo "mesh-vm-guest ended with code $?"
fi
poweroff -f
