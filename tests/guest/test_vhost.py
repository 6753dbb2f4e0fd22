# SPDX-License-Identifier: BSD-3-Clause
"""Guests in QEMU whose pages are with vhost-user-tmem."""
import re
import signal
import time

import lab
from lab import VMError, equal, guest, on, workset
from proxy import Proxy
from vhost import backend, honest, stand_still, vhost_guest

# Of vhost-user, in the order in which QEMU sends them.
ADD_MEM_REG, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_ENABLE = 37, 8, 9, 18


def test_pressure(kernel):
    """A verified working set that does not fit into the guest."""
    with backend("--reserved=256M") as back, vhost_guest(kernel, back.path) as vm:
        vm.run("swapon /dev/tmem0")
        workset(vm, 200, "-r 2")
        honest(vm, back.vm())
        # What was put is given back when it is no longer swapped.
        vm.run("swapoff /dev/tmem0", timeout=300)
        back.wait(lambda stats: stats["persistent_pages"] == 0)


@on("6.1")
def test_stopped(kernel):
    """The back end stands still under load: the guest waits, and nothing is lost."""
    with backend("--reserved=256M") as back, vhost_guest(kernel, back.path) as vm:
        stand_still(back, vm, 200, 300 if lab.LONG else 15)


@on("6.1")
def test_killed(kernel):
    """The back end dies with the pages: their readers get errors, and the disk goes on."""
    write = "yes {} | dd of=/dev/tmem0 bs=4k count=100 seek=100 iflag=fullblock oflag=direct"
    read = "dd if=/dev/tmem0 bs=4k count=100 skip=100 iflag=direct 2>/dev/null | head -c 4"
    with backend("--reserved=64M") as back, vhost_guest(kernel, back.path) as vm:
        vm.run(write.format("one"))
        equal(vm.run(read).strip(), "one", "what was written")
        generation = back.vm()["generation"]
        back.kill()
        back.start()
        back.wait(lambda stats: stats["connected"])
        assert back.vm()["generation"] != generation, "the same generation"
        status, out = vm.run("dd if=/dev/tmem0 of=/dev/null bs=4k count=100 skip=100 iflag=direct",
                             check=False)
        assert status, f"a page that is gone was read: {out}"
        vm.wait_for("a pool", lambda: vm.run(write.format("two"), check=False)[0] == 0, 30)
        equal(vm.run(read).strip(), "two", "what was written afterwards")
        assert back.vm()["persistent_pages"] >= 100, back.vm()
        vm.ignore = "tmem"  # it is said, and tested


@on("6.1")
def test_killed_under_load(kernel):
    """The same with requests in flight, again and again: the guest lives, no byte is wrong."""
    rounds = 100 if lab.LONG else 8
    with backend("--reserved=64M") as back, vhost_guest(kernel, back.path) as vm:
        number = vm.begin(
            f"i=0; end=$(($(date +%s) + {2 * rounds + 10})); "
            "while [ $(date +%s) -lt $end ]; do i=$((i + 1)); "
            "yes $i | dd of=/dev/tmem0 bs=64k count=1 seek=$((i % 100)) iflag=fullblock "
            "oflag=direct 2>/dev/null || continue; "
            "got=$(dd if=/dev/tmem0 bs=64k count=1 skip=$((i % 100)) iflag=direct 2>/dev/null | "
            "uniq | head -n 1) || continue; [ -z \"$got\" ] || [ \"$got\" = $i ] || "
            "echo \"wrong: $got, not $i\"; done; echo rounds $i")
        for _ in range(rounds):
            time.sleep(1)
            back.kill()
            back.start()
            back.wait(lambda stats: stats["connected"])
        vm.ignore = "tmem"
        status, out = vm.end(number, 300 + 2 * rounds)
        assert status == 0 and "wrong" not in out and "rounds" in out, out


@on("6.1")
def test_kept(kernel):
    """A back end with --keep dies under swap load, again and again: the guest does not notice."""
    kills = 100 if lab.LONG else 8
    with backend("--reserved=256M", keep=True) as back, vhost_guest(kernel, back.path) as vm:
        generation = back.vm()["generation"]
        vm.run("swapon /dev/tmem0")
        number = vm.begin(f"workset -m 200 -r {max(3, kills // 10)}")
        done = 0
        while done < kills:
            time.sleep(1)
            back.wait(lambda stats: stats["connected"])
            back.kill_worker()
            back.wait_started()
            done += 1
        status, out = vm.end(number, 900)
        assert status == 0, out
        equal(lab.field(out, "wrong"), 0, "wrong pages")
        equal(vm.swap_stats()["lost"], 0, "lost pages")
        equal(back.vm()["generation"], generation, "the generation")
        found = [int(n) for n in re.findall(r"goes on with (\d+) pages", back.said())]
        assert len(found) == kills and max(found) > 1000, back.said()
        # A restart for an update is the same way.
        back.process.send_signal(signal.SIGHUP)
        back.wait_started()
        vm.run("swapoff /dev/tmem0", timeout=300)
        back.wait(lambda stats: stats["persistent_pages"] == 0)


