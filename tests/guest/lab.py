# SPDX-License-Identifier: BSD-3-Clause
"""What guest tests and benchmarks share."""
import threading
import time

from vhost import uml_guest
from vm import VM, VMError  # noqa: F401  (tests import them from here)

ALL = ["5.10", "6.1", "6.12"]
UML = ["uml-7", "uml-5.10"]
# uml-7 again, whose driver counts the lines that it executes (scripts/coverage), and the kernel of
# test_debug.py.
SPECIAL = ["uml-gcov", "uml-debug"]
# Waits of the length, not of a quick check's.
LONG = False


class Skip(Exception):
    """This machine cannot run the test; its text says why."""


class Alive:
    """With it, a line every 8 s says that something long goes on."""

    def __init__(self, what):
        self.what, self.start = what, time.monotonic()
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.tell, daemon=True)

    def tell(self):
        while not self.ended.wait(8):
            print(f"    {time.monotonic() - self.start:3.0f} s  {self.what}", flush=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def seconds(self):
        return time.monotonic() - self.start


def on(*kernels):
    """Decorator: the test runs on these kernels only."""
    def mark(function):
        function.kernels = kernels
        return function
    return mark


def store(reserved=256, size=None, name="store0", **options):
    """Arguments of -object for a store of that many MiB."""
    size = size or reserved + reserved // 8 + 8
    more = "".join(f",{key.replace('_', '-')}={value}" for key, value in options.items())
    return f"tmem-store,id={name},size={size}M,reserved={reserved}M{more}"


def guest(kernel, mem=192, reserved=256, device="virtio-tmem-pci,store=store0",
          size=None, objects=(), **kw):
    """A guest with a store of its own; for User Mode Linux in a vhost-user-tmem."""
    if kernel in UML + SPECIAL:
        assert device == "virtio-tmem-pci,store=store0" and not objects
        return uml_guest(kernel, mem, reserved, size, **kw)
    return VM(kernel=kernel, mem=mem, tmem=device,
              objects=[store(reserved, size), *objects], **kw)


def field(output, name):
    """The number after @name in workset's line."""
    words = output.split()
    return float(words[words.index(name) + 1])


def workset(vm, mib, *options, timeout=600):
    """Runs the verified working set in the guest; every byte must be right."""
    out = vm.run(f"workset -m {mib} " + " ".join(map(str, options)), timeout=timeout)
    assert field(out, "wrong") == 0, out
    assert field(out, "pages") == mib * 256, out
    return out


def equal(have, want, what):
    assert have == want, f"{what}: have {have}, want {want}"


def swapped(vm, pages=1000):
    """Fails unless the guest did swap into the device, and nothing was lost.

    A driver that does what the specification says is never answered by an error
    (drv.op.zero, drv.op.room, drv.queues.fast, drv.create.number, drv.create.size,
    drv.create.kind, drv.put.range, drv.get.range, drv.get.exclusive).  Ours has no ephemeral
    pool, and so puts no page into one under pressure, and uses none of another generation
    (drv.config.pressure, drv.generation.ephemeral): who gives it one tests that here.
    """
    stats, disk = vm.stats(), vm.swap_stats()
    device = stats["device"]
    assert all(pool["persistent"] for pool in stats["pools"]), stats["pools"]
    equal(stats["requests"]["bad-requests"], 0, "requests answered by an error")
    assert device["puts"] > pages and device["gets"] > pages / 2, device
    assert disk["writes"] > pages and disk["reads"] > pages / 2, disk
    equal(disk["lost"], 0, "lost pages")
    equal(disk["errors"], 0, "failed pages")
    equal(device["io-errors"], 0, "unreadable pages")
    return device, disk
