//! [`VmDevicesBuilder`]: a registry from a configuration.

use alloc::{boxed::Box, vec::Vec};
use core::fmt;

use ax_errno::{AxError, AxResult};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use busmap::{BusId, Listener, Mmio, Registry};
use log::{error, info, warn};

use crate::{
    arch,
    arguments::ivc_range,
    batch::Batch,
    bus::DeviceBound,
    config::{AxVmDeviceConfig, ConfigError, ConfigFault},
    context,
    ivc::{Ivc, IvcChannels},
    refusal::Refusal,
    registry::VmDevices,
    sync::Arc,
    unmapped::Unmapped,
};

/// Makes a registry from a configuration, with factories for the device types that the crate does not build itself.
///
/// On every architecture an [`IVCChannel`](EmulatedDeviceType::IVCChannel) entry sets aside the range for IVC channels;
/// there is at most one. An overlap of this range with an MMIO device is refused, regardless of which entry comes
/// first. On aarch64 the crate builds the GIC, on riscv64 the PLIC. For every other entry the builder calls the factory
/// of its type; an entry without a factory is refused, or [left out](Self::skip_unbuilt). Two entries of the same name
/// cause a `warn!`, because memory maps and errors cannot distinguish them.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use axdevice::{
///     AccessWidth, AxResult, AxVmDeviceConfig, BaseDeviceOps, EmulatedDeviceConfig,
///     EmulatedDeviceType::{self, Console},
///     Port, PortRange, SharedVmDevices, Unmapped,
/// };
/// # #[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
/// # use support as _;
///
/// struct Uart(PortRange);
///
/// impl BaseDeviceOps<PortRange> for Uart {
///     fn emu_type(&self) -> EmulatedDeviceType {
///         Console
///     }
///
///     fn address_range(&self) -> PortRange {
///         self.0
///     }
///
///     fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
///         Ok(0x60)
///     }
///
///     fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
///         Ok(())
///     }
/// }
///
/// let com1 = EmulatedDeviceConfig {
///     name: "com1".into(),
///     base_gpa: 0x3f8,
///     length: 8,
///     emu_type: Console,
///     ..Default::default()
/// };
/// let devices = SharedVmDevices::builder()
///     .config(AxVmDeviceConfig::new(vec![com1]))
///     .unmapped(Unmapped::Float)
///     .factory(Console, |config, batch| {
///         let first = config.base_gpa as u16;
///         let ports = PortRange::new(Port(first), Port(first + config.length as u16 - 1));
///         batch.add_port_dev(Arc::new(Uart(ports)))?;
///         Ok(())
///     })
///     .build()?;
/// assert_eq!(devices.snapshot().to_string(), "port     0x3f8..=0x3ff #1 com1\n");
/// # Ok::<(), axdevice::ConfigError>(())
/// ```
#[must_use]
pub struct VmDevicesBuilder<'f, B: DeviceBound> {
    config: AxVmDeviceConfig,
    unmapped: Unmapped,
    virtual_timer: Option<VirtualTimer<B>>,
    trust_guest_its: bool,
    skip_unbuilt: bool,
    listener: Option<Arc<dyn Listener>>,
    factories: Vec<(EmulatedDeviceType, Factory<'f, B>)>,
}

/// Records the devices of the timer.
type VirtualTimer<B> = fn(&mut Batch<'_, B>) -> Result<(), Refusal>;

type Factory<'f, B> = Box<dyn FnMut(&EmulatedDeviceConfig, &mut Batch<'_, B>) -> AxResult + 'f>;

impl<'f, B: DeviceBound> VmDevicesBuilder<'f, B> {
    /// Returns a builder with no devices, no factories and the default policy for misses.
    pub fn new() -> Self {
        Self {
            config: AxVmDeviceConfig::default(),
            unmapped: Unmapped::default(),
            virtual_timer: None,
            trust_guest_its: cfg!(feature = "trust-guest-its"),
            skip_unbuilt: false,
            listener: None,
            factories: Vec::new(),
        }
    }

    /// Sets the entries to build, in place of earlier ones.
    pub fn config(self, config: AxVmDeviceConfig) -> Self {
        Self { config, ..self }
    }

    /// Sets the policy for misses.
    pub fn unmapped(self, unmapped: Unmapped) -> Self {
        Self { unmapped, ..self }
    }

