//! Doorbells: registers of the devices that guests move about, a write to which is to reach the host without
//! an exit, wherever the device is.
//!
//! In KVM a doorbell is an ioeventfd, which is hung up at an address. So that it follows its device,
//! [`Doorbells`] listens to the registry. Before a move is published it hangs the bell up at the new place;
//! after the move it notes that the bell is to be taken down at the old one, which the device's handler has
//! done before it returns. In that order:
//!
//! - a write where the device is never exits: the bell is up there before the registry says so, and stays
//!   until it no longer does;
//! - when the guest's write that moves the device is over, the bell no longer rings at the old place: KVM
//!   waits, as it takes an ioeventfd down, for the vCPUs that are looking at it;
//! - in between it rings at both.
//!
//! That KVM waits is why the bell is not taken down while the listener is told: where there are more vCPUs than
//! CPUs it takes milliseconds, and all other changes would wait for it.
//!
//! If the bell cannot be hung up, the move is refused. Two devices that swap their places would have to be
//! told apart by what is written, since KVM takes one bell for an address and a datum.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Result, anyhow};
use axdevice::{DeviceId, Difference, Listener, Mapping, Veto};
use board::Count;
use crossbeam_utils::CachePadded;

use crate::contract::{BAR_DOORBELL, first_place};

/// KVM, or its stand-in, which hangs up bells. Errors are numbers of the system.
pub(crate) trait Bells: Send + Sync {
    /// Hangs up the bell of a vCPU at an address.
    fn hang_up(&self, vcpu: u32, at: u64) -> Result<(), i32>;

    /// Takes it down there: when this returns it does not ring any more.
    fn take_down(&self, vcpu: u32, at: u64) -> Result<(), i32>;

    /// How often the bell of a vCPU has rung since this was asked last.
    fn rung(&self, vcpu: u32) -> u64;
}

/// The doorbells of all vCPUs' devices, and what becomes of them.
pub(crate) struct Doorbells {
    connected: OnceLock<Connected>,
    /// A vCPU each. Its own thread alone counts: its guest alone moves the device.
    counts: Box<[CachePadded<Counts>]>,
    /// The vCPUs and addresses whose bells are to be taken down.
    old: Mutex<Vec<(u32, u64)>>,
    /// Whether they stay where they are, whatever their devices do.
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
    /// Writes to it, as the guest says.
    pub(crate) written: Count,
    /// Writes to it that exited. None should.
    pub(crate) exited: Count,
    /// Rings that no write to it explains: it rang where the device was no longer. None should.
    pub(crate) late: Count,
    /// Writes to it that neither rang nor exited. None should.
    pub(crate) lost: Count,
    /// How often it followed its device.
    pub(crate) moved: Count,
    /// How often it could not be taken down. Never, if all is right.
    pub(crate) stuck: Count,
    /// Of the exits, those up to the last report.
    reported: Count,
}

impl Doorbells {
    /// The doorbells of so many vCPUs, which are not connected to anything yet.
    pub(crate) fn new(vcpus: u32, sabotaged: bool) -> Self {
        Self {
            connected: OnceLock::new(),
            counts: (0..vcpus).map(|_| CachePadded::default()).collect(),
            old: Mutex::default(),
            sabotaged,
        }
    }

    /// Hangs the bells up at the first places of `devices`, a vCPU each, which they follow from now on. No
    /// vCPU runs yet.
    pub(crate) fn connect(
        &self,
        devices: Vec<DeviceId>,
        bells: impl Bells + 'static,
    ) -> Result<()> {
        for vcpu in 0..devices.len() as u32 {
            let hung = bells.hang_up(vcpu, (first_place(vcpu) + BAR_DOORBELL).into());
            hung.map_err(|code| anyhow!("no doorbell for vCPU {vcpu} (error {code})"))?;
        }
        let bells = Box::new(bells);
        let connected = self.connected.set(Connected { devices, bells });
        connected.map_err(|_| anyhow!("the doorbells are connected already"))
    }

    fn old(&self) -> MutexGuard<'_, Vec<(u32, u64)>> {
        self.old.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_down(&self, connected: &Connected, vcpu: u32, at: u64) {
        if connected.bells.take_down(vcpu, at).is_err() {
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
            (self.sum(|of| &of.stuck), "doorbells were not taken down"),
        ];
        let mut found = faults.into_iter().filter(|(count, _)| *count > 0);
        found.next().map(|(count, what)| format!("{what}: {count}"))
    }
}

impl Connected {
    /// Which of these spans are devices' with doorbells: the vCPU, and where the doorbell is.
    fn places(&self, of: &[Mapping]) -> impl Iterator<Item = (u32, u64)> {
        of.iter().filter_map(|mapping| {
            let vcpu = self.devices.iter().position(|id| *id == mapping.id)?;
            Some((vcpu as u32, mapping.span.first() + u64::from(BAR_DOORBELL)))
        })
    }
}

impl board::Doorbells for Doorbells {
    /// Takes its bell down wherever the device is no longer.
    fn moved(&self, vcpu: u32) {
        let Some(connected) = self.connected.get() else {
            return;
        };
        let its = |(of, _): &mut (u32, u64)| *of == vcpu;
        let old: Vec<_> = self.old().extract_if(.., its).collect();
        for (vcpu, at) in old {
            self.take_down(connected, vcpu, at);
        }
    }

    /// Compares the writes with the rings: a bell rings before the write is over.
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
            if let Err(code) = connected.bells.hang_up(vcpu, at) {
                for (vcpu, at) in connected.places(difference.mapped()).take(n) {
                    self.take_down(connected, vcpu, at);
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

    /// Writes down what is done, and fails at some addresses.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<Done>>>);

    /// Up or down, whose, and where.
    type Done = (&'static str, u32, u64);

    /// Where no bell can be hung up.
    const NO_NAIL: u64 = 0xdead_0000;

    impl Bells for Log {
        fn hang_up(&self, vcpu: u32, at: u64) -> Result<(), i32> {
            if at == NO_NAIL + u64::from(BAR_DOORBELL) {
                return Err(17);
            }
            self.0.lock().unwrap().push(("up", vcpu, at));
            Ok(())
        }

        fn take_down(&self, vcpu: u32, at: u64) -> Result<(), i32> {
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

    /// Two vCPUs' devices, with their doorbells, and a third without.
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
    fn a_bell_is_up_at_the_new_place_before_it_is_down_at_the_old_one() {
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
    fn a_device_stays_where_it_is_if_its_bell_cannot_be_hung_up() {
        let (devices, doorbells, ids, log) = connected(false);
        log.take();
        let veto = Veto::new("no doorbell at the new place").with_code(17);
        let refused = Err(Refusal::Vetoed(veto));
        assert_eq!(devices.move_to(ids[0], range(NO_NAIL)), refused);
        assert_eq!(log.take(), []);
        // Nor does another one that moves with it.
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
