//! [`Tallies`]: counts of a vCPU's accesses to each device, in its own memory.

use alloc::vec::Vec;
use core::{hint, mem};

use crate::{
    accesses::Accesses,
    bus::{Bus, Family, Mmio, PerBus, Port, SysReg},
    device::DeviceId,
    direction::Direction,
    past::Past,
    reserve::reserved,
};

/// The number of further devices for which there is room.
const MORE: usize = 8;

/// One in this number of accesses to devices that are not hot makes its device the hot one. A power of two. It is
/// large, so that a device that is not hot, and causes mispredicted branches, rarely becomes the hot one.
const ROUND: u64 = 64;

/// The step of [`Hot::round`] for an access, so that it overflows once in [`ROUND`] accesses.
const STEP: u8 = (256 / ROUND) as u8;

/// An index that no device has, and a place at which there is no count.
const NOWHERE: usize = usize::MAX;

/// The place of the count of a device's accesses in one direction.
#[inline(always)]
const fn place(index: usize, direction: Direction) -> usize {
    match direction {
        Direction::Read => 2 * index,
        Direction::Write => 2 * index + 1,
    }
}

/// One access, to the device and in the direction of this place.
fn one_at(place: usize) -> Accesses {
    let (reads, writes) = if place.is_multiple_of(2) {
        (1, 0)
    } else {
        (0, 1)
    };
    Accesses { reads, writes }
}

/// Counts of the accesses to each device, by its [index](crate::Hit::index).
///
/// Counting allocates nothing. Devices beyond the room are counted together, until [`grow`](Self::grow) makes more
/// room.
///
/// Most accesses of a guest are to few devices at a time. So each bus has a [`Hot`] device, whose accesses are counted
/// without looking up the place of the device's own count.
///
/// # Invariants
///
/// *Named*: the counts at an index within the room, and those of a hot device with that index, are those of the device
/// whose id is at that index. The caller calls [`attribute`](Self::attribute) for new tables before it counts the first
/// access through them.
pub(crate) struct Tallies {
    hot: PerBus<HotOf>,
    /// The counts by [`place`], two for each device that there is room for.
    counts: Vec<u64>,
    /// The devices' ids, by index.
    ids: Vec<Option<DeviceId>>,
    /// The place of the last access that was not to a hot device. It is added to `counts` by the next such access: by
    /// then a processor knows the address of the count, and no later load has to wait for it.
    latest: usize,
    /// Accesses to devices for which there was no room.
    others: Accesses,
    /// Accesses to devices whose index another device has now.
    past: Past,
}

/// The family of hot devices.
struct HotOf;

impl Family for HotOf {
    type Of<K: Bus> = Hot;
}

/// A device that is often accessed on a bus, according to a sample of the accesses.
struct Hot {
    /// The device's index.
    index: usize,
    /// Accesses to the hot devices of this bus since the tallies were made.
    accesses: Accesses,
    /// The part of `accesses` that is counted at the devices' indices.
    settled: Accesses,
    /// The number of rounds that have begun, of [`ROUND`] accesses on this bus to other devices.
    rounds: u64,
    /// The progress of the round, in units of [`STEP`]. The first access of a round makes it zero.
    round: u8,
}

impl Hot {
    const NONE: Self = Self {
        index: NOWHERE,
        accesses: Accesses::NONE,
        settled: Accesses::NONE,
        rounds: 0,
        round: STEP.wrapping_neg(),
    };

    /// The accesses to the device that are not yet counted at its index.
    #[inline(always)]
    const fn unsettled(&self) -> Accesses {
        self.accesses.since(self.settled)
    }
}

impl Tallies {
    /// Without room.
    pub(crate) const fn new() -> Self {
        Self {
            hot: PerBus {
                mmio: Hot::NONE,
                port: Hot::NONE,
                sys_reg: Hot::NONE,
            },
            counts: Vec::new(),
            ids: Vec::new(),
            latest: NOWHERE,
            others: Accesses::NONE,
            past: Past::new(),
        }
    }

    /// Counts an access on bus `K` to the hot device.
    #[inline(always)]
    pub(crate) fn count_hot<K: Bus>(&mut self, direction: Direction) {
        K::of_mut(&mut self.hot).accesses.count(direction);
    }

    /// Counts an access on bus `K` to the device at `index`, whether it is the hot one or not. Returns whether it
    /// becomes the hot one.
    #[inline(always)]
    pub(crate) fn count<K: Bus>(&mut self, index: usize, direction: Direction) -> bool {
        self.count_latest();
        self.latest = place(index, direction);
        let hot = K::of_mut(&mut self.hot);
        let (round, begins) = hot.round.overflowing_add(STEP);
        hot.round = round;
        if begins {
            hint::cold_path();
            hot.rounds += 1;
            self.make_hot::<K>(index);
        }
        begins
    }

