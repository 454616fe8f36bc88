//! [`Session`]: the registry beside the model.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice::{
    AxVmDeviceConfig, DeviceId, Dispatcher, Profile, Removed, SharedVmDevices, Snapshot, ThreadSafe,
};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType::IVCChannel};
use support::{Bus, Journal};

use super::{
    input::{Input, Op, Place, Policy, Which},
    pages::{BASE, PAGE, Pages},
};
use crate::{
    model::Model,
    on::{BUSES, Dev, On, OnBus, on_bus},
    recorder::{Known, recorder},
};

/// The registry, the model, and the record of every device that was made.
pub(crate) struct Session {
    pub(crate) devices: Arc<SharedVmDevices>,
    pub(crate) unmapped: Policy,
    /// The current tables. A vCPU holds the same tables until they are replaced.
    pub(crate) model: Rc<Model>,
    pub(crate) vcpus: [Vcpu; 2],
    pub(crate) journal: Journal,
    pub(crate) made: Vec<Made>,
    /// Every id that was given, in order.
    pub(crate) ids: Vec<DeviceId>,
    /// The removed devices that were not yet waited for, with their numbers.
    pub(crate) removed: Vec<(usize, Removed<ThreadSafe>)>,
    /// The devices that `iter_*` has lent, and those that the last round of `iter_mut_*` has put aside.
    pub(crate) kept: BTreeSet<usize>,
    snapshot: Option<(Snapshot<ThreadSafe>, Rc<Model>)>,
    pages: Pages,
}

/// A device that was made.
pub(crate) struct Made {
    pub(crate) known: Arc<Known>,
    on: On,
    /// Its address, which distinguishes it from the other living devices.
    place: *const (),
}

/// A vCPU's handle.
pub(crate) type Handle = Dispatcher<Arc<SharedVmDevices>>;

/// A vCPU.
#[derive(Default)]
pub(crate) struct Vcpu {
    handle: Option<Handle>,
    /// The tables that the handle holds.
    pub(crate) holds: Option<Rc<Model>>,
    /// The number of accesses of the handle on each bus, and the number of misses among them.
    pub(crate) accesses: [(u64, u64); 3],
    /// The number of reads and writes of each device by the handle.
    pub(crate) profile: BTreeMap<DeviceId, (u64, u64)>,
}

impl Vcpu {
    /// Drops the handle after a check of its counts.
    pub(crate) fn end(&mut self) {
        let vcpu = std::mem::take(self);
        let counters = (vcpu.handle.as_ref()).map_or_else(Default::default, Dispatcher::counters);
        for on in BUSES {
            let (accesses, misses) = vcpu.accesses[on as usize];
            let counted = on_bus!(on, R => R::counters(counters));
            assert_eq!(counted.hits + counted.searches + counted.misses, accesses);
            assert_eq!(counted.misses, misses);
            assert!(counted.refreshes <= accesses);
        }
        let profile = vcpu.handle.as_ref().map(Dispatcher::profile);
        check_profile(&vcpu, &profile.unwrap_or_default());
    }
}

/// Checks the counts of a handle: no device is left out. The count of a device is in `others` only if 64 devices were
/// added since the handle was made, and in `removed` only if that number was removed.
fn check_profile(vcpu: &Vcpu, profile: &Profile) {
    let mut counted = profile.others.total() + profile.removed.total();
    for of in &profile.devices {
        let (reads, writes) = vcpu.profile[&of.id];
        assert!(of.accesses.reads <= reads && of.accesses.writes <= writes);
        if profile.others.total() + profile.removed.total() == 0 {
            assert_eq!((of.accesses.reads, of.accesses.writes), (reads, writes));
        }
        counted += of.accesses.total();
    }
    let exact = vcpu.profile.values().map(|(reads, writes)| reads + writes);
    assert_eq!(counted, exact.sum::<u64>());
    for on in BUSES {
        let missed = on_bus!(on, R => profile.missed(R::BUS));
        assert_eq!(missed.total, vcpu.accesses[on as usize].1);
        let listed = missed.addresses.iter().map(|of| of.count);
        assert!(missed.unlisted > 0 || listed.sum::<u64>() == missed.total);
    }
}

impl Session {
    pub(crate) fn new(input: &Input) -> Self {
        let ivc = EmulatedDeviceConfig {
            name: "ivc".into(),
            base_gpa: BASE,
            length: usize::from(input.ivc_pages) * PAGE,
            emu_type: IVCChannel,
            ..Default::default()
        };
        let range = ivc
            .length
            .checked_sub(1)
            .map(|beyond| (BASE, BASE + beyond));
        let config = if ivc.length > 0 { vec![ivc] } else { vec![] };
        let builder = SharedVmDevices::builder()
            .config(AxVmDeviceConfig::new(config))
            .unmapped(input.unmapped.into());
        Self {
            devices: Arc::new(builder.build().expect("an IVC range")),
            unmapped: input.unmapped,
            model: Rc::new(Model::with_ivc(range)),
            vcpus: Default::default(),
            journal: Journal::default(),
            made: Vec::new(),
            ids: Vec::new(),
            removed: Vec::new(),
            kept: BTreeSet::new(),
            snapshot: None,
            pages: Pages::new(input.ivc_pages),
        }
    }

