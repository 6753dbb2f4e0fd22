# SPDX-License-Identifier: BSD-3-Clause
"""The disk as a block device."""
import lab
from lab import equal, field, guest, on


@on(*lab.ALL, "uml-7")
def test_direct_io(kernel):
    """Random reads, writes, discards against a model; memory of any alignment."""
    with guest(kernel, reserved=64, mem=160, smp=2, append="tmem_swap.sync=1") as vm:
        out = vm.run("directio -d /dev/tmem0 -n 3000", timeout=300)
        assert "wrong 0" in out, out
        disk = vm.swap_stats()
        equal(disk["lost"], 0, "lost")
        assert disk["discarded"] > 0 and disk["zero_reads"] > 0, disk


@on(*lab.ALL, "uml-7")
def test_direct_io_async(kernel):
    """The same through plugged, merged requests."""
    with guest(kernel, reserved=64, mem=160, smp=2) as vm:
        out = vm.run("directio -d /dev/tmem0 -n 3000", timeout=300)
        assert "wrong 0" in out, out


@on("5.10", "6.1")
def test_bounce_buffers(kernel):
    """Packed rings, and DMA through so few bounce buffers that mapping fails."""
    with guest(kernel, reserved=64, mem=192, smp=2,
               device="virtio-tmem-pci,store=store0,iommu_platform=on,packed=on",
               append="swiotlb=512,force") as vm:
        out = vm.run("directio -d /dev/tmem0 -n 1000", timeout=300)
        assert "wrong 0" in out, out
        assert "swiotlb buffer is full" in vm.run("dmesg"), "no mapping failed"
        disk = vm.swap_stats()
        equal(disk["errors"], 0, "failed requests")
        equal(disk["lost"], 0, "lost")


@on("6.1", "uml-7")
def test_read_during_discard(kernel):
    """A block that is discarded while it is read is not one that was lost."""
    with guest(kernel, reserved=64, smp=2) as vm:
        out = vm.run("discard-race /dev/tmem0 10", timeout=60)
        assert field(out, "zeros") > 1000 and field(out, "written") > 100, out
        equal(vm.swap_stats()["lost"], 0, "lost")


def test_zero_4g(kernel):
    """Zeroing of 4 GiB and more, which kernels count in 32 bits: no old byte is left."""
    with guest(kernel, mem=192, reserved=128,
               append="tmem_swap.disksize_mb=6144 tmem_swap.force=1") as vm:
        def fill(seek):
            vm.run(f"yes tmem | dd of=/dev/tmem0 bs=4k count=50 seek={seek} iflag=fullblock "
                   "oflag=direct")

        def zeros(seek):
            vm.run("dd if=/dev/zero bs=4k count=50 2>/dev/null >/tmp/zeros;"
                   f"dd if=/dev/tmem0 bs=4k count=50 skip={seek} iflag=direct 2>/dev/null |"
                   "cmp - /tmp/zeros")

        places = (100, 1 << 20, (1 << 20) + 1000, (6144 << 8) - 50)
        for length in ("-l $((4 << 30))", "-o $((1 << 20)) -l $(((4 << 30) + 8192))", ""):
            for seek in places:
                fill(seek)
            equal(vm.swap_stats()["present"], 200, "blocks written")
            vm.run(f"blkdiscard -z {length} /dev/tmem0")
            zeros(100 if not length.startswith("-o") else 1 << 20)
            vm.run("blkdiscard -z /dev/tmem0")
            for seek in places:
                zeros(seek)
            equal(vm.swap_stats()["present"], 0, "blocks that are not zeros")


