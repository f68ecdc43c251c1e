# Two targets are for users: `make demo` and `make test`. `make help` lists the rest.
SHELL   := /bin/bash
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT  ?= $(shell git rev-parse --short=8 HEAD 2>/dev/null || echo unknown)
DATE    ?= $(shell git log -1 --format=%cI 2>/dev/null || date -u +%Y-%m-%dT%H:%M:%SZ)
LDFLAGS := -s -w -X main.version=$(VERSION) -X main.commit=$(COMMIT) -X main.date=$(DATE)
GO      ?= go
LINT    := bin/golangci-lint
TARGETS := linux/amd64 linux/arm64 darwin/arm64 windows/amd64 freebsd/amd64

.PHONY: help build demo hpc-demo test helper-image allocs lint fmt gen check-generated cross packages package-test fuzz bench bench-shell bench-docker bench-machines bench-batch bench-pool bench-archive bench-cache bench-log bench-watch tour clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | sort

build: ## build bin/tranter, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/tranter ./cmd/tranter

demo: build ## build, then run the sample pipeline through coordinator and runner on this machine
	@tools/setup demo
	bin/tranter demo

hpc-demo: build ## install and start a small Slurm cluster, then run the pipeline of examples/hpc in its batch jobs
	tools/hpc-demo

# The tests of two packages run at a time, the longest first. What they don't need is left out: `make lint` vets the code, and
# `make fuzz` tries properties more often.
test: ## install what the tests need (Debian), start a container engine if none runs, and run them all with the race detector
	tools/setup test
	cd tools/s3gateway && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o ../../bin/versitygw github.com/versity/versitygw/cmd/versitygw
	cd tools/labdriver && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o ../../bin/docker-machine-driver-lab .
	CGO_ENABLED=1 GORACE=atexit_sleep_ms=50 RAPID_CHECKS=30 $(GO) test -race -vet=off -ldflags=-w -timeout 14m ./internal/conformance ./internal/executor/docker ./...

helper-image: ## make the docker executor's helper image in the local engine (tools/helper-image --help)
	VERSION='$(VERSION)' tools/helper-image

campaign: ## the long kill campaigns: over the shell executor (200 kills of the manager), the docker executor (100 kills of the manager, 20 restarts of the engine), over machines (200 kills; a burst), and over batch jobs of Slurm (200 jobs, 50 kills)
	tools/setup test
	CAMPAIGN=full $(GO) test -count=1 -v -timeout 20m -run 'TestKillCampaign(OverDocker)?$$' ./internal/conformance
	CAMPAIGN=full $(GO) test -count=1 -v -timeout 10m -run TestABurstOfJobsHasNoMoreMachines ./internal/conformance
	CAMPAIGN=full $(GO) test -count=1 -v -timeout 60m -run TestKillCampaignOverMachines ./internal/conformance
	CAMPAIGN=full $(GO) test -count=1 -v -timeout 20m -run TestKillCampaignOverSlurm ./internal/conformance

allocs: ## fail when a hot path allocates more than it did (bench/allocs)
	$(GO) test ./bench/allocs

tour: ## take the pictures of docs/tour.md anew, of a real run in Chromium (needs Docker, as tests do)
	TRANTER_TOUR=1 TRANTER_SCREENSHOTS=$(CURDIR)/docs/images $(GO) test -count=1 -v -timeout 10m -run TestTheWebPageOfARealRun ./internal/conformance
	mkdir -p dist && mv docs/images/top.txt dist/tour-top.txt # for the block of text in docs/tour.md

lint: $(LINT) ## golangci-lint, at the version pinned in tools/go.mod
	$(LINT) run ./...

$(LINT): tools/go.mod
	cd tools && $(GO) build -trimpath -o ../$(LINT) github.com/golangci/golangci-lint/v2/cmd/golangci-lint

fmt: $(LINT) ## format the code
	$(LINT) fmt ./...

gen: ## write the generated parts of docs/
	$(GO) run ./cmd/tranter docs --dir docs/reference

check-generated: gen ## fail when generated files are not current
	@test -z "$$(git status --porcelain -- docs/reference)" || { git --no-pager diff -- docs/reference; \
	  echo 'docs/reference is not current: run "make gen" and commit the result' >&2; exit 1; }

cross: ## build for every supported system
	@for t in $(TARGETS); do echo "build $$t"; \
	  CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o dist/tranter-$${t%/*}-$${t#*/} ./cmd/tranter || exit 1; done

packages: ## build what a release consists of into dist/release: deb, rpm, container images, SBOM, checksums
	VERSION='$(VERSION)' COMMIT='$(COMMIT)' DATE='$(DATE)' LDFLAGS='$(LDFLAGS)' tools/package

package-test: packages ## install, upgrade, restart, stop and remove the packages where systemd runs, in a container; jobs go on
	tools/setup package-test
	tools/package-test dist/release

fuzz: ## try every property 1000 times, and run every fuzz target for FUZZTIME (default 30s)
	tools/fuzz $(or $(FUZZTIME),30s)

bench: ## run the benchmarks
	$(GO) test -run '^$$' -bench . -benchmem ./...

bench-shell: build ## throughput, time per job, memory and log rate of the runner with the shell executor
	$(GO) run ./bench/shell

bench-docker: build ## time, throughput, processor time and engine calls per job of the runner with the docker executor
	$(GO) build -o bin/bench-docker ./bench/docker
	bin/bench-docker

bench-machines: build ## warm and cold starts, bursts, processor time and memory of the runner with machines on demand
	cd tools/labdriver && CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o ../../bin/docker-machine-driver-lab .
	$(GO) build -o bin/bench-machines ./bench/machines
	bin/bench-machines

bench-batch: build ## submissions, polling, processor time and time to the first line of a job of the runner with batch jobs, on a real Slurm
	tools/setup hpc-demo
	$(GO) build -o bin/bench-batch ./bench/batch
	bin/bench-batch

bench-pool: ## time, processor time and memory of a pool with thousands of machines and jobs, over a simulated provider
	$(GO) build -o bin/bench-pool ./bench/pool
	bin/bench-pool

bench-log: build ## rate, processor time and memory of the agent while a job prints, and of the manager with 1 GB of log
	$(GO) run ./bench/log
	$(GO) run ./bench/shell -concurrent '' -log 1024

bench-archive: build ## time and memory of packing, uploading, downloading and unpacking artifacts
	$(GO) run ./bench/archive

bench-cache: build ## time and memory of packing, uploading, downloading and unpacking caches
	$(GO) run ./bench/cache

bench-watch: ## time and processor time of the web page, the metrics and the history with thousands of machines and jobs
	$(GO) build -o bin/bench-watch ./bench/watch
	bin/bench-watch

clean: ## remove what was built
	rm -rf bin dist
