//! The counts of handles: accesses by device and by missed address, on every bus, for every kind of access, and as a
//! table with names.

use std::collections::BTreeMap;

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice::{
    Accesses, AxVmDeviceConfig, AxVmDevices, Batch, BusId, DeviceId, Dispatcher, Profile, Span,
    Unbound, Unmapped,
};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType::Console};
use support::{Bus, Recorder, WIDTHS, registry, shared_registry};

const BYTE: AccessWidth = AccessWidth::Byte;
const DWORD: AccessWidth = AccessWidth::Dword;

on_every_bus!(
    counts_by_device_and_direction,
    counts_misses_and_crossings,
    counts_every_access_of_an_exit,
    hot_plug_mixes_no_counts,
    devices_that_iter_mut_gives_back_keep_their_counts,
    a_panic_of_a_miss_is_counted
);

/// The devices: id, reads, writes.
fn listed(profile: &Profile) -> Vec<(DeviceId, u64, u64)> {
    let devices = profile.devices.iter();
    let listed = devices.map(|of| (of.id, of.accesses.reads, of.accesses.writes));
    listed.collect()
}

/// The missed addresses: address, count. There are few, so all are exact.
fn missed<R: Bus>(profile: &Profile) -> Vec<(u64, u64)> {
    let missed = profile.missed(R::BUS);
    assert_eq!(missed.unlisted, 0);
    let listed: Vec<_> = (missed.addresses.iter())
        .inspect(|of| assert_eq!(of.error, 0))
        .map(|of| (of.address, of.count))
        .collect();
    let total = listed.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!(missed.total, total);
    listed
}

fn add<R: Bus>(devices: &AxVmDevices, number: usize, first: usize) -> DeviceId {
    let device = Recorder::<R>::silent(number, first, first + 7);
    R::add(devices, device).unwrap()
}

fn counts_by_device_and_direction<R: Bus>() {
    let devices = registry();
    let (a, b) = (add::<R>(&devices, 0, 0), add::<R>(&devices, 1, 8));
    let mut vcpu = devices.dispatcher();
    for width in WIDTHS {
        assert!(R::vcpu_read(&mut vcpu, 8, width).is_ok());
        assert!(R::vcpu_write(&mut vcpu, 8, width, 1).is_ok());
        assert!(R::vcpu_write(&mut vcpu, 0, width, 1).is_ok());
    }
    assert!(R::vcpu_read(&mut vcpu, 15, BYTE).is_ok());
    let profile = vcpu.profile();
    assert_eq!(listed(&profile), [(b, 5, 4), (a, 0, 4)]);
    assert!(missed::<R>(&profile).is_empty());
    // Accesses through `&self` are not counted.
    assert!(R::read(&devices, 0, BYTE).is_ok());
    assert_eq!(vcpu.profile(), profile);
}

fn counts_misses_and_crossings<R: Bus>() {
    let devices = registry();
    let id = add::<R>(&devices, 0, 0);
    let mut vcpu = devices.dispatcher();
    for _ in 0..3 {
        assert!(R::vcpu_read(&mut vcpu, 8, BYTE).is_err());
    }
    assert!(R::vcpu_write(&mut vcpu, 9, BYTE, 1).is_err());
    let crosses = R::vcpu_write(&mut vcpu, 7, DWORD, 1).is_err();
    assert_eq!(crosses, R::WIDE);
    let profile = vcpu.profile();
    if R::WIDE {
        assert_eq!(missed::<R>(&profile), [(8, 3), (9, 1), (7, 1)]);
        assert!(profile.devices.is_empty());
    } else {
        assert_eq!(missed::<R>(&profile), [(8, 3), (9, 1)]);
        assert_eq!(listed(&profile), [(id, 0, 1)]);
    }
    for bus in [BusId::Mmio, BusId::Port, BusId::SysReg] {
        assert_eq!(profile.missed(bus).total > 0, bus == R::BUS);
    }
}

