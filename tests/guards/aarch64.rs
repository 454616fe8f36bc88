//! The GIC. Register offsets: Arm GIC architecture specification, GICv3 and GICv4, IHI 0069.

use std::{
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
};

use arm_vgic::v3::{vgicd::VGicD, vgicr::LPT};
use axaddrspace::device::AccessWidth::{self, Byte, Dword, Qword};
use axdevice::{AxVmDeviceConfig, AxVmDevices, DeviceBound, SharedVmDevices, Unmapped, VmDevices};
use axdevice_base::map_device_of_type;
use axvmconfig::{
    EmulatedDeviceConfig,
    EmulatedDeviceType::{GPPTDistributor, GPPTITS, GPPTRedistributor, InterruptController},
};
use support::{
    entry,
    host::machine::{
        CPUS, GICD, GICD_LENGTH, GICR, GICR_LENGTH, ITS, ITS_LENGTH, set_gicd, set_gicr,
    },
};

use crate::{
    bare::{self, Case},
    host,
    sweep::{
        Row, Twin, Twins, WIDTHS, Write, from_two_vcpus, in_full, plain, read_only, row, step,
        values, watch,
    },
};

/// The first LPI, and the number of the host's LPIs.
pub(crate) const FIRST_LPI: usize = 8192;
pub(crate) const LPIS: usize = 0x1_0000 - FIRST_LPI;

pub(crate) fn gicv2() -> EmulatedDeviceConfig {
    entry(InterruptController, 0, 0, &[])
}

pub(crate) fn gicd(length: usize) -> EmulatedDeviceConfig {
    entry(GPPTDistributor, GICD, length, &[])
}

/// The redistributor of the host's CPU 1.
pub(crate) fn gicr() -> EmulatedDeviceConfig {
    entry(GPPTRedistributor, GICR, GICR_LENGTH, &[1, GICR_LENGTH, 1])
}

pub(crate) fn its(length: usize, host: usize) -> EmulatedDeviceConfig {
    entry(GPPTITS, ITS, length, &[host])
}

/// A registry of these devices. An access that no device owns is an error.
pub(crate) fn machine<B: DeviceBound>(
    trusted: bool,
    entries: &[EmulatedDeviceConfig],
) -> VmDevices<B> {
    let builder = VmDevices::builder()
        .config(AxVmDeviceConfig::new(entries.to_vec()))
        .unmapped(Unmapped::Error)
        .trust_guest_its(trusted);
    builder.build().unwrap()
}

/// Creates the registers of a host's distributor. Devices that are made after this call use them.
pub(crate) fn host_gicd() -> usize {
    let host = host::noisy_registers(GICD_LENGTH);
    set_gicd(host);
    host
}

/// Creates the registers of a host's redistributors, which devices made after this call use. Returns those of CPU 1.
pub(crate) fn host_gicr() -> usize {
    let host = host::noisy_registers(CPUS * GICR_LENGTH);
    set_gicr(host);
    host + GICR_LENGTH
}

/// Assigns some interrupts to the guest, at the edges of registers and inside them.
pub(crate) fn assign(devices: &AxVmDevices) {
    let gicd = devices.iter_mmio_dev().next().unwrap();
    let assign = |gicd: &VGicD| {
        for irq in [
            32, 33, 40, 41, 42, 43, 63, 64, 95, 500, 991, 992, 1018, 1019,
        ] {
            gicd.assign_irq(irq, 1, (0, 0, 0, 1));
        }
    };
    map_device_of_type(gicd, assign).expect("a VGicD");
}

const NONE: &[AccessWidth] = &[];
const WORD: &[AccessWidth] = &[Dword];
const BYTES: &[AccessWidth] = &[Byte, Dword];
const LONG: &[AccessWidth] = &[Dword, Qword];

