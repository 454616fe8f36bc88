//! Counts of handles: exact accesses by device, regardless of changes to the devices, and the missed addresses.

mod common;

use std::collections::BTreeMap;

use busmap::{
    Accesses, BusId, DeviceId, Direction, Miss, Mmio, Port, Profile, Registry, SysReg, Vcpu,
};

use self::common::{Devices, read, reads_as, rounds, span, while_changing};

const READ: Direction = Direction::Read;
const WRITE: Direction = Direction::Write;

/// The number of further devices for which a handle has room.
const ROOM: u64 = 16;

type Handle<'r> = Vcpu<&'r Devices>;

/// Makes an access to a byte at a port.
fn access(vcpu: &mut Handle<'_>, direction: Direction, port: u64) -> Result<u64, Miss> {
    vcpu.dispatch::<Port, _>(direction, port, 0, |hit| hit.handler()(0))
}

fn add(devices: &Devices, port: u64) -> DeviceId {
    devices
        .add::<Port>(reads_as(port), span(port, port))
        .unwrap()
}

/// The devices: id, reads, writes.
fn listed(profile: &Profile) -> Vec<(DeviceId, u64, u64)> {
    let devices = profile.devices.iter();
    let listed = devices.map(|of| (of.id, of.accesses.reads, of.accesses.writes));
    listed.collect()
}

fn accesses(of: Accesses) -> (u64, u64) {
    (of.reads, of.writes)
}

const NONE: (u64, u64) = (0, 0);

#[test]
fn counts_reads_and_writes_by_device_on_all_buses_together() {
    let devices = Devices::new();
    let (a, b) = (add(&devices, 1), add(&devices, 2));
    devices.map::<Mmio>(a, span(0x1000, 0x1fff)).unwrap();
    let mut vcpu = devices.vcpu();
    assert_eq!(vcpu.profile(), Profile::default());
    for (direction, port) in [(READ, 1), (READ, 1), (WRITE, 2), (READ, 2), (READ, 1)] {
        assert_eq!(access(&mut vcpu, direction, port), Ok(port));
    }
    for at in [0x1000, 0x1800, 0x1800] {
        let found = vcpu.dispatch::<Mmio, _>(WRITE, at, 7, |hit| hit.id());
        assert_eq!(found, Ok(a));
    }
    let profile = vcpu.profile();
    assert_eq!(listed(&profile), [(a, 3, 3), (b, 1, 1)]);
    assert_eq!(accesses(profile.answered()), (4, 4));
    assert_eq!(
        profile.mmio.total + profile.port.total + profile.sys_reg.total,
        0
    );
    // An access by `&self` is not counted, and the profile of the handle stays the same.
    assert_eq!(read(&devices, 1), Ok(1));
    assert_eq!(vcpu.profile(), profile);
}

#[test]
fn counts_misses_and_crossings_by_their_first_address() {
    let devices = Devices::new();
    let device = add(&devices, 7);
    let mut vcpu = devices.vcpu();
    for _ in 0..3 {
        assert_eq!(access(&mut vcpu, READ, 8), Err(Miss::Unmapped));
    }
    assert_eq!(access(&mut vcpu, READ, 7), Ok(7));
    let crosses = vcpu.dispatch::<Port, _>(WRITE, 7, 1, |_| ());
    assert_eq!(crosses, Err(Miss::Crosses(span(7, 7))));
    assert_eq!(
        vcpu.dispatch::<SysReg, _>(READ, 8, 0, |_| ()),
        Err(Miss::Unmapped)
    );
    let profile = vcpu.profile();
    let missed = |bus| {
        let addresses = profile.missed(bus).addresses.iter();
        let missed = addresses.map(|of| (of.address, of.count, of.error));
        (profile.missed(bus).total, missed.collect::<Vec<_>>())
    };
    assert_eq!(missed(BusId::Port), (4, vec![(8, 3, 0), (7, 1, 0)]));
    assert_eq!(missed(BusId::SysReg), (1, vec![(8, 1, 0)]));
    assert_eq!(missed(BusId::Mmio), (0, vec![]));
    assert_eq!(listed(&profile), [(device, 1, 0)]);
}