    pub(crate) fn run(&mut self, op: Op) {
        match op {
            Op::Add(on, extent) => on_bus!(on, R => self.add::<R>(extent)),
            Op::Remove(which) => self.remove(which),
            Op::Move(which, on, extent) => on_bus!(on, R => self.move_to::<R>(which, extent)),
            Op::Reindex(which, extent) => self.reindex(which, extent),
            Op::Update(changes, ending) => self.update(&changes, ending),
            Op::Access(by, on, place, access) => {
                on_bus!(on, R => self.access::<R>(by, place, access));
            }
            Op::Find(on, place) => on_bus!(on, R => self.find::<R>(place)),
            Op::Iter(on) => on_bus!(on, R => self.iter::<R>()),
            Op::Replace(items, first_use) => self.replace(&items, first_use),
            Op::Check => self.check(),
            Op::KeepSnapshot => {
                self.check_snapshot();
                self.snapshot = Some((self.devices.snapshot(), self.model.clone()));
            }
            Op::Refresh(vcpu) => {
                self.handle(vcpu).refresh();
                self.vcpus[usize::from(vcpu % 2)].holds = Some(self.model.clone());
            }
            Op::Park(vcpu) => {
                self.handle(vcpu).park();
                self.vcpus[usize::from(vcpu % 2)].holds = None;
            }
            Op::Wait(index, spins) => self.wait(index, spins),
            Op::Alloc(size) => {
                let size = size.bytes();
                let allocated = self.devices.alloc_ivc_channel(size);
                assert_eq!(allocated.map(usize::from), self.pages.alloc(size));
            }
            Op::Release(page, odd, size) => {
                let offset = isize::from(page) * PAGE as isize + odd.bytes() as isize;
                let (addr, size) = (BASE.wrapping_add_signed(offset), size.bytes());
                let addr_of = GuestPhysAddr::from(addr);
                let released = self.devices.release_ivc_channel(addr_of, size);
                assert_eq!(released, self.pages.release(addr, size));
            }
        }
    }

    /// Drops the registry and the removed devices in the given order, and checks that each device is dropped once.
    pub(crate) fn end(mut self, registry_first: bool) {
        self.check();
        self.check_snapshot();
        self.vcpus.iter_mut().for_each(Vcpu::end);
        self.snapshot = None;
        if registry_first {
            assert_eq!(Arc::strong_count(&self.devices), 1);
            self.devices = Arc::default();
            self.model = Rc::default();
            self.kept.clear();
        }
        while !self.removed.is_empty() {
            self.wait(0, 0);
        }
        self.check();
        let Self { devices, made, .. } = self;
        drop(devices);
        for (number, made) in made.iter().enumerate() {
            assert_eq!(made.known.drops(), 1, "device {number}");
        }
    }

    /// A vCPU's handle.
    pub(crate) fn handle(&mut self, vcpu: u8) -> &mut Handle {
        let vcpu = &mut self.vcpus[usize::from(vcpu % 2)];
        (vcpu.handle).get_or_insert_with(|| Dispatcher::new(self.devices.clone()))
    }

    /// Makes a device, with the next number.
    pub(crate) fn make<R: OnBus>(&mut self, range: (usize, usize)) -> (usize, Arc<Dev<R>>) {
        let number = self.made.len();
        let (known, device) = recorder::<R>(number, range, &self.journal);
        let place = Arc::as_ptr(&device).cast();
        self.made.push(Made {
            known,
            on: R::ON,
            place,
        });
        (number, device)
    }

    /// Records an id that was just given. Ids grow.
    pub(crate) fn given(&mut self, id: DeviceId) {
        assert!(self.ids.last().is_none_or(|&last| last < id));
        self.ids.push(id);
    }

    /// One of the given ids, if there is any.
    pub(crate) fn id(&self, which: Which) -> Option<DeviceId> {
        let index = usize::from(which.0).checked_rem(self.ids.len())?;
        Some(self.ids[index])
    }

    pub(crate) fn is<R: OnBus>(&self, device: &Arc<Dev<R>>, number: usize) -> bool {
        Arc::as_ptr(device).cast() == self.made[number].place
    }

    pub(crate) fn find<R: OnBus>(&self, place: Place) {
        let at = place.number::<R>();
        match (R::find(&self.devices, at), self.model.owner(R::ON, at)) {
            (Some(device), Some(owner)) => assert!(self.is::<R>(&device, owner.number)),
            (found, owner) => assert_eq!((found.is_some(), owner), (false, None)),
        }
    }

