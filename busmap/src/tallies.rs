//! [`Tallies`]: how often a vCPU has accessed each device, in memory of its own.

use alloc::vec::Vec;
use core::mem;

use crate::{
    accesses::Accesses,
    bus::{Bus, Family, Mmio, PerBus, Port, SysReg},
    device::DeviceId,
    direction::Direction,
    past::Past,
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
    past: Past,
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
            past: Past::new(),
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
        let Some(known) = self.ids.get(index).filter(|known| **known != Some(id)) else {
            return;
        };
        let known = *known;
        self.end_runs();
        // INVARIANT (Named): what is counted there is of `id`, and nothing is in a run.
        self.ids[index] = Some(id);
        let own = self.past.recall(id);
        let others = mem::replace(&mut self.devices[index], own);
        if let Some(known) = known.filter(|_| others.total() > 0) {
            self.keep(known, others);
        }
    }

    /// Keeps the accesses to a device that has lost its index.
    fn keep(&mut self, id: DeviceId, accesses: Accesses) {
        // A front end that withdraws and restores devices may have given it another one.
        match self.ids.iter().position(|of| *of == Some(id)) {
            Some(index) => self.devices[index].add(accesses),
            None => self.past.remember(id, accesses),
        }
    }

    /// Makes room for some devices more than those at the first `places` indices, if there is memory.
    /// `owner` says whose an index is in the tables by which accesses are counted.
    pub(crate) fn grow(&mut self, places: usize, owner: impl Fn(usize) -> Option<DeviceId>) {
        self.past.grow();
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

    /// The devices that were accessed. One may be among them twice.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (DeviceId, Accesses)> {
        let places = self.ids.iter().enumerate();
        let counts = places.filter_map(|(index, id)| {
            let runs = self.runs_that(|run| run.index == index);
            Some(((*id)?, self.devices[index].plus(runs)))
        });
        let counts = counts.filter(|(_, accesses)| accesses.total() > 0);
        counts.chain(self.past.devices())
    }

    /// The accesses to devices for which there was no room.
    pub(crate) fn others(&self) -> Accesses {
        let runs = self.runs_that(|run| run.index >= self.devices.len());
        self.others.plus(runs)
    }

    /// The accesses to devices whose index is another device's now, but for those that are given by
    /// device.
    pub(crate) fn removed(&self) -> Accesses {
        self.past.rest()
    }

    /// Counts from zero again, but for [`counted`](Self::counted).
    pub(crate) fn clear(&mut self) {
        self.end_runs();
        self.devices.fill(Accesses::NONE);
        self.others = Accesses::NONE;
        self.past.clear();
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

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::device::DeviceIds;

    const READ: Direction = Direction::Read;
    const WRITE: Direction = Direction::Write;

    fn accesses(reads: u64, writes: u64) -> Accesses {
        Accesses { reads, writes }
    }

    /// Tallies with room for the devices at the first `places` indices, which have these ids.
    fn tallies(places: usize, ids: &[DeviceId]) -> Tallies {
        let mut tallies = Tallies::new();
        tallies.grow(places, |index| ids.get(index).copied());
        tallies
    }

    fn ids<const N: usize>() -> [DeviceId; N] {
        let ids = DeviceIds::new();
        [(); N].map(|()| ids.next())
    }

    fn devices(tallies: &Tallies) -> Vec<(DeviceId, Accesses)> {
        tallies.devices().collect()
    }

    #[test]
    fn counts_by_device_and_direction_on_all_buses_together() {
        let [a, b] = ids();
        let mut tallies = tallies(2, &[a, b]);
        assert!(devices(&tallies).is_empty());
        // In runs of one and of two.
        for (index, direction) in [(0, READ), (1, READ), (1, WRITE), (0, READ), (1, READ)] {
            tallies.count::<Mmio>(index, direction);
        }
        assert_eq!(
            devices(&tallies),
            [(a, accesses(2, 0)), (b, accesses(2, 1))]
        );
        tallies.count::<Port>(0, WRITE);
        tallies.count::<SysReg>(0, WRITE);
        tallies.count::<Mmio>(0, WRITE);
        assert_eq!(
            devices(&tallies),
            [(a, accesses(2, 3)), (b, accesses(2, 1))]
        );
        let counted = [
            tallies.counted::<Mmio>(),
            tallies.counted::<Port>(),
            tallies.counted::<SysReg>(),
        ];
        assert_eq!(counted, [6, 1, 1]);
        assert_eq!(
            (tallies.others(), tallies.removed()),
            (Accesses::NONE, Accesses::NONE)
        );
    }

    #[test]
    fn devices_beyond_the_room_are_counted_together_until_there_is_more() {
        let ids = ids::<200>();
        let mut tallies = tallies(10, &ids);
        for (count, index) in [(1, 9), (2, 10 + MORE - 1), (3, 10 + MORE), (4, 199)] {
            for _ in 0..count {
                tallies.attribute(index, ids[index]);
                tallies.count::<Port>(index, READ);
            }
        }
        let within = [
            (ids[9], accesses(1, 0)),
            (ids[10 + MORE - 1], accesses(2, 0)),
        ];
        assert_eq!(devices(&tallies), within);
        // Also those of the run.
        assert_eq!(tallies.others(), accesses(7, 0));
        tallies.grow(200, |index| ids.get(index).copied());
        assert_eq!(devices(&tallies), within, "what was counted stays");
        assert_eq!(tallies.others(), accesses(7, 0));
        // Without being attributed again: its tables are the same.
        tallies.count::<Port>(199, WRITE);
        assert_eq!(devices(&tallies)[2..], [(ids[199], accesses(0, 1))]);
        assert_eq!(tallies.others(), accesses(7, 0));
        assert_eq!(tallies.counted::<Port>(), 11);
    }

    #[test]
    fn there_is_always_room_for_some_more_than_there_were() {
        let mut tallies = tallies(0, &[]);
        for places in [0, 1, 32, 33, 1_000, 5] {
            tallies.grow(places, |_| None);
            assert!(tallies.devices.len() >= places + MORE);
            assert_eq!(tallies.devices.len(), tallies.ids.len());
        }
        assert_eq!(tallies.devices.len(), 1_000 + MORE, "and no more");
        assert_eq!(tallies.devices.capacity(), 1_000 + MORE);
    }

    #[test]
    fn an_index_that_is_used_again_counts_for_the_new_device() {
        let [a, b, c] = ids();
        let mut tallies = tallies(2, &[a, b]);
        tallies.count::<Mmio>(0, READ);
        tallies.count::<Port>(0, WRITE);
        tallies.count::<Mmio>(1, READ);
        // The run on the ports is still that of the old device.
        tallies.attribute(0, c);
        let past = (a, accesses(1, 1));
        assert_eq!(devices(&tallies), [(b, accesses(1, 0)), past]);
        tallies.count::<Port>(0, WRITE);
        tallies.attribute(0, c);
        tallies.attribute(1, b);
        let now = [(c, accesses(0, 1)), (b, accesses(1, 0)), past];
        assert_eq!(devices(&tallies), now);
        // One of another registry, with the same number.
        let [other, _] = ids();
        assert_eq!(other.number(), a.number());
        tallies.attribute(0, other);
        assert_eq!(devices(&tallies), [now[1], past, now[0]]);
        assert_eq!(tallies.removed(), Accesses::NONE);
    }

    #[test]
    fn devices_that_change_their_places_keep_their_counts() {
        let [a, b, c] = ids();
        let mut tallies = tallies(3, &[a, b, c]);
        for (count, index) in [(1, 0), (2, 1), (3, 2)] {
            (0..count).for_each(|_| tallies.count::<Port>(index, READ));
        }
        // All move down by one, and the first is gone.
        tallies.attribute(0, b);
        tallies.count::<Port>(0, WRITE);
        let mut profile = devices(&tallies);
        profile.sort_unstable_by_key(|(id, of)| (*id, of.reads));
        let twice = [(b, accesses(0, 1)), (b, accesses(2, 0))];
        assert_eq!(
            profile,
            [(a, accesses(1, 0)), twice[0], twice[1], (c, accesses(3, 0))]
        );
        tallies.attribute(1, c);
        let now = [
            (b, accesses(2, 1)),
            (c, accesses(3, 0)),
            (a, accesses(1, 0)),
        ];
        assert_eq!(devices(&tallies)[0], now[0]);
        // And it comes back, which none does, at the place that the last one had.
        tallies.attribute(2, a);
        assert_eq!(devices(&tallies), now);
        tallies.count::<Port>(2, READ);
        assert_eq!(devices(&tallies)[2], (a, accesses(2, 0)));
    }

    #[test]
    fn of_many_that_are_gone_some_are_counted_together() {
        let ids = ids::<200>();
        let mut tallies = tallies(1, &ids);
        for id in ids {
            tallies.attribute(0, id);
            tallies.count::<Port>(0, READ);
        }
        let listed = devices(&tallies).len() as u64;
        assert!((64..200).contains(&listed), "{listed}");
        assert_eq!(tallies.removed(), accesses(200 - listed, 0));
    }

    #[test]
    fn cleared_tallies_count_from_zero() {
        let [a, b] = ids();
        let mut tallies = tallies(1, &[a]);
        tallies.count::<Mmio>(0, READ);
        tallies.count::<Mmio>(MORE + 1, READ);
        tallies.attribute(0, b);
        tallies.count::<Mmio>(0, READ);
        tallies.clear();
        assert!(devices(&tallies).is_empty());
        assert_eq!(
            (tallies.others(), tallies.removed()),
            (Accesses::NONE, Accesses::NONE)
        );
        assert_eq!(tallies.counted::<Mmio>(), 3);
        tallies.count::<Mmio>(0, WRITE);
        assert_eq!(devices(&tallies), [(b, accesses(0, 1))]);
    }
}
