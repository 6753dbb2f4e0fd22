# SPDX-License-Identifier: BSD-3-Clause
"""bench-vhost with guests: User Mode Linux, which runs at the machine's own speed, swaps on each
medium in turn; what it costs when every put is refused, and when nothing happens."""
import contextlib
import os
import random
import re
import time

import daemons
from daemons import MIB
from facts import cell, quartiles
from lab import Alive, field
from uml import UML

BLK_ID = 2
# medium -> its disk; of User Mode Linux's devices the first is ours, the second the floor.
DISKS = {"tmem sync=0": "tmem0", "tmem sync=1": "tmem0", "null sync=0": "tmem1",
         "null sync=1": "tmem1", "blk": "vda", "zram": "zram0"}
# zram in a guest that has as much more RAM as our store held: equal bytes of the host.
ZRAM_MORE = "zram, more RAM"
TIMES = ("fill", "ordered", "random", "redis")
VALUE = 16320           # bytes of redis' values
IDLE_S = 60
REFUSED = "tmem_swap.disksize_mb=256 tmem_swap.force=1"
# What a guest may swap on that refuses every page: command, and how many it has refused.
REFUSERS = {
    "none": ("true", lambda vm: 0),
    "tmem": ("swapon /dev/tmem0", lambda vm: vm.swap_stats()["refusals"]),
    "zram": ("swapon /dev/zram0", lambda vm: int(vm.read("/sys/block/zram0/io_stat").split()[1])),
}
LEAST_PAGES = 2000      # swapped out by the working set


def cpu_seconds(pid):
    """CPU time of a process and of those of its session: User Mode Linux has many."""
    total, session = 0, os.getsid(pid)
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="ascii",
                                                errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
            if int(name) == pid or (session == pid and int(fields[3]) == session):
                total += sum(map(int, fields[11:15]))
    return total / os.sysconf("SC_CLK_TCK")


