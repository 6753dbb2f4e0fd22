# SPDX-License-Identifier: BSD-3-Clause
"""What tests/broker/test_* share: a broker, peers that say anything, stores, and TAP."""
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
from checks import check, finish, report  # noqa: E402,F401 pylint: disable=unused-import,wrong-import-position

PROGRAM = sys.argv[1] if len(sys.argv) > 1 else None
STORE = sys.argv[2] if len(sys.argv) > 2 else None
MIB = 1 << 20
VERSION = 1
NAME, TEXT = 64, 256

HELLO, REPORT, WANT, RELEASED, TERMS = 1, 2, 3, 4, 5
WELCOME, REFUSED, GRANT, RECALL, PRESSURE, AGREED = 16, 17, 18, 19, 20, 21
STATUS, LIMITS, FREEZE, SHRINK = 32, 33, 34, 35
HOST, STORE_INFO, DONE = 48, 49, 50
WAITING, ADMITTED, ABSENT = 0, 1, 2

# Members of each message, as in host/broker/protocol.h; then the text at its end.
FIELDS = {
    HELLO: ("flags reserved max weight leased held fixed generation".split(), 4, NAME),
    REPORT: ("held fixed reclaimable persistent_raw ephemeral_raw stored puts gets misses refused "
             "evictions pressure refaults".split(), 3, 0),
    WANT: (["bytes"], 0, 0),
    RELEASED: (["serial", "leased"], 0, 0),
    TERMS: ("reserved max weight number".split(), 4, 0),
    WELCOME: ("serial leased generation max chunk report_ms".split(), 2, 0),
    REFUSED: ([], 0, TEXT),
    GRANT: (["serial", "leased"], 0, 0),
    RECALL: (["serial", "leased", "deadline_ms"], 0, 0),
    PRESSURE: (["level"], 0, 0),
    AGREED: ("reserved max number".split(), 2, TEXT),
    STATUS: ([], 0, 0),
    LIMITS: (["max", "weight"], 0, NAME),
    FREEZE: (["frozen"], 0, NAME),
    SHRINK: (["bytes"], 0, NAME),
    HOST: ("generation limit budget leased reserved held available headroom pressure grace_ms "
           "stores peers grants recalls overdue refused lies bad throttled backoff".split(), 7, 0),
    STORE_INFO: ("pid uid state frozen reserved max weight benefit leased target wanted evidence "
                 "held fixed reclaimable persistent_raw ephemeral_raw stored puts gets misses "
                 "refused evictions pressure refaults".split(), 7, NAME),
    DONE: ([], 0, 0),
}


def pack(kind, text="", **values):
    """A message's bytes."""
    fields, spare, size = FIELDS[kind]
    body = struct.pack(f"<{len(fields) + spare}Q", *(values.pop(f, 0) for f in fields),
                       *[0] * spare)
    assert not values, values
    body += struct.pack(f"{size}s", text.encode()) if size else b""
    return struct.pack("<IHH", 8 + len(body), VERSION, kind) + body


def unpack(data):
    """A message's type and its members; text is its name or its line."""
    size, version, kind = struct.unpack_from("<IHH", data)
    fields, spare, text = FIELDS[kind]
    assert size == len(data) and version == VERSION, data
    values = dict(zip(fields, struct.unpack_from(f"<{len(fields) + spare}Q", data, 8)))
    if text:
        values["text"] = data[-text:].split(b"\0")[0].decode()
    return kind, values


def eventually(what, seconds=30):
    """Until what() is true, or what it was at last."""
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"never came true: {what}")
        time.sleep(0.02)


