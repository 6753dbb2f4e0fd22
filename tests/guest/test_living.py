# SPDX-License-Identifier: BSD-3-Clause
"""Beside what else is done to a guest's memory: KSM, huge pages, mlock, NUMA policies, a balloon,
hotplug.  The guest swaps into its store all the same, and every byte is verified."""
import collections
import concurrent.futures
import glob
import os
import subprocess
import time

from lab import Skip, VM, equal, field, guest, on, store, swapped, workset

KSM = "/sys/kernel/mm/ksm"
HUGE = "/proc/sys/vm/nr_hugepages"
MIB = 1 << 20


def read(path):
    with open(path, encoding="ascii") as file:
        return file.read().strip()


class Settings:
    """Files of the kernel's that are set, and set back at the end."""

    def __init__(self, **values):
        self.values, self.before = values, {}

    def __enter__(self):
        try:
            for path, value in self.values.items():
                before = read(path)
                with open(path, "w", encoding="ascii") as file:
                    file.write(str(value))
                self.before[path] = before
        except OSError as error:
            self.__exit__()
            raise Skip(f"{error.filename} cannot be set here: {error.strerror}") from None
        return self

    def __exit__(self, *_):
        for path, value in reversed(self.before.items()):
            with open(path, "w", encoding="ascii") as file:
                file.write(value)


def process_field(vm, file, name):
    """A number that /proc/PID/FILE has after a name."""
    for line in read(f"/proc/{vm.process.pid}/{file}").splitlines():
        if line.split()[0].rstrip(":") == name:
            return int(line.split()[1])
    raise AssertionError(f"/proc/PID/{file} has no {name}")


def resident(vm):
    """MiB of the guest's RAM that the host holds, of the mapping that is as large as it."""
    size = rss = 0
    for line in read(f"/proc/{vm.process.pid}/smaps").splitlines():
        name, value = (line.split() + [""])[:2]
        if name == "Size:":
            size = int(value) >> 10
        elif name == "Rss:" and size == vm.mem:
            rss += int(value) >> 10
    return rss


def swap_and_verify(vm, mib=180):
    """More than fits into a guest of 192 MiB."""
    vm.run("swapon /dev/tmem0")
    workset(vm, mib)
    swapped(vm)


# ---------------------------------------------------------------------- KSM

def merged(vms):
    """Pages of these processes that KSM has merged, when that does not change any more."""
    last, calm, deadline = -1, 0, time.monotonic() + 900
    with Settings(**{f"{KSM}/run": 1}):
        while calm < 2:
            scans = int(read(f"{KSM}/full_scans"))
            while int(read(f"{KSM}/full_scans")) < scans + 2:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"KSM does not come to an end: {last} pages")
                time.sleep(0.1)
            now = sum(int(read(f"/proc/{vm.process.pid}/ksm_merging_pages")) for vm in vms)
            calm = calm + 1 if abs(now - last) <= now / 200 else 0
            last = now
    return last


def merged_with(kernel, device):
    """Of two guests with the same 48 MiB; with a device they keep some of that in it, too."""
    vms = [VM(kernel=kernel, mem=160, tmem=device, objects=[store(64)] if device else [])
           for _ in range(2)]
    try:
        with concurrent.futures.ThreadPoolExecutor() as pool:
            list(pool.map(lambda vm: vm.start(600), vms))
        for vm in vms:
            # Of the guest's root, whose pages are all different, and not by the page cache.
            vm.run("dd if=/dev/vda of=/dev/shm/same bs=1M count=48 iflag=direct")
            if device:
                vm.run("dd if=/dev/shm/same of=/dev/tmem0 bs=1M count=32 oflag=direct")
            vm.run("sync; echo 3 >/proc/sys/vm/drop_caches")
        pages = merged(vms)
        for vm in vms:
            if device:
                vm.run("cmp -n 33554432 /dev/shm/same /dev/tmem0")
                assert vm.stats()["device"]["persistent-pages"] >= 32 * 256, vm.stats()["device"]
            vm.check_console()
        return pages
    finally:
        for vm in vms:
            vm.stop()


@on("6.1")
def test_ksm(kernel):
    """KSM merges the RAM of guests with a store as it does that of guests without."""
    if not os.path.exists("/proc/self/ksm_merging_pages"):
        raise Skip("this kernel has no KSM, or does not tell what of a process it has merged")
    # Zeros apart: which of its free pages a guest has zeroed differs from boot to boot.
    settings = {"use_zero_pages": 1, "pages_to_scan": 20000, "sleep_millisecs": 10,
                "smart_scan": 0}
    with Settings(**{f"{KSM}/{name}": value for name, value in settings.items()
                     if os.path.exists(f"{KSM}/{name}")}):
        without = merged_with(kernel, None)
        with_it = merged_with(kernel, "virtio-tmem-pci,store=store0")
    print(f"# {without} pages merged without virtio-tmem, {with_it} with", flush=True)
    # Each guest has 48 MiB that the other has, too.
    assert without > 2 * 45 * 256, f"{without} pages are merged without virtio-tmem: too few"
    assert abs(with_it - without) < 0.05 * without, f"{without} without virtio-tmem, {with_it} with"