const GICD_ROWS: [Row; 9] = [
    // CTLR, TYPER, IIDR, TYPER2.
    read_only(0..0x10, WORD),
    row(0x80..0x100, WORD, Write::As(|now, value| value | now), WORD),
    // ISENABLER to ICACTIVER.
    plain(0x100..0x400, WORD),
    // IPRIORITYR.
    plain(0x400..0x800, BYTES),
    // ITARGETSR.
    plain(0x800..0xc00, &[Byte]),
    // ICFGR.
    plain(0xc00..0xd00, WORD),
    // IGRPMODR.
    plain(0xd00..0xd80, WORD),
    // IROUTER.
    plain(0x6100..0x7fe0, LONG),
    // PIDR4 to CIDR3.
    read_only(0xffd0..0x1_0000, WORD),
];

#[test]
fn a_gicv3_distributor() {
    let _machine = host::exclusive();
    // The architecture's length, and a longer one: the host's distributor ends earlier.
    for length in [GICD_LENGTH, 3 * GICD_LENGTH] {
        let twin = || {
            let host = host_gicd();
            let devices: AxVmDevices = machine(false, &[gicd(length)]);
            assign(&devices);
            (Twin::new(&devices, GICD, host), devices)
        };
        let ((guarded, devices), (bare, _)) = (twin(), twin());
        let twins = Twins {
            devices: &devices,
            guarded,
            bare,
            length,
            host_length: GICD_LENGTH,
            rows: &GICD_ROWS,
            values: &[],
        };
        twins.sweep(61);
    }
    host_gicd();
    let devices: SharedVmDevices = machine(false, &[gicd(GICD_LENGTH)]);
    from_two_vcpus(&devices, GICD, GICD_LENGTH, &GICD_ROWS, &[]);
    // An `AxVmDevices`, without the lock of a thread-safe registry.
    let devices: AxVmDevices = machine(false, &[gicd(GICD_LENGTH)]);
    assign(&devices);
    from_two_vcpus(&devices, GICD, GICD_LENGTH, &GICD_ROWS, &[]);
}

#[test]
fn a_gicv2_distributor() {
    let _machine = host::exclusive();
    let devices: AxVmDevices = machine(false, &[gicv2()]);
    let twin: AxVmDevices = machine(false, &[gicv2()]);
    // The guard forwards every aligned access, except for interrupts that the device does not have.
    let pages = (0..GICD_LENGTH).step_by(0x1000);
    let known = |page| [page..page + 0x140, page + 0x180..page + 0x1000];
    let rows: Vec<_> = pages.flat_map(known).map(|at| plain(at, &WIDTHS)).collect();
    let twins = Twins {
        devices: &devices,
        guarded: Twin::new(&devices, GICD, 0),
        bare: Twin::new(&twin, GICD, 0),
        length: GICD_LENGTH,
        host_length: 0,
        rows: &rows,
        values: &[],
    };
    twins.sweep(1);
    let devices: SharedVmDevices = machine(false, &[gicv2()]);
    from_two_vcpus(&devices, GICD, GICD_LENGTH, &rows[..4], &[]);
}

/// The rows of the redistributor. The rows for LPIs depend on `trusted` and on whether there is a table of LPIs.
fn gicr_rows(trusted: bool, table: bool) -> Vec<Row> {
    let (command, pending) = if trusted { (LONG, LONG) } else { (NONE, NONE) };
    let control = match trusted {
        true => Write::Pass,
        // EnableLPIs keeps its value.
        false => Write::As(|now, value| value & !1 | now & 1),
    };
    let lpis = match table {
        true => {
            Write::If(|_, value| (FIRST_LPI..FIRST_LPI + LPIS).contains(&(value & 0xffff_ffff)))
        }
        false => Write::If(|_, _| false),
    };
    let mut rows = vec![
        row(0x0..0x4, WORD, control, WORD),
        // IIDR.
        read_only(0x4..0x8, WORD),
        // TYPER.
        read_only(0x8..0x10, LONG),
        // STATUSR.
        plain(0x10..0x14, WORD),
        // WAKER, except ProcessorSleep.
        row(0x14..0x18, WORD, Write::As(|_, value| value & !2), WORD),
        // SETLPIR, CLRLPIR.
        row(0x40..0x41, NONE, Write::Pass, command),
        row(0x48..0x49, NONE, Write::Pass, command),
        // PROPBASER, PENDBASER.
        plain(0x70..0x78, LONG),
        row(0x78..0x80, LONG, Write::Pass, pending),
        // INVLPIR, INVALLR.
        row(0xa0..0xa1, NONE, lpis, LONG),
        row(0xb0..0xb1, NONE, Write::Pass, command),
        // PIDR4 to CIDR3.
        read_only(0xffd0..0x1_0000, WORD),
        // IGROUPR0.
        row(
            0x1_0080..0x1_0084,
            WORD,
            Write::As(|now, value| value | now),
            WORD,
        ),
        // IPRIORITYR.
        plain(0x1_0400..0x1_0420, BYTES),
        // ICFGR0, ICFGR1, IGRPMODR0.
        plain(0x1_0c00..0x1_0c08, WORD),
        plain(0x1_0d00..0x1_0d04, WORD),
    ];
    // ISENABLER0 to ICACTIVER0.
    let banks = (0x1_0100..0x1_0400).step_by(0x80);
    rows.extend(banks.map(|bank| plain(bank..bank + 4, WORD)));
    rows
}

