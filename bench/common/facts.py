# SPDX-License-Identifier: BSD-3-Clause
"""What benchmarks in Python share: where and of what a run was made, and figures of rounds."""
import datetime
import json
import os
import platform
import statistics
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# What changes the figures.
PARTS = ["host", "guest", "include", "bench", "scripts", "meson.build", "tests/guest", "tests/uml",
         "tests/vhost-user", "tests/broker"]


def cpu():
    with open("/proc/cpuinfo", encoding="ascii") as file:
        for line in file:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def commit():
    """Of the tree; with + if it has changes that are not committed."""
    git = ["git", "-C", TOP]
    done = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    dirty = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", *PARTS], check=False,
                           stderr=subprocess.DEVNULL).returncode
    return (done.stdout.strip() or "unknown") + ("+" if dirty else "")


def load():
    return round(os.getloadavg()[0], 1)


def facts():
    """Members of a benchmark's JSON file.  Says so if others use the machine."""
    if load() > 0.5:
        print(f"    load {load()}: other work runs on this machine, and is in the figures")
    return {"commit": commit(), "date": datetime.date.today().isoformat(),
            "machine": {"cpu": cpu(), "cpus": os.cpu_count(), "load": load(),
                        "kernel": platform.release()}}


def quartiles(values):
    """Of what the rounds found."""
    values = sorted(values)
    if len(values) == 1:
        return {"q1": values[0], "median": values[0], "q3": values[0]}
    q1, median, q3 = statistics.quantiles(values, n=4, method="inclusive")
    return {"q1": q1, "median": median, "q3": q3}


def cell(q, form=".2f"):
    """Quartiles as a table has them."""
    return f"{q['median']:{form}} ({q['q1']:{form}}-{q['q3']:{form}})"


def write_json(out, path):
    """All or nothing."""
    with open(f"{path}.part", "w", encoding="utf-8") as file:
        json.dump(out, file, indent=1)
    os.rename(f"{path}.part", path)
