# SPDX-License-Identifier: BSD-3-Clause
"""A guest's guest, which test_uml.nested has a guest run: it swaps on its own virtio-tmem, then
has pages there and says "holds".  At a line of input it looks at them, and ends with 0 if all is
right.
"""
import sys

sys.dont_write_bytecode = True
from lab import guest, swapped, workset  # noqa: E402

with guest("6.1", mem=192) as vm:
    vm.run("swapon /dev/tmem0")
    workset(vm, 180, "-r 1")
    swapped(vm)
    vm.run("swapoff /dev/tmem0;"
           " dd if=/dev/vda of=/dev/tmem0 bs=1M count=60 iflag=direct oflag=direct")
    print("holds", flush=True)
    sys.stdin.readline()
    vm.run("cmp -n 62914560 /dev/vda /dev/tmem0")
