//! The GICv3 redistributors: each vCPU has the redistributor of its physical CPU. Registers: Arm GIC architecture
//! specification, GICv3 and GICv4, IHI 0069, "Redistributor register map".

use axaddrspace::device::AccessWidth::{self, Byte, Dword, Qword};
use axdevice::AxVmDevices;
use axvmconfig::{
    EmulatedDeviceConfig,
    EmulatedDeviceType::{GPPTDistributor, GPPTRedistributor},
};
use support::{entry, size};

use crate::{
    common::{config, meet, miss, on_two_vcpus, read, write},
    host::{self, machine},
};

/// The address of the first one in the guest, which differs from that in the host.
const BASE: usize = 0x2f10_0000;
/// The distance from one to the next: there is a hole between them.
const STRIDE: usize = 0x4_0000;
/// The physical CPU of the first vCPU.
const PCPU: usize = 3;
const VCPUS: usize = 4;

/// The frame of SGIs and PPIs.
const SGI: usize = 0x1_0000;

const TYPER: usize = 0x8;
const PROPBASER: usize = 0x70;
const PENDBASER: usize = 0x78;
const SYNCR: usize = 0xc0;

/// GICR_TYPER.Last.
const LAST: usize = 1 << 4;

/// The maintenance interrupt, a PPI that the hypervisor needs.
const MAINTENANCE: usize = 1 << 25;

/// Registers that are forwarded unchanged, and a value for each.
const READ_WRITE: [(&str, usize, AccessWidth, usize); 17] = [
    // DPG1NS, DPG0 and DPG1S.
    ("GICR_CTLR", 0x0, Dword, 0x0700_0000),
    ("GICR_STATUSR", 0x10, Dword, 0xf),
    ("GICR_WAKER", 0x14, Dword, 0x4),
    ("GICR_IGROUPR0", SGI + 0x80, Dword, 0xffff_0001),
    ("GICR_ISENABLER0", SGI + 0x100, Dword, 0x8000_ffff),
    ("GICR_ICENABLER0", SGI + 0x180, Dword, 0x1_8001),
    ("GICR_ISPENDR0", SGI + 0x200, Dword, 0x4000_0000),
    ("GICR_ICPENDR0", SGI + 0x280, Dword, 0x2000_0000),
    ("GICR_ISACTIVER0", SGI + 0x300, Dword, 0x1000_0000),
    ("GICR_ICACTIVER0", SGI + 0x380, Dword, 0x0800_0000),
    ("GICR_IPRIORITYR0", SGI + 0x400, Dword, 0xa0b0_c0d0),
    ("GICR_IPRIORITYR7", SGI + 0x41c, Dword, 0x1020_3040),
    ("the priority of PPI 27", SGI + 0x41b, Byte, 0x98),
    ("the priority of SGI 1", SGI + 0x401, Byte, 0x58),
    ("GICR_ICFGR0", SGI + 0xc00, Dword, 0xaaaa_aaaa),
    ("GICR_ICFGR1", SGI + 0xc04, Dword, 0x0aa0_0aa0),
    ("GICR_IGRPMODR0", SGI + 0xd00, Dword, 0x0000_ffff),
];

/// A guest that is trusted with LPIs.
fn trusted() -> AxVmDevices {
    let args = [VCPUS, STRIDE, PCPU];
    let gicr = entry(GPPTRedistributor, BASE, machine::GICR_LENGTH, &args);
    let builder = AxVmDevices::builder().config(config(&[gicr]));
    builder.trust_guest_its(true).build().unwrap()
}

fn guest() -> AxVmDevices {
    let args = [VCPUS, STRIDE, PCPU];
    let gicr = entry(GPPTRedistributor, BASE, machine::GICR_LENGTH, &args);
    AxVmDevices::try_new(config(&[gicr])).unwrap()
}

/// The addresses of a register in a vCPU's redistributor, and in that of its physical CPU.
fn both(vcpu: usize, offset: usize) -> (usize, usize) {
    let host = machine::GICR + (PCPU + vcpu) * machine::GICR_LENGTH;
    (BASE + vcpu * STRIDE + offset, host + offset)
}

