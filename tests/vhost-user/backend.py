# SPDX-License-Identifier: BSD-3-Clause
"""What tests/vhost-user/test_* share: a back end, a front end for messages, and TAP."""
import array
import json
import mmap
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from checks import check, finish, report  # noqa: E402,F401 pylint: disable=unused-import,wrong-import-position

PROGRAM = sys.argv[1] if len(sys.argv) > 1 else None

(GET_FEATURES, SET_FEATURES, SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_LOG_FD,
 SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_BASE, GET_VRING_BASE, SET_VRING_KICK, SET_VRING_CALL,
 SET_VRING_ERR, GET_PROTOCOL_FEATURES, SET_PROTOCOL_FEATURES, GET_QUEUE_NUM,
 SET_VRING_ENABLE) = range(1, 19)
SET_BACKEND_REQ_FD, GET_CONFIG, SET_CONFIG = 21, 24, 25
POSTCOPY_ADVISE, GET_INFLIGHT_FD, SET_INFLIGHT_FD = 28, 31, 32
GET_MAX_MEM_SLOTS, ADD_MEM_REG, REM_MEM_REG = 36, 37, 38

NEED_REPLY, REPLY = 8, 4
VERSION_1 = 1 << 32
PROTOCOL_FEATURES = 1 << 30
MIB = 1 << 20


class Backend:
    """A vhost-user-tmem with a socket of its own."""

    def __init__(self, *options, sockets=1, program=PROGRAM):
        self.folder = tempfile.TemporaryDirectory(prefix="vhost-user-tmem-")
        self.paths = [f"{self.folder.name}/{i}" for i in range(sockets)]
        self.stats_path = f"{self.folder.name}/stats"
        self.log = open(f"{self.folder.name}/log", "w+", encoding="utf-8")
        sandbox = [] if any(o.startswith("--sandbox") for o in options) else \
            [f"--sandbox={os.environ.get('TMEM_SANDBOX', 'on')}"]
        self.command = [program, *(f"--socket-path={path}" for path in self.paths),
                        *(["--shared"] if sockets > 1 else []),
                        f"--stats-path={self.stats_path}", *sandbox, *options]
        self.start()

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=self.log)
        for _ in range(1000):
            if os.path.exists(self.stats_path):
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        raise RuntimeError(f"the back end does not start: {self.said()}")

    @property
    def path(self):
        return self.paths[0]

    def said(self):
        """All lines so far."""
        self.log.flush()
        with open(self.log.name, encoding="utf-8") as file:
            return file.read()

    def stats(self):
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(self.stats_path)
            return json.loads(b"".join(iter(lambda: peer.recv(65536), b"")))

    def vm(self, i=0):
        return self.stats()["vms"][i]

    def wait(self, what, i=0, seconds=20):
        """Until what(statistics of VM i) is true."""
        end = time.monotonic() + seconds
        while not what(self.vm(i)):
            if time.monotonic() > end:
                raise TimeoutError(f"never came true: {self.vm(i)}")
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def kill(self):
        """As a crash does it: its sockets are left behind."""
        self.process.kill()
        self.process.wait()
        os.unlink(self.stats_path)

    def stop(self):
        """Ends it as systemd does.  What is wrong with that, or None."""
        self.process.terminate()
        try:
            status = self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()
            return "does not end at SIGTERM"
        if status:
            return f"exit status {status}\n{self.said()}"
        left = [path for path in [*self.paths, self.stats_path] if os.path.exists(path)]
        return f"leaves {left}" if left else None


