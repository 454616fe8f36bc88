//! The PLIC, run whole: the hypervisor's CSRs, through which the device raises interrupts, are emulated. Registers:
//! RISC-V PLIC specification 1.0.0, "Memory Map" and the section beside each register. All registers have 32 bits, and
//! are accessed only in this width.

use axaddrspace::device::AccessWidth::Dword;
use axdevice::AxVmDevices;
use axvmconfig::EmulatedDeviceType::PPPTGlobal;
use support::entry;

use crate::{
    common::{config, on_two_vcpus, read, write},
    host,
};

#[cfg(not(miri))]
use crate::host::privileged::{emulate, set_vscause, vseip};

const LENGTH: usize = 0x40_0000;

/// "Interrupt Priorities": of source `n`, 4 bytes each.
const PRIORITY: usize = 0;
/// "Interrupt Pending Bits": 32 sources in a word.
const PENDING: usize = 0x1000;

/// "Interrupt Enables": 32 sources in a word, 32 words for a context.
#[cfg(not(miri))]
const ENABLE: usize = 0x2000;
#[cfg(not(miri))]
const ENABLE_STRIDE: usize = 0x80;
/// "Priority Thresholds", one for a context.
#[cfg(not(miri))]
const THRESHOLD: usize = 0x20_0000;
/// "Interrupt Claim Process" and "Interrupt Completion", one register for a context.
#[cfg(not(miri))]
const CLAIM: usize = 0x20_0004;
#[cfg(not(miri))]
const CONTEXT_STRIDE: usize = 0x1000;

/// Of the two contexts of a hart, the odd one is the supervisor context.
#[cfg(not(miri))]
const SUPERVISOR: usize = 1;

/// A guest's PLIC, and its address. The device assumes that the host's PLIC is at the same address.
struct Plic {
    devices: AxVmDevices,
    base: usize,
}

impl Plic {
    fn new(contexts: usize) -> Self {
        let base = host::registers(LENGTH);
        let entries = [entry(PPPTGlobal, base, LENGTH, &[contexts])];
        let devices = AxVmDevices::try_new(config(&entries)).unwrap();
        Self { devices, base }
    }

    fn read(&self, offset: usize) -> usize {
        read(&self.devices, self.base + offset, Dword)
    }

    fn write(&self, offset: usize, value: usize) {
        write(&self.devices, self.base + offset, Dword, value);
    }

    /// The value of the host's register at this offset.
    fn host(&self, offset: usize) -> usize {
        host::get(self.base + offset, Dword)
    }

    /// Injects an interrupt, as Axvisor does: by a write of a pending bit to the device itself.
    fn inject(&self, source: usize) {
        let word = (self.base + PENDING + source / 32 * 4).into();
        let device = self.devices.find_mmio_dev(word).unwrap();
        device
            .handle_write(word, Dword, 1 << (source % 32))
            .unwrap();
    }
}

#[test]
fn priorities_are_the_host_s() {
    let plic = Plic::new(1);
    for source in [1, 7, 32, 1023] {
        plic.write(PRIORITY + 4 * source, source % 8);
        assert_eq!(plic.host(PRIORITY + 4 * source), source % 8);
        host::set(plic.base + PRIORITY + 4 * source, Dword, 6);
        assert_eq!(plic.read(PRIORITY + 4 * source), 6);
    }
}

#[test]
fn pending_bits_are_the_guest_s() {
    let plic = Plic::new(1);
    let words = (0..32).map(|word| PENDING + 4 * word);
    assert!(words.clone().all(|word| plic.read(word) == 0));
    for source in [1, 31, 32, 1023] {
        plic.inject(source);
    }
    // Source 0 does not exist: its bit is always zero.
    plic.inject(0);
    assert_eq!(plic.read(PENDING), 1 << 31 | 1 << 1);
    assert_eq!(plic.read(PENDING + 4), 1);
    assert_eq!(plic.read(PENDING + 31 * 4), 1 << 31);
    assert!(words.clone().all(|word| plic.host(word) == 0));
}

