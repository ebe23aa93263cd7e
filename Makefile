# make deps    install every Debian package Apus needs (root, apt)
# make build   release products under .build/release, BPF programs under .build/bpf
# make demo    two namespaces, the kernel's TCP across Apus, a table at the end (root)
# make test    every test, with its own set-up and clean-up (root)
# make bench   how fast it is, on this machine, now

SHELL       := /bin/bash
PYTHON      := /usr/bin/python3
RELEASE     := .build/release
DEPS_STAMP  := .build/deps.stamp

# What for: README.md, "Dependencies".
PACKAGES := build-essential pkg-config ca-certificates \
	libdpdk-dev dpdk-dev libbpf-dev libelf-dev libnuma-dev linux-libc-dev \
	iproute2 ethtool iperf3 tshark binutils python3 python3-pytest \
	qemu-system-x86 busybox-static cpio kmod xz-utils zstd linux-image-cloud-amd64

.PHONY: all deps build bpf planted demo test test-unit test-integration bench clean

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
	@mkdir -p $(@D) && touch $@

build: deps bpf
	swift build -c release

bpf:
	$(MAKE) --no-print-directory -C programs

# The same daemon with bugs planted on purpose: tests show that they would be found.
planted: deps
	APUS_PLANTED=1 swift build -c release --product apus --scratch-path .build-planted

demo: build
	$(PYTHON) demo/demo.py

test: test-unit test-integration

test-unit: build
	tools/suite unit swift test

test-integration: build planted
	tools/suite integration $(PYTHON) -m pytest -q -ra --durations=10 Tests/Integration

bench: build
	$(RELEASE)/apus-bench

clean:
	rm -rf .build .build-planted
