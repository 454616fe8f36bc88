//! The behaviour of crate `axdevice` 0.4.10 on which code written for it may rely.

use std::sync::Arc;

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddr, SysRegAddrRange},
};
use axdevice::{AxVmDeviceConfig, AxVmDevices, Unmapped};
use axdevice_base::{
    BaseMmioDeviceOps, BasePortDeviceOps, BaseSysRegDeviceOps, map_device_of_type,
};
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use support::{Access, Bus, Call, Echo, Journal, Recorder, answer, device};

type MmioRecorder = Recorder<GuestPhysAddrRange>;

fn empty() -> AxVmDevices {
    AxVmDevices::new(AxVmDeviceConfig::new(vec![]))
}

/// A registry where misses panic, as in 0.4.10.
fn panicking() -> AxVmDevices {
    let devices = empty().with_unmapped(Unmapped::Panic);
    let owner = MmioRecorder::silent(0, 0x1000, 0x1fff);
    devices.add_mmio_dev(owner).unwrap();
    devices
}

#[test]
#[expect(
    unused_mut,
    unused_must_use,
    reason = "code written for 0.4.10, whose methods took `&mut self` and gave nothing"
)]
fn code_written_for_it_compiles() {
    let journal = Journal::default();
    let mock = MmioRecorder::new(3, GuestPhysAddrRange::covering(0x1000, 0x1fff), &journal);
    let mut devices = AxVmDevices::new(AxVmDeviceConfig {
        emu_configs: vec![],
    });
    devices.add_mmio_dev(mock.clone());
    let timer: Arc<dyn BaseSysRegDeviceOps> = Recorder::silent(4, 0x10, 0x1f);
    devices.add_sys_reg_dev(timer);
    let uart: Arc<dyn BasePortDeviceOps> = Recorder::silent(5, 0x3f8, 0x3ff);
    devices.add_port_dev(uart);
    let found: Option<Arc<dyn BaseMmioDeviceOps>> = devices.find_mmio_dev(0x1000.into());
    found
        .unwrap()
        .handle_write(0x1008.into(), AccessWidth::Dword, 1);
    assert_eq!(journal.take().len(), 1);
    assert_eq!(devices.iter_sys_reg_dev().count(), 1);
    assert_eq!(devices.iter_port_dev().count(), 1);
}

#[test]
fn an_mmio_device_gets_addresses_widths_and_values() {
    let (devices, journal) = (empty(), Journal::default());
    let range = GuestPhysAddrRange::covering(0x1000, 0x1fff);
    devices
        .add_mmio_dev(MmioRecorder::new(3, range, &journal))
        .unwrap();
    let (at, width) = (GuestPhysAddr::from(0x1ff8), AccessWidth::Qword);
    assert_eq!(devices.handle_mmio_read(at, width), Ok(answer(3, 0x1ff8)));
    assert_eq!(devices.handle_mmio_write(at, width, 0xdead_beef), Ok(()));
    let call = |written| Call {
        device: 3,
        at: 0x1ff8,
        width,
        written,
    };
    assert_eq!(journal.take(), [call(None), call(Some(0xdead_beef))]);
}

#[test]
fn a_port_device_gets_addresses_widths_and_values() {
    let (devices, journal) = (empty(), Journal::default());
    let range = PortRange::new(Port(0x3f8), Port(0x3ff));
    devices
        .add_port_dev(Recorder::new(3, range, &journal))
        .unwrap();
    let width = AccessWidth::Word;
    let read = answer(3, 0x3fa) & 0xffff;
    assert_eq!(devices.handle_port_read(Port(0x3fa), width), Ok(read));
    assert_eq!(
        devices.handle_port_write(Port(0x3ff), AccessWidth::Byte, 0x7f),
        Ok(())
    );
    let calls = journal.take();
    assert_eq!(
        (calls[0].at, calls[0].width, calls[0].written),
        (0x3fa, width, None)
    );
    assert_eq!((calls[1].at, calls[1].written), (0x3ff, Some(0x7f)));
}