/// String I/O, and accesses that are split.
fn counts_every_access_of_an_exit<R: Bus>() {
    let devices = AxVmDevices::default().with_unmapped(Unmapped::Float);
    let id = add::<R>(&devices, 0, 0);
    let mut vcpu = devices.dispatcher();
    let mut count = |access: &mut dyn FnMut(&mut Dispatcher<&AxVmDevices>) -> AxResult| {
        access(&mut vcpu).unwrap();
        let profile = vcpu.take_profile();
        assert!(missed::<R>(&profile).is_empty());
        listed(&profile)
    };
    let items = &mut [0; 12];
    let (at, width) = (R::at(0), DWORD);
    let (reads, writes) = (|n| [(id, n, 0)], |n| [(id, 0, n)]);
    assert_eq!(
        count(&mut |vcpu| vcpu.read_repeated(at, width, items)),
        reads(3)
    );
    assert_eq!(
        count(&mut |vcpu| vcpu.write_repeated(at, width, items)),
        writes(3)
    );
    assert_eq!(
        count(&mut |vcpu| vcpu.read_bytes(at, &mut items[..4])),
        reads(1)
    );
    assert_eq!(
        count(&mut |vcpu| vcpu.write_bytes(at, &items[..4])),
        writes(1)
    );
    assert_eq!(
        count(&mut |vcpu| vcpu.read_repeated(at, width, &mut [])),
        []
    );
    if R::WIDE {
        // Three bytes at an even address: a word, then a byte.
        assert_eq!(
            count(&mut |vcpu| vcpu.read_bytes(at, &mut items[..3])),
            reads(2)
        );
        assert_eq!(
            count(&mut |vcpu| vcpu.write_bytes(at, &items[..3])),
            writes(2)
        );
    }
    vcpu.read_repeated(R::at(0x10), BYTE, items).unwrap();
    assert_eq!(missed::<R>(&vcpu.profile()), [(0x10, 12)]);
}

/// Hot-add, removal, and an index that is used again, by two handles, one of which parks.
fn hot_plug_mixes_no_counts<R: Bus>() {
    let devices = registry();
    let mut vcpus = [devices.dispatcher(), devices.dispatcher()];
    let mut exact = BTreeMap::<DeviceId, u64>::new();
    let mut there = Vec::new();
    // No more removed devices than a handle remembers.
    for n in 0..20 {
        let first = n % 5 * 8;
        if n >= 5 {
            drop(devices.remove(there.remove(0)).unwrap());
        }
        let id = add::<R>(&devices, n, first);
        there.push(id);
        for (i, vcpu) in vcpus.iter_mut().enumerate() {
            for _ in 0..=n % 3 + i {
                assert!(R::vcpu_read(vcpu, first, BYTE).is_ok());
                *exact.entry(id).or_default() += 1;
            }
            if n % 4 == i {
                vcpu.refresh();
            }
        }
        if n % 7 == 0 {
            vcpus[1].park();
        }
    }
    let mut profile = Profile::default();
    vcpus.iter().for_each(|vcpu| profile.merge(&vcpu.profile()));
    let counted: BTreeMap<_, _> = (profile.devices.iter())
        .map(|of| (of.id, of.accesses.reads))
        .collect();
    assert_eq!(counted, exact);
    let by_total = |of: &(DeviceId, u64, u64)| (u64::MAX - of.1, of.0);
    assert!(listed(&profile).is_sorted_by_key(by_total));
    assert_eq!((profile.removed, profile.others), Default::default());
}

/// They come back with their ids, but at other positions: profiles from before and after can be merged.
fn devices_that_iter_mut_gives_back_keep_their_counts<R: Bus>() {
    let mut devices = registry();
    let ids = [0, 1, 2, 3].map(|n| add::<R>(&devices, n, n * 8));
    let mut profile = Profile::default();
    let mut count = |devices: &AxVmDevices, at| {
        let mut vcpu = devices.dispatcher();
        assert!(R::vcpu_read(&mut vcpu, at, BYTE).is_ok());
        profile.merge(&vcpu.profile());
    };
    count(&devices, 8);
    count(&devices, 24);
    drop(devices.remove(ids[0]).unwrap());
    drop(R::all_mut(&mut devices));
    count(&devices, 24);
    count(&devices, 8);
    count(&devices, 24);
    assert_eq!(listed(&profile), [(ids[3], 3, 0), (ids[1], 2, 0)]);
}

fn a_panic_of_a_miss_is_counted<R: Bus>() {
    let devices = AxVmDevices::default().with_unmapped(Unmapped::Panic);
    let mut vcpu = devices.dispatcher();
    let read = std::panic::AssertUnwindSafe(|| R::vcpu_read(&mut vcpu, 3, BYTE));
    assert!(std::panic::catch_unwind(read).is_err());
    assert_eq!(missed::<R>(&vcpu.profile()), [(3, 1)]);
}

