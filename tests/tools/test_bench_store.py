#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The benchmark runs and writes what docs/claims.toml reads.  Prints TAP.

usage: test_bench_store.py [--zram-in-guest]   --zram-in-guest: zram's part alone, in a guest

No ratio is compared with anything: a busy machine is no defect.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ROWS = {f"{name}_{run}" for run in (1, 16)
        for name in ("put_overwrite", "put_grow", "get_random", "put_hot", "get_hot")}
THREADS = {f"{verb}_2_threads{own}" for verb in ("put", "get") for own in ("", "_own")}
PASSES = ["fill_ns"] + [f"{verb}{run}_ns" for verb in ("get", "flush", "miss")
                        for run in ("", "_run")]
# By group: figures that are there, whatever the machine.  The second set may be null: on
# a busy machine its goal may be reached late, or a few gets be all there were.
GROUPS = {
    "checksum": ({f"{corpus}_{figure}" for corpus in ("anon", "libs")
                  for figure in ("ns", "share", "share_16")}, set()),
    "tenants": ({"full", "full_kernel", "churned", "churned_kernel", "full_beside_mib",
                 "churned_beside_mib", "put", "classes_full_kernel", "classes_churned_kernel",
                 "classes_full_beside_mib", "classes_churned_beside_mib", "classes_put"},
                set()),
    "mallocs": ({f"{name}_{when}" for name in ("glibc", "jemalloc", "mimalloc")
                 for when in ("full", "churned")}, set()),
    "freed": ({"all_cpu_seconds_per_live_gib", "held", "held_kernel", "others_p99_us",
               "others_p99_ratio_lz4"},
              {"seconds_per_live_gib", "cpu_seconds_per_live_gib", "others_p99_meanwhile_us",
               "others_p99_ratio"}),
    "recompress": ({"pages", "stored", "held", "cpu_us", "get"}, set()),
    "latency": ({f"{verb}{side}_{percentile}" for verb in ("put", "get")
                 for side, unit in (("", "_us"), ("_lz4", "_us"), ("", "_ratio"))
                 for percentile in (f"p50{unit}", f"p99{unit}", f"p999{unit}")} |
                {"put_interval_us", "get_interval_us", "background_s"}, set()),
    "index": ({f"bytes_{kind}{count}" for count in ("", "_kernel")
               for kind in ("persistent", "ephemeral", "object_1", "object_8")} | {"keys"} |
              {f"{keys}_{name}" for keys in ("few", "less") for name in PASSES}, set())}
# Groups that a machine may not have: null.
MAYBE = {
    "pages": {"few", "many", "few_us", "less_us", "less_ratio", "copy_few_us", "copy_many_us"},
    "zram": {"put_us", "get_us", "block_layer_us", "put_ratio", "get_ratio", "put_less_ratio",
             "get_less_ratio", "full", "full_all", "churned", "churned_all", "ours_put", "ours_get",
             "ours_put_less", "ours_get_less", "ours_full", "ours_churned"}}


def ordered(q, low=0.0):
    """Quartiles of something that is more than @low."""
    return isinstance(q, dict) and low < q["q1"] <= q["median"] <= q["q3"]


def row_faults(name, rows):
    for missing in (ROWS | THREADS) - set(rows):
        yield f"{name}: no row {missing}"
    for row, figures in rows.items():
        if row in THREADS and figures["ratio"] is None:
            if figures["usable_rounds"]:
                yield f"{name}: {row}: usable rounds, no ratio"
            continue
        for key, q in figures.items():
            if key != "usable_rounds" and not ordered(q, -1.0):
                yield f"{name}: {row}: {key}: {q}"
        if not ordered(figures["ratio"]):
            yield f"{name}: {row}: a ratio of 0"


def density_faults(name, density):
    if density["1_gib"] is not None:
        yield f"{name}: a quick run filled 1 GiB"
    for size, mib in (("8_mib", 8), ("64_mib", 64)):
        if density[size]["pages"] != mib * 256:
            yield f"{name}: {size}: {density[size]['pages']} pages"
        for when in ("full", "busy", "churned"):
            held = density[size][when]
            # What the kernel gave cannot be half or twice of what the library counts.
            if not 1 <= held["library"] < 2 or not 0 <= held["disagreement"] < 0.5 or \
                    not held["library"] / 2 < held["kernel"] < 2 * held["library"] or \
                    not held["kernel_less"] < held["kernel"]:
                yield f"{name}: {size}: {when}: {held}"


