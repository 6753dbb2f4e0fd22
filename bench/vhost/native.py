# SPDX-License-Identifier: BSD-3-Clause
"""bench-vhost without a guest: client.c on the sockets of four back ends, and on parts of ours."""
import contextlib
import subprocess
import sys

import daemons
from facts import TOP, cell, quartiles

MEMBERS = ("us_page", "p50", "p99", "kicks", "calls")
# Name of a target in the JSON file -> what it is.
WHAT = {
    "lz4": "bare LZ4, in the same process",
    "libtmem": "libtmem, in the same process",
    "server": "the request server, in the same process",
    "tmem": "vhost-user-tmem",
    "null": "vhost-user-tmem on a store that does nothing",
    "blk": "vhost-user-blk on a file in RAM, aio=threads",
    "uring": "vhost-user-blk on a file in RAM, aio=io_uring",
    "nullblk": "vhost-user-blk on null-co",
}
# (key, of what member, of, over, row, what).  "ram" is the faster of both block devices with a
# file in RAM, round by round.  Below 1 is good for us, but for a speed-up.
RATIOS = [
    ("get_latency", "p50", "tmem", "ram", "get_1_depth_1", "latency of a get / a block read"),
    ("get_latency_polled", "p50", "tmem", "ram", "get_1_polled", "the same, the client polling"),
    ("get_latency_nothing", "p50", "tmem", "nullblk", "get_1_depth_1", "the same / null-co's"),
    ("get_latency_floor", "p50", "tmem", "null", "get_1_depth_1", "the same / the floor's"),
    ("put_latency", "p50", "tmem", "ram", "put_1_depth_1", "latency of a put / a block write"),
    ("get_throughput", "us_page", "ram", "tmem", "get_1_depth_32", "gets, 32 in flight: speed-up"),
    ("put_throughput", "us_page", "ram", "tmem", "put_1_depth_32", "puts, 32 in flight: speed-up"),
    ("get_16_throughput", "us_page", "ram", "tmem", "get_16_depth_32",
     "gets of 16 pages, 32 in flight: speed-up"),
    ("put_16_throughput", "us_page", "ram", "tmem", "put_16_depth_32",
     "puts of 16 pages, 32 in flight: speed-up"),
]


def client(folder, targets, quick):
    """What bench-vhost-client prints."""
    command = [f"{folder}/bench/bench-vhost-client", "--script",
               f"{TOP}/bench/common/processes.py",
               *(["--rounds", "2", "--divide", "8", "--pages", "8192"] if quick else []),
               *(f"{name}={kind}:{path}" for name, kind, path in targets)]
    print("    " + " ".join(command), flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit("bench-vhost: the client failed")
    return done.stdout.splitlines()


def samples(lines):
    """{row: {target: [of each round {member: value}]}}"""
    out = {}
    for line in lines:
        word, *fields = line.split()
        if word == "sample":
            target, row = fields[:2]
            values = dict(zip(MEMBERS, map(float, fields[3:])))
            out.setdefault(row, {}).setdefault(target, []).append(values)
    return out


def column(found, row, target, member):
    """A member of each round."""
    if target == "ram":
        return [min(pair) for pair in zip(column(found, row, "blk", member),
                                          column(found, row, "uring", member))]
    return [values[member] for values in found[row][target]]


def ratio(found, member, of, over, row):
    return quartiles([a / b for a, b in zip(column(found, row, of, member),
                                            column(found, row, over, member))])


def differences(found):
    """us a page that a layer adds to libtmem in requests of 16 pages, one at a time: the request
    server in the same process; the whole device, to a client that polls."""
    out = {}
    for verb in ("put", "get"):
        row = f"{verb}_16_polled"
        for key, target in (("server", "server"), ("device", "tmem")):
            out[f"{key}_{verb}"] = quartiles(
                [a - b for a, b in zip(column(found, row, target, "us_page"),
                                       column(found, row, "libtmem", "us_page"))])
    return out


def summary(lines):
    found = samples(lines)
    rows = {row: {target: {member: quartiles([r[member] for r in rounds]) for member in MEMBERS}
                  for target, rounds in targets.items()} for row, targets in found.items()}
    said = dict(line.split(" ", 1) for line in lines if not line.startswith("sample "))
    pages, what = said["corpus"].split(" ", 1)
    return {"corpus": {"pages": int(pages), "what": what}, "lz4": said["lz4"],
            "rounds": len(found["get_1_depth_1"]["tmem"]), "rows": rows,
            "ratios": {key: ratio(found, member, of, over, row)
                       for key, member, of, over, row, _ in RATIOS},
            "overhead_us": differences(found)}


def show(result):
    print(f"\nWithout a guest: {result['corpus']['pages']} pages of "
          f"{result['corpus']['what']}; medians of {result['rounds']} rounds; "
          f"{result['storage_daemon']}, LZ4 {result['lz4']}")
    for target, what in WHAT.items():
        print(f"  {target:<8} {what}")
    print(f"\n  {'us a page':<16}" + "".join(f"{t:>9}" for t in WHAT))
    for row, targets in result["rows"].items():
        print(f"  {row:<16}" + "".join(
            f"{targets[t]['us_page']['median']:>9.2f}" if t in targets else f"{'-':>9}"
            for t in WHAT))
    print(f"\n  {'a request':<16}{'p50 us':>9}{'p99 us':>9}{'kicks':>9}{'calls':>9}   (tmem)")
    for row, targets in result["rows"].items():
        print(f"  {row:<16}" + "".join(
            f"{targets['tmem'][m]['median']:>9.3g}" for m in MEMBERS[1:]))
    print("\n  ratios (quartiles); ram: the faster of blk and uring")
    for key, member, of, over, row, what in RATIOS:
        print(f"  {cell(result['ratios'][key]):<20} {what}  ({row}, {member}: {of} / {over})")
    for key, q in result["overhead_us"].items():
        part, verb = key.split("_")
        print(f"  {cell(q):<20} us a page that the {part} adds to libtmem, {verb}s of 16 pages")


def run(quick):
    folder = daemons.build()
    mib = 48 if quick else 160
    with contextlib.ExitStack() as stack:
        back = []
        for name, kind, start in (("tmem", "tmem", lambda: daemons.tmem(folder, mib)),
                                  ("null", "tmem", lambda: daemons.null_tmem(folder, mib)),
                                  ("blk", "blk", lambda: daemons.RamDisk(mib)),
                                  ("uring", "blk", lambda: daemons.RamDisk(mib, "io_uring")),
                                  ("nullblk", "sink", lambda: daemons.null_disk(mib))):
            daemon = stack.enter_context(start())
            back.append((name, kind, daemon.path))
            print("    " + " ".join(daemon.command), flush=True)
        result = summary(client(folder, back, quick))
    result["storage_daemon"] = daemons.version()
    show(result)
    return result
