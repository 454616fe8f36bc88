//! [`Context`]: the abilities of a device during one access.

use alloc::sync::Arc;

use axdevice::DeviceManagerResult;
use axdevice_base::{
    DeviceContext, DeviceError, DeviceId, DeviceResult, DeviceVcpuId, DmaGrant, GuestMemoryAccess,
    GuestPhysAddr, RoutedDeviceGrant, StopGrant, TimerGrant, WakeGrant,
};
use busmap::{Bus, Hit};

use crate::{Grants, Handled, devices::Devices, id_of};

/// The device that a context is for.
pub(crate) trait Subject {
    /// Whether the context was entered by a routed grant. Such a context enters no other.
    const ROUTED: bool;

    fn id(&self) -> DeviceId;
    fn grants(&self) -> &Grants;
}

/// The device that an access has found. Its registration is read only if the device asks for an ability.
impl<K: Bus> Subject for Hit<'_, Handled, K> {
    const ROUTED: bool = false;

    fn id(&self) -> DeviceId {
        id_of(Hit::id(*self))
    }

    fn grants(&self) -> &Grants {
        self.tag()
    }
}

/// The device that a routed grant leads to.
struct Routed {
    id: DeviceId,
    grants: Arc<Grants>,
}

impl Subject for Routed {
    const ROUTED: bool = true;

    fn id(&self) -> DeviceId {
        self.id
    }

    fn grants(&self) -> &Grants {
        &self.grants
    }
}

/// The abilities of a device during one access.
pub(crate) struct Context<'a, 'm, S> {
    subject: S,
    devices: &'a Devices,
    vcpu: DeviceVcpuId,
    memory: Option<&'m mut dyn GuestMemoryAccess>,
}

impl<'a, 'm, S: Subject> Context<'a, 'm, S> {
    pub(crate) fn new(
        subject: S,
        devices: &'a Devices,
        vcpu: DeviceVcpuId,
        memory: Option<&'m mut dyn GuestMemoryAccess>,
    ) -> Self {
        Self {
            subject,
            devices,
            vcpu,
            memory,
        }
    }

    /// The guest memory, for a device that presents its own token.
    fn memory(
        &mut self,
        operation: &'static str,
        grant: &DmaGrant,
    ) -> DeviceResult<&mut dyn GuestMemoryAccess> {
        let own = self.subject.grants().dma.as_ref();
        if !own.is_some_and(|own| own.same_token(grant)) {
            return Err(unsupported(operation, "device has no DMA memory grant"));
        }
        match &mut self.memory {
            Some(memory) => Ok(&mut **memory),
            None => Err(unsupported(
                operation,
                "this bus access has no DMA memory port",
            )),
        }
    }
}

fn unsupported(operation: &'static str, detail: &str) -> DeviceError {
    DeviceError::Unsupported {
        operation,
        detail: detail.into(),
    }
}

/// Calls the VM's port for an ability, for a device that presents its own token.
fn by_port<P: ?Sized>(
    is_own: bool,
    port: Option<&Arc<P>>,
    [operation, no_grant, no_port]: [&'static str; 3],
    call: impl FnOnce(&P) -> DeviceManagerResult,
) -> DeviceResult {
    match port {
        _ if !is_own => Err(unsupported(operation, no_grant)),
        None => Err(unsupported(operation, no_port)),
        Some(port) => call(port).map_err(DeviceError::from),
    }
}

impl<S: Subject> DeviceContext for Context<'_, '_, S> {
    fn device_id(&self) -> DeviceId {
        self.subject.id()
    }

    fn accessing_vcpu(&self) -> Option<DeviceVcpuId> {
        Some(self.vcpu)
    }

    fn with_routed_device(
        &mut self,
        grant: &RoutedDeviceGrant,
        callback: &mut dyn FnMut(&mut dyn DeviceContext) -> DeviceResult,
    ) -> DeviceResult {
        const OPERATION: &str = "enter routed device context";
        if S::ROUTED {
            let detail = "routed device contexts are single-hop capabilities";
            return Err(unsupported(OPERATION, detail));
        }
        let Some(grants) = self.devices.route(grant) else {
            let detail = "device has no matching routed-device grant";
            return Err(unsupported(OPERATION, detail));
        };
        let id = grant.device_id();
        let subject = Routed { id, grants };
        let memory = self.memory.take();
        let (lent, kept) = if grant.dma_enabled() {
            (memory, None)
        } else {
            (None, memory)
        };
        let mut routed = Context::new(subject, self.devices, self.vcpu, lent);
        let result = callback(&mut routed);
        self.memory = kept.or(routed.memory);
        result
    }

    fn read_guest_memory(
        &mut self,
        grant: &DmaGrant,
        addr: GuestPhysAddr,
        data: &mut [u8],
    ) -> DeviceResult {
        self.memory("read guest memory from device access", grant)?
            .read(addr, data)
    }

    fn write_guest_memory(
        &mut self,
        grant: &DmaGrant,
        addr: GuestPhysAddr,
        data: &[u8],
    ) -> DeviceResult {
        self.memory("write guest memory from device access", grant)?
            .write(addr, data)
    }

    fn schedule_timer(&mut self, grant: &TimerGrant, deadline_ns: u64) -> DeviceResult {
        let own = self.subject.grants().timer.as_ref();
        let texts = [
            "schedule timer from device access",
            "device has no timer grant",
            "no timer port is attached to this VM runtime",
        ];
        let port = self.devices.ports().timer.as_ref();
        by_port(
            own.is_some_and(|own| own.same_token(grant)),
            port,
            texts,
            |port| port.schedule_timer(self.subject.id(), deadline_ns),
        )
    }

    fn wake_vcpu(&mut self, grant: &WakeGrant, vcpu_id: usize) -> DeviceResult {
        let own = self.subject.grants().wake.as_ref();
        let texts = [
            "wake vCPU from device access",
            "device has no wake grant",
            "no vCPU wake port is attached to this VM runtime",
        ];
        let port = self.devices.ports().wake.as_ref();
        by_port(
            own.is_some_and(|own| own.same_token(grant)),
            port,
            texts,
            |port| port.wake_vcpu(self.subject.id(), vcpu_id),
        )
    }

    fn request_vm_stop(&mut self, grant: &StopGrant, reason: &str) -> DeviceResult {
        let own = self.subject.grants().stop.as_ref();
        let texts = [
            "request VM stop from device access",
            "device has no stop grant",
            "no VM stop port is attached to this VM runtime",
        ];
        let port = self.devices.ports().stop.as_ref();
        by_port(
            own.is_some_and(|own| own.same_token(grant)),
            port,
            texts,
            |port| port.request_vm_stop(self.subject.id(), reason),
        )
    }
}
