//! The naive model: lists of ranges in the order of registration.

use std::sync::Arc;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice::DeviceId;

use super::{differences::is_taken, published::Published};
use support::{Bus, Recorder};

/// The model: what was added, in the order of registration.
#[derive(Clone, Default)]
pub(super) struct Model {
    pub(super) mmio: Vec<Owned<GuestPhysAddrRange>>,
    pub(super) sys_reg: Vec<Owned<SysRegAddrRange>>,
    pub(super) port: Vec<Owned<PortRange>>,
}

/// A device of the model: the id that ours gave it, its number, and its range, which determines its
/// addresses.
#[derive(Clone)]
pub(super) struct Owned<R> {
    pub(super) id: DeviceId,
    pub(super) number: usize,
    pub(super) range: R,
    pub(super) device: Arc<Recorder<R>>,
}

/// The device that owns an address.
pub(super) fn owner<R: Published>(model: &Model, at: usize) -> Option<Owned<R>> {
    let owns = |owned: &&Owned<R>| owned.range.contains(R::at(at));
    R::owned(model).iter().find(owns).cloned()
}

impl Model {
    /// Whether ours accepts all the devices together.
    pub(super) fn fits(&self) -> bool {
        fn ranges<R: Bus>(owned: &[Owned<R>]) -> Vec<R> {
            owned.iter().map(|o| o.range).collect()
        }
        is_taken(&ranges(&self.mmio))
            && is_taken(&ranges(&self.sys_reg))
            && is_taken(&ranges(&self.port))
    }
}
