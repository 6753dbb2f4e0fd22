# SPDX-License-Identifier: BSD-3-Clause
# Thin: what does the work is in scripts/, tests/, demo/ and bench/.
# "make" alone says what there is.

help:
	@echo "make demo           three guests swap into host memory, and a chart of it"
	@echo "make check          all tests; installs what it needs"
	@echo "make check-unit     libtmem and the server alone (check-asan, check-tsan, check-model)"
	@echo "make check-qtest    the QEMU device without a guest"
	@echo "make check-guest    guests that swap, on three kernels (KERNEL=6.1 for one)"
	@echo "make check-mutants  each known bug, brought back, must fail a test"
	@echo "make check-fresh    demo and check in a Debian that has only git and make"
	@echo "make bench-swap     tmem, virtio-blk on host memory and zram in one guest"
	@echo "make bench-store    the store against bare LZ4"
	@echo "make verify-claims  the figures in docs/claims.toml against the last benchmarks"
	@echo "make soak ISSUE=2 HOURS=1   the guest tests with long waits, again and again"
	@echo "make qemu           QEMU with the device; prints where the binary is"
	@echo "make modules        the guest driver for Debian's 5.10, 6.1 and 6.12"
	@echo "make install-guest  (in a guest) the driver for the running kernel, by dkms"
	@echo "make clean          remove what was downloaded and built (scripts/lib.sh: CACHE)"

demo:
	@demo/demo
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
check-fresh:
	@scripts/check-fresh
bench-swap bench-store:
	@bench/$@
verify-claims:
	@bench/verify-claims
soak:
	@scripts/soak $(ISSUE) $(HOURS)
qemu:
	@scripts/build-qemu
modules:
	@for v in 5.10 6.1 6.12; do scripts/guest-modules $$v || exit 1; done
install-guest:
	@guest/install
clean:
	@scripts/clean

.PHONY: help demo check check-unit check-model check-asan check-tsan check-qtest \
	check-modules check-guest check-mutants check-fresh bench-swap bench-store \
	verify-claims soak qemu modules install-guest clean
