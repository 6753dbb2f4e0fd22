# SPDX-License-Identifier: BSD-3-Clause
"""Swap into host memory: every byte of a set larger than RAM comes back."""
from lab import VMError, equal, field, guest, on, swapped, workset


def test_pressure(kernel):
    """Twice the RAM, in order and at random, with rewrites."""
    with guest(kernel) as vm:
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
    with guest(kernel, smp=2, append="tmem_swap.sync=0") as vm:
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


@on("5.10", "6.1", "6.12")
def test_full_store(kernel):
    """A disk larger than the promise: refused pages stay in RAM, and are right."""
    with guest(kernel, reserved=16, size=24, mem=192,
               append="tmem_swap.disksize_mb=256 tmem_swap.force=1") as vm:
        vm.run("swapon /dev/tmem0")
        vm.ignore = "Call Trace"  # of an OOM kill, which is allowed here
        status, out = vm.run("workset -m 130 -e 100 -r 1", timeout=600, check=False)
        assert status in (0, 137), out
        if status == 0:
            equal(field(out, "wrong"), 0, "wrong pages")
        disk, device = vm.swap_stats(), vm.stats()["device"]
        assert disk["refusals"] > 0, disk
        assert device["puts-refused-limit"] > 0, device
        equal(disk["lost"], 0, "lost pages")
        assert device["held-bytes"] <= 24 << 20, device
        # The guest lives, and so does the disk.
        workset(vm, 20)


@on("6.1")
def test_refusal_of_the_whole_disk_is_reported(kernel):
    """A write that is refused is an error to who writes, and reads as absent."""
    with guest(kernel, reserved=8, size=12, mem=160,
               append="tmem_swap.disksize_mb=64 tmem_swap.force=1") as vm:
        status, _ = vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=64k oflag=direct",
                           timeout=120, check=False)
        assert status != 0
        disk = vm.swap_stats()
        assert disk["refusals"] > 0 and disk["retries"] > 0, disk
        try:
            vm.run("dd if=/dev/tmem0 of=/dev/null bs=4k iflag=direct", timeout=120)
        except VMError as error:
            raise AssertionError(f"absent slots cannot be read: {error}") from None
