#!/bin/busybox sh
# The first process of a test machine: makes it look like a running system, runs the test and
# switches the machine off. The lines that begin with "demux-vm:" are read by the runner.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/ RUST_BACKTRACE=1 DEMUX_REQUIRE_PRIV=1
# Emulated, everything takes thirty times as long.
export DEMUX_TEST_CASES=2000

mkdir -p /proc /sys /dev /run /tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /run/netns

for module in /modules/*; do
    insmod "$module" || echo "demux-vm: cannot load $module"
done
ip link set lo up

echo "demux-vm: begin $(uname -r)"
sh /run-test
echo "demux-vm: end $?"

poweroff -f