class Guest:
    """One guest that has all media, or zram alone."""

    def __init__(self, folder, args, mem, zram_only=False):
        self.folder, self.args, self.mem = folder, args, mem
        self.zram_only = zram_only
        self.disk = args.set + 96
        self.stack = contextlib.ExitStack()
        self.tmem = self.null = self.blk = self.vm = None

    def __enter__(self):
        with contextlib.ExitStack() as stack:
            sockets, devices = [], []
            if not self.zram_only:
                self.tmem = stack.enter_context(daemons.tmem(self.folder, self.disk))
                self.null = stack.enter_context(daemons.null_tmem(self.folder, self.disk))
                self.blk = stack.enter_context(daemons.RamDisk(self.disk))
                sockets = [self.tmem.path, self.null.path]
                devices = [(self.blk.path, BLK_ID)]
            self.vm = stack.enter_context(UML(self.args.kernel, mem=self.mem, sockets=sockets,
                                              devices=devices))
            self.vm.run("echo lz4 >/sys/block/zram0/comp_algorithm &&"
                        f"echo {self.disk}M >/sys/block/zram0/disksize && mkswap /dev/zram0")
            if self.blk:
                self.vm.run("mkswap /dev/vda")
            self.stack = stack.pop_all()
        return self

    def __exit__(self, *error):
        return self.stack.__exit__(*error)

    def back(self, medium):
        return {"tmem": self.tmem, "null": self.null}.get(medium.split()[0])

    def daemon(self, medium):
        """The process on the host that serves a medium."""
        return self.blk if medium == "blk" else self.back(medium)

    def prepare(self, medium):
        if self.back(medium):
            sync = medium.split()[1]
            self.vm.run(f"modprobe -r tmem_swap && modprobe tmem_swap {sync} && udevadm settle")
            is_on = self.vm.read("/sys/module/tmem_swap/parameters/sync") in ("Y", "1")
            if is_on != (sync == "sync=1"):
                self.vm.fail(f"{medium}: the driver was not loaded again")
        self.vm.run(f"echo 3 >/proc/sys/vm/drop_caches; swapon /dev/{DISKS[medium]}")

    def swapped(self, medium):
        """Pages in and out of a medium so far."""
        if self.back(medium):
            stats = self.back(medium).vm()
            return stats["gets"], stats["puts"]
        fields = self.vm.read(f"/sys/block/{DISKS[medium]}/stat").split()
        return int(fields[2]) // 8, int(fields[6]) // 8

    def redis(self):
        """Seconds for a verified job of redis' that does not fit into the guest."""
        keys = self.args.set * MIB // VALUE
        self.vm.run("redis-server --save '' --appendonly no --port 0 --unixsocket /run/redis.sock "
                    "--daemonize yes --dir /tmp >/dev/null; "
                    "while ! redis-cli -s /run/redis.sock ping >/dev/null 2>&1; do sleep 0.1; done")
        start = time.monotonic()
        out = self.vm.run(f"kvjob -n {keys} -b {VALUE}", timeout=600)
        seconds = time.monotonic() - start
        if field(out, "verified") != keys or field(out, "wrong"):
            self.vm.fail(f"redis: {out}")
        self.vm.run("redis-cli -s /run/redis.sock shutdown nosave; "
                    "while pidof redis-server >/dev/null; do sleep 0.1; done", check=False)
        return seconds

    def workset(self, medium, *options):
        """Counted, and verified: (times, pages in and out, statistics of our back end before and
        after, CPU seconds of the guest and of the process that serves it).  A set that fits
        into the guest's RAM would be no test; it may where the guest has more of it."""
        back, daemon = self.back(medium), self.daemon(medium)
        pids = [self.vm.process.pid] + ([daemon.process.pid] if daemon else [])
        pages, before = self.swapped(medium), back and back.vm()
        cpu = [cpu_seconds(pid) for pid in pids]
        out = self.vm.run(f"workset -m {self.args.set} " + " ".join(options), timeout=900)
        cpu = [cpu_seconds(pid) - was for pid, was in zip(pids, cpu)]
        if field(out, "wrong") or field(out, "pages") != self.args.set * 256:
            self.vm.fail(f"{medium}: wrong pages: {out}")
        pages = [a - b for a, b in zip(self.swapped(medium), pages)]
        after = back and back.vm()
        if pages[1] < LEAST_PAGES and not self.zram_only:
            self.vm.fail(f"{medium}: {pages[1]} pages were swapped to it, of {self.args.set} MiB")
        return out, pages, before, after, cpu + [0] * (2 - len(cpu))

    def measure(self, medium):
        self.prepare(medium)
        # Out, alone: what notifications cost; then the whole.
        _, pages, before, after, _ = self.workset(medium, "-r 0")
        row = {"kicks_per_page_out": before and (after["kicks"] - before["kicks"]) / pages[1]}
        out, pages, before, after, cpu = self.workset(medium, "-r 1", "-w 10")
        row.update({name: field(out, name) for name in TIMES[:3]})
        row["pages_in"], row["pages_out"] = pages
        row["requests_per_page"] = \
            before and (after["requests"] - before["requests"]) / sum(pages)
        row["guest_cpu"], row["back_end_cpu"] = cpu
        row["redis"] = self.redis()
        self.vm.run(f"swapoff /dev/{DISKS[medium]}", timeout=300)
        return row


def held_mib(folder, args):
    """MiB that our store holds at most for the set."""
    with Guest(folder, args, args.mem) as guest, Alive("how much the store holds"):
        guest.measure("tmem sync=0")
        return guest.tmem.vm()["held_peak_bytes"] // MIB + 1


def swapping(folder, args):
    """({medium: [a row a round]}, MiB that our store held)"""
    rows = {medium: [] for medium in [*DISKS, ZRAM_MORE]}
    more = held_mib(folder, args)
    order = random.Random(1)
    with Guest(folder, args, args.mem) as guest, \
            Guest(folder, args, args.mem + more, zram_only=True) as richer:
        print("    " + " ".join(guest.blk.command), flush=True)
        for number in range(args.rounds):
            media = list(rows)
            order.shuffle(media)
            for medium in media:
                with Alive(f"round {number + 1} of {args.rounds}: {medium}"):
                    rows[medium].append(richer.measure("zram") if medium == ZRAM_MORE
                                        else guest.measure(medium))
        stats = guest.tmem.vm()
        if stats["io_errors"] or stats["bad_requests"]:
            guest.vm.fail(f"the back end says {stats}")
    return rows, more


