# SPDX-License-Identifier: BSD-3-Clause
"""Our units under a real systemd, Debian 12's, in a guest that is their host."""
import re

from installed import SOCKET, Installed
from lab import equal, on

CONFIG = """[host]
limit = {limit}
headroom = 16M
chunk = 1M

[default]
"""
BROKER = "tmem-broker.service"
BACK_END = "vhost-user-tmem@vm1.service"
# As somebody who may run VMs, and as somebody who may not.
VMM = "setpriv --reuid=nobody --regid=kvm --clear-groups"
NOBODY = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
MIB = 1 << 20


def installed(kernel, **more):
    return Installed(kernel, files={"etc/tmem-broker.conf": CONFIG.format(limit="256M"), **more})


class Store:
    """tests/broker/lease-store, in the guest: a store that is a client of the broker's."""

    def __init__(self, host, name):
        self.host, self.file, self.lines = host, f"/run/{name}", 0
        # Open for reading and writing, so that it does not end with who writes to it.
        host.run(f"mkfifo {self.file}; {VMM} lease-store {SOCKET} {name} {8 * MIB} "
                 f"<>{self.file} >{self.file}.said 2>&1 &")
        self.answer("open")

    def answer(self, word):
        self.lines += 1
        self.host.wait_for(f"an answer of {self.file}",
                           lambda: len(self.said().splitlines()) >= self.lines)
        line = self.said().splitlines()[-1]
        assert word in line, self.said()
        return line

    def said(self):
        return self.host.run(f"grep '^{{' {self.file}.said || :")

    def do(self, command, word):
        self.host.run(f"echo {command} >{self.file}")
        return self.answer(word)


def restricted(host, pid):
    """As little as the unit says may its process do."""
    status = host.status_of(pid)
    equal((status["NoNewPrivs"], status["Seccomp"]), ("1", "2"), "restrictions")
    networks = host.run(f"readlink /proc/{pid}/ns/net /proc/1/ns/net").split()
    assert networks[0] != networks[1], "it sees the host's network"
    return status


@on("6.1")
def test_broker(kernel):
    """It starts, is reloaded, killed, stopped; and stores go on."""
    with installed(kernel) as host:
        host.run("tmem-broker --check --config=/usr/local/share/doc/tmem-broker/tmem-broker.conf")
        host.run(f"systemctl enable --now {BROKER} 2>&1")
        host.wait_for("its socket", lambda: not host.run(f"test -S {SOCKET}", check=False)[0])
        status = restricted(host, host.pid(BROKER))
        equal(status["Uid"].split()[0], "0", "user")
        # chown, dac_read_search, sys_resource
        equal(int(status["CapEff"], 16), 1 << 0 | 1 << 2 | 1 << 24, "capabilities")
        equal(host.read(f"/proc/{host.pid(BROKER)}/oom_score_adj"), "-900", "oom_score_adj")
        equal(host.cgroup(BROKER, "memory.max"), str(64 * MIB), "memory.max")
        equal(host.cgroup(BROKER, "memory.swap.max"), "0", "memory.swap.max")
        # What a cgroup around it does not have it has not either.
        equal(min(map(int, host.cgroup(BROKER, "memory.min", parents=True))), 8 * MIB,
              "memory.min")
        equal(host.run(f"stat -c '%a %U %G' /run/tmem-broker {SOCKET}").splitlines(),
              ["755 root root", "660 root kvm"], "modes")
        assert "/proc/pressure/memory" in host.run(f"ls -l /proc/{host.pid(BROKER)}/fd"), \
            "it does not wait for memory pressure"

        store = Store(host, "one")
        assert '"refused": 0' in store.do("put 1000", "refused")
        host.wait_admitted("one")
        # It goes on without a lease, and ends with its input.
        said = host.run(f"{NOBODY} lease-store {SOCKET} two 0 2>&1")
        assert "Permission denied" in said, said

        host.run(f"echo '{CONFIG.format(limit='512M')}' >/etc/tmem-broker.conf; "
                 f"systemctl reload {BROKER}")
        host.wait_for("another limit", lambda: host.limit() == 512 * MIB)
        code, said = host.run("echo limit=1 >/etc/tmem-broker.conf; "
                              f"systemctl reload {BROKER} 2>&1", check=False)
        assert code and "/etc/tmem-broker.conf" in host.journal(BROKER), f"status {code}: {said}"
        equal(host.limit(), 512 * MIB, "limit after a bad file")

        host.run(f"echo '{CONFIG.format(limit='256M')}' >/etc/tmem-broker.conf")
        host.killed(BROKER)
        host.wait_admitted("one")
        assert host.store("one")["leased"] >= 1000 * 4096, host.store("one")
        assert '"found": 1000, "lost": 0' in store.do("verify", "found")

        host.run(f"systemctl stop {BROKER}")
        assert host.run("ls -d /run/tmem-broker", check=False)[0], "its folder is still there"
        assert '"refused": 0' in store.do("put 100", "refused")
        host.run(f"systemctl start {BROKER}")
        host.wait_admitted("one")
        assert '"found": 1100, "lost": 0' in store.do("verify", "found")
        host.allowed(BROKER)


