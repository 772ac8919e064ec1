# kvmnet: build, test, install. `make help` lists the targets.

PREFIX     ?= /usr/local
LIBEXECDIR ?= $(PREFIX)/libexec
BINDIR     ?= $(PREFIX)/bin
SYSCONFDIR ?= /etc
MANDIR     ?= $(PREFIX)/share/man
# firewalld looks for zones here and in /etc/firewalld, whatever the PREFIX.
FIREWALLDDIR ?= /usr/lib/firewalld
UNITDIR    ?= $(PREFIX)/lib/systemd/system
# Not every udev and networkd that is around looks in /usr/local/lib, whatever the PREFIX.
UDEVRULESDIR ?= /usr/lib/udev/rules.d
NETWORKDIR ?= /usr/lib/systemd/network
DESTDIR    ?=

CARGO      ?= cargo
INSTALL    ?= install
# A target has to be named for static binaries (see .cargo/config.toml).
# Root may have no rustc in its PATH, and installs what somebody else has built.
TARGET     ?= $(or $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p'),$(shell uname -m)-unknown-linux-gnu)

HELPERS    := ifup ifdown natup natdown
UNITS      := kvmnet-reload.service kvmnet-reload@.service kvmnet-reload-commands.path \
              kvmnet-reload-commands.service
# What wants which unit: links in DIRECTORY.wants, so that nothing needs to be enabled. Who doesn't want
# one masks it.
FIREWALL_SERVICES := nftables firewalld iptables ip6tables netfilter-persistent ufw docker
WANTS      := paths.target:kvmnet-reload-commands.path \
              $(foreach name,$(FIREWALL_SERVICES),$(name).service:kvmnet-reload@$(name).service)
UDEV_RULES := 78-kvmnet.rules
NETWORK    := 05-kvmnet.network 90-kvmnet.link
CARGO_OUT  := $(or $(CARGO_TARGET_DIR),target)
RELEASE    := $(CARGO_OUT)/$(TARGET)/release
# What the tests and the demo run: an installed tree, at its real paths.
STAGE      := target/stage
MAN_PAGES  := $(wildcard docs/man/*.[58])
# Where each shell looks for completions, beside the man pages.
SHARE      := $(patsubst %/man,%,$(MANDIR))
DOCDIR     ?= $(SHARE)/doc/kvmnet
COMPLETIONS := bash:bash-completion/completions/kvmnet zsh:zsh/site-functions/_kvmnet \
               fish:fish/vendor_completions.d/kvmnet.fish
# Its zones and policies, as DIRECTORY/FILE.
FIREWALLD  := $(patsubst packaging/firewalld/%,%,$(wildcard packaging/firewalld/*/*.xml))
SOURCES    := $(shell find crates -name '*.rs' -o -name Cargo.toml) Cargo.toml Cargo.lock

.DEFAULT_GOAL := build
.PHONY: help build test demo lint install uninstall clean require-cargo binaries setup firewalls \
        managers peers systemd-guest kernels torture fuzz bench deb rpm test-packages

help:
	@echo 'make build      build the programs: static, stripped, in $(RELEASE)'
	@echo 'make demo       two real guests on the default NAT network, in namespaces of their own'
	@echo 'make test       the whole test suite (as root)'
	@echo 'make torture    all faults instead of some, for three quarters of an hour, and a table of what became of them'
	@echo 'make fuzz       fuzzes what reads files, arguments and answers, a minute each'
	@echo 'make bench      kvmnet, its floor and what others have, measured side by side (as root)'
	@echo 'make deb        build a package for Debian and Ubuntu, in target/packages'
	@echo 'make rpm        build one for Fedora, EL and openSUSE, in target/packages'
	@echo 'make test-packages  build both, and try them in roots of their own (as root)'
	@echo 'make lint       formatting and clippy, warnings as errors'
	@echo 'make install    install programs, man pages, completions, units, zones of firewalld, rules of udev'
	@echo 'make uninstall  remove what install installed'
	@echo 'make clean      remove what was built'
	@echo
	@echo 'Variables of install (value now):'
	@echo '  PREFIX ($(PREFIX))  DESTDIR ($(DESTDIR))'
	@echo '  LIBEXECDIR ($(LIBEXECDIR))  the helpers: $(addprefix kvmnet-,$(HELPERS))'
	@echo '  BINDIR ($(BINDIR))  kvmnet'
	@echo '  MANDIR ($(MANDIR))  man pages; completions and the JSON schema go beside it'
	@echo '  FIREWALLDDIR ($(FIREWALLDDIR))  zones and policies for firewalld'
	@echo '  UNITDIR ($(UNITDIR))  the units $(UNITS)'
	@echo '  UDEVRULESDIR ($(UDEVRULESDIR))  the rule for udev: $(UDEV_RULES)'
	@echo '  NETWORKDIR ($(NETWORKDIR))  for udev and systemd-networkd, 243 or newer: $(NETWORK)'
	@echo '  DOCDIR ($(DOCDIR))  README, guides, licences'
	@echo '  SYSCONFDIR ($(SYSCONFDIR))  examples of network files, in kvmnet/'

