//! [`Owners`]: what keeps the devices of a table alive.

use alloc::vec::Vec;

use crate::{
    error::Refusal,
    sync::Arc,
    table::{Registration, reserve, reserved},
};

/// How many counts a change copies, and how many devices one count of a chunk keeps: about the root
/// of a thousand devices, for which the two together are least. Under Miri, whose tables are small, few:
/// most of its time went into copies of empty seats.
const CHUNK: usize = if cfg!(miri) { 4 } else { 32 };

/// A piece of the owners, which tables share until one of them is changed there.
type Chunk<D> = [Option<Arc<Registration<D>>>; CHUNK];

/// A count of every registration that a table lists, each at a seat that it has for good.
///
/// Counts are what a copy of a table would cost most: two read-modify-writes for each device, one to
/// take it and one to give it up. So they stand in chunks: copying takes a count of each chunk, and a
/// change copies only the chunk that it is in.
pub(crate) struct Owners<D: ?Sized>(Vec<Arc<Chunk<D>>>);

impl<D: ?Sized> Owners<D> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// A copy, with the same seats.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn try_clone(&self) -> Result<Self, Refusal> {
        let mut chunks = reserved(self.0.len() + 1)?;
        chunks.extend_from_slice(&self.0);
        Ok(Self(chunks))
    }

    /// Seats a registration, and says where.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn seat(&mut self, registration: Arc<Registration<D>>) -> Result<usize, Refusal> {
        let free = |(c, chunk): (usize, &Arc<Chunk<D>>)| {
            let i = chunk.iter().position(Option::is_none)?;
            Some(c * CHUNK + i)
        };
        // From the last on, which is where there is room unless devices were removed.
        let seat = match self.0.iter().enumerate().rev().find_map(free) {
            Some(seat) => seat,
            None => {
                reserve(&mut self.0, 1)?;
                self.0.push(Arc::new([const { None }; CHUNK]));
                (self.0.len() - 1) * CHUNK
            }
        };
        *self.at(seat) = Some(registration);
        Ok(seat)
    }

    /// Vacates a seat.
    pub(crate) fn vacate(&mut self, seat: usize) -> Option<Arc<Registration<D>>> {
        let registration = self.at(seat).take();
        while self
            .0
            .pop_if(|last| last.iter().all(Option::is_none))
            .is_some()
        {}
        registration
    }

    /// Who is at a seat.
    pub(crate) fn get(&self, seat: usize) -> Option<&Arc<Registration<D>>> {
        self.0.get(seat / CHUNK)?[seat % CHUNK].as_ref()
    }

    /// The seat, in a chunk that no other table shares.
    fn at(&mut self, seat: usize) -> &mut Option<Arc<Registration<D>>> {
        &mut Arc::make_mut(&mut self.0[seat / CHUNK])[seat % CHUNK]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        device::DeviceId,
        span::Span,
        table::{Entry, Mount},
    };

    fn registration(id: u64) -> Arc<Registration<str>> {
        let span = Span::new(0, 0).unwrap();
        Entry::new(span, DeviceId::new(id), None, Mount::bare("device".into())).registration
    }

    /// So many seated, in the order of their ids.
    fn seated(n: usize) -> (Owners<str>, Vec<Arc<Registration<str>>>) {
        let registrations: Vec<_> = (0..n as u64).map(registration).collect();
        let mut owners = Owners::new();
        for (seat, registration) in registrations.iter().enumerate() {
            assert_eq!(owners.seat(registration.clone()), Ok(seat));
        }
        (owners, registrations)
    }

    #[test]
    fn a_change_copies_one_chunk_and_shares_the_others() {
        let (one, registrations) = seated(3 * CHUNK);
        let mut two = one.try_clone().unwrap();
        let counts = || registrations.iter().map(Arc::strong_count);
        assert!(counts().all(|count| count == 2), "here, and in both");
        drop(two.vacate(CHUNK));
        let copied: Vec<_> = counts().collect();
        assert_eq!(copied[CHUNK], 2, "it is not in the copy");
        assert_eq!(copied[CHUNK + 1..2 * CHUNK], [3; CHUNK - 1]);
        assert_eq!(copied[..CHUNK], [2; CHUNK]);
        assert_eq!(copied[2 * CHUNK..], [2; CHUNK]);
        // No more are copied for another change there.
        drop(two.vacate(CHUNK + 1));
        assert!(one.get(CHUNK).is_some() && two.get(CHUNK).is_none());
        drop(one);
        assert_eq!(
            counts().collect::<Vec<_>>()[CHUNK - 1..CHUNK + 3],
            [2, 1, 1, 2]
        );
    }

    #[test]
    fn a_seat_is_kept_until_it_is_vacated_and_then_taken_again() {
        let (mut owners, registrations) = seated(2 * CHUNK);
        let new = registration(999);
        let gone = owners.vacate(3).unwrap();
        assert!(Arc::ptr_eq(&gone, &registrations[3]) && owners.get(3).is_none());
        assert!(Arc::ptr_eq(owners.get(4).unwrap(), &registrations[4]));
        assert_eq!(owners.seat(new.clone()), Ok(3));
        assert_eq!(owners.seat(new), Ok(2 * CHUNK));
    }

    #[test]
    fn chunks_without_owners_go() {
        let (mut owners, _) = seated(2 * CHUNK + 1);
        (1..=2 * CHUNK).for_each(|seat| drop(owners.vacate(seat)));
        assert_eq!(owners.0.len(), 1);
        assert!(owners.get(0).is_some() && owners.get(CHUNK).is_none());
        drop(owners.vacate(0));
        assert!(owners.0.is_empty());
    }
}
