# SPDX-License-Identifier: BSD-3-Clause
"""The driver against a device that breaks the specification's rules: misbehave.c.

What it may do then: answer with an error.  What not: hand out wrong bytes, take
an error for success, hang, or break rules itself.
"""
import base64
import os
import subprocess
import tempfile
import time

from lab import VMError, equal, guest, on
from vm import tool

HERE = os.path.dirname(os.path.abspath(__file__))
BLOCKS = 16     # that a test writes, of 4096 bytes


def write(vm, word, count=BLOCKS):
    """Fills blocks with a word of three letters; was it a success?"""
    status, _ = vm.run(f"yes {word} | dd of=/dev/tmem0 bs=4k count={count} iflag=fullblock"
                       " oflag=direct", check=False)
    return not status


def read(vm, bs=4096):
    """The words in the blocks, or None if there was an error."""
    status, _ = vm.run(f"dd if=/dev/tmem0 of=/tmp/read bs={bs} count={BLOCKS * 4096 // bs}"
                       " iflag=direct", check=False)
    return None if status else vm.run("tr '\\0' z </tmp/read | fold -w 4 | sort -u").split()


def unreadable(vm):
    """How many of the blocks cannot be read, each for itself."""
    return int(vm.run(f"for i in $(seq 0 {BLOCKS - 1}); do dd if=/dev/tmem0 of=/dev/null bs=4k"
                      " count=1 skip=$i iflag=direct 2>/dev/null || echo $i; done | wc -l"))


def load(vm, *rules, module="virtio_tmem"):
    """A driver that starts with this device makes a disk?"""
    vm.run("modprobe -r tmem_swap; dmesg -C")
    if module == "virtio_tmem":
        vm.run("modprobe -r virtio_tmem")
    vm.rules(*rules)
    vm.run("modprobe virtio_tmem; udevadm settle; modprobe tmem_swap")
    return not vm.run("test -b /dev/tmem0", check=False)[0]


def held(vm):
    """Pages that the device has."""
    return vm.stats()["device"]["persistent-pages"]


def background(vm, name, command):
    """Runs a command in the guest; its status will be in /tmp/NAME."""
    vm.run(f"rm -f /tmp/{name}; (sh -c '{command}'; echo $? >/tmp/{name}.new;"
           f" mv /tmp/{name}.new /tmp/{name}) >/dev/null 2>&1 &")


def ended(vm, name):
    return not vm.run(f"test -e /tmp/{name}", check=False)[0]


# ------------------------------------------------------- what a device shows


@on("6.1")
def test_configuration(kernel):
    """A device that cannot be used is not used, and one of a later version is; nobody
    writes to its configuration (drv.config.check, drv.config.unknown,
    drv.config.write)."""
    with guest(kernel, mem=160, misbehave=True, append="iomem=relaxed") as vm:
        def requests():
            counted = vm.stats()["requests"]
            return sum(counted[op] for op in ("pool-create", "reset-all", "put", "unknown"))

        for rule in ("num_bulk 0", "max_pools 0", "max_pages 0", "max_segs 0", "max_segs 2",
                     "page_sizes 0", "page_sizes 0x1e000"):
            before = requests()
            assert not load(vm, f"config.{rule}"), f"a device with {rule} is used"
            equal(requests(), before, f"requests to a device with {rule}")
            log = vm.run("dmesg")
            assert "unusable limits" in log or "has no pools" in log, log
        assert not load(vm, "config.num_bulk 65"), "a device with more queues than can be used is used"
        assert "at most 64 can be used" in vm.run("dmesg"), vm.run("dmesg")
        assert load(vm, "config.codecs 0xffffffff", "config.page_sizes 0xffffffff",
                    "config.pressure 77"), "not used for what the driver does not know"
        assert write(vm, "new"), "no write to it"
        equal(read(vm), ["new"], "what was written")
        vm.run("blkdiscard /dev/tmem0; swapon /dev/tmem0; swapoff /dev/tmem0")
        equal(vm.verdicts("config-write"), [], "writes to the configuration")
        # The count counts: the configuration is at 0x2000 of BAR 4.
        vm.run("set -- $(grep -l 0x107f /sys/bus/pci/devices/*/device);"
               "set -- $(sed -n 5p ${1%/*}/resource); busybox devmem $(($1 + 0x2000)) 32 1")
        equal(vm.verdicts("config-write"), ["config-write 4"], "after a write")


