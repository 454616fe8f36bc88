//! Devices for unit tests.

use ax_errno::AxResult;
use axaddrspace::device::AccessWidth;
use axaddrspace::device::PortRange;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use busmap::{DeviceId, Span};

use crate::{bus::BusRange, registry::AxVmDevices, sync::Arc};

/// The first id of a registry.
pub(crate) fn first_id() -> DeviceId {
    let device = Echo::<PortRange>::shared(Span::new(0, 0).unwrap());
    AxVmDevices::default().add_port_dev(device).unwrap()
}

/// A device on any bus. A read returns the address, in all bits that a read can return.
pub(crate) struct Echo<R>(R);

impl<R: BusRange> Echo<R> {
    pub(crate) fn new(range: R) -> Self {
        Self(range)
    }

    pub(crate) fn shared(span: Span) -> Arc<Self> {
        Arc::new(Self::new(R::from_span(span)))
    }
}

impl<R: BusRange> BaseDeviceOps<R> for Echo<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        self.0
    }

    fn handle_read(&self, addr: R::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(R::number(addr) as usize)
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}
