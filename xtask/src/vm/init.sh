#!/bin/sh
# The first process of the virtual machine. Results go to the second serial port, which the kernel does not write to.
export PATH=/bin HOME=/tmp
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs security /sys/kernel/security
while read -r module; do
    insmod "/modules/$module.ko" || echo "init: cannot load $module"
done < /modules/order
ip link set lo up
stty raw -F /dev/ttyS1
set -f
# shellcheck disable=SC2046 # one argument a word
hostdns-probe lab matrix --output json $(cat /arguments) > /tmp/matrix.json
code=$?
{
    echo "begin"
    echo "kernel $(uname -r)"
    echo "lockdown $(cat /sys/kernel/security/lockdown)"
    echo "exit $code"
    cat /tmp/matrix.json
    echo
    echo "end"
} > /dev/ttyS1
poweroff -f
