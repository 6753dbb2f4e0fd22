# SPDX-License-Identifier: BSD-3-Clause
"""What tests of vhost-user-tmem share: a back end, and guests whose pages are with it."""
import sys

from machine import TOP, cache, tool
from vm import VM

sys.path.insert(0, f"{TOP}/tests/vhost-user")
from backend import Backend  # noqa: E402


def backend(*options, **kw):
    return Backend(*options, **kw,
                   program=tool("build-vhost-user", f"{cache()}/build/vhost-user-default"))


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


def honest(vm, stats, pages=1000):
    """The guest did swap into the back end of these statistics, and nothing was lost."""
    assert stats["puts"] > pages and stats["gets"] > pages / 2, stats
    assert not stats["bad_requests"], stats
    assert not stats["io_errors"], stats
    disk = vm.swap_stats()
    assert not disk["lost"] and not disk["errors"], disk
    return disk
