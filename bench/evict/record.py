#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Records which pages of files real programs use: a trace for bench-evict.

usage: record.py [--quick] BUILD OUT

Runs, under strace, compilations of this project by BUILD's rules, python programs and git, and
writes to OUT (32 bit words) the number of pages, of accesses, and then the accesses in order.
A page is 4 KiB of a file.  read() and pread() name theirs.  What a program maps it uses in part,
which strace does not see: of each mapping, and of the file of each exec, every other window of
64 KiB counts, always the same ones (the kernel maps 64 KiB around a fault, and about half of what
a linker or compiler maps is ever used).
"""
import array
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import zlib

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PAGE, WINDOW = 4096, 16
# PID CALL(FD<PATH>...) = RESULT
CALL = re.compile(r"(\d+) +(openat|open|read|pread64|mmap|lseek|execve)\((.*)\) += (\d+|0x[0-9a-f]+)"
                  r"(?:<([^>]*)>)?")
UNFINISHED = re.compile(r"(\d+) +(\w+\(.*) <unfinished \.\.\.>$")
RESUMED = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)$")
DESCRIPTOR = re.compile(r"(\d+)<(/[^>]*)>")


class Trace:
    """Accesses so far, by numbers that pages get when they first come."""

    def __init__(self):
        self.pages = {}
        self.access = array.array("I")
        self.position = {}  # of (process, descriptor)

    def use(self, path, page):
        self.access.append(self.pages.setdefault((path, page), len(self.pages)))

    def use_bytes(self, path, start, length):
        if length > 0:
            for page in range(start // PAGE, (start + length - 1) // PAGE + 1):
                self.use(path, page)

    def use_mapping(self, path, start, length):
        length = min(length, size_of(path) - start)
        first = start // PAGE
        for page in range(first, first + max(0, length + PAGE - 1) // PAGE):
            if zlib.crc32(f"{path} {page // WINDOW}".encode()) & 1:
                self.use(path, page)

    def call(self, pid, name, arguments, result, path):
        if name in ("openat", "open"):
            self.position[pid, result] = 0
            return
        if name == "execve":
            words = shlex.split(arguments.split(", [")[0])
            if words and not result:
                self.use_mapping(os.path.realpath(words[0]), 0, 1 << 40)
            return
        found = DESCRIPTOR.search(arguments)
        if not found or not is_file(found.group(2)):
            return
        number, path = int(found.group(1)), found.group(2)
        at = self.position.setdefault((pid, number), 0)
        if name == "read":
            self.use_bytes(path, at, result)
            self.position[pid, number] = at + result
        elif name == "lseek":
            self.position[pid, number] = result
        elif name == "pread64":
            self.use_bytes(path, int(arguments.rsplit(", ", 1)[1], 0), result)
        elif name == "mmap":
            length = int(arguments.split(", ")[1], 0)
            self.use_mapping(path, int(arguments.rsplit(", ", 1)[1], 0), length)


def is_file(path):
    return not path.startswith(("/proc/", "/sys/", "/dev/")) and os.path.isfile(path)


def size_of(path):
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def programs(build, quick):
    """Commands that the trace is of, in order."""
    with open(f"{build}/compile_commands.json", encoding="utf-8") as file:
        rules = [rule for rule in json.load(file) if "/libtmem/" in rule["file"]]
    few = 3 if quick else 12
    cc = os.environ.get("CC", "cc")
    for number, rule in enumerate(rules[:few]):
        words = [word for word in shlex.split(rule["command"]) if not word.endswith("ccache")]
        source = os.path.realpath(os.path.join(rule["directory"], rule["file"]))
        flags = [word for word in words if word.startswith(("-I", "-D", "-O", "-std"))]
        yield [cc, *flags, "-c", source, "-o", "/dev/null"], rule["directory"]
        if number % 3 == 0:
            yield ["git", "log", "--stat", "-3" if quick else "-40"], TOP
            yield ["python3", "-c", "import asyncio, unittest.mock, sqlite3, email, json, http.server"], TOP
        if number % 3 == 1:
            yield ["git", "grep", "-c", "arena_"], TOP
            yield ["python3", f"{TOP}/bench/common/processes.py"], TOP
    yield ["git", "status", "--short"], TOP


def lines(path):
    """strace's lines, with what was interrupted put together."""
    begun = {}
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            line = line.rstrip("\n")
            if match := UNFINISHED.match(line):
                begun[match.group(1)] = match.group(2)
            elif (match := RESUMED.match(line)) and match.group(1) in begun:
                yield f"{match.group(1)} {begun.pop(match.group(1))}{match.group(2)}"
            else:
                yield line


def main():
    arguments = sys.argv[1:]
    quick = arguments[:1] == ["--quick"]
    if len(arguments) != 2 + quick:
        sys.exit(__doc__)
    build, out = arguments[-2:]
    trace = Trace()
    with tempfile.TemporaryDirectory() as folder:
        for command, where in programs(build, quick):
            log = f"{folder}/strace"
            subprocess.run(["strace", "-f", "-y", "-s", "0", "-o", log, "-e",
                            "trace=open,openat,read,pread64,mmap,lseek,execve", *command],
                           cwd=where, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False)
            for line in lines(log):
                if match := CALL.match(line):
                    pid, name, said, result, path = match.groups()
                    trace.call(pid, name, said, int(result, 0), path)
    if len(trace.access) < 1000:
        sys.exit("record.py: strace has seen next to nothing: may this user trace processes?")
    with open(out, "wb") as file:
        array.array("I", [len(trace.pages), len(trace.access)]).tofile(file)
        trace.access.tofile(file)


main()
