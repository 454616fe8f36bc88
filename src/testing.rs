//! Devices for unit tests.

use ax_errno::AxResult;
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::{bus::BusRange, span::Span, sync::Arc};

/// A device on any bus that reads as the address, in every bit that a read can have.
pub(crate) struct Probe<R>(R);

impl<R: BusRange> Probe<R> {
    pub(crate) fn new(range: R) -> Self {
        Self(range)
    }

    pub(crate) fn shared(span: Span) -> Arc<Self> {
        Arc::new(Self::new(R::from_span(span)))
    }
}

impl<R: BusRange> BaseDeviceOps<R> for Probe<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        self.0
    }

    fn handle_read(&self, addr: R::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(R::number(addr))
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}
