//! The devices that are not on the board. None has a lock.

mod beat;
#[cfg(target_arch = "aarch64")]
mod sys_latch;

pub(crate) use self::beat::Beat;
#[cfg(target_arch = "aarch64")]
pub(crate) use self::sys_latch::SysLatch;
