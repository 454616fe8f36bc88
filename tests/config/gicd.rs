//! The GICv3 distributor, through which a guest accesses its own interrupts in the host's distributor. Registers: Arm
//! GIC architecture specification, GICv3 and GICv4, IHI 0069, "Distributor register map". Permitted accesses: "GIC
//! memory-mapped register access" there.

use std::{thread, time::Duration};

use arm_vgic::v3::vgicd::VGicD;
use axaddrspace::device::AccessWidth::{self, Byte, Dword, Qword, Word};
use axdevice::{AxVmDevices, SharedVmDevices};
use axdevice_base::map_device_of_type;
use axvmconfig::EmulatedDeviceType::GPPTDistributor;
use support::entry;

use crate::{
    common::{config, meet, miss, on_two_vcpus, read, write},
    host::{self, machine},
};

/// Its address in the guest, which differs from that in the host.
const BASE: usize = 0x2f00_0000;

/// The guest's interrupts: the first and the last in a register of every kind, and some in between.
const OURS: [usize; 6] = [32, 40, 41, 63, 100, 1019];

/// Registers with some bits for each interrupt, from 0 up.
struct Bank {
    name: &'static str,
    offset: usize,
    /// The number of bits for each interrupt.
    bits: usize,
    /// The number of these bits, from the lowest, that the device forwards.
    passed: usize,
    /// Whether a write of zero to a bit leaves it unchanged. The host's register is then not read first.
    pokes: bool,
}

const BANKS: [Bank; 10] = [
    bank("GICD_IGROUPR", 0x80, 1, false),
    bank("GICD_ISENABLER", 0x100, 1, true),
    bank("GICD_ICENABLER", 0x180, 1, true),
    bank("GICD_ISPENDR", 0x200, 1, true),
    bank("GICD_ICPENDR", 0x280, 1, true),
    bank("GICD_ISACTIVER", 0x300, 1, true),
    bank("GICD_ICACTIVER", 0x380, 1, true),
    bank("GICD_IPRIORITYR", PRIORITIES, 8, false),
    bank("GICD_ICFGR", 0xc00, 2, false),
    bank("GICD_IGRPMODR", 0xd00, 1, false),
];

const PRIORITIES: usize = 0x400;
const ITARGETSR: usize = 0x800;
const IROUTER: usize = 0x6000;

/// GICD_CTLR, GICD_TYPER, GICD_IIDR, GICD_TYPER2; GICD_PIDR4, GICD_PIDR0, GICD_PIDR2, GICD_CIDR0,
/// GICD_CIDR3.
const READ_ONLY: [usize; 9] = [0x0, 0x4, 0x8, 0xc, 0xffd0, 0xffe0, 0xffe8, 0xfff0, 0xfffc];

const fn bank(name: &'static str, offset: usize, bits: usize, pokes: bool) -> Bank {
    Bank {
        name,
        offset,
        bits,
        // `arm_vgic` 0.4.10 forwards half of a priority, the half that few hosts implement.
        passed: if bits == 8 { 4 } else { bits },
        pokes,
    }
}

impl Bank {
    /// The offsets of the bank's accesses of this width.
    fn accesses(&self, width: AccessWidth) -> impl Iterator<Item = usize> {
        let length = 1024 * self.bits / 8;
        (self.offset..self.offset + length).step_by(width.size())
    }

    /// The bits of an access that belong to the guest's interrupts.
    fn ours(&self, offset: usize, width: AccessWidth) -> usize {
        let first = (offset - self.offset) * 8;
        let bits = 0..width.size() * 8;
        let ours = bits.filter(|bit| {
            let (interrupt, bit) = ((first + bit) / self.bits, (first + bit) % self.bits);
            OURS.contains(&interrupt) && bit < self.passed
        });
        ours.fold(0, |mask, bit| mask | 1 << bit)
    }

    /// The widths that the architecture defines for it.
    fn widths(&self) -> &'static [AccessWidth] {
        match self.bits {
            8 => &[Byte, Dword],
            _ => &[Dword],
        }
    }
}