require-cargo:
	@rust=$$(rustc --version 2>/dev/null | cut -d' ' -f2); \
	if ! command -v $(CARGO) >/dev/null || [ "$$(printf '%s\n' 1.85 "$$rust" | sort -V | head -n 1)" != 1.85 ]; then \
	    echo "kvmnet needs Rust 1.85 or newer (here: $${rust:-none}): apt-get install cargo on Debian 13, or https://rustup.rs" >&2; exit 1; \
	fi
	@command -v cc >/dev/null || { echo 'kvmnet needs a C compiler to link with: apt-get install gcc libc6-dev' >&2; exit 1; }

# Where the crates lie must not show in what is built from them: the same bytes for everybody.
# And flags in the environment would take the place of those that make the programs static.
REMAP      := --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo

# The programs look for each other beside themselves and in the usual places; only others are built in.
ELSEWHERE  := $(addprefix KVMNET_BINDIR=,$(filter-out /usr/bin /usr/local/bin,$(BINDIR))) \
              $(addprefix KVMNET_LIBEXECDIR=,$(filter-out /usr/libexec /usr/local/libexec,$(LIBEXECDIR)))

binaries: require-cargo
	env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS $(ELSEWHERE) $(CARGO) build --release --locked --target $(TARGET) \
	    --config 'target.$(TARGET).rustflags=["$(REMAP)"]' -p kvmnet-helpers -p kvmnet
	@CARGO='$(CARGO)' packaging/third-party '$(TARGET)' '$(RELEASE)'

build: binaries
	@rm -rf $(STAGE)
	@$(MAKE) --no-print-directory -s install-files DESTDIR=$(STAGE) PREFIX=/usr LIBEXECDIR=/usr/libexec BINDIR=/usr/bin MANDIR=/usr/share/man UNITDIR=/usr/lib/systemd/system FIREWALLDDIR=/usr/lib/firewalld UDEVRULESDIR=/usr/lib/udev/rules.d NETWORKDIR=/usr/lib/systemd/network

# Root may have no cargo: what is built and up to date is installed as it is.
install: $(RELEASE)/qemu-natup install-files

$(RELEASE)/qemu-natup: $(SOURCES)
	@$(MAKE) --no-print-directory binaries
	@touch $@

