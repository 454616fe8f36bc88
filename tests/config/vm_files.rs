//! Configurations of whole VMs: those of the examples, good and broken.

use std::{env, sync::Arc};

use ax_errno::AxError;
use axaddrspace::device::{Port, PortRange};
use axdevice::{AxVmDeviceConfig, ConfigError, SharedVmDevices};
use axvmconfig::{AxVMCrateConfig, EmulatedDeviceType::Console, VMInterruptMode};
use support::Echo;

/// A file of the examples.
macro_rules! file {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../../examples/configs/", $name)),
        )
    };
}

/// Whether a test's architecture, `all` or one, is this one.
fn on(arch: &str) -> bool {
    arch == "all" || arch == env::consts::ARCH
}

fn parse(text: &str) -> AxVMCrateConfig {
    toml::from_str(text).unwrap()
}

/// Builds the configuration, with a factory for consoles. It makes only serial devices at ports; those in memory need
/// another factory.
fn build(config: AxVMCrateConfig) -> Result<SharedVmDevices, ConfigError> {
    // An ITS programs the host's ITS.
    #[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
    let _machine = crate::host::machine::exclusive();
    SharedVmDevices::builder()
        .config(AxVmDeviceConfig::new(config.devices.emu_devices))
        .trust_guest_its(true)
        .skip_unbuilt()
        .factory(Console, |config, batch| {
            let port = |at: usize| u16::try_from(at).map_err(|_| AxError::InvalidInput);
            let (first, last) = (config.base_gpa, config.base_gpa + config.length - 1);
            if config.base_gpa < 0x1_0000 {
                let ports = PortRange::new(Port(port(first)?), Port(port(last)?));
                batch.add_port_dev(Arc::new(Echo(ports)))?;
            }
            Ok(())
        })
        .build()
}

/// Checks the memory map of a good file: only lines for this architecture count.
#[track_caller]
fn has((name, text): (&str, &str), lines: &[(&str, &str)]) {
    let devices = build(parse(text)).unwrap_or_else(|error| panic!("{name}: {error}"));
    let map = devices.snapshot().to_string();
    // Ids depend on the order of the entries and on the entries that are left out.
    let rows = map.lines().map(|line| {
        let words = line
            .split_whitespace()
            .filter(|word| !word.starts_with('#'));
        words.collect::<Vec<_>>().join(" ")
    });
    let expected = lines.iter().filter(|(arch, _)| on(arch));
    let expected: Vec<_> = expected.map(|&(_, line)| line.to_string()).collect();
    assert_eq!(rows.collect::<Vec<_>>(), expected, "{name}");
}

/// Checks the error of a broken file. There is no error on an architecture that does not build its devices.
#[track_caller]
fn fails((name, text): (&str, &str), arch: &str, expected: &str) {
    match build(parse(text)) {
        Err(error) => assert_eq!(error.to_string(), expected, "{name}"),
        Ok(_) => assert!(!on(arch), "{name} was built"),
    }
}

/// Checks that a file cannot be parsed, and the position in the error.
#[track_caller]
fn does_not_parse((name, text): (&str, &str), expected: &[&str]) {
    let error = toml::from_str::<AxVMCrateConfig>(text).unwrap_err();
    let error = error.to_string();
    let named = expected.iter().all(|part| error.contains(part));
    assert!(named, "{name}: {error}");
}

#[test]
fn gppt_guests_with_one_two_and_eight_vcpus() {
    let gicr = [
        ("aarch64", "mmio 0x80a0000..=0x80bffff gppt-gicr"),
        ("aarch64", "mmio 0x80c0000..=0x80dffff gppt-gicr"),
        ("aarch64", "mmio 0x80e0000..=0x80fffff gppt-gicr"),
        ("aarch64", "mmio 0x8100000..=0x811ffff gppt-gicr"),
        ("aarch64", "mmio 0x8120000..=0x813ffff gppt-gicr"),
        ("aarch64", "mmio 0x8140000..=0x815ffff gppt-gicr"),
        ("aarch64", "mmio 0x8160000..=0x817ffff gppt-gicr"),
        ("aarch64", "mmio 0x8180000..=0x819ffff gppt-gicr"),
    ];
    for (file, vcpus) in [
        (file!("gppt-1-vcpu.toml"), 1),
        (file!("gppt-2-vcpus.toml"), 2),
        (file!("gppt-8-vcpus.toml"), 8),
    ] {
        let config = parse(file.1);
        assert_eq!(config.base.cpu_num, vcpus);
        assert_eq!(config.devices.interrupt_mode, VMInterruptMode::Passthrough);
        let mut lines = vec![
            ("aarch64", "mmio 0x8000000..=0x800ffff gppt-gicd"),
            ("aarch64", "mmio 0x8080000..=0x809ffff gppt-gits"),
        ];
        lines.extend(&gicr[..vcpus]);
        has(file, &lines);
    }
}