const LPI_VALUES: [usize; 7] = [
    FIRST_LPI - 1,
    FIRST_LPI,
    FIRST_LPI + LPIS / 2,
    FIRST_LPI + LPIS - 1,
    FIRST_LPI + LPIS,
    1 << 32 | FIRST_LPI,
    1 << 32 | (FIRST_LPI - 1),
];

fn sweep_gicr(trusted: bool) {
    let table = LPT.is_completed();
    let twin = || {
        let host = host_gicr();
        let devices: AxVmDevices = machine(trusted, &[gicr()]);
        (Twin::new(&devices, GICR, host), devices)
    };
    let ((guarded, devices), (bare, _)) = (twin(), twin());
    let rows = gicr_rows(trusted, table);
    let twins = Twins {
        devices: &devices,
        guarded,
        bare,
        length: GICR_LENGTH,
        host_length: GICR_LENGTH,
        rows: &rows,
        values: &LPI_VALUES,
    };
    twins.sweep(61);
    assert_eq!(LPT.is_completed(), table, "a guest cannot make a table");
    host_gicr();
    let devices: SharedVmDevices = machine(trusted, &[gicr()]);
    from_two_vcpus(&devices, GICR, GICR_LENGTH, &rows, &LPI_VALUES);
    let devices: AxVmDevices = machine(trusted, &[gicr()]);
    from_two_vcpus(&devices, GICR, GICR_LENGTH, &rows, &LPI_VALUES);
}

/// The registers of the host's only ITS: the device keeps the first ITS that it gets.
static HOST_ITS: LazyLock<usize> = LazyLock::new(|| {
    let base = host::noisy_registers(ITS_LENGTH);
    for register in HOST_ITS_REGISTERS {
        host::poke(base + register, 0);
    }
    base
});

/// The host's running ITS: until the value is dropped, it executes commands immediately, so CREADR follows CWRITER.
pub(crate) struct HostIts {
    pub(crate) base: usize,
    on: Arc<AtomicBool>,
}

impl HostIts {
    /// The ITS is not enabled yet.
    pub(crate) fn new() -> Self {
        let (base, on) = (*HOST_ITS, Arc::new(AtomicBool::new(true)));
        host::poke(base, 0);
        let working = on.clone();
        thread::spawn(move || {
            while working.load(SeqCst) {
                // An ITS that is not enabled executes nothing.
                if host::peek(base) & 1 != 0 {
                    host::poke(base + 0x90, host::peek(base + 0x88) & 0xf_ffe0);
                }
                thread::yield_now();
            }
        });
        Self { base, on }
    }
}

impl Drop for HostIts {
    fn drop(&mut self) {
        self.on.store(false, SeqCst);
    }
}

/// The host's registers that a sweep of the ITS may change: CTLR, CWRITER, CREADR. The others keep their values.
const HOST_ITS_REGISTERS: [usize; 3] = [0x0, 0x88, 0x90];

