//! [`Tallies`]: how often a vCPU has accessed each device, in memory of its own.

use alloc::vec::Vec;

use crate::{
    accesses::Accesses,
    bus::{Bus, Family, Mmio, PerBus, Port, SysReg},
    device::DeviceId,
    direction::Direction,
    reserve::reserved,
};

/// For how many more devices than there are there is room.
const MORE: usize = 64;

/// No device's index.
const NOWHERE: usize = usize::MAX;

/// How often each device was accessed, by its [index](crate::Hit::index).
///
/// Counting allocates nothing. Devices beyond the room that there is are counted together, until
/// [`grow`](Self::grow) makes more.
///
/// Most accesses are to the device of the access before, so a bus counts those in its [`Run`], and
/// looks the device's own count up when another one comes.
///
/// # Invariants
///
/// *Named*: what is counted at an index within the room, there or in a run, is of the device whose
/// id is there. The caller sees to it by [`attribute`](Self::attribute), before the first access to a
/// device by new tables is counted.
pub(crate) struct Tallies {
    runs: PerBus<RunOf>,
    /// By index, as many as there is room for.
    devices: Vec<Accesses>,
    /// Whose those are.
    ids: Vec<Option<DeviceId>>,
    /// Of devices for which there was no room.
    others: Accesses,
    /// Of devices whose index is another device's now.
    removed: Accesses,
}

/// The family of runs.
struct RunOf;

impl Family for RunOf {
    type Of<K: Bus> = Run;
}

/// The accesses on a bus since the last one to another device.
struct Run {
    /// That device's.
    index: usize,
    /// On this bus, to any device, since the tallies were made.
    accesses: Accesses,
    /// Those before the run.
    before: Accesses,
}

impl Run {
    const NONE: Self = Self {
        index: NOWHERE,
        accesses: Accesses::NONE,
        before: Accesses::NONE,
    };

    /// The accesses of the run.
    #[inline(always)]
    const fn length(&self) -> Accesses {
        self.accesses.since(self.before)
    }
}

impl Tallies {
    /// Without room.
    pub(crate) const fn new() -> Self {
        Self {
            runs: PerBus {
                mmio: Run::NONE,
                port: Run::NONE,
                sys_reg: Run::NONE,
            },
            devices: Vec::new(),
            ids: Vec::new(),
            others: Accesses::NONE,
            removed: Accesses::NONE,
        }
    }

    /// Counts an access on bus `K` to the device at `index`.
    #[inline(always)]
    pub(crate) fn count<K: Bus>(&mut self, index: usize, direction: Direction) {
        if K::of(&self.runs).index != index {
            self.begin_run::<K>(index);
        }
        K::of_mut(&mut self.runs).accesses.count(direction);
    }

    /// How many accesses on bus `K` were counted since the tallies were made.
    pub(crate) fn counted<K: Bus>(&self) -> u64 {
        K::of(&self.runs).accesses.total()
    }

    /// Has accesses to the device at `index` count as those of `id` from now on.
    pub(crate) fn attribute(&mut self, index: usize, id: DeviceId) {
        if self.ids.get(index).is_some_and(|known| *known != Some(id)) {
            self.end_runs();
            let past = core::mem::take(&mut self.devices[index]);
            self.removed = self.removed.plus(past);
            // INVARIANT (Named): nothing is counted there, nor in a run.
            self.ids[index] = Some(id);
        }
    }

    /// Makes room for some devices more than those at the first `places` indices, if there is memory.
    /// `owner` says whose an index is in the tables by which accesses are counted.
    pub(crate) fn grow(&mut self, places: usize, owner: impl Fn(usize) -> Option<DeviceId>) {
        let room = places.saturating_add(MORE);
        if room <= self.devices.len() {
            return;
        }
        let (Ok(mut devices), Ok(mut ids)) = (reserved(room), reserved(room)) else {
            return;
        };
        // For some of those that come into the room, accesses may be in a run.
        self.end_runs();
        devices.append(&mut self.devices);
        ids.append(&mut self.ids);
        // INVARIANT (Named): nothing was counted there yet, nor is it in a run.
        ids.extend((ids.len()..room).map(owner));
        devices.resize(room, Accesses::NONE);
        self.devices = devices;
        self.ids = ids;
    }

    /// The devices that were accessed, by index.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (DeviceId, Accesses)> {
        let places = self.ids.iter().enumerate();
        let counts = places.filter_map(|(index, id)| {
            let runs = self.runs_that(|run| run.index == index);
            Some(((*id)?, self.devices[index].plus(runs)))
        });
        counts.filter(|(_, accesses)| accesses.total() > 0)
    }

    /// The accesses to devices for which there was no room.
    pub(crate) fn others(&self) -> Accesses {
        let runs = self.runs_that(|run| run.index >= self.devices.len());
        self.others.plus(runs)
    }

    /// The accesses to devices whose index is another device's now.
    pub(crate) fn removed(&self) -> Accesses {
        self.removed
    }

    /// Counts from zero again, but for [`counted`](Self::counted).
    pub(crate) fn clear(&mut self) {
        self.end_runs();
        self.devices.fill(Accesses::NONE);
        self.others = Accesses::NONE;
        self.removed = Accesses::NONE;
    }

    /// Adds the accesses of a run to those of its device, and begins one of accesses to the device at
    /// `index`.
    #[cold]
    #[inline(never)]
    fn begin_run<K: Bus>(&mut self, index: usize) {
        let run = K::of_mut(&mut self.runs);
        let device = self.devices.get_mut(run.index).unwrap_or(&mut self.others);
        device.add(run.length());
        run.before = run.accesses;
        run.index = index;
    }

    fn end_runs(&mut self) {
        self.begin_run::<Mmio>(NOWHERE);
        self.begin_run::<Port>(NOWHERE);
        self.begin_run::<SysReg>(NOWHERE);
    }

    /// The accesses of the runs for which this holds.
    fn runs_that(&self, holds: impl Fn(&Run) -> bool) -> Accesses {
        let PerBus {
            mmio,
            port,
            sys_reg,
        } = &self.runs;
        let runs = [mmio, port, sys_reg].into_iter().filter(|run| holds(run));
        runs.fold(Accesses::NONE, |sum, run| sum.plus(run.length()))
    }
}
