//! The options, from the command line of the machine.

use core::time::Duration;

/// The options of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Options {
    /// The time for which the guests run while devices are added and changed.
    pub(crate) length: Duration,
    /// The fault to make, if any.
    pub(crate) sabotage: Option<Sabotage>,
}

/// A fault to make. Each is for one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// One of the board's.
    Board(board::Sabotage),
    /// The interrupt controller lacks the guest's interrupts, or has too few contexts.
    Chip,
    /// The system register loses its upper half.
    #[cfg(target_arch = "aarch64")]
    SysReg,
    /// The beat is written twice.
    Beat,
    /// The last CPU has no timer interrupts.
    Deaf,
    /// The hypervisor panics.
    Panic,
    /// A guest panics.
    Guest,
    /// CPU 0 stops.
    Silence,
}

impl Sabotage {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("chip", Self::Chip),
        #[cfg(target_arch = "aarch64")]
        ("sysreg", Self::SysReg),
        ("beat", Self::Beat),
        ("deaf", Self::Deaf),
        ("panic", Self::Panic),
        ("guest", Self::Guest),
        ("silence", Self::Silence),
    ];

    /// The fault, if it is one of the board's.
    pub(crate) fn of_board(self) -> Option<board::Sabotage> {
        match self {
            Self::Board(sabotage) => Some(sabotage),
            _ => None,
        }
    }

    /// The fault of this name.
    fn named(name: &str) -> Option<Self> {
        let own = Self::NAMES.iter().find(|(known, _)| *known == name);
        let of_board = || board::Sabotage::named(name).map(Self::Board);
        own.map(|(_, sabotage)| *sabotage).or_else(of_board)
    }
}

impl Options {
    /// Reads the options in `words`.
    ///
    /// # Panics
    ///
    /// On a word that is not an option.
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
                    let sabotage = Sabotage::named(wanted);
                    assert!(sabotage.is_some(), "no sabotage has the name {wanted}");
                    options.sabotage = sabotage;
                }
                _ => panic!("{word} is no option"),
            }
        }
        options
    }
}
