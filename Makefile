# A few lines each; the work is in scripts beside what they serve.
.PHONY: test lint bench manifests image-check sbom deny

# All tests, with everything that they need installed and started by them.
test: lint
	tests/run

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings

# Prints ratios against a yardstick of the same run; see benches/README.md.
bench:
	cargo bench --locked

# Renders deploy/kubernetes from the chart, and the dashboard from its script.
manifests:
	tests/servers/install
	deploy/manifests
	python3 deploy/grafana/dashboard.py >deploy/grafana/trunkline.json

# Runs the program in a root that holds only what the image would hold.
image-check:
	cargo build --locked --bin trunkline
	deploy/image-check

# A CycloneDX bill of materials, target/sbom.cdx.json.
sbom:
	deploy/sbom

# Licences, bans, sources and advisories, by deny.toml. Asks the network for advisories, and builds cargo-deny once (minutes): not part of test.
deny:
	command -v cargo-deny >/dev/null || cargo install cargo-deny --locked --version 0.20.2
	cargo deny check
