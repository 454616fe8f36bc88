//! In the place of `kvm.rs` where there is no such KVM: a machine that cannot be had.

use std::{convert::Infallible, sync::Arc};

use anyhow::{Result, bail};

use crate::{vcpus::Vcpus, vm::Vm};

/// Says why there is none.
pub(crate) fn open() -> Result<Infallible> {
    bail!("the guests are for KVM on x86_64 Linux")
}

/// Starts the vCPUs of `vm` in a machine that does not exist.
pub(crate) fn start(_: &Arc<Vm>, machine: Infallible) -> Result<Vcpus> {
    match machine {}
}
