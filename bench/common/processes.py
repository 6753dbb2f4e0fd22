#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A process whose memory is a corpus: what kind of data, and how much.

usage: processes.py KIND MIB

Kinds: records (dicts, lists, strings, numbers, as a service holds them),
source (the standard library as text lines, syntax trees and code objects),
database (SQLite in memory), compiler (gcc -O2 in the midst of a large file, made
here).  Prints "ready PID" when MIB of memory are in use, PID being whose they are:
its own, or the compiler's, which is stopped.  Then waits for the end of its input,
so that its parent can read that memory.
The same seed every time; addresses differ from run to run.
"""
import ast
import glob
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import sysconfig
import tempfile
import time

PAGE = os.sysconf("SC_PAGESIZE")


def resident(pid="self"):
    """MiB of anonymous memory in use."""
    with open(f"/proc/{pid}/statm", encoding="ascii") as file:
        _, all_pages, of_files = file.read().split()[:3]
    return (int(all_pages) - int(of_files)) * PAGE / 2**20


def sources():
    """(path, text) of the standard library's files, over and over."""
    paths = sorted(glob.glob(f"{sysconfig.get_path('stdlib')}/**/*.py", recursive=True))
    if not paths:
        sys.exit("processes.py: no standard library found: install the package python3")
    while True:
        for path in paths:
            try:
                with open(path, encoding="utf-8") as file:
                    yield path, file.read()
            except UnicodeDecodeError:
                continue


def words():
    """Words of the standard library's first files."""
    found = set()
    for _, text in sources():
        found.update(re.findall(r"[A-Za-z]{3,12}", text))
        if len(found) > 5000:
            return sorted(found)


def records(_):
    """Endless list of one user's record after another."""
    names = words()
    number = 0
    while True:
        number += 1
        first, last = random.choice(names), random.choice(names)
        yield {
            "id": number,
            "name": f"{first} {last}",
            "mail": f"{first}.{last}@{random.choice(names)}.example",
            "score": random.random(),
            "visits": [random.randrange(10**6) for _ in range(random.randrange(12))],
            "tags": random.sample(names, 3),
            "place": {"x": random.gauss(0, 90), "y": random.gauss(0, 90), "street": last},
            "note": " ".join(random.choices(names, k=random.randrange(40))),
        }


def source(_):
    """Endless list of files as lines, trees and code."""
    for path, text in sources():
        try:
            tree = ast.parse(text)
            yield text.splitlines(), tree, compile(tree, path, "exec")
        except (SyntaxError, RecursionError):
            continue


def database(keep):
    """Rows of a table with two indexes, in memory."""
    db = sqlite3.connect(":memory:")
    keep.append(db)
    db.execute("create table event (id integer primary key, who text, at real, what text)")
    db.execute("create index event_who on event (who)")
    db.execute("create index event_at on event (at)")
    names = words()
    while True:
        db.executemany("insert into event (who, at, what) values (?, ?, ?)", (
            (random.choice(names), random.random() * 10**9,
             " ".join(random.choices(names, k=random.randrange(30)))) for _ in range(500)))
        yield None


# A function of C and the structure that it works on: what differs is in capitals.
FUNCTION = """
struct sNR { int COUNT; long ITEM[SIZE]; struct sBEFORE *next; double RATE; char NAME[WIDTH]; };
static const char *const tNR[] = { "COUNT ITEM", "RATE %s", "NAME SEED" };
long fNR(struct sNR *s, long n, const unsigned char *text)
{
	long sum = SEED;
	for (long i = 0; i < n; i++) {
		switch (text[i] % WIDTH) {
		case 0: sum += s->ITEM[i % 2] * SIZE; break;
		case 1: s->RATE += sum / WIDTH.5; break;
		case 2: if (s->COUNT > SEED) return sum ^ n; break;
		default: sum = sum << SIZE | text[i];
		}
		if (sum < 0 && tNR[sum & 1][0] == 'e')
			sum -= CALL;
	}
	return sum + s->COUNT;
}
"""


def c_source(functions):
    """A file of C that has so many functions."""
    names = words()
    for nr in range(functions):
        values = {"NR": nr, "BEFORE": max(0, nr - 1), "SIZE": random.randrange(2, 9),
                  "WIDTH": random.randrange(8, 40), "SEED": random.randrange(10**6),
                  "CALL": f"f{random.randrange(nr)}((void *)s, n - 1, text + 1)" if nr else "n"}
        for field in ("COUNT", "ITEM", "RATE", "NAME"):
            # None is a keyword.
            values[field] = f"{random.choice(names)}_{field[0].lower()}"
        yield re.sub("|".join(values), lambda match: str(values[match[0]]), FUNCTION)


def compiler(target):
    """gcc's compiler proper, stopped when it has @target MiB; its process."""
    if not shutil.which("gcc"):
        sys.exit("processes.py: no gcc found: install the package gcc")
    program = subprocess.run(["gcc", "-print-prog-name=cc1"], check=True, text=True,
                             stdout=subprocess.PIPE).stdout.strip()
    # In its passes over the whole file it has twice as much, if it is as gcc 12.
    functions = 8 * target
    while True:
        with tempfile.TemporaryFile("w+") as file:
            file.writelines(c_source(functions))
            file.seek(0)
            process = subprocess.Popen([program, "-quiet", "-w", "-O2", "-o", "/dev/null", "-"],
                                       stdin=file, stdout=subprocess.DEVNULL)
        while resident(process.pid) < target and process.poll() is None:
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(signal.SIGSTOP)
            return process
        if process.returncode:
            sys.exit(f"processes.py: {program} ends with {process.returncode}")
        functions *= 2


def own_memory(kind, target, keep):
    """Has this process hold @target MiB in @keep."""
    for number, item in enumerate(kind(keep)):
        if item is not None:
            keep.append(item)
        if number % 64 == 0 and resident() >= target:
            break


def main():
    kinds = {"records": records, "source": source, "database": database}
    if len(sys.argv) != 3 or sys.argv[1] not in (*kinds, "compiler"):
        sys.exit(__doc__)
    random.seed(1)
    target, keep, child = int(sys.argv[2]), [], None
    try:
        if sys.argv[1] == "compiler":
            child = compiler(target)
        else:
            own_memory(kinds[sys.argv[1]], target, keep)
        print(f"ready {child.pid if child else os.getpid()}", flush=True)
        sys.stdin.read()
    finally:
        if child:
            child.kill()
            child.wait()


main()
