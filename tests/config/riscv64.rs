//! The PLIC.

use axaddrspace::device::AccessWidth;
use axdevice::{AxVmDevices, ConfigFault, Refusal, SharedVmDevices};
use axdevice_base::map_device_of_type;
use axvmconfig::EmulatedDeviceType::{IVCChannel, PPPTGlobal, VirtioBlk};
use riscv_vplic::VPlicGlobal;
use support::entry;

use crate::{
    common::{config, error, fault},
    host,
};

const LENGTH: usize = 0x40_0000;

#[test]
fn a_plic_reaches_its_registers() {
    // The device assumes that the host's PLIC is at the guest's address. With two contexts, one of them a guest's, it
    // would raise interrupts through hypervisor CSRs, which user mode does not have.
    let base = host::registers(LENGTH);
    let devices = AxVmDevices::try_new(config(&[entry(PPPTGlobal, base, LENGTH, &[1])])).unwrap();
    let item = devices.iter_mmio_dev().next().unwrap();
    let contexts = map_device_of_type(item, |plic: &VPlicGlobal| plic.contexts_num);
    assert_eq!(contexts, Some(1));

    // PLIC specification 1.0.0, "Interrupt Priorities": source 7 at base + 4 * 7.
    let priority = (base + 28).into();
    devices
        .handle_mmio_write(priority, AccessWidth::Dword, 5)
        .unwrap();
    assert_eq!(
        devices.handle_mmio_read(priority, AccessWidth::Dword),
        Ok(5)
    );
}

#[test]
fn a_thread_safe_registry_has_one_too() {
    let base = host::registers(LENGTH);
    let devices =
        SharedVmDevices::try_new(config(&[entry(PPPTGlobal, base, LENGTH, &[1])])).unwrap();
    assert!(devices.find_mmio_dev((base + LENGTH - 1).into()).is_some());
}

#[test]
fn bad_entries_are_refused_by_name() {
    let missing = fault(entry(PPPTGlobal, 0xc00_0000, LENGTH, &[]));
    let (position, name) = (0, "context_num");
    assert_eq!(missing, ConfigFault::MissingArgument { position, name });
    let small = fault(entry(PPPTGlobal, 0xc00_0000, LENGTH, &[0x400]));
    assert!(matches!(
        small,
        ConfigFault::PlicTooSmall { length: LENGTH, .. }
    ));
    let wraps = fault(entry(PPPTGlobal, usize::MAX - 8, LENGTH, &[1]));
    assert!(matches!(
        wraps,
        ConfigFault::Refused(Refusal::Wrapping { .. })
    ));
    let twice = entry(PPPTGlobal, 0xc00_0000, LENGTH, &[1]);
    let entries = [entry(VirtioBlk, 0, 0, &[]), twice.clone(), twice];
    let builder = AxVmDevices::builder().config(config(&entries));
    let error = builder.skip_unbuilt().build().unwrap_err();
    assert_eq!(error.index, 2);
    assert!(matches!(error.fault, ConfigFault::Overlap { .. }));
}

#[test]
fn a_plic_and_the_ivc_range_do_not_overlap() {
    let plic = entry(PPPTGlobal, 0xc00_0000, LENGTH, &[1]);
    let ivc = entry(IVCChannel, 0xc00_0000, 0x1000, &[]);
    let both = [plic, ivc];
    let reversed = [both[1].clone(), both[0].clone()];
    for (entries, owner) in [(&both, "PPPTGlobal"), (&reversed, "IVCChannel")] {
        let error = error(entries);
        assert_eq!(error.index, 1);
        assert!(matches!(error.fault, ConfigFault::Overlap { owner: of, .. } if of == owner));
    }
    // `new` has the first.
    let devices = AxVmDevices::new(config(&both));
    assert!(devices.find_mmio_dev(0xc00_0000.into()).is_some());
    assert_eq!(devices.snapshot().ivc(), None);
    let devices = AxVmDevices::new(config(&reversed));
    assert!(devices.find_mmio_dev(0xc00_0000.into()).is_none());
    assert_eq!(devices.alloc_ivc_channel(0x1000), Ok(0xc00_0000.into()));
}

#[test]
fn the_least_length_that_the_check_lets_through_is_enough() {
    for contexts in [0, 1, 15] {
        let ConfigFault::PlicTooSmall { at_least, .. } =
            fault(entry(PPPTGlobal, 0xc00_0000, 1, &[contexts]))
        else {
            panic!("one byte is not enough for a PLIC");
        };
        let built = AxVmDevices::try_new(config(&[entry(
            PPPTGlobal,
            0xc00_0000,
            at_least,
            &[contexts],
        )]));
        assert!(built.is_ok());
    }
}

#[test]
#[should_panic(expected = "context_num, is missing")]
fn new_panics_where_0_4_10_did() {
    AxVmDevices::new(config(&[entry(PPPTGlobal, 0xc00_0000, LENGTH, &[])]));
}
