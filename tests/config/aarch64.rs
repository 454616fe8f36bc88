//! The GIC. Register offsets: Arm GIC architecture specification, GICv3 and GICv4, IHI 0069,
//! chapter "Programmers' Model".

use arm_vgic::{
    Vgic,
    v3::{gits::Gits, vgicd::VGicD, vgicr::VGicR},
};
use axaddrspace::device::AccessWidth;
use axdevice::{AxVmDevices, BusId, ConfigError, ConfigFault, Refusal, SharedVmDevices};
use axdevice_base::map_device_of_type;
use axvmconfig::{
    EmulatedDeviceConfig,
    EmulatedDeviceType::{
        GPPTDistributor, GPPTITS, GPPTRedistributor, IVCChannel, InterruptController,
    },
};
use support::entry;

use crate::{
    common::{config, error, fault},
    host::{self, machine},
};

const GICD: usize = 0x800_0000;
const GICD_LENGTH: usize = 0x1_0000;
const GICR: usize = 0x80a_0000;
const GICR_LENGTH: usize = 0x2_0000;
const ITS: usize = 0x808_0000;
const ITS_LENGTH: usize = 0x2_0000;

fn gicd() -> EmulatedDeviceConfig {
    entry(GPPTDistributor, GICD, GICD_LENGTH, &[])
}

fn gicr(cpu_num: usize) -> EmulatedDeviceConfig {
    entry(
        GPPTRedistributor,
        GICR,
        GICR_LENGTH,
        &[cpu_num, GICR_LENGTH, 2],
    )
}

fn its() -> EmulatedDeviceConfig {
    entry(GPPTITS, ITS, ITS_LENGTH, &[machine::ITS])
}

/// The result of these entries for a guest that is trusted with an ITS.
fn trusted(entries: &[EmulatedDeviceConfig]) -> Result<AxVmDevices, ConfigError> {
    let builder = AxVmDevices::builder().config(config(entries));
    builder.trust_guest_its(true).build()
}

/// Sets a register of the host's device.
fn set(register: usize, value: usize) {
    host::set(register, AccessWidth::Dword, value);
}

/// Reads `register`, 4 bytes, through the registry.
fn read(devices: &AxVmDevices, register: usize) -> usize {
    devices
        .handle_mmio_read(register.into(), AccessWidth::Dword)
        .unwrap()
}

#[test]
fn a_gicv2_distributor() {
    let entries = [entry(InterruptController, 0, 0, &[])];
    let devices = AxVmDevices::try_new(config(&entries)).unwrap();
    let item = devices.iter_mmio_dev().next().unwrap();
    assert!(map_device_of_type(item, |_: &Vgic| ()).is_some());
    // GICD_TYPER, which the device reads from its host.
    assert_eq!(read(&devices, GICD + 4), (15 << 19) | 0x1f);
}

#[test]
fn a_gicv3_distributor_reaches_its_host() {
    let _machine = machine::exclusive();
    let devices = AxVmDevices::try_new(config(&[gicd()])).unwrap();
    let item = devices.iter_mmio_dev().next().unwrap();
    // As axvm looks up the distributor, to assign interrupts to it.
    let found = map_device_of_type(item, |gicd: &VGicD| gicd.assign_irq(40, 1, (0, 0, 0, 1)));
    assert!(found.is_some());
    // GICD_TYPER.
    set(machine::GICD + 4, 0x1234_5678);
    assert_eq!(read(&devices, GICD + 4), 0x1234_5678);
    // GICD_IROUTER40, as `assign_irq` has set it.
    assert_eq!(read(&devices, GICD + 0x6000 + 40 * 8), 1 << 31 | 1);
}