/// A device that gets the index of another one, whose tables the handle may still hold.
#[test]
fn a_device_at_a_removed_ones_index_has_separate_counts() {
    let devices = Devices::new();
    let index = |port| {
        devices
            .dispatch::<Port, _>(port, 0, |hit| hit.index())
            .unwrap()
    };
    let (old, other) = (add(&devices, 1), add(&devices, 2));
    let mut vcpu = devices.vcpu();
    let place = index(1);
    for _ in 0..3 {
        assert!(access(&mut vcpu, READ, 1).is_ok());
    }
    assert!(access(&mut vcpu, WRITE, 2).is_ok());
    drop(devices.remove(old).unwrap());
    vcpu.refresh();
    // The removed device is still listed by its id.
    assert_eq!(listed(&vcpu.profile()), [(old, 3, 0), (other, 0, 1)]);
    let new = add(&devices, 3);
    assert_eq!(index(3), place);
    assert_eq!(listed(&vcpu.profile()), [(old, 3, 0), (other, 0, 1)]);
    assert!(access(&mut vcpu, WRITE, 3).is_ok());
    assert_eq!(
        listed(&vcpu.profile()),
        [(old, 3, 0), (other, 0, 1), (new, 0, 1)]
    );
    // And again, without a refresh in between, from a run of accesses to the removed one, parked.
    vcpu.park();
    drop(devices.remove(new).unwrap());
    let newest = add(&devices, 1);
    assert_eq!(index(1), place);
    for _ in 0..2 {
        assert!(access(&mut vcpu, READ, 1).is_ok());
    }
    let profile = vcpu.profile();
    let all = [(old, 3, 0), (newest, 2, 0), (other, 0, 1), (new, 0, 1)];
    assert_eq!(listed(&profile), all);
    assert_eq!([profile.removed, profile.others].map(accesses), [NONE; 2]);
}

/// The number of devices that are added and removed has no limit.
#[test]
fn of_many_removed_devices_the_seldom_accessed_are_counted_together() {
    let devices = Devices::new();
    let mut vcpu = devices.vcpu();
    let mut ids = Vec::new();
    for n in 0..200 {
        let id = add(&devices, 1);
        for _ in 0..=n {
            assert!(access(&mut vcpu, READ, 1).is_ok());
        }
        drop(devices.remove(id).unwrap());
        ids.push((id, n + 1, 0));
    }
    let profile = vcpu.profile();
    let listed = listed(&profile);
    assert!((16..60).contains(&listed.len()), "{}", listed.len());
    ids.reverse();
    assert_eq!(listed, ids[..listed.len()]);
    assert_eq!(accesses(profile.answered()), (200 * 201 / 2, 0));
}

#[test]
fn hot_added_devices_are_counted_separately_while_there_is_room() {
    let devices = Devices::new();
    let first = add(&devices, 0);
    let mut vcpu = devices.vcpu();
    // There is room for all devices that fit in the same group, and for 8 more.
    let ids: BTreeMap<_, _> = (1..=4 * ROOM)
        .map(|port| (port, add(&devices, port)))
        .collect();
    for port in 0..=4 * ROOM {
        assert!(access(&mut vcpu, WRITE, port).is_ok());
    }
    let profile = vcpu.profile();
    let counted = profile.devices.len() as u64;
    assert!((9..4 * ROOM).contains(&counted), "{counted}");
    assert_eq!(profile.devices[0].id, first);
    assert_eq!(accesses(profile.others), (0, 4 * ROOM + 1 - counted));
    for refresh in [Vcpu::refresh, |vcpu: &mut Handle<'_>| {
        drop(vcpu.take_profile())
    }] {
        let before = vcpu.profile();
        refresh(&mut vcpu);
        let after = vcpu.profile();
        assert!(after == before || after == Profile::default());
        for port in 1..=4 * ROOM {
            assert!(access(&mut vcpu, READ, port).is_ok());
        }
        let profile = vcpu.profile();
        assert_eq!(profile.others, after.others);
        for (port, id) in &ids {
            let of = profile.devices.iter().find(|of| of.id == *id);
            assert_eq!(of.map(|of| of.accesses.reads), Some(1), "port {port}");
        }
        drop(vcpu.take_profile());
    }
}

/// The handle makes room, with the same tables, for devices for which it had none.
#[test]
fn a_device_counted_among_others_gets_its_own_count_once_there_is_room() {
    let devices = Devices::new();
    let mut vcpu = devices.vcpu();
    let last = 3 * ROOM;
    let ids: Vec<_> = (0..=last).map(|port| add(&devices, port)).collect();
    for _ in 0..3 {
        assert!(access(&mut vcpu, READ, last).is_ok());
    }
    assert_eq!(accesses(vcpu.profile().others), (3, 0));
    vcpu.refresh();
    assert_eq!(
        vcpu.counters::<Port>().refreshes,
        1,
        "the tables are the same"
    );
    assert!(access(&mut vcpu, WRITE, last).is_ok());
    assert_eq!(vcpu.counters::<Port>().searches, 1);
    let profile = vcpu.profile();
    assert_eq!(listed(&profile), [(ids[last as usize], 0, 1)]);
    assert_eq!(accesses(profile.others), (3, 0));
}

#[test]
fn a_profile_that_is_taken_begins_again_and_the_counters_go_on() {
    let devices = Devices::new();
    let id = add(&devices, 1);
    let mut vcpu = devices.vcpu();
    for port in [1, 1, 2, 1] {
        let _ = access(&mut vcpu, READ, port);
    }
    let taken = vcpu.take_profile();
    assert_eq!((listed(&taken), taken.port.total), (vec![(id, 3, 0)], 1));
    assert_eq!(vcpu.profile(), Profile::default());
    assert!(access(&mut vcpu, WRITE, 1).is_ok());
    assert_eq!(listed(&vcpu.profile()), [(id, 0, 1)]);
    let counters = vcpu.counters::<Port>();
    let counted = (counters.hits, counters.searches, counters.misses);
    assert_eq!(counted, (1, 3, 1));
}

