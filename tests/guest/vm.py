# SPDX-License-Identifier: BSD-3-Clause
"""A guest in QEMU.

    with VM(kernel="6.1", mem=256, tmem="virtio-tmem-pci") as vm:
        vm.run("swapon /dev/tmem0")
        print(vm.stats()["device"]["puts"])
"""
import json
import os
import socket
import subprocess
import threading
import time

# Who uses VM uses these, too.
from machine import TOP, Channel, Machine, VMError, cache, claimed_cache, tool  # noqa: F401

# Images that tests share with whatever else reads them: a lock of another program's, such as
# User Mode Linux's with "ubd0r=" but not "ubd0rc=", is no reason not to start.
READ_ONLY = "format=raw,readonly=on,file.locking=off"


class VM(Machine):
    """kernel: "5.10", "6.1" or "6.12"; mem in MiB; tmem: what follows -device,
    without id, or None; objects: what follows -object; args: more arguments;
    modules: options of our modules on the kernel's command line; misbehave: with a
    device that keeps the rules unless rules() says otherwise (misbehave.c)."""

    what = "QEMU"

    def __init__(self, kernel="6.1", mem=256, smp=1, tmem="virtio-tmem-pci",
                 objects=(), args=(), append="", accel=None, prefix=(), misbehave=False):
        super().__init__(kernel, mem, smp, append)
        self.tmem, self.objects, self.args = tmem, list(objects), list(args)
        self.prefix = list(prefix)
        self.misbehave = misbehave
        self.accel = accel or os.environ.get("TMEM_ACCEL") or "tcg"
        self.monitor = None
        self.qmp_lock = threading.Lock()
        self.events = []

    # ------------------------------------------------------ start and stop

    def command(self):
        image = self.image()
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
            "-drive", f"if=none,id=root,{READ_ONLY},"
                      f"file={os.path.realpath(image + '/root.squashfs')}",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"if=none,id=layer,{READ_ONLY},"
                      f"file={os.path.realpath(image + '/layer.squashfs')}",
            "-device", "virtio-blk-pci,drive=layer",
            "-device", "pcie-root-port,id=port0,slot=1",
        ]
        for obj in self.objects:
            command += ["-object", obj]
        if self.tmem:
            command += ["-device", self.tmem + ",id=tmem0"]
        return command + self.args

    def kernel_options(self):
        # Warnings are printed: check_console() looks for them.
        options = ("console=ttyS0 loglevel=5 panic=-1 random.trust_cpu=on mitigations=off "
                   "tsc=reliable net.ifnames=0 ")
        if self.accel == "tcg":
            # Clearing pages and walking page tables is what TCG is slowest at.
            # A kernel that waits for ten ticks on a busy host calls its timer broken.
            options += "init_on_alloc=0 no5lvl no_timer_check "
        return options + self.append

    def wait_boot(self, deadline):
        """For the first boot, or for another one, before which the channel was closed."""
        self.channel = self.connect("agent", deadline)
        super().wait_boot(deadline)

    def start_machine(self, deadline):
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL,
            env={**os.environ, "TMEM_RULES": f"{self.dir}/rules"},
            stdout=open(f"{self.dir}/log", "a"), stderr=subprocess.STDOUT)
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
        self.start_machine(deadline)
        self.channel = self.connect("agent", deadline)

    def connect(self, name, deadline):
        while True:
            if self.process.poll() is not None:
                self.fail(f"QEMU ended with status {self.process.returncode}")
            try:
                return Channel.connect(f"{self.dir}/{name}", 30)
            except OSError:
                if time.monotonic() > deadline:
                    self.fail(f"QEMU does not listen on {name}")
                time.sleep(0.02)

    def stop(self):
        if self.monitor:
            self.monitor.close()
        self.monitor = None
        super().stop()

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
