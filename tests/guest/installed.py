# SPDX-License-Identifier: BSD-3-Clause
"""A guest that is a host: Debian with systemd as its init, and our programs and units as
"meson install" puts them there.  test_units.py uses it.

    with Installed("6.1") as host:
        host.run("systemctl start tmem-broker")
"""
import json
import os
import shlex
import shutil
import subprocess
import sys

from machine import TOP, cache, tool
from vm import READ_ONLY, VM

sys.path.insert(0, f"{TOP}/tests/broker")
import broker  # noqa: E402

# Runs what the host sends, as tests/guest/image/init has it; what systemd starts before any
# service is there then.
AGENT = """[Service]
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin HOME=/root LC_ALL=C
ExecStartPre=/bin/sh -c 'until [ -e /dev/virtio-ports/tmem.agent ]; do sleep 0.1; done'
ExecStart=/lib/modules/bin/agent /dev/virtio-ports/tmem.agent
TimeoutStartSec=infinity
"""
# A system call that a unit does not allow is an error, which the program may pass over.  Here it
# is the process's end.
STRICT = "[Service]\nSystemCallErrorNumber=kill\n"
UNITS = ["tmem-broker.service", "vhost-user-tmem@.service"]
# What a machine has besides, and our units do not need: it would be half of the time to boot.
MASKED = """dev-hugepages.mount dev-mqueue.mount kmod-static-nodes.service modprobe@.service
    proc-sys-fs-binfmt_misc.automount sys-kernel-debug.mount sys-kernel-tracing.mount
    systemd-ask-password-console.path systemd-binfmt.service systemd-journal-flush.service
    systemd-modules-load.service systemd-pstore.service systemd-random-seed.service
    systemd-remount-fs.service systemd-sysctl.service systemd-sysusers.service
    systemd-tmpfiles-setup-dev.service systemd-update-utmp.service timers.target""".split()
# On a busy machine a guest without KVM is no reason to give up.
PATIENT = "[Manager]\nDefaultTimeoutStartSec=infinity\nDefaultTimeoutStopSec=infinity\n"
SOCKET = "/run/tmem-broker/socket"

# Says something to a SOCK_SEQPACKET socket, and prints all answers, up to one of a type that
# ends them; in hexadecimal.  Perl is what any Debian has.
ASK = """use Socket; my ($heard, $path, $said, @last) = ("", @ARGV);
socket(S, AF_UNIX, SOCK_SEQPACKET, 0) && connect(S, sockaddr_un($path)) or die "$path: $!\\n";
send(S, pack("H*", $said), 0);
while (defined recv(S, $heard, 4096, 0) && length $heard) {
    print unpack("H*", $heard), "\\n"; my $type = unpack("x6 v", $heard);
    last if grep { $_ == $type } @last; }"""
READ = "print IO::Socket::UNIX->new(shift)->getlines"


class Operator:
    """What broker.status_of() takes for a connection, from within the guest."""

    def __init__(self, host):
        self.host, self.heard = host, []

    def say(self, kind, text="", **values):
        said = broker.pack(kind, text, **values).hex()
        out = self.host.run(f"perl -e {shlex.quote(ASK)} {SOCKET} {said} "
                            f"{broker.DONE} {broker.REFUSED}")
        self.heard = [broker.unpack(bytes.fromhex(line)) for line in out.split()]

    def hear(self):
        return self.heard.pop(0) if self.heard else None


