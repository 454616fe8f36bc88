//! [`Registrations`]: the devices of one set of tables, each at its own index.

use alloc::vec::Vec;

use crate::{
    refusal::Refusal,
    reserve::{reserve, reserved},
    sync::Arc,
};

/// The number of devices in a chunk. A change copies this number of counts of devices, and one count for each chunk:
/// the sum is smallest at about the square root of the number of devices, here a thousand. Small under Miri, whose
/// tables are small: most of its time was spent on copies of free places.
const CHUNK: usize = if cfg!(miri) { 4 } else { 32 };

/// A part of the registrations. Tables share it until a change edits it.
///
/// The ids' numbers are stored beside the counts, so a search for an id does not read the registrations.
type Chunk<R> = [Option<(u64, Arc<R>)>; CHUNK];

/// A count of every registration, each at a fixed index.
///
/// Counts would be the largest cost of a copy: two read-modify-writes for each device, one to take the count and one to
/// drop it. So the counts are grouped in chunks: a copy takes one count of each chunk, and a change copies only the
/// chunk that it edits.
pub(crate) struct Registrations<R> {
    chunks: Vec<Arc<Chunk<R>>>,
    /// No place below this index is free.
    free_from: usize,
}

impl<R> Registrations<R> {
    pub(crate) const fn new() -> Self {
        Self {
            chunks: Vec::new(),
            free_from: 0,
        }
    }

