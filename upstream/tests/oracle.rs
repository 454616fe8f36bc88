//! Random operations on [`Devices`], on a handle, and on axdevice 0.8.5's `DeviceRuntime`, which must agree.

mod common;

use std::sync::Arc;

use axdevice::{DeviceBundle, DeviceManagerError, DeviceRuntime};
use axdevice_base::{
    AccessWidth, BusKind, Device, DeviceAccess, DeviceContext, DeviceError, DeviceId,
    DeviceRegistry, DeviceResult, DeviceVcpuId, DmaGrant, GuestMemoryAccess, GuestPhysAddr,
    InterruptTriggerMode, RegistryError, Resource, StopGrant, TimerGrant, WakeGrant,
};
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use upstream::{Devices, Entry, Grants, VcpuDevices};

const EPISODES: usize = 200;
/// Each of the 100,000 operations is made on all three.
const OPERATIONS: usize = 500;
const WIDTHS: [AccessWidth; 4] = [
    AccessWidth::Byte,
    AccessWidth::Word,
    AccessWidth::Dword,
    AccessWidth::Qword,
];

/// A device whose answers depend on the access, and on what its context lets it do.
struct Probe {
    number: u64,
    resources: Vec<Resource>,
    /// The tokens that it presents: its own, or others.
    dma: DmaGrant,
    timer: TimerGrant,
    wake: WakeGrant,
    stop: StopGrant,
}

impl Probe {
    fn act(&self, access: &DeviceAccess, context: &mut dyn DeviceContext) -> DeviceResult<u64> {
        let addr = GuestPhysAddr::from_usize(access.address() as usize % 64);
        let mut data = [0; 4];
        match access.address() % 7 {
            0 => context.read_guest_memory(&self.dma, addr, &mut data)?,
            1 => context.write_guest_memory(&self.dma, addr, &self.number.to_le_bytes()[..3])?,
            2 => context.schedule_timer(&self.timer, self.number)?,
            3 => context.wake_vcpu(&self.wake, 1)?,
            4 => context.request_vm_stop(&self.stop, "probe")?,
            5 => {
                return Err(DeviceError::InvalidWidth {
                    expected: AccessWidth::Byte,
                    actual: access.width(),
                });
            }
            _ => {}
        }
        Ok(self.number << 32 | u64::from(u32::from_le_bytes(data)))
    }
}

impl Device for Probe {
    fn name(&self) -> &str {
        "probe"
    }

    fn resources(&self) -> &[Resource] {
        &self.resources
    }

    fn read(&self, access: &DeviceAccess, context: &mut dyn DeviceContext) -> DeviceResult<u64> {
        self.act(access, context)
    }