    #[inline(always)]
    fn count_latest(&mut self) {
        let latest = mem::replace(&mut self.latest, NOWHERE);
        if let Some(count) = self.counts.get_mut(latest) {
            // A counter that grows by one does not overflow in practice.
            *count = count.wrapping_add(1);
        } else if latest != NOWHERE {
            hint::cold_path();
            self.others.add(one_at(latest));
        }
    }

    /// The number of accesses on bus `K` that were [counted as the hot device's](Self::count_hot) since the tallies were made.
    pub(crate) fn counted_hot<K: Bus>(&self) -> u64 {
        K::of(&self.hot).accesses.total()
    }

    /// The number of other accesses that were [counted](Self::count) on bus `K` since the tallies were made.
    pub(crate) fn counted_others<K: Bus>(&self) -> u64 {
        let hot = K::of(&self.hot);
        match hot.rounds.checked_sub(1) {
            Some(whole) => whole * ROUND + u64::from(hot.round / STEP) + 1,
            None => 0,
        }
    }

    /// Counts accesses to the device at `index` as those of `id` from now on.
    pub(crate) fn attribute(&mut self, index: usize, id: DeviceId) {
        let Some(known) = self.ids.get(index).filter(|known| **known != Some(id)) else {
            return;
        };
        let known = *known;
        self.settle();
        // INVARIANT (Named): later accesses counted there are those of `id`, and all earlier ones are settled.
        self.ids[index] = Some(id);
        let others = self.at(index);
        let own = self.past.recall(id);
        self.set(index, own);
        if let Some(known) = known.filter(|_| others.total() > 0) {
            self.keep(known, others);
        }
    }

    /// Keeps the accesses to a device that has lost its index.
    fn keep(&mut self, id: DeviceId, accesses: Accesses) {
        // A front end that withdraws and restores devices may have changed its index.
        match self.ids.iter().position(|of| *of == Some(id)) {
            Some(index) => self.set(index, self.at(index).plus(accesses)),
            None => self.past.remember(id, accesses),
        }
    }

    /// Makes room for some devices more than those at the first `places` indices, if there is memory.
    /// `owner` returns the id at an index in the tables by which accesses are counted.
    pub(crate) fn grow(&mut self, places: usize, owner: impl Fn(usize) -> Option<DeviceId>) {
        self.past.grow();
        let room = places.saturating_add(MORE);
        if room <= self.ids.len() {
            return;
        }
        let (Ok(mut counts), Ok(mut ids)) = (reserved(2 * room), reserved(room)) else {
            return;
        };
        // A device that gets room may be hot.
        self.settle();
        counts.append(&mut self.counts);
        ids.append(&mut self.ids);
        // INVARIANT (Named): nothing was counted there yet, and all is settled.
        ids.extend((ids.len()..room).map(owner));
        counts.resize(2 * room, 0);
        self.counts = counts;
        self.ids = ids;
    }

