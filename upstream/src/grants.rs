//! [`Grants`]: the abilities that a device has during its accesses.

use axdevice_base::{DmaGrant, StopGrant, TimerGrant, WakeGrant};

/// The tokens of a device. A device that presents one of them to its [context](axdevice_base::DeviceContext) has the ability.
#[derive(Clone, Default)]
pub struct Grants {
    /// To read and write guest memory, where the access has a port for it.
    pub dma: Option<DmaGrant>,
    /// To schedule a virtual timer.
    pub timer: Option<TimerGrant>,
    /// To wake a vCPU.
    pub wake: Option<WakeGrant>,
    /// To request that the VM stops.
    pub stop: Option<StopGrant>,
}
