//! [`Unmapped`]: the policy for an access that no device answers.

/// The policy for an access that no device answers: an access to an address without an owner, or past the end of the
/// device in which it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unmapped {
    /// Panics with "emu_device not found", as 0.4.10 does, followed by the bus, the address and the width. A guest can
    /// therefore crash the host. An access past a device's end, for which 0.4.10 does not panic, returns
    /// [`InvalidInput`](ax_errno::AxError::InvalidInput).
    Panic,
    /// Returns [`NotFound`](ax_errno::AxError::NotFound).
    Error,
    /// A read returns the value of an undriven bus: all ones in the access's width (system registers: zero). A write is
    /// ignored.
    Float,
}

impl Default for Unmapped {
    /// [`Panic`](Self::Panic), as in 0.4.10; with the cargo feature `float-unmapped`,
    /// [`Float`](Self::Float).
    fn default() -> Self {
        if cfg!(feature = "float-unmapped") {
            Self::Float
        } else {
            Self::Panic
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_that_of_the_feature() {
        let float = cfg!(feature = "float-unmapped");
        let default = if float {
            Unmapped::Float
        } else {
            Unmapped::Panic
        };
        assert_eq!(Unmapped::default(), default);
    }
}
