//! The PLIC. Register offsets: RISC-V PLIC specification 1.0.0, "Memory Map".

use std::thread;

use axaddrspace::device::AccessWidth::{self, Byte, Dword, Qword};
use axdevice::{AxVmDeviceConfig, AxVmDevices, DeviceBound, SharedVmDevices, Unmapped, VmDevices};
use axdevice_base::map_device_of_type;
use axvmconfig::EmulatedDeviceType::PPPTGlobal;
use riscv_vplic::VPlicGlobal;
use support::{
    entry,
    host::privileged::{emulate, emulated},
};

use crate::{
    bare::{self, Case},
    host,
    sweep::{Row, Twin, Twins, Write, from_two_vcpus, plain, read_only, row, step, watch},
};

const LENGTH: usize = 0x40_0000;

/// Contexts 0 and 2 are for machine mode. Context 1 is for supervisor mode, the mode of the guest, as in the device.
const CONTEXTS: usize = 3;

const PENDING: usize = 0x1000;
const ENABLE: usize = 0x2000;
const CONTROL: usize = 0x20_0000;

/// A registry with a PLIC at `base`, which is also the address of the host's PLIC.
fn machine<B: DeviceBound>(base: usize) -> VmDevices<B> {
    emulate();
    let entry = entry(PPPTGlobal, base, LENGTH, &[CONTEXTS]);
    let builder = VmDevices::builder().config(AxVmDeviceConfig::new(vec![entry]));
    builder.unmapped(Unmapped::Error).build().unwrap()
}

const WORD: &[AccessWidth] = &[Dword];

/// Whether the source is claimed and not completed in the bare twin.
fn is_active(twin: &Twin, source: usize) -> bool {
    let active = |plic: &VPlicGlobal| source < 1024 && plic.active_irqs.lock().get(source);
    map_device_of_type(&twin.device, active).expect("a VPlicGlobal")
}

fn rows() -> Vec<Row> {
    let mut rows = vec![
        plain(0..PENDING, WORD),
        // A guest's writes inject no interrupts.
        read_only(PENDING..PENDING + 0x80, WORD),
        plain(ENABLE..ENABLE + CONTEXTS * 0x80, WORD),
    ];
    for context in 0..CONTEXTS {
        let control = CONTROL + context * 0x1000;
        rows.push(plain(control..control + 4, WORD));
        let complete = Write::If(is_active);
        rows.push(row(control + 4..control + 8, WORD, complete, WORD));
    }
    rows
}

/// Injects sources as Axvisor does: writes pending bits of the device that `find_mmio_dev` returns.
fn inject(twin: &Twin, word: usize, bits: usize) {
    twin.write(PENDING + word * 4, Dword, bits);
}

#[test]
fn a_plic() {
    let _machine = host::exclusive();
    let (host, bare_host) = (host::noisy_registers(LENGTH), host::noisy_registers(LENGTH));
    let devices: AxVmDevices = machine(host);
    let bare: AxVmDevices = machine(bare_host);
    let rows = rows();
    let twins = Twins {
        guarded: Twin::new(&devices, host, host),
        bare: Twin::new(&bare, bare_host, bare_host),
        devices: &devices,
        length: LENGTH,
        host_length: LENGTH,
        rows: &rows,
        values: &[2, 31, 32, 1023, 1024, 1025],
    };
    for word in 0..32 {
        inject(&twins.guarded, word, 0xffff_ffff);
        inject(&twins.bare, word, 0xffff_ffff);
    }
    assert_eq!(twins.bare.read(PENDING, Dword), 0xffff_fffe);
    twins.sweep(509);
    assert!(emulated() > 0, "the line was never set");
}

