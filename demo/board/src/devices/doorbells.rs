//! The doorbells of the devices that guests move.

/// The host's doorbells. By default there are none: each write to one is an exit.
pub trait Doorbells: Send + Sync {
    /// The device of `vcpu` has moved.
    fn moved(&self, _vcpu: u32) {}

    /// A write of `vcpu` to its doorbell has caused an exit.
    fn exited(&self, _vcpu: u32) {}

    /// The guest of `vcpu` reports the number of its writes to its doorbell since its last report.
    fn written(&self, _vcpu: u32, _times: u64) {}
}

/// No doorbells.
impl Doorbells for () {}
