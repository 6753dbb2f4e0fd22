# SPDX-License-Identifier: BSD-3-Clause
"""The back ends that are compared: ours, ours with a store that does nothing, and QEMU's
storage daemon with a file in RAM and with nothing behind it."""
import os
import subprocess
import sys
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [f"{TOP}/tests/vhost-user", f"{TOP}/tests/guest"]
from backend import Backend  # noqa: E402
from machine import cache, tool  # noqa: E402

MIB = 1 << 20
# Before it sleeps it polls as long as ours does by default (host/vhost-user/options.c).
POLL_NS = 32000 if os.cpu_count() > 1 else 0
PROGRAM = "qemu-storage-daemon"


def build():
    """The folder of the build without sanitizers."""
    folder = f"{cache()}/build/bench"
    tool("build-vhost-user", folder, "--buildtype=release", "-Dtests=false")
    return folder


def version():
    """Of qemu-storage-daemon."""
    out = subprocess.run([PROGRAM, "--version"], check=True, stdout=subprocess.PIPE, text=True)
    return out.stdout.splitlines()[0]


class StorageDaemon:
    """qemu-storage-daemon with one vhost-user-blk export.  disk: of --blockdev."""

    def __init__(self, disk):
        self.folder = tempfile.TemporaryDirectory(prefix="bench-blk-")
        self.path = f"{self.folder.name}/socket"
        self.command = [
            PROGRAM, "--object", f"iothread,id=io0,poll-max-ns={POLL_NS}",
            "--blockdev", f"{disk},node-name=disk,discard=unmap",
            "--export", f"type=vhost-user-blk,id=export,node-name=disk,writable=on,iothread=io0,"
                        f"addr.type=unix,addr.path={self.path}"]
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL)
        for _ in range(500):
            if os.path.exists(self.path):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        self.process.kill()
        sys.exit(f"bench-vhost: does not start: {' '.join(self.command)}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.folder.cleanup()


class RamDisk(StorageDaemon):
    """A file in host RAM, through the page cache.  aio: threads or io_uring."""

    def __init__(self, mib, aio="threads"):
        self.file = tempfile.NamedTemporaryFile(dir="/dev/shm", prefix="bench-blk-")
        self.file.truncate(mib * MIB)
        super().__init__(f"driver=file,filename={self.file.name},cache.direct=off,aio={aio}")

    def __exit__(self, *args):
        super().__exit__(*args)
        self.file.close()


def null_disk(mib):
    """Takes everything and keeps nothing."""
    return StorageDaemon(f"driver=null-co,size={mib * MIB},read-zeroes=on")


def tmem(folder, mib, *options):
    return Backend(f"--reserved={mib}M", *options,
                   program=f"{folder}/host/vhost-user/vhost-user-tmem")


def null_tmem(folder, mib):
    """The back end on bench/vhost/null_store.c."""
    return Backend(f"--reserved={mib}M", program=f"{folder}/bench/vhost-user-tmem-null")
