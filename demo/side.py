# SPDX-License-Identifier: BSD-3-Clause
"""One side of the demonstration: three guests, their jobs, and what they cost.

The sides differ in one thing.  With zram, each guest has SHARE MiB more RAM,
which is its own.  With virtio-tmem, the guests' shares are one budget:
tmem-broker leases it to their stores, by what these say of themselves.  It is
not told whose turn it is.
"""
import os
import sys
import threading
import time

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [f"{TOP}/tests/guest", f"{TOP}/tests/broker"]
from broker import LIMITS, Broker, Peer, eventually  # noqa: E402
from jobs import host_bytes, progress_in, thrashes  # noqa: E402
from vm import VM, VMError, tool  # noqa: E402

MIB = 1 << 20
GUESTS = 3
RAM = 128               # MiB of a guest with virtio-tmem
SHARE = 44              # MiB a guest: zram's RAM, or a third of the budget
BUDGET = SHARE * GUESTS # MiB that move
CHUNK = "1M"            # ... in such steps, of guests as small as these
DISK = 512              # MiB of the swap disk on either side
VALUE = 16320           # bytes of a value; with redis' header just below 16 KiB
PATIENCE = 2            # a job may take that many times as long as any that was done,
LEAST_LIMIT = 30        # but at least so many seconds,
MOST_LIMIT = 900        # and never more


class Pace:
    """How long jobs take that are done, on either side: who takes twice as
    long thrashes.  A slow machine is no reason to fail."""

    def __init__(self):
        self.slowest = None

    def done(self, job):
        if job.ok:
            self.slowest = max(job.seconds, self.slowest or 0)

    def limit(self):
        if self.slowest is None:
            return MOST_LIMIT
        return max(LEAST_LIMIT, PATIENCE * self.slowest)


class Job:
    """What came of one job."""

    def __init__(self, number, load):
        self.vm, self.load, self.keys = number, load, load * MIB // VALUE
        self.verified = self.wrong = self.oom = self.seconds = 0
        self.ok = False
        self.state = "failed"
        self.progress = [(0, 0)]        # (seconds, hundredths), once a second

    def done(self):
        return self.progress[-1][1]

    def thrashes(self):
        """Whether it did next to nothing lately, by its own standards."""
        return thrashes(self.progress)

    def read(self, status, out):
        words = out.split()
        for name in ("verified", "wrong"):
            if name in words:
                setattr(self, name, int(words[words.index(name) + 1]))
        self.ok = status == 0 and self.verified == self.keys
        self.state = "verified" if self.ok else "failed"


class Side:
    """Three guests; base of the two below."""
    name = "?"

    def __init__(self, kernel, accel, pace):
        self.pace = pace
        self.vms = [self.make(n, kernel, accel) for n in range(GUESTS)]
        self.state = ["starting"] * GUESTS
        self.jobs = []
        self.peak = 0           # bytes of the host, all guests together
        self.history = []       # (seconds, MiB held by each store, MiB leased to each)
        self.error = None
        self.began = time.monotonic()

    def make(self, number, kernel, accel):
        raise NotImplementedError

    def swap_on(self, vm):
        raise NotImplementedError

    def start(self):
        for number, vm in enumerate(self.vms):
            vm.start()
            self.swap_on(vm)
            # What redis frees is the kernel's at once, on either side.
            vm.run("MALLOC_CONF=dirty_decay_ms:0,muzzy_decay_ms:0 "
                   "redis-server --save '' --appendonly no --port 0 --unixsocket /run/redis.sock "
                   "--daemonize yes --dir /tmp >/dev/null; "
                   "while ! redis-cli -s /run/redis.sock ping >/dev/null 2>&1; do sleep 0.1; done; "
                   "echo 500 >/proc/$(pidof redis-server)/oom_score_adj")
            self.state[number] = "idle"

    def sample(self):
        """Once a second, while jobs run."""
        self.peak = max(self.peak, host_bytes(*self.pids()))

    def pids(self):
        return [vm.process.pid for vm in self.vms if vm.process]

    def run(self, load):
        """The jobs, one after another."""
        try:
            for number in range(GUESTS):
                self.jobs.append(self.job(number, load))
        except VMError as error:  # shown in the table; the other side goes on
            self.error = str(error).splitlines()[0]

    def job(self, number, load):
        vm, job = self.vms[number], Job(number, load)
        self.state[number] = "working"
        start = time.monotonic()
        command = vm.begin(f"kvjob -n {job.keys} -b {VALUE} -S {number + 1} -p /dev/ttyS0")
        answer = None
        while answer is None and job.seconds < self.pace.limit() and not job.thrashes():
            answer = vm.poll(command, 1)
            job.seconds = time.monotonic() - start
            job.progress.append((job.seconds, progress_in(vm.console())))
            self.state[number] = f"working ({job.done()} %)"
        if answer:
            job.read(*answer)
            job.oom = int(vm.run("sed -n 's/^oom_kill //p' /proc/vmstat", timeout=60))
            self.pace.done(job)
        else:
            # It thrashes, and answers nothing.  Its memory is another's now.
            job.state = "cut off"
            vm.stop()
        self.state[number] = job.state
        return job

    def passed(self):
        return not self.error and len(self.jobs) == GUESTS and all(j.ok for j in self.jobs)

    def stop(self):
        for vm in self.vms:
            vm.stop()


