//! [`Ports`]: devices with ports only.

use std::marker::PhantomData;

use crate::Handlers;

/// Devices with ports only, whose handlers are of one type.
pub(super) struct Ports<H: ?Sized>(PhantomData<H>);

impl<H: ?Sized + 'static> Handlers for Ports<H> {
    type Mmio = ();
    type Port = H;
    type SysReg = ();
    type Tag = ();
}