#[test]
fn each_vcpu_reaches_its_cpu_s_and_no_other() {
    let _machine = machine::exclusive();
    let devices = guest();
    for (name, offset, width, value) in READ_WRITE {
        for cpu in 0..machine::CPUS {
            let register = machine::GICR + cpu * machine::GICR_LENGTH + offset;
            host::set(register, width, 0);
        }
        for vcpu in 0..VCPUS {
            let (guests, hosts) = both(vcpu, offset);
            write(&devices, guests, width, value);
            assert_eq!(host::get(hosts, width), value, "{name} of vCPU {vcpu}");
            assert_eq!(read(&devices, guests, width), value, "{name}");
            host::set(hosts, width, value >> 1);
            assert_eq!(read(&devices, guests, width), value >> 1, "{name}");
            // Reset, so that the next write is distinguishable.
            host::set(hosts, width, 0);
            for cpu in 0..machine::CPUS {
                let register = machine::GICR + cpu * machine::GICR_LENGTH + offset;
                assert_eq!(host::get(register, width), 0, "{name} of CPU {cpu}");
            }
        }
    }
}

#[test]
fn identification_registers_can_be_read() {
    let _machine = machine::exclusive();
    let devices = guest();
    // GICR_IIDR; GICR_PIDR2 and GICR_CIDR3.
    for offset in [0x4, 0xffe8, 0xfffc] {
        let (guests, hosts) = both(1, offset);
        host::set(hosts, Dword, 0x0200_043b);
        assert_eq!(read(&devices, guests, Dword), 0x0200_043b);
    }
    // GICR_TYPER: there is a hole after each, so that each is the last.
    let (guests, hosts) = both(2, TYPER);
    let affinity = 0x0302_0100_0000_0521;
    host::set(hosts, Qword, affinity);
    assert_eq!(read(&devices, guests, Qword), affinity | LAST);
    assert_eq!(read(&devices, guests, Dword), 0x521 | LAST);
    // GICR_SYNCR: no operation is ever in progress.
    let (guests, hosts) = both(0, SYNCR);
    host::set(hosts, Dword, 1);
    assert_eq!(read(&devices, guests, Dword), 0);
    // GICR_PENDBASER: the CPU's own table.
    let (guests, hosts) = both(0, PENDBASER);
    host::set(hosts, Qword, 0x0780_0000_9000_0000);
    assert_eq!(read(&devices, guests, Qword), 0x0780_0000_9000_0000);
}

#[test]
fn the_table_of_properties_is_stored_for_the_guest_only() {
    let _machine = machine::exclusive();
    let devices = guest();
    for vcpu in 0..VCPUS {
        let (guests, hosts) = both(vcpu, PROPBASER);
        host::set(hosts, Qword, 0x1234_5000);
        let value = 0x0700_0001_0000_078f + vcpu * 0x1_0000;
        write(&devices, guests, Qword, value);
        assert_eq!(read(&devices, guests, Qword), value);
        assert_eq!(host::get(hosts, Qword), 0x1234_5000);
    }
    let (first, _) = both(0, PROPBASER);
    assert_eq!(read(&devices, first, Qword), 0x0700_0001_0000_078f);
}

#[test]
fn the_maintenance_interrupt_stays_enabled() {
    let _machine = machine::exclusive();
    let devices = guest();
    let (guests, hosts) = both(0, SGI + 0x180);
    write(&devices, guests, Dword, 0xffff_ffff);
    assert_eq!(host::get(hosts, Dword), 0xffff_ffff & !MAINTENANCE);
}

/// GICR_TYPER.Last of each redistributor at these addresses, read from the whole register and from its half.
fn last(devices: &AxVmDevices, at: impl IntoIterator<Item = usize>) -> Vec<usize> {
    let last = |base| {
        let whole = read(devices, base + TYPER, Qword);
        assert_eq!(read(devices, base + TYPER, Dword), whole & 0xffff_ffff);
        assert_eq!(read(devices, base + TYPER + 4, Dword), whole >> 32);
        whole >> 4 & 1
    };
    at.into_iter().map(last).collect()
}

/// An entry with this many redistributors, from that of physical CPU 0 on.
fn redistributors(base: usize, count: usize, stride: usize) -> EmulatedDeviceConfig {
    let args = [count, stride, 0];
    entry(GPPTRedistributor, base, machine::GICR_LENGTH, &args)
}