class Peer:
    """A connection that can say anything."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(path)   # waits while the backlog is full
        self.socket.settimeout(30)

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def raw(self, data):
        self.socket.send(data)

    def say(self, kind, text="", **values):
        self.raw(pack(kind, text, **values))

    def hear(self, seconds=30):
        """The next message; None: the broker has closed."""
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(1024)
        except ConnectionError:
            return None
        return unpack(data) if data else None

    def hears_nothing(self, seconds=0.3):
        try:
            return f"hears {self.hear(seconds)}"
        except TimeoutError:
            return None

    def is_closed(self, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if self.hear(max(0.01, end - time.monotonic())) is None:
                    return True
            except TimeoutError:
                return False
        return False

    def ask(self, kind, text="", **values):
        """An operator's request: DONE, or the line of REFUSED."""
        self.say(kind, text, **values)
        answer, values = self.hear()
        return None if answer == DONE else values["text"]


class FakeStore(Peer):
    """A store without pages, which says what it is told to."""

    def __init__(self, broker, name, reserved=MIB, wait=True, **more):
        super().__init__(broker.socket)
        self.name, self.reserved = name, reserved
        self.serial, self.leased, self.target, self.pressure = 0, 0, 0, 0
        self.refused = None
        self.say(HELLO, name, **{"reserved": reserved, "leased": reserved, **more})
        if wait:
            self.wait_for(WELCOME)

    def hear(self, seconds=30):
        message = super().hear(seconds)
        if message is None:
            return None
        kind, values = message
        if kind in (WELCOME, GRANT):
            self.leased = self.target = values["leased"]
        elif kind == RECALL:
            self.target = values["leased"]
        elif kind == REFUSED:
            self.refused = values["text"]
        elif kind == PRESSURE:
            self.pressure = values["level"]
        self.serial = values.get("serial", self.serial)
        return message

    def wait_for(self, *kinds, seconds=30):
        """The next message of these types."""
        end = time.monotonic() + seconds
        while True:
            message = self.hear(max(0.01, end - time.monotonic()))
            if message is None:
                raise EOFError(f"{self.name}: the broker has closed: {self.refused}")
            if message[0] in kinds:
                return message[1]

    def want(self, size):
        self.say(WANT, bytes=size)

    def report(self, held, fixed=0, **more):
        self.say(REPORT, held=held, fixed=fixed, **more)

    def release(self, leased=None):
        """What was recalled, or so much."""
        self.leased = self.target if leased is None else leased
        self.say(RELEASED, serial=self.serial, leased=self.leased)


