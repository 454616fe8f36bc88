//! Configurations, passed to `try_new`, `new` and a builder with factories.
//!
//! On this host the crate builds no controller, so the model knows every device. `tests/config` tests the arguments
//! of the built-in controllers under emulation.

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
compile_error!("the model knows nothing of the controllers that are built here");

use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

use arbitrary::Arbitrary;
use ax_errno::{AxError, AxResult};
use axaddrspace::GuestPhysAddr;
use axdevice::{
    AxVmDeviceConfig, Batch, BusId, ConfigError, ConfigFault, DeviceId, Refusal, SharedVmDevices,
    ThreadSafe,
};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use support::{Bus, Journal};

use crate::{
    model::{Model, Step, ends, span},
    on::{BUSES, On, on_bus, range},
    recorder::{Known, recorder},
};

/// The whole input.
#[derive(Arbitrary, Debug)]
pub struct Input {
    entries: Vec<Entry>,
    /// The types that have a factory, one bit each; the highest bit is [`STRICT`].
    factories: u16,
}

/// Whether entries without a factory are refused, a bit of [`Input::factories`].
const STRICT: u16 = 1 << 15;

/// An entry of the configuration.
#[derive(Arbitrary, Debug)]
struct Entry {
    name: u8,
    base: Number,
    length: Number,
    irq_id: u8,
    emu_type: u8,
    arguments: Vec<Number>,
}

/// An address, a length or an argument.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Number {
    Small(u8),
    Pages(u8),
    /// This number of GiB.
    Large(u8),
    /// This distance below the end of the address space.
    Below(u8),
    Any(usize),
}

impl Number {
    fn value(self) -> usize {
        match self {
            Self::Small(n) => n.into(),
            Self::Pages(n) => usize::from(n) * PAGE,
            Self::Large(n) => usize::from(n) << 30,
            Self::Below(n) => usize::MAX - usize::from(n),
            Self::Any(n) => n,
        }
    }
}

const PAGE: usize = 0x1000;

/// The longest range for IVC channels.
const LONGEST_IVC: usize = 64 << 30;

const TYPES: [EmulatedDeviceType; 11] = [
    EmulatedDeviceType::Dummy,
    EmulatedDeviceType::InterruptController,
    EmulatedDeviceType::Console,
    EmulatedDeviceType::IVCChannel,
    EmulatedDeviceType::GPPTRedistributor,
    EmulatedDeviceType::GPPTDistributor,
    EmulatedDeviceType::GPPTITS,
    EmulatedDeviceType::PPPTGlobal,
    EmulatedDeviceType::VirtioBlk,
    EmulatedDeviceType::VirtioNet,
    EmulatedDeviceType::VirtioConsole,
];

impl Input {
    fn config(&self) -> Vec<EmulatedDeviceConfig> {
        let configs = self.entries.iter().map(|entry| EmulatedDeviceConfig {
            name: "device".get(..usize::from(entry.name % 7)).unwrap().into(),
            base_gpa: entry.base.value(),
            length: entry.length.value(),
            irq_id: entry.irq_id.into(),
            emu_type: TYPES[usize::from(entry.emu_type) % TYPES.len()],
            cfg_list: entry.arguments.iter().map(|n| n.value()).collect(),
        });
        configs.collect()
    }

    fn has_factory(&self, emu_type: EmulatedDeviceType) -> bool {
        let bit = TYPES.iter().position(|&of| of == emu_type);
        bit.is_some_and(|bit| self.factories & 1 << bit != 0)
    }

    fn skips_unbuilt(&self) -> bool {
        self.factories & STRICT == 0
    }
}

/// Makes a registry of the configuration in each way.
pub fn run(input: &Input) {
    let configs = input.config();
    check_built(input, &configs);
    check_strict(&configs);
    check_lenient(&configs);
}

/// The record of a factory: the devices' ids, until a device was refused, and the devices made.
type Recorded = (Vec<DeviceId>, Vec<Arc<Known>>);

/// The ranges that the factory of an entry records, on their buses: one on the bus that the IRQ
/// names, and one for each argument on the next buses.
fn wanted(config: &EmulatedDeviceConfig) -> impl Iterator<Item = (On, usize)> {
    let buses = BUSES.into_iter().cycle();
    let bases = std::iter::once(config.base_gpa).chain(config.cfg_list.iter().copied());
    buses.skip(config.irq_id % 3).zip(bases)
}

/// Whether the factory of an entry fails at its end.
fn fails(config: &EmulatedDeviceConfig) -> bool {
    config.irq_id > 0xf0
}

fn factory(
    config: &EmulatedDeviceConfig,
    batch: &mut Batch<'_, ThreadSafe>,
    recorded: &mut Recorded,
) -> AxResult {
    for (on, base) in wanted(config) {
        on_bus!(on, R => {
            let range = range::<R>(base, config.length);
            let (known, device) = recorder::<R>(0, range, &Journal::default());
            recorded.1.push(known);
            recorded.0.push(R::record(batch, device)?);
        });
    }
    if fails(config) {
        Err(AxError::Io)
    } else {
        Ok(())
    }
}

