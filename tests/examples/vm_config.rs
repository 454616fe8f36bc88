//! The example `vm_config`.

use std::{env, process::Output};

use crate::text;

fn run(arguments: &[&str]) -> Output {
    crate::run("vm_config", arguments)
}

#[test]
fn a_good_file_gives_a_memory_map() {
    let output = run(&["examples/configs/mixed.toml"]);
    assert!(output.status.success(), "{output:?}");
    let map = match env::consts::ARCH {
        "aarch64" => {
            "mmio     0x8000000..=0x800ffff #1 gppt-gicd\n\
             mmio     0x80a0000..=0x80bffff #2 gppt-gicr\n\
             mmio     0x80c0000..=0x80dffff #3 gppt-gicr\n\
             mmio     0x9000000..=0x9000fff #5 uart\n\
             ivc      0x70000000..=0x700fffff ivc\n\
             port     0x3f8..=0x3ff #4 com1\n"
        }
        "riscv64" => {
            "mmio     0x9000000..=0x9000fff #3 uart\n\
             mmio     0xc000000..=0xc5fffff #1 plic\n\
             ivc      0x70000000..=0x700fffff ivc\n\
             port     0x3f8..=0x3ff #2 com1\n"
        }
        _ => {
            "mmio     0x9000000..=0x9000fff #2 uart\n\
             ivc      0x70000000..=0x700fffff ivc\n\
             port     0x3f8..=0x3ff #1 com1\n"
        }
    };
    assert_eq!(text(&output.stdout), map);
    let left_out = text(&output.stderr);
    assert!(
        left_out.contains("device 5 \"disk\" (virtio block): neither ")
            && left_out.contains(": left out"),
        "{left_out}"
    );
}

#[test]
fn a_bad_file_gives_an_error() {
    for (file, error) in [
        (
            "examples/configs/broken/consoles-overlap.toml",
            "device 1 \"com2\" (console): ",
        ),
        (
            "examples/configs/broken/not-toml.toml",
            "TOML parse error at line 2",
        ),
        ("examples/configs/none.toml", "No such file"),
    ] {
        let output = run(&[file]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(text(&output.stdout), "");
        let said = text(&output.stderr);
        assert!(said.contains(&format!("error: {file}: {error}")), "{said}");
    }
}

#[cfg(target_arch = "aarch64")]
#[test]
fn a_guest_with_an_its_must_be_trusted() {
    let file = "examples/configs/gppt-1-vcpu.toml";
    let refused = run(&[file]);
    assert_eq!(refused.status.code(), Some(1), "{refused:?}");
    assert!(text(&refused.stderr).contains("device 2 \"gppt-gits\""));
    let map = run(&["--trust-guest-its", file]);
    assert!(text(&map.stdout).contains("gppt-gits"), "{map:?}");
}

#[test]
fn no_file_gives_the_usage() {
    let output = run(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        text(&output.stderr),
        "usage: vm_config [--trust-guest-its] FILE\n"
    );
}
