//! Makes the guest a flat image, which Axvisor loads. The image includes `.bss`.

use std::env;

fn main() {
    let script = env::var("CARGO_MANIFEST_DIR").unwrap_or_default() + "/guest.ld";
    println!("cargo::rustc-link-arg=-T{script}");
    println!("cargo::rustc-link-arg=--oformat=binary");
    println!("cargo::rerun-if-changed={script}");
}
