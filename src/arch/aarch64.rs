//! The Arm interrupt controllers of crate `arm_vgic`.
//!
//! `VGicD`, `VGicR` and `Gits` keep state in `UnsafeCell`s, and so are `Send` but not `Sync`. Their guards report which
//! accesses reach that state; such an access must be alone in the device.

use core::ops::Range;

use arm_vgic::{
    Vgic,
    v3::{
        gits::Gits,
        vgicd::VGicD,
        vgicr::{LPT, VGicR},
    },
};
use ax_errno::AxResult;
use ax_memory_addr::PhysAddr;
use axaddrspace::{GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use busmap::{BusId, Mmio, Registry};

use crate::{
    arguments::{check_range, host_gits_base, redistributors},
    batch::Batch,
    bus::{Device, DeviceBound, sealed::Bus},
    config::ConfigFault,
    guards::{
        gicd::Gicd,
        gicr::{FIRST_LPI, Gicr, Lpis, lpis_of},
        gicv2::GicV2,
        guard::Filter,
        its::{Engine, Its},
        series::Series,
    },
    mount,
    refusal::Refusal,
};

/// See the [module](super).
pub(crate) struct Platform {
    /// Whether the guest may make the host's hardware read and write memory at addresses that the guest chooses.
    trusted: bool,
    redistributors: Series,
}

impl Platform {
    /// Creates the devices' platform; `trusted` is whether the guest may make the host's hardware read and write memory
    /// at addresses that the guest chooses.
    pub(crate) fn new(trusted: bool) -> Self {
        Self {
            trusted,
            redistributors: Series::default(),
        }
    }

    /// Records the devices of a configuration entry, which will be added to `registry`.
    ///
    /// Returns `false`, and records nothing, if this architecture has no device for the entry's type.
    pub(crate) fn build<B: DeviceBound>(
        &mut self,
        config: &EmulatedDeviceConfig,
        registry: &Registry<B::Handlers>,
        batch: &mut Batch<'_, B>,
    ) -> Result<bool, ConfigFault> {
        let (base, length) = (config.base_gpa, config.length);
        match config.emu_type {
            EmulatedDeviceType::InterruptController => {
                let device = Vgic::new();
                let guard = Filter::new(device.address_range().start, GicV2);
                batch.mount(mount::shared::<B, _, _, _>(device, guard))?;
            }
            EmulatedDeviceType::GPPTRedistributor => {
                for redistributor in redistributors(config)? {
                    let base = redistributor.base.into();
                    let device = VGicR::new(base, Some(length), redistributor.pcpu_id);
                    let registers = Gicr {
                        trusted: self.trusted,
                        lpis: HostLpis(lpis_of(axvisor_api::arch::read_vgicd_typer())),
                        length,
                        last: self.redistributors.join(redistributor.base + length)?,
                    };
                    batch.mount(mount::serialized::<B, _, _, _>(
                        device,
                        Filter::new(base, registers),
                    ))?;
                }
            }
            EmulatedDeviceType::GPPTDistributor => {
                check_range(config)?;
                let base = base.into();
                let device = VGicD::new(base, Some(length));
                batch.mount(mount::serialized::<B, _, _, _>(
                    device,
                    Filter::new(base, Gicd),
                ))?;
            }
            EmulatedDeviceType::GPPTITS => {
                let host = PhysAddr::from_usize(host_gits_base(config)?);
                if !self.trusted {
                    return Err(ConfigFault::UntrustedIts);
                }
                // Creating the device programs the host's ITS, so it is created only once it is sure to be added.
                let range = GuestPhysAddrRange::from_start_size(base.into(), length);
                check_free::<B>(registry, range)?;
                let base = base.into();
                let make = || Gits::new(base, Some(length), host, false);
                batch.mount(mount::serialized::<B, _, _, _>(
                    make(),
                    Its::new(base, make()),
                ))?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Completes the devices that depend on others, when `registry` has all devices.
    pub(crate) fn finish<B: DeviceBound>(self, registry: &Registry<B::Handlers>) {
        self.redistributors.close(|start| {
            let next = registry.dispatch::<Mmio, _>(start as u64, 0, |hit| {
                let emu_type = match &hit.tag().device {
                    Device::Mmio(device) => device.emu_type(),
                    _ => EmulatedDeviceType::Dummy,
                };
                // A device that contains the first address after another device starts there: devices do not overlap.
                emu_type == EmulatedDeviceType::GPPTRedistributor
            });
            next == Ok(true)
        });
    }
}

/// Whether the range is free: no device owns any of it, and none of it is set aside.
fn check_free<B: DeviceBound>(
    registry: &Registry<B::Handlers>,
    range: GuestPhysAddrRange,
) -> Result<(), Refusal> {
    let wanted = range.span()?;
    let aside = registry
        .aside::<Mmio>()
        .find(|aside| aside.overlaps(wanted));
    if let Some(ivc) = aside {
        return Err(Refusal::Ivc { wanted, ivc });
    }
    registry.view(|view| {
        let owner = view.spans::<Mmio>().find(|hit| hit.span().overlaps(wanted));
        owner.map_or(Ok(()), |hit| {
            Err(Refusal::Overlap {
                bus: BusId::Mmio,
                wanted,
                owner: hit.id(),
                owned: hit.span(),
            })
        })
    })
}

/// The number of LPIs in the host's configuration table, once there is a table.
struct HostLpis(usize);

impl Lpis for HostLpis {
    fn configured(&self) -> Range<usize> {
        let lpis = if LPT.is_completed() { self.0 } else { 0 };
        FIRST_LPI..FIRST_LPI + lpis
    }
}

impl Engine for Gits {
    fn execute(&mut self, queue: usize, from: usize, to: usize) -> AxResult {
        let regs = self.regs.get_mut();
        regs.cbaser = queue;
        regs.creadr = from;
        // GITS_CWRITER.
        self.handle_write(self.addr + 0x88, AccessWidth::Qword, to)
    }
}
