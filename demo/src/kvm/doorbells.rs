//! Doorbells that KVM rings: ioeventfds.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use kvm_ioctls::{IoEventAddress, VmFd};
use libc::EFD_NONBLOCK;
use vmm_sys_util::eventfd::EventFd;

use crate::{
    contract::{BELL_SEED, pattern},
    doorbells::Bells,
};

/// An event for each vCPU's doorbell. A write of four bytes with the vCPU's value rings it. By the value KVM
/// distinguishes a write from a read, even if it does not decode the instruction.
pub(crate) struct Ioeventfds {
    machine: Arc<VmFd>,
    events: Vec<EventFd>,
}

impl Ioeventfds {
    pub(crate) fn new(machine: Arc<VmFd>, vcpus: u32) -> Result<Self> {
        let events = (0..vcpus).map(|_| EventFd::new(EFD_NONBLOCK));
        let events = events.collect::<Result<_, _>>();
        let events = events.context("cannot create the eventfd of a doorbell")?;
        Ok(Self { machine, events })
    }
}

impl Bells for Ioeventfds {
    fn register(&self, vcpu: u32, at: u64) -> Result<(), i32> {
        let (event, datum) = (&self.events[vcpu as usize], pattern(BELL_SEED, vcpu));
        let registered = (self.machine).register_ioevent(event, &IoEventAddress::Mmio(at), datum);
        registered.map_err(|error| error.errno())
    }

    fn unregister(&self, vcpu: u32, at: u64) -> Result<(), i32> {
        let (event, datum) = (&self.events[vcpu as usize], pattern(BELL_SEED, vcpu));
        let gone = (self.machine).unregister_ioevent(event, &IoEventAddress::Mmio(at), datum);
        gone.map_err(|error| error.errno())
    }

    fn rung(&self, vcpu: u32) -> u64 {
        // It fails if the bell has not rung.
        self.events[vcpu as usize].read().unwrap_or(0)
    }
}
