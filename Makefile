# Short names for what a person types and CI runs; anything longer than a command lives in scripts/.

.DEFAULT_GOAL := help

# cargo and go already use every core, and the phases of `test` are meant to fail in order, the cheapest first.
.NOTPARALLEL:

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: ## start a hub with the default settings
	cargo run --release -- serve

.PHONY: build
build: ## build the release binary, target/release/switchyard
	cargo build --release --locked

.PHONY: tools
tools: ## install what the tests need into .tools/
	scripts/install-tools.sh
	examples/generate.sh

# Built together, so that what they share is built once.
TESTED := --package switchyard --package switchyard-client --package switchyard-conformance

.PHONY: test
test: lint ## check and test everything, installing what it needs
	cargo build --locked --features tools-tests $(TESTED) --bins --examples
	cargo test --locked --features tools-tests $(TESTED)
	$(MAKE) autobahn AUTOBAHN_CASES="$(PROTOCOL)"
	cargo test --locked --package switchyard-client --all-features -- telemetry tracer_provider
	$(MAKE) typescript

.PHONY: torture
torture: ## kill the hub 500 times while it works, back it up 30 times, simulate 500 seeds, 30 minutes of reconnects: docs/testing.md
	TORTURE_KILLS=$${TORTURE_KILLS:-500} cargo test --locked --test it kill:: -- --nocapture
	TORTURE_BACKUPS=$${TORTURE_BACKUPS:-30} cargo test --locked --test it backups:: -- --nocapture
	SIMULATION_SEEDS=$${SIMULATION_SEEDS:-500} cargo test --locked --test simulation -- --nocapture
	$(MAKE) conformance CONFORMANCE_FLAGS='--scenario churn --long'

.PHONY: conformance
conformance: ## try out the rules of clients/SPEC.md on the Rust client, or another: clients/conformance/README.md
	cargo build --locked --features tools-tests $(TESTED) --bins
	$${CARGO_TARGET_DIR:-target}/debug/switchyard-conformance $(CONFORMANCE_FLAGS)

# What a client does in all cases; the others with `make conformance`.
CORE := cut-while-idle cut-in-a-frame cut-before-the-answer hub-stops tokens resume-point-lost member-is-cut leases windows \
	live-gap queue-is-full drains

# The rules of the protocol. What is left out, large messages, takes half a minute more.
PROTOCOL := 1.* 2.* 3.* 4.* 5.* 6.* 7.* 10.*

.PHONY: autobahn
autobahn: ## play the Autobahn test suite against the codec of WebSocket; AUTOBAHN_CASES='5.* 7.1.6' for some of it
	CARGO_FLAGS='--locked --features tools-tests $(TESTED)' scripts/autobahn.sh $(foreach case,$(AUTOBAHN_CASES),'$(case)')

.PHONY: typescript
typescript: ## test the TypeScript client, and play the scenarios of the judge with it that matter most
	npm test --prefix clients/typescript
	cargo build --locked --features tools-tests $(TESTED) --bins
	$${CARGO_TARGET_DIR:-target}/debug/switchyard-conformance --listener web \
		--driver 'node clients/typescript/build/driver/main.js' $(addprefix --scenario ,$(CORE))

.PHONY: lint
lint: tools ## check formatting, lints, dependencies, the protos and the manifests
	cargo fmt --check
	cargo clippy --locked --all-targets --features tools-tests -- -D warnings
	cargo clippy --locked --package switchyard-client --all-targets -- -D warnings
	cargo clippy --locked --package switchyard-client --all-targets --all-features -- -D warnings
	cargo clippy --locked --package switchyard-conformance --all-targets -- -D warnings
	cargo clippy --locked --package switchyard-versus -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --package switchyard-client --all-features --no-deps
	.tools/bin/buf lint
	scripts/check-dependencies.sh
	scripts/check-k8s.sh

.PHONY: fmt
fmt: ## format the Rust code
	cargo fmt

# Built one after the other: together, the hub would get dependencies with features that only the comparison needs.
.PHONY: bench
bench: ## measure hub, NATS and bare tonic side by side: 10 minutes on an otherwise idle machine
	scripts/install-bench-tools.sh
	cargo build --release --locked
	cargo build --release --locked --package switchyard-versus
	target/release/switchyard-versus $(BENCH_FLAGS)

.PHONY: siege
siege: ## let one client attack a hub in every known way, and measure what a healthy pair sees: 5 minutes
	cargo bench --locked --bench siege -- $(SIEGE_FLAGS)

.PHONY: reconnect
reconnect: ## restart a hub under a client with 10,000 subscriptions and under 1,000 clients, and measure when they are back
	cargo bench --locked --bench reconnect -- $(RECONNECT_FLAGS)

.PHONY: clean
clean: ## remove what was built; .tools/ stays, since it takes minutes to make
	cargo clean