def refused(folder, args):
    """{medium: {ratio: of a job's time with a swap disk that refuses all, over the time without
    one; refusals: pages refused in the job}}.  The guest has pages that nobody touches, which its
    kernel would swap out, and reads a file through the page cache, so that it is always short of
    memory.  zram is refusing beyond a limit of a page: what any disk that is full costs."""
    job = (f"start=$(date +%s%N); (for i in 1 2 3 4; do dd if=/dev/ubda of=/dev/null bs=1M "
           f"2>/dev/null; done) & workset -m {args.mem * 3 // 10} -r 6 -w 10; wait; "
           "echo elapsed $((($(date +%s%N) - start) / 1000000))")
    rounds = []
    with daemons.tmem(folder, 0, "--size=16M", "--persistent-max=4096") as back, \
            UML(args.kernel, mem=args.mem, sockets=[back.path], append=REFUSED) as vm:
        vm.run("set -e; echo 256M >/sys/block/zram0/disksize; mkswap /dev/zram0; "
               "echo 4096 >/sys/block/zram0/mem_limit; mkdir /tmp/pages; "
               "mount -t tmpfs -o size=90% none /tmp/pages; "
               f"head -c {args.mem // 6}M /dev/urandom >/tmp/pages/data")
        with Alive("every put refused"):
            # Each medium is first, second and third as often.
            for number in range(3 * args.rounds):
                media = list(REFUSERS)
                rounds.append({medium: refused_once(vm, job, medium)
                               for medium in media[number % 3:] + media[:number % 3]})
        stats = back.vm()
    out = {medium: {"ratio": quartiles([found[medium][0] / found["none"][0] for found in rounds]),
                    "refusals": quartiles([found[medium][1] for found in rounds])}
           for medium in REFUSERS if medium != "none"}
    if stats["puts"] or not all(found["refusals"]["median"] for found in out.values()):
        vm.fail(f"not every put was refused, or none was made: {out}, {stats}")
    return out


def refused_once(vm, job, medium):
    """(milliseconds, pages refused)"""
    swapon, refusals = REFUSERS[medium]
    vm.run("echo 3 >/proc/sys/vm/drop_caches; swapoff -a; " + swapon)
    before = refusals(vm)
    if (medium != "none") != ("/dev/" in vm.read("/proc/swaps")):
        vm.fail(f"{medium}: swap is on: {vm.read('/proc/swaps')}")
    elapsed = field(vm.run(job, timeout=600), "elapsed")
    return elapsed, refusals(vm) - before


def idle(folder, args, seconds):
    """What a device with swapped pages does in a time in which its guest does nothing."""
    with daemons.tmem(folder, args.set) as back, \
            UML(args.kernel, mem=args.mem, sockets=[back.path]) as vm:
        vm.run("set -e; swapon /dev/tmem0; mkdir /tmp/pages; mount -t tmpfs -o size=90% none "
               f"/tmp/pages; head -c {args.mem * 2 // 3}M /dev/urandom >/tmp/pages/data; "
               f"workset -m {args.mem * 2 // 3} -r 0")

        def interrupts():
            lines = [line for line in vm.read("/proc/interrupts").splitlines()
                     if "virtio" in line]
            return sum(int(n) for line in lines for n in line.split(":")[1].split()
                       if n.isdigit())

        if not interrupts():
            vm.fail("the device had no interrupt: /proc/interrupts has another form?")
        # What is on its way arrives; what the agent needs is in RAM.
        settled = None
        while settled != (settled := back.vm()["requests"]):
            time.sleep(2)
            handled = interrupts()
        before = back.vm()
        if not before["persistent_pages"]:
            vm.fail("the guest has swapped nothing out")
        with Alive(f"an idle guest, {seconds} s"):
            time.sleep(seconds)
        after = back.vm()
        found = {name: after[name] - before[name] for name in ("requests", "kicks", "sleeps")}
        return {"seconds": seconds, "pages": before["persistent_pages"],
                "interrupts": interrupts() - handled, **found}


