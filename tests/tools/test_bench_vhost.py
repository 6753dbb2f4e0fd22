#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""bench-vhost runs and writes what docs/claims.toml reads.  Prints TAP.

usage: test_bench_vhost.py [--native]     --native: without a guest, a minute instead of six
No ratio is compared with anything: a busy machine is no defect.  Every page that it puts or
swaps is verified by the benchmark itself, which ends with an error where one is wrong.
"""
import os
import re
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NATIVE = "--native" in sys.argv[1:]


def judged(folder):
    """The claims of bench-vhost as verify-claims sees them: id -> its line."""
    out = subprocess.run([f"{TOP}/scripts/verify-claims"], check=True, stdout=subprocess.PIPE,
                         env={**os.environ, "VIRTIO_TMEM_CACHE": folder}, text=True).stdout
    return {line[13:].split()[0]: line for line in out.splitlines() if "bench-vhost" in line}


def faults(folder):
    claims = {name: line for name, line in judged(folder).items()
              if not NATIVE or re.search("server|device|get-", name)}
    if len(claims) < 6:
        yield f"few claims are of this benchmark: {claims}"
    for line in claims.values():
        if line.startswith("NOT MEASURED"):
            yield line
    # These are counted, and hold on any machine.
    for name, line in claims.items():
        if re.search("idle|notifications", name) and not line.startswith("OK"):
            yield line
    for name in ("latency", "throughput", *([] if NATIVE else ["guest"])):
        with open(f"{folder}/results/bench-vhost-{name}.svg", encoding="utf-8") as file:
            if file.read().count("<rect") < 10:
                yield f"the picture '{name}' has few bars"


def main():
    print("1..2", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/.virtio-tmem-cache", "w", encoding="utf-8"):
            pass    # a cache, as verify-claims wants one
        path = f"{folder}/results/bench-vhost.json"
        status = subprocess.run([f"{TOP}/bench/bench-vhost", "--quick", "--json", path, *sys.argv[1:]],
                                stdout=sys.stderr, check=False).returncode
        print(f"{'not ok' if status else 'ok'} 1 - bench-vhost runs", flush=True)
        found = [f"exit status {status}"] if status else list(faults(folder))
    for fault in found:
        print(f"# {fault}")
    print(f"{'not ok' if found else 'ok'} 2 - bench-vhost writes every figure")
    sys.exit(1 if found else 0)


main()
