#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""The store's size classes are those that scripts/size-classes finds.  Prints TAP."""
import os
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

done = subprocess.run([f"{TOP}/scripts/size-classes", "--check"], check=False,
                      stderr=subprocess.PIPE, text=True)
for line in done.stderr.splitlines():
    print("#", line)
print("not ok" if done.returncode else "ok", "1 - size_classes")
print("1..1")
sys.exit(done.returncode)