def median(rows, name):
    values = [row[name] for row in rows if row[name] is not None]
    return quartiles(values) if values else None


def ratios(rows, of, over):
    """{time: quartiles of @of's by @over's, round by round}"""
    return {name: quartiles([a[name] / b[name] for a, b in zip(rows[of], rows[over])])
            for name in TIMES}


def over_floor(rows, sync, codec):
    """Fill and walks on ours, over the same on the floor plus 1.25 times what bare LZ4 costs for
    the pages that the floor swapped in them.  codec: us a page, of other pages: client.c's."""
    found = []
    for ours, floor in zip(rows[f"tmem sync={sync}"], rows[f"null sync={sync}"]):
        lz4 = (floor["pages_in"] * codec["get"] + floor["pages_out"] * codec["put"]) / 1e6
        ours, floor = (sum(row[name] for name in TIMES[:3]) for row in (ours, floor))
        found.append(ours / (floor + 1.25 * lz4))
    return quartiles(found)


COLUMNS = (("pages_out", "pages out", ".0f"), ("pages_in", "pages in", ".0f"),
           ("requests_per_page", "req/page", ".3f"), ("kicks_per_page_out", "kicks/out", ".3f"),
           ("fill", "fill s", ".2f"), ("ordered", "order s", ".2f"), ("random", "random s", ".2f"),
           ("redis", "redis s", ".2f"), ("guest_cpu", "guest CPU", ".2f"),
           ("back_end_cpu", "host CPU", ".2f"))


def show(out, args):
    print(f"\nUser Mode Linux {args.kernel}, {args.mem} MiB, one CPU; a set of {args.set} MiB; "
          f"medians of {args.rounds} rounds")
    print(f"  {'medium':<15}" + "".join(f"{title:>10}" for _, title, _ in COLUMNS))
    for row in out["media"]:
        print(f"  {row['medium']:<15}" + "".join(
            f"{row[name]['median']:>10{form}}" if row[name] else f"{'-':>10}"
            for name, _, form in COLUMNS))
    print(f"  kicks/out: in the fill alone.  CPU: seconds of fill and walks; host: of the process "
          f"that serves the disk.\n  '{ZRAM_MORE}': {out['store_mib']} MiB more, which is what our "
          "store held.")
    print("\n  time over another medium's (quartiles), less is better")
    for found in out["ratios"]:
        print(f"  {found['of']} / {found['over']:<16}" +
              "  ".join(f"{name} {cell(found[name])}" for name in TIMES))
    for sync, q in out["over_floor"].items():
        print(f"  {cell(q):<20} sync={sync}: fill and walks / (the floor's + 1.25 x LZ4)")
    for medium, found in out["refused"].items():
        print(f"  {cell(found['ratio'], '.3f'):<26} every put refused by {medium} / no swap at all "
              f"({found['refusals']['median']:.0f} pages refused in a job)")
    print("  idle for {seconds} s with {pages} pages swapped: {requests} requests, {kicks} kicks, "
          "{sleeps} wake-ups, {interrupts} interrupts".format(**out["idle"]))


def run(args, codec, quick):
    folder = daemons.build()
    rows, more = swapping(folder, args)
    out = {"kernel": args.kernel, "mem_mib": args.mem, "set_mib": args.set, "rounds": args.rounds,
           "store_mib": more,
           "media": [{"medium": medium, **{name: median(found, name) for name in found[0]}}
                     for medium, found in rows.items()],
           "ratios": [{"of": of, "over": over, **ratios(rows, of, over)}
                      for of in ("tmem sync=0", "tmem sync=1")
                      for over in ("blk", "zram", ZRAM_MORE, of.replace("tmem", "null"))],
           "over_floor": {sync: over_floor(rows, sync, codec) for sync in "01"},
           "refused": refused(folder, args), "idle": idle(folder, args, 5 if quick else IDLE_S)}
    show(out, args)
    return out