@on("6.1")
def test_few_segments(kernel):
    """A device with short chains, which refuses longer ones, is sent none
    (drv.op.segs, dev.op.segs)."""
    with guest(kernel, mem=160, smp=2, misbehave=True) as vm:
        for most in (3, 6, 12):
            assert load(vm, f"config.max_segs {most}"), f"max_segs {most} is not enough"
            out = vm.run("directio -d /dev/tmem0 -n 400", timeout=300)
            assert "wrong 0" in out, out
            equal(vm.verdicts("segs"), [], f"chains longer than {most}")
            equal(vm.swap_stats()["errors"], 0, "failed requests")


# ------------------------------------------------------------------- answers


@on("6.1")
def test_statuses(kernel):
    """A status that nobody knows, for requests and for pages, is an error
    (drv.op.unknown-status)."""
    with guest(kernel, mem=160, misbehave=True) as vm:
        assert write(vm, "old")
        for status in (3, 8, 0xff):
            vm.rules(f"page.get {status}")
            equal(unreadable(vm), BLOCKS, f"unreadable pages of status {status}")
        for status in (3, 8, 0x8000, 0xffff):
            vm.rules(f"status.get {status}")
            equal(unreadable(vm), BLOCKS, f"unreadable pages, status {status}")
        vm.rules()
        equal(read(vm), ["old"], "what was written before")
        for status in (3, 8, 0xff):
            vm.rules(f"page.put {status}")
            assert not write(vm, "new", 1), f"written pages of status {status}"
        for status in (3, 8, 0x8000, 0xffff):
            vm.rules(f"status.put {status}")
            assert not write(vm, "new", 1), f"written with status {status}"
        # No disk without a pool, no driver without a reset.
        assert not load(vm, "status.create 8", module="tmem_swap"), "a disk without a pool"
        assert not load(vm, "status.reset-all 8"), "a disk of a device with old pages"
        assert load(vm), "no disk of a device that keeps the rules"


@on("6.1")
def test_used_length(kernel):
    """What the used length does not cover is not there (drv.op.used)."""
    with guest(kernel, mem=160, misbehave=True) as vm:
        assert write(vm, "old")
        # 8 pages a request: 16 for the response, 32 for their statuses, then data.
        for used in (0, 15, 16, 47, 48, 48 + 7 * 4096, 48 + 8 * 4096 - 1):
            vm.rules(f"used.get {used}")
            equal(read(vm, bs=8 * 4096), None, f"read with used length {used}")
        vm.rules(f"used.get {48 + 8 * 4096}")
        equal(read(vm, bs=8 * 4096), ["old"], "read with the right length")
        for used in (0, 15, 16, 19):
            vm.rules(f"used.put {used}")
            assert not write(vm, "new", 1), f"written with used length {used}"
        assert not load(vm, "used.create 15", module="tmem_swap"), "a disk without a pool"