class KeptBackend(Backend):
    """One with --keep: two processes, of which the child serves."""

    def __init__(self, *options, **kw):
        super().__init__("--keep", *options, **kw)

    def worker(self):
        """The process that serves, when there is one."""
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                      encoding="ascii") as file:
                pids = file.read().split()
            if pids:
                return int(pids[0])
            time.sleep(0.002)
        raise TimeoutError("no process serves any more")

    def kill_worker(self):
        os.kill(self.worker(), signal.SIGKILL)

    def wait_started(self, seconds=20):
        """Until one that serves says so."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.stats()
                return
            except OSError:
                time.sleep(0.01)
        raise TimeoutError(f"nobody serves: {self.said()}")

    def __exit__(self, *what):
        if self.process.poll() is None:
            worker = self.worker()
            super().__exit__(*what)
            os.kill(worker, signal.SIGKILL)


class Peer:
    """A front end that can say anything."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(20)
        self.socket.connect(path)

    def close(self):
        self.socket.close()

    def raw(self, data, fds=()):
        self.socket.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS,
                                      array.array("i", fds))] if fds else [])

    def say(self, request, payload=b"", fds=(), flags=1, size=None):
        """A message, which the back end may not like."""
        size = len(payload) if size is None else size
        self.raw(struct.pack("<III", request, flags, size) + payload, fds)

    def answer(self):
        """The payload of the next answer."""
        header = self.read(12)
        return self.read(struct.unpack("<III", header)[2])

    def read(self, size):
        data = b""
        while len(data) < size:
            more = self.socket.recv(size - len(data))
            if not more:
                raise EOFError("the back end has closed the connection")
            data += more
        return data

    def ask(self, request, payload=b""):
        self.say(request, payload)
        return self.answer()

    def ask_u64(self, request):
        return struct.unpack("<Q", self.ask(request))[0]

    def is_closed(self, seconds=15):
        """The back end has closed the connection; answers are passed over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if select.select([self.socket], [], [], end - time.monotonic())[0]:
                try:
                    if not self.socket.recv(4096):
                        return True
                except ConnectionError:
                    return True
        return False

    def set_up(self, memory, features=None):
        """What a VMM does first."""
        offered = self.ask_u64(GET_FEATURES)
        protocol = self.ask_u64(GET_PROTOCOL_FEATURES)
        self.say(SET_PROTOCOL_FEATURES, struct.pack("<Q", protocol))
        self.say(SET_OWNER)
        self.say(SET_FEATURES, struct.pack("<Q", features if features is not None else
                                           offered & ~(1 << 28 | 1 << 29)))
        if memory:
            self.say(SET_MEM_TABLE, memory.table(), [memory.fd])

    def state(self, request, index, value):
        self.say(request, struct.pack("<II", index, value))

    def start_ring(self, memory, index=0, num=64, enable=True):
        """Rings at the memory's begin; returns kick, call and error descriptors."""
        fds = [os.eventfd(0, os.EFD_NONBLOCK) for _ in range(3)]
        base = memory.qva + index * 65536
        self.state(SET_VRING_NUM, index, num)
        self.state(SET_VRING_BASE, index, 0)
        self.say(SET_VRING_ADDR, struct.pack("<IIQQQQ", index, 0, base, base + 32768,
                                             base + 49152, 0))
        for request, fd in zip((SET_VRING_KICK, SET_VRING_CALL, SET_VRING_ERR), fds):
            self.say(request, struct.pack("<Q", index), [fd])
        if enable:
            self.state(SET_VRING_ENABLE, index, 1)
        self.ask_u64(GET_QUEUE_NUM)  # all of it was read
        return fds


class Memory:
    """Memory to share."""

    def __init__(self, size=2 * MIB, gpa=1 << 32, qva=1 << 44):
        self.size, self.gpa, self.qva = size, gpa, qva
        self.fd = os.memfd_create("memory")
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)

    def region(self, **other):
        at = {"gpa": self.gpa, "size": self.size, "qva": self.qva, "offset": 0, **other}
        return struct.pack("<QQQQ", at["gpa"], at["size"], at["qva"], at["offset"])

    def table(self, *regions, num=None):
        regions = regions or [self.region()]
        return struct.pack("<II", len(regions) if num is None else num, 0) + b"".join(regions)

    def write(self, offset, data):
        self.map[offset:offset + len(data)] = data

    def read(self, offset, size):
        return bytes(self.map[offset:offset + size])


class Ring:
    """A ring of a peer, in its memory: one chain at a time.  queue: 1 is the bulk queue."""

    DATA = 1 << 20

    def __init__(self, peer, memory, num=64, queue=0):
        self.peer, self.memory, self.num = peer, memory, num
        self.index = 0
        self.DESC = queue * 65536
        self.USED, self.AVAIL = self.DESC + 32768, self.DESC + 49152
        memory.write(self.DESC, bytes(65536))
        self.kick, self.call, self.error = peer.start_ring(memory, index=queue, num=num)

    def offer(self, *segs):
        """Makes a chain available: (guest address, length, flags but NEXT) each."""
        for i, (address, length, flags) in enumerate(segs):
            more = i + 1 < len(segs)
            self.memory.write(self.DESC + 16 * i, struct.pack(
                "<QIHH", address, length, flags | more, i + 1 if more else 0))
        self.memory.write(self.AVAIL + 4 + 2 * (self.index % self.num), struct.pack("<H", 0))
        self.index += 1
        self.memory.write(self.AVAIL + 2, struct.pack("<H", self.index & 0xffff))
        os.eventfd_write(self.kick, 1)

    def used(self):
        return struct.unpack("<H", self.memory.read(self.USED + 2, 2))[0]

    def wait(self, seconds=20):
        """Until the chain was used; its used length."""
        end = time.monotonic() + seconds
        while self.used() != self.index & 0xffff:
            if select.select([self.error], [], [], 0)[0]:
                raise BrokenPipeError("the device needs a reset")
            if time.monotonic() > end:
                raise TimeoutError("the chain is not used")
            time.sleep(0.0005)
        slot = self.USED + 4 + 8 * ((self.index - 1) % self.num)
        return struct.unpack("<II", self.memory.read(slot, 8))[1]

    def request(self, op, pool=0, index=0, count=0, data=b"", reply=0, flags=0):
        """A request; its status and what follows the response."""
        header = struct.pack("<HHI24sQQ16s", op, flags, pool, b"", index, count, b"")
        self.memory.write(self.DATA, header + data)
        out = len(header) + len(data)
        at = self.memory.gpa + self.DATA
        self.offer((at, out, 0), (at + out, 16 + reply, 2))
        self.wait()
        answer = self.memory.read(self.DATA + out, 16 + reply)
        return struct.unpack("<H", answer[:2])[0], answer[16:]