/// Sets GICR_TYPER of the host's redistributors: each contains its number, and the last one contains Last.
fn set_types() {
    for cpu in 0..machine::CPUS {
        let typer = machine::GICR + cpu * machine::GICR_LENGTH + TYPER;
        let last = if cpu + 1 == machine::CPUS { LAST } else { 0 };
        host::set(typer, Qword, cpu << 32 | cpu << 8 | last | 1);
    }
}

#[test]
fn only_the_last_of_contiguous_redistributors_is_marked_as_last() {
    let _machine = machine::exclusive();
    set_types();
    let length = machine::GICR_LENGTH;
    for count in [1, 2, 4, machine::CPUS] {
        let devices = AxVmDevices::try_new(config(&[redistributors(BASE, count, length)])).unwrap();
        let mut expected = vec![0; count];
        expected[count - 1] = 1;
        assert_eq!(
            last(&devices, (0..count).map(|i| BASE + i * length)),
            expected
        );
        // All other bits are the host's: each vCPU finds its redistributor by its affinity.
        for i in 0..count {
            let typer = read(&devices, BASE + i * length + TYPER, Qword);
            assert_eq!(typer & !LAST, i << 32 | i << 8 | 1);
        }
    }
}

#[test]
fn a_series_may_come_from_several_entries_in_any_order() {
    let _machine = machine::exclusive();
    set_types();
    let length = machine::GICR_LENGTH;
    let apart = BASE + 8 * length;
    let entries = [
        redistributors(BASE + 2 * length, 2, length),
        redistributors(apart, 1, length),
        redistributors(BASE, 2, length),
        // With a hole in it, and one at its end.
        redistributors(apart + length, 2, 2 * length),
    ];
    let devices = AxVmDevices::try_new(config(&entries)).unwrap();
    assert_eq!(
        last(&devices, (0..4).map(|i| BASE + i * length)),
        [0, 0, 0, 1]
    );
    assert_eq!(
        last(&devices, [0, 1, 3].map(|i| apart + i * length)),
        [0, 1, 1]
    );
}

#[test]
fn only_a_redistributor_that_is_there_comes_after_another() {
    let _machine = machine::exclusive();
    set_types();
    let length = machine::GICR_LENGTH;
    let next = BASE + 2 * length;
    let entries = [
        redistributors(BASE, 2, length),
        entry(GPPTDistributor, next, machine::GICD_LENGTH, &[]),
        // Overlaps the distributor, and is left out.
        redistributors(next, 1, length),
    ];
    let devices = AxVmDevices::new(config(&entries));
    assert_eq!(last(&devices, [BASE, BASE + length]), [0, 1]);
}

#[test]
fn the_distance_to_the_next_redistributor_follows_from_the_length() {
    let _machine = machine::exclusive();
    // GICR_TYPER of a GICv4.1: VLPIS, Dirty, RVPEID and VSGI, in addition to PLPIS.
    let (virtual_lpis, others) = (1 << 1 | 1 << 2 | 1 << 7 | 1 << 26, 1);
    for (length, seen) in [
        (machine::GICR_LENGTH, others),
        (2 * machine::GICR_LENGTH, others | virtual_lpis),
    ] {
        let gicr = entry(GPPTRedistributor, BASE, length, &[2, length, 0]);
        let devices = AxVmDevices::try_new(config(&[gicr])).unwrap();
        for cpu in 0..2 {
            let typer = machine::GICR + cpu * length + TYPER;
            host::set(typer, Qword, others | virtual_lpis);
        }
        assert_eq!(read(&devices, BASE + TYPER, Qword), seen);
        assert_eq!(read(&devices, BASE + length + TYPER, Dword), seen | LAST);
    }
}

#[test]
fn two_vcpus_write_one_register_of_one() {
    let _machine = machine::exclusive();
    let devices = guest();
    let (register, _) = both(0, PROPBASER);
    on_two_vcpus(&devices, |devices, vcpu| {
        for round in 0..8 {
            write(devices, register, Qword, round << 12 | vcpu);
            let now = read(devices, register, Qword);
            assert!(now >> 12 < 8 && now & 0xfff < 2, "{now:#x}");
        }
    });
    assert_eq!(read(&devices, register, Qword) >> 12, 7);
}