    /// Adds the timer for guests with emulated interrupts: on aarch64 the system registers CNTP_CTL_EL0, CNTPCT_EL0 and
    /// CNTP_TVAL_EL0, before any entry's devices. In memory maps and errors their name is `virtual timer`. Other
    /// architectures have none, and log a `warn!`.
    ///
    /// It is off by default, because axvm adds the same three devices itself. If both add them, the second is refused
    /// with [`Refusal::Overlap`], which contains the id of the first, and logged at `error!`; the first stays.
    pub fn with_virtual_timer(self) -> Self {
        // Referenced only here: an embedder without the timer need not link the functions that it calls.
        let virtual_timer = Some(arch::virtual_timer as VirtualTimer<B>);
        Self {
            virtual_timer,
            ..self
        }
    }

    /// Sets whether the guest may have an ITS. Through it and the redistributors, the guest can make the host's
    /// hardware write to any physical address, and so corrupt the host: see [`guards`](crate::guards).
    ///
    /// `false`, unless the cargo feature `trust-guest-its` is set.
    pub fn trust_guest_its(self, trust_guest_its: bool) -> Self {
        Self {
            trust_guest_its,
            ..self
        }
    }

    /// Leaves out, with a `warn!`, entries of a type that neither the crate (on this architecture) nor a factory
    /// builds. Use it for a configuration for several architectures, or with devices that the embedder makes itself. By
    /// default such an entry is an error, [`ConfigFault::Unbuilt`].
    pub fn skip_unbuilt(self) -> Self {
        Self {
            skip_unbuilt: true,
            ..self
        }
    }

    /// Sets the registry's listener from the start. The registry calls it for the devices of each entry, which it may
    /// refuse, and for all later changes. See [`with_listener`](VmDevices::with_listener).
    pub fn listener(self, listener: Arc<dyn Listener>) -> Self {
        Self {
            listener: Some(listener),
            ..self
        }
    }

    /// Sets the factory that builds the devices of entries of type `emu_type`, in place of an earlier one. It is called
    /// only if the crate does not build this type itself.
    ///
    /// The factory adds the entry's devices to the batch, on one or several buses. If the factory fails, or one of the
    /// devices cannot be added, the whole entry fails. The factory may return a refusal of the batch with `?`. The
    /// [`ConfigError`] then contains the [`Refusal`] itself, not only the `AxError` to which `?` converts it.
    pub fn factory(
        mut self,
        emu_type: EmulatedDeviceType,
        factory: impl FnMut(&EmulatedDeviceConfig, &mut Batch<'_, B>) -> AxResult + 'f,
    ) -> Self {
        self.factories.retain(|(of, _)| *of != emu_type);
        self.factories.push((emu_type, Box::new(factory)));
        self
    }

    /// Makes the registry with all devices, or returns an error.
    ///
    /// # Errors
    ///
    /// The first entry that cannot be made, and its fault.
    pub fn build(self) -> Result<VmDevices<B>, ConfigError> {
        self.assemble(Err)
    }

    /// Makes the registry as 0.4.10 did. Leaves out, with an `error!`, entries that 0.4.10 accepted and this crate
    /// refuses, and, with a `warn!`, entries that 0.4.10 left out too.
    ///
    /// # Panics
    ///
    /// On an entry that 0.4.10 could not make either.
    pub(crate) fn build_leniently(self) -> VmDevices<B> {
        let devices = self.assemble(|error| {
            match error.fault {
                ConfigFault::SecondIvc { .. } => warn!("{error}: left out"),
                ref fault if fault.was_tolerated() => error!("{error}: left out"),
                _ => return Err(error),
            }
            Ok(())
        });
        devices.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Makes every entry. If one cannot be made, `faulty` decides whether to continue without it.
    fn assemble(
        mut self,
        faulty: impl Fn(ConfigError) -> Result<(), ConfigError>,
    ) -> Result<VmDevices<B>, ConfigError> {
        self.warn_of_namesakes();
        let faulty = |error: ConfigError| match error.fault {
            ConfigFault::Unbuilt if self.skip_unbuilt => {
                warn!("{error}: left out");
                Ok(())
            }
            _ => faulty(error),
        };
        let mut machine = Machine::new(self.trust_guest_its, self.listener.take());
        if let Some(record) = self.virtual_timer {
            machine.build_virtual_timer(record).or_else(|refusal| {
                faulty(ConfigError {
                    index: self.config.emu_configs.len(),
                    name: VIRTUAL_TIMER.into(),
                    emu_type: EmulatedDeviceType::Dummy,
                    fault: refusal.into(),
                })
            })?;
        }
        for (index, config) in self.config.emu_configs.iter().enumerate() {
            if let Err(fault) = machine.build(config, &mut self.factories) {
                faulty(ConfigError {
                    index,
                    name: config.name.clone(),
                    emu_type: config.emu_type,
                    fault,
                })?;
            }
        }
        machine.platform.finish::<B>(&machine.registry);
        let devices = VmDevices::from_parts(machine.registry, machine.ivc);
        Ok(devices.with_unmapped(self.unmapped))
    }
}

impl<B: DeviceBound> VmDevicesBuilder<'_, B> {
    fn warn_of_namesakes(&self) {
        for (index, first) in self.config.namesakes() {
            let entries = &self.config.emu_configs;
            let (entry, of) = (&entries[index], entries[first].emu_type);
            let (name, emu_type) = (&entry.name, entry.emu_type);
            warn!("device {index} \"{name}\" ({emu_type}) has the name of device {first} ({of})");
        }
    }
}

impl<B: DeviceBound> Default for VmDevicesBuilder<'_, B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: DeviceBound> fmt::Debug for VmDevicesBuilder<'_, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmDevicesBuilder")
            .field("config", &self.config)
            .field("unmapped", &self.unmapped)
            .field("virtual_timer", &self.virtual_timer.is_some())
            .field("trust_guest_its", &self.trust_guest_its)
            .field("skip_unbuilt", &self.skip_unbuilt)
            .field("listener", &self.listener.is_some())
            .finish_non_exhaustive()
    }
}