    /// The devices that were accessed. A device may occur twice.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (DeviceId, Accesses)> {
        let places = self.ids.iter().enumerate();
        let counts = places.filter_map(|(index, id)| {
            let unsettled = self.unsettled_at(|hot| hot == index);
            Some(((*id)?, self.at(index).plus(unsettled)))
        });
        let counts = counts.filter(|(_, accesses)| accesses.total() > 0);
        counts.chain(self.past.devices())
    }

    /// The accesses to devices for which there was no room.
    pub(crate) fn others(&self) -> Accesses {
        let unsettled = self.unsettled_at(|hot| hot >= self.ids.len());
        self.others.plus(unsettled)
    }

    /// The accesses to devices whose index another device has now, except those that are listed by device.
    pub(crate) fn removed(&self) -> Accesses {
        self.past.rest()
    }

    /// Resets all counts, except those of [`counted_hot`](Self::counted_hot) and
    /// [`counted_others`](Self::counted_others).
    pub(crate) fn clear(&mut self) {
        self.settle();
        self.counts.fill(0);
        self.others = Accesses::NONE;
        self.past.clear();
    }

    /// Makes the device at `index` the hot one of bus `K`.
    #[cold]
    #[inline(never)]
    fn make_hot<K: Bus>(&mut self, index: usize) {
        self.settle_on::<K>();
        K::of_mut(&mut self.hot).index = index;
    }

    /// Adds all accesses to the counts at the devices' indices.
    fn settle(&mut self) {
        self.count_latest();
        self.settle_on::<Mmio>();
        self.settle_on::<Port>();
        self.settle_on::<SysReg>();
    }

    fn settle_on<K: Bus>(&mut self) {
        let hot = K::of_mut(&mut self.hot);
        let (index, accesses) = (hot.index, hot.unsettled());
        hot.settled = hot.accesses;
        if index < self.ids.len() {
            self.set(index, self.at(index).plus(accesses));
        } else {
            self.others.add(accesses);
        }
    }

    /// The counts of the device at `index`, which is in the room.
    fn at(&self, index: usize) -> Accesses {
        Accesses {
            reads: self.counts[place(index, Direction::Read)],
            writes: self.counts[place(index, Direction::Write)],
        }
    }

    fn set(&mut self, index: usize, accesses: Accesses) {
        self.counts[place(index, Direction::Read)] = accesses.reads;
        self.counts[place(index, Direction::Write)] = accesses.writes;
    }

    /// The accesses that are not yet counted at their index, for the indices with `is_such`.
    fn unsettled_at(&self, is_such: impl Fn(usize) -> bool) -> Accesses {
        let PerBus {
            mmio,
            port,
            sys_reg,
        } = &self.hot;
        let hot = [mmio, port, sys_reg].into_iter();
        let such = hot.filter(|hot| is_such(hot.index));
        let hot = such.fold(Accesses::NONE, |sum, hot| sum.plus(hot.unsettled()));
        match self.latest {
            latest if latest != NOWHERE && is_such(latest / 2) => hot.plus(one_at(latest)),
            _ => hot,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::device::DeviceIds;

    const READ: Direction = Direction::Read;
    const WRITE: Direction = Direction::Write;

    fn accesses(reads: u64, writes: u64) -> Accesses {
        Accesses { reads, writes }
    }

    /// Counts an access as a handle does, whose hint is the hot device.
    fn tally<K: Bus>(tallies: &mut Tallies, index: usize, direction: Direction) {
        if K::of(&tallies.hot).index == index {
            tallies.count_hot::<K>(direction);
        } else {
            tallies.count::<K>(index, direction);
        }
    }

    fn counted<K: Bus>(tallies: &Tallies) -> u64 {
        tallies.counted_hot::<K>() + tallies.counted_others::<K>()
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
        // No device is hot yet.
        for (index, direction) in [(0, READ), (1, READ), (1, WRITE), (0, READ), (1, READ)] {
            tally::<Mmio>(&mut tallies, index, direction);
        }
        assert_eq!(
            devices(&tallies),
            [(a, accesses(2, 0)), (b, accesses(2, 1))]
        );
        tally::<Port>(&mut tallies, 0, WRITE);
        tally::<SysReg>(&mut tallies, 0, WRITE);
        tally::<Mmio>(&mut tallies, 0, WRITE);
        assert_eq!(
            devices(&tallies),
            [(a, accesses(2, 3)), (b, accesses(2, 1))]
        );
        let counted = [
            counted::<Mmio>(&tallies),
            counted::<Port>(&tallies),
            counted::<SysReg>(&tallies),
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
                tally::<Port>(&mut tallies, index, READ);
            }
        }
        let within = [
            (ids[9], accesses(1, 0)),
            (ids[10 + MORE - 1], accesses(2, 0)),
        ];
        assert_eq!(devices(&tallies), within);
        // Also those of the hot device.
        assert_eq!(tallies.others(), accesses(7, 0));
        tallies.grow(200, |index| ids.get(index).copied());
        assert_eq!(devices(&tallies), within, "what was counted stays");
        assert_eq!(tallies.others(), accesses(7, 0));
        // The device is not attributed again: the tables are the same.
        tally::<Port>(&mut tallies, 199, WRITE);
        assert_eq!(devices(&tallies)[2..], [(ids[199], accesses(0, 1))]);
        assert_eq!(tallies.others(), accesses(7, 0));
        assert_eq!(counted::<Port>(&tallies), 11);
    }

    #[test]
    fn there_is_always_room_for_some_more_than_there_were() {
        let mut tallies = tallies(0, &[]);
        for places in [0, 1, 32, 33, 1_000, 5] {
            tallies.grow(places, |_| None);
            assert!(tallies.ids.len() >= places + MORE);
            assert_eq!(tallies.counts.len(), 2 * tallies.ids.len());
        }
        assert_eq!(tallies.ids.len(), 1_000 + MORE, "and no more");
        assert_eq!(tallies.counts.capacity(), 2 * (1_000 + MORE));
    }

    #[test]
    fn an_index_that_is_used_again_counts_for_the_new_device() {
        let [a, b, c] = ids();
        let mut tallies = tallies(2, &[a, b]);
        tally::<Mmio>(&mut tallies, 0, READ);
        tally::<Port>(&mut tallies, 0, WRITE);
        tally::<Mmio>(&mut tallies, 1, READ);
        // The counts on the ports were the old device's, too.
        tallies.attribute(0, c);
        let past = (a, accesses(1, 1));
        assert_eq!(devices(&tallies), [(b, accesses(1, 0)), past]);
        tally::<Port>(&mut tallies, 0, WRITE);
        tallies.attribute(0, c);
        tallies.attribute(1, b);
        let now = [(c, accesses(0, 1)), (b, accesses(1, 0)), past];
        assert_eq!(devices(&tallies), now);
        // A device of another registry, with the same number.
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
            (0..count).for_each(|_| tally::<Port>(&mut tallies, index, READ));
        }
        // All move down by one, and the first is gone.
        tallies.attribute(0, b);
        tally::<Port>(&mut tallies, 0, WRITE);
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
        // And the first one comes back, at the index that the last one had. In practice none does.
        tallies.attribute(2, a);
        assert_eq!(devices(&tallies), now);
        tally::<Port>(&mut tallies, 2, READ);
        assert_eq!(devices(&tallies)[2], (a, accesses(2, 0)));
    }

    #[test]
    fn of_many_that_are_gone_some_are_counted_together() {
        let ids = ids::<200>();
        let mut tallies = tallies(1, &ids);
        for id in ids {
            tallies.attribute(0, id);
            tally::<Port>(&mut tallies, 0, READ);
        }
        let listed = devices(&tallies).len() as u64;
        assert!((16..200).contains(&listed), "{listed}");
        assert_eq!(tallies.removed(), accesses(200 - listed, 0));
    }

    /// Devices get hot and lose their places, and room is made, in every order.
    #[test]
    fn hot_devices_are_counted_as_others_are() {
        let ids = DeviceIds::new();
        let mut random = 1_u64;
        let mut next = |below: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as usize % below as usize
        };
        let mut owners: Vec<_> = (0..2 * MORE).map(|_| ids.next()).collect();
        let mut tallies = tallies(1, &owners);
        let mut exact = BTreeMap::<DeviceId, Accesses>::new();
        let (mut others, mut made, mut was_hot) = (Accesses::NONE, 0, 0);
        let mut favourite = 0;
        for step in 0..20_000 {
            match next(400) {
                0 => favourite = next(2 * MORE as u64),
                // Not more often than past devices are remembered.
                1 if step % 8 == 0 => {
                    let index = next(4);
                    owners[index] = ids.next();
                    tallies.attribute(index, owners[index]);
                }
                2 if step > 10_000 => {
                    tallies.grow(2 * MORE, |index| owners.get(index).copied());
                }
                n => {
                    let index = if n % 4 == 0 { next(6) } else { favourite };
                    let direction = if n % 3 == 0 { WRITE } else { READ };
                    let is_known = index < tallies.ids.len();
                    was_hot += usize::from(tallies.hot.port.index == index);
                    tally::<Port>(&mut tallies, index, direction);
                    made += 1;
                    let counted = match is_known {
                        true => exact.entry(owners[index]).or_default(),
                        false => &mut others,
                    };
                    counted.count(direction);
                }
            }
        }
        assert!(was_hot > 5_000 && others.total() > 0);
        let mut listed = devices(&tallies);
        listed.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(listed, exact.into_iter().collect::<Vec<_>>());
        assert_eq!(
            (tallies.others(), tallies.removed()),
            (others, Accesses::NONE)
        );
        assert_eq!(counted::<Port>(&tallies), made);
        tallies.settle();
        let mut settled = devices(&tallies);
        settled.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(settled, listed);
    }

    #[test]
    fn cleared_tallies_count_from_zero() {
        let [a, b] = ids();
        let mut tallies = tallies(1, &[a]);
        tally::<Mmio>(&mut tallies, 0, READ);
        tally::<Mmio>(&mut tallies, MORE + 1, READ);
        tallies.attribute(0, b);
        tally::<Mmio>(&mut tallies, 0, READ);
        tallies.clear();
        assert!(devices(&tallies).is_empty());
        assert_eq!(
            (tallies.others(), tallies.removed()),
            (Accesses::NONE, Accesses::NONE)
        );
        assert_eq!(counted::<Mmio>(&tallies), 3);
        tally::<Mmio>(&mut tallies, 0, WRITE);
        assert_eq!(devices(&tallies), [(b, accesses(0, 1))]);
    }
}