fn sweep_its() {
    let host = HostIts::new();
    let queue = host::registers(0x10_0000);
    for length in [ITS_LENGTH, ITS_LENGTH + 0x1_0000] {
        let devices: SharedVmDevices = machine(true, &[its(length, host.base)]);
        let before: Vec<_> = (0..ITS_LENGTH)
            .step_by(8)
            .map(|at| host::peek(host.base + at))
            .collect();
        let write = |offset: usize, width, value| {
            let addr = (ITS + offset).into();
            devices.handle_mmio_write(addr, width, value).unwrap();
            let read = devices.handle_mmio_read(addr, width).unwrap();
            assert!(read == 0 || is_its_register(offset, width), "{offset:#x}");
            step();
        };
        let vcpu = |vcpu: Vcpu| {
            for pages in [1, 16, 256] {
                // A trusted guest has its queue in its own memory.
                write(0x0, Dword, 0);
                write(0x80, Qword, 1 << 63 | queue | (pages - 1));
                write(0x0, Dword, 1);
                sweep_its_registers(&write, length, pages, vcpu);
            }
        };
        let _watched = watch();
        vcpu(Vcpu::Alone);
        thread::scope(|scope| {
            scope.spawn(|| vcpu(Vcpu::Second));
            vcpu(Vcpu::First);
        });
        for (i, &before) in before.iter().enumerate() {
            if !HOST_ITS_REGISTERS.contains(&(i * 8)) {
                assert_eq!(host::peek(host.base + i * 8), before, "{:#x}", i * 8);
            }
        }
        assert!(host::is_whole());
    }
}

