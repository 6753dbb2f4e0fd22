# SPDX-License-Identifier: BSD-3-Clause
"""Guests as User Mode Linux, whose pages are with vhost-user-tmem: another hypervisor, and a
native kernel's speed (make check-uml)."""
import contextlib
import os
import time

import lab
from lab import equal, on, workset
from machine import TOP, tool
from uml import UML
from vhost import backend, honest, stand_still, vhost_guest


MEMORY = 128


def uml(kernel, *sockets, **kw):
    return UML(kernel, mem=MEMORY, sockets=sockets, **kw)


@on(*lab.UML)
def test_pressure(kernel):
    """udev loads the driver; a verified working set that does not fit into the guest."""
    with backend("--reserved=512M") as back, uml(kernel, back.path) as vm:
        assert "tmem_swap" in vm.run("lsmod"), "udev did not load the driver"
        vm.run("swapon /dev/tmem0")
        workset(vm, MEMORY + 80, "-r 1")
        honest(vm, back.vm(), 20000)
        vm.run("swapoff /dev/tmem0", timeout=300)
        back.wait(lambda stats: stats["persistent_pages"] == 0)


@on(*lab.UML)
def test_reload(kernel):
    """The driver goes and comes back, and the device is as new."""
    with backend("--reserved=256M") as back, uml(kernel, back.path) as vm:
        for _ in range(5):
            vm.run("modprobe -r tmem_swap; ! grep tmem /proc/modules; modprobe tmem_swap sync=0; "
                   "udevadm settle; dd if=/dev/urandom of=/dev/tmem0 bs=4k count=64 oflag=direct "
                   "2>/dev/null; blkdiscard /dev/tmem0; swapon /dev/tmem0; swapoff /dev/tmem0",
                   timeout=60)
        vm.run("swapon /dev/tmem0")
        workset(vm, MEMORY + 80, "-r 1")
        honest(vm, back.vm(), 20000)
        equal(back.vm()["broken"], 0, "resets that the device asked for")


@on("uml-7")
def test_pressure_smp(kernel):
    """Two CPUs, and processes that share pages copy-on-write."""
    with backend("--reserved=512M") as back, uml(kernel, back.path, smp=2) as vm:
        equal(vm.run("nproc").strip(), "2", "CPUs")
        vm.run("swapon /dev/tmem0")
        workset(vm, MEMORY + 30, "-r 0", "-f 2", timeout=900)
        honest(vm, back.vm(), 10000)


@on("uml-7")
def test_several(kernel):
    """Two UML guests and one in QEMU at once, on back ends of their own."""
    with contextlib.ExitStack() as stack:
        backs = [stack.enter_context(backend("--reserved=256M")) for _ in range(3)]
        vms = [stack.enter_context(uml(kernel, back.path)) for back in backs[:2]]
        vms.append(stack.enter_context(vhost_guest("6.1", backs[2].path)))
        together(vms, [back.vm for back in backs])


@on("uml-7")
def test_shared(kernel):
    """The same on one back end that serves three sockets from one store."""
    with contextlib.ExitStack() as stack:
        back = stack.enter_context(backend("--reserved=256M", sockets=3))
        vms = [stack.enter_context(uml(kernel, path)) for path in back.paths[:2]]
        vms.append(stack.enter_context(vhost_guest("6.1", back.paths[2])))
        together(vms, [lambda i=i: back.vm(i) for i in range(3)])
        # Who goes away takes its pages along, and nobody else's.
        held = back.vm(2)["persistent_pages"]
        vms[0].run("swapoff /dev/tmem0", timeout=300)
        back.wait(lambda stats: stats["persistent_pages"] == 0)
        equal(back.vm(2)["persistent_pages"], held, "pages of another VM")


@on("uml-7")
def test_nested(kernel):
    """A guest runs QEMU, with a guest of its own: both swap, and what the inner one's store has is
    swapped out by the outer one, and comes back."""
    qemu = os.environ.get("QEMU") or tool("build-qemu", "--print-path")
    image = tool("guest-image", "6.1")
    with backend("--reserved=1G") as back, \
            UML(kernel, mem=512, smp=2, sockets=[back.path]) as vm:
        # The host's programs, and nothing of the host's to write to.
        vm.run("swapon /dev/tmem0; mkdir /run/host; mount -r -t hostfs none /run/host;"
               " for i in dev proc sys; do mount --bind /$i /run/host/$i; done; mkfifo /run/go")
        vm.run(f"(env TMPDIR=/dev/shm QEMU={qemu} TMEM_IMAGE_6.1={image} chroot /run/host"
               f" python3 {TOP}/tests/guest/nested.py; echo ended with $?) <>/run/go >/run/says 2>&1 &")

        def says(word):
            vm.run(f"until grep -q '{word}\\|ended' /run/says; do sleep 0.5; done", timeout=600)
            out = vm.read("/run/says")
            assert out.endswith(word), out
        says("holds")
        puts = back.vm()["puts"]
        # Too much beside QEMU, whose memory is idle.
        workset(vm, 380, "-r 1")
        assert back.vm()["puts"] > puts + 20000, back.vm()
        vm.run("echo >/run/go")
        says("ended with 0")
        honest(vm, back.vm(), 10000)


def together(vms, stats):
    """Working sets with a seed each: a page of another guest would be a wrong one."""
    for vm in vms:
        vm.run("swapon /dev/tmem0")
    numbers = [vm.begin(f"workset -m {vm.mem + 60} -r 1 -S {seed}")
               for seed, vm in enumerate(vms, 1)]
    for vm, number, stat in zip(vms, numbers, stats):
        status, out = vm.end(number, 900)
        assert status == 0 and "wrong 0" in out, out
        honest(vm, stat(), 10000)


@on("uml-7")
def test_stopped(kernel):
    """The back end stands still under load: the guest waits, and nothing is lost."""
    with backend("--reserved=256M") as back, uml(kernel, back.path) as vm:
        stand_still(back, vm, 240, 300 if lab.LONG else 15)
        vm.ignore = "Call Trace"    # of "page allocation stall", which it is


@on("uml-7")
def test_killed(kernel):
    """The guest is killed: its pages go when the grace time is over."""
    with backend("--reserved=64M", "--grace=2") as back:
        with uml(kernel, back.path) as vm:
            vm.run("yes | dd of=/dev/tmem0 bs=4k count=500 iflag=fullblock oflag=direct")
            equal(back.vm()["persistent_pages"], 500, "pages")
            vm.kill()
            back.wait(lambda stats: not stats["connected"])
            equal(back.vm()["persistent_pages"], 500, "pages within the grace time")
            vm.ignore = "."
        back.wait(lambda stats: stats["persistent_pages"] == 0 and stats["draining_pages"] == 0)


@on("uml-7")
def test_idle(kernel):
    """A guest that does nothing costs nothing: no request, no kick, no wake-up."""
    with backend("--reserved=256M") as back, uml(kernel, back.path) as vm:
        vm.run("swapon /dev/tmem0")
        workset(vm, 160, "-r 1")
        time.sleep(2)
        before = back.vm()
        time.sleep(60 if lab.LONG else 10)
        after = back.vm()
        equal({name: after[name] - before[name] for name in ("requests", "kicks", "sleeps")},
              {"requests": 0, "kicks": 0, "sleeps": 0}, "in an idle time")
        honest(vm, after)