/// Making a registry.
impl<B: DeviceBound> VmDevices<B> {
    /// Makes the devices that `config` lists.
    ///
    /// A bad entry that 0.4.10 accepted, such as one with an empty or overlapping range, is left out whole and logged
    /// at `error!`. An entry that 0.4.10 left out too is left out and logged at `warn!`: one of a type that the crate
    /// does not build on this architecture, or a second IVC range. [`try_new`](Self::try_new) is strict.
    ///
    /// # Panics
    ///
    /// As 0.4.10 does: if an entry lacks arguments that its type needs, if its arguments do not fit into the address
    /// space, or if there is no memory.
    pub fn new(config: AxVmDeviceConfig) -> Self {
        Self::builder()
            .config(config)
            .skip_unbuilt()
            .build_leniently()
    }

    /// Makes the devices that `config` lists, or none of them.
    ///
    /// # Errors
    ///
    /// The first entry that cannot be made, and its fault. An entry of a type that the crate does not build on this
    /// architecture is an error too; a [builder](Self::builder) can [skip](VmDevicesBuilder::skip_unbuilt) it.
    pub fn try_new(config: AxVmDeviceConfig) -> Result<Self, ConfigError> {
        Self::builder().config(config).build()
    }

    /// Returns a builder, for a configuration with device types that the crate does not build itself.
    pub fn builder<'f>() -> VmDevicesBuilder<'f, B> {
        VmDevicesBuilder::new()
    }
}

/// The name of the timer's devices.
const VIRTUAL_TIMER: &str = "virtual timer";

/// A registry under construction.
struct Machine<B: DeviceBound> {
    platform: arch::Platform,
    registry: Registry<B::Handlers>,
    ivc: Option<Ivc>,
}

impl<B: DeviceBound> Machine<B> {
    fn new(trust_guest_its: bool, listener: Option<Arc<dyn Listener>>) -> Self {
        let registry = Registry::new();
        Self {
            platform: arch::Platform::new(trust_guest_its),
            registry: match listener {
                Some(listener) => {
                    registry.with_listener_and_context_id(listener, context::identity)
                }
                None => registry,
            },
            ivc: None,
        }
    }