# ------------------------------------------------------- huge pages, mlock

@on("6.1")
def test_hugepages(kernel):
    """RAM of huge pages: swapping takes nothing from it, and the store is none of it."""
    had = int(read(HUGE))
    with Settings(**{HUGE: had + 96}):
        if int(read(HUGE)) < had + 96:
            raise Skip(f"the host has no 96 huge pages: {HUGE} is {read(HUGE)}")
        with guest(kernel, mem=192, objects=[
                "memory-backend-memfd,id=ram,size=192M,hugetlb=on,hugetlbsize=2M"],
                   args=["-machine", "memory-backend=ram"]) as vm:
            swap_and_verify(vm)
            huge = process_field(vm, "status", "HugetlbPages") >> 10
            assert 150 < huge <= 192, f"{huge} MiB of huge pages"


@on("6.1")
def test_locked(kernel):
    """QEMU locks all that it maps, or the store alone: what is held is in RAM, and no more."""
    for args in (["-overcommit", "mem-lock=on"], []):
        with guest(kernel, mem=192, device="virtio-tmem-pci,store=store1",
                   objects=[store(64, name="store1", lock="on")], args=args,
                   append="tmem_swap.disksize_mb=256 tmem_swap.force=1") as vm:
            vm.qmp("qom-set", path="/objects/store1", property="size", value=256 * MIB)
            swap_and_verify(vm)
            # What nobody has freed when it is looked at.
            vm.run("swapoff /dev/tmem0; dd if=/dev/urandom of=/dev/tmem0 bs=1M count=40"
                   " oflag=direct 2>/dev/null")
            held = vm.stats()["device"]["held-bytes"] >> 20
            shared = process_field(vm, "status", "RssShmem") >> 10
            assert shared >= 40, f"{shared} MiB of memfds are resident"
            locked = process_field(vm, "status", "VmLck") >> 10
            assert locked >= (192 if args else 0) + shared, f"{locked} MiB locked, {shared} shared"
            assert shared <= held + 8, f"{shared} MiB of memfds are resident, {held} are held"


# --------------------------------------------------------------------- NUMA

def placed(vm, name):
    """Of mappings of the memfds of that name: policies, as each of QEMU's threads has them, and
    their pages, by node."""
    policies, pages = set(), collections.Counter()
    for path in glob.glob(f"/proc/{vm.process.pid}/task/*/numa_maps"):
        try:
            lines = read(path).splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue    # the thread has ended
        for line in lines:
            _, policy, *fields = line.split()
            if not fields or not fields[0].startswith(f"file=/memfd:{name}"):
                continue
            policies.add(policy)
            # All threads have the same pages.
            if f"/{vm.process.pid}/task/{vm.process.pid}/" in path:
                pages.update({node: int(count) for node, count in (
                    field.split("=") for field in fields if field[0] == "N")})
    return policies, pages


@on("6.1")
def test_numa(kernel):
    """QEMU is bound to a node: so is the store.  Its guest's RAM is: the store is not."""
    try:
        subprocess.run(["numactl", "--membind=0", "true"], check=True, capture_output=True)
    except subprocess.CalledProcessError as error:
        raise Skip(f"no process can be bound to a node here: {error}") from None
    ram = "memory-backend-memfd,id=ram,size=192M"
    for prefix, options, want in ((["numactl", "--membind=0"], "", ("bind:0", "bind:0")),
                                  ([], ",host-nodes=0,policy=bind", ("default", "bind:0"))):
        with guest(kernel, mem=192, prefix=prefix, objects=[ram + options],
                   args=["-machine", "memory-backend=ram"]) as vm:
            swap_and_verify(vm)
            # What nobody has freed when it is looked at.
            vm.run("swapoff /dev/tmem0; dd if=/dev/urandom of=/dev/tmem0 bs=1M count=40"
                   " oflag=direct 2>/dev/null")
            policies, pages = placed(vm, "tmem-persistent")
            equal(policies, {want[0]}, "policies of the store's memory")
            equal(placed(vm, "memory-backend-memfd")[0], {want[1]}, "policies of the guest's RAM")
            assert sum(pages.values()) >= 40 * 256, f"the store's pages, by node: {pages}"
            if prefix:
                equal(set(pages), {"N0"}, "nodes of the store's pages")


# -------------------------------------------------------- balloon, hotplug