@on("6.1")
def test_failed_put(kernel):
    """After a write that failed, the device still has the page of before: it is
    not read (drv.put.failed), and flushed as soon as can be."""
    with guest(kernel, mem=160, misbehave=True) as vm:
        for status in (3, 4, 99):
            assert write(vm, "old")
            vm.rules(f"status.put {status}", "status.flush 3")
            assert not write(vm, "new"), "the write did not fail"
            equal(held(vm), BLOCKS, "pages that the device kept")
            # dd ends with the first block that it cannot write.
            equal(unreadable(vm), 1, "blocks that are not read")
            vm.rules()
            vm.wait_for("the old page to be flushed", lambda: held(vm) == BLOCKS - 1, 10)
            equal(unreadable(vm), 1, "blocks that are not read after the flush")
            assert write(vm, "new")
            equal(read(vm), ["new"], "what was written next")
        vm.rules("status.put 3")
        assert not write(vm, "old")
        vm.rules()
        vm.run("blkdiscard -f /dev/tmem0")
        assert write(vm, "old")
        equal(read(vm), ["old"], "what was written after a discard")


@on("6.1")
def test_failed_flush(kernel):
    """What was not flushed, or not to the end, is flushed later
    (drv.flush.failed, drv.flush.rest)."""
    with guest(kernel, mem=160, misbehave=True) as vm:
        def all_flushed(before):
            vm.wait_for("the flush of the rest", lambda: not held(vm), 30)
            vm.wait_for("the driver to know",
                        lambda: vm.swap_stats()["flushed"] == before + BLOCKS, 10)
            equal(vm.swap_stats()["pending"], 0, "slots that are to be flushed")

        for rule, left in (("status.flush 3", BLOCKS), ("status.flush 99", BLOCKS),
                           ("done.flush 0", 0)):
            assert write(vm, "old")
            before = vm.swap_stats()["flushed"]
            vm.rules(rule)
            vm.run("blkdiscard /dev/tmem0; sleep 1")
            equal(held(vm), left, f"pages held with {rule}")
            equal(vm.swap_stats()["flushed"], before, f"slots taken for flushed with {rule}")
            assert "old" not in read(vm), "a block that was discarded"
            vm.rules()
            all_flushed(before)
        # A write does not wait for a device that never flushes.
        assert write(vm, "old")
        vm.rules("status.flush 3")
        vm.run("blkdiscard /dev/tmem0; sleep 1")
        assert write(vm, "new")
        vm.rules()
        time.sleep(2)
        equal(read(vm), ["new"], "what was written over a failed flush")

        before, sent = vm.swap_stats()["flushed"], vm.stats()["requests"]["flush"]
        vm.rules("most.flush 7")
        vm.run("blkdiscard /dev/tmem0")
        all_flushed(before)
        equal(vm.stats()["requests"]["flush"] - sent, 3, "flushes of 7 at a time")


@on("6.1")
def test_other_generation(kernel):
    """The device's pages are another's: none is read any more, though it returns
    them all (drv.generation.persistent)."""
    with guest(kernel, mem=160, misbehave=True) as vm:
        def generation():
            return int(vm.read("/sys/bus/virtio/drivers/virtio_tmem/virtio*/generation"))

        assert write(vm, "old")
        before = generation()
        # The old pool stays, for the driver cannot end it.
        vm.rules("generation 5", "stall.destroy 1")
        equal(unreadable(vm), BLOCKS, "blocks that the driver does not read")
        equal(held(vm), BLOCKS, "pages that the device has")
        vm.rules("generation 5")
        vm.go_on()
        vm.wait_for("the driver to have a new pool", lambda: generation() == before + 5, 30)
        equal(held(vm), 0, "pages of the new pool")
        equal(unreadable(vm), BLOCKS, "blocks that are lost")
        assert vm.swap_stats()["lost"] >= BLOCKS, vm.swap_stats()
        assert write(vm, "new")
        equal(read(vm), ["new"], "what was written since")
        assert "has lost this guest's pages" in vm.run("dmesg"), "no line about it"