def group_faults(content):
    for group, (always, maybe) in GROUPS.items():
        for key in always:
            if not ordered(content[group].get(key), -1.0):
                yield f"{group}: {key}: {content[group].get(key)}"
        for key in maybe:
            if key not in content[group]:
                yield f"{group}: no {key}"
    for group, keys in MAYBE.items():
        if content[group] is not None:
            for key in keys:
                if not ordered(content[group].get(key), -1.0):
                    yield f"{group}: {key}: {content[group].get(key)}"


def claim_faults(content):
    """Claims whose figure is not there, not even as null; a quick run has fewer keys."""
    with open(f"{TOP}/docs/claims.toml", "rb") as file:
        claims = [claim for claim in tomllib.load(file)["claim"]
                  if claim["command"] == "make bench-store"]
    if len(claims) < 20:
        yield f"{len(claims)} claims are of this benchmark"
    for claim in claims:
        place = content
        for member in claim["value"].split("."):
            if place is None:
                break
            if member not in place and f"less_{member}" in place:
                member = f"less_{member}"
            if member not in place:
                yield f"{claim['id']}: nothing is at {claim['value']}"
                break
            place = place[member]


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
        yield from row_faults(name, corpus["rows"])
        yield from density_faults(name, corpus["density"])
    yield from group_faults(content)
    yield from claim_faults(content)


def picture(path):
    """Whether there is one, with bars."""
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError:
        return False
    return text.startswith("<svg") and text.rstrip().endswith("</svg>") and text.count("<rect") > 20


def unknown_row():
    """What is said about a row that there is not."""
    done = subprocess.run([f"{TOP}/scripts/bench-store", "--quick", "--row", "nope"], check=False,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    return done.returncode == 1 and "--row nope: there are threads" in done.stderr


def verdict(number, found, what):
    """A line of TAP, behind what was found to be wrong."""
    for fault in found:
        print(f"# {fault}")
    print(f"{'not ok' if found else 'ok'} {number} - {what}", flush=True)
    return bool(found)


def zram_in_guest(path, image=None):
    """zram's part alone: (what is in its file, what it prints).  image: in place of the guest's."""
    env = {**os.environ, **({"TMEM_IMAGE_uml-7": image} if image else {})}
    done = subprocess.run([f"{TOP}/scripts/bench-store", "--quick", "--row", "zram", "--zram-in-guest",
                           "--json", path], stdout=subprocess.PIPE, env=env, text=True, check=False)
    if done.returncode:
        return {}, f"exit status {done.returncode}"
    with open(path, encoding="utf-8") as file:
        return json.load(file), done.stdout


def guest_faults(content, out):
    """What is missing of zram's figures from a guest, or does not say that they are."""
    zram = content.get("zram") or {}
    # Of differences, which a busy machine may lose in its noise, the name is there.
    for key in sorted(MAYBE["zram"]):
        if key not in zram or not (ordered(zram[key]) or ("_less" in key and zram[key] is None)):
            yield f"{key}: {zram.get(key)}"
    if not str(zram.get("in_guest")).startswith("User Mode Linux "):
        yield f"in_guest: {zram.get('in_guest')}"
    if not re.search("^  measured in a guest: User Mode Linux ", out, re.M):
        yield f"the table does not say that it was in a guest: {out}"


def no_guest_faults(content, out):
    if "zram" not in content or content["zram"] is not None:
        yield f"zram without a guest: {content.get('zram')}"
    if not re.search("^zram: no guest can be run: .*/nonexistent", out, re.M):
        yield f"the table does not say why: {out}"


def in_guest():
    print("1..2", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bad = verdict(1, list(guest_faults(*zram_in_guest(f"{folder}/a.json"))),
                      "bench-store measures zram in a guest")
        bad |= verdict(2, list(no_guest_faults(*zram_in_guest(f"{folder}/b.json", "/nonexistent"))),
                       "bench-store goes on without a guest")
    sys.exit(bad)


def main():
    print("1..4", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/bench-store.json"
        status = subprocess.run([f"{TOP}/scripts/bench-store", "--quick", "--json", path],
                                stdout=subprocess.DEVNULL, check=False).returncode
        print(f"{'not ok' if status else 'ok'} 1 - bench-store runs", flush=True)
        found = [f"exit status {status}"] if status else list(faults(path))
        drawn = picture(f"{folder}/bench-store.svg")
    verdict(2, found, "bench-store writes every figure")
    print(f"{'ok' if drawn else 'not ok'} 3 - bench-store draws them", flush=True)
    named = unknown_row()
    print(f"{'ok' if named else 'not ok'} 4 - bench-store says which rows there are")
    sys.exit(0 if drawn and named and not found else 1)


if sys.argv[1:] == ["--zram-in-guest"]:
    in_guest()
main()
