# SPDX-License-Identifier: BSD-3-Clause
"""What tests of vhost-user-tmem share: a back end, and guests whose pages are with it."""
import signal
import sys
import time

from machine import TOP, cache, tool
from uml import UML
from vm import VM

sys.path.insert(0, f"{TOP}/tests/vhost-user")
from backend import Backend, KeptBackend  # noqa: E402


def backend(*options, keep=False, **kw):
    return (KeptBackend if keep else Backend)(
        *options, **kw, program=tool("build-vhost-user", f"{cache()}/build/vhost-user-default"))


def shared(mem):
    """Guest memory that another process can map."""
    return [f"memory-backend-memfd,id=ram,size={mem}M,share=on"]


def vhost_guest(kernel, path, mem=192, **kw):
    """In QEMU, on the back end that listens at @path.

    With one CPU: QEMU 10.0's TCG can abort (iotlb_to_section) where one vCPU runs while
    another one's write moves the notifiers to the back end; seen once in ten boots with two.
    """
    return VM(kernel=kernel, mem=mem, tmem="vhost-user-tmem-pci,chardev=tmem,bus=port0",
              objects=shared(mem), args=["-machine", "memory-backend=ram", "-chardev",
                                         f"socket,id=tmem,path={path},reconnect-ms=200"], **kw)


class UMLGuest(UML):
    """With a back end of its own, whose statistics have the names of QEMU's."""

    def __init__(self, kernel, back, **kw):
        super().__init__(kernel, sockets=[back.path], **kw)
        self.back = back

    def stats(self):
        stats = {name.replace("_", "-"): value for name, value in self.back.vm().items()}
        return {"device": stats, "requests": stats, "generation": stats["generation"]}

    def stop(self):
        super().stop()
        self.back.stop()


def uml_guest(kernel, mem, reserved, size=None, **kw):
    """reserved, size: of the store, MiB."""
    size = size or reserved + reserved // 8 + 8
    back = backend(f"--reserved={reserved}M", f"--size={size}M")
    return UMLGuest(kernel, back, mem=mem, **kw)


def honest(vm, stats, pages=1000):
    """The guest did swap into the back end of these statistics, and nothing was lost."""
    assert stats["puts"] > pages and stats["gets"] > pages / 2, stats
    assert not stats["bad_requests"], stats
    assert not stats["io_errors"], stats
    disk = vm.swap_stats()
    assert not disk["lost"] and not disk["errors"], disk
    return disk


def stand_still(back, vm, mib, seconds):
    """The back end does, while the guest swaps a working set: it waits, and nothing is lost."""
    vm.run("swapon /dev/tmem0")
    number = vm.begin(f"workset -m {mib} -r 1")
    back.wait(lambda stats: stats["puts"] > 3000, seconds=120)
    back.process.send_signal(signal.SIGSTOP)
    time.sleep(seconds)
    back.process.send_signal(signal.SIGCONT)
    status, out = vm.end(number, 600)
    assert status == 0 and "wrong 0" in out, out
    honest(vm, back.vm())
