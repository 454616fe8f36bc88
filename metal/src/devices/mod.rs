//! The devices of the VM. None has a lock, but for the queues, which `Serialized` gives one.

mod bar;
mod beat;
mod card;
#[path = "../../../demo/src/devices/latch.rs"]
mod latch;
mod mailbox;
#[path = "../../../demo/src/devices/mortal.rs"]
mod mortal;
#[path = "../../../demo/src/devices/queue.rs"]
mod queue;
#[path = "../../../demo/src/devices/register.rs"]
mod register;
mod slot;
#[cfg(target_arch = "aarch64")]
mod sys_latch;

#[cfg(target_arch = "aarch64")]
pub(crate) use self::sys_latch::SysLatch;
pub(crate) use self::{
    bar::Bar,
    beat::Beat,
    card::{Card, Noticed},
    latch::Latch,
    mailbox::Mailbox,
    mortal::Mortal,
    queue::Queue,
    slot::Slot,
};
