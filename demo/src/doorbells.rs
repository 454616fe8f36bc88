//! Doorbells: registers of the devices that guests move. A write to one reaches the host without an exit, at every
//! place of the device.
//!
//! In KVM a doorbell is an ioeventfd, which is registered at an address. [`Doorbells`] listens to the registry, so
//! that a bell follows its device. Before a move is published it registers the bell at the new place. After the move
//! it records that the bell is at the old place too, where the device's handler unregisters it before the handler
//! returns. Hence:
//!
//! - a write at the place of the device never exits: the bell is there before the device is published there, and
//!   stays until the device is published elsewhere;
//! - when the guest's write that moves the device ends, the bell no longer rings at the old place: to unregister an
//!   ioeventfd, KVM waits for the vCPUs that are reading it;
//! - in between it rings at both.
//!
//! The listener does not unregister the bell, because KVM waits: with more vCPUs than CPUs that takes milliseconds,
//! and would delay all other changes.
//!
//! If the bell cannot be registered, the move is refused. KVM accepts one bell for each address and value: bells of
//! devices that swap their places must differ in the value.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Result, anyhow};
use axdevice::{DeviceId, Difference, Listener, Mapping, Veto};
use board::Count;
use crossbeam_utils::CachePadded;

use crate::contract::{BAR_DOORBELL, first_place};

/// The list of bells, KVM's or its stand-in's. Errors are the system's error numbers.
pub(crate) trait Bells: Send + Sync {
    /// Registers the bell of a vCPU at an address.
    fn register(&self, vcpu: u32, at: u64) -> Result<(), i32>;

    /// Unregisters it there. When this returns, it no longer rings there.
    fn unregister(&self, vcpu: u32, at: u64) -> Result<(), i32>;

    /// The number of rings of a vCPU's bell since the last call.
    fn rung(&self, vcpu: u32) -> u64;
}

/// The doorbells of all vCPUs' devices, and their counts.
pub(crate) struct Doorbells {
    connected: OnceLock<Connected>,
    /// One for each vCPU. Only its own thread counts, because only its guest moves the device.
    counts: Box<[CachePadded<Counts>]>,
    /// The vCPUs and addresses of the bells to unregister.
    old: Mutex<Vec<(u32, u64)>>,
    /// Whether they stay where they are although their devices move.
    sabotaged: bool,
}

struct Connected {
    /// The devices, by vCPU.
    devices: Vec<DeviceId>,
    bells: Box<dyn Bells>,
}

/// Counts of the doorbell of a vCPU.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Writes to it, as reported by the guest.
    pub(crate) written: Count,
    /// Writes to it that exited. There should be none.
    pub(crate) exited: Count,
    /// Rings without a write to it: it rang at an old place of the device. There should be none.
    pub(crate) late: Count,
    /// Writes to it without a ring or an exit. There should be none.
    pub(crate) lost: Count,
    /// The number of times that it followed its device.
    pub(crate) moved: Count,
    /// The number of times that it could not be unregistered. There should be none.
    pub(crate) stuck: Count,
    /// The exits up to the last report.
    reported: Count,
}

impl Doorbells {
    /// The doorbells of `vcpus` vCPUs, which are not connected to a list yet.
    pub(crate) fn new(vcpus: u32, sabotaged: bool) -> Self {
        Self {
            connected: OnceLock::new(),
            counts: (0..vcpus).map(|_| CachePadded::default()).collect(),
            old: Mutex::default(),
            sabotaged,
        }
    }

    /// Registers the bells at the first places of `devices`, one for each vCPU. From now on they follow the devices.
    /// No vCPU runs yet.
    pub(crate) fn connect(
        &self,
        devices: Vec<DeviceId>,
        bells: impl Bells + 'static,
    ) -> Result<()> {
        for vcpu in 0..devices.len() as u32 {
            let registered = bells.register(vcpu, (first_place(vcpu) + BAR_DOORBELL).into());
            registered.map_err(|code| {
                anyhow!("cannot register the doorbell of vCPU {vcpu} (error {code})")
            })?;
        }
        let bells = Box::new(bells);
        let connected = self.connected.set(Connected { devices, bells });
        connected.map_err(|_| anyhow!("the doorbells are connected already"))
    }

