#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Documentation names what there is: tests in tables, files and anchors in links.  Prints TAP."""
import glob
import os
import re
import sys
import unittest

sys.dont_write_bytecode = True
import tap  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Files whose tables say of each line which test shows it.
TABLES = ["docs/broker.md", "docs/operations.md"]
# What is checked by a function of that name, or passed to check() by it.
SCRIPTS = ["tests/broker/test_*", "tests/vhost-user/test_*"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`]+)`")


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def anchor(heading):
    """As GitHub makes it of a heading."""
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(path):
    return {anchor(line.lstrip("#")) for line in read(path).splitlines() if line.startswith("#")}


def tests():
    """Names of all tests: of guests with their file's, as in life.suspend."""
    names = set()
    for path in (p for pattern in SCRIPTS for p in glob.glob(f"{TOP}/{pattern}")):
        if "." not in os.path.basename(path):
            text = read(path)
            names.update(re.findall(r"^def (\w+)\(", text, re.M))
            # check() and report() with a name of their own.
            names.update(re.findall(r'(?:check|report)\(f?"(\w+)', text))
            names.update(f"balloons_{name}" for name in re.findall(r"(\w+)=\{", text))
    for path in glob.glob(f"{TOP}/tests/guest/test_*.py"):
        group = os.path.basename(path)[5:-3]
        names.update(f"{group}.{name}" for name in re.findall(r"^def test_(\w+)\(", read(path), re.M))
    for path in glob.glob(f"{TOP}/tests/unit/*.c"):
        names.update(re.findall(r"cmocka_unit_test(?:_\w+)?\((\w+)", read(path)))
    return names


def named(text):
    """Tests that tables name: the last column, or a row that begins with "test"."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("| \n").split(" | ")]
        if line.startswith("| test |"):
            yield from CODE.findall(line)
        elif line.startswith("|") and len(cells) > 2:
            last = cells[-1]
            # Nothing but names: other tables end with text.
            if last and not re.sub(r"`[\w.*]+`|, ", "", last):
                yield from CODE.findall(last)


class Docs(unittest.TestCase):
    def test_named_tests_exist(self):
        known = tests()
        for path in TABLES:
            found = list(named(read(f"{TOP}/{path}")))
            self.assertGreater(len(found), 10, f"{path}: names hardly any test")
            for name in found:
                start = name.rstrip("*")
                there = any(k.startswith(start) for k in known) if start != name else name in known
                self.assertTrue(there, f"{path}: there is no test '{name}'")

    def test_links(self):
        for path in [f"{TOP}/README.md", *glob.glob(f"{TOP}/docs/*.md")]:
            for link in LINK.findall(read(path)):
                if ":" in link:
                    continue
                file, _, part = link.partition("#")
                target = os.path.normpath(os.path.join(os.path.dirname(path), file)) if file else path
                where = f"{os.path.relpath(path, TOP)}: ({link})"
                self.assertTrue(os.path.exists(target), f"{where}: there is no such file")
                if part and target.endswith(".md"):
                    self.assertIn(part, anchors(target), f"{where}: there is no such heading")

    def test_alerts_lead_somewhere(self):
        known = anchors(f"{TOP}/docs/operations.md")
        for path in glob.glob(f"{TOP}/host/broker/service/*.y*ml"):
            for part in re.findall(r"operations\.md#([\w-]+)", read(path)):
                self.assertIn(part, known, f"{path}: docs/operations.md has no such heading")
        # Where they are not there yet: what is promised to them.
        for part in ("store-full", "host-full", "broker-dead", "module-missing", "vm-killed"):
            self.assertIn(part, known)


tap.main(Docs)