/// Checks the result of a builder with factories.
fn check_built(input: &Input, configs: &[EmulatedDeviceConfig]) {
    let calls = RefCell::new(Vec::new());
    let mut builder = SharedVmDevices::builder().config(AxVmDeviceConfig::new(configs.to_vec()));
    if input.skips_unbuilt() {
        builder = builder.skip_unbuilt();
    }
    for emu_type in TYPES.into_iter().filter(|&of| input.has_factory(of)) {
        builder = builder.factory(emu_type, |config, batch| {
            let mut recorded = Recorded::default();
            let result = factory(config, batch, &mut recorded);
            calls.borrow_mut().push(recorded);
            result
        });
    }
    let built = builder.build();
    let calls = calls.into_inner();
    let mut ids = calls.iter().map(|(ids, _)| ids.as_slice());
    let expected = Machine::default().build(input, configs, &mut ids);
    assert_eq!(ids.next(), None, "a factory was called that should not be");

    let drops = |times| {
        let mut made = calls.iter().flat_map(|(_, made)| made);
        assert!(made.all(|known| known.drops() == times));
    };
    match (built, expected) {
        (Ok(devices), Ok(machine)) => {
            machine.check(&devices);
            drops(0);
            drop(devices);
        }
        (Err(error), Err(expected)) => check_error(error, expected),
        (built, expected) => panic!("{built:?}, and not {:?}", expected.err()),
    }
    drops(1);
}

/// Checks `try_new`: without factories, there can only be one IVC range.
fn check_strict(configs: &[EmulatedDeviceConfig]) {
    let expected = Machine::default().build_ivc(configs);
    match (
        SharedVmDevices::try_new(AxVmDeviceConfig::new(configs.to_vec())),
        expected,
    ) {
        (Ok(devices), Ok(machine)) => machine.check(&devices),
        (Err(error), Err(expected)) => check_error(error, expected),
        (built, expected) => panic!("{built:?}, and not {:?}", expected.err()),
    }
}

/// Checks `new`, which leaves out invalid IVC ranges, because 0.4.10 did not panic there.
fn check_lenient(configs: &[EmulatedDeviceConfig]) {
    let ivc = |config: &&EmulatedDeviceConfig| config.emu_type == EmulatedDeviceType::IVCChannel;
    let mut machine = Machine::default();
    for config in configs.iter().filter(ivc) {
        // The first valid range.
        let _ = machine.set_ivc(config);
    }
    machine.check(&SharedVmDevices::new(AxVmDeviceConfig::new(
        configs.to_vec(),
    )));
}

fn check_error(error: ConfigError, expected: ConfigError) {
    assert_eq!(error, expected);
    let (index, name, emu_type) = (error.index, &error.name, error.emu_type);
    let named = format!("device {index} \"{name}\" ({emu_type}): ");
    assert!(error.to_string().starts_with(&named));
    let kind = match &error.fault {
        ConfigFault::Overlap { .. } | ConfigFault::SecondIvc { .. } => AxError::AlreadyExists,
        ConfigFault::Unbuilt => AxError::Unsupported,
        ConfigFault::Factory(error) => *error,
        _ => AxError::InvalidInput,
    };
    assert_eq!(AxError::from(error), kind);
}

/// The model of a registry in the making.
#[derive(Default)]
struct Machine {
    model: Model,
    names: BTreeMap<DeviceId, String>,
    /// The name, the base and the length of the range for IVC channels.
    ivc: Option<(String, usize, usize)>,
}