    fn old(&self) -> MutexGuard<'_, Vec<(u32, u64)>> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unregister(&self, connected: &Connected, vcpu: u32, at: u64) {
        if connected.bells.unregister(vcpu, at).is_err() {
            self.counts[vcpu as usize].stuck.add(1);
        }
    }

    /// A sum over all vCPUs.
    pub(crate) fn sum(&self, of: impl Fn(&Counts) -> &Count) -> u64 {
        self.counts.iter().map(|counts| of(counts).get()).sum()
    }

    /// The first fault, if there is one.
    pub(crate) fn fault(&self) -> Option<String> {
        let faults = [
            (self.sum(|of| &of.exited), "writes to a doorbell exited"),
            (self.sum(|of| &of.late), "doorbells rang at an old place"),
            (self.sum(|of| &of.lost), "doorbells did not ring"),
            (self.sum(|of| &of.stuck), "doorbells were not unregistered"),
        ];
        let mut found = faults.into_iter().filter(|(count, _)| *count > 0);
        found.next().map(|(count, what)| format!("{what}: {count}"))
    }
}

impl Connected {
    /// The vCPU and the address of the doorbell, for each of these spans that belongs to a device with a doorbell.
    fn places(&self, of: &[Mapping]) -> impl Iterator<Item = (u32, u64)> {
        of.iter().filter_map(|mapping| {
            let vcpu = self.devices.iter().position(|id| *id == mapping.id)?;
            Some((vcpu as u32, mapping.span.first() + u64::from(BAR_DOORBELL)))
        })
    }
}

impl board::Doorbells for Doorbells {
    /// Unregisters its bell at all old places of the device.
    fn moved(&self, vcpu: u32) {
        let Some(connected) = self.connected.get() else {
            return;
        };
        let its = |(of, _): &mut (u32, u64)| *of == vcpu;
        let old: Vec<_> = self.old().extract_if(.., its).collect();
        for (vcpu, at) in old {
            self.unregister(connected, vcpu, at);
        }
    }

    /// Compares the writes with the rings: a bell rings before the write ends.
    fn written(&self, vcpu: u32, times: u64) {
        let counts = &self.counts[vcpu as usize];
        let rung = self.connected.get().map_or(0, |to| to.bells.rung(vcpu));
        let exited = counts.exited.get() - counts.reported.get();
        counts.reported.add(exited);
        counts.written.add(times);
        counts.late.add((rung + exited).saturating_sub(times));
        counts.lost.add(times.saturating_sub(rung + exited));
    }

    fn exited(&self, vcpu: u32) {
        self.counts[vcpu as usize].exited.add(1);
    }
}

impl Listener for Doorbells {
    fn before(&self, difference: &Difference) -> Result<(), Veto> {
        let Some(connected) = self.connected.get().filter(|_| !self.sabotaged) else {
            return Ok(());
        };
        for (n, (vcpu, at)) in connected.places(difference.mapped()).enumerate() {
            if let Err(code) = connected.bells.register(vcpu, at) {
                for (vcpu, at) in connected.places(difference.mapped()).take(n) {
                    self.unregister(connected, vcpu, at);
                }
                return Err(Veto::new("no doorbell at the new place").with_code(code));
            }
        }
        Ok(())
    }