#[test]
fn a_system_register_device_gets_addresses_widths_and_values() {
    let (devices, journal) = (empty(), Journal::default());
    let range = SysRegAddrRange::new(SysRegAddr(0x10), SysRegAddr(0x1f));
    devices
        .add_sys_reg_dev(Recorder::new(3, range, &journal))
        .unwrap();
    let width = AccessWidth::Qword;
    let read = devices.handle_sys_reg_read(SysRegAddr(0x1f), width);
    assert_eq!(read, Ok(answer(3, 0x1f)));
    assert_eq!(
        devices.handle_sys_reg_write(SysRegAddr(0x10), width, 9),
        Ok(())
    );
    let calls = journal.take();
    assert_eq!((calls[0].at, calls[0].width), (0x1f, width));
    assert_eq!((calls[1].at, calls[1].written), (0x10, Some(9)));
}

#[test]
fn an_access_returns_the_error_of_the_device() {
    let devices = empty();
    let fails = device::<PortRange>(0, 7, |Access { at, written, .. }| match written {
        Some(_) => Err(AxError::PermissionDenied),
        None if at == 0 => Err(AxError::Io),
        None => Ok(1),
    });
    devices.add_port_dev(fails).unwrap();
    let width = AccessWidth::Byte;
    assert_eq!(devices.handle_port_read(Port(0), width), Err(AxError::Io));
    assert_eq!(devices.handle_port_read(Port(1), width), Ok(1));
    let written = devices.handle_port_write(Port(1), width, 0);
    assert_eq!(written, Err(AxError::PermissionDenied));
}

#[test]
#[should_panic(expected = "emu_device not found")]
fn an_mmio_read_that_misses_panics() {
    let read = panicking().handle_mmio_read(0x2000.into(), AccessWidth::Byte);
    assert!(read.is_ok());
}

#[test]
#[should_panic(expected = "emu_device not found")]
fn an_mmio_write_that_misses_panics() {
    let written = panicking().handle_mmio_write(0xfff.into(), AccessWidth::Byte, 0);
    assert!(written.is_ok());
}

#[test]
#[should_panic(expected = "emu_device not found")]
fn a_system_register_read_that_misses_panics() {
    let read = panicking().handle_sys_reg_read(SysRegAddr(0x1000), AccessWidth::Qword);
    assert!(read.is_ok());
}

#[test]
#[should_panic(expected = "emu_device not found")]
fn a_system_register_write_that_misses_panics() {
    let written = panicking().handle_sys_reg_write(SysRegAddr(0x1000), AccessWidth::Qword, 0);
    assert!(written.is_ok());
}

#[test]
#[should_panic(expected = "emu_device not found")]
fn a_port_read_that_misses_panics() {
    let read = panicking().handle_port_read(Port(0x1000), AccessWidth::Byte);
    assert!(read.is_ok());
}

#[test]
#[should_panic(expected = "emu_device not found")]
fn a_port_write_that_misses_panics() {
    let written = panicking().handle_port_write(Port(0x1000), AccessWidth::Byte, 0);
    assert!(written.is_ok());
}

fn iteration_is_in_the_order_of_registration<R: Bus>() {
    let devices = empty();
    let firsts = [0x300, 0x100, 0x200, 0x000];
    for first in firsts {
        R::add(&devices, Recorder::silent(0, first, first + 0xf)).unwrap();
    }
    for _ in 0..2 {
        let ranges: Vec<_> = R::all(&devices).iter().map(|d| d.address_range()).collect();
        assert_eq!(ranges, firsts.map(|f| R::covering(f, f + 0xf)));
    }
    assert_eq!(R::all(&empty()).len(), 0);
}

