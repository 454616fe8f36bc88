//! vCPUs without KVM: each is a thread that runs the guest and makes each of its accesses as KVM does.

mod doorbells;

use std::sync::Arc;

use anyhow::Result;
use axaddrspace::{
    GuestPhysAddr,
    device::{AccessWidth, Port},
};
use axdevice::{Dispatcher, SharedVmDevices};
use guest::{At, Guest, Machine, contract::*};

use self::doorbells::StandIn;
use crate::{vcpus::Vcpus, vm::Vm};

/// Starts the vCPUs of `vm`.
pub(crate) fn start(vm: &Arc<Vm>) -> Result<Vcpus> {
    let bells = Arc::new(StandIn::new(vm.vcpus));
    vm.connect_doorbells(bells.clone())?;
    let mut vcpus = Vcpus::new(vm.clone(), |_| {});
    for vcpu in 0..vm.vcpus {
        let (vm, bells) = (vm.clone(), bells.clone());
        vcpus.push(vcpu, move || {
            let devices = vm.devices.dispatcher();
            let thread = Thread {
                vcpu: vcpu as usize,
                vm: &vm,
                devices,
                bells: &bells,
            };
            let mut guest = Guest::new(vcpu, thread);
            guest.run();
            let profile = guest.machine.devices.take_profile();
            vm.profiles.hand_over(vcpu as usize, profile);
            Ok(())
        })?;
    }
    Ok(vcpus)
}

/// The machine of a thread: it does the work of the run loop in `kvm/vcpu.rs` on an exit.
struct Thread<'vm> {
    vcpu: usize,
    vm: &'vm Vm,
    devices: Dispatcher<&'vm SharedVmDevices>,
    bells: &'vm StandIn,
}

impl Machine for Thread<'_> {
    const IS_PC: bool = true;

    fn read(&mut self, at: At, width: Width) -> u32 {
        let mut data = [0; 4];
        let bytes = &mut data[..width as usize];
        match at {
            At::Mmio(address) => {
                let (here, beyond) = bytes.split_at_mut(on_page(address, width));
                self.read_mmio(address, here);
                self.read_mmio(address + here.len() as u32, beyond);
            }
            At::Port(port) => self.read_string(port, width, bytes),
        }
        u32::from_le_bytes(data)
    }

    fn write(&mut self, at: At, width: Width, value: u32) {
        let bytes = &value.to_le_bytes()[..width as usize];
        match at {
            At::Mmio(address) if self.bells.ring(address, value) => {}
            At::Mmio(address) => {
                let (here, beyond) = bytes.split_at(on_page(address, width));
                self.write_mmio(address, here);
                self.write_mmio(address + here.len() as u32, beyond);
            }
            At::Port(port) => {
                let exits = &self.vm.exits[self.vcpu];
                exits.port.add_one();
                exits.answered(self.devices.write_bytes(Port(port), bytes));
            }
        }
    }

    // KVM exits once, with all items.
    fn read_string(&mut self, port: u16, width: Width, bytes: &mut [u8]) {
        let exits = &self.vm.exits[self.vcpu];
        exits.port.add_one();
        let width = AccessWidth::try_from(width as usize).unwrap_or(AccessWidth::Byte);
        exits.answered(self.devices.read_repeated(Port(port), width, bytes));
    }

    fn special(guest: &mut Guest<Self>) {
        let Self {
            vcpu, vm, devices, ..
        } = &mut guest.machine;
        vm.profiles
            .hand_over_if_asked(*vcpu, || devices.take_profile());
    }
}

/// An access that crosses a page exits once for each page.
impl Thread<'_> {
    fn read_mmio(&mut self, address: u32, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        let exits = &self.vm.exits[self.vcpu];
        exits.mmio.add_one();
        let must_find = self.vm.arrivals.must_find(address, bytes.len());
        let read = self.devices.read_bytes(gpa(address), bytes);
        exits.found(must_find, bytes);
        exits.answered(read);
    }

    fn write_mmio(&mut self, address: u32, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let exits = &self.vm.exits[self.vcpu];
        exits.mmio.add_one();
        exits.answered(self.devices.write_bytes(gpa(address), bytes));
    }
}

/// The bytes of an access on the page that it starts in.
fn on_page(address: u32, width: Width) -> usize {
    (width as usize).min((PAGE - address % PAGE) as usize)
}

fn gpa(address: u32) -> GuestPhysAddr {
    GuestPhysAddr::from_usize(address as usize)
}
