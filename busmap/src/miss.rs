//! [`Miss`]: the reason why no device answers an access.

use core::fmt;

use crate::{span::Span, table::Row};

/// The reason why no device answers an access. The caller knows the bus and the address of the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Miss {
    /// No device owns the first address of the access.
    Unmapped,
    /// The access starts in this span and runs past its end.
    Crosses(Span),
    /// The devices are temporarily withdrawn by a front end that replaces them.
    Withdrawn,
}

impl Miss {
    /// The miss of an access. `holder` is the row that holds its first address, if there is one.
    #[inline(always)]
    pub(crate) fn at<D: ?Sized>(holder: Option<&Row<D>>) -> Self {
        holder.map_or(Self::Unmapped, |row| Self::Crosses(row.span))
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unmapped => f.write_str("no device owns the address"),
            Self::Crosses(span) => write!(f, "the access runs past the end of {span}"),
            Self::Withdrawn => f.write_str("the devices are withdrawn"),
        }
    }
}

impl core::error::Error for Miss {}