    fn write(
        &self,
        access: &DeviceAccess,
        value: u64,
        context: &mut dyn DeviceContext,
    ) -> DeviceResult {
        if value == self.number {
            return Err(DeviceError::ReadOnly);
        }
        self.act(access, context).map(|_| ())
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Memory([u8; 128]);

impl GuestMemoryAccess for Memory {
    fn read(&mut self, addr: GuestPhysAddr, data: &mut [u8]) -> DeviceResult {
        data.copy_from_slice(&self.0[addr.as_usize()..][..data.len()]);
        Ok(())
    }

    fn write(&mut self, addr: GuestPhysAddr, data: &[u8]) -> DeviceResult {
        self.0[addr.as_usize()..][..data.len()].copy_from_slice(data);
        Ok(())
    }
}

/// A device that is registered in both.
#[derive(Clone)]
struct Pair {
    probe: Arc<Probe>,
    grants: Grants,
}

/// An address that is often near others, at an end of the bus, or beyond it.
fn address(rng: &mut StdRng, last_of_bus: u64) -> u64 {
    match rng.random_range(0..20) {
        0 => last_of_bus - rng.random_range(0..4),
        1 => last_of_bus.saturating_add(rng.random_range(0..4)),
        _ => rng.random_range(0..400),
    }
}

fn random_resource(rng: &mut StdRng) -> Resource {
    let length = if rng.random_ratio(1, 12) {
        0
    } else {
        rng.random_range(1..12_u32)
    };
    match rng.random_range(0..7) {
        0..3 => Resource::MmioRange {
            base: address(rng, u64::MAX),
            size: length.into(),
        },
        3 | 4 => Resource::PortRange {
            base: address(rng, 0xffff).min(0xffff) as u16,
            size: length as u16,
        },
        5 => Resource::SysReg {
            addr: address(rng, u32::MAX.into()).min(u32::MAX.into()) as u32,
            count: length,
        },
        _ => Resource::IrqLine {
            line: length / 2,
            trigger: InterruptTriggerMode::LevelTriggered,
        },
    }
}

fn random_pair(rng: &mut StdRng, number: u64) -> Pair {
    let count = *[1, 1, 1, 1, 1, 2, 3].choose(rng).unwrap();
    let resources = (0..count).map(|_| random_resource(rng)).collect();
    let (dma, timer, wake, stop) = Default::default();
    let probe = Arc::new(Probe {
        number,
        resources,
        dma,
        timer,
        wake,
        stop,
    });
    let mut coin = || rng.random_range(0..3);
    let grants = Grants {
        dma: [Some(probe.dma.clone()), Some(DmaGrant::new()), None][coin()].clone(),
        timer: [Some(probe.timer.clone()), Some(TimerGrant::new()), None][coin()].clone(),
        wake: [Some(probe.wake.clone()), Some(WakeGrant::new()), None][coin()].clone(),
        stop: [Some(probe.stop.clone()), Some(StopGrant::new()), None][coin()].clone(),
    };
    Pair { probe, grants }
}

/// An access at any address, or at addresses that a device owns, or a little beyond.
fn random_access(rng: &mut StdRng, registered: &[(DeviceId, Pair)]) -> DeviceAccess {
    let owned = registered.choose(rng).filter(|_| rng.random_bool(0.7));
    let resource = owned.and_then(|(_, pair)| pair.probe.resources.choose(rng));
    let offset = rng.random_range(0..12);
    let (bus, addr) = match resource {
        Some(&Resource::MmioRange { base, .. }) => (BusKind::Mmio, base.saturating_add(offset)),
        Some(&Resource::PortRange { base, .. }) => (BusKind::Port, u64::from(base) + offset),
        Some(&Resource::SysReg { addr, .. }) => (BusKind::SysReg, u64::from(addr) + offset),
        _ => match rng.random_range(0..3) {
            0 => (BusKind::Mmio, address(rng, u64::MAX)),
            1 => (BusKind::Port, address(rng, 0xffff)),
            _ => (BusKind::SysReg, address(rng, u32::MAX.into())),
        },
    };
    let vcpu = DeviceVcpuId::new(rng.random_range(0..4));
    DeviceAccess::new(vcpu, bus, addr, *WIDTHS.choose(rng).unwrap())
}

/// Both registries and a handle, with the same devices.
struct Both<'d> {
    devices: &'d Devices,
    vcpu: VcpuDevices<&'d Devices>,
    /// The registered devices, in order: an id of the oracle is a position in this list.
    registered: Vec<(DeviceId, Pair)>,
    oracle: DeviceRuntime,
    /// The last bundle that was tried.
    tried: Vec<Pair>,
}

/// The errors that `DeviceRuntime` wraps.
fn unwrapped<T>(result: Result<T, DeviceManagerError>) -> DeviceResult<T> {
    result.map_err(|error| match error {
        DeviceManagerError::Access { source, .. } => source,
        other => panic!("not an error of an access: {other}"),
    })
}

fn bundle(pairs: &[Pair]) -> DeviceBundle {
    let mut bundle = DeviceBundle::new();
    for Pair { probe, grants } in pairs {
        let index = bundle.add_device(probe.clone());
        let grants = grants.clone();
        if let Some(grant) = grants.dma {
            bundle.grant_guest_memory_to_device(index, grant);
        }
        if let Some(grant) = grants.timer {
            bundle.grant_timer_to_device(index, grant);
        }
        if let Some(grant) = grants.wake {
            bundle.grant_wake_to_device(index, grant);
        }
        if let Some(grant) = grants.stop {
            bundle.grant_stop_to_device(index, grant);
        }
    }
    bundle
}

impl Both<'_> {
    fn register(&mut self, pairs: Vec<Pair>) {
        self.tried = pairs;
        let pairs = &self.tried[..];
        let entry = |pair: &Pair| Entry::with_grants(pair.probe.clone(), pair.grants.clone());
        let entries: Vec<_> = pairs.iter().map(entry).collect();
        let ours = self.devices.register_all(&entries);
        let theirs = self.oracle.register_bundle(bundle(pairs));
        match (ours, theirs) {
            (Ok(ids), Ok(())) => {
                assert!(self.registered.iter().all(|(id, _)| !ids.contains(id)));
                self.registered.extend(ids.into_iter().zip(pairs.to_vec()));
            }
            (Err(ours), Err(DeviceManagerError::Registry(theirs))) => {
                assert_eq!(self.as_theirs(ours, pairs.len()), theirs);
            }
            (ours, theirs) => panic!("{ours:?} against {theirs:?}"),
        }
    }

    /// Our error, with the id of the oracle.
    fn as_theirs(&self, error: RegistryError, bundled: usize) -> RegistryError {
        let RegistryError::AddressConflict {
            resource,
            existing,
            existing_device,
        } = error
        else {
            return error;
        };
        let position = |(id, _): &(DeviceId, Pair)| *id == existing_device;
        let position = self
            .registered
            .iter()
            .position(position)
            .unwrap_or_else(|| {
                // A device of the bundle: the ids of a bundle are consecutive, and its first device has no conflict.
                let first = self.probe_of(&existing);
                assert!(first < bundled);
                self.registered.len() + first
            });
        RegistryError::AddressConflict {
            resource,
            existing,
            existing_device: DeviceId::new(position as u32),
        }
    }

