# SPDX-License-Identifier: BSD-3-Clause
"""Swap into host memory: every byte of a set larger than RAM comes back."""
import re

from lab import VMError, equal, field, guest, on, swapped, workset


def test_pressure(kernel):
    """sync=1, a page at a time: twice the RAM, in order and at random, with rewrites."""
    with guest(kernel, append="tmem_swap.sync=1") as vm:
        vm.run("swapon /dev/tmem0")
        workset(vm, 240, "-r 1")
        device, disk = swapped(vm, 20000)
        equal(disk["refusals"], 0, "refusals within the reservation")
        # The host knows of each page what the guest knows.
        vm.run("swapoff /dev/tmem0")
        vm.wait_for("freed slots to be flushed",
                    lambda: vm.stats()["device"]["persistent-pages"] == 0, 30)
        equal(vm.swap_stats()["present"], 0, "present slots")


def test_pressure_async(kernel):
    """sync=0: requests of many pages, several CPUs."""
    with guest(kernel, smp=2) as vm:
        vm.run("swapon /dev/tmem0")
        workset(vm, 240, "-r 1")
        _, disk = swapped(vm, 20000)
        assert disk["get_requests"] < disk["reads"], disk


def test_fork(kernel):
    """Processes share swapped pages copy-on-write."""
    with guest(kernel, smp=2) as vm:
        vm.run("swapon /dev/tmem0")
        workset(vm, 150, "-r 0", "-f 2", timeout=900)
        swapped(vm, 10000)


@on("6.1", "6.12")
def test_incompressible(kernel):
    """Random data fills the whole disk, and no write fails."""
    with guest(kernel, reserved=128, mem=160) as vm:
        vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=256k oflag=direct 2>/dev/null;"
               "dd if=/dev/tmem0 bs=256k iflag=direct 2>/dev/null | md5sum >/tmp/1;"
               "dd if=/dev/tmem0 bs=4k iflag=direct 2>/dev/null | md5sum >/tmp/2;"
               "cmp /tmp/1 /tmp/2", timeout=300)
        disk = vm.swap_stats()
        equal(disk["present"], 128 * 256, "slots accepted")
        equal(disk["refusals"], 0, "refusals")
        equal(vm.stats()["device"]["persistent-raw-bytes"], 128 << 20, "bytes held")
        # And as swap, where the host keeps each page raw.
        vm.run("blkdiscard /dev/tmem0; swapon /dev/tmem0")
        workset(vm, 170, "-e 100", "-r 1")
        equal(vm.swap_stats()["refusals"], 0, "refusals as swap")


# A memory cgroup in the guest: pressure on one process, and not on what else runs.
CGROUP = {
    "5.10": "mkdir /run/cg; mount -t cgroup -o memory none /run/cg; mkdir /run/cg/t",
    "6.1": "mkdir /run/cg; mount -t cgroup2 none /run/cg;"
           "echo +memory >/run/cg/cgroup.subtree_control; mkdir /run/cg/t",
}
RECLAIM = {"5.10": "echo 0 >/run/cg/t/memory.force_empty",
           "6.1": "echo 30M >/run/cg/t/memory.reclaim"}
ENTER = "echo $BASHPID >/run/cg/t/cgroup.procs; exec"


@on("5.10", "6.1", "6.12")
def test_full_store(kernel):
    """The store is full: refused pages stay in RAM; then the host has room again
    (drv.put.refused)."""
    with guest(kernel, reserved=4, size=8, mem=192,
               append="tmem_swap.disksize_mb=256 tmem_swap.force=1") as vm:
        api = "5.10" if kernel == "5.10" else "6.1"
        # Slots at the disk's end, which swap does not come to, take all there is.
        vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=4k seek=60000 oflag=direct", check=False)
        vm.run("swapon /dev/tmem0; " + CGROUP[api])
        out = vm.run(f"({ENTER} workset -m 40 -e 100 -r 1 -s 8) & sleep 3;"
                     f"for i in 1 2 3; do {RECLAIM[api]}; sleep 1; done 2>/dev/null; wait $!",
                     timeout=120)
        equal(field(out, "wrong"), 0, "wrong pages")
        disk, device = vm.swap_stats(), vm.stats()["device"]
        assert disk["refusals"] > 500, disk
        assert device["puts-refused-limit"] > 0, device
        # A device that is full is not asked for every page.
        assert device["puts-refused-limit"] < disk["refusals"] / 4, (device, disk)
        equal(disk["lost"], 0, "lost pages")
        assert device["held-bytes"] <= 8 << 20, device
        # The host has room again.
        vm.qmp("qom-set", path="/objects/store0", property="size", value=200 << 20)
        out = vm.run(f"({ENTER} workset -m 40 -r 1 -s 8) & sleep 3;"
                     f"for i in 1 2 3; do {RECLAIM[api]}; sleep 1; done 2>/dev/null; wait $!",
                     timeout=120)
        equal(field(out, "wrong"), 0, "wrong pages")
        swapped(vm, 2000)


@on("6.1")
def test_refusal_of_the_whole_disk_is_reported(kernel):
    """A write that is refused is an error to who writes, and reads as absent
    (drv.put.refused)."""
    with guest(kernel, reserved=8, size=12, mem=160,
               append="tmem_swap.disksize_mb=64 tmem_swap.force=1") as vm:
        # Not to the disk's end, where dd would fail on any disk.
        status, out = vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=4k count=16384"
                             " oflag=direct", timeout=120, check=False)
        assert status and "error writing" in out, out
        disk = vm.swap_stats()
        assert disk["refusals"] > 0, disk
        written = int(re.search(r"(\d+)\+0 records out", out).group(1))
        equal(disk["present"], written, "blocks that dd was told are written")
        read = "dd if=/dev/tmem0 of=/dev/null bs=4k iflag=direct"
        try:
            vm.run(read, timeout=120)
        except VMError as error:
            raise AssertionError(f"absent slots cannot be read: {error}") from None
        # A page that took its place is refused: the old one is gone as well.
        vm.run("blkdiscard /dev/tmem0; yes tmem | dd of=/dev/tmem0 bs=64k count=1024"
               " iflag=fullblock oflag=direct", timeout=120)
        equal(vm.swap_stats()["present"], 16384, "slots written")
        vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=64k oflag=direct conv=noerror",
               timeout=120, check=False)
        status, _ = vm.run(read, timeout=120, check=False)
        assert status, "a page that is gone can be read"
        disk = vm.swap_stats()
        assert disk["present"] < 16384, disk
        equal(disk["lost"], 0, "lost")
        vm.run("blkdiscard /dev/tmem0; dd if=/dev/urandom of=/dev/tmem0 bs=4k count=10"
               " oflag=direct")
        vm.run("blkdiscard /dev/tmem0")
        vm.wait_for("a few discarded slots to be flushed",
                    lambda: not vm.stats()["device"]["persistent-pages"], 10)
