#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Every mutant could be run: its head is whole, its patch applies, and there is a test of
that name.  scripts/check-mutants says the same of one that it comes to, an hour later.
Prints TAP.
"""
import glob
import os
import re
import subprocess
import sys

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.dont_write_bytecode = True
sys.path.append(f"{TOP}/tests")
from checks import finish, report  # noqa: E402 pylint: disable=wrong-import-position

SUITES = ["unit", "qtest", "guest", "vhost-user", "broker", "libvirt"]
# Their tests are vectors, QEMU's paths and random runs; or libvirt's own.
UNNAMED = {"conformance-server", "test_conformance", "model-store", "model-store-kill", "own",
           "xslt"}


def words_of_tests():
    """What looks like a name in the folder of tests, mutants aside."""
    words = set()
    for folder in ("unit", "vhost-user", "broker", "guest", "qtest", "conformance", "libvirt"):
        for path in glob.glob(f"{TOP}/tests/{folder}/**", recursive=True):
            if os.path.isfile(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    words |= set(re.findall(r"[\w-]+", file.read()))
    return words


def fault(path, words):
    """What is wrong with a mutant, or None."""
    with open(path, encoding="utf-8") as file:
        head = file.read().split("\n\n", 1)[0]
    fields = re.findall(r"^(\w+): *(.+)$", head, re.M)
    values = dict(fields)
    tests = [value.split(None, 1) for name, value in fields if name == "Test"]
    if "Bug" not in values or not tests:
        return "has no Bug: or Test: line at its head"
    if values.get("Suite") not in SUITES:
        return f"Suite: '{values.get('Suite')}': must be one of {', '.join(SUITES)}"
    for test in tests:
        if len(test) != 2:
            return f"Test: '{' '.join(test)}': must be PROGRAM TEST"
        name = test[1].split("/")[-1].split(".")[-1]
        # store-fixture.h's, of a test that has the rest of the name.
        name = name.removesuffix("_in_classes")
        if test[0] not in UNNAMED and values["Suite"] != "qtest" and \
                not words & {name, f"test_{name}", name.split("_", 1)[-1]}:
            return f"Test: '{' '.join(test)}': there is no test {name}"
    done = subprocess.run(["git", "apply", "--check", "--whitespace=nowarn", path], cwd=TOP,
                          check=False, stderr=subprocess.PIPE, text=True)
    return done.stderr.strip() if done.returncode else None


def main():
    words = words_of_tests()
    paths = sorted(glob.glob(f"{TOP}/tests/mutants/*.patch"))
    faults = [f"{os.path.basename(path)}: {what}" for path in paths
              if (what := fault(path, words))]
    if not paths:
        faults.append("there are none")
    report("mutants_could_be_run", "\n".join(faults))
    return finish()


sys.exit(main())
