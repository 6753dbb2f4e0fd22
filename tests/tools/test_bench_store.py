#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark runs and writes what docs/claims.toml reads.  Prints TAP.

No ratio is compared with anything: a busy machine is no defect.
"""
import json
import os
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROWS = {f"{name}_{run}" for name in ("put_overwrite", "put_grow", "get_random") for run in (1, 16)}


def faults(path):
    """What is missing or no figure in the file."""
    with open(path, encoding="utf-8") as file:
        content = json.load(file)
    if content["quick"] is not True or not content["commit"]:
        yield "not a quick run of a commit"
    for key in ("cpu", "cpus", "memory", "kernel", "lz4"):
        if not content["machine"].get(key):
            yield f"machine.{key}"
    for name in ("anon", "libs"):
        corpus = content["corpora"][name]
        if corpus["pages"] < 4096 or not 0 < corpus["mean_length"] < 4096:
            yield f"{name}: {corpus['pages']} pages of {corpus['mean_length']} bytes"
        for missing in ROWS - set(corpus["rows"]):
            yield f"{name}: no row {missing}"
        for row, figures in corpus["rows"].items():
            for key, q in figures.items():
                if not 0 <= q["q1"] <= q["median"] <= q["q3"]:
                    yield f"{name}: {row}: {key}: {q}"
            if not figures["ratio"]["q1"] > 0:
                yield f"{name}: {row}: a ratio of 0"
        for density in ("density", "density_8_mib"):
            if not corpus[density]["full"] >= 1:
                yield f"{name}: {density}: holds less than it was given"


def main():
    print("1..2", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/bench-store.json"
        status = subprocess.run([f"{TOP}/scripts/bench-store", "--quick", "--json", path],
                                stdout=subprocess.DEVNULL, check=False).returncode
        print(f"{'not ok' if status else 'ok'} 1 - bench-store runs", flush=True)
        found = [f"exit status {status}"] if status else list(faults(path))
    for fault in found:
        print(f"# {fault}")
    print(f"{'not ok' if found else 'ok'} 2 - bench-store writes every figure")
    sys.exit(1 if found else 0)


main()
