# The two commands of the README, and what a developer adds to them. One build serves all.
.PHONY: demo test build setup check bench down clean

demo: build
	scripts/demo.sh

# Not `cargo xtask`: that would select other features of its dependencies, and compile them again.
test: build
	target/debug/xtask test

build: setup
	cargo build

setup:
	@scripts/setup.sh

check:
	cargo xtask check

# The engines are built for speed; the platform is measured as `make build` makes it.
bench: build
	cargo bench -p sealed_disk --bench encrypt_image
	cargo bench --profile dev -p devkit --bench put_to_first_instruction --bench confidential_beside_plain

down:
	target/debug/casemate down

clean: down
	cargo clean