    /// Makes all devices of one entry, or none.
    fn build(
        &mut self,
        config: &EmulatedDeviceConfig,
        factories: &mut [(EmulatedDeviceType, Factory<'_, B>)],
    ) -> Result<(), ConfigFault> {
        if config.emu_type == EmulatedDeviceType::IVCChannel {
            return self.build_ivc(config);
        }
        let name = Some(config.name.as_str().into());
        let mut batch = Batch::<B>::new(self.registry.batch(), name);
        let built = self.platform.build(config, &self.registry, &mut batch);
        if !built.map_err(|fault| self.name_owner(fault, &config.name))? {
            let factory = factories.iter_mut().find(|(of, _)| *of == config.emu_type);
            let (_, factory) = factory.ok_or(ConfigFault::Unbuilt)?;
            let recorded = factory(config, &mut batch);
            recorded.map_err(|error| factory_fault(error, batch.refusal()))?;
        }
        let made = batch.publish();
        made.map_err(|refusal| self.name_owner(refusal.into(), &config.name))?;
        info!("device \"{}\" ({}) made", config.name, config.emu_type);
        Ok(())
    }

    fn build_virtual_timer(&mut self, record: VirtualTimer<B>) -> Result<(), Refusal> {
        let mut batch = Batch::new(self.registry.batch(), Some(VIRTUAL_TIMER.into()));
        record(&mut batch)?;
        batch.publish().map(drop)
    }

    /// Replaces the owner's id in a fault by its name: the caller cannot use an id before there is a registry.
    fn name_owner(&self, fault: ConfigFault, own: &str) -> ConfigFault {
        match (fault, &self.ivc) {
            (ConfigFault::Refused(Refusal::Ivc { wanted, ivc: owned }), Some(ivc)) => {
                ConfigFault::Overlap {
                    bus: BusId::Mmio,
                    wanted,
                    owner: (*ivc.name).into(),
                    owned,
                }
            }
            (
                ConfigFault::Refused(Refusal::Overlap {
                    bus,
                    wanted,
                    owner,
                    owned,
                }),
                _,
            ) => ConfigFault::Overlap {
                bus,
                wanted,
                owner: self.registry.view(|view| {
                    let owner = view.device(owner);
                    let name = owner.and_then(|of| of.device().tag().name.as_deref());
                    name.unwrap_or(own).into()
                }),
                owned,
            },
            (fault, _) => fault,
        }
    }

    fn build_ivc(&mut self, config: &EmulatedDeviceConfig) -> Result<(), ConfigFault> {
        if let Some(Ivc { name, range, .. }) = &self.ivc {
            return Err(ConfigFault::SecondIvc {
                first: (**name).into(),
                range: *range,
            });
        }
        let range = ivc_range(config)?;
        let channels = IvcChannels::new(config.base_gpa, config.length).ok_or(Refusal::NoMemory)?;
        let aside = self.registry.set_aside::<Mmio>(range);
        aside.map_err(|refusal| self.name_owner(Refusal::from(refusal).into(), &config.name))?;
        // INVARIANT: the range is set aside in the registry that the devices are added to.
        self.ivc = Some(Ivc {
            name: config.name.as_str().into(),
            range,
            channels,
        });
        info!("IVC channels of \"{}\" in {range}", config.name);
        Ok(())
    }
}

/// The fault of a factory that failed with `error`; `refusal` is the last refusal of its batch.
fn factory_fault(error: AxError, refusal: Option<Refusal>) -> ConfigFault {
    match refusal {
        Some(refusal) if AxError::from(refusal) == error => ConfigFault::Refused(refusal),
        _ => ConfigFault::Factory(error),
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::GuestPhysAddrRange;
    use busmap::Span;
    // The functions that the interrupt controllers call.
    #[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
    use support as _;

    use super::*;
    use crate::{registry::AxVmDevices, sync::Arc, testing::Echo};

    const IVC: (&str, EmulatedDeviceType) = ("shared", EmulatedDeviceType::IVCChannel);
    const LOW: (&str, EmulatedDeviceType) = ("low", EmulatedDeviceType::Console);
    const HIGH: (&str, EmulatedDeviceType) = ("high", EmulatedDeviceType::Console);

    /// The registry that `new` would make if it had a factory for consoles, and its memory map.
    fn leniently(entries: &[(&str, EmulatedDeviceType)]) -> (AxVmDevices, alloc::string::String) {
        let entries = entries.iter().map(|&(name, emu_type)| {
            let (base_gpa, length) = match name {
                "shared" => (0x1000, 0x2000),
                "low" => (0, 0x1800),
                _ => (0x2000, 0x2000),
            };
            EmulatedDeviceConfig {
                name: name.into(),
                base_gpa,
                length,
                emu_type,
                ..Default::default()
            }
        });
        let devices = AxVmDevices::builder()
            .config(AxVmDeviceConfig::new(entries.collect()))
            .factory(EmulatedDeviceType::Console, |config, batch| {
                let span = Span::with_length(config.base_gpa as u64, config.length as u64);
                let echo: Arc<Echo<GuestPhysAddrRange>> = Echo::shared(span.unwrap());
                batch.add_mmio_dev(echo)?;
                Ok(())
            })
            .build_leniently();
        let map = devices.snapshot().to_string();
        (devices, map)
    }

    #[test]
    fn of_an_overlapping_device_and_ivc_range_new_keeps_the_first() {
        let (low, high) = ("mmio     0x0..=0x17ff #", "mmio     0x2000..=0x3fff #");
        let (devices, map) = leniently(&[IVC, LOW, HIGH]);
        assert_eq!(map, "ivc      0x1000..=0x2fff shared\n");
        assert_eq!(devices.alloc_ivc_channel(0x2000), Ok(0x1000.into()));
        let (devices, map) = leniently(&[LOW, IVC, HIGH]);
        assert_eq!(map, [low, "1 low\n", high, "2 high\n"].concat());
        let none = devices.alloc_ivc_channel(0x1000);
        assert_eq!(none, Err(AxError::InvalidInput));
        assert_eq!(devices.snapshot().ivc(), None);
    }
}