.PHONY: install-files
install-files:
	$(INSTALL) -d '$(DESTDIR)$(LIBEXECDIR)' '$(DESTDIR)$(BINDIR)' '$(DESTDIR)$(MANDIR)/man5' '$(DESTDIR)$(MANDIR)/man8'
	for helper in $(HELPERS); do \
	    $(INSTALL) -m 755 $(RELEASE)/qemu-$$helper '$(DESTDIR)$(LIBEXECDIR)'/kvmnet-$$helper || exit 1; \
	done
	$(INSTALL) -m 755 $(RELEASE)/kvmnet '$(DESTDIR)$(BINDIR)'/kvmnet
	for completion in $(COMPLETIONS); do \
	    file='$(DESTDIR)$(SHARE)'/$${completion#*:}; \
	    $(INSTALL) -d "$${file%/*}" && $(RELEASE)/kvmnet completions $${completion%%:*} >"$$file" && chmod 644 "$$file" || exit 1; \
	done
	$(INSTALL) -d '$(DESTDIR)$(SHARE)/kvmnet'
	$(INSTALL) -m 644 docs/status.schema.json '$(DESTDIR)$(SHARE)/kvmnet/'
	for page in $(MAN_PAGES); do \
	    place='$(DESTDIR)$(MANDIR)'/man$${page##*.}/; \
	    if [ -L $$page ]; then cp -Pf $$page "$$place"; else $(INSTALL) -m 644 $$page "$$place"; fi || exit 1; \
	done
	$(INSTALL) -d '$(DESTDIR)$(FIREWALLDDIR)/zones' '$(DESTDIR)$(FIREWALLDDIR)/policies'
	for file in $(FIREWALLD); do \
	    $(INSTALL) -m 644 packaging/firewalld/$$file '$(DESTDIR)$(FIREWALLDDIR)'/$$file || exit 1; \
	done
	$(INSTALL) -d '$(DESTDIR)$(UNITDIR)'
	$(INSTALL) -d '$(DESTDIR)$(SYSCONFDIR)/kvmnet'
	$(INSTALL) -m 644 packaging/examples/*.toml.example '$(DESTDIR)$(SYSCONFDIR)/kvmnet/'
	$(INSTALL) -d '$(DESTDIR)$(DOCDIR)/docs'
	$(INSTALL) -m 644 README.md CHANGELOG.md LICENSE '$(DESTDIR)$(DOCDIR)/'
	$(INSTALL) -m 644 docs/*.md docs/*.svg '$(DESTDIR)$(DOCDIR)/docs/'
	$(INSTALL) -m 644 $(RELEASE)/third-party.txt $(wildcard $(RELEASE)/rust-library.html) '$(DESTDIR)$(DOCDIR)/'
	for unit in $(UNITS); do \
	    sed 's|@BINDIR@|$(BINDIR)|' packaging/systemd/$$unit >'$(DESTDIR)$(UNITDIR)'/$$unit && \
	    chmod 644 '$(DESTDIR)$(UNITDIR)'/$$unit || exit 1; \
	done
	for pair in $(WANTS); do \
	    wants='$(DESTDIR)$(UNITDIR)'/$${pair%%:*}.wants unit=$${pair#*:}; \
	    case $$unit in *@*) of=$${unit%@*}@.service ;; *) of=$$unit ;; esac; \
	    $(INSTALL) -d "$$wants" && ln -sf ../$$of "$$wants/$$unit" || exit 1; \
	done
	$(INSTALL) -d '$(DESTDIR)$(UDEVRULESDIR)' '$(DESTDIR)$(NETWORKDIR)'
	for rules in $(UDEV_RULES); do \
	    sed 's|@BINDIR@|$(BINDIR)|' packaging/udev/$$rules >'$(DESTDIR)$(UDEVRULESDIR)'/$$rules && \
	    chmod 644 '$(DESTDIR)$(UDEVRULESDIR)'/$$rules || exit 1; \
	done
	for file in $(NETWORK); do \
	    $(INSTALL) -m 644 packaging/networkd/$$file '$(DESTDIR)$(NETWORKDIR)'/$$file || exit 1; \
	done

uninstall:
	[ -n '$(DESTDIR)' ] || [ ! -x '$(BINDIR)/kvmnet' ] || '$(BINDIR)/kvmnet' adopt --undo --yes
	rm -rf '$(DESTDIR)$(DOCDIR)/docs'
	rm -f $(foreach file,README.md CHANGELOG.md LICENSE third-party.txt rust-library.html,'$(DESTDIR)$(DOCDIR)/$(file)')
	rm -f $(foreach file,$(notdir $(wildcard packaging/examples/*)),'$(DESTDIR)$(SYSCONFDIR)/kvmnet/$(file)')
	rm -f $(foreach pair,$(WANTS),'$(DESTDIR)$(UNITDIR)/$(subst :,.wants/,$(pair))')
	-rmdir --ignore-fail-on-non-empty '$(DESTDIR)$(DOCDIR)' $(foreach pair,$(WANTS),'$(DESTDIR)$(UNITDIR)/$(firstword $(subst :, ,$(pair))).wants') 2>/dev/null
	rm -f $(foreach file,$(UDEV_RULES),'$(DESTDIR)$(UDEVRULESDIR)/$(file)') $(foreach file,$(NETWORK),'$(DESTDIR)$(NETWORKDIR)/$(file)')
	rm -f $(foreach unit,$(UNITS),'$(DESTDIR)$(UNITDIR)/$(unit)')
	rm -f $(foreach helper,$(HELPERS),'$(DESTDIR)$(LIBEXECDIR)/kvmnet-$(helper)')
	rm -f '$(DESTDIR)$(BINDIR)/kvmnet' '$(DESTDIR)$(SHARE)/kvmnet/status.schema.json' $(foreach completion,$(COMPLETIONS),'$(DESTDIR)$(SHARE)/$(lastword $(subst :, ,$(completion)))')
	rm -f $(foreach page,$(notdir $(MAN_PAGES)),'$(DESTDIR)$(MANDIR)/man$(lastword $(subst ., ,$(page)))/$(page)')
	rm -f $(foreach file,$(FIREWALLD),'$(DESTDIR)$(FIREWALLDDIR)/$(file)')

setup:
	@tests/setup

demo: setup build
	@$(CARGO) run --quiet --locked --target $(TARGET) -p kvmnet-tests --bin demo

# The real firewalls, unpacked beside this machine and not installed on it.
firewalls: setup
	@tests/firewalls

# What else manages networks or guests: the same.
managers: setup
	@tests/managers

# What others have for the same purpose: the same.
peers: setup
	@tests/peers

# A root file system with systemd and the firewalls as services, which QEMU boots.
systemd-guest: setup
	@tests/systemd-guest

# The kernels of three distribution releases, with their modules, for that root file system.
kernels: systemd-guest
	@tests/kernels

# Two programs of tests at once: one alone leaves half of two processors idle, for most wait most of the
# time. Those whose guests boot whole systems keep both processors busy, and run one after the other beside
# all others.
TEST       := $(CARGO) test --workspace --locked --target $(TARGET) --no-fail-fast
GUESTS     := kernels systemd guides udev
TEST_FILES := $(foreach place,tests/tests tests/*/tests crates/*/tests,\
                $(patsubst %.rs,%,$(wildcard $(place)/*.rs)) $(patsubst %/main.rs,%,$(wildcard $(place)/*/main.rs)))
