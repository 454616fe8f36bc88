//! [`Missed`]: the most frequent addresses on one bus that no device answers, of one vCPU or of many.

use alloc::vec::Vec;

/// The maximum number of listed addresses.
pub(crate) const LISTED: usize = 16;

/// The accesses on one bus that no device answered, and their most frequent addresses.
///
/// A missed access counts at its first address, even if it starts in a device and runs past its end.
///
/// At most 16 addresses are listed, by the algorithm Space-Saving (A. Metwally, D. Agrawal, A. El Abbadi: Efficient
/// computation of frequent and top-k elements in data streams, ICDT 2005). A merged list has the same guarantees,
/// because merging adds no more error than a single list of all accesses would have (P. K. Agarwal and others:
/// Mergeable summaries, PODS 2012):
///
/// - A listed address was missed at most [`count`](MissedAddress::count) times, and at least
///   `count - error` times.
/// - An address that is not listed was missed at most [`unlisted`](Self::unlisted) times. That is not
///   above `total / 16`: so every address with more than a sixteenth of the misses is listed.
/// - No [`error`](MissedAddress::error) is above `total / 16` either. While there are no more than 16
///   different addresses all counts are exact, and `unlisted` is 0.
///
/// This holds for the first 4,096 misses of a vCPU on a bus. Later misses are sampled at random distances of 1 to 128: a
/// sampled miss counts for all misses since the one before. Then `count`, `error` and `unlisted` are estimates, which a
/// guest that computes the distances can falsify; `total` stays exact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Missed {
    /// The number of missed accesses, at all addresses.
    pub total: u64,
    /// The most frequent addresses, by descending count.
    pub addresses: Vec<MissedAddress>,
    /// An upper bound on the number of misses at an address that is not listed.
    pub unlisted: u64,
}

/// One of the most frequent addresses of the accesses that no device answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissedAddress {
    /// The first address of each access.
    pub address: u64,
    /// An upper bound on the number of misses at the address.
    pub count: u64,
    /// `count` is too high by at most this number.
    pub error: u64,
}

impl MissedAddress {
    /// A lower bound on the number of misses at the address.
    pub const fn at_least(&self) -> u64 {
        self.count.saturating_sub(self.error)
    }
}

impl Missed {
    /// Adds the misses of another list, such as that of another vCPU.
    pub fn merge(&mut self, other: &Self) {
        let in_both = (self.addresses.iter())
            .map(|one| one.plus(other.of(one.address)))
            .collect::<Vec<_>>();
        let in_other_only = (other.addresses.iter())
            .filter(|one| !self.addresses.iter().any(|of| of.address == one.address))
            .map(|one| one.plus(self.of(one.address)));
        let mut all = in_both;
        all.extend(in_other_only);
        all.sort_by(|a, b| (b.count, a.address).cmp(&(a.count, b.address)));
        // An address in neither list was missed at most as often as the sum of the two bounds. An address that leaves
        // the list now was missed at most `count` times, which is not below that sum.
        self.unlisted = match all.get(LISTED) {
            Some(first_dropped) => first_dropped.count,
            None => self.unlisted.saturating_add(other.unlisted),
        };
        all.truncate(LISTED);
        self.addresses = all;
        self.total = self.total.saturating_add(other.total);
    }

    /// The bounds for an address, listed or not.
    fn of(&self, address: u64) -> MissedAddress {
        let listed = self.addresses.iter().find(|of| of.address == address);
        listed.copied().unwrap_or(MissedAddress {
            address,
            count: self.unlisted,
            error: self.unlisted,
        })
    }
}

impl MissedAddress {
    fn plus(self, other: Self) -> Self {
        Self {
            address: self.address,
            count: self.count.saturating_add(other.count),
            error: self.error.saturating_add(other.error),
        }
    }
}
