# SPDX-License-Identifier: BSD-3-Clause
# Thin: what does the work is in scripts/ and tests/.
# "make" alone says what there is.

help:
	@echo "make check          all tests; installs what it needs"
	@echo "make check-unit     libtmem and the server alone (check-asan, check-tsan, check-model)"
	@echo "make check-qtest    the QEMU device without a guest"
	@echo "make check-guest    guests that swap, on three kernels (KERNEL=6.1 for one)"
	@echo "make check-mutants  each known bug, brought back, must fail a test"
	@echo "make qemu           QEMU with the device; prints where the binary is"
	@echo "make modules        the guest driver for Debian's 5.10, 6.1 and 6.12"
	@echo "make clean          remove what was downloaded and built (scripts/lib.sh: CACHE)"

check:
	@scripts/install-packages build
	@tests/run
check-unit check-model check-asan check-tsan check-qtest check-modules:
	@scripts/install-packages build
	@tests/run $(@:check-%=%)
check-guest:
	@tests/guest/run $(if $(KERNEL),--kernel $(KERNEL)) $(TESTS)
check-mutants:
	@scripts/check-mutants $(MUTANTS)
qemu:
	@scripts/build-qemu
modules:
	@for v in 5.10 6.1 6.12; do scripts/guest-modules $$v || exit 1; done
clean:
	@scripts/clean

.PHONY: help check check-unit check-model check-asan check-tsan check-qtest \
	check-modules check-guest check-mutants qemu modules clean
