//! Links the TPM library (Debian package `libtpms-dev`).

fn main() {
    println!("cargo::rustc-link-lib=dylib=tpms");
    println!("cargo::rerun-if-changed=build.rs");
}
