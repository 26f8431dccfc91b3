#!/usr/bin/env bash
# Installs what the tests need and passes all of them. Root: the tests make network namespaces and start Docker.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/setup.sh
need_build_tools
need_packages docker.io containernetworking-plugins containerd runc busybox-static iptables conntrack tshark tcpdump zstd chromium-driver prometheus python3 python3-venv postgresql openssl softflowd nfdump
# What cannot be had is left out and said, and is a failure of CI.
skipped=''
skip() {
  say "skipped: $1"
  [ "${CI:-}" != true ] || exit 1
  skipped="${skipped:+$skipped; }$1"
}
# Kubernetes is built beside the Rust build, which often leaves a core idle. Without root the tests that need it say so.
builder='' builder_log=$(mktemp)
trap '[ -z "$builder" ] || kill -TERM -- "-$builder" 2>/dev/null || true; rm -f "$builder_log"' EXIT
if [ "$(id -u)" -eq 0 ]; then
  setsid tests/cluster/build.sh >/dev/null 2>"$builder_log" &
  builder=$!
fi
if ! cargo nextest --version >/dev/null 2>&1; then
  say "installing cargo-nextest"
  # Unoptimised and without its updater: a third of the time, and it only starts tests.
  cargo install --locked --debug --no-default-features --features default-no-update cargo-nextest >&2
fi
say "other readers of the data directory"
tests/python.sh tests/readers >/dev/null || skip "other readers of the data directory, from PyPI"
say "a receiver of OpenTelemetry logs"
tests/python.sh tests/receiver >/dev/null || skip "the receiver of OpenTelemetry logs, from PyPI"
say "format and lints"
cargo fmt --all --check
cargo clippy --release --locked --workspace --all-targets -- -D warnings
if command -v npm >/dev/null; then
  say "the page: types, unit tests, and the committed build is what the sources make"
  scripts/ui.sh check
else
  skip "the page's checks, which need npm"
fi
if [ -n "$builder" ]; then
  say "waiting for Kubernetes"
  wait "$builder" || { cat "$builder_log" >&2; skip "tests with Kubernetes, which could not be built"; }
  builder=''
fi
say "tests"
cargo nextest run --cargo-profile release --locked --workspace "$@"
say "examples in the documentation"
cargo test --release --locked --workspace --doc --quiet
RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --release --locked --workspace --no-deps --document-private-items --quiet
say "all tests passed${skipped:+, without these: $skipped}"
