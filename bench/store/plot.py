#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Draws what bench-store found, as one picture.

usage: plot.py JSON

JSON is the file of a whole run; the picture is beside it, as .svg.  Prints its
name.
"""
import json
import os
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../common"))
from bars import chart  # noqa: E402

NAMES = {"anon": "libtmem, anonymous memory", "libs": "libtmem, shared libraries",
         "zram": "zram, anonymous memory: time without the block layer, memory with its tables"}
# Label, row of the store, figure of zram.
TIMES = [("put, single", "put_overwrite_1", "put_less_ratio"),
         ("put, runs of 16", "put_overwrite_16", None),
         ("growing, single", "put_grow_1", None),
         ("growing, runs of 16", "put_grow_16", None),
         ("get, single", "get_random_1", "get_less_ratio"),
         ("get, runs of 16", "get_random_16", None)]
SIZES = {"8_mib": "8 MiB", "64_mib": "64 MiB", "1_gib": "1 GiB"}


def one(value):
    """A figure without rounds, as bars have them."""
    return {"q1": value, "median": value, "q3": value}


def times(result):
    """Over bare LZ4's."""
    for label, row, zram in TIMES:
        bars = {name: corpus["rows"][row]["ratio"] for name, corpus in result["corpora"].items()}
        if zram and result["zram"] and result["zram"][zram]:
            bars["zram"] = result["zram"][zram]
        yield label, bars


def held(result):
    """Over compressed bytes, by the kernel's count, less the MiB that a tenant may take."""
    for when, what in (("full", "filled"), ("churned", "overwritten")):
        for size, label in SIZES.items():
            bars = {name: one(corpus["density"][size][when]["kernel_less"])
                    for name, corpus in result["corpora"].items() if corpus["density"][size]}
            if bars:
                yield f"{label}, {what}", bars
        if result["zram"]:
            yield f"zram, {what}", {"zram": result["zram"][f"{when}_all"]}


def names(result):
    """With the guest that zram was in, if it was in one."""
    guest = (result["zram"] or {}).get("in_guest")
    return {**NAMES, "zram": NAMES["zram"] + (f"; in {guest}" if guest else "")}


def main():
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit("plot.py: usage: plot.py JSON")
    with open(sys.argv[1], encoding="utf-8") as file:
        result = json.load(file)
    picture = chart(f"libtmem over bare LZ4, commit {result['commit']}"
                    + (", a quick run" if result["quick"] else ""),
                    "x, time over bare LZ4's; below, held over compressed bytes, a tenant's "
                    "1 MiB left out", names(result), dict([*times(result), *held(result)]))
    path = os.path.splitext(sys.argv[1])[0] + ".svg"
    with open(path, "w", encoding="utf-8") as file:
        file.write(picture)
    print(path)


main()
