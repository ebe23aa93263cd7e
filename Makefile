# make deps    install every Debian package Apus needs (root, apt)
# make build   release products under .build/release, BPF programs under .build/bpf
# make demo    two namespaces, the kernel's TCP across Apus, a table at the end (root)
# make test    every test, with its own set-up and clean-up (root)
# make soak    the same searches for bugs, for hours: SOAK_PROGRAMS=, SOAK_SEED=
# make test-asan  the engine under AddressSanitizer; part of soak
# make bench   how fast it is, on this machine, now; bench-forward, bench-sums, bench-loop are its parts

SHELL       := /bin/bash
PYTHON      := /usr/bin/python3
RELEASE     := .build/release
DEPS_STAMP  := .build/deps.stamp

# What for: README.md, "Dependencies".
PACKAGES := build-essential pkg-config ca-certificates meson ninja-build python3-pyelftools \
	libdpdk-dev dpdk-dev libbpf-dev libelf-dev libnuma-dev linux-libc-dev llvm-19-dev \
	iproute2 ethtool iperf3 tshark binutils util-linux python3 python3-pytest \
	qemu-system-x86 busybox-static cpio e2fsprogs libxdp1 xdp-tools bpftool linux-source-6.12 libunbound8 \
	libc6-dev-arm64-cross libgcc-12-dev-arm64-cross qemu-user \
	libncurses6 libcurl4 libedit2 libsqlite3-0 libxml2 zlib1g-dev tzdata libstdc++-12-dev libgcc-12-dev

.PHONY: all deps build bpf guest planted demo test test-unit test-planted test-asan test-arm64 test-integration soak soak-contract soak-engine bench bench-forward bench-sums bench-loop bench-engine clean

all: build

deps: $(DEPS_STAMP)