class Installed(VM):
    """files: by path, what else is there."""

    def __init__(self, kernel, files=None, **kw):
        super().__init__(kernel, mem=384, smp=2, tmem=None, append=(
            "tmem.init=systemd systemd.unit=tmem-agent.service systemd.show_status=no"), **kw)
        self.files = files or {}

    # Starting a program under systemd's restrictions takes a second without KVM, and more beside
    # other tests.
    def start(self, timeout=900):
        return super().start(timeout)

    def run(self, command, timeout=300, check=True):
        return super().run(command, timeout, check)

    def wait_for(self, what, condition, timeout=300):
        super().wait_for(what, condition, timeout)

    def start_machine(self, deadline):
        disk = f"{self.dir}/installed.squashfs"
        self.install(f"{self.dir}/installed")
        subprocess.run(["mksquashfs", f"{self.dir}/installed", disk, "-noI", "-noD", "-noF", "-noX",
                        "-all-root", "-no-progress", "-quiet"], check=True)
        shutil.rmtree(f"{self.dir}/installed")
        self.args += ["-drive", f"if=none,id=installed,{READ_ONLY},file={disk}",
                      "-device", "virtio-blk-pci,drive=installed"]
        super().start_machine(deadline)

    def install(self, root):
        folder = f"{cache()}/build/vhost-user-default"
        tool("build-vhost-user", folder)
        subprocess.run(["meson", "install", "--no-rebuild", "-C", folder, "--quiet"], check=True,
                       env={**os.environ, "DESTDIR": root})
        for program in ("tests/broker/lease-store", "tests/vhost-user/survivor"):
            shutil.copy(f"{folder}/{program}", f"{root}/usr/local/bin")
        units = "etc/systemd/system"
        files = {f"{units}/tmem-agent.service": AGENT,
                 # Without it systemd would set up what is new on a machine.
                 "etc/machine-id": "0123456789abcdef0123456789abcdef\n",
                 "etc/systemd/system.conf.d/patient.conf": PATIENT,
                 **{f"{units}/{unit}.d/strict.conf": STRICT for unit in UNITS}, **self.files}
        for path, text in files.items():
            os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
            with open(f"{root}/{path}", "w", encoding="utf-8") as file:
                file.write(text)
        for unit in MASKED:
            os.symlink("/dev/null", f"{root}/{units}/{unit}")

    # ------------------------------------------------------------- systemd

    def show(self, unit, what):
        """A property of a unit."""
        return self.run(f"systemctl show --value -p {what} '{unit}'").strip()

    def wait_state(self, unit, state):
        self.wait_for(f"{unit} is {state}", lambda: self.show(unit, "ActiveState") == state)

    def pid(self, unit):
        return int(self.show(unit, "MainPID"))

    def killed(self, unit):
        """Kills its process, and waits for the next one."""
        before = self.pid(unit)
        self.run(f"kill -KILL {before}")
        self.wait_for(f"{unit} is started again",
                      lambda: self.pid(unit) not in (0, before) and
                      self.show(unit, "ActiveState") == "active")

    def journal(self, unit):
        """What it said, and systemd about it."""
        return self.run(f"journalctl --no-pager -o cat -u '{unit}'")

    def allowed(self, unit):
        """Nothing was forbidden to it that it wanted."""
        wrong = [line for line in self.journal(unit).splitlines() if any(word in line for word in (
            "status=31/SYS", "not permitted", "ermission denied", "ead-only file", "Failed to"))]
        assert not wrong, wrong

    # ------------------------------------------------------------ processes

    def status_of(self, pid):
        """/proc/PID/status as a dictionary."""
        return dict(line.split(":\t", 1) for line in
                    self.run(f"cat /proc/{pid}/status").splitlines())

    def cgroup(self, unit, file, parents=False):
        """A file of its cgroup; with @parents the same file of all cgroups around it, too."""
        path = self.show(unit, "ControlGroup").strip("/").split("/")
        paths = ["/".join(path[:i]) for i in range(1 if parents else len(path), len(path) + 1)]
        found = [self.read(shlex.quote(f"/sys/fs/cgroup/{p}/{file}")) for p in paths]
        return found if parents else found[0]

    def store(self, name):
        """What the broker knows of a store, or None."""
        return broker.status_of(Operator(self))[1].get(name)

    def limit(self):
        """The limit that the broker has."""
        return broker.status_of(Operator(self))[0]["limit"]

    def wait_admitted(self, name):
        def admitted():
            # It has just been started, and may not listen yet.
            return not self.run(f"test -S {SOCKET}", check=False)[0] and \
                (self.store(name) or {}).get("state") == broker.ADMITTED
        self.wait_for(f"{name} is admitted", admitted)

    def json_of(self, path):
        """What a socket has to say to who connects."""
        return json.loads(self.run(f"perl -MIO::Socket::UNIX -e {shlex.quote(READ)} {path}"))
