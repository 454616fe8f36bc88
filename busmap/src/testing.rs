//! Devices and sizes for unit tests.

use crate::{
    bus::{Handlers, Mmio, Port, SysReg},
    device::Device,
    sync::Arc,
};

/// The size of a test, and its size under Miri, where every step is slow.
pub(crate) const fn size(full: usize, miri: usize) -> usize {
    if cfg!(miri) { miri } else { full }
}

/// Devices whose handlers are strings.
pub(crate) enum Named {}

impl Handlers for Named {
    type Mmio = str;
    type Port = str;
    type SysReg = str;
    type Tag = &'static str;
}

/// A device with a handler for each bus. Its name is the handler and the tag.
pub(crate) fn named(name: &'static str) -> Device<Named> {
    let handler: Arc<str> = name.into();
    Device::new(name)
        .on::<Mmio>(handler.clone())
        .on::<Port>(handler.clone())
        .on::<SysReg>(handler)
}