    fn iter<R: OnBus>(&mut self) {
        let lent = R::all(&self.devices);
        let expected = self.model.by_registration(R::ON);
        assert_eq!(lent.len(), expected.len());
        for (device, owner) in lent.into_iter().zip(&expected) {
            assert!(self.is::<R>(device, owner.number));
        }
        self.kept.extend(expected.iter().map(|owner| owner.number));
    }

    /// Waits for a removed device. It is quiescent when no vCPU holds tables that list it.
    fn wait(&mut self, index: u8, spins: u8) {
        let Some(index) = usize::from(index).checked_rem(self.removed.len()) else {
            return;
        };
        let (number, removed) = self.removed.swap_remove(index);
        let tables = self.tables_with(number);
        // Tables may share reference counts.
        assert!((tables.min(1)..=tables).contains(&removed.holders()));
        assert_eq!(removed.is_quiescent(), tables == 0);
        match removed.wait(usize::from(spins % 4)) {
            Ok(device) => {
                assert_eq!(tables, 0);
                let (place, count) = on_bus!(self.made[number].on, R => {
                    let device = R::unwrapped(device).expect("it is on its own bus");
                    (Arc::as_ptr(&device).cast::<()>(), Arc::strong_count(&device))
                });
                let in_snapshot =
                    (self.snapshot.iter()).any(|(_, model)| model.numbers().contains(&number));
                assert_eq!(place, self.made[number].place);
                assert_eq!(count > 1, in_snapshot || self.kept.contains(&number));
            }
            Err(removed) => {
                assert_ne!(tables, 0);
                self.removed.push((number, removed));
            }
        }
    }

    /// The number of older tables that list a device.
    fn tables_with(&self, number: usize) -> usize {
        let held = self.vcpus.iter().filter_map(|vcpu| vcpu.holds.as_ref());
        let older = held.filter(|held| !Rc::ptr_eq(held, &self.model));
        let listing = older.filter(|held| held.numbers().contains(&number));
        listing.map(Rc::as_ptr).collect::<BTreeSet<_>>().len()
    }

    /// Checks the counted and the visited devices; no device is lent for this.
    fn visit<R: OnBus>(&self) {
        let mut expected = self.model.on(R::ON).iter();
        assert_eq!(R::count(&self.devices), expected.len());
        R::for_each(&self.devices, |id, range, device| {
            let (&first, owner) = expected.next().expect("a device that is listed");
            assert_eq!((id, range), (owner.id, R::covering(first, owner.last)));
            assert!(self.is::<R>(device, owner.number));
        });
        assert!(expected.next().is_none());
    }

    /// Checks the list, and checks that exactly the devices that may still be used live.
    pub(crate) fn check(&self) {
        lists(&self.devices.snapshot(), &self.model);
        self.visit::<GuestPhysAddrRange>();
        self.visit::<SysRegAddrRange>();
        self.visit::<PortRange>();
        assert_eq!(self.journal.take(), []);

        self.devices.reclaim();
        let held = self.vcpus.iter().filter_map(|vcpu| vcpu.holds.as_ref());
        let listed = held.chain(self.snapshot.iter().map(|(_, model)| model));
        let mut living = self.model.numbers();
        living.extend(listed.flat_map(|model| model.numbers()));
        living.extend(self.removed.iter().map(|&(number, _)| number));
        living.extend(&self.kept);
        for (number, made) in self.made.iter().enumerate() {
            let drops = usize::from(!living.contains(&number));
            assert_eq!(made.known.drops(), drops, "device {number}");
        }
    }

    /// Checks that the snapshot still lists the devices at the time when it was taken.
    fn check_snapshot(&self) {
        if let Some((snapshot, model)) = &self.snapshot {
            lists(snapshot, model);
        }
    }
}

/// Checks that the snapshot lists the devices of the model.
fn lists(snapshot: &Snapshot<ThreadSafe>, model: &Model) {
    lists_bus::<GuestPhysAddrRange>(snapshot, model);
    lists_bus::<SysRegAddrRange>(snapshot, model);
    lists_bus::<PortRange>(snapshot, model);
    assert_eq!(snapshot.to_string(), model.map(|_| String::new(), "ivc"));
}

fn lists_bus<R: OnBus>(snapshot: &Snapshot<ThreadSafe>, model: &Model) {
    let listed = R::listed(snapshot).into_iter();
    let expected = model.on(R::ON).iter();
    assert!(
        listed
            .map(|(id, range, _)| (id, range))
            .eq(expected.map(|(&first, owner)| (owner.id, R::covering(first, owner.last))))
    );
    let mut owners = model.on(R::ON).values();
    assert!(owners.all(|owner| owner.last <= R::HIGHEST));
}
