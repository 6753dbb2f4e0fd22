#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""bench-broker runs and writes what docs/claims.toml reads.  Prints TAP.

No ratio is compared with anything: a busy machine is no defect.  Every page of a working set is
verified by the guest, and the benchmark ends with an error where one is wrong.
"""
import collections
import json
import os
import re
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [f"{TOP}/bench/broker", f"{TOP}/tests/guest"]
from patterns import largest  # noqa: E402

ROWS = ["tmem", "zram", "zram-free"]


def judged(folder):
    """The claims of bench-broker as verify-claims sees them: its lines."""
    out = subprocess.run([f"{TOP}/scripts/verify-claims"], check=True, stdout=subprocess.PIPE,
                         env={**os.environ, "VIRTIO_TMEM_CACHE": folder}, text=True).stdout
    return [line for line in out.splitlines() if "bench-broker" in line]


def faults_of(run, pattern, budget):
    found = run[pattern]
    if [row["row"] for row in found["rows"]] != ROWS:
        yield f"{pattern}: rows {found['rows']}"
    for row in found["rows"]:
        if not 0 < row["set_mib"]["median"] * run["guests"] <= row["verified_mib"]:
            yield f"{pattern}: nothing verified: {row}"
        # The guests' RAM was used, at least by the kernel.
        if not run["guests"] * 16 < row["spent_mib"]["median"]:
            yield f"{pattern}: the host has spent next to nothing: {row}"
    if not found["leases"]:
        yield f"{pattern}: no leases over time"
    for seconds, leased, held in found["leases"]:
        if sum(leased) > budget << 20:
            yield f"{pattern}: at {seconds} s leases exceed the budget: {leased}"
        if any(h > l for h, l in zip(held, leased) if l):
            yield f"{pattern}: at {seconds} s more is held than leased: {held}, {leased}"


def faults(folder):
    claims = judged(folder)
    quick = [line for line in claims if re.search(r"broker-\w+-2 ", line)]
    if len(claims) != 6 or len(quick) != 2:
        yield f"other claims are of this benchmark: {claims}"
    yield from (line for line in quick if line.startswith("NOT MEASURED"))
    with open(f"{folder}/results/bench-broker.json", encoding="utf-8") as file:
        out = json.load(file)
    run = out["runs"][0]
    for pattern in ("alternating", "together"):
        yield from faults_of(run, pattern, out["budget_mib"])
    # A lease moved: at different times different guests had more than half of the budget.
    tops = {leased.index(max(leased)) for _, leased, _ in run["alternating"]["leases"]
            if max(leased) > out["budget_mib"] << 19}
    if len(tops) != run["guests"]:
        yield f"no lease moved: most was had by {tops}"
    for name in ("data", "leases-2-alternating", "leases-2-together"):
        with open(f"{folder}/results/bench-broker-{name}.svg", encoding="utf-8") as file:
            if file.read().count("<") < 20:
                yield f"the picture '{name}' has little in it"


def search_faults():
    """Of the search for the largest set, with trials that pass up to some size."""
    Trial = collections.namedtuple("Trial", "mib passed")
    for most in (0, 3, 64, 100, 101, 499):
        for guess in (1, 60, 100, 300):
            tried = []

            def attempt(mib):
                tried.append(mib)
                return Trial(mib, mib <= most)

            found = largest(attempt, guess, 4)
            if (found.mib if found else 0) != most // 4 * 4:
                yield f"of {most} at most {found} is found, from {guess}: {tried}"
            if len(set(tried)) != len(tried) or len(tried) > 16:
                yield f"many trials for {most} from {guess}: {tried}"


def main():
    print("1..3", flush=True)
    wrong = list(search_faults())
    print(f"{'not ok' if wrong else 'ok'} 1 - bench-broker finds the largest set", flush=True)
    for fault in wrong:
        print(f"# {fault}")
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/.virtio-tmem-cache", "w", encoding="utf-8"):
            pass    # a cache, as verify-claims wants one
        status = subprocess.run([f"{TOP}/bench/bench-broker", "--quick", "--json",
                                 f"{folder}/results/bench-broker.json"],
                                stdout=sys.stderr, check=False).returncode
        print(f"{'not ok' if status else 'ok'} 2 - bench-broker runs", flush=True)
        found = [f"exit status {status}"] if status else list(faults(folder))
    print(f"{'not ok' if found else 'ok'} 3 - bench-broker writes every figure", flush=True)
    for fault in found:
        print(f"# {fault}")
    sys.exit(1 if found or wrong else 0)


main()
