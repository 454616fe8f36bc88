//! `snapshot()`: one view of all three tables, by address, a copy.

use std::sync::Arc;

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{Port, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDeviceConfig, AxVmDevices, Batch, Unbound};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType::Console};
use support::{Bus, Recorder, registry};

#[test]
fn displays_a_memory_map() {
    let devices = registry();
    assert_eq!(devices.snapshot().to_string(), "");
    let com1 = devices
        .add_port_dev(Recorder::silent(0, 0x3f8, 0x3ff))
        .unwrap();
    let ram = devices
        .add_mmio_dev(Recorder::silent(0, 0x1000, usize::MAX - 1))
        .unwrap();
    let low = devices.add_mmio_dev(Recorder::silent(0, 0, 0xfff)).unwrap();
    let reg = devices.add_sys_reg_dev(Recorder::silent(0, 5, 5)).unwrap();
    let map = format!(
        "mmio     0x0..=0xfff {low}\n\
         mmio     0x1000..=0xfffffffffffffffe {ram}\n\
         sys_reg  0x5..=0x5 {reg}\n\
         port     0x3f8..=0x3ff {com1}\n"
    );
    assert_eq!(devices.snapshot().to_string(), map);
    assert!(format!("{:?}", devices.snapshot()).contains(&map));
}

#[test]
fn a_snapshot_names_only_devices_that_the_configuration_names() {
    let com1 = EmulatedDeviceConfig {
        name: "com1".into(),
        emu_type: Console,
        ..Default::default()
    };
    fn console(_: &EmulatedDeviceConfig, batch: &mut Batch<'_, Unbound>) -> AxResult {
        batch.add_port_dev(Recorder::silent(0, 0x3f8, 0x3ff))?;
        batch.add_mmio_dev(Recorder::silent(0, 0x1000, 0x1fff))?;
        Ok(())
    }
    let devices = AxVmDevices::builder()
        .config(AxVmDeviceConfig::new(vec![com1]))
        .factory(Console, console)
        .build()
        .unwrap();
    devices.add_port_dev(Recorder::silent(0, 0, 0)).unwrap();
    let map = devices.snapshot().to_string();
    let names: Vec<_> = map.lines().map(|line| line.ends_with(" com1")).collect();
    assert_eq!(names, [true, false, true], "{map}");
}

fn lists_ids_ranges_and_devices_by_address<R: Bus>() {
    let devices = registry();
    let mut expected: Vec<_> = [(0x40, 0x4f), (0, 0), (R::HIGHEST, R::HIGHEST), (0x50, 0x50)]
        .map(|(first, last)| {
            let device = Recorder::<R>::silent(0, first, last);
            let id = R::add(&devices, device.clone()).unwrap();
            (first, id, R::covering(first, last), device)
        })
        .into();
    expected.sort_by_key(|&(first, ..)| first);
    let listed = R::listed(&devices.snapshot());
    assert_eq!(listed.len(), expected.len());
    for ((id, range, device), (_, wanted, covering, recorder)) in listed.into_iter().zip(expected) {
        assert_eq!((id, range), (wanted, covering));
        assert!(Arc::ptr_eq(&device, &(recorder as _)));
    }
}

fn is_a_copy<R: Bus>() {
    let devices = registry();
    let device = Recorder::<R>::silent(0, 0x10, 0x1f);
    let id = R::add(&devices, device.clone()).unwrap();
    let old = devices.snapshot();
    let map = old.to_string();
    R::add(&devices, Recorder::silent(1, 0x20, 0x2f)).unwrap();
    assert_eq!(old.to_string(), map);
    assert_eq!(R::listed(&old).len(), 1);
    assert_eq!(R::listed(&devices.snapshot()).len(), 2);
    // It outlives the registry, and so do its devices.
    drop(devices);
    assert_eq!(R::listed(&old)[0].0, id);
    assert_eq!(Arc::strong_count(&device), 2);
    drop(old);
    assert_eq!(Arc::strong_count(&device), 1);
}

on_every_bus!(lists_ids_ranges_and_devices_by_address, is_a_copy);

#[test]
fn keeps_the_buses_apart() {
    let devices = registry();
    devices.add_port_dev(Recorder::silent(0, 1, 2)).unwrap();
    let snapshot = devices.snapshot();
    assert_eq!(PortRange::listed(&snapshot).len(), 1);
    assert_eq!(GuestPhysAddrRange::listed(&snapshot).len(), 0);
    assert_eq!(SysRegAddrRange::listed(&snapshot).len(), 0);
    let (_, range, _) = snapshot.port().next().unwrap();
    assert_eq!((range.start, range.end), (Port(1), Port(2)));
}
