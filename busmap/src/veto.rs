//! [`Veto`]: the reason why a listener refuses a change.

use core::{error::Error, fmt};

/// The reason why a [`Listener`](crate::Listener) refuses a change: a text for people, and a number for programs.
///
/// # Examples
///
/// ```
/// use busmap::Veto;
///
/// let veto = Veto::new("no doorbell at the new place").with_code(17);
/// assert_eq!(veto.to_string(), "no doorbell at the new place (code 17)");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Veto {
    reason: &'static str,
    code: i32,
}

impl Veto {
    /// A veto with the code 0.
    pub const fn new(reason: &'static str) -> Self {
        Self { reason, code: 0 }
    }

    /// The same with a code of the listener's choice, such as an `errno`.
    #[must_use]
    pub const fn with_code(self, code: i32) -> Self {
        Self { code, ..self }
    }

    /// The reason.
    pub const fn reason(self) -> &'static str {
        self.reason
    }

    /// The code; 0 if none was given.
    pub const fn code(self) -> i32 {
        self.code
    }
}

impl fmt::Display for Veto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self { reason, code: 0 } => f.write_str(reason),
            Self { reason, code } => write!(f, "{reason} (code {code})"),
        }
    }
}

impl Error for Veto {}