#[test]
fn a_redistributor_for_each_vcpu_reaches_that_of_its_cpu() {
    let _machine = machine::exclusive();
    let devices = AxVmDevices::try_new(config(&[gicr(3)])).unwrap();
    let cpus: Vec<_> = devices
        .iter_mmio_dev()
        .map(|item| map_device_of_type(item, |gicr: &VGicR| gicr.cpu_id))
        .collect();
    assert_eq!(cpus, [Some(2), Some(3), Some(4)]);
    for i in 0..3 {
        // GICR_WAKER.
        let value = 0x100 + i;
        set(machine::GICR + (2 + i) * GICR_LENGTH + 0x14, value);
        assert_eq!(read(&devices, GICR + i * GICR_LENGTH + 0x14), value);
    }
    assert!(
        devices
            .find_mmio_dev((GICR + 3 * GICR_LENGTH).into())
            .is_none()
    );
}

#[test]
fn an_its_reaches_its_host() {
    let _machine = machine::exclusive();
    let its = its();
    let devices = trusted(std::slice::from_ref(&its)).unwrap();
    let item = devices.iter_mmio_dev().next().unwrap();
    assert_eq!(
        map_device_of_type(item, |its: &Gits| its.is_root_vm),
        Some(false)
    );
    // GITS_TYPER.
    set(its.cfg_list[0] + 8, 0x8765_4321);
    assert_eq!(read(&devices, ITS + 8), 0x8765_4321);
}

#[test]
fn a_thread_safe_registry_has_them_all() {
    let _machine = machine::exclusive();
    let builder = SharedVmDevices::builder().config(config(&[gicd(), gicr(2), its()]));
    let devices = builder.trust_guest_its(true).build().unwrap();
    let map = "mmio     0x8000000..=0x800ffff #1 GPPTDistributor\n\
               mmio     0x8080000..=0x809ffff #4 GPPTITS\n\
               mmio     0x80a0000..=0x80bffff #2 GPPTRedistributor\n\
               mmio     0x80c0000..=0x80dffff #3 GPPTRedistributor\n";
    assert_eq!(devices.snapshot().to_string(), map);
    // GICR_WAKER of the second.
    set(machine::GICR + 3 * GICR_LENGTH + 0x14, 6);
    let waker = GICR + GICR_LENGTH + 0x14;
    assert_eq!(
        devices.handle_mmio_read(waker.into(), AccessWidth::Dword),
        Ok(6)
    );
}

#[test]
fn missing_arguments_are_named() {
    for (position, name) in ["cpu_num", "stride", "pcpu_id"].into_iter().enumerate() {
        let mut short = gicr(1);
        short.cfg_list.truncate(position);
        assert_eq!(
            fault(short),
            ConfigFault::MissingArgument { position, name }
        );
    }
    let (position, name) = (0, "host_gits_base");
    let short = entry(GPPTITS, ITS, ITS_LENGTH, &[]);
    assert_eq!(
        fault(short),
        ConfigFault::MissingArgument { position, name }
    );
}

#[test]
fn ranges_that_wrap_or_overlap_are_refused() {
    for emu_type in [GPPTDistributor, GPPTITS, GPPTRedistributor] {
        let wraps = fault(entry(emu_type, usize::MAX - 8, 0x1_0000, &[1, 1, 1]));
        assert!(
            matches!(wraps, ConfigFault::Refused(Refusal::Wrapping { .. })),
            "{wraps}"
        );
        let empty = fault(entry(emu_type, GICD, 0, &[1, 1, 1]));
        let refusal = Refusal::Empty {
            bus: BusId::Mmio,
            at: GICD,
        };
        assert_eq!(empty, ConfigFault::Refused(refusal));
    }
    let many = fault(entry(GPPTRedistributor, GICR, 1, &[1 << 17, 1, 0]));
    assert!(matches!(many, ConfigFault::TooManyRedistributors { .. }));
    let far = fault(entry(
        GPPTRedistributor,
        GICR,
        GICR_LENGTH,
        &[2, usize::MAX, 0],
    ));
    assert!(matches!(far, ConfigFault::DoesNotFit { .. }));
    let close = fault(entry(
        GPPTRedistributor,
        GICR,
        GICR_LENGTH,
        &[2, 0x1_0000, 0],
    ));
    assert!(matches!(close, ConfigFault::Overlap { .. }));
    let overlap = error(&[gicd(), entry(InterruptController, 0, 0, &[])]);
    assert_eq!(overlap.index, 1);
    assert!(matches!(overlap.fault, ConfigFault::Overlap { .. }));
}

