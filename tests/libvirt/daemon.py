# SPDX-License-Identifier: BSD-3-Clause
"""libvirt's daemon in a scratch folder, and guests that it starts."""
import glob
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [f"{TOP}/tests/guest"]
from machine import Channel, Machine, VMError, tool  # noqa: E402,F401

# No systemd, no cgroups, no separate log daemon: as root in a container.
QEMU_CONF = """\
user = "root"
group = "root"
stdio_handler = "file"
cgroup_controllers = [ ]
namespaces = [ ]
remember_owner = 0
security_default_confined = 0
"""
LIBVIRTD_CONF = """\
auth_unix_rw = "none"
log_filters = "3:object"
log_outputs = "2:file:{log}"
"""


class Daemon:
    """With it, libvirtd runs; whatever it has left behind is found by residue()."""

    def __init__(self, prefix):
        self.prefix = prefix
        self.out = os.path.dirname(prefix)
        # Where libvirt looks for it by itself is not below its runstatedir.
        self.socket = f"mode=legacy&socket={self.out}/var/run/libvirt/libvirt-sock"
        self.process = None
        self.dir = tempfile.mkdtemp(prefix="tmem-libvirt-")
        self.log = f"{self.dir}/libvirtd.log"

    def __enter__(self):
        for name in ("run", "var"):
            shutil.rmtree(f"{self.out}/{name}", ignore_errors=True)
        for name in ("run/libvirt/qemu", "var/log/libvirt/qemu", "var/lib/libvirt/qemu",
                     "var/cache/libvirt/qemu"):
            os.makedirs(f"{self.out}/{name}", exist_ok=True)
        os.makedirs(f"{self.prefix}/etc/libvirt", exist_ok=True)
        # What an earlier run has left defined.
        shutil.rmtree(f"{self.prefix}/etc/libvirt/qemu", ignore_errors=True)
        with open(f"{self.prefix}/etc/libvirt/qemu.conf", "w", encoding="ascii") as file:
            file.write(QEMU_CONF)
        with open(f"{self.dir}/libvirtd.conf", "w", encoding="ascii") as file:
            file.write(LIBVIRTD_CONF.format(log=self.log))
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def start(self):
        with open(f"{self.dir}/stderr", "a", encoding="ascii") as stderr:
            self.process = subprocess.Popen(
                [f"{self.prefix}/sbin/libvirtd", "-f", f"{self.dir}/libvirtd.conf",
                 "-p", f"{self.dir}/pid"], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        deadline = time.monotonic() + 60
        while self.virsh("list", check=False)[0]:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise VMError(f"libvirtd does not answer:\n{self.tail()}")
            time.sleep(0.2)

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def __exit__(self, *_):
        for pid in self.qemus():
            os.kill(pid, signal.SIGKILL)
        self.stop()
        shutil.rmtree(self.dir, ignore_errors=True)

    def tail(self, lines=20):
        text = ""
        for path in (f"{self.dir}/stderr", self.log):
            if os.path.exists(path):
                with open(path, encoding="utf-8", errors="replace") as file:
                    text += "".join(file.readlines()[-lines:])
        return text

    # ------------------------------------------------------------------ virsh

    def virsh(self, *args, check=True, timeout=120):
        """Its output; with check=False its status, and all that it said."""
        done = subprocess.run(
            [f"{self.prefix}/bin/virsh", "-c", f"qemu:///system?{self.socket}", *args],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False, text=True)
        if not check:
            return done.returncode, (done.stdout + done.stderr).strip()
        if done.returncode:
            raise VMError(f"virsh {' '.join(args)}: {done.stderr.strip()}\n{self.tail(5)}")
        return done.stdout.strip()

    def refused(self, *args):
        """The one line of a command that must fail."""
        status, said = self.virsh(*args, check=False)
        lines = [line for line in said.splitlines() if line and line != "error: "]
        # virsh says first which command failed, and then why.
        reasons = [line for line in lines if not line.startswith("error: Failed to ")]
        if not status:
            raise VMError(f"virsh {' '.join(args)} is not refused: {said}")
        if len(reasons) != 1:
            raise VMError(f"virsh {' '.join(args)}: not one line: {said}")
        return reasons[0]

    def file(self, name, text):
        path = f"{self.dir}/{name}"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def stats(self, domain):
        """The group tmem of domstats: numbers, but the names."""
        found = {}
        for line in self.virsh("domstats", "--tmem", domain).splitlines():
            key, _, value = line.strip().partition("=")
            if key.startswith("tmem."):
                found[key] = int(value) if value.isdigit() else value
        return found

    # -------------------------------------------------------------- left behind

    def qemus(self):
        """Processes that have a file of ours on their command line, but the daemon."""
        found = []
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as file:
                    line = file.read()
            except OSError:
                continue
            pid = int(path.split("/")[2])
            if f"{self.out}/var/lib/libvirt/qemu/".encode() in line and pid != os.getpid():
                found.append(pid)
        return found

    def residue(self):
        """What is left of domains: sockets, state, processes."""
        left = [f"process {pid}" for pid in self.qemus()]
        for folder in ("var/lib/libvirt/qemu", "run/libvirt/qemu"):
            for root, _, files in os.walk(f"{self.out}/{folder}"):
                left += [f"{root}/{name}" for name in files
                         if not name.endswith((".pid.lock", "driver.pid", "autostarted"))]
            left += [path for path in glob.glob(f"{self.out}/{folder}/**/domain-*", recursive=True)]
        return left


class Domain(Machine):
    """A guest of tests/guest/machine.py that libvirt runs; tmem: the element's text."""

    what = "libvirt"

    def __init__(self, daemon, tmem, mem=160, kernel="6.1", shared=False, name="tmem", extra=""):
        super().__init__(kernel, mem, 1, "")
        self.daemon, self.tmem, self.shared, self.name = daemon, tmem, shared, name
        self.extra = extra

    def xml(self):
        image = self.image()
        qemu = os.environ.get("QEMU") or tool("build-qemu")
        backing = ("<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
                   if self.shared else "")
        disks = "".join(f"""
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='{os.path.realpath(f"{image}/{name}.squashfs")}'/>
      <target dev='vd{letter}' bus='virtio'/>
      <readonly/>
    </disk>""" for letter, name in (("a", "root"), ("b", "layer")))
        options = ("console=ttyS0 loglevel=5 panic=-1 random.trust_cpu=on mitigations=off "
                   "tsc=reliable net.ifnames=0 init_on_alloc=0 no5lvl no_timer_check")
        return f"""<domain type='qemu'>
  <name>{self.name}</name>
  <memory unit='MiB'>{self.mem}</memory>
  {backing}<vcpu>1</vcpu>
  {self.extra}<os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{image}/vmlinuz</kernel>
    <initrd>{image}/initrd</initrd>
    <cmdline>{options}</cmdline>
  </os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <on_reboot>destroy</on_reboot>
  <devices>
    <emulator>{qemu}</emulator>
    <controller type='usb' model='none'/>
    <controller type='pci' model='pcie-root'/>
    <controller type='pci' model='pcie-root-port'/>
    <controller type='pci' model='pcie-root-port'/>{disks}
    <serial type='file'><source path='{self.dir}/console'/></serial>
    <channel type='unix'>
      <source mode='bind' path='{self.dir}/agent'/>
      <target type='virtio' name='tmem.agent'/>
    </channel>
    <memballoon model='none'/>
    {self.tmem}
  </devices>
</domain>
"""

    def start_machine(self, deadline):
        self.daemon.virsh("define", self.daemon.file(f"{self.name}.xml", self.xml()))
        self.daemon.virsh("start", self.name)

    def wait_boot(self, deadline):
        self.connect(deadline)
        super().wait_boot(deadline)

    def connect(self, deadline):
        while True:
            try:
                self.channel = Channel.connect(f"{self.dir}/agent", 30)
                return
            except OSError:
                if time.monotonic() > deadline:
                    self.fail("QEMU does not listen for the agent")
                time.sleep(0.05)

    def resume(self, timeout=120):
        """After a restore: the guest has seen its agent's channel close, and starts it again.  A
        connection that was there before it looked is none that it has seen: another one then."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self.wait_boot(min(deadline, time.monotonic() + 8))
                return
            except VMError:
                if time.monotonic() > deadline:
                    raise
                self.channel.close()
                time.sleep(2)

    def state(self):
        return self.daemon.virsh("domstate", self.name)

    def stats(self):
        return self.daemon.stats(self.name)

    def stop(self):
        self.daemon.virsh("destroy", self.name, check=False)
        self.daemon.virsh("undefine", self.name, check=False)
        super().stop()