@on("6.1")
def test_gone_at_start(kernel):
    """The back end goes while QEMU starts the device on it: it is started when it is back."""
    with backend("--reserved=64M") as back, Proxy(back.path) as proxy, \
            vhost_guest(kernel, proxy.path) as vm:
        vm.run("yes one | dd of=/dev/tmem0 bs=4k count=100 iflag=fullblock oflag=direct")
        for request in (ADD_MEM_REG, SET_VRING_NUM, SET_VRING_ADDR, SET_VRING_ENABLE):
            before = proxy.connections
            proxy.drop(end_at=request)
            vm.wait_for("two connections", lambda: proxy.connections >= before + 2, 30)
            out = vm.run("dd if=/dev/tmem0 bs=4k count=100 iflag=direct 2>/dev/null | "
                         "uniq -c", timeout=60)
            equal(out.split(), ["102400", "one"], f"what was read after {request}")
        equal(vm.swap_stats()["lost"], 0, "lost pages")


@on("6.1")
def test_killed_vmm(kernel):
    """QEMU dies: its pages go when the grace time is over."""
    with backend("--reserved=64M", "--grace=2") as back:
        with vhost_guest(kernel, back.path) as vm:
            vm.run("yes | dd of=/dev/tmem0 bs=4k count=500 iflag=fullblock oflag=direct")
            assert back.vm()["persistent_pages"] == 500, back.vm()
            vm.process.kill()
            vm.process.wait()
            back.wait(lambda stats: not stats["connected"])
            equal(back.vm()["persistent_pages"], 500, "pages within the grace time")
            vm.ignore = "."
        back.wait(lambda stats: stats["persistent_pages"] == 0 and stats["draining_pages"] == 0)
        problem = back.stop()
        assert not problem, problem


@on("6.1")
def test_unplugged(kernel):
    """The device is unplugged, which ends its pages, and plugged in again."""
    with backend("--reserved=64M", "--grace=600") as back, vhost_guest(kernel, back.path) as vm:
        vm.run("yes | dd of=/dev/tmem0 bs=4k count=500 iflag=fullblock oflag=direct")
        vm.qmp("device_del", id="tmem0")
        vm.wait_for("the device to go", lambda: vm.run("ls /dev/tmem0", check=False)[0], 60)
        back.wait(lambda stats: stats["persistent_pages"] == 0)
        # QEMU connects again by itself; the next device finds a back end as new.
        vm.qmp("device_add", driver="vhost-user-tmem-pci", chardev="tmem", id="tmem1", bus="port0")
        vm.wait_for("the device", lambda: not vm.run("ls /dev/tmem0", check=False)[0], 60)
        vm.run("yes | dd of=/dev/tmem0 bs=4k count=500 iflag=fullblock oflag=direct")
        equal(back.vm()["persistent_pages"], 500, "pages")


def test_machine_reset(_):
    """A reset of the machine ends the pages and changes the generation."""
    with backend("--reserved=64M") as back, vhost_guest("6.1", back.path) as vm:
        vm.run("yes | dd of=/dev/tmem0 bs=4k count=500 iflag=fullblock oflag=direct")
        before = back.vm()["generation"]
        vm.qmp("stop")
        vm.qmp("set-action", reboot="reset")
        vm.qmp("system_reset")
        back.wait(lambda stats: stats["generation"] != before)
        equal(back.vm()["persistent_pages"], 0, "pages after the reset")
        vm.ignore = "."


test_machine_reset.kernels = ("6.1",)


@on("6.1")
def test_migration(kernel):
    """It and savevm are refused, with the device's name, whatever it holds."""
    with backend("--reserved=64M") as back, vhost_guest(kernel, back.path) as vm:
        said = vm.qmp("human-monitor-command", **{"command-line": "savevm one"})
        assert "tmem0" in said, f"savevm: {said}"
        try:
            vm.qmp("migrate", uri=f"file:{vm.dir}/image")
        except VMError as error:
            assert "tmem0" in str(error), error
            return
        raise AssertionError("migrated, and left its pages behind")


@on("6.1")
def test_memory_not_shared(kernel):
    """Said when QEMU starts, with what would be right."""
    with backend("--reserved=64M") as back:
        vm = guest(kernel, device="vhost-user-tmem-pci,chardev=tmem",
                   args=["-chardev", f"socket,id=tmem,path={back.path}"])
        try:
            with vm:
                pass
        except VMError as error:
            assert "memory-backend-memfd" in str(error) and "tmem0" in str(error), error
            return
        raise AssertionError("QEMU starts")
