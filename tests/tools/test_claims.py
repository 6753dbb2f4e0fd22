#!/usr/bin/python3
# SPDX-License-Identifier: BSD-3-Clause
"""scripts/verify-claims: verdicts, malformed input, README's table.  Prints TAP."""
import json
import os
import subprocess
import sys
import tempfile
import unittest

sys.dont_write_bytecode = True
import tap  # noqa: E402

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BEGIN = "<!-- figures: begin (make verify-claims) -->"
END = "<!-- figures: end -->"
CLAIM = {"id": "a-claim", "what": "what it is", "file": "results/a.json", "value": "a.b",
         "limit": 1.5, "direction": "at most", "command": "make a", "source": "issue 2"}


def toml(claim):
    """One claim as TOML."""
    return "[[claim]]\n" + "".join(f"{key} = {json.dumps(value)}\n"
                                   for key, value in claim.items())


class Claims(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        os.mkdir(f"{self.folder.name}/results")
        self.write(".virtio-tmem-cache", "")
        self.write("README.md", f"before\n{BEGIN}\n{END}\nafter\n")

    def write(self, name, text):
        with open(f"{self.folder.name}/{name}", "w", encoding="utf-8") as file:
            file.write(text)

    def read(self, name):
        with open(f"{self.folder.name}/{name}", encoding="utf-8") as file:
            return file.read()

    def run_tool(self, *args):
        """(exit status, stdout, stderr)"""
        folder = self.folder.name
        done = subprocess.run([f"{TOP}/scripts/verify-claims", *args], check=False, text=True,
                              capture_output=True,
                              env={**os.environ, "VIRTIO_TMEM_CACHE": folder,
                                   "TMEM_CLAIMS": f"{folder}/claims.toml",
                                   "TMEM_README": f"{folder}/README.md"})
        self.assertNotIn("Traceback", done.stderr)
        return done.returncode, done.stdout, done.stderr

    def judge(self, measured, **changes):
        """What is printed about one claim; it must be no failure."""
        self.write("claims.toml", toml({**CLAIM, **changes}))
        if measured is not None:
            self.write("results/a.json", json.dumps(measured))
        status, out, err = self.run_tool()
        self.assertEqual((status, err), (0, ""))
        return out

    def test_no_cache_is_a_failure(self):
        self.write("claims.toml", toml(CLAIM))
        os.remove(f"{self.folder.name}/.virtio-tmem-cache")
        status, out, err = self.run_tool()
        self.assertEqual((status, out), (1, ""))
        self.assertRegex(err, r"^verify-claims: .* holds something else: set VIRTIO_TMEM_CACHE .*\n$")

    def test_within_the_limit_is_ok(self):
        out = self.judge({"a": {"b": 1.25}})
        self.assertRegex(out, r"^OK +a-claim +1\.25  at most 1\.50 \(make a\)\n$")

    def test_at_the_limit_is_ok(self):
        self.assertRegex(self.judge({"a": {"b": 1.5}}), "^OK ")
        self.assertRegex(self.judge({"a": {"b": 1.5}}, direction="at least"), "^OK ")

    def test_beyond_the_limit_is_a_miss_and_no_failure(self):
        self.assertRegex(self.judge({"a": {"b": 1.501}}), "^MISS ")
        self.assertRegex(self.judge({"a": {"b": 1.4}}, direction="at least"), "^MISS ")

    def test_an_aim_is_reached_or_not(self):
        self.assertRegex(self.judge({"a": {"b": 1.25}}, source="design"),
                         r"^REACHED +a-claim +1\.25  at most 1\.50 \(aim; make a\)\n$")
        self.assertRegex(self.judge({"a": {"b": 1.6}}, source="design"), "^NOT REACHED ")

    def test_missing_file_is_not_measured(self):
        self.assertRegex(self.judge(None), "^NOT MEASURED +a-claim +- ")

    def test_missing_member_is_not_measured(self):
        self.assertRegex(self.judge({"a": {}}), "^NOT MEASURED ")
        self.assertRegex(self.judge({}), "^NOT MEASURED ")

    def test_element_of_a_list(self):
        rows = {"rows": [{"kernel": "6.1", "sync": 0, "n": 7}, {"kernel": "6.1", "sync": 1, "n": 8}]}
        self.assertRegex(self.judge(rows, value="rows[kernel=6.1,sync=1].n"), r"^MISS +a-claim +8\.00")
        self.assertRegex(self.judge(rows, value="rows[kernel=5.10].n"), "^NOT MEASURED ")

    def test_a_figure_from_a_guest_says_so(self):
        out = self.judge({"a": {"in_guest": "UML 7", "b": 1.25}})
        self.assertRegex(out, r"^OK +a-claim +1\.25  at most 1\.50 \(make a; in a guest, UML 7\)\n$")
        self.assertEqual(self.run_tool("--write")[0], 0)
        self.assertIn("| what it is | at most 1.50 | 1.25, in a guest | ok | `make a` |",
                      self.read("README.md"))
        self.assertEqual(self.run_tool("--check")[0], 0)
        # What is beside the guest's is this machine's.
        self.assertNotIn("guest", self.judge({"a": {"b": 1.25}, "c": {"in_guest": "UML 7"}}))

    def malformed(self, expected, claim=None, measured=None, args=()):
        self.write("claims.toml", toml({**CLAIM, **(claim or {})}))
        if measured is not None:
            self.write("results/a.json", measured)
        status, _, err = self.run_tool(*args)
        self.assertEqual(status, 1)
        self.assertIn(expected, err)
        self.assertEqual(err.count("\n"), 1)

    def test_malformed_claims(self):
        self.malformed("direction 'up'", {"direction": "up"})
        self.malformed("'limit' is '1'", {"limit": "1"})
        self.malformed("unknown 'limits'", {"limits": 1})
        self.malformed("source 'hearsay'", {"source": "hearsay"})
        self.malformed("ends in nothing", {"value": "a."})
        self.malformed("not a path", {"value": "a b"})
        self.malformed("names 2 elements", {"value": "rows[k=1]"},
                       '{"rows": [{"k": 1}, {"k": 1}]}')

    def test_malformed_toml(self):
        for text, expected in (("[[claim]\n", "claims.toml: "), ("x = 1\n", "nothing else"),
                               (toml(CLAIM) * 2, "twice"),
                               (toml({k: v for k, v in CLAIM.items() if k != "limit"}), "no 'limit'")):
            self.write("claims.toml", text)
            status, _, err = self.run_tool()
            self.assertEqual(status, 1)
            self.assertIn(expected, err)

    def test_malformed_json(self):
        self.malformed("a.json: ", measured='{"a": ')
        self.malformed("is no number", measured='{"a": {"b": "1"}}')
        self.malformed("is no number", measured='{"a": {"b": true}}')
        self.malformed("nothing has 'b'", measured='{"a": 1}')

    def test_readme_is_written_and_checked(self):
        self.judge({"a": {"b": 1.25}})
        self.assertEqual(self.run_tool("--check")[0], 1)
        self.assertEqual(self.run_tool("--write")[0], 0)
        text = self.read("README.md")
        self.assertIn("| what it is | at most 1.50 | 1.25 | ok | `make a` |", text)
        self.assertTrue(text.startswith("before\n") and text.endswith("\nafter\n"))
        self.assertEqual(self.run_tool("--check")[0], 0)
        self.run_tool("--write")
        self.assertEqual(self.read("README.md"), text)

    def test_what_was_measured_elsewhere_stays(self):
        self.judge({"a": {"b": 1.25}, "commit": "123"})
        self.run_tool("--write")
        text = self.read("README.md")
        os.unlink(f"{self.folder.name}/results/a.json")
        self.assertEqual(self.run_tool("--write")[0], 0)
        self.assertEqual(self.read("README.md"), text)
        self.assertIn("a.json: commit 123.", text)
        self.judge(None, limit=1.6)
        self.run_tool("--write")
        self.assertIn("| at most 1.60 | - | not measured |", self.read("README.md"))
        self.assertNotIn("commit 123", self.read("README.md"))

    def test_readme_with_another_figure_fails(self):
        self.judge({"a": {"b": 1.25}})
        self.run_tool("--write")
        self.judge({"a": {"b": 1.26}})
        status, _, err = self.run_tool("--check")
        self.assertEqual(status, 1)
        self.assertIn("| 1.26 | ok |", err)

    def test_readme_with_another_limit_fails_unmeasured(self):
        self.judge({"a": {"b": 1.25}})
        self.run_tool("--write")
        os.unlink(f"{self.folder.name}/results/a.json")
        self.assertEqual(self.run_tool("--check")[0], 0)
        self.judge(None, limit=1.6)
        self.assertEqual(self.run_tool("--check")[0], 1)

    def test_readme_without_markers_is_malformed(self):
        self.write("README.md", "no markers\n")
        self.malformed("needs the lines", args=("--check",))

    def test_the_projects_claims(self):
        """README.md's table has the rows that docs/claims.toml says."""
        done = subprocess.run([f"{TOP}/scripts/verify-claims", "--check"], check=False, text=True,
                              capture_output=True,
                              env={**os.environ, "VIRTIO_TMEM_CACHE": self.folder.name})
        self.assertEqual(done.returncode, 0, done.stderr)


tap.main(Claims)
