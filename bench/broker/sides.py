# SPDX-License-Identifier: BSD-3-Clause
"""The sides that bench-broker compares: guests, User Mode Linux, of which each has a part of a
budget of host memory for good, as zram; or that share the budget, by way of tmem-broker."""
import contextlib
import os
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [f"{TOP}/tests/guest", f"{TOP}/tests/vhost-user", f"{TOP}/tests/broker"]
from backend import Backend  # noqa: E402
from broker import Broker  # noqa: E402
from jobs import host_bytes, of_session  # noqa: E402
from uml import UML  # noqa: E402

MIB = 1 << 20
# Leases move by so much: of guests as small as these.
CHUNK = "1M"


class Side:
    """Guests, which are started again where one was cut off; base of the two below."""

    def __init__(self, args, count, folder):
        self.args, self.count, self.folder = args, count, folder
        self.share_mib = args.budget // count
        self.vms = [None] * count
        # What guests see of the host: a file in it tells them to go on.
        self.shared = tempfile.TemporaryDirectory(prefix="bench-broker-")
        self.gate = f"{self.shared.name}/go"
        self.disk = args.mem + 4 * args.budget

    def given(self):
        """MiB of the host's memory, on either side."""
        return (self.args.mem + self.share_mib) * self.count

    def boot(self, n):
        raise NotImplementedError

    def limit(self, share):
        """MiB of the budget that are a guest's for good; None: as many as it takes."""

    def pids(self):
        """Of what the guests are made of."""
        return [pid for vm in self.vms if vm for pid in of_session(vm.process.pid)]

    def spent(self):
        """Bytes of the host's memory."""
        return host_bytes(*self.pids())

    def leases(self):
        """([bytes leased to each guest], [bytes held by it])"""
        return None

    def begin(self, vm, append=""):
        vm.append += " " + append
        vm.start()
        vm.run(f"mkdir -p /run/host && mount -t hostfs -o {self.shared.name} none /run/host")

    def __enter__(self):
        try:
            for n in range(self.count):
                self.boot(n)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for n in range(self.count):
            self.end(n)
        self.shared.cleanup()

    def end(self, n):
        if self.vms[n]:
            self.vms[n].stop()
        self.vms[n] = None

    def again(self, n):
        """Another guest in place of one that is in no state to go on."""
        self.end(n)
        self.boot(n)


class ZramSide(Side):
    """Each guest compresses into RAM of its own, of which it has its share more."""

    def __init__(self, *args):
        super().__init__(*args)
        self.mem = self.args.mem + self.share_mib
        self.share = self.share_mib     # what zram may take of it; None: all

    def boot(self, n):
        vm = self.vms[n] = UML(self.args.kernel, mem=self.mem)
        self.begin(vm)
        vm.run(f"echo lz4 >/sys/block/zram0/comp_algorithm && echo {self.disk}M "
               ">/sys/block/zram0/disksize && mkswap /dev/zram0 && swapon /dev/zram0")
        self.limit_one(vm)

    def limit_one(self, vm):
        vm.run(f"echo {self.share or 0}M >/sys/block/zram0/mem_limit")

    def limit(self, share):
        if share != self.share:
            self.share = share
            for vm in self.vms:
                self.limit_one(vm)


class TmemSide(Side):
    """Each guest has a vhost-user-tmem; they lease of one broker, whose limit is the budget."""

    def __init__(self, *args):
        super().__init__(*args)
        self.backs = [None] * self.count
        self.broker = None

    def __enter__(self):
        self.broker = Broker(limit=f"{self.share_mib * self.count}M", chunk=CHUNK, real=True,
                             program=f"{self.folder}/host/broker/tmem-broker")
        return super().__enter__()

    def __exit__(self, *_):
        super().__exit__()
        self.broker.__exit__()

    def boot(self, n):
        # Next to nothing is promised: what a guest may hold, the broker says.
        back = self.backs[n] = Backend(
            f"--lease={self.broker.socket}", f"--name=vm{n + 1}", "--reserved=1M",
            program=f"{self.folder}/host/vhost-user/vhost-user-tmem")
        vm = self.vms[n] = UML(self.args.kernel, mem=self.args.mem, sockets=[back.path])
        self.begin(vm, f"tmem_swap.disksize_mb={self.disk} tmem_swap.force=1")
        vm.run("swapon /dev/tmem0")

    def end(self, n):
        super().end(n)
        if self.backs[n]:
            self.backs[n].__exit__()
        self.backs[n] = None

    def pids(self):
        return [*super().pids(), self.broker.process.pid,
                *(back.process.pid for back in self.backs if back)]

    def leases(self):
        _, stores = self.broker.status()
        found = [stores.get(f"vm{n + 1}", {}) for n in range(self.count)]
        return [s.get("leased", 0) for s in found], [s.get("held", 0) for s in found]

    def check(self):
        """What the stores say, which no guest may notice: nothing was lost."""
        for back in self.backs:
            with contextlib.suppress(OSError):
                stats = back.vm()
                if stats["io_errors"] or stats["bad_requests"]:
                    raise RuntimeError(f"a back end says {stats}")