@on(*lab.ALL, "uml-7")
def test_refused_overwrite(kernel):
    """A block whose page a refused write took away is an error, never zeros, until
    it is written again or discarded (drv.put.refused)."""
    with guest(kernel, reserved=8, size=12, mem=160,
               append="tmem_swap.disksize_mb=64 tmem_swap.force=1") as vm:
        def write(what, options, check=True):
            return vm.run(f"{what} | dd of=/dev/tmem0 bs=4k iflag=fullblock oflag=direct {options}",
                          timeout=120, check=check)

        def read(block):
            status, _ = vm.run(f"dd if=/dev/tmem0 of=/tmp/block bs=4k count=1 skip={block}"
                               " iflag=direct", check=False)
            return "error" if status else vm.run("tr -d '\\0' </tmp/block | head -c 4")

        # Block 0 cannot be written: it goes on to be a swap header.
        write("cat /dev/urandom", "seek=1 count=16383", check=False)
        for block in (0, 16383):
            status, _ = write("cat /dev/urandom", f"seek={block} count=1", check=False)
            assert status, f"block {block} is accepted by a full store"
        equal(vm.run("blkid -p -o value -s TYPE /dev/tmem0").strip(), "swap", "block 0")
        equal(read(16383), "", "a block that never was accepted")
        # Pages that compress take no room; what takes their place does.
        vm.run("blkdiscard /dev/tmem0")
        write("yes tmem", "count=16384")
        write("cat /dev/urandom", "seek=1 count=16383 conv=notrunc", check=False)
        # In blocks of their own, for dd ends at the first error.
        vm.run("for i in $(seq 16000 16020); do dd if=/dev/urandom of=/dev/tmem0 bs=4k count=1"
               " seek=$i oflag=direct; done", check=False)
        states = [read(block) for block in range(16000, 16021)]
        assert "error" in states and "" not in states, states
        gone = 16000 + states.index("error")
        disk = vm.swap_stats()
        assert disk["spoilt_reads"] > 0, disk
        equal(disk["lost"], 0, "lost")
        # Room again.
        vm.run("blkdiscard -o $((4096 * 8)) -l $((4096 * 15000)) /dev/tmem0")
        write("yes tmem", f"seek={gone} count=1")
        equal(read(gone), "tmem", "written again")
        gone = next(b for b in range(gone + 1, 16021) if states[b - 16000] == "error")
        equal(read(gone), "error", "another one")
        vm.run(f"blkdiscard -o $((4096 * {gone})) -l 4096 /dev/tmem0")
        equal(read(gone), "", "after a discard")


@on("5.10", "6.12", "uml-7")
def test_filesystem(kernel):
    """A file system on it: metadata, flushes, trims."""
    with guest(kernel, reserved=64, mem=192) as vm:
        vm.run("mkfs.ext4 -q /dev/tmem0 && mkdir -p /tmp/m && mount -o discard /dev/tmem0 /tmp/m",
               timeout=180)
        vm.run("cp -r /usr/lib/x86_64-linux-gnu/perl-base /usr/share/zoneinfo /tmp/m/ 2>/dev/null;"
               "cd /tmp/m && find . -type f | sort | xargs md5sum >/tmp/sums && sync &&"
               "cd / && umount /tmp/m && echo 3 >/proc/sys/vm/drop_caches &&"
               "mount /dev/tmem0 /tmp/m && cd /tmp/m && md5sum --quiet -c /tmp/sums",
               timeout=300)
        vm.run("cd /; umount /tmp/m; e2fsck -fn /dev/tmem0", timeout=120)


@on("6.1", "uml-7")
def test_header(kernel):
    """Block 0 is a swap header until it is written, and again after a discard."""
    with guest(kernel, reserved=64) as vm:
        def kind():
            return vm.run("blkid -p -o value -s TYPE /dev/tmem0", check=False)[1].strip()
        equal(kind(), "swap", "a new disk")
        vm.run("dd if=/dev/zero of=/dev/tmem0 bs=4k count=1 oflag=direct")
        equal(kind(), "", "after zeros")
        vm.run("blkdiscard /dev/tmem0")
        equal(kind(), "swap", "after a discard")
        vm.run("blkdiscard -z /dev/tmem0")
        equal(kind(), "", "after zeroing")
        vm.run("mkswap /dev/tmem0 && swapon /dev/tmem0 && swapoff /dev/tmem0")
        # Zeros without a request: the device has one page, the header.
        equal(vm.stats()["device"]["persistent-pages"], 1, "pages held")
