//! A vCPU: its initial state, and its run loop, which forwards every exit to the registry.

use std::{
    ptr,
    sync::{Arc, atomic::Ordering},
};

use anyhow::{Context as _, Result, bail};
use axaddrspace::{
    GuestPhysAddr,
    device::{AccessWidth, Port},
};
use axdevice::{Dispatcher, SharedVmDevices};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::{VcpuExit, VcpuFd, VmFd};
use libc::EINTR;

use super::memory::Memory;
use crate::{
    contract::{GUEST_MEMORY, GUEST_TABLES, guest_stack},
    vcpus::DoesNotHalt,
    vm::Vm,
};

/// A vCPU of KVM, with the guest's memory.
pub(crate) struct Vcpu {
    fd: VcpuFd,
    index: u32,
    /// KVM reads and writes it as long as the vCPU exists.
    _memory: Arc<Memory>,
}

/// Runs the guest until it halts. Each of its accesses to a device is an exit, which the registry handles.
fn run(vcpu: &mut VcpuFd, vm: &Vm, index: usize) -> Result<()> {
    let mut devices = vm.devices.dispatcher();
    let ended = run_with(vcpu, vm, index, &mut devices);
    vm.profiles.hand_over(index, devices.take_profile());
    ended
}

/// Runs the guest with its own handle.
fn run_with(
    vcpu: &mut VcpuFd,
    vm: &Vm,
    index: usize,
    devices: &mut Dispatcher<&SharedVmDevices>,
) -> Result<()> {
    let exits = &vm.exits[index];
    while !vm.abandoned.load(Ordering::Relaxed) {
        let answered = match vcpu.run() {
            Ok(VcpuExit::MmioRead(address, data)) => {
                exits.mmio.add_one();
                let must_find = vm.arrivals.must_find(address as u32, data.len());
                let read = devices.read_bytes(GuestPhysAddr::from(address as usize), data);
                exits.found(must_find, data);
                read
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                exits.mmio.add_one();
                devices.write_bytes(GuestPhysAddr::from(address as usize), data)
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                exits.port.add_one();
                let data = ptr::from_mut(data);
                let width = item_width(vcpu);
                // SAFETY: the slice is in the pages that the vCPU shares with the kernel, mapped for as
                // long as `vcpu` lives, and until the next `run` nothing else reads or writes it.
                let data = unsafe { &mut *data };
                devices.read_repeated(Port(port), width, data)
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                exits.port.add_one();
                let data = ptr::from_ref(data);
                let width = item_width(vcpu);
                // SAFETY: as above.
                let data = unsafe { &*data };
                devices.write_repeated(Port(port), width, data)
            }
            Ok(VcpuExit::Hlt) if vm.mailbox.stopped() => return Ok(()),
            Ok(unexpected) => bail!("the guest ended with exit {unexpected:?}"),
            // A kick: a device is removed, the profile is requested, or the VM is abandoned.
            Err(error) if error.errno() == EINTR => {
                devices.refresh();
                vm.profiles
                    .hand_over_if_asked(index, || devices.take_profile());
                Ok(())
            }
            Err(error) => return Err(error).context("KVM_RUN"),
        };
        exits.answered(answered);
    }
    bail!(DoesNotHalt)
}

/// The width of an item of the last exit, a port exit: string I/O has several items in one buffer.
fn item_width(vcpu: &mut VcpuFd) -> AccessWidth {
    // SAFETY: the member consists of integers, and the union is large enough.
    let size = unsafe { vcpu.get_kvm_run().__bindgen_anon_1.io.size };
    // The kernel gives 1, 2 or 4.
    AccessWidth::try_from(usize::from(size)).unwrap_or(AccessWidth::Byte)
}

impl Vcpu {
    /// A vCPU at the start of the guest's program, in 64-bit mode.
    pub(crate) fn new(machine: &VmFd, index: u32, memory: Arc<Memory>) -> Result<Self> {
        let fd = machine
            .create_vcpu(index.into())
            .context("KVM_CREATE_VCPU")?;
        let mut sregs = fd.get_sregs().context("KVM_GET_SREGS")?;
        sregs.cs = kvm_segment {
            l: 1,
            ..segment(1, 0xb)
        };
        let data = kvm_segment {
            db: 1,
            ..segment(2, 0x3)
        };
        (sregs.ds, sregs.es, sregs.ss, sregs.fs, sregs.gs) = (data, data, data, data, data);
        sregs.cr0 |= CR0_PE | CR0_PG;
        sregs.cr3 = GUEST_TABLES.into();
        sregs.cr4 |= CR4_PAE;
        sregs.efer |= EFER_LME | EFER_LMA;
        // No interrupts are expected, and an exception ends the guest.
        sregs.idt.limit = 0;
        fd.set_sregs(&sregs).context("KVM_SET_SREGS")?;
        let regs = kvm_regs {
            rip: GUEST_MEMORY.into(),
            // As after a call, which has pushed the return address.
            rsp: u64::from(guest_stack(index)) - 8,
            rdi: index.into(),
            rflags: RFLAGS_RESERVED,
            ..Default::default()
        };
        fd.set_regs(&regs).context("KVM_SET_REGS")?;
        Ok(Self {
            fd,
            index,
            _memory: memory,
        })
    }

    /// Runs the guest until it halts.
    pub(crate) fn run(&mut self, vm: &Vm) -> Result<()> {
        let ended = run(&mut self.fd, vm, self.index as usize);
        ended.with_context(|| match self.fd.get_regs() {
            Ok(regs) => format!("at rip {:#x}, rflags {:#x}", regs.rip, regs.rflags),
            Err(error) => format!("at an unknown rip ({error})"),
        })
    }
}

/// CR0: protected mode, and paging.
const CR0_PE: u64 = 1;
const CR0_PG: u64 = 1 << 31;
/// CR4: entries of 64 bits in the page tables.
const CR4_PAE: u64 = 1 << 5;
/// EFER: 64-bit mode, enabled and active.
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// RFLAGS: the bit that is always set.
const RFLAGS_RESERVED: u64 = 2;

/// A segment of all addresses, present, as for descriptor `index` of type `type_`.
fn segment(index: u16, type_: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector: index << 3,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    }
}
