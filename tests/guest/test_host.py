# SPDX-License-Identifier: BSD-3-Clause
"""The host is short of memory, or fails: the guest goes on, and QEMU lives."""
import os
import subprocess
import tempfile
import time

from lab import Skip, VM, equal, guest, on, store, swapped, workset

HERE = os.path.dirname(os.path.abspath(__file__))


class Cgroup:
    """A memory cgroup of version 1 or 2 with a limit; removed at the end."""

    def __init__(self, limit):
        if os.path.exists("/sys/fs/cgroup/memory/memory.limit_in_bytes"):
            self.path, limit_file = "/sys/fs/cgroup/memory", "memory.limit_in_bytes"
            self.oom_file = "memory.oom_control"
        else:
            self.path, limit_file = "/sys/fs/cgroup", "memory.max"
            self.oom_file = "memory.events"
        self.path += f"/tmem-test-{os.getpid()}"
        try:
            os.mkdir(self.path)
            with open(f"{self.path}/{limit_file}", "w", encoding="ascii") as file:
                file.write(str(limit))
        except OSError as error:
            raise Skip(f"no memory cgroup can be made here: {error}") from None

    def prefix(self):
        return ["sh", "-c", f"echo $$ >{self.path}/cgroup.procs && exec \"$@\"", "sh"]

    def oom_kills(self):
        with open(f"{self.path}/{self.oom_file}", encoding="ascii") as file:
            return int(dict(l.split() for l in file)["oom_kill"])

    def remove(self):
        for _ in range(50):
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.1)


@on("6.1")
def test_cgroup_flood(kernel):
    """A guest floods a store whose limit is far above QEMU's cgroup's."""
    cgroup = Cgroup((256 + 256) << 20)
    try:
        with VM(kernel=kernel, mem=256, tmem="virtio-tmem-pci,store=store0",
                objects=[store(64, 4096)], prefix=cgroup.prefix(),
                append="tmem_swap.disksize_mb=1024 tmem_swap.force=1") as vm:
            vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=256k oflag=direct",
                   timeout=300, check=False)
            device = vm.stats()["device"]
            assert device["puts-refused-headroom"] > 0, device
            assert device["persistent-raw-bytes"] >= 64 << 20, device
            equal(cgroup.oom_kills(), 0, "OOM kills")
            vm.run("blkdiscard /dev/tmem0")
            vm.wait_for("memory to be given back",
                        lambda: vm.stats()["device"]["held-bytes"] < 16 << 20, 60)
            vm.run("swapon /dev/tmem0")
            workset(vm, 230)
            equal(cgroup.oom_kills(), 0, "OOM kills")
    finally:
        cgroup.remove()


def damage(vm):
    """Overwrites whatever the store holds of persistent pages."""
    folder = f"/proc/{vm.process.pid}/fd"
    for fd in os.listdir(folder):
        if not os.readlink(f"{folder}/{fd}").startswith("/memfd:tmem-persistent"):
            continue
        with open(f"{folder}/{fd}", "r+b", buffering=0) as file:
            end = 0
            while True:
                try:
                    start = os.lseek(file.fileno(), end, os.SEEK_DATA)
                except OSError:
                    return
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
                os.pwrite(file.fileno(), b"\xff" * (end - start), start)


@on("6.1")
def test_damaged_pages(kernel):
    """What the host holds and cannot read is an error, never other data
    (drv.get.lost)."""
    with guest(kernel, reserved=64) as vm:
        # Half of it text, which LZ4 shortens, and half what it does not.
        text = "{ seq 100000 150000 | head -c 204800; cat /tmp/random; }"
        vm.run("head -c 204800 /dev/urandom >/tmp/random")
        write = f"{text} | dd of=/dev/tmem0 bs=400k count=1 iflag=fullblock oflag=direct"
        read = "rm -f /tmp/read; dd if=/dev/tmem0 bs=400k count=1 iflag=direct of=/tmp/read"
        same = f"{text} | cmp -n 409600 - /tmp/read"
        vm.run(f"{write} && {read} && {same}")
        damage(vm)
        status, out = vm.run(read, check=False)
        assert status and "Input/output error" in out, out
        equal(vm.run("stat -c %s /tmp/read").strip(), "0", "bytes read")
        assert vm.swap_stats()["lost"] >= 100, vm.swap_stats()
        vm.run(f"{write} && {read} && {same}")


@on("6.1")
def test_failing_fallocate(kernel):
    """Every second growth of the store's memory fails: puts are refused."""
    with tempfile.TemporaryDirectory(prefix="tmem-preload-") as folder:
        library = f"{folder}/fail.so"
        subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library,
                        f"{HERE}/fail-fallocate.c"], check=True)
        with guest(kernel, mem=192, prefix=["env", f"LD_PRELOAD={library}"]) as vm:
            vm.run("swapon /dev/tmem0")
            workset(vm, 210)
            device, disk = swapped(vm)
            assert device["puts-refused-memory"] > 0, device
            assert disk["retries"] > 0, disk