    fn after(&self, difference: &Difference) {
        let Some(connected) = self.connected.get().filter(|_| !self.sabotaged) else {
            return;
        };
        self.old().extend(connected.places(difference.unmapped()));
        for (vcpu, _) in connected.places(difference.mapped()) {
            self.counts[vcpu as usize].moved.add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
    use axdevice::{
        AccessWidth, AxResult, BaseDeviceOps, EmulatedDeviceType, Refusal, SharedVmDevices,
    };

    use board::Doorbells as _;

    use super::*;
    use crate::contract::{BAR_SIZE, PLACE_STRIDE};

    /// Records each call, and fails at one address.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<Done>>>);

    /// Registered or not, the vCPU, and the address.
    type Done = (&'static str, u32, u64);

    /// The address at which no bell can be registered.
    const NO_NAIL: u64 = 0xdead_0000;

    impl Bells for Log {
        fn register(&self, vcpu: u32, at: u64) -> Result<(), i32> {
            if at == NO_NAIL + u64::from(BAR_DOORBELL) {
                return Err(17);
            }
            self.0.lock().unwrap().push(("up", vcpu, at));
            Ok(())
        }

        fn unregister(&self, vcpu: u32, at: u64) -> Result<(), i32> {
            self.0.lock().unwrap().push(("down", vcpu, at));
            Ok(())
        }

        fn rung(&self, _: u32) -> u64 {
            3
        }
    }

    impl Log {
        fn take(&self) -> Vec<Done> {
            std::mem::take(&mut self.0.lock().unwrap())
        }
    }

    struct Idle(GuestPhysAddrRange);

    impl BaseDeviceOps<GuestPhysAddrRange> for Idle {
        fn emu_type(&self) -> EmulatedDeviceType {
            EmulatedDeviceType::Dummy
        }

        fn address_range(&self) -> GuestPhysAddrRange {
            self.0
        }

        fn handle_read(&self, _: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
            Ok(0)
        }

        fn handle_write(&self, _: GuestPhysAddr, _: AccessWidth, _: usize) -> AxResult {
            Ok(())
        }
    }

    fn range(first: u64) -> GuestPhysAddrRange {
        let start = GuestPhysAddr::from_usize(first as usize);
        GuestPhysAddrRange::from_start_size(start, BAR_SIZE as usize)
    }

    /// Two vCPUs' devices, with their doorbells, and a third device without one.
    fn connected(sabotaged: bool) -> (SharedVmDevices, Arc<Doorbells>, [DeviceId; 3], Log) {
        let doorbells = Arc::new(Doorbells::new(2, sabotaged));
        let devices = SharedVmDevices::default().with_listener(doorbells.clone());
        let places = [first_place(0), first_place(1), first_place(2)];
        let ids = places.map(|at| {
            devices
                .add_mmio_dev(Arc::new(Idle(range(at.into()))))
                .unwrap()
        });
        let log = Log::default();
        doorbells.connect(ids[..2].to_vec(), log.clone()).unwrap();
        (devices, doorbells, ids, log)
    }

    fn bell(vcpu: u32, moved: u32) -> u64 {
        (first_place(vcpu) + moved * PLACE_STRIDE + BAR_DOORBELL).into()
    }

    fn place(vcpu: u32, moved: u32) -> GuestPhysAddrRange {
        range(bell(vcpu, moved) - u64::from(BAR_DOORBELL))
    }

    #[test]
    fn a_bell_is_at_the_new_place_before_it_leaves_the_old_one() {
        let (devices, doorbells, ids, log) = connected(false);
        assert_eq!(log.take(), [("up", 0, bell(0, 0)), ("up", 1, bell(1, 0))]);
        devices.move_to(ids[1], place(1, 1)).unwrap();
        assert_eq!(log.take(), [("up", 1, bell(1, 1))]);
        doorbells.moved(0);
        assert_eq!(log.take(), []);
        doorbells.moved(1);
        doorbells.moved(1);
        assert_eq!(log.take(), [("down", 1, bell(1, 0))]);
        assert_eq!(doorbells.sum(|of| &of.moved), 1);
        // One without a doorbell.
        devices.move_to(ids[2], place(2, 1)).unwrap();
        assert_eq!(log.take(), []);
        drop(devices.remove(ids[0]).unwrap());
        doorbells.moved(0);
        assert_eq!(log.take(), [("down", 0, bell(0, 0))]);
        assert_eq!(doorbells.fault(), None);
    }

    #[test]
    fn a_device_stays_where_it_is_if_its_bell_cannot_be_registered() {
        let (devices, doorbells, ids, log) = connected(false);
        log.take();
        let veto = Veto::new("no doorbell at the new place").with_code(17);
        let refused = Err(Refusal::Vetoed(veto));
        assert_eq!(devices.move_to(ids[0], range(NO_NAIL)), refused);
        assert_eq!(log.take(), []);
        // A device that moves with it stays too.
        let updated = devices.update(|batch| {
            batch.move_to(ids[0], place(0, 1))?;
            batch.move_to(ids[1], range(NO_NAIL))
        });
        assert_eq!(updated.map(|((), _)| ()), refused);
        assert_eq!(log.take(), [("up", 0, bell(0, 1)), ("down", 0, bell(0, 1))]);
        assert_eq!(doorbells.sum(|of| &of.moved), 0);
        doorbells.moved(0);
        doorbells.moved(1);
        assert_eq!(log.take(), []);
    }

    #[test]
    fn writes_are_held_against_rings_and_exits() {
        for (written, exited, fault) in [
            (3, 0, None),
            (2, 0, Some("doorbells rang at an old place: 1")),
            (5, 0, Some("doorbells did not ring: 2")),
            (4, 1, Some("writes to a doorbell exited: 1")),
        ] {
            let (_, doorbells, ..) = connected(false);
            (0..exited).for_each(|_| doorbells.exited(1));
            doorbells.written(1, written);
            assert_eq!(doorbells.fault().as_deref(), fault);
            assert_eq!(doorbells.sum(|of| &of.written), written);
        }
    }

    #[test]
    fn sabotaged_ones_stay() {
        let (devices, doorbells, ids, log) = connected(true);
        log.take();
        devices.move_to(ids[1], place(1, 1)).unwrap();
        assert_eq!(log.take(), []);
        assert_eq!(doorbells.sum(|of| &of.moved), 0);
    }
}
