//! The GICv3 redistributors: each vCPU has that of its physical CPU. Registers: Arm GIC architecture
//! specification, GICv3 and GICv4, IHI 0069, "Redistributor register map".

use axaddrspace::device::AccessWidth::{self, Byte, Dword, Qword};
use axdevice::AxVmDevices;
use axvmconfig::EmulatedDeviceType::GPPTRedistributor;

use crate::{
    common::{config, on_two_vcpus, read, write},
    entry::entry,
    host::{self, machine},
};

/// Where the guest has the first one: elsewhere than the host.
const BASE: usize = 0x2f10_0000;
/// From one to the next: there is a hole between them.
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

/// Registers that pass as they are, and a value for each.
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

fn guest() -> AxVmDevices {
    let args = [VCPUS, STRIDE, PCPU];
    let gicr = entry(GPPTRedistributor, BASE, machine::GICR_LENGTH, &args);
    AxVmDevices::try_new(config(&[gicr])).unwrap()
}

/// A register of a vCPU's redistributor, and of that of its physical CPU.
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
            // Back, so that the next one's write is seen to be its own.
            host::set(hosts, width, 0);
            for cpu in 0..machine::CPUS {
                let register = machine::GICR + cpu * machine::GICR_LENGTH + offset;
                assert_eq!(host::get(register, width), 0, "{name} of CPU {cpu}");
            }
        }
    }
}

#[test]
fn what_it_is_can_be_read() {
    let _machine = machine::exclusive();
    let devices = guest();
    // GICR_IIDR; GICR_PIDR2 and GICR_CIDR3.
    for offset in [0x4, 0xffe8, 0xfffc] {
        let (guests, hosts) = both(1, offset);
        host::set(hosts, Dword, 0x0200_043b);
        assert_eq!(read(&devices, guests, Dword), 0x0200_043b);
    }
    // GICR_TYPER: the device says of each that it is the last.
    let (guests, hosts) = both(2, TYPER);
    let affinity = 0x0302_0100_0000_0521;
    host::set(hosts, Qword, affinity);
    assert_eq!(read(&devices, guests, Qword), affinity | LAST);
    assert_eq!(read(&devices, guests, Dword), 0x521 | LAST);
    // GICR_SYNCR: nothing is ever under way.
    let (guests, hosts) = both(0, SYNCR);
    host::set(hosts, Dword, 1);
    assert_eq!(read(&devices, guests, Dword), 0);
    // GICR_PENDBASER: the CPU's own table.
    let (guests, hosts) = both(0, PENDBASER);
    host::set(hosts, Qword, 0x0780_0000_9000_0000);
    assert_eq!(read(&devices, guests, Qword), 0x0780_0000_9000_0000);
}

#[test]
fn the_table_of_properties_is_the_guest_s_own_idea() {
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