#[test]
fn profiles_of_all_vcpus_are_one_table_with_names() {
    fn console(_: &EmulatedDeviceConfig, batch: &mut Batch<'_, Unbound>) -> AxResult {
        batch.add_port_dev(Recorder::silent(0, 0x3f8, 0x3ff))?;
        Ok(())
    }
    let com1 = EmulatedDeviceConfig {
        name: "com1".into(),
        emu_type: Console,
        ..Default::default()
    };
    let devices = AxVmDevices::builder()
        .config(AxVmDeviceConfig::new(vec![com1]))
        .factory(Console, console)
        .unmapped(Unmapped::Float)
        .build()
        .unwrap();
    let com1 = devices.snapshot().port().next().unwrap().0;
    let disk = (devices.add_mmio_dev(Recorder::silent(1, 0x1000, 0x1fff))).unwrap();
    let range = GuestPhysAddrRange::from_start_size(0x4000.into(), 0x10);
    devices.map(disk, range).unwrap();
    let gone = (devices.add_port_dev(Recorder::silent(2, 0, 7))).unwrap();
    let idle = (devices.add_port_dev(Recorder::silent(3, 8, 9))).unwrap();

    let mut vcpus = [devices.dispatcher(), devices.dispatcher()];
    for vcpu in &mut vcpus {
        for _ in 0..150 {
            vcpu.handle_mmio_read(0x1000.into(), DWORD).unwrap();
        }
        vcpu.write_repeated(Port(0x3f8), BYTE, b"hello").unwrap();
        vcpu.handle_port_read(Port(3), BYTE).unwrap();
        vcpu.handle_mmio_read(0xfee0_0000.into(), DWORD).unwrap();
    }
    vcpus[0].handle_port_write(Port(0x80), BYTE, 1).unwrap();
    drop(devices.remove(gone).unwrap());

    let mut profile = Profile::default();
    vcpus.iter().for_each(|vcpu| profile.merge(&vcpu.profile()));
    let table = devices.profile_table(&profile);
    let text = format!(
        "device   reads  writes   share\n\
         {disk}         300       0   95.2%  mmio 0x1000..=0x1fff, mmio 0x4000..=0x400f\n\
         {com1}           0      10    3.2%  com1 port 0x3f8..=0x3ff\n\
         {gone}           2       0    0.6%  (removed)\n\
         missed                    1.0%\n\
         \n\
         missed   at least   at most  address\n\
         mmio            2         2  0xfee00000\n\
         port            1         1  0x80\n"
    );
    assert_eq!(table.to_string(), text);
    assert_eq!(table.profile(), &profile);

    let rows: Vec<_> = table.rows().collect();
    assert_eq!(
        rows.iter().map(|row| row.id).collect::<Vec<_>>(),
        [disk, com1, gone]
    );
    assert!(rows.iter().all(|row| row.id != idle));
    assert_eq!(rows[1].name.as_deref(), Some("com1"));
    let range = (BusId::Port, Span::new(0x3f8, 0x3ff).unwrap());
    assert_eq!(rows[1].ranges, [range]);
    let (reads, writes) = (0, 10);
    assert_eq!(rows[1].accesses, Accesses { reads, writes });
    assert_eq!(
        (rows[0].name.as_deref(), rows[0].is_registered),
        (None, true)
    );
    assert_eq!((rows[2].is_registered, rows[2].ranges.len()), (false, 0));
}

/// A program reads the counts while the vCPUs are on their threads.
#[test]
fn a_vcpus_thread_hands_its_profile_over() {
    let devices = shared_registry();
    let id = devices
        .add_mmio_dev(Recorder::<GuestPhysAddrRange>::silent(0, 0, 7))
        .unwrap();
    let mut profile = Profile::default();
    std::thread::scope(|scope| {
        let vcpus = [1, 2, 3].map(|accesses| {
            let mut vcpu = devices.dispatcher();
            scope.spawn(move || {
                for _ in 0..accesses {
                    assert!(vcpu.handle_mmio_read(GuestPhysAddr::from(0), BYTE).is_ok());
                }
                vcpu.take_profile()
            })
        });
        for vcpu in vcpus {
            profile.merge(&vcpu.join().unwrap());
        }
    });
    assert_eq!(listed(&profile), [(id, 6, 0)]);
    // Another registry does not contain the device.
    let others = registry();
    add::<PortRange>(&others, 0, 0);
    let table = others.profile_table(&profile);
    assert!(table.rows().all(|row| !row.is_registered));
}