    /// The position of the device with this resource in the last bundle that was tried.
    fn probe_of(&self, existing: &Resource) -> usize {
        let has = |pair: &Pair| pair.probe.resources.contains(existing);
        self.tried.iter().position(has).expect("in the bundle")
    }

    /// Removes a device. The oracle is built again without it.
    fn remove(&mut self, at: usize) {
        let (id, _) = self.registered.remove(at);
        let removed = self.devices.unregister(id).unwrap().expect("registered");
        self.vcpu.refresh();
        assert!(removed.is_quiescent());
        assert!(self.devices.unregister(id).unwrap().is_none());
        self.oracle = DeviceRuntime::default();
        for (_, pair) in &self.registered {
            self.oracle
                .register_bundle(bundle(std::slice::from_ref(pair)))
                .unwrap();
        }
    }

    fn read(&mut self, access: &DeviceAccess) -> bool {
        let theirs = unwrapped(self.oracle.try_read(access));
        assert_eq!(self.devices.try_read(access), theirs, "{access:?}");
        assert_eq!(self.vcpu.try_read(access), theirs, "{access:?} by handle");
        theirs != Ok(None)
    }

    fn write(&mut self, access: &DeviceAccess, value: u64, memory: Option<&Memory>) -> bool {
        let mut memories = [memory.cloned(), memory.cloned(), memory.cloned()];
        let [a, b, c] = memories.each_mut().map(|memory| {
            memory
                .as_mut()
                .map(|memory| memory as &mut dyn GuestMemoryAccess)
        });
        let theirs = unwrapped(self.oracle.try_write(access, value, a));
        assert_eq!(
            self.devices.try_write(access, value, b),
            theirs,
            "{access:?}"
        );
        assert_eq!(
            self.vcpu.try_write(access, value, c),
            theirs,
            "{access:?} by handle"
        );
        assert!(memories.iter().all(|memory| *memory == memories[0]));
        theirs != Ok(false)
    }
}

fn episode(rng: &mut StdRng) -> usize {
    let devices = Devices::default();
    let mut both = Both {
        devices: &devices,
        vcpu: VcpuDevices::new(&devices),
        registered: Vec::new(),
        oracle: DeviceRuntime::default(),
        tried: Vec::new(),
    };
    let mut reached = 0;
    for operation in 0..OPERATIONS as u64 {
        match rng.random_range(0..20) {
            0 | 1 => {
                let pairs: Vec<_> = (0..*[1, 1, 2, 3].choose(rng).unwrap())
                    .map(|i| random_pair(rng, operation * 4 + i + 1))
                    .collect();
                both.register(pairs);
            }
            2 if both.registered.len() > 8 => {
                both.remove(rng.random_range(0..both.registered.len()));
            }
            3..12 => {
                let access = random_access(rng, &both.registered);
                reached += usize::from(both.read(&access));
            }
            _ => {
                let memory = Memory(
                    rng.random::<u128>()
                        .to_le_bytes()
                        .repeat(8)
                        .try_into()
                        .unwrap(),
                );
                let memory = rng.random_bool(0.5).then_some(&memory);
                let value = rng.random_range(0..8);
                let access = random_access(rng, &both.registered);
                reached += usize::from(both.write(&access, value, memory));
            }
        }
        assert_eq!(devices.device_count(), both.oracle.device_count());
    }
    reached
}

#[test]
fn agrees_with_device_runtime() {
    let seed = std::env::var("SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    let reached: usize = (0..EPISODES).map(|_| episode(&mut rng)).sum();
    // Enough of the accesses are for a device.
    assert!(reached > EPISODES * OPERATIONS / 8, "{reached}");
}

#[test]
fn a_single_device_is_registered_as_by_the_registry_trait() {
    let devices = Devices::default();
    let mut oracle = DeviceRuntime::default();
    let mut rng = StdRng::seed_from_u64(7);
    let mut ids = Vec::new();
    for number in 0..2_000 {
        let Pair { probe, .. } = random_pair(&mut rng, number);
        let (ours, theirs) = (
            devices.register(Entry::new(probe.clone())),
            oracle.register(probe),
        );
        match (ours, theirs) {
            (Ok(id), Ok(position)) => {
                assert_eq!(position.as_u32() as usize, ids.len());
                ids.push(id);
            }
            (
                Err(RegistryError::AddressConflict {
                    existing_device: ours,
                    ..
                }),
                Err(RegistryError::AddressConflict {
                    existing_device: theirs,
                    ..
                }),
            ) => {
                assert_eq!(ours, ids[theirs.as_u32() as usize]);
            }
            (ours, theirs) => assert_eq!(ours.map(|_| ()), theirs.map(|_| ())),
        }
    }
    assert!(ids.len() > 20);
}
