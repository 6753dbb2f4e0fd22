# SPDX-License-Identifier: BSD-3-Clause
"""What tests/qtest/test_* share: a QEMU with a monitor, and TAP."""
import json
import os
import subprocess
import sys

if len(sys.argv) != 2 or not os.access(sys.argv[1], os.X_OK) or os.path.isdir(sys.argv[1]):
    sys.exit(f"usage: {os.path.basename(sys.argv[0])} QEMU      a program, not {sys.argv[1:]}")
QEMU = sys.argv[1]

number = 0
failed = False


def report(name, problem):
    """One line of TAP."""
    global number, failed
    number += 1
    print(f"{'not ok' if problem else 'ok'} {number} - {name}")
    if problem:
        failed = True
        print("".join(f"# {line}\n" for line in problem.splitlines()), end="")


def finish():
    """The plan, and the exit status."""
    print(f"1..{number}")
    sys.exit(failed)


def command(options, machine="q35", accel="tcg"):
    return [QEMU, "-M", machine, "-accel", accel, "-display", "none", "-nodefaults", "-S", *options]


class Monitor:
    """A QEMU with a monitor on its standard input and output.  quiet: what else it says is
    no mistake."""

    def __init__(self, options, machine="q35", accel="tcg", quiet=False):
        self.quiet = quiet
        self.process = subprocess.Popen(command(options + ["-qmp", "stdio"], machine, accel),
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.STDOUT, text=True)
        self.reply("QMP")
        self("qmp_capabilities")

    def __call__(self, name, **arguments):
        """The reply: {"return": …} or {"error": …}."""
        self.process.stdin.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self.process.stdin.flush()
        return self.reply("return", "error")

    def reply(self, *members):
        """The next message with one of these members."""
        while True:
            line = self.process.stdout.readline()
            if not line:
                raise RuntimeError(f"QEMU has gone, status {self.process.wait()}")
            try:
                reply = json.loads(line)
            except ValueError as error:
                if self.quiet:
                    continue
                raise RuntimeError(f"QEMU says: {line}") from error
            if any(member in reply for member in members):
                return reply

    def get(self, path, name):
        return self("qom-get", path=path, property=name)["return"]

    def set(self, path, name, value):
        """The error's text, or None."""
        return self("qom-set", path=path, property=name, value=value).get("error", {}).get("desc")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()


def check(condition, what):
    if not condition:
        raise AssertionError(what)