@on("6.1")
def test_pool_not_made_anew(kernel):
    """A device that lost the pages and makes no new pool is asked again, once a
    second and with one line in the log, until it does."""
    with guest(kernel, mem=160, misbehave=True) as vm:
        assert write(vm, "old")
        before = int(vm.read("/sys/bus/virtio/drivers/virtio_tmem/virtio*/requests"))
        vm.rules("generation 5", "status.create 1")
        equal(unreadable(vm), BLOCKS, "blocks that the driver does not read")
        time.sleep(5)
        assert not write(vm, "new"), "written without a pool"
        equal(vm.run("dmesg").count("makes no new pool"), 1, "lines about it")
        equal(vm.run("dmesg").count("has lost this guest's pages"), 1, "lines about the loss")
        asked = int(vm.read("/sys/bus/virtio/drivers/virtio_tmem/virtio*/requests")) - before
        assert asked < BLOCKS + 100, f"{asked} requests"
        vm.rules("generation 5")
        vm.wait_for("the driver to have a new pool", lambda: write(vm, "new"), 30)
        equal(read(vm), ["new"], "what was written since")
        equal(vm.swap_stats()["pending"], 0, "slots that are to be flushed")


# ------------------------------------------------------------ late and never


@on("6.1")
def test_late_flush(kernel):
    """While a flush takes its time, nobody writes what it flushes: on another queue
    the write could be first (drv.op.overlap)."""
    with guest(kernel, mem=160, smp=2, misbehave=True) as vm:
        assert write(vm, "old")
        vm.rules("stall.flush 1")
        vm.run("blkdiscard /dev/tmem0")
        vm.wait_for("the flush", lambda: vm.verdicts("stall"), 30)
        for cpu in (0, 1):
            background(vm, f"write{cpu}", f"yes new | taskset -c {cpu} dd of=/dev/tmem0 bs=4k"
                       f" count={BLOCKS} iflag=fullblock oflag=direct")
        # Not just asleep: they may be, while dd is being read from its disk.
        blocked = "cat /proc/[0-9]*/stack 2>/dev/null | grep -c tmem_swap_claim || true"
        vm.wait_for("both writes to wait", lambda: int(vm.run(blocked)) == 2 or
                    ended(vm, "write0") or ended(vm, "write1"), 60)
        time.sleep(1)
        for cpu in (0, 1):
            assert not ended(vm, f"write{cpu}"), "a write did not wait"
        vm.rules()
        vm.go_on()
        for cpu in (0, 1):
            vm.wait_for("the write", lambda: ended(vm, f"write{cpu}"), 30)
            equal(vm.read(f"/tmp/write{cpu}"), "0", "the write's status")
        equal(vm.verdicts("overlap"), [], "requests on one key at a time")
        equal(read(vm), ["new"], "what was written")


@on("6.1")
def test_late_answer(kernel):
    """A device that does not answer for longer than anybody waits still has the
    request's memory, until it is reset (drv.op.owned)."""
    with guest(kernel, mem=160, smp=2, misbehave=True,
               device="virtio-tmem-pci,store=store0,num-fast-queues=0,bus=port0") as vm:
        def reader(name):
            background(vm, name, f"exec dd if=/dev/tmem0 of=/tmp/{name}.out bs=64k"
                       " count=1 iflag=direct")

        slow = "cat /sys/bus/virtio/drivers/virtio_tmem/virtio*/slow_requests"
        assert write(vm, "old")
        vm.rules("stall.get 1")
        reader("patient")
        reader("killed")
        vm.wait_for("the read", lambda: vm.verdicts("stall"), 30)
        vm.run("pkill -9 -f of=/tmp/[k]illed")
        vm.wait_for("30 s to pass", lambda: vm.run(slow).strip() != "0", 90)
        time.sleep(2)
        for name in ("patient", "killed"):
            assert not ended(vm, name), f"the {name} reader's memory was given up"
        assert "no answer from the host" in vm.run("dmesg"), "no line about it"
        vm.rules()
        vm.go_on()
        for name in ("patient", "killed"):
            vm.wait_for(f"the {name} reader", lambda: ended(vm, name), 30)
        equal(vm.read("/tmp/patient"), "0", "the reader's status")
        equal(vm.run("sort -u /tmp/patient.out").split(), ["old"], "what was read late")
        # Unplugged: the device is reset, and then they all end.
        stalls = len(vm.verdicts("stall"))
        vm.rules("stall.get 1")
        reader("last")
        vm.wait_for("the read", lambda: len(vm.verdicts("stall")) > stalls, 30)
        vm.qmp("device_del", id="tmem0")
        vm.wait_for("the last reader", lambda: ended(vm, "last"), 60)
        assert vm.read("/tmp/last") != "0", "read from a device that is gone"


