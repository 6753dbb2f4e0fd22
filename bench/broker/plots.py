# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of bench-broker."""
import os

from bars import chart
from lanes import lanes
from patterns import MIB, PATTERNS

NAMES = {"tmem": "virtio-tmem: one budget, leased by tmem-broker", "zram": "zram: a share each",
         "zram-free": "zram without a limit"}


def bars(out):
    groups = {f"{run['guests']} guests, {pattern}": {row["row"]: row["per_byte"]
                                                     for row in run[pattern]["rows"]}
              for run in out["runs"] for pattern in PATTERNS}
    return chart("Verified data for a byte of host memory", f"{out['mem_mib']} MiB a guest, a "
                 f"budget of {out['budget_mib']} MiB", NAMES, groups, better="more")


def of_leases(run, pattern, budget):
    samples = [(seconds, [b / MIB for b in leased], [b / MIB for b in held])
               for seconds, leased, held in run[pattern]["leases"]]
    return lanes(f"{run['guests']} guests, peaks {PATTERNS[pattern]}: where the budget was",
                 ("leased", "held"), "MiB", budget, samples)


def write(out, path):
    """Beside the JSON file @path; the names of the files."""
    stem = os.path.splitext(path)[0]
    pictures = {"data": bars(out)}
    for run in out["runs"]:
        for pattern in PATTERNS:
            if run[pattern]["leases"]:
                pictures[f"leases-{run['guests']}-{pattern}"] = of_leases(run, pattern, out["budget_mib"])
    files = []
    for name, picture in pictures.items():
        files.append(f"{stem}-{name}.svg")
        with open(files[-1], "w", encoding="utf-8") as file:
            file.write(picture)
    return files