/// Whether an ITS has a readable register there.
fn is_its_register(offset: usize, width: AccessWidth) -> bool {
    let aligned = offset.is_multiple_of(width.size());
    match width {
        Dword if aligned => {
            // CTLR, IIDR, TYPER; CBASER, CWRITER, CREADR; BASER0 and BASER1; PIDR4 to CIDR3.
            matches!(offset, 0..0x10 | 0x80..0x98 | 0x100..0x110 | 0xffd0..0x1_0000)
        }
        Qword if aligned => matches!(offset, 0x8 | 0x80..0x98 | 0x100..0x110),
        _ => false,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Vcpu {
    Alone,
    /// One of two vCPUs, the one that starts at offset 0.
    First,
    Second,
}

/// Writes to all registers of an ITS with a queue of this many pages.
fn sweep_its_registers(
    write: &impl Fn(usize, AccessWidth, usize),
    length: usize,
    pages: usize,
    vcpu: Vcpu,
) {
    let end = pages * 0x1000;
    let pointers = [
        0x20,
        0x21,
        0x3f,
        end - 0x20,
        end - 0x1f,
        end,
        end + 0x20,
        0,
        0xfffe0,
    ];
    for i in 0..length {
        let offset = if vcpu == Vcpu::Second {
            length - 1 - i
        } else {
            i
        };
        let registers = offset < 0x200 || offset >= length - 64 || offset & 0xffff >= 0xffc0;
        let near = registers || (0x1_0000..0x1_0080).contains(&offset);
        if !near && !offset.is_multiple_of(if in_full() { 1 } else { 61 }) {
            continue;
        }
        for width in WIDTHS {
            // Another vCPU could make the ITS use it as the queue's address, where there is no queue.
            let base = matches!((offset, width), (0x80 | 0x84, Dword) | (0x80, Qword));
            if offset + width.size() > length || (base && vcpu != Vcpu::Alone) {
                continue;
            }
            for value in values(width, &pointers) {
                if (0x80..0x98).contains(&offset) {
                    write(0x0, Dword, 1);
                }
                write(offset, width, value);
            }
        }
    }
}

/// The order matters: at first there is no table of LPIs, and the first ITS makes it.
#[test]
fn redistributors_and_an_its() {
    let _machine = host::exclusive();
    assert!(!LPT.is_completed());
    sweep_gicr(false);
    sweep_gicr(true);
    host_gicr();
    sweep_its();
    assert!(LPT.is_completed());
    sweep_gicr(false);
    sweep_gicr(true);
}

fn case<const N: usize>(
    devices: AxVmDevices,
    base: usize,
    accesses: [(usize, AccessWidth, Option<usize>); N],
    harm: impl Fn() -> bool + 'static,
) -> Case {
    let at = |(offset, width, value)| (base + offset, width, value);
    Case {
        devices,
        accesses: accesses.map(at).into(),
        harm: Box::new(harm),
    }
}

/// Whether memory of the host outside its registers was written.
fn spilled() -> bool {
    !host::is_whole()
}

fn gicv2_case<const N: usize>(accesses: [(usize, AccessWidth, Option<usize>); N]) -> Case {
    case(machine(false, &[gicv2()]), GICD, accesses, spilled)
}

/// An access to a distributor; the host's registers `watched` must not change.
fn gicd_case(offset: usize, width: AccessWidth, value: Option<usize>, watched: usize) -> Case {
    let host = host_gicd();
    let devices = machine(false, &[gicd(3 * GICD_LENGTH)]);
    assign(&devices);
    let before = host::peek(host + watched);
    case(devices, GICD, [(offset, width, value)], move || {
        spilled() || host::peek(host + watched) != before
    })
}

/// An access to a redistributor. `harm` checks the host's registers afterwards.
fn gicr_case(
    offset: usize,
    width: AccessWidth,
    value: Option<usize>,
    harm: impl Fn(&dyn Fn(usize) -> u64) -> bool + 'static,
) -> Case {
    let host = host_gicr();
    // GICR_CTLR, GICR_STATUSR and GICR_WAKER, GICR_IGROUPR0.
    for (register, value) in [(0x0, 0), (0x10, 0), (0x1_0080, u64::MAX)] {
        host::poke(host + register, value);
    }
    case(
        machine(false, &[gicr()]),
        GICR,
        [(offset, width, value)],
        move || spilled() || harm(&|register| host::peek(host + register)),
    )
}

/// Accesses to an enabled or disabled ITS, with a queue of 64 KiB that starts with these commands.
fn its_case<const N: usize>(
    enabled: bool,
    commands: &[[u64; 4]],
    accesses: [(usize, AccessWidth, Option<usize>); N],
    watched: usize,
) -> Case {
    host_gicr();
    let host = HostIts::new();
    let queue = host::registers(0x1_0000);
    for (i, word) in commands.iter().flatten().enumerate() {
        host::poke(queue + i * 8, *word);
    }
    let devices: AxVmDevices = machine(true, &[its(ITS_LENGTH + 0x1_0000, host.base)]);
    let set = |offset: usize, width, value| {
        let addr = (ITS + offset).into();
        devices.handle_mmio_write(addr, width, value).unwrap();
        // The guard's engine has its own device, so the bare one needs the same write.
        let bare = devices.find_mmio_dev(addr).unwrap();
        bare.handle_write(addr, width, value).unwrap();
    };
    set(0x80, Qword, 1 << 63 | queue | 0xf);
    if enabled {
        set(0x0, Dword, 1);
    }
    let before = host::peek(host.base + watched);
    case(devices, ITS, accesses, move || {
        // The host's ITS runs until here.
        let host = &host;
        spilled() || host::peek(host.base + watched) != before
    })
}

macro_rules! cases {
    ($($guarded:literal $name:literal $harm:literal $case:expr;)*) => {
        &[$(bare::Row { name: $name, harm: $harm, guarded: $guarded, case: || $case }),*]
    };
}

#[test]
fn accesses_to_the_bare_devices_end_as_documented() {
    let _machine = host::exclusive();
    bare::check(cases! {
        true "GICv2 GICD_ISENABLER16: read of 4 bytes" "" gicv2_case([(0x140, Dword, None)]);
        true "GICv2 GICD_ISENABLER31: write of 1 to 1 byte" "" gicv2_case([(0x17c, Byte, Some(1))]);
        true "GICD 0x30: read of 4 bytes" "" gicd_case(0x30, Dword, None, 0x30);
        true "GICD_SETSPI_NSR: write of 4 bytes" "" gicd_case(0x40, Dword, Some(40), 0x40);
        true "GICD_ISENABLER31: unaligned read of 8 bytes" "" gicd_case(0x17c, Qword, None, 0x180);
        true "GICD_ISENABLER1 + 1: read of 4 bytes" "" gicd_case(0x105, Dword, None, 0x100);
        true "GICD_IPRIORITYR255: read of 8 bytes" "" gicd_case(0x7fc, Qword, None, 0x800);
        true "GICD_ITARGETSR125: write of 4 bytes, one of them the guest's"
            "another's interrupt is rerouted"
            gicd_case(0x9f4, Dword, Some(0), 0x9f0);
        true "GICD_IROUTER500 + 4: write of 8 bytes" "another's interrupt is rerouted"
            gicd_case(0x6fa4, Qword, Some(0), 0x6fa8);
        true "GICD_IGROUPR1: write of 0" "the guest's interrupts are FIQs"
            gicd_case(0x84, Dword, Some(0), 0x80);
        true "GICD past 64 KiB: read of 4 bytes" "" gicd_case(0x1_0000, Dword, None, 0);
        true "GICR_IIDR: write of 4 bytes" "" gicr_case(0x4, Dword, Some(0), |_| false);
        true "GICR_TYPER + 4: read of 4 bytes" "" gicr_case(0xc, Dword, None, |_| false);
        true "GICR_PROPBASER + 4: write of 4 bytes" "" gicr_case(0x74, Dword, Some(0), |_| false);
        true "GICR 0x100: read of 4 bytes" "" gicr_case(0x100, Dword, None, |_| false);
        true "GICR_IPRIORITYR0 + 1: read of 4 bytes" "" gicr_case(0x1_0401, Dword, None, |_| false);
        true "GICR_CTLR: write of EnableLPIs" "the hardware uses the guest's pending table"
            gicr_case(0x0, Dword, Some(1), |host| host(0) & 1 != 0);
        true "GICR_PENDBASER: write of 8 bytes" "the hardware has the guest's address to write to"
            gicr_case(0x78, Qword, Some(0x1000), |host| host(0x78) == 0x1000);
        true "GICR_WAKER: write of ProcessorSleep" "the host's CPU gets no interrupts"
            gicr_case(0x14, Dword, Some(2), |host| host(0x10) >> 32 & 2 != 0);
        true "GICR_IGROUPR0: write of 0" "the host's interrupts are FIQs"
            gicr_case(0x1_0080, Dword, Some(0), |host| host(0x1_0080) as u32 == 0);
        true "GICR_INVLPIR: read of 4 bytes" "" gicr_case(0xa0, Dword, None, |_| false);
        true "GICR_INVLPIR: write of 0" "other memory of the host is written"
            gicr_case(0xa0, Dword, Some(0), |_| false);
        true "GICR_INVLPIR: write of 0x1_2000" "other memory of the host is written"
            gicr_case(0xa0, Dword, Some(0x1_2000), |_| false);
        true "GITS_CREADR: write of 8 bytes" ""
            its_case(true, &[], [(0x90, Qword, Some(0))], 0x80);
        true "GITS_BASER0: read of 8 bytes" "" its_case(true, &[], [(0x100, Qword, None)], 0x100);
        true "GITS_BASER2: write of 8 bytes" "the host's table is where the guest says"
            its_case(true, &[], [(0x110, Qword, Some(0x1000))], 0x110);
        true "GITS_CBASER + 4: write of 4 bytes" "the host's command queue is elsewhere"
            its_case(true, &[], [(0x84, Dword, Some(0))], 0x80);
        true "GITS past its frames: write of 8 bytes" "other memory of the host is written"
            its_case(true, &[], [(0x2_0000, Qword, Some(0))], 0x80);
        true "GITS_CWRITER: write of 0x20, the ITS disabled" ""
            its_case(false, &[], [(0x88, Qword, Some(0x20))], 0x80);
        true "GITS_CWRITER: write of 0x21" "" its_case(true, &[], [(0x88, Qword, Some(0x21))], 0x80);
        true "GITS_CWRITER: write of 0x40, then of 0x20" ""
            its_case(true, &[], [(0x88, Qword, Some(0x40)), (0x88, Qword, Some(0x20))], 0x80);
        false "MAPI of event 0" "other memory of the host is written"
            its_case(true, &[[0x0b, 0, 0, 0]], [(0x88, Qword, Some(0x20))], 0x80);
        false "MAPTI of LPI 0x1_2000" "other memory of the host is written"
            its_case(true, &[[0x0a, 0x1_2000 << 32, 0, 0]], [(0x88, Qword, Some(0x20))], 0x80);
    });
}
