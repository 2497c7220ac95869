# A few lines each; the work is in scripts beside what they serve.
.PHONY: test lint bench

# All tests, with everything that they need installed and started by them.
test: lint
	tests/run

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# Prints ratios against a yardstick of the same run; see benches/README.md.
bench:
	cargo bench --locked
