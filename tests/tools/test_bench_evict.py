#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""bench-evict runs, and what the store does is worth it.  Prints TAP.

Made traces are the same every time, so that what is kept can be compared with what is not; the
recorded one is not, and only has to be there where processes may be traced.
"""
import json
import os
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MADE = ("zipf-0.8", "zipf-1.0", "loop", "scan", "shift")
POLICIES = ("lru", "sieve", "s3fifo", "fifo", "chance", "clock", "two", "fill", "ghost", "kept",
            "store")
# (trace, percents, policy): what is kept misses no more often than that, but for so much
AT_MOST = (
    *((trace, (10, 50), "fifo", 0) for trace in MADE[:4]),
    *((trace, (10, 50), "lru", 0.01) for trace in MADE[:4]),
    ("scan", (10,), "lru", -0.04),
    ("scan", (10,), "s3fifo", 0.02),
    ("loop", (10, 50), "lru", -0.07),
    ("zipf-1.0", (10,), "lru", -0.04),
)


def faults(path):
    """What is missing in the file."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    if content["quick"] is not True or not content["commit"]:
        yield "not a quick run of a commit"
    found = {(run["trace"], run["percent"], run["exclusive"], run["policy"]): run for run in content["runs"]}
    for trace in content["traces"]:
        for percent in (1, 10, 50):
            for exclusive in (False, True):
                for policy in POLICIES:
                    run = found.get((trace, percent, exclusive, policy))
                    if not run or not 0 < run["misses"] <= run["gets"]:
                        yield f"{trace}, {percent} %, exclusive {exclusive}, {policy}: {run}"
                    elif not 0 <= run["copies_per_put"] < 1:
                        yield f"{run} copies too much"
    if missing := set(MADE) - set(content["traces"]):
        yield f"no {missing}"


def worse(path):
    """Where what is kept is not as good as it was."""
    with open(path, encoding="utf-8") as file:
        ratio = {(run["trace"], run["percent"], run["exclusive"], run["policy"]): run["miss_ratio"]
                 for run in json.load(file)["runs"]}
    for trace, percents, policy, most in AT_MOST:
        for percent in percents:
            for exclusive in (False, True):
                kept = ratio[trace, percent, exclusive, "kept"]
                other = ratio[trace, percent, exclusive, policy]
                if kept > other + most:
                    yield f"{trace}, {percent} %, exclusive {exclusive}: {kept}, {policy} {other}"
    # What is simulated is what the library does.
    for trace, percent, exclusive in {run[:3] for run in ratio if run[0] in MADE and run[1] > 1}:
        kept, store = (ratio[trace, percent, exclusive, policy] for policy in ("kept", "store"))
        if abs(kept - store) > 0.02:
            yield f"{trace}, {percent} %, exclusive {exclusive}: {kept} simulated, the store {store}"


def main():
    print("1..3", flush=True)
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/bench-evict.json"
        status = subprocess.run([f"{TOP}/scripts/bench-evict", "--quick", "--json", path],
                                stdout=subprocess.DEVNULL, check=False).returncode
        print(f"{'not ok' if status else 'ok'} 1 - bench-evict runs", flush=True)
        for number, name, check in ((2, "bench-evict writes every figure", faults),
                                    (3, "what is kept is better than what was there", worse)):
            found = [f"exit status {status}"] if status else list(check(path))
            for fault in found:
                print(f"# {fault}")
            print(f"{'not ok' if found else 'ok'} {number} - {name}", flush=True)
            failed = failed or bool(found)
    sys.exit(failed)


main()
