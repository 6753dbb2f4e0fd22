# SPDX-License-Identifier: BSD-3-Clause
"""Jobs in guests that say how far they are, and what guests take of the host's memory."""
import os
import re

STALL = 20              # seconds; a job that does in them less than a
SLOW = 0.1              # tenth of its own average thrashes


def progress_in(console):
    """Hundredths of its work that kvjob, or workset, says it has done."""
    told = re.findall(r"(?:kvjob|workset): (\d+) of 100\b", console)
    return int(told[-1]) if told else 0


def thrashes(progress, stall=STALL):
    """Whether a job did next to nothing lately, by its own standards.  progress: a list of
    (seconds since it began, hundredths done), in order."""
    seconds, done = progress[-1]
    before = [d for s, d in progress if s <= seconds - stall]
    return bool(before) and done - before[-1] <= SLOW * stall * done / seconds


def of_session(leader):
    """The processes of a session: User Mode Linux has one for each of its guest's."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and os.getsid(int(name)) == leader:
                found.append(int(name))
        except ProcessLookupError:
            pass
    return found


def host_bytes(*pids):
    """Bytes of host memory that processes take together: PSS, and the blocks of files in RAM
    that they alone have: memfds, and the unlinked file that is the memory of User Mode Linux.

    A page of such a file is in the PSS only while it is mapped, so those are left
    out there and counted by what the kernel allocated.
    """
    total, files = 0, {}
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
                for line in file:
                    if re.match("Pss_(Anon|File):", line):
                        total += int(line.split()[1]) * 1024
            for fd in os.listdir(f"/proc/{pid}/fd"):
                path = f"/proc/{pid}/fd/{fd}"
                if re.match(r"/memfd:|/dev/shm/.*\(deleted\)$", os.readlink(path)):
                    found = os.stat(path)
                    files[found.st_dev, found.st_ino] = found.st_blocks * 512
        except OSError:
            pass
    return total + sum(files.values())
