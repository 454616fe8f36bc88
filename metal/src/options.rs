//! The options, from the command line that the machine was started with.

use core::time::Duration;

/// What a run is to be like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// How long the guests run while devices are added and changed.
    pub(crate) length: Duration,
    /// What is to go wrong, if anything.
    pub(crate) sabotage: Option<Sabotage>,
}

/// What can be made to go wrong, each for a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// The first hot-added device answers wrongly.
    Slot,
    /// The new card of a shift is added after the others have moved.
    Shift,
    /// A removed card is poisoned at once.
    Poison,
    /// Devices that are to move themselves stay where they are.
    Bar,
    /// The interrupt controller does not know the guest's interrupts, or has too few contexts.
    Chip,
    /// The system register loses its upper half.
    #[cfg(target_arch = "aarch64")]
    SysReg,
    /// The beat is written twice.
    Beat,
    /// A card is not told where it moves to.
    Stray,
    /// A device answers with an error.
    Failure,
    /// The last device is not hot-added.
    Unseen,
    /// Somebody keeps the tables.
    Held,
    /// The last CPU has no timer interrupts.
    Deaf,
    /// A vCPU does not come out of a device.
    Hang,
    /// The hypervisor panics.
    Panic,
    /// A guest panics.
    Guest,
    /// CPU 0 does nothing any more.
    Silence,
}

impl Sabotage {
    const ALL: &'static [(&'static str, Self)] = &[
        ("slot", Self::Slot),
        ("shift", Self::Shift),
        ("poison", Self::Poison),
        ("bar", Self::Bar),
        ("chip", Self::Chip),
        #[cfg(target_arch = "aarch64")]
        ("sysreg", Self::SysReg),
        ("beat", Self::Beat),
        ("stray", Self::Stray),
        ("failure", Self::Failure),
        ("unseen", Self::Unseen),
        ("held", Self::Held),
        ("deaf", Self::Deaf),
        ("hang", Self::Hang),
        ("panic", Self::Panic),
        ("guest", Self::Guest),
        ("silence", Self::Silence),
    ];
}

impl Options {
    /// The options that `words` give.
    ///
    /// # Panics
    ///
    /// On a word that is none.
    pub(crate) fn parse(words: &str) -> Self {
        let mut options = Self {
            length: Duration::from_secs(10),
            sabotage: None,
        };
        for word in words.split_ascii_whitespace() {
            match word.split_once('=') {
                Some(("seconds", seconds)) => {
                    let seconds = seconds.parse().expect("a number of seconds");
                    options.length = Duration::from_secs(seconds);
                }
                Some(("sabotage", wanted)) => {
                    let found = Sabotage::ALL.iter().find(|(name, _)| *name == wanted);
                    let found =
                        found.unwrap_or_else(|| panic!("no sabotage has the name {wanted}"));
                    options.sabotage = Some(found.1);
                }
                _ => panic!("{word} is no option"),
            }
        }
        options
    }
}
