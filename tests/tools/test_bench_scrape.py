#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""bench-scrape runs, and its file has what claims are judged by.  Prints TAP."""
import json
import os
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def fault():
    """What is wrong with a quick run; no figure of it is judged."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/out.json"
        done = subprocess.run([f"{TOP}/bench/bench-scrape", "--quick", "--json", path],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if done.returncode:
            return done.stdout
        with open(path, encoding="utf-8") as file:
            out = json.load(file)
    if not out["quick"] or not out["commit"] or out["stores"] != 20:
        return f"not a quick run of a commit: {out}"
    if not out["p99_us"]["off"]["median"] > 0 or not out["p99_ratio"]["median"] > 0:
        return f"no times: {out}"
    # Each window has a scrape at its begin, of all stores.
    return None if out["scrape"]["count"] >= 2 and out["scrape"]["bytes"] > 20 * 1000 else f"{out['scrape']}"


problem = fault()
print(f"{'not ok' if problem else 'ok'} 1 - bench-scrape runs")
if problem:
    print("".join(f"# {line}\n" for line in problem.splitlines()), end="")
print("1..1")
sys.exit(bool(problem))
