# SPDX-License-Identifier: BSD-3-Clause
"""Working sets in the guests of a side, one after another or all together, and the largest that
every guest verifies to the last byte."""
import os
import time

from jobs import progress_in, thrashes
from lab import field
from machine import VMError

MIB = 1 << 20
MOST_S = 600            # that a job may take
END_S = 60              # ... from where it need not keep to its set any longer
LEASES_S = 0.2          # between looks at leases
SPENT_S = 1             # ... at what the host has spent
PATTERNS = {"alternating": "one after another", "together": "all at once"}


class Job:
    """A working set in one guest.  What it says of its way is in the guest's console."""

    def __init__(self, side, n, mib, gate):
        self.side, self.n, self.vm, self.mib = side, n, side.vms[n], mib
        self.start = time.monotonic()
        self.console = os.path.getsize(f"{self.vm.dir}/console")
        self.progress = [(0, 0)]
        self.state = "works"
        self.why = ""
        self.gate = gate            # it keeps to its set until this is opened
        self.may_end = None         # since when
        # The OOM killer sees no process that the file of -M belongs to.
        self.number = self.vm.begin(
            f"echo 1000 >/proc/self/oom_score_adj; workset -M -R -m {mib} -w 10 "
            f"-S {n + 1} -p /dev/console" + (" -g /run/host/go" if gate else ""))

    def poll(self):
        """Is it still at work?"""
        if self.state != "works":
            return False
        try:
            answer = self.vm.poll(self.number, 0.05)
        except VMError as error:
            answer = (-1, str(error).splitlines()[0])
        with open(f"{self.vm.dir}/console", errors="replace", encoding="utf-8") as file:
            file.seek(self.console)
            self.progress.append((time.monotonic() - self.start, progress_in(file.read())))
        if answer:
            self.read(*answer)
        elif self.is_stuck():
            self.state = "cut off"
        return self.state == "works"

    def is_stuck(self):
        """It does hardly any work, or it has done it and does not end: a full zram can keep a kernel
        busy for good."""
        now = self.progress[-1][0]
        if not self.is_at_peak():
            return thrashes(self.progress) or now > MOST_S
        if not self.gate:
            self.open()
        return self.may_end is not None and now > self.may_end + END_S

    def open(self):
        """It may end."""
        if self.may_end is None:
            self.may_end = self.progress[-1][0]

    def read(self, status, out):
        self.why = out.strip().splitlines()[-1] if out.strip() else ""
        if " wrong " in out and field(out, "wrong"):
            self.vm.fail(f"wrong pages: {out}")     # no matter of sizes
        done = status == 0 and field(out, "pages") == self.mib * 256
        self.state = "verified" if done else "failed"

    def is_at_peak(self):
        """It has done its work, and keeps to its set."""
        return self.progress[-1][1] == 100

    def seconds(self):
        return self.progress[-1][0]


class Trial:
    """Sets of @mib MiB in every guest of a side."""

    def __init__(self, side, pattern, mib):
        self.side, self.pattern, self.mib = side, pattern, mib
        self.start = time.monotonic()
        self.jobs, self.samples = [], []
        self.spent = self.sampled_at = 0
        self.spent_at = -SPENT_S    # once at least: a trial may take less
        if os.path.exists(side.gate):
            os.unlink(side.gate)
        getattr(self, pattern)()
        self.passed = len(self.jobs) == side.count and \
            all(job.state == "verified" for job in self.jobs)
        self.seconds = time.monotonic() - self.start
        for job in self.jobs:
            if job.state != "verified":
                side.again(job.n)

    def alternating(self):
        for n in range(self.side.count):
            self.jobs.append(Job(self.side, n, self.mib, gate=False))
            while self.jobs[-1].poll():
                self.look()
            if self.jobs[-1].state != "verified":
                return

    def together(self):
        """Who has done its work keeps to its set until all have, so that all peaks are at once."""
        self.jobs = [Job(self.side, n, self.mib, gate=True) for n in range(self.side.count)]
        while any([job.poll() for job in self.jobs]):
            self.look()
            if any(job.state in ("failed", "cut off") for job in self.jobs):
                return
            if all(job.is_at_peak() for job in self.jobs) and not os.path.exists(self.side.gate):
                with open(self.side.gate, "w", encoding="ascii"):
                    pass
                for job in self.jobs:
                    job.open()

    def look(self):
        """At the host, now and then."""
        now = time.monotonic() - self.start
        if now >= self.sampled_at + LEASES_S:
            self.sampled_at = now
            found = self.side.leases()
            if found:
                self.samples.append((round(now, 2), *found))
        if now >= self.spent_at + SPENT_S:
            self.spent_at = now
            self.spent = max(self.spent, self.side.spent())

    def why(self):
        """Why it did not pass, in a word."""
        bad = [job for job in self.jobs if job.state != "verified"]
        return "" if self.passed else ", ".join(
            sorted({f"{job.state} at {job.progress[-1][1]} %" for job in bad}))


def largest(attempt, guess, step):
    """The trial with the largest set that passes, or None; the next larger set, @step MiB more, has
    failed.  attempt(mib): a trial."""
    trials, mib, stride = {}, max(step, guess // step * step), step
    while mib not in trials:
        trials[mib] = attempt(mib)
        best = max((m for m, t in trials.items() if t.passed), default=0)
        failed = min((m for m, t in trials.items() if not t.passed and m > best), default=0)
        if failed and failed - best <= step:
            break
        if failed and best:
            mib = (best + failed) // 2 // step * step
        else:
            mib = best + stride if best else max(step, failed - stride)
            stride *= 2
    return trials.get(best)
