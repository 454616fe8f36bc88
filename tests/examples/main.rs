//! Runs the examples. Cargo builds them before it runs all tests. To run only these tests, first
//! run `cargo build --examples`.

mod vm_config;
mod vmm;

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// An example's program, which is next to the folder of the tests.
fn program(example: &str) -> PathBuf {
    let test = env::current_exe().unwrap();
    let folder = test.parent().and_then(Path::parent).unwrap();
    let program = folder.join("examples").join(example);
    let source = format!("examples/{example}.rs");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
    let written = |path: &Path| path.metadata().and_then(|path| path.modified()).ok();
    let built = written(&program).is_some_and(|built| Some(built) >= written(&source));
    assert!(built, "first: cargo build --examples");
    program
}

/// The runner of programs for this target, if cargo has one: an emulator and its arguments.
fn runner() -> Vec<String> {
    let target = match env::consts::ARCH {
        "riscv64" => "RISCV64GC",
        "aarch64" => "AARCH64",
        _ => "X86_64",
    };
    let runner = env::var(format!("CARGO_TARGET_{target}_UNKNOWN_LINUX_GNU_RUNNER"));
    let words = runner.unwrap_or_default();
    words.split_whitespace().map(str::to_string).collect()
}

fn run(example: &str, arguments: &[&str]) -> Output {
    let mut words = runner().into_iter().map(OsString::from).collect::<Vec<_>>();
    words.push(program(example).into());
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).args(arguments);
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}