/// Handles may belong to different registries; ids distinguish the registries' devices.
#[test]
fn handles_of_two_registries_are_merged_by_id() {
    let (one, two) = (Devices::new(), Devices::new());
    let ids = [add(&one, 1), add(&two, 1)];
    let mut vcpus = [one.vcpu(), two.vcpu(), one.vcpu()];
    for (n, vcpu) in vcpus.iter_mut().enumerate() {
        for _ in 0..=n {
            assert!(access(vcpu, READ, 1).is_ok());
        }
        let _ = access(vcpu, READ, 2);
    }
    let mut profile = Profile::default();
    vcpus.iter().for_each(|vcpu| profile.merge(&vcpu.profile()));
    assert_eq!(listed(&profile), [(ids[0], 4, 0), (ids[1], 2, 0)]);
    assert_eq!(
        (profile.port.total, profile.port.addresses[0].count),
        (3, 3)
    );
}

/// Several handles make random accesses while devices are added and removed. Each access is counted once, for the
/// device that answered it.
#[test]
fn every_access_is_its_devices() {
    let devices = Registry::new();
    let mut vcpus = [(); 3].map(|()| Devices::vcpu(&devices));
    let mut exact = BTreeMap::<DeviceId, (u64, u64)>::new();
    let mut missed = BTreeMap::<u64, u64>::new();
    let mut taken = Profile::default();
    let mut there = Vec::new();
    let mut state = 7_u64;
    let mut next = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    for _ in 0..rounds(20_000) {
        let vcpu = &mut vcpus[next(3) as usize];
        match next(40) {
            0 => {
                let port = next(12);
                let device = reads_as(port);
                there.extend(devices.add::<Port>(device, span(port, port)).ok());
            }
            1 if !there.is_empty() => {
                let id = there.swap_remove(next(there.len() as u64) as usize);
                drop(devices.remove(id).unwrap());
            }
            2 => vcpu.refresh(),
            3 => vcpu.park(),
            4 => taken.merge(&vcpu.take_profile()),
            _ => {
                let (port, is_read) = (next(12), next(3) > 0);
                let direction = if is_read { READ } else { WRITE };
                let found = vcpu.dispatch::<Port, _>(direction, port, 0, |hit| hit.id());
                let Ok(id) = found else {
                    *missed.entry(port).or_default() += 1;
                    continue;
                };
                let of = exact.entry(id).or_default();
                of.0 += u64::from(is_read);
                of.1 += u64::from(!is_read);
            }
        }
    }
    vcpus.iter().for_each(|vcpu| taken.merge(&vcpu.profile()));
    // More devices are removed than each handle remembers.
    let mut counted = (taken.removed.reads, taken.removed.writes);
    for of in &taken.devices {
        let (reads, writes) = exact[&of.id];
        let listed = (of.accesses.reads, of.accesses.writes);
        assert!(listed.0 <= reads && listed.1 <= writes, "{}", of.id);
        if there.contains(&of.id) {
            assert_eq!(listed, (reads, writes), "{}", of.id);
        }
        counted.0 += listed.0;
        counted.1 += listed.1;
    }
    let sum = |(r, w), (reads, writes): &(u64, u64)| (r + reads, w + writes);
    assert_eq!(counted, exact.values().fold((0, 0), sum));
    assert_eq!(accesses(taken.others), NONE);
    // There are fewer than 16 addresses, so the counts are exact.
    let counted: BTreeMap<_, _> = (taken.port.addresses.iter())
        .map(|of| (of.address, of.count))
        .collect();
    assert_eq!(counted, missed);
}

/// A handle on a different thread from the one that adds and removes devices.
#[test]
fn every_access_is_counted_while_devices_are_added_and_removed() {
    let devices = Devices::new();
    let stays = add(&devices, 0);
    let mut vcpu = devices.vcpu();
    let (mut made, mut answered) = (0, 0);
    let watch = || {
        made += 1;
        assert!(access(&mut vcpu, READ, 0).is_ok());
        answered += u64::from(access(&mut vcpu, WRITE, 1 + made % 4).is_ok());
    };
    while_changing(watch, || {
        for n in 0..rounds(4_000) {
            let id = add(&devices, 1 + n % 4);
            drop(devices.remove(id).unwrap());
        }
    });
    let profile = vcpu.profile();
    assert_eq!(accesses(profile.answered()), (made, answered));
    assert_eq!(profile.port.total, made - answered);
    let of = profile.devices.iter().find(|of| of.id == stays).unwrap();
    assert_eq!(accesses(of.accesses), (made, 0));
}