/// The number of redistributors that a guest finds. It walks from the first to the one with Last set, as Linux and EDK
/// II do.
#[cfg(target_arch = "aarch64")]
fn walk(devices: &SharedVmDevices, first: usize) -> usize {
    use axaddrspace::device::AccessWidth::Qword;

    let typer = |n: usize| {
        let typer = first + n * 0x2_0000 + 0x8;
        devices.handle_mmio_read(typer.into(), Qword).unwrap()
    };
    1 + (0..8).take_while(|&n| typer(n) & 1 << 4 == 0).count()
}

#[cfg(target_arch = "aarch64")]
#[test]
fn a_guest_finds_a_redistributor_for_each_vcpu() {
    for (text, vcpus) in [
        (file!("gppt-1-vcpu.toml").1, 1),
        (file!("gppt-2-vcpus.toml").1, 2),
        (file!("gppt-8-vcpus.toml").1, 8),
    ] {
        let devices = build(parse(text)).unwrap();
        let _machine = crate::host::machine::exclusive();
        assert_eq!(walk(&devices, 0x80a_0000), vcpus);
    }
}

#[test]
fn a_guest_with_a_plic() {
    let plic = ("riscv64", "mmio 0xc000000..=0xc5fffff plic");
    has(file!("plic.toml"), &[plic]);
}

#[test]
fn a_guest_with_ivc_channels() {
    let file = file!("ivc.toml");
    has(file, &[("all", "ivc 0x70000000..=0x7000ffff ivc")]);
    let devices = build(parse(file.1)).unwrap();
    let channels = [0, 1, 2].map(|_| devices.alloc_ivc_channel(0x8000));
    let [first, second] = [0x7000_0000, 0x7000_8000].map(|at: usize| Ok(at.into()));
    assert_eq!(channels, [first, second, Err(AxError::NoMemory)]);
}

#[test]
fn a_guest_with_emulated_interrupts() {
    let file = file!("emulated.toml");
    has(file, &[("aarch64", "mmio 0x8000000..=0x800ffff gic")]);
    let mode = parse(file.1).devices.interrupt_mode;
    assert_eq!(mode, VMInterruptMode::Emulated);
}

#[test]
fn a_guest_with_something_of_everything() {
    let file = file!("mixed.toml");
    has(
        file,
        &[
            ("aarch64", "mmio 0x8000000..=0x800ffff gppt-gicd"),
            ("aarch64", "mmio 0x80a0000..=0x80bffff gppt-gicr"),
            ("aarch64", "mmio 0x80c0000..=0x80dffff gppt-gicr"),
            ("riscv64", "mmio 0xc000000..=0xc5fffff plic"),
            ("all", "ivc 0x70000000..=0x700fffff ivc"),
            ("all", "port 0x3f8..=0x3ff com1"),
        ],
    );
    let devices = build(parse(file.1)).unwrap();
    let channel = devices.alloc_ivc_channel(0x10_0000);
    assert_eq!(channel, Ok(0x7000_0000.into()));
}

