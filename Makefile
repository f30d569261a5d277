# The commands that CI runs. `make help` lists them.

.PHONY: help run test lint page-types screenshots minimum-rust needs chaos soak attack attack-calls fuzz bench bench-micro deb

# For `make minimum-rust`.
MINIMUM_RUST := $(shell sed -n 's/^rust-version = "\(.*\)"$$/\1/p' Cargo.toml)

# For `make chaos`: the same seed gives the same faults. ON is `single`, `cluster` or `embedded`.
SEED ?= 1
SECONDS ?= 600
ON ?= single
CHAOS_BUILD ?= --release

# For `make soak`; its options are those of `cargo bench --bench soak -- --help`.
SOAK_SECONDS ?= 1800
SOAK_BUILD ?=
SOAK_OPTIONS ?=

# For `make attack`: the number of calls of each route.
ATTACK_CASES ?= 300

# For `make fuzz`: seconds for each target, and the targets (all of them by default).
FUZZ_SECONDS ?= 180
FUZZ_TARGETS ?=
FUZZ_BUILD ?=

# For `make bench`: one row (`make bench ROW=post-redis`) or all, and other options of the tool.
ROW ?=
BENCH_OPTIONS ?=

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Serve on 127.0.0.1:8080, with the data in ./data
	cargo run --release

test: needs lint ## Lint, then run all tests; installs missing programs, if permitted
	@if cargo nextest --version >/dev/null 2>&1; \
	then cargo nextest run --locked --no-fail-fast; \
	else cargo test --locked --no-fail-fast; fi

chaos: needs ## Inject random faults under load, then count lost writes: SEED=1 SECONDS=600 ON=single|cluster|embedded
	@tests/install-programs.sh chaos
	cargo test --locked $(CHAOS_BUILD) --test chaos -- --seed $(SEED) --seconds $(SECONDS) --on $(ON)

soak: needs ## Run a steady load with peaks; fails if memory or files keep growing: SOAK_SECONDS=1800
	cargo bench --locked $(SOAK_BUILD) --bench soak -- --seconds $(SOAK_SECONDS) $(SOAK_OPTIONS)

attack: attack-calls fuzz ## Run `attack-calls`, then `fuzz`

attack-calls: ## Send random and hostile calls to every route, on both stores: ATTACK_CASES=300 for each
	@tests/install-programs.sh attack
	tests/attack/run.sh $(ATTACK_CASES)

fuzz: ## Feed random input to parsers and the timeline: FUZZ_SECONDS=180 for each
	@tests/install-programs.sh fuzz
	FUZZ_BUILD="$(FUZZ_BUILD)" fuzz/run.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

bench: ## Measure speed, compared with an HTTP ceiling and raw Redis: ROW=post-redis for one row
	@tests/install-programs.sh bench
	cargo build --locked --release --example ceiling
	cargo bench --locked --bench compare -- $(if $(ROW),--row $(ROW)) $(BENCH_OPTIONS)

bench-micro: ## Run micro-benchmarks of the steps of a request
	cargo bench --locked --bench micro

deb: ## Build the Debian package in target/debian; needs cargo-deb
	cargo build --locked --release
	mkdir -p target/completions
	target/release/anomaly-counter completions bash >target/completions/anomaly-counter
	target/release/anomaly-counter completions zsh >target/completions/_anomaly-counter
	target/release/anomaly-counter completions fish >target/completions/anomaly-counter.fish
	cargo deb --locked --strip

lint: ## Check format, clippy and documentation, with warnings as errors
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
	@$(MAKE) --no-print-directory page-types

# npm's package of TypeScript contains a native program, which Node starts.
page-types: ## Check the types in the page's scripts with TypeScript; skipped if Node is not installed
	@tests/install-programs.sh page
	@tsc="$${CARGO_TARGET_DIR:-target}/page-tools/node_modules/.bin/tsc"; \
	if [ -e "$$tsc" ]; then "$$tsc" --project src/http/page; fi

screenshots: needs ## Take the pictures in docs/pictures, of a seeded service in a real Chromium
	cargo test --locked --test it -- --ignored --exact browser::screenshots::pictures_of_a_shop_are_taken

minimum-rust: ## Compile with the oldest Rust that Cargo.toml promises, which rustup installs
	rustup toolchain install $(MINIMUM_RUST) --profile minimal
	cargo +$(MINIMUM_RUST) check --locked --all-targets

needs: ## Install the programs that the tests start, or print what to install
	@tests/install-programs.sh
