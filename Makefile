# The commands people type. `make up` and `make test` are all a fresh machine needs.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

export PI_STATE ?= $(CURDIR)/.virtual-pi
export PI_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pi-commerce
export PI_NAME ?= pi-commerce
# First three numbers of the network that the virtual Pi lives in.
export PI_NETWORK ?= 10.213.0
export PI_ADDRESS := $(PI_NETWORK).10
export PI_SUITE ?= trixie
export PI_BOARD ?= pi4-4gb
# container: a virtual Pi within seconds. vm: one with a kernel of its own, see docs/decisions/0007-vm.md.
export PI_KIND ?= container
$(if $(filter container vm,$(PI_KIND)),,$(error PI_KIND is "$(PI_KIND)": set it to container or vm))
HOST_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,amd64)
export ARCH ?= $(HOST_ARCH)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg

# Where the time of a playbook goes: seconds and SSH calls of every task.
ifdef PROFILE
export ANSIBLE_CALLBACKS_ENABLED := ansible.posix.profile_tasks,remote_calls
endif
# Optional: tasks run in one Python on the Pi that stays (Mitogen), see docs/decisions/0009-speed.md.
ifdef FAST
export ANSIBLE_STRATEGY := mitogen_linear
export ANSIBLE_STRATEGY_PLUGINS := $(CURDIR)/.venv/mitogen
endif

PYTHON := .venv/bin/python
VIRTUAL := -i inventory/$(if $(filter vm,$(PI_KIND)),vm,virtual)
MACHINE := $(PYTHON) molecule/shared/$(if $(filter vm,$(PI_KIND)),vm.py,virtual_pi.py)
# The machines that `make audit` looks at.
INVENTORY ?= $(lastword $(VIRTUAL))

.PHONY: help setup lock engine images up down clean status audit preflight drill probe ssh restart lose rescue-kit vpn-client first-boot bootstrap
.PHONY: docs hooks bench replay seed
.PHONY: test test-full lint unit services backups site harm interruptions molecule molecule-up molecule-down vm disk vpn rebuild faults

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: .venv/.stamp $(if $(FAST),.venv/.fast) ## Build .venv with the newest usable Python

.venv/.stamp: requirements.txt molecule/shared/setup.sh
	@bash molecule/shared/setup.sh

.venv/.fast: requirements-fast.txt .venv/.stamp
	@.venv/bin/pip install -qq --disable-pip-version-check --require-hashes --requirement requirements-fast.txt
	@ln -sfn "$$($(PYTHON) -c 'import ansible_mitogen; print(*ansible_mitogen.__path__)')/plugins/strategy" .venv/mitogen
	@touch $@

# What the rate limiter is measured against.
.venv/.bench: requirements-bench.txt .venv/.stamp
	@.venv/bin/pip install -qq --disable-pip-version-check --require-hashes --requirement requirements-bench.txt
	@bash molecule/shared/host.sh load_tools
	@touch $@

