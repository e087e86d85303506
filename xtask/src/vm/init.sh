#!/bin/sh
# The first process of the virtual machine. Results go to the second serial port, which the kernel does not write to.
export PATH=/bin HOME=/tmp
/bin/busybox --install -s /bin
echo "init: started"
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

# Every lab of a group is brought up, then all are checked at once.
group() {
    for spec in "$1"/*; do
        hostdns-probe lab up --name "${spec##*/}" --spec "$spec" > /dev/null
    done
    # In a shell of its own: the first process' children are the labs too, and it would wait for those.
    (
        for spec in "$1"/*; do
            name=${spec##*/}
            hostdns-probe lab check --lab "$name" --output json --budget 120s > "/tmp/labs/$name" &
        done
        wait
    )
    for spec in "$1"/*; do
        hostdns-probe lab down "${spec##*/}"
    done
}

mkdir /tmp/labs
for directory in /labs/*; do
    [ -d "$directory" ] && group "$directory"
done

set -f
# shellcheck disable=SC2046 # one argument a word
hostdns-probe lab matrix --output json $(cat /arguments) > /tmp/matrix.json
code=$?
set +f
{
    echo "begin"
    echo "kernel $(uname -r)"
    echo "lockdown $(cat /sys/kernel/security/lockdown)"
    echo "exit $code"
    echo '{"matrix":'
    cat /tmp/matrix.json
    echo ', "labs": {'
    separator=
    for report in /tmp/labs/*; do
        [ -s "$report" ] || continue
        echo "$separator\"${report##*/}\":"
        cat "$report"
        separator=,
    done
    echo '}}'
    echo "end"
} > /dev/ttyS1
poweroff -f
