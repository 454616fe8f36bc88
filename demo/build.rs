//! Compiles the guest for KVM, `guest.bin` in `OUT_DIR`: a flat image that needs no operating system.
//!
//! It is compiled for the host's target, so that `cargo run` needs no other.

use std::{
    env::{self, VarError},
    path::{Path, PathBuf},
    process::Command,
};

/// The options of both crates of the guest.
const OPTIONS: [&str; 8] = [
    "--edition=2024",
    "-Aclippy::disallowed_types",
    "-Aclippy::disallowed_methods",
    "-Dclippy::undocumented_unsafe_blocks",
    "-Copt-level=3",
    "-Coverflow-checks=yes",
    "-Cpanic=abort",
    // Where the CPU cannot run the guest, KVM emulates it, without SSE arithmetic. The compiler warns that this
    // changes how floating-point numbers are passed, but there are none. If that becomes an error, the target
    // x86_64-unknown-none does the same.
    "-Ctarget-feature=-sse",
];

/// The options of the program: it is optimised as a whole, which drops the core library's unwinding, and has its own
/// linker script.
const LINK: [&str; 8] = [
    "-Clto=fat",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-no-pie",
    "-Clink-arg=-Wl,-T,guest/guest.ld",
    "-Clink-arg=-Wl,--build-id=none",
    "-Clink-arg=-Wl,--oformat=binary",
];

fn main() -> Result<(), VarError> {
    for file in ["guest", "src/kvm/guest"] {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-env-changed=RUSTC_WORKSPACE_WRAPPER");
    let target = env::var("CARGO_CFG_TARGET_OS")? + "-" + &env::var("CARGO_CFG_TARGET_ARCH")?;
    if target != "linux-x86_64" {
        return Ok(());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let library = out.join("libguest.rlib");
    compile(&library, "guest/src/lib.rs", |rustc| {
        rustc.args(["--crate-type=rlib", "--crate-name=guest"])
    })?;
    compile(&out.join("guest.bin"), "src/kvm/guest/main.rs", |rustc| {
        let library = format!("guest={}", library.display());
        rustc.arg("--extern").arg(library).args(LINK)
    })
}

/// Compiles a crate, and lints it where Cargo runs clippy.
///
/// # Panics
///
/// If that fails. The compiler has printed the reason.
fn compile(
    output: &Path,
    source: &str,
    more: impl FnOnce(&mut Command) -> &mut Command,
) -> Result<(), VarError> {
    let wrapper = env::var("RUSTC_WORKSPACE_WRAPPER").ok();
    let mut words = wrapper.into_iter().chain([env::var("RUSTC")?]);
    let mut command = Command::new(words.next().unwrap_or_default());
    command
        .args(words)
        .args(OPTIONS)
        .arg("--target")
        .arg(env::var("TARGET")?);
    command.arg("-o").arg(output).arg(source);
    let compiled = more(&mut command).status();
    assert!(compiled.is_ok_and(|status| status.success()), "{command:?}");
    Ok(())
}