/// Bits that are different in each register.
fn pattern(offset: usize, width: AccessWidth) -> usize {
    let bits = (offset + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits >> (64 - 8 * width.size())
}

/// A guest with its interrupts assigned as axvm assigns them: to CPU 1, before any vCPU runs.
fn guest() -> AxVmDevices {
    let entries = [entry(GPPTDistributor, BASE, machine::GICD_LENGTH, &[])];
    let devices = AxVmDevices::try_new(config(&entries)).unwrap();
    let item = devices.iter_mmio_dev().next().unwrap();
    let assigned = map_device_of_type(item, |gicd: &VGicD| {
        OURS.map(|interrupt| gicd.assign_irq(interrupt as u32, 1, (3, 2, 1, 0)))
    });
    assert!(assigned.is_some());
    devices
}

#[test]
fn reads_see_the_guest_s_interrupts_and_no_others() {
    let _machine = machine::exclusive();
    let devices = guest();
    for bank in &BANKS {
        for &width in bank.widths() {
            for offset in bank.accesses(width) {
                let all = pattern(offset, width);
                host::set(machine::GICD + offset, width, all);
                let seen = read(&devices, BASE + offset, width);
                let (name, ours) = (bank.name, bank.ours(offset, width));
                assert_eq!(seen, all & ours, "{name} at {offset:#x}, {width:?}");
            }
        }
    }
}

#[test]
fn writes_change_the_guest_s_interrupts_and_no_others() {
    let _machine = machine::exclusive();
    let devices = guest();
    for bank in &BANKS {
        for &width in bank.widths() {
            for offset in bank.accesses(width) {
                let (name, ours) = (bank.name, bank.ours(offset, width));
                let register = machine::GICD + offset;
                let others = pattern(offset, width) & !ours;
                host::set(register, width, others);
                let value = pattern(!offset, width);
                write(&devices, BASE + offset, width, value);
                let kept = if bank.pokes { 0 } else { others };
                let now = host::get(register, width);
                assert_eq!(now, kept | value & ours, "{name} at {offset:#x}, {width:?}");
            }
        }
    }
}

#[test]
fn no_width_reaches_the_interrupts_of_others() {
    let _machine = machine::exclusive();
    let devices = guest();
    for bank in &BANKS {
        for width in [Byte, Word, Dword, Qword] {
            // The device cannot handle the last access of eight bytes.
            let count = bank.accesses(width).count() - usize::from(width == Qword);
            for offset in bank.accesses(width).take(count) {
                let (name, ours) = (bank.name, bank.ours(offset, width));
                let register = machine::GICD + offset;
                let others = pattern(offset, width) & !ours;
                host::set(register, width, others);
                assert_eq!(read(&devices, BASE + offset, width), 0, "{name}, {width:?}");
                write(&devices, BASE + offset, width, !others & !ours);
                let now = host::get(register, width);
                assert!(now == others || bank.pokes && now == 0, "{name}, {width:?}");
            }
        }
    }
}

#[test]
fn an_interrupt_is_routed_in_eight_bytes_or_in_halves() {
    let _machine = machine::exclusive();
    let devices = guest();
    // As `assign_irq` has set it: affinity 3.2.1.0, and Interrupt_Routing_Mode.
    let assigned = 3 << 32 | 1 << 31 | 2 << 16 | 1 << 8;
    for interrupt in OURS {
        let (ours, hosts) = (
            BASE + IROUTER + 8 * interrupt,
            machine::GICD + IROUTER + 8 * interrupt,
        );
        assert_eq!(read(&devices, ours, Qword), assigned);
        write(&devices, ours, Qword, 0x0000_0007_0006_0504);
        assert_eq!(host::get(hosts, Qword), 0x0000_0007_0006_0504);
        write(&devices, ours, Dword, 0x0001_0203);
        write(&devices, ours + 4, Dword, 0x4);
        assert_eq!(host::get(hosts, Qword), 0x0000_0004_0001_0203);
        assert_eq!(read(&devices, ours, Dword), 0x0001_0203);
        assert_eq!(read(&devices, ours + 4, Dword), 0x4);
        write(&devices, ours + 4, Dword, 0x9);
        assert_eq!(host::get(hosts, Qword), 0x0000_0009_0001_0203);
        write(&devices, ours, Dword, 0x000a_0b0c);
        assert_eq!(host::get(hosts, Qword), 0x0000_0009_000a_0b0c);
    }
    let (theirs, hosts) = (BASE + IROUTER + 8 * 42, machine::GICD + IROUTER + 8 * 42);
    host::set(hosts, Qword, assigned);
    write(&devices, theirs, Qword, 1);
    assert_eq!(read(&devices, theirs, Qword), 0);
    assert_eq!(host::get(hosts, Qword), assigned);
}

#[test]
fn an_interrupt_is_targeted_in_one_byte() {
    let _machine = machine::exclusive();
    let devices = guest();
    for interrupt in 32..1020 {
        let (guests, hosts) = (
            BASE + ITARGETSR + interrupt,
            machine::GICD + ITARGETSR + interrupt,
        );
        let ours = OURS.contains(&interrupt);
        if ours {
            // As `assign_irq` has set it: CPU 1.
            assert_eq!(read(&devices, guests, Byte), 1 << 1);
        }
        host::set(hosts, Byte, 0x81);
        let seen = if ours { 0x81 } else { 0 };
        assert_eq!(read(&devices, guests, Byte), seen);
        write(&devices, guests, Byte, 0x42);
        let now = if ours { 0x42 } else { 0x81 };
        assert_eq!(host::get(hosts, Byte), now);
    }
}

#[test]
fn identification_registers_can_be_read_and_not_be_written() {
    let _machine = machine::exclusive();
    let devices = guest();
    for offset in READ_ONLY {
        let value = pattern(offset, Dword);
        host::set(machine::GICD + offset, Dword, value);
        write(&devices, BASE + offset, Dword, !value & 0xffff_ffff);
        assert_eq!(host::get(machine::GICD + offset, Dword), value);
        assert_eq!(read(&devices, BASE + offset, Dword), value, "{offset:#x}");
    }
}

#[test]
fn two_vcpus_use_it_at_once() {
    let _machine = machine::exclusive();
    let devices = guest();
    for interrupt in 32..64 {
        host::set(machine::GICD + PRIORITIES + interrupt, Byte, 0xa0);
    }
    // Each vCPU writes its own priorities, in one register of four bytes, and enable bits in its own registers.
    // Hardware orders the writes of two vCPUs to one register; this memory does not.
    on_two_vcpus(&devices, |devices, vcpu| {
        for round in 0..8 {
            let (register, priority) = (BASE + PRIORITIES + OURS[1 + vcpu], round + 8);
            write(devices, register, Byte, priority);
            assert_eq!(read(devices, register, Byte), priority);
            let (register, bit) = [(BASE + 0x104, 1 << 8), (BASE + 0x10c, 1 << 4)][vcpu];
            write(devices, register, Dword, bit);
            assert_eq!(read(devices, register, Dword), bit);
        }
    });
    for interrupt in 32..64 {
        let now = host::get(machine::GICD + PRIORITIES + interrupt, Byte);
        let own = matches!(interrupt, 40 | 41);
        assert_eq!(now, if own { 0xaf } else { 0xa0 }, "{interrupt}");
    }
}

/// A register of each kind, for an interrupt of the guest, and a width: all kinds except those that the guard reserves.
const EACH: [(usize, AccessWidth); 13] = [
    (0x4, Dword),
    (0x84, Dword),
    (0x104, Dword),
    (0x184, Dword),
    (0x204, Dword),
    (0x284, Dword),
    (0x304, Dword),
    (0x384, Dword),
    (PRIORITIES + 40, Byte),
    (ITARGETSR + 40, Byte),
    (0xc08, Dword),
    (0xd04, Dword),
    (IROUTER + 8 * 40, Qword),
];

#[test]
fn two_vcpus_are_in_it_at_the_same_time() {
    let _machine = machine::exclusive();
    let devices = guest();
    for (offset, width) in EACH {
        let met = meet(&devices, machine::GICD + offset, |devices, _| {
            read(devices, BASE + offset, width);
        });
        assert!(met, "reads of {offset:#x}");
    }
}

#[test]
fn writes_are_made_at_the_same_time_but_for_those_that_mask() {
    let _machine = machine::exclusive();
    let devices = guest();
    for (offset, width) in EACH {
        // GICD_TYPER is read-only. A register with masked bits is read first by the device, under its own lock.
        let masked = BANKS.iter().find(|bank| {
            !bank.pokes && (bank.offset..bank.offset + 128 * bank.bits).contains(&offset)
        });
        if offset == 0x4 || masked.is_some() {
            continue;
        }
        let met = meet(
            &devices,
            machine::GICD + offset,
            |devices, vcpu| match vcpu {
                0 => write(devices, BASE + offset, width, 1 << 8),
                _ => drop(read(devices, BASE + offset, width)),
            },
        );
        assert!(met, "a write and a read of {offset:#x}");
        let met = meet(&devices, machine::GICD + offset, |devices, vcpu| {
            write(devices, BASE + offset, width, 1 << vcpu);
        });
        assert!(met, "writes of {offset:#x}");
    }
}

#[test]
fn groups_are_written_by_one_vcpu_at_a_time_and_none_is_lost() {
    let _machine = machine::exclusive();
    let devices = guest();
    // GICD_IGROUPR1.
    let (guests, hosts) = (BASE + 0x84, machine::GICD + 0x84);
    host::set(hosts, Dword, 0);
    let missed = miss(&devices, hosts, |devices, vcpu| {
        write(devices, guests, Dword, 1 << (8 + vcpu));
    });
    assert!(missed);
    assert_eq!(host::get(hosts, Dword), 0x300);
}

#[test]
fn in_a_thread_safe_registry_vcpus_take_turns() {
    let _machine = machine::exclusive();
    let entries = [entry(GPPTDistributor, BASE, machine::GICD_LENGTH, &[])];
    let devices = SharedVmDevices::try_new(config(&entries)).unwrap();
    let meeting = host::meet_at(machine::GICD + 0x4, Duration::from_millis(50));
    thread::scope(|vcpus| {
        for _ in 0..2 {
            vcpus.spawn(|| {
                devices
                    .handle_mmio_read((BASE + 0x4).into(), Dword)
                    .unwrap()
            });
        }
    });
    assert!(!meeting.took_place());
}