class ZramSide(Side):
    """Each guest compresses into its own RAM, of which it has SHARE more."""
    name = "zram"
    ram, moves = RAM + SHARE, 0

    def make(self, number, kernel, accel):
        return VM(kernel=kernel, mem=self.ram, accel=accel, tmem=None)

    def swap_on(self, vm):
        vm.run("modprobe zram && echo lz4 >/sys/block/zram0/comp_algorithm && "
               f"echo {DISK}M >/sys/block/zram0/disksize && mkswap /dev/zram0 && "
               "swapon /dev/zram0")


def store_name(number):
    """What the broker calls a guest's store."""
    return f"vm{number + 1}"


class TmemSide(Side):
    """The guests' shares are one budget, in stores of their QEMU processes, which have leases of
    one broker."""
    name = "virtio-tmem"
    ram, moves = RAM, BUDGET

    def __init__(self, kernel, accel, pace):
        self.broker = Broker(limit=f"{BUDGET}M", chunk=CHUNK, real=True, program=tool("build-broker"))
        super().__init__(kernel, accel, pace)
        self.held = [0] * GUESTS        # MiB in the store now
        self.leased = [0] * GUESTS      # MiB that it may take
        self.top = [0] * GUESTS         # MiB at the job's peak
        self.back = []                  # (MiB at the peak, MiB after the job)
        self.pages = self.requests = self.kicks = 0
        self.ratio = 0.0
        self.stopping = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def make(self, number, kernel, accel):
        return VM(kernel=kernel, mem=self.ram, accel=accel,
                  tmem="virtio-tmem-pci,store=store0",
                  objects=[f"tmem-store,id=store0,size={BUDGET}M,reserved=1M,lease={self.broker.socket},"
                           f"lease-name={store_name(number)}"],
                  append=f"tmem_swap.disksize_mb={DISK} tmem_swap.force=1")

    def swap_on(self, vm):
        vm.run("swapon /dev/tmem0")

    def pids(self):
        return [*super().pids(), self.broker.process.pid]

    def start(self):
        super().start()
        self.watcher.start()

    def stop(self):
        self.stopping.set()
        if self.watcher.is_alive():
            self.watcher.join()
        super().stop()
        self.broker.__exit__()

    def watch(self):
        """Four times a second: what the broker says of each store."""
        while not self.stopping.wait(0.25):
            try:
                stores = self.broker.status()[1]
            except (OSError, EOFError) as error:
                self.error = f"the broker: {error}"
                return
            found = [stores.get(store_name(n)) for n in range(GUESTS)]
            if not all(found):
                return          # a guest was cut off: the side has failed
            self.held = [store["held"] / MIB for store in found]
            self.leased = [store["leased"] / MIB for store in found]
            self.top = [max(a, b) for a, b in zip(self.top, self.held)]
            self.note_ratio(max(found, key=lambda store: store["stored"]))
            self.history.append((time.monotonic() - self.began, *self.held, *self.leased))

    def note_ratio(self, store):
        if store["stored"] > 16 * MIB:
            self.ratio = store["persistent_raw"] / store["stored"]

    # -------------------------------------------------------------- the job

    def job(self, number, load):
        vm = self.vms[number]
        before, self.top[number] = vm.stats(), 0
        job = super().job(number, load)
        peak = self.top[number]
        if not vm.process:
            return job
        after = vm.stats()
        for kind in ("put", "get", "flush"):
            self.requests += after["requests"][kind] - before["requests"][kind]
        for kind in ("put", "get"):
            self.pages += after["pages"][kind] - before["pages"][kind]
        self.kicks += sum(q["kicks"] for q in after["queues"]) - \
            sum(q["kicks"] for q in before["queues"])
        time.sleep(1)           # freed slots are flushed within milliseconds
        self.back.append((peak, vm.stats()["device"]["held-bytes"] / MIB))
        return job

    # ------------------------------------------------------------ a full store

    def fill(self, limit=16):
        """A store is filled to its limit.  What the guest and the device say of it."""
        number, vm = next((n, vm) for n, vm in enumerate(self.vms) if vm.process)
        name = store_name(number)
        with Peer(self.broker.socket) as operator:
            refused = operator.ask(LIMITS, name, max=limit * MIB)
        if refused:
            raise VMError(f"the broker refuses a limit of {limit} MiB: {refused}")
        eventually(lambda: self.broker.store(name)["leased"] <= limit * MIB)
        vm.run("swapoff /dev/tmem0", timeout=120)
        # A lease grows behind who writes, and a write is not tried again: so from the start, again.
        for _ in range(40):
            status, _ = vm.run("dd if=/dev/urandom of=/dev/tmem0 bs=64k count=640 oflag=direct",
                               timeout=120, check=False)
            if self.broker.store(name)["held"] > (limit - 1) * MIB:
                break
        disk, device = vm.swap_stats(), vm.stats()["device"]
        alive = vm.run("redis-cli -s /run/redis.sock ping 2>&1", check=False)[1].strip()
        return {"limit": limit, "write_failed": status != 0,
                "held": device["held-bytes"] / MIB, "refusals": disk["refusals"],
                "guest": "goes on" if alive == "PONG" else f"does not answer: {alive}"}
