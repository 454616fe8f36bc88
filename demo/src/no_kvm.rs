//! Takes the place of `kvm.rs` on other systems, where there is never a machine.

use std::{convert::Infallible, sync::Arc};

use anyhow::{Result, bail};

use crate::{vcpus::Vcpus, vm::Vm};

/// Fails: there is no machine.
pub(crate) fn open() -> Result<Infallible> {
    bail!("the guests are for KVM on x86_64 Linux")
}

/// Starts the vCPUs of `vm` in a machine, of which there is none.
pub(crate) fn start(_: &Arc<Vm>, machine: Infallible) -> Result<Vcpus> {
    match machine {}
}
