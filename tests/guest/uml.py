# SPDX-License-Identifier: BSD-3-Clause
"""A guest that is a process: User Mode Linux (scripts/uml-kernel), on vhost-user devices.

    with UML(kernel="uml-7", mem=128, sockets=[back.path]) as vm:
        vm.run("swapon /dev/tmem0")
"""
import base64
import contextlib
import os
import signal
import socket
import subprocess
import tempfile

from machine import Channel, Machine, VMError

TMEM_ID = 63


class UML(Machine):
    """kernel: "uml-7" or "uml-5.10"; mem in MiB; sockets: one virtio-tmem device
    each; devices: other (socket, virtio id); append: more of the kernel's command line."""

    what = "User Mode Linux"

    def __init__(self, kernel="uml-7", mem=128, smp=1, sockets=(), devices=(), append=""):
        super().__init__(kernel, mem, smp, append)
        self.devices = [(path, TMEM_ID) for path in sockets] + list(devices)

    def command(self, agent):
        image = self.image()
        # "c": without the lock that would keep other guests out.
        command = [
            f"{image}/vmlinuz", f"mem={self.mem}M", f"initrd={image}/initrd",
            f"ubd0rc={os.path.realpath(image + '/root.squashfs')}",
            f"ubd1rc={os.path.realpath(image + '/layer.squashfs')}",
            "con=null", "con0=null,fd:1", "ssl=null", f"ssl0=fd:{agent}",
            "tmem.disk=ubd", "tmem.agent=ttyS0", "loglevel=5", "panic=-1",
        ]
        if self.kernel != "uml-5.10":
            command.append("seccomp=on")
        if self.smp > 1:
            command.append(f"ncpus={self.smp}")
        command += [f"virtio_uml.device={path}:{number}" for path, number in self.devices]
        return command + self.append.split()

    def start_machine(self, deadline):
        ours, its = socket.socketpair()
        with open(f"{self.dir}/console", "w") as console, open(f"{self.dir}/log", "w") as log:
            # A session of its own: the guest's processes are processes here, too.
            self.process = subprocess.Popen(
                self.command(its.fileno()), stdin=subprocess.DEVNULL, stdout=console, stderr=log,
                pass_fds=[its.fileno()], start_new_session=True,
                # Where its memory is, and the folder of its monitor.
                env={**os.environ, "TMPDIR": "/dev/shm", "HOME": self.dir})
        its.close()
        self.channel = Channel(ours)

    def kill(self):
        """At once, with its processes."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()

    def save_coverage(self, folder):
        """What the driver's lines were executed (scripts/coverage): of a guest that still runs."""
        if self.process.poll() is not None or not self.channel:
            return
        out = self.run("mountpoint -q /sys/kernel/debug || mount -t debugfs none /sys/kernel/debug;"
                       "for i in $(find /sys/kernel/debug/gcov -name '*tmem*.gcda'); do "
                       'echo "${i##*/}" "$(base64 -w 0 "$i")"; done')
        folder = tempfile.mkdtemp(dir=folder)
        for name, data in (line.split() for line in out.splitlines()):
            with open(f"{folder}/{name}", "wb") as file:
                file.write(base64.b64decode(data))

    def stop(self):
        if self.process:
            if self.kernel == "uml-gcov" and "TMEM_GCOV" in os.environ:
                with contextlib.suppress(VMError):  # one that hangs has been judged by its test
                    self.save_coverage(os.environ["TMEM_GCOV"])
            self.kill()
        super().stop()
