# SPDX-License-Identifier: BSD-3-Clause
"""The driver's and the device's life: loading, unplugging, resets, blockers."""
import os
import signal
import tempfile
import time

import lab
from lab import VM, VMError, equal, guest, on, store, swapped, workset


def test_autoload(kernel):
    """udev finds both modules by the device's PCI id; the disk is ready to use
    (drv.features.version)."""
    with guest(kernel, mem=160) as vm:
        modules = vm.run("lsmod")
        assert "virtio_tmem" in modules and "tmem_swap" in modules, modules
        alias = vm.run("modinfo -F alias virtio_tmem")
        assert "virtio:d0000003Fv*" in alias, alias
        features = vm.read("/sys/bus/virtio/drivers/virtio_tmem/virtio*/features")
        equal(features[32], "1", "VIRTIO_F_VERSION_1")
        equal(vm.run("grep -rl 'insmod' /lib/modules/bin/init || true").strip(), "", "insmod")
        equal(int(vm.read("/sys/block/tmem0/size")) // 2048, 256, "MiB of the disk")
        # Away and back: pools end with the disk.
        vm.run("swapon /dev/tmem0 && swapoff /dev/tmem0 && modprobe -r tmem_swap virtio_tmem")
        equal(vm.stats()["pools"], [], "pools without a driver")
        vm.run("modprobe virtio_tmem && udevadm settle && test -b /dev/tmem0")
        status, _ = vm.run("swapon /dev/tmem0 && modprobe -r tmem_swap", check=False)
        assert status != 0, "the module in use was unloaded"


def swap_in_cgroup(vm, command):
    """Starts a command in 40 MiB; at its end there are /tmp/out and /tmp/status."""
    # In a cgroup, so that it is its pages that go to the disk, not init's;
    # and not with the command's output, whose end would be waited for.
    vm.run("swapon /dev/tmem0; mkdir /run/cg; mount -t cgroup2 none /run/cg;"
           "echo +memory >/run/cg/cgroup.subtree_control; mkdir /run/cg/t;"
           "echo 40M >/run/cg/t/memory.max;"
           f"((echo $BASHPID >/run/cg/t/cgroup.procs; exec {command}) >/tmp/out 2>&1;"
           " echo $? >/tmp/status) >/dev/null 2>&1 &")


@on("6.1", "6.12")
def test_hotplug(kernel):
    """Plugged into a running guest, unplugged idle, unplugged in use (dev.life.unplug)."""
    with VM(kernel=kernel, mem=256, tmem=None, objects=[store(128)]) as vm:
        def plug():
            vm.qmp("device_add", driver="virtio-tmem-pci", id="tmem0", bus="port0",
                   store="store0")
            vm.wait_for("the disk to come",
                        lambda: not vm.run("test -b /dev/tmem0", check=False)[0], 60)

        def unplug():
            vm.qmp("device_del", id="tmem0")
            vm.wait_for("the device to go", lambda: any(
                e["event"] == "DEVICE_DELETED" and e["data"].get("device") == "tmem0"
                for e in drain()), 60)

        def drain():
            vm.qmp("query-status")
            events, vm.events = vm.events, []
            return events

        plug()
        vm.run("swapon /dev/tmem0")
        workset(vm, 210, "-r 0")
        vm.run("swapoff /dev/tmem0")
        unplug()
        status, _ = vm.run("test -e /dev/tmem0", check=False)
        assert status, "the disk is still there"

        plug()
        swap_in_cgroup(vm, "workset -m 100 -s 60")
        vm.wait_for("swapping", lambda: vm.stats()["device"]["puts"] > 5000, 120)
        time.sleep(5)
        drain()
        unplug()
        left = vm.qmp("qom-get", path="/objects/store0", property="stats")
        equal(left["persistent-pages"], 0, "pages of a device that is gone")
        # Who needed the pages is killed, as on a failed disk; the guest is not,
        # and nobody reads wrong data.
        vm.wait_for("the process to end", lambda: not vm.run(
            "test -e /tmp/status", check=False)[0], 120)
        out = vm.read("/tmp/out")
        assert vm.read("/tmp/status") != "0", out
        assert "wrong" not in out or "wrong 0" in out, out
        vm.ignore = "Call Trace|WARNING"
        assert "BUG:" not in vm.console(), "kernel bug"


@on("5.10", "6.1", "6.12")
def test_system_reset(kernel):
    """A reset ends all pools; the next kernel starts with an empty device."""
    with guest(kernel, mem=160, append="panic=0") as vm:
        vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=64k count=100 oflag=direct 2>/dev/null")
        before = vm.stats()
        equal(before["device"]["persistent-pages"], 1600, "pages before")
        vm.qmp("set-action", reboot="reset")
        vm.channel.close()
        vm.qmp("system_reset")
        vm.wait_for("pools to end", lambda: not vm.stats()["device"]["persistent-pages"], 30)
        vm.wait_boot(time.monotonic() + 200)
        after = vm.stats()
        assert after["generation"] != before["generation"], "the generation stays"
        vm.run("udevadm settle; swapon /dev/tmem0")


@on("6.1", "6.12")
def test_suspend(kernel):
    """Suspended to RAM while it swaps, the guest goes on; it does not hibernate
    (dev.life.suspend, drv.init.generation, drv.life.hibernate)."""
    with guest(kernel, mem=192, smp=2, args=["-global", "ICH9-LPC.disable_s3=0"]) as vm:
        vm.run("swapon /dev/tmem0")
        status, out = vm.run("echo disk >/sys/power/state", check=False)
        assert status and "busy" in out, f"hibernates with swap in the host: {out}"
        assert "no hibernation while the disk is open" in vm.run("swapoff /dev/tmem0; dmesg")
        swap_in_cgroup(vm, "workset -m 50 -r 1")
        vm.wait_for("swapping", lambda: vm.stats()["device"]["puts"] > 5000, 120)
        before = vm.stats()
        vm.run("(sleep 0.5; echo mem >/sys/power/state) >/dev/null 2>&1 &")
        vm.wait_for("the guest to sleep",
                    lambda: vm.qmp("query-status")["status"] == "suspended", 60)
        time.sleep(1)
        equal(vm.stats()["generation"], before["generation"], "generation")
        assert vm.stats()["device"]["persistent-pages"] > 1000, "pages ended"
        vm.qmp("system_wakeup")
        equal(vm.run("test -e /tmp/status", check=False)[0], 1, "the set is being walked")
        vm.wait_for("the set to be walked", lambda: not vm.run(
            "test -e /tmp/status", check=False)[0], 300)
        out = vm.read("/tmp/out")
        assert vm.read("/tmp/status") == "0" and "wrong 0" in out, out
        swapped(vm)


@on("6.1")
def test_hibernation(kernel):
    """With an empty disk a guest hibernates; its disk works when it wakes up, on a
    device that was made since and has the generation of old (drv.life.hibernate)."""
    with tempfile.NamedTemporaryFile(prefix="tmem-image-") as image:
        os.truncate(image.name, 512 << 20)
        with guest(kernel, mem=384, reserved=64, append="tmem.resume=vdc no_console_suspend",
                   args=["-drive", f"if=none,id=image,file={image.name},format=raw",
                         "-device", "virtio-blk-pci,drive=image"]) as vm:
            vm.run("udevadm settle; mkswap /dev/vdc && swapon /dev/vdc; echo it is >/tmp/there")
            before = vm.stats()["generation"]
            number = vm.begin("echo 0 >/sys/power/image_size; echo shutdown >/sys/power/disk;"
                              "echo disk >/sys/power/state")
            vm.wait(120)
            vm.resume()
            status, out = vm.end(number, 200)
            equal(status, 0, f"'echo disk' after waking up: {out}")
            equal(vm.read("/tmp/there"), "it is", "a file of before")
            equal(vm.stats()["generation"], before, "generation, which a new device begins with")
            vm.wait_for("the device to have a pool", lambda: vm.stats()["pools"], 30)
            vm.run("swapoff /dev/vdc")
            swap_in_cgroup(vm, "workset -m 60 -r 1")
            vm.wait_for("the set to be walked", lambda: not vm.run(
                "test -e /tmp/status", check=False)[0], 200)
            out = vm.read("/tmp/out")
            assert vm.read("/tmp/status") == "0" and "wrong 0" in out, out
            swapped(vm)


@on("6.1", "6.12")
def test_reboot_in_use(kernel):
    """A kernel that restarts while pages are in the host: nobody is told that they
    are lost, and nothing is written into the next kernel's memory."""
    with guest(kernel, mem=192, smp=2, append="panic=0") as vm:
        # Needs pages all the time, and tells if it does not get one.
        swap_in_cgroup(vm, "sh -c 'workset -m 60 -r 1000; echo ended: $? >/dev/ttyS0'")
        vm.wait_for("swapping", lambda: vm.stats()["device"]["gets"] > 5000, 120)
        vm.qmp("set-action", reboot="reset")
        vm.run("dmesg -n 7")
        seen = len(vm.console())
        vm.begin("sync; reboot -f || busybox reboot -f")
        vm.wait_for("pools to end", lambda: not vm.stats()["device"]["persistent-pages"], 60)
        vm.channel.close()
        vm.wait_boot(time.monotonic() + 200)
        console = vm.console()[seen:]
        troubles = ["I/O error, dev tmem", "Read-error", "Kernel panic", "hung task", "wrong"]
        # A kernel that stops virtio-blk, too, may fail to read a program's code.
        if "I/O error, dev vda" not in console:
            troubles += ["Bus error", "ended:"]
        for trouble in troubles:
            assert trouble not in console, f"{console}\n'{trouble}' is in it"
        vm.run("udevadm settle; swapon /dev/tmem0")


@on("6.1")
def test_probe_empties_the_device(kernel):
    """What a driver left behind that had no time to end its pools ends at probe
    (drv.init.reset-all)."""
    with guest(kernel, mem=160) as vm:
        vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=4k count=100 oflag=direct 2>/dev/null")
        vm.run("udevadm settle; set -- $(grep -l 0x107f /sys/bus/pci/devices/*/device);"
               "echo 1 >${1%/*}/remove")
        equal(vm.stats()["device"]["persistent-pages"], 100, "pages left behind")
        vm.run("echo 1 >/sys/bus/pci/rescan; udevadm settle; test -b /dev/tmem0")
        equal(vm.stats()["device"]["persistent-pages"], 0, "pages after probe")


# The queue's ring moves to where there is no memory: writes to the common
# configuration, which is at the start of BAR 4.
BREAK = """set -- $(grep -l 0x107f /sys/bus/pci/devices/*/device)
set -- $(sed -n 5p ${1%/*}/resource)
queues=$(busybox devmem $(($1 + 18)) 16)
for i in $(seq 0 $((queues - 1))); do
	busybox devmem $(($1 + 22)) 16 $i
	for at in 32 40 48; do
		busybox devmem $(($1 + at)) 32 0xfffff000
		busybox devmem $(($1 + at + 4)) 32 0xff
	done
	busybox devmem $(($1 + 28)) 16 1
done"""


@on("6.1")
def test_failed_device(kernel):
    """The device asks for a reset: who waits for it gets an error, at once."""
    with guest(kernel, mem=160, append="iomem=relaxed") as vm:
        write = "dd if=/dev/urandom of=/dev/tmem0 bs=4k count=100 oflag=direct"
        vm.run(write + "; udevadm settle")
        vm.run(BREAK)
        status, out = vm.run(write, timeout=60, check=False)
        assert status and "Input/output error" in out, out
        assert "the device has failed" in vm.run("dmesg"), "no line about it"
        vm.run("modprobe -r tmem_swap virtio_tmem && modprobe virtio_tmem &&"
               "udevadm settle; " + write, timeout=60)


@on("6.1")
def test_parameters(kernel):
    """Sizes and times that make no sense: what is used instead, and one line."""
    with guest(kernel, mem=160, reserved=64,
               append="virtio_tmem.spin_us=5000000000 tmem_swap.disksize_mb=4294967295") as vm:
        def size():
            return int(vm.read("/sys/block/tmem0/size")) // 2048

        def again(options):
            vm.run(f"modprobe -r tmem_swap && dmesg -C && modprobe tmem_swap {options} &&"
                   "udevadm settle")
            return [l for l in vm.run("dmesg").splitlines() if "tmem" in l]

        log = vm.run("dmesg")
        assert "spin_us=5000000000 is more than 1000" in log, log
        equal(vm.read("/sys/module/virtio_tmem/parameters/spin_us"), "1000", "spin_us")
        assert "disksize_mb=4294967295 is more than the 64 MiB" in log, log
        equal(size(), 64, "MiB")
        log = again("disksize_mb=1")
        equal(size(), 1, "MiB")
        vm.run("swapon /dev/tmem0 && swapoff /dev/tmem0")
        log = again("disksize_mb=4294967295 force=1")
        assert any("64 times" in line for line in log), log
        assert 6 << 10 < size() <= 10 << 10, size()
        vm.run("swapon /dev/tmem0 && swapoff /dev/tmem0")


@on("6.1")
def test_migration_is_blocked(kernel):
    """While pages are held, and only then, the guest cannot leave."""
    with guest(kernel, mem=160) as vm:
        vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=64k count=10 oflag=direct 2>/dev/null")

        def migrate():
            vm.qmp("migrate", uri=f"file:{vm.dir}/image")
            vm.wait_for("the migration's end", lambda: vm.qmp("query-migrate").get(
                "status") in ("completed", "failed"), 120)
            return vm.qmp("query-migrate")["status"]

        try:
            migrate()
            raise AssertionError("migrated, and left its pages behind")
        except VMError as error:
            text = str(error)
        assert "tmem0" in text and "\n" not in text.strip(), text
        vm.run("blkdiscard /dev/tmem0; sleep 0.5")
        vm.wait_for("pages to be flushed",
                    lambda: not vm.stats()["device"]["persistent-pages"], 30)
        equal(migrate(), "completed", "migration without pages")


@on("6.1")
def test_stopped_qemu(kernel):
    """QEMU stops for a while, under load: nothing is lost, nothing complains."""
    # The guest's clock leaps over the pause, which to RCU looks like a stall of 21 s.
    with guest(kernel, mem=192, smp=2, append="rcupdate.rcu_cpu_stall_timeout=300") as vm:
        vm.run("swapon /dev/tmem0")
        number = vm.begin("workset -m 200 -r 1")
        time.sleep(8)
        vm.process.send_signal(signal.SIGSTOP)
        time.sleep(120 if lab.LONG else 15)
        vm.process.send_signal(signal.SIGCONT)
        status, out = vm.end(number, 600)
        assert status == 0 and "wrong 0" in out, out
        swapped(vm)
        assert "soft lockup" not in vm.console()


@on("5.10", "6.1", "6.12")
def test_frozen_store(kernel):
    """The store takes no puts for a while, under load: the guest waits."""
    with guest(kernel, mem=192, smp=2) as vm:
        vm.run("swapon /dev/tmem0")
        number = vm.begin("workset -m 200 -r 1")
        vm.wait_for("swapping", lambda: vm.stats()["device"]["puts"] > 5000, 120)
        vm.qmp("qom-set", path="/objects/store0", property="frozen", value=True)
        time.sleep(1)
        before = vm.stats()["device"]["puts"]
        time.sleep(120 if lab.LONG else 15)
        equal(vm.stats()["device"]["puts"], before, "puts while frozen")
        vm.qmp("qom-set", path="/objects/store0", property="frozen", value=False)
        status, out = vm.end(number, 600)
        assert status == 0 and "wrong 0" in out, out
        swapped(vm)
        assert "soft lockup" not in vm.console()


@on("5.10", "6.1", "6.12")
def test_full_for_a_while(kernel):
    """When a full device has room again, the guest swaps at once: kswapd has not given up."""
    with guest(kernel, mem=192, reserved=16, size=200,
               append="tmem_swap.disksize_mb=256 tmem_swap.force=1") as vm:
        vm.run("swapon /dev/tmem0")
        # While nothing can be swapped, a guest may well run out of memory: then again.
        for _ in range(4):
            if full_for_a_while(vm):
                return
        raise AssertionError("out of memory four times")


def full_for_a_while(vm):
    """False if the working set was killed, for lack of memory."""
    puts = vm.stats()["device"]["puts"]
    number = vm.begin("workset -m 170 -r 2")
    vm.wait_for("swapping", lambda: vm.stats()["device"]["puts"] > puts + 3000, 120)
    vm.qmp("qom-set", path="/objects/store0", property="size", value=24 << 20)
    time.sleep(12)
    puts = vm.stats()["device"]["puts"]
    vm.qmp("qom-set", path="/objects/store0", property="size", value=200 << 20)
    end = time.monotonic() + 60
    result = None
    while result is None and vm.stats()["device"]["puts"] == puts:
        assert time.monotonic() < end, "the guest does not swap again"
        result = vm.poll(number, 0.2)
    status, out = result or vm.end(number, 600)
    if status == 137 and "Out of memory: Killed process" in vm.run("dmesg"):
        return False
    assert status == 0 and "wrong 0" in out, out
    return True


@on("5.10", "6.1", "6.12")
def test_full_and_reading(kernel):
    """A full device does not hold up kswapd, which has files to reclaim."""
    with guest(kernel, mem=192, reserved=1, size=4,
               append="tmem_swap.disksize_mb=256 tmem_swap.force=1") as vm:
        # More than the store takes, so that it is full; it stays cold and would be swapped out.
        vm.run("set -e; swapon /dev/tmem0; mkdir /tmp/pages; "
               "mount -t tmpfs -o size=90% none /tmp/pages; "
               "head -c 80M /dev/urandom >/tmp/pages/data")
        for _ in range(10):
            vm.run("for i in 1 2 3; do cat /dev/vda; done >/dev/null", timeout=300)
            disk = vm.swap_stats()
            if disk["refusals"] > 100:
                break
        # How soon is the kernel's affair: once there were 16 after the first round.
        assert disk["refusals"] > 100, disk
        # A wait ends when it is time to ask again: who always waits has one for every other
        # request.  Refusals between them are as many as the CPU has time for.
        assert disk["kswapd_waits"] < disk["put_requests"] / 5, disk


@on("6.1")
def test_limits_change(kernel):
    """The limit falls below what is held: puts are refused, nothing is lost.  A promise
    that falls below the disk is told, once for each time that it falls."""
    with guest(kernel, mem=192, reserved=16, size=200,
               append="tmem_swap.disksize_mb=256 tmem_swap.force=1") as vm:
        for reserved in (12, 8, 16):
            vm.qmp("qom-set", path="/objects/store0", property="reserved", value=reserved << 20)
            vm.wait_for("the new promise", lambda: vm.read(
                "/sys/bus/virtio/drivers/virtio_tmem/virtio*/persistent_reserved"
                ) == str(reserved << 20), 20)
            if reserved < 16:
                line = f"promises {reserved} MiB now, less than the disk's 256"
                vm.wait_for(line, lambda: line in vm.run("dmesg"), 20)
        equal(vm.run("dmesg").count("less than the disk"), 2, "lines")
        vm.run("swapon /dev/tmem0")
        number = vm.begin("workset -m 170 -r 2")
        vm.wait_for("swapping", lambda: vm.stats()["device"]["puts"] > 3000, 120)
        vm.qmp("qom-set", path="/objects/store0", property="size", value=24 << 20)
        equal(vm.qmp("qom-get", path="/objects/store0", property="size"), 24 << 20, "size")
        time.sleep(5)
        vm.qmp("qom-set", path="/objects/store0", property="size", value=200 << 20)
        status, out = vm.end(number, 600)
        assert status == 0 and "wrong 0" in out, out
        equal(vm.swap_stats()["lost"], 0, "lost pages")