@on("6.1")
def test_balloon(kernel):
    """A balloon takes RAM of a guest, which reports free pages too: it swaps, and gets it back."""
    with guest(kernel, mem=256, args=[
            "-device", "virtio-balloon-pci,id=balloon0,deflate-on-oom=on,free-page-reporting=on"]
               ) as vm:
        def actual():
            return vm.qmp("query-balloon")["actual"] >> 20
        vm.run("swapon /dev/tmem0")
        # It grows while the set is in use, which does not fit into what it leaves.
        job = vm.begin("workset -m 150")
        vm.qmp("balloon", value=160 * MIB)
        vm.wait_for("the balloon to grow", lambda: actual() <= 176, 300)
        status, out = vm.end(job, 900)
        assert not status, out
        equal(field(out, "wrong"), 0, "wrong pages")
        workset(vm, 150)
        swapped(vm)
        vm.qmp("balloon", value=256 * MIB)
        vm.wait_for("the balloon to shrink", lambda: actual() == 256, 60)
        # What the set had is free now, and the host's.
        vm.wait_for("free pages to be reported", lambda: 0 < resident(vm) < 180, 120)


@on("6.1")
def test_virtio_mem(kernel):
    """RAM comes and goes by virtio-mem while the guest has pages in its store."""
    with guest(kernel, mem="192M,maxmem=1G", append="swiotlb=noforce", objects=[
            "memory-backend-ram,id=more,size=256M"], args=[
            "-device", "virtio-mem-pci,id=mem0,memdev=more,block-size=2M"]) as vm:
        def total():
            return int(vm.run("grep MemTotal /proc/meminfo").split()[1]) >> 10

        def resize(mib):
            vm.qmp("qom-set", path="/machine/peripheral/mem0", property="requested-size",
                   value=mib * MIB)

        def plugged():
            return vm.qmp("qom-get", path="/machine/peripheral/mem0", property="size") // MIB
        # The kernel prints one where it finds no 2 MiB for the map of new RAM, and takes less.
        vm.ignore = "Call Trace"
        # ZONE_MOVABLE, which can be emptied: what virtio-mem's documentation asks for.
        vm.run("echo online_movable >/sys/devices/system/memory/auto_online_blocks")
        vm.run("swapon /dev/tmem0")
        before = total()
        job = vm.begin("workset -m 280 -r 2")
        vm.wait_for("the guest to swap", lambda: vm.stats()["device"]["puts"] > 5000, 300)
        resize(256)
        vm.wait_for("RAM to be plugged", lambda: plugged() == 256, 300)
        status, out = vm.end(job, 900)
        assert not status, out
        equal(field(out, "wrong"), 0, "wrong pages")
        puts = swapped(vm)[0]["puts"]
        assert total() > before + 200, f"{before} MiB, then {total()}"
        # All in RAM; what is taken away has to go to the disk.
        vm.run("mkdir /run/set && mount -t tmpfs -o size=300m set /run/set &&"
               " dd if=/dev/urandom of=/run/set/file bs=1M count=240 2>/dev/null &&"
               " md5sum /run/set/file >/run/sum", timeout=300)
        resize(0)
        vm.wait_for("RAM to be unplugged", lambda: plugged() == 0, 300)
        assert total() < before + 20, f"{before} MiB, then {total()}"
        assert vm.stats()["device"]["persistent-pages"] > 80 * 256, vm.stats()["device"]
        vm.run("md5sum -c /run/sum", timeout=300)
        assert swapped(vm)[0]["puts"] > puts + 1000, "the guest did not swap any more"


@on("6.1")
def test_memory_hotplug(kernel):
    """RAM is plugged in while the guest has pages in its store."""
    # RAM that could be above 4 GiB has the kernel set 64 MiB aside for bouncing, of this little.
    with guest(kernel, mem="192M,slots=1,maxmem=1G", append="swiotlb=noforce") as vm:
        def total():
            return int(vm.run("grep MemTotal /proc/meminfo").split()[1]) >> 10
        vm.run("swapon /dev/tmem0")
        workset(vm, 150)
        before, puts = total(), swapped(vm)[0]["puts"]
        vm.qmp("object-add", qom_type="memory-backend-ram", id="more", size=128 * MIB)
        vm.qmp("device_add", driver="pc-dimm", id="dimm0", memdev="more")
        # Debian's kernels leave it to user space to use it.
        vm.wait_for("the guest to have more RAM", lambda: vm.run(
            "for m in /sys/devices/system/memory/memory*/state; do"
            " grep -q online $m || echo online >$m; done", check=False) and total() > before + 100)
        workset(vm, 280)
        assert swapped(vm)[0]["puts"] > puts + 1000, "the guest did not swap any more"


# ------------------------------------------------------------- no driver

@on("6.1")
def test_module_missing(kernel):
    """A guest without the driver runs as if there were no device; with it, it swaps at once."""
    with guest(kernel, mem=192, append="modprobe.blacklist=virtio_tmem,tmem_swap") as vm:
        equal(vm.run("lsmod | grep tmem || true").strip(), "", "modules")
        status, _ = vm.run("swapon /dev/tmem0", check=False)
        assert status, "there is a disk without a driver"
        workset(vm, 40)
        stats = vm.stats()
        equal(stats["requests"]["put"] + stats["requests"]["pool-create"], 0, "requests")
        equal(stats["device"]["persistent-pages"], 0, "pages")
        vm.run("modprobe virtio_tmem && udevadm settle && test -b /dev/tmem0")
        swap_and_verify(vm)