class Survivor:
    """tests/vhost-user/survivor, in the guest: a VM whose back end is killed."""

    def __init__(self, host, path):
        self.host = host
        host.run("touch /run/goes-on; (while [ -e /run/goes-on ]; do sleep 0.2; done | "
                 f"{VMM} survivor {path}) >/run/survivor 2>&1 &")
        self.wait("ready")

    def said(self):
        return self.host.read("/run/survivor")

    def wait(self, word, times=1):
        self.host.wait_for(f"the VMM says '{word}'",
                           lambda: self.said().count(word) >= times or "survivor:" in self.said())
        assert "survivor:" not in self.said(), self.said()

    def end(self):
        self.host.run("rm /run/goes-on")
        self.wait("end ")


@on("6.1")
def test_back_end(kernel):
    """One with a lease starts when a VMM comes; is killed and restarted; goes on with its pages."""
    path = "/run/vhost-user-tmem/vm1.socket"
    options = f"OPTIONS=--reserved=48M --lease={SOCKET} --name=vm1\n"
    with installed(kernel, **{"etc/vhost-user-tmem/vm1.conf": options}) as host:
        host.run(f"systemctl start {BROKER} {BACK_END.replace('.service', '.socket')}")
        equal(host.run(f"stat -c '%a %U %G' {path}").strip(), "660 root kvm", "mode")
        equal(host.show(BACK_END, "ActiveState"), "inactive", "before a VMM comes")
        vmm = Survivor(host, path)

        pid = host.pid(BACK_END)
        status = restricted(host, pid)
        user = int(status["Uid"].split()[0])
        # Of DynamicUser=.
        assert 61184 <= user <= 65519, f"user {user}"
        equal(int(status["CapBnd"], 16), 0, "capabilities")
        equal(host.read(f"/proc/{pid}/oom_score_adj"), "-500", "oom_score_adj")
        equal(host.cgroup(BACK_END, "memory.max"), str(2048 * MIB), "memory.max")
        equal(host.cgroup(BACK_END, "memory.swap.max"), "0", "memory.swap.max")
        host.wait_admitted("vm1")
        store = host.store("vm1")
        equal((store["pid"], store["uid"]), (pid, user), "whom the broker has admitted")

        def goes_on(times):
            vmm.wait("gone ", times)
            host.wait_admitted("vm1")
            equal(host.show(BACK_END, "NFileDescriptorStore"), "2", "descriptors that are kept")
            stats = host.json_of("/run/vhost-user-tmem-vm1/stats")
            assert stats["store"]["lease"]["connected"] and stats["vms"][0]["puts"], stats
            return stats
        equal(goes_on(0)["vms"][0]["connections"], 1, "connections")
        for times in (1, 2):
            host.killed(BACK_END)
            goes_on(times)
        host.run(f"systemctl restart {BACK_END}")
        goes_on(3)
        host.killed(BROKER)
        goes_on(3)
        vmm.end()
        pages = [int(n) for n in re.findall(r"goes on with (\d+) pages", host.journal(BACK_END))]
        assert len(pages) == 3 and min(pages) > 100, host.journal(BACK_END)

        host.run(f"systemctl stop {BACK_END.replace('.service', '.socket')}")
        host.wait_state(BACK_END, "inactive")
        assert host.run(f"ls {path}", check=False)[0], "its socket is still there"
        equal(host.show(BACK_END, "NFileDescriptorStore"), "0", "descriptors that are kept")
        host.wait_for("the broker forgets it", lambda: not host.store("vm1"))
        host.allowed(BACK_END)
        host.allowed(BROKER)