#[test]
fn no_controller_lies_in_the_ivc_range() {
    for (controller, at) in [(gicd(), GICD), (gicr(2), GICR + GICR_LENGTH)] {
        let both = [controller.clone(), entry(IVCChannel, at, 0x1000, &[])];
        let reversed = [both[1].clone(), both[0].clone()];
        for (entries, owner) in [(&both, &both[0].name), (&reversed, &both[1].name)] {
            let error = error(entries);
            assert_eq!(error.index, 1);
            assert!(matches!(&error.fault, ConfigFault::Overlap { owner: of, .. } if of == owner));
        }
        // `new` has the first.
        let devices = AxVmDevices::new(config(&both));
        assert!(devices.find_mmio_dev(at.into()).is_some());
        assert_eq!(devices.snapshot().ivc(), None);
        let devices = AxVmDevices::new(config(&reversed));
        assert_eq!(devices.iter_mmio_dev().count(), 0);
        assert_eq!(devices.alloc_ivc_channel(0x1000), Ok(at.into()));
    }
}

#[test]
fn an_its_in_the_ivc_range_leaves_the_host_s_as_it_is() {
    let its = entry(GPPTITS, GICD, ITS_LENGTH, &[host::registers(ITS_LENGTH)]);
    let host = its.cfg_list[0];
    // GITS_CTLR: enabled.
    set(host, 1);
    let ivc = entry(IVCChannel, GICD, 0x1000, &[]);
    let overlap = trusted(&[ivc, its]).unwrap_err();
    assert!(matches!(overlap.fault, ConfigFault::Overlap { owner, .. } if owner == "IVCChannel"));
    assert_eq!(host::get(host, AccessWidth::Dword), 1);
}

#[test]
fn new_leaves_out_an_entry_that_overlaps() {
    let devices = AxVmDevices::new(config(&[gicd(), gicr(1), gicd()]));
    assert_eq!(devices.iter_mmio_dev().count(), 2);
}

#[test]
#[should_panic(expected = "stride, is missing")]
fn new_panics_where_0_4_10_did() {
    AxVmDevices::new(config(&[entry(GPPTRedistributor, GICR, GICR_LENGTH, &[1])]));
}

#[test]
fn a_host_its_that_cannot_be_is_refused_before_it_is_touched() {
    let _machine = machine::exclusive();
    let beyond = fault(entry(GPPTITS, ITS, ITS_LENGTH, &[usize::MAX]));
    assert!(matches!(beyond, ConfigFault::DoesNotFit { .. }));
    // The next one is made as if there had been no error.
    assert!(trusted(&[its()]).is_ok());
}

#[test]
fn a_guest_has_an_its_only_if_it_is_trusted_with_one() {
    if cfg!(feature = "trust-guest-its") {
        assert!(AxVmDevices::try_new(config(&[its()])).is_ok());
        return;
    }
    assert_eq!(fault(its()), ConfigFault::UntrustedIts);
    assert_eq!(
        AxVmDevices::new(config(&[its(), gicd()]))
            .iter_mmio_dev()
            .count(),
        1
    );
}

#[test]
fn a_refused_its_leaves_the_host_s_as_it_is() {
    let its = entry(GPPTITS, GICD, ITS_LENGTH, &[host::registers(ITS_LENGTH)]);
    let host = its.cfg_list[0];
    // GITS_CTLR: enabled.
    set(host, 1);
    let overlap = trusted(&[gicd(), its]).unwrap_err();
    assert!(matches!(overlap.fault, ConfigFault::Overlap { .. }));
    assert_eq!(host::get(host, AccessWidth::Dword), 1);
}
