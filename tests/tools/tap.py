# SPDX-License-Identifier: BSD-3-Clause
"""unittest's results as TAP, for tests/run."""
import os
import unittest


class Tap(unittest.TextTestResult):
    """One line of TAP a test."""

    def report(self, test, word, reason=""):
        print(f"{word} {self.testsRun} - {test.id().split('.')[-1].removeprefix('test_')}")
        for text in reason.splitlines():
            print(f"# {text}")

    def addSuccess(self, test):
        self.report(test, "ok")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.report(test, "not ok", self.failures[-1][1])

    def addError(self, test, err):
        super().addError(test, err)
        self.report(test, "not ok", self.errors[-1][1])


def main(case):
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(case)
    print(f"1..{suite.countTestCases()}", flush=True)
    result = Tap(unittest.runner._WritelnDecorator(open(os.devnull, "w", encoding="utf-8")), True, 0)
    suite.run(result)
    raise SystemExit(not result.wasSuccessful())
