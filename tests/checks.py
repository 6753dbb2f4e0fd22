# SPDX-License-Identifier: BSD-3-Clause
"""TAP of tests that are functions: what is wrong, or None."""
import sys

number = 0
failed = False


def report(name, problem):
    """One line of TAP."""
    global number, failed
    number += 1
    print(f"{'not ok' if problem else 'ok'} {number} - {name}", flush=True)
    if problem:
        failed = True
        print("".join(f"# {line}\n" for line in str(problem).splitlines()), end="", flush=True)


def check(name, test, *args):
    """Runs a test: None, or what is wrong; an exception is wrong too."""
    try:
        problem = test(*args)
    except Exception as error:  # pylint: disable=broad-except
        problem = f"{type(error).__name__}: {error}"
    report(name, problem)


def finish():
    """The plan, and the exit status."""
    print(f"1..{number}")
    sys.exit(failed)