# Those of the packages have `make test-packages`.
PROGRAMS   := $(filter-out packages,$(notdir $(TEST_FILES)))

test: firewalls managers systemd-guest kernels build
	@tests/fuzz unpack
	$(TEST) --no-run
	@echo 'make test: $(words $(PROGRAMS)) programs, two at once; what each says comes when it ends'
	@$(MAKE) --no-print-directory --keep-going --jobs=2 test-guests test-others

.PHONY: test-guests test-others test-units $(addprefix test-,$(PROGRAMS))
test-guests:
	@CARGO='$(CARGO)' TARGET='$(TARGET)' tests/in-turn $(GUESTS)

test-others:
	@CARGO='$(CARGO)' TARGET='$(TARGET)' tests/in-turn units $(filter-out $(GUESTS),$(PROGRAMS))

# kvmnet is the one program that has any.
test-units:
	@$(TEST) --lib --bin kvmnet
	@$(TEST) --doc

$(addprefix test-,$(PROGRAMS)): test-%:
	@$(TEST) --test $*

# Of the same tests those that are campaigns of faults; they run whole, and write their figures to this
# file. Then the fuzzer, so many seconds for each test. What kills waits for the kernel most of the time, and
# runs beside the others.
TORTURE    := $(CURDIR)/target/torture.jsonl
KILLING    := crash_points killed limits pinned_killed
FUZZ_SECONDS := 60

torture: setup build
	@rm -f '$(TORTURE)'
	$(TEST) --no-run
	@passed=0; \
	KVMNET_TORTURE='$(TORTURE)' $(MAKE) --no-print-directory --keep-going --jobs=2 \
	    torture-killing torture-others || passed=$$?; \
	$(CARGO) run --quiet --locked --target $(TARGET) -p kvmnet-tests --bin torture -- '$(TORTURE)' && exit $$passed

.PHONY: torture-killing torture-others
torture-killing:
	@$(TEST) $(addprefix --test ,$(KILLING))

torture-others:
	@passed=0; $(TEST) --test explore --test random_runs --test replay || passed=$$?; \
	tests/fuzz $(FUZZ_SECONDS) || passed=$$?; exit $$passed

fuzz: setup require-cargo
	@tests/fuzz $(FUZZ_SECONDS)

# Side by side in one run: a table, target/bench/bench.json, and plots beside it. What measures needn't
# be quick.
bench: peers build
	@$(CARGO) build --quiet --release --locked --target $(TARGET) -p kvmnet-floor
	@$(CARGO) run --quiet --locked --target $(TARGET) -p kvmnet-bench -- '$(RELEASE)/floor'

lint: require-cargo
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --all-features --locked --target $(TARGET) -- -D warnings

# The packages, from what git has of this tree; they come into target/packages.
deb rpm: require-cargo
	@packaging/build $@

# Both, installed, upgraded and removed in roots of their own, with a real guest.
test-packages: deb rpm
	@tests/package-root
	$(TEST) --features kvmnet-tests/packages --test packages

clean:
	$(CARGO) clean
	rm -rf target