/// Claims all pending sources in a context, and completes them, some twice and out of order.
#[test]
fn claims_and_completions() {
    let _machine = host::exclusive();
    let _watched = watch();
    let host = host::registers(LENGTH);
    let devices: AxVmDevices = machine(host);
    let twin = Twin::new(&devices, host, host);
    let read = |offset: usize| devices.handle_mmio_read((host + offset).into(), Dword);
    let write = |offset: usize, value| {
        let written = devices.handle_mmio_write((host + offset).into(), Dword, value);
        written.unwrap();
        step();
    };
    for source in [3, 40, 1023] {
        write(source * 4, source);
        write(ENABLE + 0x80 + source / 32 * 4, 1 << (source % 32));
        inject(&twin, source / 32, 1 << (source % 32));
    }
    write(PENDING, 0xffff_ffff);
    assert_eq!(read(PENDING), Ok(1 << 3), "a guest injects no interrupts");
    let claim = CONTROL + 0x1004;
    let claimed = [read(claim), read(claim), read(claim), read(claim)];
    assert_eq!(claimed, [Ok(1023), Ok(40), Ok(3), Ok(0)]);
    for source in [40, 40, 0, 5, 1024, 3, 1023, 3, 0xffff_ffff] {
        write(claim, source);
        let last = host::peek(host + CONTROL + 0x1000) >> 32;
        let completed = [3, 40, 1023].contains(&(last as usize));
        assert!(
            completed,
            "only claimed sources are completed in the host's PLIC: {last:#x}"
        );
    }
    for source in [3, 40, 1023] {
        inject(&twin, source / 32, 1 << (source % 32));
        assert_eq!(read(claim), Ok(source), "it can come again");
    }
}

/// Two vCPUs complete the same source.
#[test]
fn two_vcpus() {
    let _machine = host::exclusive();
    let _watched = watch();
    let host = host::registers(LENGTH);
    let devices: SharedVmDevices = machine(host);
    let write = |offset: usize, value| {
        let written = devices.handle_mmio_write((host + offset).into(), Dword, value);
        written.unwrap();
        step();
    };
    write(7 * 4, 1);
    write(ENABLE + 0x80, 1 << 7);
    let device = devices.find_mmio_dev(host.into()).unwrap();
    for round in 0..500 {
        let injected = device.handle_write((host + PENDING).into(), Dword, 1 << 7);
        injected.unwrap();
        let claimed = devices.handle_mmio_read((host + CONTROL + 0x1004).into(), Dword);
        assert_eq!(claimed, Ok(7), "round {round}");
        thread::scope(|scope| {
            scope.spawn(|| write(CONTROL + 0x1004, 7));
            write(CONTROL + 0x1004, 7);
        });
    }
    let length = CONTROL + 0x8000;
    from_two_vcpus(&devices, host, length, &rows(), &[7, 1023, 1024]);
}

/// An access to a PLIC; the host's registers `watched` must not change.
fn case(offset: usize, width: AccessWidth, value: Option<usize>, watched: usize) -> Case {
    let host = host::registers(LENGTH);
    let devices = machine(host);
    let before = host::peek(host + watched);
    Case {
        devices,
        accesses: vec![(host + offset, width, value)],
        harm: Box::new(move || !host::is_whole() || host::peek(host + watched) != before),
    }
}

macro_rules! cases {
    ($($name:literal $harm:literal $case:expr;)*) => {
        &[$(bare::Row { name: $name, harm: $harm, guarded: true, case: || $case }),*]
    };
}

#[test]
fn accesses_to_the_bare_device_end_as_documented() {
    let _machine = host::exclusive();
    bare::check(cases! {
        "PLIC priority 1: read of 1 byte" "" case(0x4, Byte, None, 0x1000);
        "PLIC priority 2: write of 8 bytes" "" case(0x8, Qword, Some(0), 0x1000);
        "PLIC priority 1 + 2: read of 4 bytes" "" case(0x6, Dword, None, 0x1000);
        "PLIC enable bits of context 3, of 3: write of 4 bytes" "the host's are written"
            case(0x2180, Dword, Some(1), 0x2180);
        "PLIC threshold of context 3, of 3: write of 4 bytes" "the host's is written"
            case(0x20_3000, Dword, Some(1), 0x20_3000);
        "PLIC threshold of context 0, + 1: read of 4 bytes" "" case(0x20_0001, Dword, None, 0);
        "PLIC claim of context 3, of 3: read of 4 bytes" "" case(0x20_3004, Dword, None, 0);
        "PLIC 0x20_0008: read of 4 bytes" "" case(0x20_0008, Dword, None, 0);
        "PLIC 0x20_1ffc: write of 4 bytes" "" case(0x20_1ffc, Dword, Some(0), 0);
        "PLIC complete of context 1: write of 7, not active" ""
            case(0x20_1004, Dword, Some(7), 0);
    });
}