#[test]
fn two_vcpus_write_halves_of_one_register_and_neither_is_lost() {
    const ROUNDS: usize = size(20_000, 8);
    let _machine = machine::exclusive();
    let devices = guest();
    let (register, _) = both(0, PROPBASER);
    on_two_vcpus(&devices, |devices, vcpu| {
        for round in 0..ROUNDS {
            write(devices, register + 4 * vcpu, Dword, round);
            assert_eq!(read(devices, register + 4 * vcpu, Dword), round);
            let whole = read(devices, register, Qword);
            assert_eq!(whole >> (32 * vcpu) & 0xffff_ffff, round);
        }
    });
}

#[test]
fn two_vcpus_are_in_one_at_the_same_time() {
    let _machine = machine::exclusive();
    let devices = guest();
    for (offset, width) in [
        (0x0, Dword),
        (0x4, Dword),
        (TYPER, Qword),
        (TYPER, Dword),
        (0x10, Dword),
        (0x14, Dword),
        (PENDBASER, Qword),
        (PENDBASER, Dword),
        (SGI + 0x80, Dword),
        (SGI + 0x100, Dword),
        (SGI + 0x380, Dword),
        (SGI + 0x400, Byte),
        (SGI + 0xc04, Dword),
        (SGI + 0xd00, Dword),
    ] {
        let (guests, hosts) = both(1, offset);
        let met = meet(&devices, hosts, |devices, _| {
            read(devices, guests, width);
        });
        assert!(met, "reads of {offset:#x}, {width:?}");
    }
}

#[test]
fn writes_that_keep_no_bits_run_at_the_same_time() {
    let _machine = machine::exclusive();
    let devices = guest();
    for (name, offset, width, value) in READ_WRITE {
        // GICR_CTLR and GICR_IGROUPR0 keep bits.
        if matches!(offset, 0x0) || offset == SGI + 0x80 {
            continue;
        }
        let (guests, hosts) = both(1, offset);
        let met = meet(&devices, hosts, |devices, vcpu| match vcpu {
            0 => write(devices, guests, width, value),
            _ => drop(read(devices, guests, width)),
        });
        assert!(met, "a write and a read of {name}");
        let met = meet(&devices, hosts, |devices, _| {
            write(devices, guests, width, value)
        });
        assert!(met, "writes of {name}");
    }
}

/// Two vCPUs write a register of one redistributor, with the initial value `before`. Returns its final value. The two
/// are never in the device together.
fn in_turn(
    devices: &AxVmDevices,
    offset: usize,
    before: usize,
    writes: [(usize, AccessWidth, usize); 2],
) -> usize {
    let (guests, hosts) = both(1, offset);
    host::set(hosts, Qword, before);
    let missed = miss(devices, hosts, |devices, vcpu| {
        let (at, width, value) = writes[vcpu];
        write(devices, guests + at, width, value);
    });
    assert!(missed, "{offset:#x}");
    host::get(hosts, Qword)
}

#[test]
fn read_modify_writes_take_turns_and_lose_no_bits() {
    let _machine = machine::exclusive();
    let untrusted = guest();
    // GICR_CTLR: EnableLPIs, which the host has set, stays set regardless of the two writes.
    let writes = [(0, Dword, 1 << 24), (0, Dword, 1 << 25)];
    let control = in_turn(&untrusted, 0x0, 1, writes);
    assert!(matches!(control, 0x100_0001 | 0x200_0001), "{control:#x}");
    // GICR_IGROUPR0.
    let writes = [(0, Dword, 1 << 3), (0, Dword, 1 << 5)];
    assert_eq!(in_turn(&untrusted, SGI + 0x80, 1 << 9, writes), 0x228);
    // GICR_PENDBASER: both halves, then one half and the whole.
    let trusted = trusted();
    let writes = [(0, Dword, 0x1111_0000), (4, Dword, 0x2222)];
    assert_eq!(in_turn(&trusted, PENDBASER, 0, writes), 0x2222_1111_0000);
    let writes = [(0, Dword, 0x3333_0000), (0, Qword, 0x4444_5555_0000)];
    let pending = in_turn(&trusted, PENDBASER, 0, writes);
    assert!(
        matches!(pending, 0x4444_5555_0000 | 0x4444_3333_0000),
        "{pending:#x}"
    );
}
