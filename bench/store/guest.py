#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs bench-store's part with zram in a guest: User Mode Linux, which runs at the machine's own
speed.

usage: guest.py PROGRAM [--quick] <PAGES

PROGRAM is bench-store, which runs in the guest with the host's own libraries: the guest sees the
host's files, and can write none.  Prints what guest.c says; with no guest it prints why, too.
"""
import os
import shutil
import signal
import sys
import tempfile

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, f"{TOP}/tests/guest")
from machine import VMError  # noqa: E402
from uml import UML  # noqa: E402

KERNEL = "uml-7"
MIB = 1 << 20
# The pages twice, in the file's cache and in the program, and what is made of them on each side;
# a guest's memory is the host's only where it was used.
MEM_MIB, MEM_TIMES = 320, 4
TIMEOUT = 900
SHM = "/dev/shm"        # where uml.py has it
HOST = "/run/host"
# Its devices and processes are the guest's own.
MOUNTS = f"""set -e
mkdir -p {HOST}
mount -t hostfs -o ro,/ none {HOST}
mount -t proc proc {HOST}/proc
mount -t sysfs sys {HOST}/sys
mount --bind /dev {HOST}/dev"""


class NoGuest(Exception):
    """Why, in one line."""


def say(*words):
    print(*words, sep="\t", flush=True)


def interrupted(*_):
    """The guest's end, without its last words."""
    raise VMError("interrupted")


def check_memory(mib):
    """A guest whose memory ends before it does dies with no word."""
    free = shutil.disk_usage(SHM).free // MIB
    if free < mib:
        raise NoGuest(f"its memory is in {SHM}, which has {free} MiB free of {mib} that it needs")


def measure(program, pages, options):
    """What the program prints in a guest."""
    mem = MEM_MIB + MEM_TIMES * os.path.getsize(pages) // MIB
    check_memory(mem)
    # The kernel and its process take turns: on one CPU neither waits for another to wake up,
    # and both find the caches as the other left them.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with UML(kernel=KERNEL, mem=mem) as vm:
        release = vm.read("/proc/sys/kernel/osrelease")
        vm.run(MOUNTS)
        status, out = vm.run(f"chroot {HOST} {program} --zram-pages {pages} {options}", TIMEOUT,
                             check=False)
    if status:
        raise NoGuest(f"{os.path.basename(program)} in the guest exits with {status}: "
                      + " ".join(out.strip().splitlines()[-1:]))
    return release, out


def main():
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return
    if len(sys.argv) < 2 or sys.argv[1].startswith("-") or sys.argv[2:] not in ([], ["--quick"]):
        sys.exit("guest.py: usage: guest.py PROGRAM [--quick] <PAGES")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        with tempfile.NamedTemporaryFile(prefix="bench-store-") as pages:
            shutil.copyfileobj(sys.stdin.buffer, pages)
            pages.flush()
            release, out = measure(sys.argv[1], pages.name, " ".join(sys.argv[2:]))
    except (VMError, NoGuest, OSError) as error:
        text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error)
        why, _, more = text.partition("\n")
        print(more, end="", file=sys.stderr)
        say("missing", f"no guest can be run: {why}")
        return
    say("guest", f"User Mode Linux {release}")
    for line in out.splitlines():
        if line.startswith(("figure\t", "missing\t")):
            say(line)


try:
    main()
except BrokenPipeError:     # bench-store has ended, so nobody wants to know
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
