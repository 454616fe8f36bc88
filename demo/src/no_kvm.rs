//! Replaces `kvm.rs` on other systems, where a machine is never available.

use std::{convert::Infallible, sync::Arc};

use anyhow::{Result, bail};

use crate::{vcpus::Vcpus, vm::Vm};

/// Returns an error: there is no machine.
pub(crate) fn open() -> Result<Infallible> {
    bail!("the guests are for KVM on x86_64 Linux")
}

/// Never called: there is no machine.
pub(crate) fn start(_: &Arc<Vm>, machine: Infallible) -> Result<Vcpus> {
    match machine {}
}
