# `make help` lists the targets. CI runs the same ones, by way of .ci/run.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

GO ?= go
TIMEOUT ?= 30m
FUZZTIME ?= 100000x
FOR ?= 20m
NEXT_GO ?= go1.27.1
POSTGRES ?= newest
PACKAGES ?= ./...
STATICCHECK ?= honnef.co/go/tools/cmd/staticcheck@v0.8.2

# Every module below the root's, each with dependencies of its own.
NESTED := $(patsubst %/go.mod,%,$(sort $(wildcard */go.mod */*/go.mod)))
SERVICES := scripts/services run --

.PHONY: help
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

.PHONY: demo
demo: cgo ## run examples/quickstart against a private PostgreSQL
	@$(SERVICES) $(GO) run ./examples/quickstart

.PHONY: processes
processes: cgo ## run examples/processes: two programs, one Redis, and a kill -9
	@$(SERVICES) $(GO) run ./examples/processes

.PHONY: examples
examples: cgo ## run the programs of examples/ and compare what they print
	@CACHEDPG_TEST_REQUIRE=1 $(SERVICES) $(GO) test -count=1 ./examples/...
	@$(SERVICES) env -C contrib/kafka GOWORK=off CACHEDPG_TEST_REQUIRE=1 $(GO) test -count=1 ./example/...

# What a test writes need not survive this machine.
test test-postgres test-kafka examples stress precision: export CACHEDPG_SERVICES_FSYNC := off

.PHONY: test
test: cgo ## run every test, with the services that they need
	@$(SERVICES) $(MAKE) test-root test-bound test-budgets test-next test-nested

.PHONY: test-postgres
test-postgres: export CACHEDPG_POSTGRES := $(POSTGRES)
test-postgres: cgo ## run the tests that ask PostgreSQL on one that npm brings (POSTGRES=newest, 17, …)
	@$(SERVICES) $(MAKE) test-root PACKAGES=". ./catalog ./cmd/... ./examples/... ./internal/... ./test/..."

.PHONY: test-kafka
test-kafka: cgo ## run the tests of contrib/kafka on a real Kafka too, which Maven brings (120 MB)
	@$(SERVICES) scripts/services kafka env -C contrib/kafka GOWORK=off CACHEDPG_TEST_REQUIRE=1 \
		$(GO) test -race -count=1 -timeout=$(TIMEOUT) -bench=. -benchtime=20x ./...

# In these a missing service is a failure, not a skip.
.PHONY: test-root test-bound test-budgets test-next test-nested
test-root test-bound test-budgets test-next test-nested: export CACHEDPG_TEST_REQUIRE := 1
# Two packages at a time with two tests each: leases do not stand more than four on a small machine.
test-root:
	$(GO) test -race -shuffle=on -p=2 -parallel=2 -timeout=$(TIMEOUT) $(PACKAGES)

# The specification holds as well where connections to PostgreSQL are bounded.
BOUND = ./driver_test.go ./test/connections/escape_test.go ./test/connections/connectors_test.go ./test/connections/foreign_test.go ./test/connections/idle_test.go \
	./test/reads/reads_test.go ./test/session/sessionstate_test.go ./test/session/state_test.go ./test/session/transactions_test.go \
	./test/session/transactions_texts_test.go ./test/session/rights_test.go
test-bound:
	CACHEDPG_TEST_MAX_CONNS=8 $(GO) test -p=2 -parallel=2 -timeout=$(TIMEOUT) \
		-run="^($$(grep -ho '^func Test[A-Za-z0-9]*' $(BOUND) | cut -d' ' -f2 | paste -sd'|'))$$" $(sort $(dir $(BOUND)))

# The race detector allocates too, so allocation budgets are kept without it.
test-budgets:
	$(GO) test -run='Budget|Allocation|ParsedTwice' -timeout=$(TIMEOUT) ./internal/core ./test/reads ./test/through

# database/sql asks drivers for more from the next Go release on. What most of it takes is to compile
# PostgreSQL's parser for that one, which these tests use too little of to have it optimized.
test-next:
	GOTOOLCHAIN=$(NEXT_GO) CGO_CFLAGS=-O0 $(GO) test -run='^TestEvery(Type|Shape)' -timeout=$(TIMEOUT) . ./test/reads
test-nested:
	@for module in $(NESTED); do \
		echo "$$module:"; \
		(cd $$module && export GOWORK=off && $(GO) vet ./... && \
			$(GO) test -race -shuffle=on -timeout=$(TIMEOUT) -bench=. -benchtime=1x ./...); \
	done

# Each of the five prints its seed and how to run it again.
.PHONY: stress
stress: cgo ## random schemas, statements, sessions and applications for FOR (20m) each, PostgreSQL and pgx the judges
	@CACHEDPG_TEST_REQUIRE=1 $(SERVICES) $(GO) test -count=1 -v -timeout=0 ./test/beside -beside.duration=$(FOR)
	@CACHEDPG_TEST_REQUIRE=1 $(SERVICES) $(GO) test -count=1 -v -timeout=0 -run='^TestPostgresJudgesRandomStatements$$' ./internal/core -judge.duration=$(FOR)
	@CACHEDPG_TEST_REQUIRE=1 $(SERVICES) $(GO) test -count=1 -v -timeout=0 \
		-run='^(TestGeneratedStatementsAgreeWithPostgreSQL|TestRandomSessionsReadWhatPostgreSQLGives)$$' \
		./test/judge -generated.duration=$(FOR) -differential.duration=$(FOR)
	@CACHEDPG_TEST_REQUIRE=1 $(SERVICES) $(GO) test -count=1 -v -timeout=0 -run='^TestStress$$' ./test/stress -stress.duration=$(FOR)

.PHONY: precision
precision: cgo ## count how many of the possible hits the driver has (PRECISION="-precision.seed=7"), see docs/precision.md
	@CACHEDPG_TEST_REQUIRE=1 $(SERVICES) $(GO) test -count=1 -v -timeout=0 -run='^TestPrecision$$' \
		./test/precision -precision.operations=8000 -precision.writes=1,10,30 -precision.seed=1 $(PRECISION)

.PHONY: bench-once
bench-once: cgo ## run every benchmark of the root module once, so that none can rot
	@CACHEDPG_TEST_REQUIRE=1 $(SERVICES) $(GO) test -run='^$$' -bench=. -benchtime=1x -timeout=$(TIMEOUT) ./...

.PHONY: bench
bench: cgo ## measure cachedpg, pgx and other caches; print ratios (BENCH="-rounds 31")
	@$(SERVICES) env -C bench GOWORK=off $(GO) run ./cmd/report $(BENCH)

.PHONY: chaos
chaos: cgo ## break everything under several processes and check their histories (CHAOS="-duration 10m -seed 7")
	@bin=$$(scripts/services bin) && env -C chaos GOWORK=off CACHEDPG_POSTGRES_BIN=$$bin $(GO) run . $(CHAOS)

.PHONY: model
model: ## check the protocol's model with spin, and that its simplifications fail
	@scripts/services tool spin
	@invalidation/model/run

# Inputs are counted: before Go 1.27 a target fails now and then when a time is up (golang/go#75804).
.PHONY: fuzz
fuzz: cgo ## run each fuzz target with FUZZTIME inputs (100000x)
	@for dir in $$(grep -rl --include='*_test.go' --exclude-dir='.?*' '^func Fuzz' . | xargs -r -n1 dirname | sort -u); do \
		for target in $$($(GO) test -list '^Fuzz' $$dir | grep '^Fuzz'); do \
			echo "$$dir $$target"; \
			$(GO) test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZTIME) -timeout=$(TIMEOUT) $$dir; \
		done; \
	done

.PHONY: lint
lint: cgo ## gofmt, go vet, staticcheck and go mod tidy, in every module
	@files=$$(gofmt -s -l *.go */); [ -z "$$files" ] || { echo "gofmt -s is due: $$files" >&2; exit 1; }
	@for module in . $(NESTED); do \
		echo "lint $$module"; \
		(cd $$module && export GOWORK=off && $(GO) mod tidy -diff && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...); \
	done

.PHONY: cover
cover: cgo ## show the test coverage by package, and write coverage.out
	@CACHEDPG_TEST_REQUIRE=1 $(SERVICES) $(GO) test -coverpkg=./... -coverprofile=coverage.out -timeout=$(TIMEOUT) ./... >/dev/null
	@$(GO) tool cover -func=coverage.out | tail -n 1

.PHONY: ci
ci: ## everything that CI runs
	@bash .ci/run

.PHONY: services
services: ## start PostgreSQL and Redis, and print the variables that tests need
	@scripts/services start

.PHONY: stop
stop: ## stop PostgreSQL and Redis
	@scripts/services stop

# PostgreSQL's own parser is C. Without a compiler Go switches cgo off by itself.
.PHONY: cgo
cgo:
	@command -v $(GO) >/dev/null || { echo "Go is not installed, or not in PATH" >&2; exit 1; }
	@compiler=$$($(GO) env CC); command -v $${compiler%% *} >/dev/null || { \
		echo "cachedpg needs a C compiler for PostgreSQL's parser, and $${compiler%% *} is not there: apt-get install gcc libc6-dev" >&2; exit 1; }
	@[ "$$($(GO) env CGO_ENABLED)" = 1 ] || { \
		echo "cachedpg needs cgo for PostgreSQL's parser, and it is switched off: set CGO_ENABLED=1" >&2; exit 1; }
