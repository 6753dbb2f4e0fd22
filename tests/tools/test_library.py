#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""Who embeds libtmem: it is installed, pkg-config finds it, the example is compiled by the
line in its head and runs, and its header is one for C++ too.  Prints TAP.

usage: test_library.py BUILD-FOLDER
BUILD-FOLDER is one that scripts/build-host made.
"""
import os
import re
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import tap  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


class Library(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.prefix = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.prefix.cleanup)
        subprocess.run(["meson", "install", "--no-rebuild", "--quiet", "-C", sys.argv[1],
                        "--destdir", cls.prefix.name], check=True, stdout=subprocess.DEVNULL)
        found = [folder for folder, _, files in os.walk(cls.prefix.name) if "libtmem.pc" in files]
        assert len(found) == 1, found
        cls.env = {**os.environ, "PKG_CONFIG_PATH": found[0],
                   "PKG_CONFIG_SYSROOT_DIR": cls.prefix.name}

    def test_names(self):
        """Nothing but what the header has can clash with a name of the program's."""
        found = [os.path.join(folder, "libtmem.a")
                 for folder, _, files in os.walk(self.prefix.name) if "libtmem.a" in files]
        self.assertEqual(len(found), 1)
        out = subprocess.run(["nm", "--defined-only", "--extern-only", found[0]], check=True,
                             capture_output=True, text=True).stdout
        names = {line.split()[2] for line in out.splitlines() if len(line.split()) == 3}
        self.assertEqual(names, set(self.names_of_header()))

    @staticmethod
    def names_of_header():
        with open(f"{TOP}/include/tmem/tmem.h", encoding="utf-8") as file:
            header = re.sub(r"/\*.*?\*/", "", file.read(), flags=re.S)
        return sorted(set(re.findall(r"^\w[\w \t*]*?\b(tmem_\w+)\(", header, re.M)))

    def compile(self, line, source):
        """Compiles a file store.c by a line of a shell; the program."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        with open(f"{folder.name}/store.c", "w", encoding="utf-8") as file:
            file.write(source)
        done = subprocess.run(line, shell=True, cwd=folder.name, env=self.env, text=True,
                              capture_output=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""), line)
        return f"{folder.name}/store"

    def test_example(self):
        with open(f"{TOP}/examples/store.c", encoding="utf-8") as file:
            source = file.read()
        line = re.search(r"^ \* (cc .*)$", source, re.M)[1]
        with open(f"{TOP}/docs/library.md", encoding="utf-8") as file:
            self.assertIn(line, file.read(), "the line of docs/library.md")
        program = self.compile(line.replace("cc ", "cc -Wall -Wextra -Werror ", 1), source)
        done = subprocess.run([program], text=True, capture_output=True, check=False, timeout=60)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertRegex(done.stdout, r"\A[1-9][0-9]* bytes given back\n"
                                      r"0 pages in [0-9]+ bytes of the host, 2 puts\n\Z")

    def test_cplusplus(self):
        """All of the header's functions are linked from C++, by their own names."""
        names = self.names_of_header()
        self.assertGreater(len(names), 30)
        source = "#include <tmem/tmem.h>\nvoid *all[] = {\n" + "".join(
            f"(void *)&{name},\n" for name in names) + "};\nint main() { return !all[0]; }\n"
        program = self.compile(
            "c++ -x c++ store.c -o store $(pkg-config --cflags --libs --static libtmem)", source)
        subprocess.run([program], check=True, timeout=60)


tap.main(Library)