    /// A copy, with the same indices.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn try_clone(&self) -> Result<Self, Refusal> {
        let mut chunks = reserved(self.chunks.len() + 1)?;
        chunks.extend_from_slice(&self.chunks);
        let free_from = self.free_from;
        Ok(Self { chunks, free_from })
    }

    /// Adds a registration with a unique number, and returns its index.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn insert(&mut self, number: u64, registration: Arc<R>) -> Result<usize, Refusal> {
        let free = |(c, chunk): (usize, &Arc<Chunk<R>>)| {
            let i = chunk.iter().position(Option::is_none)?;
            Some(c * CHUNK + i)
        };
        let chunks = self.chunks.iter().enumerate();
        let index = match chunks.skip(self.free_from / CHUNK).find_map(free) {
            Some(index) => index,
            None => {
                reserve(&mut self.chunks, 1)?;
                self.chunks.push(Arc::new([const { None }; CHUNK]));
                (self.chunks.len() - 1) * CHUNK
            }
        };
        self.free_from = index + 1;
        *self.at(index) = Some((number, registration));
        Ok(index)
    }

    /// Removes and returns the registration at an index.
    pub(crate) fn remove(&mut self, index: usize) -> Option<Arc<R>> {
        let registration = self.at(index).take();
        let is_empty = |chunk: &mut Arc<Chunk<R>>| chunk.iter().all(Option::is_none);
        while self.chunks.pop_if(is_empty).is_some() {}
        self.free_from = self.free_from.min(index);
        registration.map(|(_, registration)| registration)
    }

    /// The registration at an index.
    pub(crate) fn get(&self, index: usize) -> Option<&Arc<R>> {
        let (_, registration) = self.chunks.get(index / CHUNK)?[index % CHUNK].as_ref()?;
        Some(registration)
    }

    /// An exclusive upper bound of the indices.
    pub(crate) const fn places(&self) -> usize {
        self.chunks.len() * CHUNK
    }

    /// The index of the registration with this number. Searches the last chunks first.
    pub(crate) fn index_of(&self, number: u64) -> Option<usize> {
        let is_at = |place: &Option<(u64, Arc<R>)>| matches!(place, Some((at, _)) if *at == number);
        let chunks = self.chunks.iter().enumerate().rev();
        let mut found = chunks.filter_map(|(c, chunk)| Some((c, chunk.iter().position(is_at)?)));
        found.next().map(|(c, i)| c * CHUNK + i)
    }

    /// The registrations in chunks that are not shared with `old`, with their indices.
    pub(crate) fn not_shared_with(&self, old: &Self) -> impl Iterator<Item = (usize, &Arc<R>)> {
        let chunks = self.chunks.iter().enumerate();
        let is_shared = |c: usize, chunk: &Arc<Chunk<R>>| {
            (old.chunks.get(c)).is_some_and(|old| Arc::ptr_eq(old, chunk))
        };
        let changed = chunks.filter(move |&(c, chunk)| !is_shared(c, chunk));
        changed.flat_map(|(c, chunk)| {
            let places = chunk.iter().enumerate();
            places.filter_map(move |(i, place)| Some((c * CHUNK + i, &place.as_ref()?.1)))
        })
    }

    /// All of them, in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<R>> {
        let places = self.chunks.iter().flat_map(|chunk| chunk.iter());
        places.filter_map(|place| place.as_ref().map(|(_, registration)| registration))
    }

    /// The place at an index, in a chunk that no other tables share.
    fn at(&mut self, index: usize) -> &mut Option<(u64, Arc<R>)> {
        &mut Arc::make_mut(&mut self.chunks[index / CHUNK])[index % CHUNK]
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    type Inserted = (Registrations<usize>, Vec<(u64, Arc<usize>)>);

    /// `n` registrations, in the order of their numbers.
    fn inserted(n: usize) -> Inserted {
        let all: Vec<_> = (0..n).map(|i| (i as u64 + 1, Arc::new(i))).collect();
        let mut registrations = Registrations::new();
        for (index, (id, registration)) in all.iter().enumerate() {
            assert_eq!(registrations.insert(*id, registration.clone()), Ok(index));
        }
        (registrations, all)
    }

    #[test]
    fn a_change_copies_one_chunk_and_shares_the_others() {
        let (one, all) = inserted(3 * CHUNK);
        let mut two = one.try_clone().unwrap();
        let counts = || all.iter().map(|(_, of)| Arc::strong_count(of));
        assert!(counts().all(|count| count == 2), "here, and in both");
        drop(two.remove(CHUNK));
        let copied: Vec<_> = counts().collect();
        assert_eq!(copied[CHUNK], 2, "it is not in the copy");
        assert_eq!(copied[CHUNK + 1..2 * CHUNK], [3; CHUNK - 1]);
        assert_eq!(copied[..CHUNK], [2; CHUNK]);
        assert_eq!(copied[2 * CHUNK..], [2; CHUNK]);
        // Another change there copies no further chunk.
        drop(two.remove(CHUNK + 1));
        assert!(one.get(CHUNK).is_some() && two.get(CHUNK).is_none());
        drop(one);
        assert_eq!(
            counts().collect::<Vec<_>>()[CHUNK - 1..CHUNK + 3],
            [2, 1, 1, 2]
        );
    }

    #[test]
    fn an_index_is_kept_until_its_registration_is_removed_and_then_used_again() {
        let (mut registrations, all) = inserted(2 * CHUNK);
        let (id, other) = (1_000, 1_001);
        let gone = registrations.remove(3).unwrap();
        assert!(Arc::ptr_eq(&gone, &all[3].1) && registrations.get(3).is_none());
        assert!(Arc::ptr_eq(registrations.get(4).unwrap(), &all[4].1));
        assert_eq!(registrations.insert(id, gone.clone()), Ok(3));
        assert_eq!(registrations.insert(other, gone), Ok(2 * CHUNK));
    }

    #[test]
    fn a_number_leads_to_its_index() {
        let (mut registrations, all) = inserted(2 * CHUNK + 1);
        for (index, (id, _)) in all.iter().enumerate() {
            assert_eq!(registrations.index_of(*id), Some(index));
        }
        drop(registrations.remove(CHUNK));
        assert_eq!(registrations.index_of(all[CHUNK].0), None);
        assert_eq!(registrations.index_of(1_000), None);
        assert_eq!(registrations.iter().count(), 2 * CHUNK);
    }

    #[test]
    fn empty_chunks_are_freed() {
        let (mut registrations, _) = inserted(2 * CHUNK + 1);
        (1..=2 * CHUNK).for_each(|index| drop(registrations.remove(index)));
        assert_eq!(registrations.chunks.len(), 1);
        assert!(registrations.get(0).is_some() && registrations.get(CHUNK).is_none());
        drop(registrations.remove(0));
        assert!(registrations.chunks.is_empty());
    }
}