class Broker:
    """A tmem-broker with files of its own that stand for those of the kernel."""

    def __init__(self, *options, limit="1G", chunk="1M", grace=1000, default="", more="",
                 host="", real=False, start=True, program=None, headroom=0, report=20,
                 stores="process-stores=1024\n"):
        self.folder = tempfile.TemporaryDirectory(prefix="tmem-broker-")
        at = self.folder.name
        self.socket, self.config_path = f"{at}/socket", f"{at}/config"
        self.log = open(f"{at}/log", "w+", encoding="utf-8")
        os.makedirs(f"{at}/proc")
        self.available(100 << 30)
        self.stalls(0)
        fake = "" if real else f"meminfo={at}/meminfo\npsi={at}/psi\nproc={at}/proc\n" \
            f"cgroup={at}/cgroup\n"
        self.head = f"chunk={chunk}\ngrace-ms={grace}\nreport-ms={report}\n{stores}" \
            f"headroom={headroom}\n{fake}{host}"
        self.tail = f"[default]\n{default}\n{more}\n"
        self.configure(limit)
        self.command = [program or PROGRAM, f"--config={self.config_path}", f"--socket={self.socket}",
                        *options]
        if start:
            self.start()

    def configure(self, limit, tail=None):
        tail = self.tail if tail is None else tail
        with open(self.config_path, "w", encoding="utf-8") as file:
            file.write(f"[host]\nlimit={limit}\n{self.head}{tail}")

    def available(self, size):
        with open(f"{self.folder.name}/meminfo.new", "w", encoding="ascii") as file:
            file.write(f"MemTotal: 999999999 kB\nMemAvailable: {size >> 10} kB\n")
        os.rename(file.name, f"{self.folder.name}/meminfo")

    def stalls(self, average):
        with open(f"{self.folder.name}/psi.new", "w", encoding="ascii") as file:
            file.write(f"some avg10={average:.2f} avg60=0.00 avg300=0.00 total=0\n")
        os.rename(file.name, f"{self.folder.name}/psi")

    def process_has(self, size, pid=None):
        """What /proc says that a process has."""
        folder = f"{self.folder.name}/proc/{pid or os.getpid()}"
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/statm", "w", encoding="ascii") as file:
            file.write(f"999999 {size // 4096} 0 0 0 0 0\n")

    def cgroup_has(self, path, **files):
        """A memory cgroup (v2) of our process, or one around it; files by name, dots as "_"."""
        folder = f"{self.folder.name}/cgroup{path}"
        os.makedirs(folder, exist_ok=True)
        for name, value in files.items():
            with open(f"{folder}/{name.replace('_', '.', 1)}", "w", encoding="ascii") as file:
                file.write(f"{value}\n")

    def process_in(self, path):
        """The cgroup that /proc says our process is in."""
        with open(f"{self.folder.name}/proc/{os.getpid()}/cgroup", "w", encoding="ascii") as file:
            file.write(f"0::{path}\n")

    def start(self):
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stderr=self.log)
        for _ in range(2000):
            if self.process.poll() is not None:
                break
            try:
                with Peer(self.socket):
                    return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"the broker does not start: {self.said()}")

    def said(self):
        """All lines so far."""
        self.log.flush()
        with open(self.log.name, encoding="utf-8") as file:
            return file.read()

    def says(self, *words):
        """Until a line has these words."""
        def told():
            return any(all(word in line for word in words) for line in self.said().splitlines())
        try:
            eventually(told)
        except TimeoutError:
            return f"no line has {words}:\n{self.said()}"
        return None

    def status(self):
        """The host's numbers, and a dict of stores by name."""
        with Peer(self.socket) as peer:
            return status_of(peer)

    def host(self):
        return self.status()[0]

    def store(self, name):
        return self.status()[1].get(name)

    def cpu(self):
        """Seconds of CPU time so far."""
        with open(f"/proc/{self.process.pid}/stat", encoding="ascii") as file:
            user, system = file.read().rsplit(")", 1)[1].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def hang_up(self):
        self.process.send_signal(signal.SIGHUP)

    def stop(self):
        """Ends it as systemd does.  What is wrong with that, or None."""
        self.process.terminate()
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return "does not end at SIGTERM"
        if status:
            return f"exit status {status}\n{self.said()}"
        return "leaves its socket" if os.path.exists(self.socket) else None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.kill()
        self.log.close()


def status_of(peer):
    """STATUS on a connection."""
    peer.say(STATUS)
    host, stores = None, {}
    while True:
        message = peer.hear()
        if message is None:
            raise EOFError("the broker has closed")
        kind, values = message
        if kind == HOST:
            host = values
        elif kind == STORE_INFO:
            stores[values["text"]] = values
        else:
            return host, stores


class RealStore:
    """A process with a libtmem store and a lease: tests/broker/lease-store."""

    def __init__(self, broker, name, reserved=MIB, most=0, wait=True, random=100):
        self.name, self.reserved = name, reserved
        self.log = open(f"{broker.folder.name}/store-{name}", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [STORE, broker.socket, name, str(reserved), str(most), str(random)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.answers = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        if wait:
            self.answer()

    def read(self):
        for line in self.process.stdout:
            self.answers.put(json.loads(line))
        self.answers.put(None)

    def start(self, command):
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def answer(self, seconds=120):
        answer = self.answers.get(timeout=seconds)
        if answer is None:
            raise EOFError(f"{self.name} has ended: {self.said()}")
        return answer

    def do(self, command, seconds=120):
        self.start(command)
        return self.answer(seconds)

    def memory(self):
        """Bytes of its memfds, as the kernel counts them; 0 where it has ended."""
        try:
            with open(f"/proc/{self.process.pid}/status", encoding="ascii") as file:
                return sum(int(line.split()[1]) << 10 for line in file
                           if line.startswith("RssShmem:"))
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def said(self):
        with open(self.log.name, encoding="utf-8") as file:
            return file.read()

    def end(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()