#[test]
fn two_vcpus_use_it_at_once() {
    let plic = Plic::new(1);
    let (base, sources) = (plic.base, 2..32);
    on_two_vcpus(&plic.devices, |devices, vcpu| {
        for source in sources.clone().skip(vcpu).step_by(2) {
            // Each writes its own registers of the host. Hardware orders the writes of two vCPUs to one register; this
            // memory does not.
            write(devices, base + PRIORITY + 4 * source, Dword, source);
            assert_eq!(read(devices, base + PRIORITY + 4 * source, Dword), source);
            let word = (base + PENDING).into();
            let device = devices.find_mmio_dev(word).unwrap();
            device.handle_write(word, Dword, 1 << source).unwrap();
            assert_ne!(read(devices, base + PENDING, Dword) & 1 << source, 0);
        }
    });
    assert_eq!(plic.read(PENDING), 0xffff_fffc);
}

#[cfg(not(miri))]
#[test]
fn enables_and_thresholds_are_the_host_s_for_each_context() {
    emulate();
    let plic = Plic::new(4);
    for context in 0..4 {
        for word in [0, 1, 31] {
            let offset = ENABLE + ENABLE_STRIDE * context + 4 * word;
            let value = 0x8000_0001 + context * 0x100 + word;
            plic.write(offset, value);
            assert_eq!(plic.host(offset), value);
            assert_eq!(plic.read(offset), value);
        }
        let offset = THRESHOLD + CONTEXT_STRIDE * context;
        plic.write(offset, context + 1);
        assert_eq!(plic.host(offset), context + 1);
        assert_eq!(plic.read(offset), context + 1);
    }
    // No context has written registers of another.
    let enables = (0..4).map(|context| plic.host(ENABLE + ENABLE_STRIDE * context));
    assert!(enables.eq((0..4).map(|context| 0x8000_0001 + context * 0x100)));
}

#[cfg(not(miri))]
#[test]
fn an_interrupt_is_raised_claimed_and_completed() {
    emulate();
    let plic = Plic::new(2);
    let enable = ENABLE + ENABLE_STRIDE * SUPERVISOR;
    let claim = CLAIM + CONTEXT_STRIDE * SUPERVISOR;
    let threshold = THRESHOLD + CONTEXT_STRIDE * SUPERVISOR;
    for (source, priority) in [(5, 2), (9, 4), (10, 4), (33, 1)] {
        plic.write(PRIORITY + 4 * source, priority);
    }
    plic.write(enable, 1 << 5 | 1 << 9 | 1 << 10);
    assert!(!vseip(), "nothing is pending");
    for source in [5, 9, 10, 33] {
        plic.inject(source);
    }
    assert!(vseip());

    // The highest priority first; of equal priorities, the lowest number. Source 33 is not enabled.
    for source in [9, 10, 5] {
        assert_eq!(plic.read(claim), source);
        assert_eq!(plic.read(PENDING) & 1 << source, 0, "claimed");
        assert_eq!(vseip(), source != 5);
    }
    assert_eq!(plic.read(claim), 0, "no interrupt");

    // A source that is being served waits for its completion, which the guard forwards to the host's PLIC.
    plic.inject(9);
    assert_eq!(plic.read(claim), 0);
    plic.write(claim, 9);
    assert_eq!(plic.host(claim), 9);
    assert!(vseip());
    assert_eq!(plic.read(claim), 9);
    plic.write(claim, 9);

    // A threshold hides interrupts that are not above it from the hart, but not from a claim.
    plic.write(claim, 5);
    plic.write(threshold, 2);
    plic.inject(5);
    assert!(!vseip());
    plic.write(threshold, 1);
    assert!(vseip());
    assert_eq!(plic.read(claim), 5);
    assert!(!vseip());
}

#[cfg(not(miri))]
#[test]
fn an_interrupt_of_the_machine_context_does_not_reach_the_guest() {
    emulate();
    let plic = Plic::new(2);
    plic.write(PRIORITY + 4 * 3, 1);
    plic.write(ENABLE, 1 << 3);
    plic.inject(3);
    assert!(!vseip());
    assert_eq!(plic.read(CLAIM), 3);
}

#[cfg(not(miri))]
#[test]
fn an_interrupt_ends_the_tick_that_is_being_served() {
    emulate();
    let plic = Plic::new(2);
    plic.write(PRIORITY + 4 * 3, 1);
    plic.write(ENABLE + ENABLE_STRIDE * SUPERVISOR, 1 << 3);
    // The guest's last trap was a supervisor timer interrupt.
    set_vscause(1 << 63 | 5);
    host::privileged::set_vstip();
    plic.inject(3);
    assert!(vseip() && !host::privileged::vstip());
}
