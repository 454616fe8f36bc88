//! The builder: IVC ranges, factories, entries without a device, and how `new` differs from `try_new`. On
//! every architecture.

use std::{cell::Cell, panic, sync::Arc};

use ax_errno::AxError;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{
    AxVmDevices, Batch, ConfigFault, DeviceBound, Refusal, SharedVmDevices, Unbound, Unmapped,
};
use axvmconfig::EmulatedDeviceType::{Console, Dummy, IVCChannel, VirtioBlk};

use crate::{
    common::{self, config, error, fault},
    entry::entry,
};

const IVC: usize = 0x7000_0000;

#[test]
fn an_ivc_entry_sets_its_range_aside() {
    let devices = AxVmDevices::try_new(config(&[entry(IVCChannel, IVC, 0x3000, &[])])).unwrap();
    assert_eq!(devices.alloc_ivc_channel(0x3000), Ok(IVC.into()));
    assert_eq!(devices.alloc_ivc_channel(0x1000), Err(AxError::NoMemory));
    assert_eq!(devices.release_ivc_channel(IVC.into(), 0x3000), Ok(()));
    assert_eq!(devices.iter_mmio_dev().count(), 0);
}

#[test]
fn of_two_ivc_entries_the_first_counts() {
    let entries = [
        entry(IVCChannel, IVC, 0x1000, &[]),
        entry(IVCChannel, 0x1234, 0, &[]),
    ];
    let devices = SharedVmDevices::try_new(config(&entries)).unwrap();
    assert_eq!(devices.alloc_ivc_channel(0x1000), Ok(IVC.into()));
}

#[test]
fn without_an_ivc_entry_there_are_no_channels() {
    let devices = SharedVmDevices::default();
    assert_eq!(
        devices.alloc_ivc_channel(0x1000),
        Err(AxError::InvalidInput)
    );
    assert_eq!(
        devices.release_ivc_channel(0.into(), 0x1000),
        Err(AxError::InvalidInput)
    );
}

#[test]
fn bad_ivc_ranges_are_refused_by_name() {
    let unaligned = fault(entry(IVCChannel, IVC + 8, 0x1000, &[]));
    assert_eq!(unaligned, ConfigFault::IvcUnaligned);
    let empty = fault(entry(IVCChannel, IVC, 0, &[]));
    assert_eq!(empty, ConfigFault::Refused(Refusal::Empty { at: IVC }));
    let start = usize::MAX - 0xfff;
    let wrapping = fault(entry(IVCChannel, start, 0x2000, &[]));
    assert_eq!(
        wrapping,
        ConfigFault::Refused(Refusal::Wrapping { start, end: 0x1000 })
    );
    let long = fault(entry(IVCChannel, 0, 1 << 50, &[]));
    assert!(matches!(long, ConfigFault::IvcTooLong { at_most } if at_most < 1 << 50));
}

#[test]
fn an_error_names_the_entry() {
    let error = error(&[entry(Dummy, 0, 1, &[]), entry(IVCChannel, IVC, 1, &[])]);
    assert_eq!((error.index, error.name.as_str()), (1, "IVCChannel"));
    assert_eq!(error.emu_type, IVCChannel);
    let text = "device 1 \"IVCChannel\" (ivc channel): the IVC range is not on 4 KiB boundaries";
    assert_eq!(error.to_string(), text);
}

#[test]
fn new_leaves_out_what_0_4_10_would_have_taken() {
    let entries = [
        entry(IVCChannel, IVC, 0, &[]),
        entry(IVCChannel, IVC, 0x1000, &[]),
    ];
    let devices = AxVmDevices::new(config(&entries));
    assert_eq!(devices.alloc_ivc_channel(0x1000), Ok(IVC.into()));
}

#[test]
fn an_entry_without_a_device_is_left_out() {
    let devices = AxVmDevices::try_new(config(&[entry(VirtioBlk, 0, 0x200, &[])])).unwrap();
    assert_eq!(devices.snapshot().to_string(), "");
}

/// Makes the console that the entry asks for.
fn console<B: DeviceBound>(
    config: &axvmconfig::EmulatedDeviceConfig,
    batch: &mut Batch<'_, B>,
    share: impl Fn(common::Console) -> Arc<B::Dev<PortRange>>,
) -> ax_errno::AxResult {
    let port = |addr: usize| u16::try_from(addr).map_err(|_| AxError::InvalidInput);
    let first = port(config.base_gpa)?;
    let last = port(config.base_gpa + config.length - 1)?;
    batch.add_port_dev(share(common::Console(PortRange::new(
        Port(first),
        Port(last),
    ))))?;
    Ok(())
}