impl Machine {
    /// Makes every entry, or returns the first that cannot be made. The ids are those that the factories got, in
    /// order.
    fn build<'i>(
        mut self,
        input: &Input,
        configs: &[EmulatedDeviceConfig],
        ids: &mut impl Iterator<Item = &'i [DeviceId]>,
    ) -> Result<Self, ConfigError> {
        for (index, config) in configs.iter().enumerate() {
            let made = if config.emu_type == EmulatedDeviceType::IVCChannel {
                self.set_ivc(config)
            } else if input.has_factory(config.emu_type) {
                self.add(config, ids.next().expect("its factory was called"))
            } else if input.skips_unbuilt() {
                Ok(())
            } else {
                Err(ConfigFault::Unbuilt)
            };
            made.map_err(|fault| error(index, config, fault))?;
        }
        Ok(self)
    }

    /// As [`build`](Self::build), without any factory.
    fn build_ivc(self, configs: &[EmulatedDeviceConfig]) -> Result<Self, ConfigError> {
        let none = Input {
            entries: Vec::new(),
            factories: STRICT,
        };
        self.build(&none, configs, &mut std::iter::empty())
    }

    fn set_ivc(&mut self, config: &EmulatedDeviceConfig) -> Result<(), ConfigFault> {
        if let (Some((first, ..)), Some(ivc)) = (&self.ivc, self.model.ivc()) {
            let (first, range) = (first.clone(), span(ivc));
            return Err(ConfigFault::SecondIvc { first, range });
        }
        let (base, length) = ivc_range(config)?;
        let set = self.model.set_ivc((base, base + (length - 1)));
        set.map_err(|refusal| self.named(refusal))?;
        self.ivc = Some((config.name.clone(), base, length));
        Ok(())
    }

    /// An overlap, with the owner's name.
    fn named(&self, refusal: Refusal) -> ConfigFault {
        match (refusal, &self.ivc) {
            (
                Refusal::Overlap {
                    bus,
                    wanted,
                    owner,
                    owned,
                },
                _,
            ) => ConfigFault::Overlap {
                bus,
                wanted,
                owner: self.names[&owner].clone(),
                owned,
            },
            (Refusal::Ivc { wanted, ivc }, Some((name, ..))) => ConfigFault::Overlap {
                bus: BusId::Mmio,
                wanted,
                owner: name.clone(),
                owned: ivc,
            },
            _ => panic!("{refusal} of a device that is added"),
        }
    }

    /// Adds the devices that the entry's factory has recorded, with these ids.
    fn add(&mut self, config: &EmulatedDeviceConfig, ids: &[DeviceId]) -> Result<(), ConfigFault> {
        let wanted = wanted(config).map(|(on, base)| {
            let ends = on_bus!(on, R => ends::<R>(range::<R>(base, config.length)));
            ends.map(|ends| (on, ends))
        });
        let mut refusal = None;
        let wanted = wanted.map_while(|wanted| wanted.map_err(|why| refusal = Some(why)).ok());
        let ranges: Vec<_> = wanted.collect();
        assert_eq!(ids.len(), ranges.len());
        if let Some(refusal) = refusal {
            return Err(ConfigFault::Refused(refusal));
        }
        if fails(config) {
            return Err(ConfigFault::Factory(AxError::Io));
        }
        let steps = ids.iter().zip(ranges);
        let steps: Vec<_> = steps
            .map(|(&id, (on, ends))| Step::Add(on, ends, id, 0))
            .collect();
        self.names
            .extend(ids.iter().map(|&id| (id, config.name.clone())));
        let made = self.model.with(&steps);
        self.model = made.map_err(|refusal| self.named(refusal))?.0;
        Ok(())
    }

    /// Checks the devices, which do not overlap, and the IVC range.
    fn check(&self, devices: &SharedVmDevices) {
        let ivc = self.ivc.as_ref().map_or("", |(name, ..)| name);
        let map = (self.model).map(|id| format!(" {}", self.names[&id]), ivc);
        assert_eq!(devices.snapshot().to_string(), map);

        let Some((_, base, length)) = self.ivc else {
            assert_eq!(devices.alloc_ivc_channel(PAGE), Err(AxError::InvalidInput));
            return;
        };
        assert_eq!(
            devices.alloc_ivc_channel(length + PAGE),
            Err(AxError::NoMemory)
        );
        // The whole range, unless that takes long.
        let size = length.min(1 << 20);
        assert_eq!(
            devices.alloc_ivc_channel(size),
            Ok(GuestPhysAddr::from(base))
        );
        let next = match length - size {
            0 => Err(AxError::NoMemory),
            _ => Ok(GuestPhysAddr::from(base + size)),
        };
        assert_eq!(devices.alloc_ivc_channel(PAGE), next);
        let end = GuestPhysAddr::from(base.wrapping_add(length));
        assert_eq!(
            devices.release_ivc_channel(end, PAGE),
            Err(AxError::InvalidInput)
        );
        assert_eq!(devices.release_ivc_channel(base.into(), size), Ok(()));
        let again = devices.release_ivc_channel(base.into(), size);
        assert_eq!(again, Err(AxError::InvalidInput));
    }
}

fn error(index: usize, config: &EmulatedDeviceConfig, fault: ConfigFault) -> ConfigError {
    ConfigError {
        index,
        name: config.name.clone(),
        emu_type: config.emu_type,
        fault,
    }
}

/// The base and the length of an IVC range, or its fault.
fn ivc_range(config: &EmulatedDeviceConfig) -> Result<(usize, usize), ConfigFault> {
    let (start, length) = (config.base_gpa, config.length);
    let bus = BusId::Mmio;
    if length == 0 {
        return Err(Refusal::Empty { bus, at: start }.into());
    }
    if start.checked_add(length).is_none() {
        let end = start.wrapping_add(length);
        return Err(Refusal::Wrapping { bus, start, end }.into());
    }
    if (start | length) % PAGE != 0 {
        let range = span((start, start + (length - 1)));
        return Err(ConfigFault::IvcUnaligned { range });
    }
    if length > LONGEST_IVC {
        return Err(ConfigFault::IvcTooLong {
            length,
            at_most: LONGEST_IVC,
        });
    }
    Ok((start, length))
}
