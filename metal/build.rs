//! Gives each program its linker script.

use std::env;

fn main() {
    let arch = env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default() + "/link";
    let guest = "../demo/guest/guest.ld";
    let hypervisor: &[&str] = match arch.as_str() {
        // The first script is that of crate aarch64-rt.
        "aarch64" => &["image.ld", "aarch64.ld"],
        _ => &["riscv64.ld"],
    };
    println!("cargo::rustc-link-search={folder}");
    for script in hypervisor {
        println!("cargo::rustc-link-arg-bin=hypervisor=-T{script}");
    }
    for argument in [format!("-T{guest}"), "--oformat=binary".into()] {
        println!("cargo::rustc-link-arg-bin=guest={argument}");
    }
    for changed in [&folder, guest] {
        println!("cargo::rerun-if-changed={changed}");
    }
}