lock: setup ## Pin the requirements anew, the controller's and those of our services
	@for folder in . files/services/*; do (cd $$folder && uv pip compile --quiet --universal --generate-hashes \
	  --no-emit-index-url --python-version 3.11 --upgrade requirements.in --output-file requirements.txt); done
	@for file in fast bench; do uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	  --upgrade $$([ $$file = fast ] || echo --constraint requirements.txt) requirements-$$file.in --output-file requirements-$$file.txt; done

engine:
	@bash molecule/shared/host.sh engine

# Another architecture than this computer's is emulated. In a container that is done program by program: good enough
# to boot a Pi and to judge it (`make up ARCH=arm64` ends with the preflight), not for an engine inside it, which needs
# a kernel of that kind. A virtual machine has one.
FOREIGN := $(filter-out $(HOST_ARCH),$(ARCH))
SHOP := $(if $(filter vm,$(PI_KIND)),yes,$(if $(FOREIGN),,yes))
PLAYBOOK := $(if $(SHOP),site.yml,playbooks/preflight.yml)
OWN_IMAGES := registry $(if $(SHOP),rest-server backup-host notify-host acme-host cloud-init) $(if $(FOREIGN),emulator) $(if $(filter vm,$(PI_KIND)),qemu)
PI_IMAGES := $(if $(SHOP),python postgres valkey nginx n8n restic) $(if $(filter vm,$(PI_KIND)),vm,virtual-pi)

images: setup engine ## Build the images of the virtual Pi and of its services
	@$(PYTHON) molecule/shared/images.py build $(OWN_IMAGES)
	@$(if $(FOREIGN),bash molecule/shared/host.sh emulation)
	@$(PYTHON) molecule/shared/images.py build $(PI_IMAGES) --suite $(PI_SUITE) --arch $(ARCH)

up status drill seed: export ANSIBLE_VAULT_PASSWORD_FILE ?= $(PI_STATE)/vault-password
ifeq ($(INVENTORY),$(lastword $(VIRTUAL)))
audit preflight rescue-kit vpn-client replay: export ANSIBLE_VAULT_PASSWORD_FILE ?= $(PI_STATE)/vault-password
endif

up: images ## Start a virtual Pi and bring up the shop on it
	@$(MACHINE) up
	@$(if $(SHOP),$(PYTHON) molecule/shared/images.py push --arch $(ARCH) --registry "$$($(MACHINE) registry)")
	@ansible-playbook $(VIRTUAL) $(PLAYBOOK)

down: setup engine ## Remove the virtual Pi with its data; built images stay for the next time
	@$(MACHINE) down
	@bash molecule/shared/host.sh emulation_stop
	@bash molecule/shared/host.sh engine_stop
	@rm -rf $(PI_STATE)

clean: setup engine ## Remove the virtual Pi, the built images, the caches and .venv
	@$(MACHINE) down
	@$(PYTHON) molecule/shared/images.py clean
	@bash molecule/shared/host.sh engine_stop
	@rm -rf $(PI_STATE) $(PI_CACHE) .venv

status: setup ## Show what runs on the virtual Pi
	@ansible-playbook $(VIRTUAL) playbooks/verify.yml

audit: setup ## Look at the machines of INVENTORY: drift, health, ages; touches nothing
	@$(PYTHON) ops/audit.py $(INVENTORY)

# SOAK=10: with ten minutes of load on every core.
preflight: setup ## Say whether the machines of INVENTORY are fit, and what to do where not; changes nothing: SOAK=10
	@ansible-playbook -i $(INVENTORY) playbooks/preflight.yml -e preflight_report=true $(if $(SOAK),-e preflight_soak_minutes=$(SOAK))

drill: setup ## Restore everything beside the shop of the virtual Pi, from its farthest copies, and judge it
	@ansible-playbook $(VIRTUAL) playbooks/drill.yml $(if $(FROM),-e repository=$(FROM))

# Where a rescue kit is written to.
KIT ?= rescue

replay: setup ## Hand an event over once more, or all that was given up: make replay ID=17, ID=dead; without ID it lists those
	@ansible-playbook $(INVENTORY:%=-i %) playbooks/replay.yml $(if $(ID),-e replay_id=$(ID))

seed: setup ## Put sample data into the shop of the virtual Pi: 100 products, 50 customers, 200 orders
	@ansible-playbook $(VIRTUAL) playbooks/seed.yml

rescue-kit: setup ## Write what a stranger needs to bring back the machines of INVENTORY: one encrypted file and a page
	@$(PYTHON) ops/rescue_kit.py $(INVENTORY) $(KIT)

# HOST: a machine of the inventory. BOOT: where the boot partition of its card or SSD is mounted; what is missing there is merged.
FIRST_INVENTORY = $(if $(filter file,$(origin INVENTORY)),inventory/production,$(INVENTORY))
NAMED = @[ -n "$(HOST)" ] || { echo "HOST is not set: name a machine of $(FIRST_INVENTORY), make $@ HOST=shop-pi" >&2; exit 2; }

first-boot: setup ## Write what a fresh system needs to be found: make first-boot HOST=shop-pi (BOOT=/media/.../system-boot)
	$(NAMED)
	@$(PYTHON) ops/first_boot.py $(FIRST_INVENTORY) $(HOST) $(if $(BOOT),--boot "$(BOOT)")

bootstrap: setup ## The same for a system that lets in by a password already: make bootstrap HOST=shop-pi
	$(NAMED)
	@$(PYTHON) ops/bootstrap.py $(FIRST_INVENTORY) $(HOST)

# A device of the VPN: NAME=phone; PUBLIC_KEY= of one that has made its key itself; NEW=1 for another key, REMOVE=1 to take it out.
vpn-client: setup ## Add a device to the VPN of INVENTORY and show what it imports: make vpn-client NAME=phone
	@[ -n "$(NAME)" ] || { echo "NAME is not set: say what the device is called, make vpn-client NAME=phone" >&2; exit 2; }
	@$(PYTHON) ops/vpn_client.py $(INVENTORY) $(NAME) $(if $(PUBLIC_KEY),--public-key=$(PUBLIC_KEY)) $(if $(NEW),--new) $(if $(REMOVE),--remove)

probe: setup ## Look at the virtual Pi from outside: all ports, from the house and from afar, IPv4 and IPv6
	@$(MACHINE) up
	@$(PYTHON) molecule/shared/probe.py

lose: setup ## Take the virtual Pi away as a fire would; the far repository stays
	@$(MACHINE) lose

restart: setup ## Restart the virtual Pi, as a power cut would
	@$(MACHINE) restart

ssh: ## Log in to the virtual Pi
	@ssh -F $(PI_STATE)/ssh_config shop-pi

# Four at a time: while one waits for a machine, the others compute. Each prints when it is done; the longest come first.
test: images ## Linters, unit, service, backup, site and fault tests
	@$(MAKE) --no-print-directory --jobs=4 --output-sync=target site backups harm services unit lint

hooks: setup ## Have git check every commit (.pre-commit-config.yaml)
	@pre-commit install

# Tests that call make are no part of the make that called them.
ALONE := MAKEFLAGS= MAKELEVEL=

lint: setup
	ruff check . && ruff format --check .
	mypy
	yamllint --strict .
	ansible-lint --offline
	check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml
	zizmor --offline --quiet --no-progress .github
	@git ls-files -z | xargs -0 $(PYTHON) .ci/refuse_secrets.py

docs: setup ## Write the pages that follow from the source: role READMEs, variables, services, playbooks, decisions
	@$(PYTHON) docs/generate.py

unit: setup
	$(ALONE) pytest tests/unit

# As long as all other service tests together several times over.
BACKUPS := $(wildcard tests/services/test_backup_*.py tests/services/test_drill.py)

backups: setup
	$(ALONE) pytest $(BACKUPS)

services: setup
	$(ALONE) pytest tests/services $(BACKUPS:%=--ignore=%)

site: setup
	$(ALONE) pytest tests/site tests/uninstall

# Machines of its own, so that it need not wait for the other one.
harm: export PI_TEST_STATE ?= .virtual-pi-harm
harm: export PI_TEST_NAME ?= pi-commerce-harm
harm: export PI_TEST_NETWORK ?= 10.211.0
harm: setup
	$(ALONE) pytest tests/faults --ignore=tests/faults/test_interruptions.py

interruptions: images ## Cut runs off at chosen tasks: the next one has to make it good
	$(ALONE) pytest tests/faults/test_interruptions.py

# A machine of its own. It is lost three times over and comes back from what is left, at last from a rescue kit alone.
rebuild: export PI_TEST_STATE ?= .virtual-pi-rebuild
rebuild: export PI_TEST_NAME ?= pi-commerce-rebuild
rebuild: export PI_TEST_NETWORK ?= 10.219.0
rebuild: images ## Lose a shop three times and bring it back on a fresh virtual Pi, with a clock
	$(ALONE) pytest tests/rebuild

# Two machines of its own.
vpn: export PI_TEST_STATE ?= .virtual-pi-vpn
vpn: export PI_TEST_NAME ?= pi-commerce-vpn
vpn: export PI_TEST_NETWORK ?= 10.220.0
vpn: export PI_TEST_SECOND_NETWORK ?= 10.221.0
vpn: images ## Two virtual Pis and devices in one VPN, with real packets; the shop in it is lost and rebuilt
	@$(PYTHON) molecule/shared/images.py build vpn-device
	$(ALONE) pytest tests/vpn

# Lynis judges a kernel, too.
ifeq ($(WHAT),lynis)
bench: export PI_KIND := vm
bench: export PI_TEST_STATE ?= .virtual-pi-lynis
bench: export PI_TEST_NAME ?= pi-commerce-lynis
bench: export PI_TEST_NETWORK ?= 10.222.0
endif

bench: setup $(if $(filter limiter,$(WHAT)),.venv/.bench) ## Measure: make bench WHAT=converge (KEEP=1, RUNS=3, FAST=1); WHAT=pi also with INVENTORY=; WHAT=limiter
	@[ -n "$(WHAT)" -a -f "tests/bench/$(WHAT).py" ] || { echo "WHAT=$(WHAT): set it to one of:" \
	  $(patsubst tests/bench/%.py,%,$(wildcard tests/bench/*.py)) >&2; exit 2; }
	@PYTHONPATH=tests $(PYTHON) -m bench.$(WHAT)

# What is wrong on purpose, by what it is done to; the table of it is printed at the end.
FAULTS_backup := tests/services/test_drill.py tests/services/test_backup_rpo.py
FAULTS_lockout := tests/faults/test_lockout.py tests/site/test_6_probe.py
FAULTS_intake := tests/services/test_intake.py tests/services/test_intake_faults.py
FAULTS_posting := tests/services/test_posting.py tests/services/test_posting_faults.py

faults: images ## Do harm on purpose and see it found: make faults WHAT=backup
	@[ -n "$(FAULTS_$(WHAT))" ] || { echo "WHAT=$(WHAT): set it to backup, lockout, intake or posting" >&2; exit 2; }
	$(ALONE) FULL=1 pytest $(FAULTS_$(WHAT))

# Molecule's machines: one that roles are applied to and one that stays bare.
PI_MOLECULE_NAME ?= pi-commerce-molecule
PI_MOLECULE_NETWORK ?= 10.215.0
PI_BARE_NETWORK ?= 10.216.0
MOLECULE_STATE := $(CURDIR)/.virtual-pi-molecule
BARE_STATE := $(CURDIR)/.virtual-pi-bare
MOLECULE_PI := PI_STATE=$(MOLECULE_STATE) PI_NAME=$(PI_MOLECULE_NAME) PI_NETWORK=$(PI_MOLECULE_NETWORK)
BARE_PI := PI_STATE=$(BARE_STATE) PI_NAME=$(PI_MOLECULE_NAME)-bare PI_NETWORK=$(PI_BARE_NETWORK)

molecule: images ## Test each role by itself, or one: make molecule ROLE=base
	@$(if $(KEEP),,$(MAKE) --no-print-directory molecule-down)
	@$(MAKE) --no-print-directory molecule-up
	@PI_STATE=$(MOLECULE_STATE) PI_ADDRESS=$(PI_MOLECULE_NETWORK).10 PI_BARE_STATE=$(BARE_STATE) \
	  PI_BARE_ADDRESS=$(PI_BARE_NETWORK).10 ANSIBLE_VAULT_PASSWORD_FILE=$(MOLECULE_STATE)/vault-password \
	  $(PYTHON) molecule/shared/scenarios.py $(ROLE)
	@$(if $(KEEP),,$(MAKE) --no-print-directory molecule-down)

molecule-up: setup engine
	@$(MOLECULE_PI) $(PYTHON) molecule/shared/virtual_pi.py up
	@$(BARE_PI) $(PYTHON) molecule/shared/virtual_pi.py up
	@$(PYTHON) molecule/shared/images.py push --registry "$$($(MOLECULE_PI) $(PYTHON) molecule/shared/virtual_pi.py registry)"

molecule-down: setup engine
	@$(MOLECULE_PI) $(PYTHON) molecule/shared/virtual_pi.py down
	@$(BARE_PI) $(PYTHON) molecule/shared/virtual_pi.py down
	@rm -rf $(MOLECULE_STATE) $(BARE_STATE)

# A state folder, a name and a network of its own: it may run beside the others.
vm: export PI_KIND := vm
vm: export PI_TEST_STATE ?= .virtual-pi-vm-$(ARCH)
vm: export PI_TEST_NAME ?= pi-commerce-vm
vm: export PI_TEST_NETWORK ?= 10.217.0
vm: setup engine ## The whole machine with a kernel of its own; ARCH=arm64: one whose device tree says Raspberry Pi 4
	$(ALONE) pytest tests/vm

disk: export PI_KIND := vm
disk: export PI_TEST_STATE ?= .virtual-pi-disk
disk: export PI_TEST_NAME ?= pi-commerce-disk
disk: export PI_TEST_NETWORK ?= 10.223.0
disk: setup engine ## A disk for the data in a virtual machine: refused, taken, grown, pulled, cut off from power twenty times
	$(ALONE) pytest tests/disk

test-full: setup ## `make test` and what takes longer: interruptions, rebuilds, each role by itself, the virtual machine
	@$(MAKE) --no-print-directory test interruptions rebuild molecule vpn vm disk
	@$(MAKE) --no-print-directory faults WHAT=backup
	@$(MAKE) --no-print-directory faults WHAT=lockout
	@$(MAKE) --no-print-directory faults WHAT=intake
	@$(MAKE) --no-print-directory faults WHAT=posting