#[test]
fn a_factory_makes_the_devices_of_its_type() {
    let made = Cell::new(0);
    let entries = [
        entry(Console, 0x3f8, 8, &[]),
        entry(VirtioBlk, 0, 1, &[]),
        entry(Console, 0x2f8, 8, &[]),
    ];
    let devices = SharedVmDevices::builder()
        .config(config(&entries))
        .unmapped(Unmapped::Float)
        .factory(Console, |config, batch| {
            made.set(made.get() + 1);
            console(config, batch, |console| Arc::new(console))
        })
        .build()
        .unwrap();
    assert_eq!(made.get(), 2);
    assert_eq!(
        devices.handle_port_read(Port(0x2fb), AccessWidth::Byte),
        Ok(3)
    );
    assert_eq!(
        devices.handle_port_read(Port(0x2f7), AccessWidth::Byte),
        Ok(0xff)
    );
    let map = "port     0x2f8..=0x2ff #2 Console\nport     0x3f8..=0x3ff #1 Console\n";
    assert_eq!(devices.snapshot().to_string(), map);
}

#[test]
fn the_last_factory_of_a_type_counts() {
    let devices = AxVmDevices::builder()
        .config(config(&[entry(Console, 0x3f8, 8, &[])]))
        .factory(Console, |_, _| panic!("the first factory was called"))
        .factory(Console, |config, batch| {
            console(config, batch, |c| Arc::new(c))
        })
        .build()
        .unwrap();
    assert!(devices.find_port_dev(Port(0x3f8)).is_some());
}

#[test]
fn a_factory_that_fails_fails_its_entry() {
    let built = AxVmDevices::builder()
        .config(config(&[entry(Console, 0x1_0000, 8, &[])]))
        .factory(Console, |config, batch| {
            console(config, batch, |c| Arc::new(c))
        })
        .build();
    let error = built.unwrap_err();
    assert_eq!(error.fault, ConfigFault::Factory(AxError::InvalidInput));
    assert_eq!(AxError::from(error), AxError::InvalidInput);
}

#[test]
fn overlapping_entries_are_refused() {
    let built = SharedVmDevices::builder()
        .config(config(&[
            entry(Console, 0x3f8, 8, &[]),
            entry(Console, 0x3ff, 1, &[]),
        ]))
        .factory(Console, |config, batch| {
            console(config, batch, |c| Arc::new(c))
        })
        .build();
    let error = built.unwrap_err();
    assert_eq!(error.index, 1);
    assert!(matches!(&error.fault, ConfigFault::Overlap { owner, .. } if owner == "Console"));
    assert_eq!(AxError::from(error), AxError::AlreadyExists);
}

#[test]
fn an_entry_is_made_whole_or_not_at_all() {
    // The first device of the batch fits, the second does not: neither is there.
    let two = |batch: &mut Batch<'_, Unbound>, ports: [(u16, u16); 2]| {
        for (first, last) in ports {
            let range = PortRange::new(Port(first), Port(last));
            batch.add_port_dev(Arc::new(common::Console(range)))?;
        }
        Ok(())
    };
    let built = AxVmDevices::builder()
        .config(config(&[
            entry(Console, 0, 0, &[]),
            entry(VirtioBlk, 0, 0, &[]),
        ]))
        .factory(Console, |_, batch| two(batch, [(0, 7), (8, 15)]))
        .factory(VirtioBlk, |_, batch| two(batch, [(16, 23), (15, 15)]))
        .build();
    assert_eq!(built.unwrap_err().index, 1);
}

/// On an architecture without interrupt controllers of its own, their entries are left out whatever
/// their arguments, as in 0.4.10.
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
#[test]
fn interrupt_controllers_of_other_architectures_are_left_out() {
    use axvmconfig::EmulatedDeviceType::{
        GPPTDistributor, GPPTITS, GPPTRedistributor, InterruptController, PPPTGlobal,
    };
    let types = [
        InterruptController,
        GPPTRedistributor,
        GPPTDistributor,
        GPPTITS,
        PPPTGlobal,
    ];
    let entries = types.map(|emu_type| entry(emu_type, 0x800_0000, 0x1_0000, &[]));
    let devices = AxVmDevices::try_new(config(&entries)).unwrap();
    assert_eq!(devices.iter_mmio_dev().count(), 0);
}

#[cfg(not(target_arch = "aarch64"))]
#[test]
fn where_there_is_no_virtual_timer_none_is_added() {
    let builder = AxVmDevices::builder().with_virtual_timer();
    assert_eq!(builder.build().unwrap().snapshot().to_string(), "");
}

#[test]
fn new_does_not_panic_on_any_ivc_range() {
    for (base, length) in [
        (0, 0),
        (1, 1),
        (usize::MAX, 2),
        (0, usize::MAX),
        (0x1000, 1 << 60),
    ] {
        let entries = [entry(IVCChannel, base, length, &[])];
        let devices =
            panic::catch_unwind(|| AxVmDevices::new(config(&entries)).alloc_ivc_channel(0x1000));
        assert_eq!(
            devices.unwrap(),
            Err(AxError::InvalidInput),
            "{base:#x} {length:#x}"
        );
    }
}
