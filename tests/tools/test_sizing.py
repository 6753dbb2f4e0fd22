#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""scripts/sizing: its arithmetic, and what it says of wrong input.  Prints TAP."""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import tap  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CORPUS = {"density": {"1_gib": {"mean_length": 2048, "churned": {"library": 1.0}}},
          "rows": {"put_grow_16": {"tmem_us": {"median": 10}},
                   "get_random_1": {"tmem_us": {"median": 2}}}}
STORE = {"commit": "0", "machine": {"cpu": "a CPU", "cpus": 2}, "corpora": {"anon": CORPUS},
         "recompress": {"held": {"median": 0.7}}}
EVICT = {"commit": "0", "traces": {"loop": {}},
         "runs": [{"trace": "loop", "policy": "kept", "exclusive": True, "percent": 10, "gets": 4,
                   "misses": 3}]}


class Sizing(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.write("bench-store", json.dumps(STORE))
        self.write("bench-evict", json.dumps(EVICT))

    def write(self, name, text):
        with open(f"{self.folder.name}/{name}.json", "w", encoding="utf-8") as file:
            file.write(text)

    def sizing(self, *options):
        return subprocess.run([f"{TOP}/scripts/sizing", f"--results={self.folder.name}", *options],
                              capture_output=True, text=True, check=False)

    def rows(self, *options):
        done = self.sizing(*options)
        self.assertEqual(done.returncode, 0, done.stderr)
        return dict(re.findall(r"^  (\S.*?) {2,}(\S.*)$", done.stdout, re.M))

    def test_example(self):
        rows = self.rows("--vms=10", "--need=3072", "--ram=1024", "--reserved=48", "--qemu=0",
                         "--host-own=0", "--rate=100")
        self.assertEqual(rows["host bytes for each byte swapped out, anon"], "0.50")
        # Of 10 by the binomial distribution; of at most 3 at 5 % it is 0.99897.
        self.assertEqual(rows["at it at once, in all but 0.1% of the time"].split(),
                         ["4", "5", "7", "10"])
        self.assertEqual(rows["RAM of the guests"].split()[:2], ["10.0", "GiB"])
        # 48 + 48/48 + 1 each; and 2048 / 2 - 50 of those that are at it.
        self.assertEqual(rows["reservations"].split()[:2], ["500", "MiB"])
        self.assertEqual(rows["leases above reservations"].split()[:2], ["3.8", "GiB"])
        self.assertEqual(rows["without virtio-tmem, RAM for the peak"].split()[:2], ["30.0", "GiB"])
        # 25600 pages a second of 12 us, of four.
        self.assertEqual(rows["CPUs that 100 MiB/s out and in of each cost"].split()[0], "1.2")
        self.assertEqual(rows["loop"], "25%")

    def test_no_results(self):
        os.unlink(f"{self.folder.name}/bench-evict.json")
        done = self.sizing()
        self.assertEqual(done.returncode, 1)
        self.assertIn("'make bench-evict' makes it", done.stderr)
        self.write("bench-evict", "{")
        self.assertIn("'make bench-evict' makes it", self.sizing().stderr)

    def test_wrong_values(self):
        for option in ("--vms=0", "--vms=x", "--ram=5000", "--reserved=4000", "--rate=-1"):
            done = self.sizing(option)
            self.assertEqual(done.returncode, 2, option)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)
            self.assertIn(option.split("=")[0], done.stderr)


tap.main(Sizing)
