//! The virtual timer. Registers: Arm Architecture Reference Manual, DDI 0487, by their names.

use std::time::Duration;

use arm_vgic::vtimer::get_sysreg_device;
use axaddrspace::device::{AccessWidth::Qword, SysRegAddr, SysRegAddrRange};
use axdevice::{AxVmDevices, ConfigFault, Refusal, SharedVmDevices};
use axvmconfig::EmulatedDeviceType::Console;
use support::{Echo, entry};

use crate::{
    common::config,
    host::{self, machine},
    log::logged,
};

const CNTP_CTL_EL0: SysRegAddr = sys_reg(3, 3, 14, 2, 1);
const CNTPCT_EL0: SysRegAddr = sys_reg(3, 3, 14, 0, 1);
const CNTP_TVAL_EL0: SysRegAddr = sys_reg(3, 3, 14, 2, 0);

/// The interrupt of the EL1 physical timer.
const PPI: usize = 30;

/// A system register, by the fields of the syndrome of a trapped access ("ISS encoding for an exception from MSR, MRS,
/// or System instruction execution").
const fn sys_reg(op0: usize, op1: usize, crn: usize, crm: usize, op2: usize) -> SysRegAddr {
    SysRegAddr(op0 << 20 | op2 << 17 | op1 << 14 | crn << 10 | crm << 1)
}

fn guest() -> SharedVmDevices {
    let builder = SharedVmDevices::builder().with_virtual_timer();
    builder.build().unwrap()
}

#[test]
fn the_virtual_timer_is_added_on_request_only() {
    let without = AxVmDevices::builder().build().unwrap();
    assert!(without.find_sys_reg_dev(CNTPCT_EL0).is_none());
    assert_eq!(AxVmDevices::new(config(&[])).iter_sys_reg_dev().count(), 0);
    let registers = [CNTP_CTL_EL0, CNTPCT_EL0, CNTP_TVAL_EL0];
    let with = guest();
    assert!(
        registers
            .iter()
            .all(|&at| with.find_sys_reg_dev(at).is_some())
    );
    assert_eq!(with.iter_sys_reg_dev().count(), registers.len());
}

#[test]
fn the_control_register_says_that_it_is_off() {
    let devices = guest();
    assert_eq!(devices.handle_sys_reg_write(CNTP_CTL_EL0, Qword, 1), Ok(()));
    assert_eq!(devices.handle_sys_reg_read(CNTP_CTL_EL0, Qword), Ok(0));
}

#[cfg(not(miri))]
#[test]
fn the_counter_is_the_host_s() {
    let _machine = machine::exclusive();
    host::privileged::emulate();
    let devices = guest();
    let count = || devices.handle_sys_reg_read(CNTPCT_EL0, Qword).unwrap() as u64;
    assert_eq!(count(), host::time::now());
    host::time::pass(Duration::from_millis(7));
    assert_eq!(count(), host::time::now());
    // Read only.
    assert_eq!(devices.handle_sys_reg_write(CNTPCT_EL0, Qword, 1), Ok(()));
    assert_eq!(count(), host::time::now());
}

#[test]
fn a_value_sets_the_timer() {
    let _machine = machine::exclusive();
    let devices = guest();
    host::take_injected();
    devices
        .handle_sys_reg_write(CNTP_TVAL_EL0, Qword, 500)
        .unwrap();
    let deadline = Duration::from_nanos(host::time::now() + 500);
    assert_eq!(host::time::deadlines(), [deadline]);
    host::time::pass(Duration::from_nanos(499));
    assert_eq!(host::take_injected(), []);
    host::time::pass(Duration::from_nanos(1));
    assert_eq!(host::take_injected(), [PPI]);
    assert_eq!(host::time::deadlines(), []);
}

#[test]
fn no_value_that_a_guest_writes_or_reads_does_harm() {
    let _machine = machine::exclusive();
    let devices = guest();
    assert_eq!(devices.handle_sys_reg_read(CNTP_TVAL_EL0, Qword), Ok(0));
    host::take_injected();
    // The latest time; one with reserved bits; times in the past.
    let values = [
        0x7fff_ffff,
        0xffff_ffff_0000_0010,
        0xffff_ffff,
        usize::MAX,
        0x8000_0000,
    ];
    for value in values {
        devices
            .handle_sys_reg_write(CNTP_TVAL_EL0, Qword, value)
            .unwrap();
    }
    let after = [0, 0, 0, 0x10, 0x7fff_ffff];
    let deadlines = after.map(|after| Duration::from_nanos(host::time::now() + after));
    assert_eq!(host::time::deadlines(), deadlines);
    host::time::pass(Duration::ZERO);
    assert_eq!(host::take_injected(), [PPI; 3]);
    host::time::pass(Duration::from_secs(3));
    assert_eq!(host::take_injected(), [PPI; 2]);
}

#[test]
fn when_axvm_adds_it_too_the_first_stays() {
    let devices = AxVmDevices::builder().with_virtual_timer().build().unwrap();
    let before = devices.snapshot().to_string();
    // As axvm 0.5.9 does, which ignores the result.
    let lines = logged(|| {
        for device in get_sysreg_device() {
            let error = devices.add_sys_reg_dev(device).unwrap_err();
            let Refusal::Overlap { owner, .. } = error.refusal() else {
                panic!("{error}");
            };
            let snapshot = devices.snapshot();
            assert!(snapshot.sys_reg().any(|(id, ..)| id == owner));
        }
    });
    assert_eq!(devices.snapshot().to_string(), before);
    assert_eq!(lines.len(), 3);
    for (line, owner) in lines.iter().zip(["#1", "#2", "#3"]) {
        assert!(
            line.starts_with("ERROR ") && line.contains("overlaps"),
            "{line}"
        );
        assert!(line.contains(&format!(" of device {owner} ")), "{line}");
    }
}

#[test]
fn when_axvm_adds_it_alone_nothing_is_refused() {
    let devices = AxVmDevices::new(config(&[]));
    let added = get_sysreg_device()
        .into_iter()
        .map(|device| devices.add_sys_reg_dev(device));
    assert_eq!(added.filter(Result::is_ok).count(), 3);
}

#[test]
fn an_entry_that_wants_its_registers_is_refused_by_name() {
    let built = SharedVmDevices::builder()
        .config(config(&[entry(Console, 0, 0, &[])]))
        .factory(Console, |_, batch| {
            batch.add_sys_reg_dev(Echo::<SysRegAddrRange>::new(CNTPCT_EL0.0, CNTPCT_EL0.0))?;
            Ok(())
        })
        .with_virtual_timer()
        .build();
    let error = built.unwrap_err();
    assert_eq!(error.index, 0);
    assert!(matches!(error.fault, ConfigFault::Overlap { owner, .. } if owner == "virtual timer"));
}