fn a_find_gives_the_device_itself<R: Bus>() {
    let devices = empty();
    let recorder = Recorder::<R>::silent(0, 0x10, 0x1f);
    R::add(&devices, recorder.clone()).unwrap();
    for at in 0x10..=0x1f {
        let found = R::find(&devices, at).unwrap();
        assert!(Arc::ptr_eq(&found, &(recorder.clone() as _)));
    }
    assert!(R::find(&devices, 0xf).is_none() && R::find(&devices, 0x20).is_none());
}

fn an_item_is_replaced_in_place<R: Bus>() {
    let mut devices = empty();
    R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    R::add(&devices, Recorder::silent(1, 0x20, 0x2f)).unwrap();
    for item in R::all_mut(&mut devices) {
        if item.address_range() == R::covering(0x20, 0x2f) {
            *item = Recorder::<R>::silent(2, 0x20, 0x2f);
        }
    }
    let width = AccessWidth::Qword;
    assert_eq!(R::read(&devices, 0x10, width), Ok(answer(0, 0x10)));
    assert_eq!(R::read(&devices, 0x20, width), Ok(answer(2, 0x20)));
}

on_every_bus!(
    iteration_is_in_the_order_of_registration,
    a_find_gives_the_device_itself,
    an_item_is_replaced_in_place,
);

#[test]
fn an_iterated_device_can_be_downcast() {
    let devices = panicking();
    devices
        .add_mmio_dev(Echo::<GuestPhysAddrRange>::new(0x800_0000, 0x800_ffff))
        .unwrap();
    let mapped: Vec<_> = devices
        .iter_mmio_dev()
        .map(|device| map_device_of_type(device, |_: &Echo<GuestPhysAddrRange>| "an echo"))
        .collect();
    assert_eq!(mapped, [None, Some("an echo")]);
}

#[test]
fn ivc_channels_are_allocated_and_released() {
    let range = EmulatedDeviceConfig {
        name: "ivc".into(),
        base_gpa: 0x7000_0000,
        length: 0x4000,
        emu_type: EmulatedDeviceType::IVCChannel,
        ..Default::default()
    };
    // The second range is ignored.
    let second = EmulatedDeviceConfig {
        base_gpa: 0x6000_0000,
        ..range.clone()
    };
    let devices = AxVmDevices::new(AxVmDeviceConfig::new(vec![range, second]));
    let at = |offset: usize| Ok(GuestPhysAddr::from(0x7000_0000 + offset));
    assert_eq!(devices.alloc_ivc_channel(0x1000), at(0));
    assert_eq!(devices.alloc_ivc_channel(0x2000), at(0x1000));
    assert_eq!(devices.alloc_ivc_channel(0x2000), Err(AxError::NoMemory));
    assert_eq!(devices.alloc_ivc_channel(0), Err(AxError::InvalidInput));
    assert_eq!(
        devices.alloc_ivc_channel(0x1001),
        Err(AxError::InvalidInput)
    );
    assert_eq!(
        devices.release_ivc_channel(0x7000_1000.into(), 0x2000),
        Ok(())
    );
    assert_eq!(devices.alloc_ivc_channel(0x3000), at(0x1000));
    let none = empty();
    assert_eq!(none.alloc_ivc_channel(0x1000), Err(AxError::InvalidInput));
    let released = none.release_ivc_channel(0x7000_0000.into(), 0x1000);
    assert_eq!(released, Err(AxError::InvalidInput));
}

#[test]
fn entries_without_a_factory_are_left_out() {
    let console = EmulatedDeviceConfig {
        name: "console".into(),
        base_gpa: 0x1000,
        length: 0x1000,
        emu_type: EmulatedDeviceType::Console,
        ..Default::default()
    };
    let devices = AxVmDevices::new(AxVmDeviceConfig::new(vec![console]));
    assert_eq!(devices.iter_mmio_dev().count(), 0);
    assert!(devices.find_mmio_dev(0x1000.into()).is_none());
}
