# The two commands of the README, and what a developer adds to them. One build serves all.
.PHONY: demo test build setup check bench down clean

demo: build
	scripts/demo.sh

test: build
	cargo xtask test

build: setup
	cargo build

setup:
	@scripts/setup.sh

check:
	cargo xtask check

bench:
	cargo bench --workspace

down:
	target/debug/casemate down

clean: down
	cargo clean
