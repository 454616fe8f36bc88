//! The ITS: the guest has its own tables; its commands go to the host's ITS. Registers: Arm GIC
//! architecture specification, GICv3 and GICv4, IHI 0069, "ITS register map"; commands, "ITS
//! commands" there.

use std::sync::{
    Barrier,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use axaddrspace::device::AccessWidth::{self, Byte, Dword, Qword};
use axdevice::AxVmDevices;
use axvmconfig::EmulatedDeviceType::{GPPTITS, GPPTRedistributor};
use support::{entry, size};

use crate::{
    common::{config, miss, on_two_vcpus, read, write},
    host::{self, machine},
};

/// Its address in the guest, which differs from that in the host.
const BASE: usize = 0x2f20_0000;
const GICR: usize = 0x2f10_0000;

const CTLR: usize = 0x0;
const IIDR: usize = 0x4;
const TYPER: usize = 0x8;
const CBASER: usize = 0x80;
const CWRITER: usize = 0x88;
const CREADR: usize = 0x90;
/// Of the device table and of the collection table.
const BASERS: [usize; 2] = [0x100, 0x108];

/// GITS_CTLR.Enabled.
const ENABLED: usize = 1;

/// GITS_CBASER.Valid.
const VALID: usize = 1 << 63;
/// The address in GITS_CBASER and GICR_PROPBASER.
const ADDRESS: usize = 0xf_ffff_ffff_f000;

/// The bytes of the host's command queue: 16 pages.
const QUEUE: usize = 0x1_0000;

const FIRST_LPI: usize = 8192;

/// The bytes of a command.
const COMMAND: usize = 32;

fn guest() -> AxVmDevices {
    let its = entry(GPPTITS, BASE, machine::ITS_LENGTH, &[machine::ITS]);
    let args = [1, machine::GICR_LENGTH, 0];
    let gicr = entry(GPPTRedistributor, GICR, machine::GICR_LENGTH, &args);
    let builder = AxVmDevices::builder().config(config(&[its, gicr]));
    builder.trust_guest_its(true).build().unwrap()
}

/// Maps the event to the LPI, both of device 7 and of collection 0.
fn mapti(event: usize, lpi: usize) -> [usize; 4] {
    [0x0a | 7 << 32, event | lpi << 32, 0, 0]
}

/// Makes all mappings take effect at redistributor 0.
const SYNC: [usize; 4] = [0x05, 0, 0, 0];

/// A guest's command queue.
struct Queue {
    memory: usize,
    written: usize,
}

impl Queue {
    /// Sets up a queue with the same number of pages as the host's in the ITS, which is off, and
    /// turns the ITS on.
    fn new(devices: &AxVmDevices) -> Self {
        let memory = host::registers(QUEUE);
        write(
            devices,
            BASE + CBASER,
            Qword,
            VALID | memory | (QUEUE / 0x1000 - 1),
        );
        write(devices, BASE + CTLR, Dword, ENABLED);
        Self { memory, written: 0 }
    }

    /// Appends a command, and returns the value of GITS_CWRITER that submits it.
    fn push(&mut self, command: [usize; 4]) -> usize {
        for (at, word) in command.into_iter().enumerate() {
            host::set(self.memory + self.written + 8 * at, Qword, word);
        }
        self.written += COMMAND;
        assert!(self.written < QUEUE, "the queue is full");
        self.written
    }
}

/// The position up to which the host's ITS has received commands.
fn submitted() -> usize {
    host::get(machine::ITS + CWRITER, Qword)
}

/// The command at `at` bytes from the start of the host's ITS queue.
fn command(at: usize) -> [usize; 4] {
    let queue = host::get(machine::ITS + CBASER, Qword) & ADDRESS;
    [0, 8, 16, 24].map(|word| host::get(queue + (at + word) % QUEUE, Qword))
}

/// The byte that configures the LPI in the host's redistributors.
fn properties(lpi: usize) -> usize {
    let table = host::get(machine::GICR + 0x70, Qword) & ADDRESS;
    host::get(table + lpi - FIRST_LPI, Byte)
}

#[test]
fn identification_registers_are_the_hosts() {
    let _machine = machine::exclusive();
    let devices = guest();
    let cases: [(usize, AccessWidth, usize); 4] = [
        (IIDR, Dword, 0x43b),
        (TYPER, Qword, 0x001e_ff01_2345_6781),
        (TYPER, Dword, 0x9abc_def1),
        // GITS_PIDR2.
        (0xffe8, Dword, 0x3b),
    ];
    for (offset, width, value) in cases {
        host::set(machine::ITS + offset, width, value);
        assert_eq!(read(&devices, BASE + offset, width), value);
    }
}

#[test]
fn the_guest_enables_the_its() {
    let _machine = machine::exclusive();
    let devices = guest();
    host::set(machine::ITS + CTLR, Dword, 0);
    assert_eq!(read(&devices, BASE + CTLR, Dword) & ENABLED, 0);
    write(&devices, BASE + CTLR, Dword, ENABLED);
    assert_eq!(host::get(machine::ITS + CTLR, Dword), ENABLED);
    assert_eq!(read(&devices, BASE + CTLR, Dword), ENABLED);
}

#[test]
fn the_tables_and_the_queue_are_stored_for_the_guest_only() {
    let _machine = machine::exclusive();
    let devices = guest();
    for (i, offset) in BASERS.into_iter().enumerate() {
        let host = host::get(machine::ITS + offset, Qword);
        assert_ne!(host & VALID, 0, "the device has made the host's table");
        let value = VALID | (0x4000_0000 + i * 0x1_0000);
        write(&devices, BASE + offset, Qword, value);
        assert_eq!(read(&devices, BASE + offset, Dword), value & 0xffff_ffff);
        assert_eq!(host::get(machine::ITS + offset, Qword), host);
    }
    let host = host::get(machine::ITS + CBASER, Qword);
    write(&devices, BASE + CBASER, Qword, VALID | 0x5000_0000);
    assert_eq!(read(&devices, BASE + CBASER, Qword), VALID | 0x5000_0000);
    assert_eq!(host::get(machine::ITS + CBASER, Qword), host);
}

#[test]
fn commands_go_to_the_host_s_queue_in_order() {
    let _machine = machine::exclusive();
    let devices = guest();
    let mut queue = Queue::new(&devices);
    let commands = [mapti(3, FIRST_LPI + 0x40), mapti(4, FIRST_LPI + 0x41), SYNC];
    for batch in [&commands[..2], &commands[2..]] {
        let before = submitted();
        let writer = batch.iter().fold(0, |_, &command| queue.push(command));
        write(&devices, BASE + CWRITER, Qword, writer);
        assert_eq!(read(&devices, BASE + CWRITER, Qword), writer);
        assert_eq!(read(&devices, BASE + CREADR, Qword), writer);
        assert_eq!(submitted(), (before + batch.len() * COMMAND) % QUEUE);
        for (i, expected) in batch.iter().enumerate() {
            assert_eq!(command(before + i * COMMAND), *expected);
        }
    }
    // Mapped interrupts are enabled.
    for (lpi, enabled) in [(0x3f, 0), (0x40, 1), (0x41, 1), (0x42, 0)] {
        assert_eq!(properties(FIRST_LPI + lpi), enabled, "{lpi:#x}");
    }
}

#[test]
fn an_lpi_is_enabled_through_the_redistributor() {
    let _machine = machine::exclusive();
    let devices = guest();
    let lpi = FIRST_LPI + 0x123;
    assert_eq!(properties(lpi), 0);
    // GICR_INVLPIR.
    write(&devices, GICR + 0xa0, Dword, lpi);
    assert_eq!(properties(lpi), 1);
    assert_eq!(properties(lpi + 1), 0);
}

#[test]
fn two_vcpus_submit_commands_once() {
    let _machine = machine::exclusive();
    let devices = guest();
    let rounds = size(60, 4);
    let queue = Queue::new(&devices);
    let (before, memory) = (submitted(), queue.memory);
    let mut queue = queue;
    for round in 0..rounds {
        queue.push(mapti(round, FIRST_LPI + 0x200 + round));
    }
    // Both submit the same command to the ITS at the same time.
    let (turn, told) = (Barrier::new(2), AtomicUsize::new(0));
    on_two_vcpus(&devices, |devices, _| {
        for round in 1..=rounds {
            turn.wait();
            write(devices, BASE + CWRITER, Qword, round * COMMAND);
            told.fetch_add(1, Relaxed);
            assert_eq!(read(devices, BASE + CREADR, Qword), round * COMMAND);
            turn.wait();
        }
    });
    assert_eq!(told.load(Relaxed), 2 * rounds);
    assert_eq!(submitted(), (before + rounds * COMMAND) % QUEUE);
    for round in 0..rounds {
        let expected = [0, 8, 16, 24].map(|word| host::get(memory + round * COMMAND + word, Qword));
        assert_eq!(command(before + round * COMMAND), expected);
    }
}

#[test]
fn two_vcpus_write_the_same_registers() {
    let _machine = machine::exclusive();
    let devices = guest();
    on_two_vcpus(&devices, |devices, vcpu| {
        for round in 1..8 {
            let value = VALID | round << 12 | vcpu;
            for offset in [BASERS[0], BASERS[1], CBASER] {
                write(devices, BASE + offset, Qword, value);
                let now = read(devices, BASE + offset, Dword) >> 12;
                assert!((1..8).contains(&now));
            }
        }
    });
}

#[test]
fn vcpus_are_in_it_one_at_a_time() {
    let _machine = machine::exclusive();
    let devices = guest();
    for (offset, width) in [(CTLR, Dword), (IIDR, Dword), (TYPER, Qword)] {
        let missed = miss(&devices, machine::ITS + offset, |devices, _| {
            read(devices, BASE + offset, width);
        });
        assert!(missed, "{offset:#x}");
    }
}