@on("6.1")
def test_reset_with_writes(kernel):
    """Writes that were not answered before a reset are sent again: what they wrote
    over does not come back (drv.life.inflight)."""
    with guest(kernel, mem=192, misbehave=True,
               args=["-global", "ICH9-LPC.disable_s3=0"]) as vm:
        assert write(vm, "old")
        before = vm.swap_stats()["put_requests"]
        vm.rules("stall.put 1")
        # By the flusher: who waits for a block cannot be suspended.
        vm.run("echo 0 >/sys/power/sync_on_suspend; cd /proc/sys/vm;"
               "echo 20 >dirty_writeback_centisecs; echo 20 >dirty_expire_centisecs;"
               "(exec 3<>/dev/tmem0;"
               f" yes new | dd bs=4k count={BLOCKS} iflag=fullblock >&3; exec sleep 1000)"
               " >/dev/null 2>&1 &")
        vm.wait_for("the writes", lambda: vm.swap_stats()["put_requests"] > before and
                    vm.verdicts("stall"), 30)
        vm.run("(sleep 0.5; echo mem >/sys/power/state) >/dev/null 2>&1 &")
        vm.wait_for("the guest to sleep",
                    lambda: vm.qmp("query-status")["status"] == "suspended", 60)
        vm.rules()
        vm.qmp("system_wakeup")
        vm.run("sync", timeout=60)
        equal(read(vm), ["new"], "what was written last")
        equal(vm.swap_stats()["errors"], 0, "failed writes")


# ------------------------------------------------------- a guest's own secret


def build_module(kernel, name):
    """A module of this folder, for the guest; its bytes."""
    with tempfile.TemporaryDirectory(prefix="tmem-module-") as folder:
        os.symlink(f"{HERE}/{name}.c", f"{folder}/{name}.c")
        with open(f"{folder}/Kbuild", "w", encoding="ascii") as file:
            file.write(f"obj-m := {name}.o\n")
        done = subprocess.run(
            ["make", "-C", tool("guest-kernel", kernel) + "/build", f"M={folder}",
             "CC=gcc", "CONFIG_DEBUG_INFO_BTF_MODULES=",
             "CONFIG_CC_HAS_MIN_FUNCTION_ALIGNMENT=", "modules"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False, text=True)
        if done.returncode:
            raise VMError(done.stdout)
        subprocess.run(["strip", "-g", f"{folder}/{name}.ko"], check=True)
        with open(f"{folder}/{name}.ko", "rb") as file:
            return file.read()


@on("6.1")
def test_encrypted_memory(kernel):
    """Where the guest's memory is encrypted, the driver does not start
    (drv.features.encrypted)."""
    module = base64.b64encode(build_module(kernel, "encrypted")).decode()
    with guest(kernel, mem=160) as vm:
        assert write(vm, "old"), "the driver works"
        vm.run(f"modprobe -r tmem_swap virtio_tmem; dmesg -C; echo {module} |"
               "base64 -d >/tmp/encrypted.ko && insmod /tmp/encrypted.ko")
        sent = vm.stats()["requests"]
        assert not load(vm), "pages go to the host in clear"
        assert "memory is encrypted" in vm.run("dmesg"), "no line about it"
        equal(vm.stats()["requests"], sent, "requests")
        vm.run("rmmod encrypted")
        assert load(vm), "the driver does not start where nothing is encrypted"
