# SPDX-License-Identifier: BSD-3-Clause
"""A guest in QEMU: starts it, talks to it, and leaves nothing behind.

    with VM(kernel="6.1", mem=256, tmem="virtio-tmem-pci") as vm:
        vm.run("swapon /dev/tmem0")
        print(vm.stats()["device"]["puts"])

Every wait has a deadline; whatever goes wrong ends in VMError, with the last
lines of the guest's console.
"""
import base64
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import threading
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


def tool(name, *args):
    """What a script of the project prints last."""
    done = subprocess.run([os.path.join(TOP, "scripts", name), *args],
                          stdout=subprocess.PIPE, check=False, text=True)
    if done.returncode:
        raise VMError(f"scripts/{name} {' '.join(args)} failed")
    return done.stdout.strip().splitlines()[-1]


class Channel:
    """Lines over a UNIX socket, with deadlines."""

    def __init__(self, path, timeout):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(timeout)
        self.sock.connect(path)
        self.buffer = b""

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


class VM:
    """kernel: "5.10", "6.1" or "6.12"; mem in MiB; tmem: what follows -device,
    without id, or None; objects: what follows -object; args: more arguments;
    modules: options of our modules on the kernel's command line; misbehave: with a
    device that keeps the rules unless rules() says otherwise (misbehave.c)."""

    def __init__(self, kernel="6.1", mem=256, smp=1, tmem="virtio-tmem-pci",
                 objects=(), args=(), append="", accel=None, prefix=(), misbehave=False):
        self.kernel, self.mem, self.smp = kernel, mem, smp
        self.tmem, self.objects, self.args = tmem, list(objects), list(args)
        self.append, self.prefix = append, list(prefix)
        self.misbehave = misbehave
        self.accel = accel or os.environ.get("TMEM_ACCEL") or "tcg"
        self.dir = self.process = self.channel = self.monitor = None
        self.qmp_lock = threading.Lock()
        self.requests = 0
        self.events = []
        self.ignore = None      # a pattern of TROUBLE that is expected

    # ------------------------------------------------------ start and stop

    def command(self):
        image = os.environ.get("TMEM_IMAGE_" + self.kernel) or tool("guest-image", self.kernel)
        qemu = os.environ.get("QEMU") or tool("build-qemu", "--print-path")
        if self.misbehave:
            qemu += "-misbehave"
            if not os.path.exists(qemu):
                raise VMError(f"there is no {qemu}: run scripts/build-qemu --misbehave")
        accel = "tcg,thread=multi" if self.accel == "tcg" else self.accel
        command = self.prefix + [
            qemu, "-name", "tmem-test", "-nodefaults", "-no-user-config",
            "-display", "none", "-no-reboot",
            "-machine", "q35", "-accel", accel,
            "-cpu", "max" if self.accel == "tcg" else "host",
            "-m", str(self.mem), "-smp", str(self.smp),
            "-kernel", f"{image}/vmlinuz", "-initrd", f"{image}/initrd",
            "-append", self.kernel_options(),
            "-serial", f"file:{self.dir}/console",
            "-qmp", f"unix:{self.dir}/qmp,server=on,wait=off",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,id=agent,path={self.dir}/agent,server=on,wait=off",
            "-device", "virtserialport,chardev=agent,name=tmem.agent",
            "-drive", f"if=none,id=root,file={os.path.realpath(image + '/root.squashfs')},"
                      "format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"if=none,id=layer,file={os.path.realpath(image + '/layer.squashfs')},"
                      "format=raw,readonly=on",
            "-device", "virtio-blk-pci,drive=layer",
            "-device", "pcie-root-port,id=port0,slot=1",
        ]
        for obj in self.objects:
            command += ["-object", obj]
        if self.tmem:
            command += ["-device", self.tmem + ",id=tmem0"]
        return command + self.args

    def kernel_options(self):
        options = ("console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off "
                   "tsc=reliable net.ifnames=0 ")
        if self.accel == "tcg":
            # Clearing pages and walking page tables is what TCG is slowest at.
            # A kernel that waits for ten ticks on a busy host calls its timer broken.
            options += "init_on_alloc=0 no5lvl no_timer_check "
        return options + self.append

    def start(self, timeout=300):
        self.dir = tempfile.mkdtemp(prefix="tmem-vm-")
        deadline = time.monotonic() + timeout
        self.start_qemu(deadline)
        self.wait_boot(deadline)
        return self

    def start_qemu(self, deadline):
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL,
            env={**os.environ, "TMEM_RULES": f"{self.dir}/rules"},
            stdout=open(f"{self.dir}/qemu.log", "a"), stderr=subprocess.STDOUT)
        self.monitor = self.connect("qmp", min(deadline, time.monotonic() + 30))
        self.monitor.receive(deadline)
        self.qmp("qmp_capabilities")

    def resume(self, timeout=300):
        """QEMU has ended; another one starts, with a guest that is not to boot, but to
        go on with what it did."""
        self.channel.close()
        self.monitor.close()
        deadline = time.monotonic() + timeout
        os.rename(f"{self.dir}/console", f"{self.dir}/console.1")
        self.start_qemu(deadline)
        self.channel = self.connect("agent", deadline)

    def wait_boot(self, deadline):
        self.channel = self.connect("agent", deadline)
        while True:
            try:
                line = self.channel.receive(deadline)
            except (socket.timeout, ConnectionError) as error:
                self.fail(f"the guest did not boot: {error or 'no answer in time'}")
            if line.startswith("0 0 "):
                return

    def connect(self, name, deadline):
        while True:
            if self.process.poll() is not None:
                self.fail(f"QEMU ended with status {self.process.returncode}")
            try:
                return Channel(f"{self.dir}/{name}", 30)
            except OSError:
                if time.monotonic() > deadline:
                    self.fail(f"QEMU does not listen on {name}")
                time.sleep(0.02)

    def stop(self):
        for channel in (self.channel, self.monitor):
            if channel:
                channel.close()
        if self.process:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
        if self.dir:
            shutil.rmtree(self.dir, ignore_errors=True)
        self.dir = self.process = self.channel = self.monitor = None

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
        with open(f"{self.dir}/console", errors="replace") as file:
            return file.read()

    def log(self):
        """What QEMU itself printed."""
        with open(f"{self.dir}/qemu.log", errors="replace") as file:
            return file.read()

    def tail(self, lines=30):
        return ("--- console ---\n" + "\n".join(self.console().splitlines()[-lines:]) +
                "\n--- qemu ---\n" + "\n".join(self.log().splitlines()[-lines:]))

    def check_console(self):
        for line in self.console().splitlines():
            if TROUBLE.search(line) and not (self.ignore and re.search(self.ignore, line)):
                self.fail(f"the guest's console has: {line}")

    def fail(self, why):
        raise VMError(f"{why}\n{self.tail() if self.dir else ''}")

    # --------------------------------------------------------------- QEMU

    def qmp(self, command, timeout=60, **arguments):
        """A QMP command's result; VMError with its message if it fails."""
        with self.qmp_lock:
            self.monitor.send(json.dumps({"execute": command, "arguments": {
                k.replace("_", "-"): v for k, v in arguments.items()}}))
            deadline = time.monotonic() + timeout
            while True:
                try:
                    reply = json.loads(self.monitor.receive(deadline))
                except socket.timeout:
                    self.fail(f"no answer to QMP {command} in {timeout} s")
                except ConnectionError:
                    self.fail(f"QEMU is gone at QMP {command}")
                if "event" in reply:
                    self.events.append(reply)
                elif "error" in reply:
                    raise VMError(f"{command}: {reply['error']['desc']}")
                else:
                    return reply["return"]

    def stats(self, device="tmem0"):
        return self.qmp("qom-get", path=f"/machine/peripheral/{device}", property="stats")

    # ------------------------------------------- a device that misbehaves

    def rules(self, *lines):
        """These are broken from now on, and no others."""
        with open(f"{self.dir}/rules.new", "w", encoding="ascii") as file:
            file.write("".join(f"{line}\n" for line in lines))
        os.rename(f"{self.dir}/rules.new", f"{self.dir}/rules")

    def verdicts(self, word=""):
        """What the device has to say of its driver: lines with that word."""
        try:
            with open(f"{self.dir}/rules.log", encoding="ascii") as file:
                return [line.strip() for line in file if not word or word in line.split()]
        except FileNotFoundError:
            return []

    def go_on(self, store="store0"):
        """Bulk queues that stand still are served again."""
        for frozen in (True, False):
            self.qmp("qom-set", path=f"/objects/{store}", property="frozen", value=frozen)

    def wait(self, timeout=60):
        """For QEMU to end."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.fail(f"QEMU did not end in {timeout} s")

    def wait_for(self, what, condition, timeout=60):
        deadline = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > deadline:
                self.fail(f"not in {timeout} s: {what}")
            time.sleep(0.2)
