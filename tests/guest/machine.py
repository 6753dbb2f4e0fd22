# SPDX-License-Identifier: BSD-3-Clause
"""What guests share, in QEMU (vm.py) or as User Mode Linux (uml.py): the agent that runs
commands in them, their console, and that nothing of them is left behind.

Every wait has a deadline; whatever goes wrong ends in VMError, with the last
lines of the guest's console.
"""
import base64
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

# What no guest may print, whatever is done to it.
TROUBLE = re.compile(
    r"BUG:|Oops|soft lockup|hard LOCKUP|WARNING:|Call Trace|general protection"
    r"|rcu.*stall|UBSAN|KASAN|Kernel panic", re.I)


class VMError(Exception):
    """The guest or QEMU did not do what was asked."""


def cache():
    """The folder for what was downloaded, built and measured: $CACHE of scripts/lib.sh."""
    return os.path.abspath(os.environ.get("VIRTIO_TMEM_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "virtio-tmem"))


def claimed_cache():
    """cache(), which is there then; or the program ends with the line of scripts/lib.sh that says why."""
    done = subprocess.run(["bash", "-c", '. "$1"', os.path.basename(sys.argv[0]),
                           os.path.join(TOP, "scripts/lib.sh")], stderr=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        sys.exit(done.stderr.strip())
    return cache()


def tool(name, *args):
    """What a script of the project prints last."""
    done = subprocess.run([os.path.join(TOP, "scripts", name), *args],
                          stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        raise VMError(f"scripts/{name} {' '.join(args)} failed")
    return done.stdout.strip().splitlines()[-1]


class Channel:
    """Lines over a UNIX socket, with deadlines."""

    def __init__(self, sock):
        self.sock = sock
        self.buffer = b""

    @classmethod
    def connect(cls, path, timeout):
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(timeout)
        sock.connect(path)
        return cls(sock)

    def send(self, line):
        self.sock.settimeout(30)
        self.sock.sendall(line.encode() + b"\n")

    def fill(self, deadline):
        left = deadline - time.monotonic()
        if left <= 0:
            raise socket.timeout()
        self.sock.settimeout(left)
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionError("closed")
        self.buffer += data

    def receive(self, deadline):
        while b"\n" not in self.buffer:
            self.fill(deadline)
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.decode(errors="replace")

    def close(self):
        self.sock.close()


class Machine:
    """Classes of it have start_machine(), which starts self.process; self.channel is there at
    the end of wait_boot()."""

    what = "the process"

    def __init__(self, kernel, mem, smp, append):
        self.kernel, self.mem, self.smp, self.append = kernel, mem, smp, append
        self.dir = self.process = self.channel = None
        self.requests = 0
        self.ignore = None      # a pattern of TROUBLE that is expected

    # ------------------------------------------------------ start and stop

    def image(self):
        """The folder of scripts/guest-image."""
        return os.environ.get("TMEM_IMAGE_" + self.kernel) or tool("guest-image", self.kernel)

    def start(self, timeout=300):
        self.dir = tempfile.mkdtemp(prefix="tmem-vm-")
        deadline = time.monotonic() + timeout
        self.start_machine(deadline)
        self.wait_boot(deadline)
        return self

    def stop(self):
        if self.channel:
            self.channel.close()
        if self.process:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)
        self.dir = self.process = self.channel = None

    def wait_boot(self, deadline):
        """For the agent's first line."""
        while True:
            try:
                line = self.channel.receive(deadline)
            except (socket.timeout, ConnectionError) as error:
                self.fail(f"the guest did not boot: {error or 'no answer in time'}")
            if line.startswith("0 0 "):
                return

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, kind, value, trace):
        try:
            if kind is None:
                self.check_console()
            elif self.dir and kind is not VMError:
                print(self.tail())
        finally:
            self.stop()

    # ---------------------------------------------------------- the guest

    def begin(self, command):
        """Sends a command; end() waits for it."""
        self.requests += 1
        encoded = base64.b64encode(command.encode()).decode()
        self.channel.send(f"{self.requests} {encoded}")
        return self.requests

    def end(self, number, timeout=120):
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self.channel.receive(deadline)
            except socket.timeout:
                self.fail(f"no answer from the guest in {timeout} s")
            except (ConnectionError, OSError) as error:
                self.fail(f"the guest is gone: {error}")
            fields = line.split(" ")
            if fields[0] == str(number):
                break
        output = base64.b64decode(fields[2]).decode(errors="replace") if len(fields) > 2 else ""
        return int(fields[1]), output

    def poll(self, number, seconds):
        """As end(), but None if there is no answer in that time."""
        deadline = time.monotonic() + seconds
        try:
            while b"\n" not in self.channel.buffer:
                self.channel.fill(deadline)
        except socket.timeout:
            return None
        except OSError as error:
            self.fail(f"the guest is gone: {error}")
        return self.end(number)

    def run(self, command, timeout=120, check=True):
        """A shell command in the guest; its output."""
        try:
            status, output = self.end(self.begin(command), timeout)
        except VMError as error:
            raise VMError(f"{command}: {error}") from None
        if check and status:
            self.fail(f"'{command}' exits with {status}: {output.strip()}")
        return output if check else (status, output)

    def read(self, path):
        return self.run(f"cat {path}").strip()

    def swap_stats(self, disk="tmem0"):
        """/sys/block/tmemN/tmem as a dictionary."""
        out = self.run(f"cd /sys/block/{disk}/tmem && grep -H . *")
        return {k: int(v) for k, v in (line.split(":") for line in out.split())}

    def console(self):
        return self.text("console")

    def log(self):
        """What the process itself printed."""
        return self.text("log")

    def text(self, name):
        """A file of the process, which may have ended before it made one."""
        try:
            with open(f"{self.dir}/{name}", errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def tail(self, lines=30):
        return ("--- console ---\n" + "\n".join(self.console().splitlines()[-lines:]) +
                f"\n--- {self.what} ---\n" + "\n".join(self.log().splitlines()[-lines:]))

    def check_console(self):
        lines = self.console().splitlines()
        for i, line in enumerate(lines):
            if TROUBLE.search(line) and not (self.ignore and re.search(self.ignore, line)):
                # What it says, of whom, and who called.
                self.fail("the guest's console has:\n" + "\n".join(lines[max(i - 12, 0):i + 40]))

    def fail(self, why):
        raise VMError(f"{why}\n{self.tail() if self.dir else ''}")

    def wait(self, timeout=60):
        """For the process to end."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"{self.what} did not end in {timeout} s")

    def wait_for(self, what, condition, timeout=60):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"not in {timeout} s: {what}")
            time.sleep(0.2)