# Asked once a checkout; 'make clean' asks again.
$(DEPS_STAMP): Makefile
	@missing=$$(for p in $(PACKAGES); do dpkg-query -W -f='$${Status}' $$p 2>/dev/null | grep -q '^install ok installed' || echo $$p; done); \
	if [ -n "$$missing" ]; then \
		echo "installing: $$missing" | tr '\n' ' '; echo; \
		export DEBIAN_FRONTEND=noninteractive; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $$missing >/dev/null || exit 1; \
	fi
	@ls /boot/vmlinuz-*-cloud-amd64 >/dev/null 2>&1 || ls /var/lib/apt/lists/*Packages* >/dev/null 2>&1 || apt-get update -qq
	@mkdir -p $(@D) && touch $@

build: deps bpf
	swift build -c release
	tools/vhost-library $(RELEASE)

bpf:
	$(MAKE) --no-print-directory -C programs

# What 'swift test' runs: optimised, since only optimised code is what people get. A folder of its own,
# because -enable-testing changes the modules.
TEST_FLAGS := -c release -Xswiftc -enable-testing --scratch-path .build-test

# The same daemon with bugs planted on purpose: tests show that they would be found.
# One build: of the daemon for the integration tests, of the matrix, and of the engine's tests.
PLANTED := APUS_PLANTED=1 APUS_TESTS=DataplaneTests,EBPFTests
PLANTED_FLAGS := -c release -Xswiftc -enable-testing --scratch-path .build-planted
planted: deps
	$(PLANTED) swift build $(PLANTED_FLAGS) --build-tests

# A kernel and an initramfs for the guests of the integration tests, under .build/guest.
guest: deps
	$(PYTHON) Tests/Integration/guest/build.py

demo: build
	$(PYTHON) demo/demo.py

test: test-unit test-planted test-arm64 test-integration

test-unit: build
	swift build $(TEST_FLAGS) --build-tests
	tools/suite unit swift test $(TEST_FLAGS) --skip-build --skip EBPFTests
	tools/suite engine swift test $(TEST_FLAGS) --skip-build --filter EBPFTests --skip PlantedCompilerTests
	tools/suite planted-compiler swift test $(TEST_FLAGS) --skip-build --filter PlantedCompilerTests

# Breaks each rule of the checksum contract in turn and shows that a test finds it; then the interpreter, its maps and its
# helpers. Which bug there is belongs to the whole process, so each has its own.
test-planted: planted
	$(PLANTED) tools/suite planted swift test $(PLANTED_FLAGS) --skip-build --filter PlantedTests --skip EBPFTests
	$(PLANTED) tools/suite planted-engine swift test $(PLANTED_FLAGS) --skip-build --filter FuzzPlantedTests
	$(PLANTED) tools/suite planted-analysis swift test $(PLANTED_FLAGS) --skip-build --filter AnalysisPlantedTests

# The engine and the dataplane under AddressSanitizer, Swift and C: whatever bytes the sandbox, the maps, the loader process
# and the packet table are given (packets lie in DPDK's memory, between pages of their own that nobody may touch).
# Bugs can be planted, so that it is seen to report (AddressSanitizerTests). Without -Xcc the loads and stores of the
# interpreter, functions of a header that Swift imports, are not watched. Leaks are not looked for: the Swift runtime
# keeps what it knows of types for good; MutatedObjectTests watches the loader's size. So that it can, freed memory is held
# back for a megabyte only. Part of 'make soak': building it alone takes more than six minutes of a CPU.
ASAN       := APUS_PLANTED=1 APUS_TESTS=EBPFTests,DataplaneTests
ASAN_FLAGS := -c release -Xswiftc -enable-testing --sanitize=address -Xswiftc -Xcc -Xswiftc -fsanitize=address --scratch-path .build-asan
ASAN_HOW   := detect_leaks=0:quarantine_size_mb=1:thread_local_quarantine_size_kb=64:log_path=$(CURDIR)/.build-asan/report
test-asan: deps
	$(ASAN) swift build $(ASAN_FLAGS) --product apusPackageTests
	$(ASAN) swift build $(ASAN_FLAGS) --product apus-loader
	rm -f .build-asan/report.*
	$(ASAN) APUS_MUTATED_OBJECTS=2000 ASAN_OPTIONS=$(ASAN_HOW) tools/suite asan swift test $(ASAN_FLAGS) --skip-build \
		--filter 'AddressSanitizerTests|SandboxTests|SandboxPacketTests|MutatedObjectTests|ObjectErrorTests|MapTests|MatrixTests|BadPacketTests'; \
	status=$$?; shopt -s nullglob; tools/asan-reports .build-asan/report.* && exit $$status

# The summing kernels of the other architecture, under an emulator.
test-arm64: deps
	tools/suite arm64 $(MAKE) --no-print-directory -C Tests/Arm64

test-integration: build planted guest
	tools/suite integration $(PYTHON) -m pytest -q -ra --durations=10 Tests/Integration

# Long runs on numbers nobody tried: hours.
soak: soak-contract soak-engine test-asan

# The checksum contract's property: lazy is eager is what a finished packet gets, a million runs of random programs.
soak-contract: build
	swift build $(TEST_FLAGS) --build-tests
	APUS_SOAK=40 APUS_SEED=$$(date +%s) swift test $(TEST_FLAGS) --skip-build --filter 'ContractPropertyTests|AnalysisSoundnessTests|LookTests'

# The fuzzer, the sandbox and mutated objects: what fails is shrunk and kept in Tests/Fixtures/fuzz.
SOAK_PROGRAMS ?= 2000000
SOAK_SEED     ?= $(shell date +%s)000000
soak-engine: build
	swift build $(TEST_FLAGS) --build-tests
	APUS_FUZZ_PROGRAMS=$(SOAK_PROGRAMS) APUS_FUZZ_COMPILED=20 APUS_FUZZ_SEED=$(SOAK_SEED) APUS_SANDBOX_RUNS=$$(($(SOAK_PROGRAMS) / 4)) APUS_MUTATED_OBJECTS=$$(($(SOAK_PROGRAMS) / 20)) \
		swift test $(TEST_FLAGS) --skip-build --filter 'FuzzTests|SandboxTests|MutatedObjectTests'

bench: bench-forward bench-sums bench-loop bench-engine

# Packets a second beside testpmd and Open vSwitch; BENCH="--realtime --sizes 64" and the like go to bench/forward.py.
bench-forward: build
	$(PYTHON) bench/forward.py $(BENCH)

bench-engine: build
	$(RELEASE)/apus-bench engine
	$(RELEASE)/apus-bench start

bench-sums: build
	$(RELEASE)/apus-bench sums

bench-loop: build
	$(RELEASE)/apus-bench paths
	$(RELEASE)/apus-bench loop

clean:
	rm -rf .build .build-test .build-planted .build-asan
