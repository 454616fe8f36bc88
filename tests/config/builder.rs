//! The builder: IVC ranges, factories, entries without a device, and how `new` differs from `try_new`. On
//! every architecture.

use std::{cell::Cell, error::Error, panic, sync::Arc};

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice::{
    AxVmDevices, Batch, BusId, ConfigFault, DeviceBound, Refusal, SharedVmDevices, Span, Unbound,
    Unmapped,
};
use axvmconfig::EmulatedDeviceType::{Console, Dummy, IVCChannel, VirtioBlk};
use support::{Echo, entry};

use crate::{
    common::{config, error, fault, named},
    log::logged,
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
fn a_second_ivc_entry_is_refused_and_left_out_by_new() {
    let entries = [
        named("first", entry(IVCChannel, IVC, 0x1000, &[])),
        entry(IVCChannel, 0x1234, 0, &[]),
    ];
    let error = error(&entries);
    assert_eq!(
        error.to_string(),
        "device 1 \"IVCChannel\" (ivc channel): there is an IVC range already: \
         0x70000000..=0x70000fff of \"first\""
    );
    assert_eq!(AxError::from(error), AxError::AlreadyExists);
    let mut devices = None;
    let lines = logged(|| devices = Some(SharedVmDevices::new(config(&entries))));
    let devices = devices.unwrap();
    assert_eq!(devices.alloc_ivc_channel(0x1000), Ok(IVC.into()));
    assert_eq!(devices.alloc_ivc_channel(0x1000), Err(AxError::NoMemory));
    let [line] = &lines[..] else {
        panic!("{lines:?}")
    };
    assert!(line.starts_with("WARN device 1 ") && line.ends_with(": left out"));
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
    let range = Span::with_length(IVC as u64 + 8, 0x1000).unwrap();
    assert_eq!(unaligned, ConfigFault::IvcUnaligned { range });
    let bus = BusId::Mmio;
    let empty = fault(entry(IVCChannel, IVC, 0, &[]));
    let refusal = Refusal::Empty { bus, at: IVC };
    assert_eq!(empty, ConfigFault::Refused(refusal));
    let (start, end) = (usize::MAX - 0xfff, 0x1000);
    let wrapping = fault(entry(IVCChannel, start, 0x2000, &[]));
    let refusal = Refusal::Wrapping { bus, start, end };
    assert_eq!(wrapping, ConfigFault::Refused(refusal));
    let long = fault(entry(IVCChannel, 0, 1 << 50, &[]));
    let text = long.to_string();
    assert_eq!(
        text,
        "the IVC range has 0x4000000000000 bytes, but can have at most 0x1000000000"
    );
    assert!(matches!(long, ConfigFault::IvcTooLong { at_most, .. } if at_most < 1 << 50));
}

#[test]
fn an_error_names_the_entry() {
    let entries = [entry(Dummy, 0, 1, &[]), entry(IVCChannel, IVC, 1, &[])];
    let builder = AxVmDevices::builder().config(config(&entries));
    let error = builder.skip_unbuilt().build().unwrap_err();
    assert_eq!((error.index, error.name.as_str()), (1, "IVCChannel"));
    assert_eq!(error.emu_type, IVCChannel);
    let text = "device 1 \"IVCChannel\" (ivc channel): the IVC range 0x70000000..=0x70000000 is not \
                on 4 KiB boundaries";
    assert_eq!(error.to_string(), text);
}

/// Version 0.4.10 would have taken it.
#[test]
fn new_leaves_out_an_empty_ivc_range() {
    let entries = [
        entry(IVCChannel, IVC, 0, &[]),
        entry(IVCChannel, IVC, 0x1000, &[]),
    ];
    let devices = AxVmDevices::new(config(&entries));
    assert_eq!(devices.alloc_ivc_channel(0x1000), Ok(IVC.into()));
}

#[test]
fn an_entry_without_a_factory_is_refused_unless_it_may_be_skipped() {
    let entries = config(&[entry(VirtioBlk, 0, 0x200, &[])]);
    let error = AxVmDevices::try_new(entries.clone()).unwrap_err();
    assert_eq!(error.fault, ConfigFault::Unbuilt);
    assert_eq!(
        error.to_string(),
        "device 0 \"VirtioBlk\" (virtio block): neither the crate nor a factory builds devices of \
         this type"
    );
    assert_eq!(AxError::from(error), AxError::Unsupported);
    let builder = || AxVmDevices::builder().config(entries.clone());
    assert_eq!(builder().build().unwrap_err().fault, ConfigFault::Unbuilt);
    let ways: [&dyn Fn() -> AxVmDevices; 2] =
        [&|| builder().skip_unbuilt().build().unwrap(), &|| {
            AxVmDevices::new(entries.clone())
        }];
    for build in ways {
        let mut map = None;
        let lines = logged(|| map = Some(build().snapshot().to_string()));
        assert_eq!(map.as_deref(), Some(""));
        let [line] = &lines[..] else {
            panic!("{lines:?}")
        };
        assert!(line.starts_with("WARN device 0 \"VirtioBlk\" (virtio block): "));
        assert!(line.ends_with(": left out"), "{line}");
    }
}

#[test]
fn entries_of_one_name_get_a_warning() {
    let entries = [
        named("com", entry(IVCChannel, IVC, 0x1000, &[])),
        named("", entry(Console, 0, 8, &[])),
        named("com", entry(Console, 8, 8, &[])),
        named("", entry(Console, 16, 8, &[])),
    ];
    let builder = || {
        let builder = SharedVmDevices::builder().config(config(&entries));
        builder.factory(Console, |config, batch| {
            console(config, batch, |console| Arc::new(console))
        })
    };
    let lines = logged(|| drop(builder().build().unwrap()));
    assert_eq!(
        lines,
        ["WARN device 2 \"com\" (console) has the name of device 0 (ivc channel)"]
    );
}

/// A console in guest physical memory.
fn in_memory<B: DeviceBound>(
    config: &axvmconfig::EmulatedDeviceConfig,
    batch: &mut Batch<'_, B>,
    share: impl Fn(Echo<GuestPhysAddrRange>) -> Arc<B::Dev<GuestPhysAddrRange>>,
) -> ax_errno::AxResult {
    let end = config.base_gpa + config.length;
    let range = GuestPhysAddrRange::new(config.base_gpa.into(), end.into());
    batch.add_mmio_dev(share(Echo(range)))?;
    Ok(())
}

#[test]
fn no_device_lies_in_the_ivc_range_whichever_entry_comes_first() {
    let ivc = named("shared", entry(IVCChannel, IVC, 0x10_0000, &[]));
    let span = |first, last| Span::new(first, last).unwrap();
    let (range, last) = (span(0x7000_0000, 0x700f_ffff), IVC + 0xf_ffff);
    for (base, length) in [
        (IVC + 0x2000, 0x1000),
        (IVC, 1),
        (last, 1),
        (IVC - 1, 2),
        (last, 2),
        (IVC - 1, 0x20_0000),
    ] {
        let uart = named("uart", entry(Console, base, length, &[]));
        let own = Span::with_length(base as u64, length as u64).unwrap();
        for (entries, wanted, owner, owned) in [
            ([&uart, &ivc], range, "uart", own),
            ([&ivc, &uart], own, "shared", range),
        ] {
            let built = SharedVmDevices::builder()
                .config(config(&entries.map(Clone::clone)))
                .factory(Console, |config, batch| {
                    in_memory(config, batch, |console| Arc::new(console))
                })
                .build();
            let error = built.unwrap_err();
            let overlap = ConfigFault::Overlap {
                bus: BusId::Mmio,
                wanted,
                owner: owner.into(),
                owned,
            };
            assert_eq!((error.index, &error.fault), (1, &overlap));
            assert!(error.to_string().ends_with(&format!(
                "on bus mmio, {wanted} overlaps {owned} of \"{owner}\""
            )));
            assert_eq!(AxError::from(error), AxError::AlreadyExists);
        }
    }
    // Next to it, and at ports of the same numbers.
    let devices = SharedVmDevices::builder()
        .config(config(&[
            named("low", entry(Console, IVC - 0x1000, 0x1000, &[])),
            ivc,
            named("high", entry(Console, last + 1, 0x1000, &[])),
        ]))
        .factory(Console, |config, batch| {
            in_memory(config, batch, |console| Arc::new(console))
        })
        .build()
        .unwrap();
    let map = "mmio     0x6ffff000..=0x6fffffff #1 low\n\
               ivc      0x70000000..=0x700fffff shared\n\
               mmio     0x70100000..=0x70100fff #2 high\n";
    assert_eq!(devices.snapshot().to_string(), map);
    let ivc = GuestPhysAddrRange::from_start_size(IVC.into(), 0x10_0000);
    assert_eq!(devices.snapshot().ivc(), Some(ivc));
    assert_eq!(devices.alloc_ivc_channel(0x10_0000), Ok(IVC.into()));
}

/// Makes the console of the entry.
fn console<B: DeviceBound>(
    config: &axvmconfig::EmulatedDeviceConfig,
    batch: &mut Batch<'_, B>,
    share: impl Fn(Echo<PortRange>) -> Arc<B::Dev<PortRange>>,
) -> ax_errno::AxResult {
    let port = |addr: usize| u16::try_from(addr).map_err(|_| AxError::InvalidInput);
    let first = port(config.base_gpa)?;
    let last = port(config.base_gpa + config.length - 1)?;
    batch.add_port_dev(share(Echo(PortRange::new(Port(first), Port(last)))))?;
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
        .skip_unbuilt()
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
        Ok(0xfb)
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
    assert!(error.source().is_none());
    assert_eq!(AxError::from(error), AxError::InvalidInput);
}

#[test]
fn the_refusal_of_a_factory_s_device_is_kept() {
    let (start, end) = (0x3ff, 0x3f8);
    let backwards = || PortRange::new(Port(start), Port(end));
    let build = |error: Option<AxError>| {
        let built = AxVmDevices::builder()
            .config(config(&[named("com1", entry(Console, 0, 0, &[]))]))
            .factory(Console, |_, batch| {
                let added = batch.add_port_dev(Arc::new(Echo(backwards())));
                match error {
                    Some(error) => Err(error),
                    None => Ok(added.map(drop)?),
                }
            })
            .build();
        built.unwrap_err()
    };
    let error = build(None);
    let refusal = Refusal::Backwards {
        bus: BusId::Port,
        start: start.into(),
        end: end.into(),
    };
    assert_eq!(error.fault, ConfigFault::Refused(refusal));
    let source = error.source().and_then(|source| source.downcast_ref());
    assert_eq!(source, Some(&refusal));
    assert_eq!(
        error.to_string(),
        "device 0 \"com1\" (console): on bus port, the range from 0x3ff to 0x3f8 ends before it \
         starts"
    );
    assert_eq!(AxError::from(error), AxError::InvalidInput);
    // A different error is the factory's own.
    let error = build(Some(AxError::Io));
    assert_eq!(error.fault, ConfigFault::Factory(AxError::Io));
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
            batch.add_port_dev(Arc::new(Echo(range)))?;
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

/// On an architecture without interrupt controllers of its own, their entries are left out regardless of their
/// arguments, as in 0.4.10.
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
    let builder = AxVmDevices::builder().config(config(&entries));
    let devices = builder.skip_unbuilt().build().unwrap();
    assert_eq!(devices.iter_mmio_dev().count(), 0);
    assert_eq!(fault(entries[0].clone()), ConfigFault::Unbuilt);
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
