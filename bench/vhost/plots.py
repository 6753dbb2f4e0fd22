# SPDX-License-Identifier: BSD-3-Clause
"""The pictures of bench-vhost."""
import os

from bars import chart
from guests import ZRAM_MORE
from native import WHAT

SOCKETS = ["tmem", "null", "blk", "uring", "nullblk"]
MEDIA = {
    "tmem sync=0": "vhost-user-tmem, sync=0", "tmem sync=1": "vhost-user-tmem, sync=1",
    "null sync=0": "its floor, sync=0", "null sync=1": "its floor, sync=1",
    "blk": "vhost-user-blk on a file in RAM", "zram": "zram in the guest",
    ZRAM_MORE: "zram, with as much more RAM as our store held",
}


def of_client(result, member, rows):
    return {row.replace("_", " "): {name: result["rows"][row][name][member] for name in SOCKETS}
            for row in rows}


def write(out, path):
    """Beside the JSON file @path; the names of the files."""
    stem = os.path.splitext(path)[0]
    names = {name: WHAT[name] for name in SOCKETS}
    native = out["native"]
    pictures = {
        "latency": chart("One request at a time, no guest", "us a request, median", names,
                         of_client(native, "p50", ["get_1_depth_1", "put_1_depth_1",
                                                   "get_1_polled", "put_1_polled"])),
        "throughput": chart("32 requests in flight, no guest", "us a page", names,
                            of_client(native, "us_page",
                                      ["get_1_depth_32", "put_1_depth_32", "get_16_depth_32",
                                       "put_16_depth_32"]))}
    if "guest" in out:
        media = out["guest"]["media"]
        pictures["guest"] = chart(
            f"A guest of {out['guest']['mem_mib']} MiB, a set of {out['guest']['set_mib']} MiB",
            "seconds", MEDIA, {time: {row["medium"]: row[time] for row in media}
                               for time in ("fill", "ordered", "random", "redis")})
    files = []
    for name, picture in pictures.items():
        files.append(f"{stem}-{name}.svg")
        with open(files[-1], "w", encoding="utf-8") as file:
            file.write(picture)
    return files
