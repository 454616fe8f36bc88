//! The EL1 physical timer of a guest on Arm, which crate `arm_vgic` emulates. The register names are those of the Arm
//! Architecture Reference Manual, DDI 0487.

use arm_vgic::vtimer::{SysCntpCtlEl0, SysCntpTvalEl0, SysCntpctEl0};
use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, SysRegAddr, SysRegAddrRange};
use axdevice_base::BaseDeviceOps;

use crate::{
    batch::Batch,
    bus::DeviceBound,
    guards::{
        enter::{Enter, Occupancy::Shared},
        guard::Guard,
    },
    mount,
    refusal::Refusal,
};

/// Records the timer's three registers.
pub(crate) fn virtual_timer<B: DeviceBound>(batch: &mut Batch<'_, B>) -> Result<(), Refusal> {
    batch.mount(mount::shared::<B, _, _, _>(SysCntpCtlEl0::new(), ()))?;
    batch.mount(mount::shared::<B, _, _, _>(SysCntpctEl0::new(), ()))?;
    batch.mount(mount::shared::<B, _, _, _>(
        SysCntpTvalEl0::new(),
        TimerValue,
    ))?;
    Ok(())
}

/// Guards CNTP_TVAL_EL0, which the device does not handle correctly: it panics on a read, and adds all
/// 64 bits of a written value to the time.
struct TimerValue;

impl Guard<SysRegAddrRange, SysCntpTvalEl0> for TimerValue {
    /// Returns zero: while the timer is off the value is UNKNOWN, and CNTP_CTL_EL0 reads as off.
    fn read(
        &self,
        _: &impl Enter<Device = SysCntpTvalEl0>,
        _: SysRegAddr,
        _: AccessWidth,
    ) -> AxResult<usize> {
        Ok(0)
    }

    /// Forwards the signed value in the lower 32 bits; the others are RES0. A negative value is a time in the past: the
    /// timer expires immediately.
    fn write(
        &self,
        device: &impl Enter<Device = SysCntpTvalEl0>,
        addr: SysRegAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        let after = u32::try_from(val as i32).unwrap_or(0);
        device.enter(Shared, |device| {
            device.handle_write(addr, width, after as usize)
        })
    }
}
