# `make help` lists the targets. CI runs the target `test` too, by way of `.ci/run`.

CARGO ?= cargo
EVENTS ?= 10000
# A shell that is no login shell may lack rustup's directory in PATH, so it is added.
export PATH := $(PATH):$(HOME)/.cargo/bin
install := ./deploy/dev/install-services.sh
# Cargo options for the fastest build: see the profile `demo` and the feature `jemalloc` in
# Cargo.toml.
quick := --locked --profile demo --no-default-features --bin postrider

.DEFAULT_GOAL := help
.PHONY: help demo dev quick-build test torture versions mutants drivers bench ci fmt lint doc deny

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1: /p' Makefile | awk -F': ' '{ printf "make %-7s %s\n", $$1, $$2 }'

demo: ## throwaway servers, 10,000 events through the relay, a report (EVENTS=n for more)
	@echo '==> services: Postgres and nats-server'
	@$(install) servers
	@$(MAKE) --no-print-directory quick-build
	@echo '==> demo'
	@$(CARGO) run --quiet $(quick) -- dev --once --events $(EVENTS)

dev: ## throwaway servers, a small producer, a relay and a consumer, until Ctrl-C
	@echo '==> services: Postgres and nats-server'
	@$(install) servers
	@$(MAKE) --no-print-directory quick-build
	@$(CARGO) run --quiet $(quick) -- dev

# Builds the program for `demo` and `dev`. In a terminal Cargo shows a progress bar, and elsewhere a
# line for each crate.
quick-build:
	@crates=$$($(CARGO) tree --locked --no-default-features --edges normal,build --prefix none \
		--no-dedupe | sort -u | wc -l | tr -d ' '); \
	echo "==> build: $$crates crates, the first time in two or three minutes on two cores;" \
		"the program comes last"
	@$(CARGO) build $(quick)

test: ## everything, with a real Postgres and a real nats-server
	@echo '==> services: Postgres, nats-server, PgBouncer, Python, systemd-analyze, libfaketime'
	@$(install) servers pgbouncer examples systemd faketime
	@echo '==> build (the first time takes some minutes)'
	@$(CARGO) test --locked --features failpoints --no-run
	@echo '==> test'
	@$(CARGO) test --locked --features failpoints --no-fail-fast
	@echo '==> all tests passed'

torture: ## the fault suite (TIER=nightly FAULT=K1 ITERATIONS=300 SEED=7 JOBS=4)
	@echo '==> services: Postgres, nats-server, PgBouncer, libfaketime'
	@$(install) servers pgbouncer faketime
	@echo '==> torture'
	@TIER='$(TIER)' FAULT='$(FAULT)' ITERATIONS='$(ITERATIONS)' SEED='$(SEED)' JOBS='$(JOBS)' \
		$(CARGO) test --locked --features failpoints --test torture

versions: ## the core of the suite against the oldest and newest PostgreSQL and nats-server
	@./deploy/dev/versions.sh

mutants: ## does the torture suite notice planted defects? (an hour; needs a clean tree)
	@$(install) servers pgbouncer
	@./tests/torture/mutants/run.sh

drivers: ## emit() through node-postgres, pgx and JDBC (DRIVERS='node go java'; default: what is here)
	@$(install) servers
	@$(CARGO) build --locked --bin postrider
	@./tests/drivers/run.sh $(DRIVERS)

bench: ## the benchmark, in a release build (BENCH=quick ends within three minutes)
	@echo '==> services: Postgres and nats-server'
	@$(install) servers
	@echo '==> bench'
	@$(CARGO) bench --locked --bench relay -- $(addprefix --,$(BENCH))

ci: ## formatting, lints, documentation, tests (with the systemd unit), dependencies
	@echo '==> fmt'
	@$(CARGO) fmt --check
	@$(MAKE) --no-print-directory lint doc test deny
	@echo '==> ci passed'

fmt: ## format the source
	@$(CARGO) fmt

lint:
	@echo '==> clippy'
	@$(CARGO) clippy --locked --all-targets -- -D warnings

doc:
	@echo '==> doc'
	@RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps

deny:
	@echo '==> deny'
	@if $(CARGO) deny --version >/dev/null 2>&1; then $(CARGO) deny --locked check; \
	else echo 'cargo-deny is not installed: licences and advisories are not checked (cargo install cargo-deny)'; fi
