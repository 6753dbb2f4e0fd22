# SPDX-License-Identifier: BSD-3-Clause
"""The driver in a kernel that looks for mistakes: KASAN, UBSAN, lockdep, atomic sleep, kmemleak,
and allocations that fail (make check-uml).  It is User Mode Linux, and slow: a look at each word
of a stack for every allocation.

Whatever such a kernel has to say is on the console, which every guest test reads at its end.
"""
import contextlib

from lab import equal, field, on
from uml import UML
from vhost import backend, honest

MEMORY = 256    # of which KASAN and the tables of the others take a third
SET = 160       # MiB that do not fit into the rest
PATIENCE = 900
DEBUG = "/sys/kernel/debug"
KMEMLEAK = f"{DEBUG}/kmemleak"

# Fails one allocation after the other while the device is probed, until none is left.
PROBES = """
cd /sys/bus/virtio/drivers/virtio_tmem
n=0 left=0
while [ "$left" = 0 ]; do
	n=$((n + 1))
	echo virtio0 >unbind 2>/dev/null
	echo $n >/proc/self/fail-nth
	echo virtio0 >bind 2>/dev/null
	left=0
	read left 2>/dev/null </proc/self/fail-nth
	echo 0 >/proc/self/fail-nth
	left=${left:-0}
done
[ -e virtio0 ] || echo virtio0 >bind
echo failed $((n - 1))
"""


class Failing:
    """Allocations fail, of every kind, GFP_KERNEL among them: where the test says so."""

    def __init__(self, vm, percent):
        self.vm, self.percent = vm, percent

    def set(self, percent):
        self.vm.run(f"for i in failslab fail_page_alloc; do cd {DEBUG}/$i; "
                    "echo N >ignore-gfp-wait; echo Y >task-filter; echo 0 >verbose; "
                    f"echo -1 >times; echo {percent} >probability; done; "
                    f"echo N >{DEBUG}/fail_page_alloc/ignore-gfp-highmem; "
                    f"echo 0 >{DEBUG}/fail_page_alloc/min-order", timeout=PATIENCE)

    def __enter__(self):
        self.set(self.percent)

    def __exit__(self, *_):
        self.set(0)


@contextlib.contextmanager
def debugged(kernel, reserved=256):
    """A guest and its back end; at the end nothing may have leaked."""
    with backend(f"--reserved={reserved}M") as back:
        with UML(kernel, mem=MEMORY, sockets=[back.path]) as vm:
            vm.run(f"mountpoint -q {DEBUG} || mount -t debugfs none {DEBUG}; "
                   f"echo scan=off >{KMEMLEAK}; echo scan >{KMEMLEAK}; echo clear >{KMEMLEAK}",
                   timeout=PATIENCE)
            yield vm, back
            # Only what is some seconds old is a leak, and only what two scans do not find.
            leaks = vm.run(f"for i in 1 2; do sleep 6; echo scan >{KMEMLEAK}; done; "
                           f"cat {KMEMLEAK}", timeout=PATIENCE)
            assert not leaks.strip(), f"kmemleak:\n{leaks}"


def workset(vm, mib, *options):
    """As lab's, with patience."""
    out = vm.run(f"workset -m {mib} " + " ".join(options), timeout=PATIENCE)
    equal(field(out, "wrong"), 0, "wrong pages")
    return out


@on("uml-debug")
def test_pressure(kernel):
    """A verified working set under pressure, processes that share pages; discards; swapoff."""
    with debugged(kernel) as (vm, back):
        vm.run("swapon /dev/tmem0", timeout=PATIENCE)
        workset(vm, SET, "-r 1")
        workset(vm, SET // 2, "-r 0", "-f 1")
        honest(vm, back.vm(), 1500)
        vm.run("swapoff /dev/tmem0; dd if=/dev/urandom of=/dev/tmem0 bs=64k count=64 "
               "oflag=direct 2>/dev/null; blkdiscard /dev/tmem0", timeout=PATIENCE)
        back.wait(lambda stats: stats["persistent_pages"] == 0, seconds=60)


@on("uml-debug")
def test_reload(kernel):
    """Modules and devices go and come back, with pages and with requests behind them."""
    with debugged(kernel) as (vm, back):
        for sync in (0, 1):
            vm.run(f"modprobe -r tmem_swap; modprobe tmem_swap sync={sync}; udevadm settle; "
                   "dd if=/dev/urandom of=/dev/tmem0 bs=4k count=64 2>/dev/null; sync",
                   timeout=PATIENCE)
            vm.run("cd /sys/bus/virtio/drivers/virtio_tmem; echo virtio0 >unbind; "
                   "echo virtio0 >bind; udevadm settle; [ -b /dev/tmem0 ]", timeout=PATIENCE)
        equal(back.vm()["broken"], 0, "resets that the device asked for")


@on("uml-debug")
def test_failures(kernel):
    """Each allocation of the probe fails once; then those of the processes that swap do."""
    with debugged(kernel) as (vm, back):
        Failing(vm, 0).set(0)
        out = vm.run(PROBES, timeout=PATIENCE)
        assert field(out, "failed") > 10, f"few allocations failed: {out}"
        vm.run("udevadm settle; swapon /dev/tmem0; "
               "echo 1 >/proc/$(pgrep -x kswapd0)/make-it-fail", timeout=PATIENCE)
        with Failing(vm, 5):
            # It may be killed; what it still reads is right.
            status, out = vm.run(f"sh -c 'echo 1 >/proc/self/make-it-fail; "
                                 f"exec workset -m {SET} -r 0'", timeout=PATIENCE, check=False)
        assert status or "wrong 0" in out, out
        assert "differs" not in out, out
        vm.run("echo 0 >/proc/$(pgrep -x kswapd0)/make-it-fail", timeout=PATIENCE)
        workset(vm, SET, "-r 0")
        equal(back.vm()["io_errors"], 0, "pages that could not be read")