#[test]
fn errors_of_broken_files_name_the_device_and_the_fault() {
    fails(
        file!("broken/gicr-without-stride.toml"),
        "aarch64",
        "device 1 \"gppt-gicr\" (gic partial passthrough redistributor): argument 1 of cfg_list, \
         stride, is missing",
    );
    fails(
        file!("broken/gicr-too-close.toml"),
        "aarch64",
        "device 0 \"gppt-gicr\" (gic partial passthrough redistributor): on bus mmio, \
         0x80b0000..=0x80cffff overlaps 0x80a0000..=0x80bffff of \"gppt-gicr\"",
    );
    fails(
        file!("broken/its-over-gicr.toml"),
        "aarch64",
        "device 1 \"gppt-gits\" (gic partial passthrough its): on bus mmio, 0x80c0000..=0x80dffff \
         overlaps 0x80c0000..=0x80dffff of \"gppt-gicr\"",
    );
    fails(
        file!("broken/its-without-host.toml"),
        "aarch64",
        "device 0 \"gppt-gits\" (gic partial passthrough its): argument 0 of cfg_list, \
         host_gits_base, is missing",
    );
    fails(
        file!("broken/two-distributors.toml"),
        "aarch64",
        "device 1 \"gic\" (interrupt controller): on bus mmio, 0x8000000..=0x800ffff overlaps \
         0x8000000..=0x800ffff of \"gppt-gicd\"",
    );
    fails(
        file!("broken/plic-too-small.toml"),
        "riscv64",
        "device 0 \"plic\" (plic partial passthrough global): the PLIC needs 0x202005 bytes, but \
         its length is 0x200000",
    );
    fails(
        file!("broken/plic-without-contexts.toml"),
        "riscv64",
        "device 0 \"plic\" (plic partial passthrough global): argument 0 of cfg_list, \
         context_num, is missing",
    );
    fails(
        file!("broken/ivc-unaligned.toml"),
        "all",
        "device 0 \"ivc\" (ivc channel): the IVC range 0x70000800..=0x700107ff is not on 4 KiB \
         boundaries",
    );
    fails(
        file!("broken/ivc-empty.toml"),
        "all",
        "device 0 \"ivc\" (ivc channel): on bus mmio, the range at 0x70000000 is empty",
    );
    fails(
        file!("broken/two-ivc-ranges.toml"),
        "all",
        "device 1 \"ivc-2\" (ivc channel): there is an IVC range already: \
         0x70000000..=0x7000ffff of \"ivc-1\"",
    );
    fails(
        file!("broken/ivc-over-gicd.toml"),
        "aarch64",
        "device 1 \"ivc\" (ivc channel): on bus mmio, 0x8000000..=0x80fffff overlaps \
         0x8000000..=0x800ffff of \"gppt-gicd\"",
    );
    fails(
        file!("broken/plic-in-ivc.toml"),
        "riscv64",
        "device 1 \"plic\" (plic partial passthrough global): on bus mmio, \
         0xc000000..=0xc5fffff overlaps 0xc000000..=0xcffffff of \"ivc\"",
    );
    fails(
        file!("broken/consoles-overlap.toml"),
        "all",
        "device 1 \"com2\" (console): on bus port, 0x3ff..=0x406 overlaps 0x3f8..=0x3ff of \"com1\"",
    );
    fails(
        file!("broken/console-wraps.toml"),
        "all",
        "device 0 \"com1\" (console): its factory failed: Invalid input parameter",
    );
}

#[test]
fn files_that_do_not_parse_say_where() {
    does_not_parse(file!("broken/not-toml.toml"), &["line 2", "unclosed table"]);
    let length = ["line 25", "invalid length 4", "6 elements"];
    does_not_parse(file!("broken/no-type.toml"), &length);
    let unknown = ["line 25", "invalid value: 153", "expected one of"];
    does_not_parse(file!("broken/unknown-type.toml"), &unknown);
    let negative = ["line 25, column 13", "invalid value", "-1"];
    does_not_parse(file!("broken/negative-base.toml"), &negative);
}

/// Each file of the examples is in a test above.
#[cfg(not(miri))]
#[test]
fn no_file_is_forgotten() {
    use std::{collections::BTreeSet, fs, path::Path};

    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/configs");
    let tested = include_str!("vm_files.rs").split('"');
    let tested: BTreeSet<_> = tested
        .filter(|word| word.len() > ".toml".len() && word.ends_with(".toml"))
        .map(str::to_string)
        .collect();
    let there: BTreeSet<_> = ["", "broken/"]
        .into_iter()
        .flat_map(|folder| {
            let files = fs::read_dir(examples.join(folder)).unwrap();
            let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
            names.map(move |name| format!("{folder}{name}"))
        })
        .filter(|name| name.ends_with(".toml"))
        .collect();
    assert_eq!(tested, there);
}
