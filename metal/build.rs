//! Gives each program its linker script.

use std::env;

fn main() {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default() + "/link";
    let hypervisor: &[&str] = match arch.as_str() {
        // The first is the one of crate aarch64-rt.
        "aarch64" => &["image.ld", "aarch64.ld"],
        _ => &["riscv64.ld"],
    };
    // Where the guest's memory is in the host's.
    let load = if arch == "aarch64" {
        "0x60000000"
    } else {
        "0xa0000000"
    };
    println!("cargo::rustc-link-search={folder}");
    for script in hypervisor {
        println!("cargo::rustc-link-arg-bin=hypervisor=-T{script}");
    }
    println!("cargo::rustc-link-arg-bin=guest=-Tguest.ld");
    println!("cargo::rustc-link-arg-bin=guest=--defsym=GUEST_LOAD={load}");
    println!("cargo::rerun-if-changed={folder}");
}
