//! [`Miss`]: why an access has nobody to call.

use core::fmt;

use crate::{span::Span, table::Row};

/// Why an access has nobody to call. The bus and the address are known to whoever made the access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Miss {
    /// Nobody owns its first address.
    Nobody,
    /// It starts in this span and runs past the end.
    Crosses(Span),
    /// The devices are withdrawn for the moment, by a front end that replaces them.
    Withdrawn,
}

impl Miss {
    /// That of an access at an address which this row holds, or none does.
    #[inline(always)]
    pub(crate) fn at<D: ?Sized>(holder: Option<&Row<D>>) -> Self {
        holder.map_or(Self::Nobody, |row| Self::Crosses(row.span))
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("no device owns the address"),
            Self::Crosses(span) => write!(f, "the access runs past the end of {span}"),
            Self::Withdrawn => f.write_str("the devices are withdrawn"),
        }
    }
}

impl core::error::Error for Miss {}
