//! Faults of the board. Each is for one check.

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The scratch registers of the first hot-added device flip a bit.
    Slot,
    /// Those registers return an error.
    Failure,
    /// An access to those registers does not return.
    Hang,
    /// The last device that is hot-added is announced, but not registered.
    Hidden,
    /// The last device is neither registered nor announced.
    Unseen,
    /// The new card of a shift is added after the others have moved.
    Shift,
    /// Cards do not know the bay to which they move.
    Stray,
    /// A removed card is poisoned at once.
    Poison,
    /// Devices that should move themselves stay where they are.
    Bar,
    /// The first vCPU stays in a device, busy, and the second one asleep, until the end.
    Stuck,
    /// A handle keeps the tables from before the first change.
    Hold,
}

impl Sabotage {
    const NAMES: [(&str, Self); 11] = [
        ("slot", Self::Slot),
        ("failure", Self::Failure),
        ("hang", Self::Hang),
        ("hidden", Self::Hidden),
        ("unseen", Self::Unseen),
        ("shift", Self::Shift),
        ("stray", Self::Stray),
        ("poison", Self::Poison),
        ("bar", Self::Bar),
        ("stuck", Self::Stuck),
        ("hold", Self::Hold),
    ];

    /// The fault of this name.
    pub fn named(name: &str) -> Option<Self> {
        let named = Self::NAMES.iter().find(|(known, _)| *known == name);
        named.map(|(_, sabotage)| *sabotage)
    }
}
