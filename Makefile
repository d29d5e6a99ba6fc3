# Each target is one command that one could type.

VERSION ?= v1.3.0
HASH    := $(shell git rev-parse --short HEAD 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION) -X main.hash=$(HASH)

export GOFLAGS += -buildvcs=false

.PHONY: build run demo test lint scan chart bench fuzz packages fire

build:
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/... ./examples/...

# The server, with config/config.toml if there is one.
run: build
	bin/rtcd

# The server and the example backend with its page; prints a link to open in two tabs.
demo: build
	bin/huddle -start bin/rtcd

test:
	go run ./build/testall

lint:
	go run ./build/lint

# staticcheck, gosec, and known vulnerabilities that our code reaches: 5 minutes, most of them to build the tools.
scan:
	go run ./build/scan

# Helm lints and renders the Kubernetes chart, and its objects are decoded strictly. Builds Helm (6 minutes) unless
# there is one.
chart:
	command -v helm >/dev/null || GOFLAGS=-mod=mod go install helm.sh/helm/v3/cmd/helm@v3.17.3
	PATH="$$PATH:$$(go env GOPATH)/bin" RTCD_PACKAGE_TESTS=1 go test -count=1 -run TestChart -v ./build/package

# What forwarding costs: each stage, then whole servers. Takes 40 minutes and writes docs/performance;
# BENCH=-quick takes a few minutes and writes nothing.
bench:
	go run ./build/bench $(BENCH)

# Every fuzz target for 30 seconds; FUZZTIME=5m make fuzz for more, FUZZ=-count to keep count.
fuzz:
	go run ./build/fuzzall $(FUZZ)

# Faults are injected into a real server, and what is promised of it is checked: hours, as root, on Linux.
# FIRE=-quick takes less than 10 minutes; FIRE='-run F11' is one scenario. Status 4: nothing was shown.
fire:
	go run ./build/fire $(FIRE)

# The deb and the rpm, in dist/.
packages:
	build/package/build.sh $(VERSION)
