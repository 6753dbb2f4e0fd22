#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""A process whose memory is a corpus: what kind of data, and how much.

usage: processes.py KIND MIB

Kinds: records (dicts, lists, strings, numbers, as a service holds them),
source (the standard library as text lines, syntax trees and code objects),
database (SQLite in memory).  Prints "ready" when MIB of memory are in use,
then waits for the end of its input, so that its parent can read its memory.
The same seed every time; addresses differ from run to run.
"""
import ast
import glob
import os
import random
import re
import sqlite3
import sys
import sysconfig

PAGE = os.sysconf("SC_PAGESIZE")


def resident():
    """MiB of anonymous memory in use."""
    with open("/proc/self/statm", encoding="ascii") as file:
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


def main():
    kinds = {"records": records, "source": source, "database": database}
    if len(sys.argv) != 3 or sys.argv[1] not in kinds:
        sys.exit(__doc__)
    random.seed(1)
    keep = []
    target = int(sys.argv[2])
    for number, item in enumerate(kinds[sys.argv[1]](keep)):
        if item is not None:
            keep.append(item)
        if number % 64 == 0 and resident() >= target:
            break
    print("ready", flush=True)
    sys.stdin.read()


main()
