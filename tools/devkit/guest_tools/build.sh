#!/bin/bash
# Builds the published tools that the `vm` lane runs in its guest, from crates.io, unmodified: build.sh OUT_DIR
# leaves them in OUT_DIR/bin. What is there already is kept; a lock file holds every version.
set -euo pipefail
[[ $# -eq 1 ]] || { echo "usage: build.sh OUT_DIR" >&2; exit 2; }
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "$1"
out=$(cd "$1" && pwd)

# Built to be built fast: each runs once. OpenSSL is Debian's, here and in the guest, instead of a build of its own.
export CARGO_PROFILE_DEV_DEBUG=0 CARGO_PROFILE_DEV_INCREMENTAL=false OPENSSL_NO_VENDOR=1
export CARGO_TARGET_DIR=$out/build CARGO_TERM_COLOR=never
# The flags of whoever called are for his own programs.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS

cargo install --quiet --debug --locked --root "$out" snpguest --version 0.11.0
cargo build --quiet --locked --manifest-path "$here/Cargo.toml" --bins
install -s -m 755 -t "$out/bin" "$out/build/debug/read-evidence" "$out/build/debug/attest-guest"
strip "$out/bin/snpguest"
