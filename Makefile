# SPDX-License-Identifier: BSD-3-Clause
# Thin: what does the work is in scripts/ and tests/.
# "make" alone says what there is.

help:
	@echo "make demo           three guests share host memory: zram against virtio-tmem; SEARCH=1"
	@echo "make check          all tests; installs what it needs"
	@echo "make check-unit     libtmem and the server alone (check-asan, check-tsan, check-model)"
	@echo "make check-setup    what the scripts say when they cannot go on"
	@echo "make check-conformance  the specification's test vectors and its account"
	@echo "make check-broker   tmem-broker and stores that have leases of it"
	@echo "make check-vhost-user  vhost-user-tmem, with VMMs and guests that misbehave"
	@echo "make check-qtest    the QEMU device without a guest"
	@echo "make check-libvirt  <tmem> in libvirt: its own tests, and its daemon with a guest that swaps"
	@echo "make check-modules  the driver compiles without a warning, as checkpatch wants it"
	@echo "make check-guest    guests that swap, on three kernels; KERNEL=6.1 for one, TESTS=swap"
	@echo "make check-uml      guests as User Mode Linux, 7.x, 5.10 and one with KASAN and lockdep"
	@echo "make check-mutants  each known bug, brought back, must fail a test"
	@echo "make coverage       lines that tests execute: the server, the QEMU device, the driver"
	@echo "make fuzz           each fuzz target for a while: SECONDS=60 must be given"
	@echo "make fuzz-long      all of them together for hours: HOURS=8 must be given"
	@echo "make check-fresh    both README commands in a Debian that has git and make only"
	@echo "make soak           the tests of an issue for hours: ISSUE=6 (or 5, 2) HOURS=8 must be given"
	@echo "make bench-swap     swap on virtio-tmem, virtio-blk in RAM, zram: one guest, one run"
	@echo "make bench-full     a set that fits nowhere: how long until the guest's OOM killer ends it"
	@echo "make check-tools    the benchmarks run; claims are judged as they should be"
	@echo "make bench-store    libtmem against bare LZ4 and zram: 8 minutes, a table, JSON, a picture; ARGS=--quick"
	@echo "make bench-evict    which ephemeral pages should go: miss ratios of policies, a table and JSON"
	@echo "make bench-vhost    vhost-user-tmem against vhost-user-blk and zram, without a guest and with"
	@echo "make bench-scrape   what scrapes of the broker's metrics cost VMs: 3 minutes, a table and JSON"
	@echo "make bench-broker   data a host byte: guests that share a budget against zram, peaks in turn and together"
	@echo "make verify-claims  what was measured against docs/claims.toml"
	@echo "make spec           the device specification as a PDF"
	@echo "make qemu           QEMU with the device; prints where the binary is"
	@echo "make libvirt        libvirt that knows <tmem>; prints the prefix"
	@echo "make vhost-user     the back end for other VMMs; prints where the program is"
	@echo "make broker         tmem-broker; prints where the program is"
	@echo "make modules        the guest driver for Debian's 5.10, 6.1 and 6.12"
	@echo "make dkms           the guest driver's sources as a tarball for dkms"
	@echo "make clean          remove what was downloaded and built: ~/.cache/virtio-tmem"

# Which target reads which variable: what is given to another would be ignored.
ARGS_OF := demo check-fresh bench-% verify-claims
SEARCH_OF := demo
TESTS_OF := check-libvirt check-guest check-uml
KERNEL_OF := check-guest
MUTANTS_OF := check-mutants
TARGETS_OF := fuzz fuzz-long
SECONDS_OF := fuzz
HOURS_OF := fuzz-long soak
ISSUE_OF := soak
# The shell's, and what scripts and tests read of their environment.
ANY := CC CXX CFLAGS LDFLAGS PATH SHELL XDG_CACHE_HOME VIRTIO_TMEM_% CCACHE_% TMEM_% MODEL_% \
	BROKER_% BALLOON_% RUNS KILLS QEMU LANE
GIVEN := $(filter-out $(ANY),$(foreach v,$(.VARIABLES),$(if $(filter command,$(origin $v)),$v)))
$(foreach v,$(GIVEN),$(foreach goal,$(or $(MAKECMDGOALS),help),$(if $(filter $($v_OF),$(goal)),,\
	$(error $v=$($v): make $(goal) has no $v$(if $($v_OF),; it is for: $($v_OF),)))))

# A fresh machine has no python3 for what is written in it.
demo:
	@scripts/install-packages guest broker
	@demo/demo $(if $(filter 1,$(SEARCH)),--search) $(ARGS)
check:
	@scripts/install-packages build
	@tests/run
check-setup check-unit check-model check-conformance check-asan check-tsan check-broker check-vhost-user check-qtest check-modules check-tools:
	@scripts/install-packages build
	@tests/run $(@:check-%=%)
check-libvirt:
	@scripts/install-packages libvirt guest
	@tests/libvirt/run $(TESTS)
check-guest:
	@scripts/install-packages guest
	@tests/guest/run $(KERNEL:%=--kernel %) $(TESTS)
check-uml:
	@scripts/install-packages guest uml vhost_user
	@tests/guest/run --kernel uml-7 --kernel uml-5.10 --kernel uml-debug $(TESTS)
check-mutants:
	@scripts/install-packages build guest
	@scripts/check-mutants $(MUTANTS)
coverage:
	@scripts/coverage
fuzz:
	@scripts/fuzz "$(SECONDS)" $(TARGETS)
fuzz-long:
	@scripts/fuzz --hours "$(HOURS)" $(TARGETS)
check-fresh:
	@scripts/check-fresh $(ARGS)
soak:
	@scripts/install-packages build
	@scripts/soak "$(ISSUE)" "$(HOURS)"
bench-swap:
	@scripts/install-packages guest
	@bench/bench-swap $(ARGS)
bench-full:
	@scripts/install-packages guest
	@bench/bench-full $(ARGS)
bench-store:
	@scripts/install-packages build
	@scripts/bench-store $(ARGS)
bench-evict:
	@scripts/bench-evict $(ARGS)
bench-vhost:
	@scripts/install-packages guest uml bench_vhost
	@bench/bench-vhost $(ARGS)
bench-scrape:
	@scripts/install-packages build
	@bench/bench-scrape $(ARGS)
bench-broker:
	@scripts/install-packages guest uml vhost_user
	@bench/bench-broker $(ARGS)
verify-claims:
	@scripts/install-packages build
	@scripts/verify-claims $(ARGS)
spec:
	@scripts/build-spec
vhost-user:
	@scripts/build-vhost-user
broker:
	@scripts/build-broker
qemu:
	@scripts/build-qemu
libvirt:
	@scripts/build-libvirt
modules:
	@for v in 5.10 6.1 6.12; do scripts/guest-modules $$v || exit 1; done
dkms:
	@scripts/guest-dkms
clean:
	@scripts/clean

.PHONY: help demo check check-setup check-unit check-model check-conformance check-asan check-tsan check-broker check-vhost-user \
	check-qtest check-modules check-tools check-libvirt check-guest check-uml check-mutants check-fresh coverage fuzz fuzz-long \
	soak bench-swap bench-full bench-store bench-evict bench-vhost bench-scrape bench-broker verify-claims spec qemu libvirt vhost-user broker modules dkms clean
