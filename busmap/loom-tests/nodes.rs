//! Snapshots for the models of the cell: two nodes that are reused, so addresses recur as with an
//! allocator. The counts of references are atomics that loom sees.

use super::watched::Watched;
use crate::{
    publish::slots::counted::Counted,
    sync::{AtomicBool, AtomicUsize, Ordering},
};

/// The content of a node that is free.
const POISON: usize = usize::MAX;

/// A snapshot in the model.
pub(super) struct Node {
    content: Watched,
    references: AtomicUsize,
    in_use: AtomicBool,
}

impl Node {
    fn new() -> Self {
        Self {
            content: Watched::new(POISON),
            references: AtomicUsize::new(0),
            in_use: AtomicBool::new(false),
        }
    }

    /// The value of the snapshot: never poison.
    pub(super) fn read(&self) -> usize {
        let content = self.content.read();
        assert_ne!(content, POISON, "a guarded snapshot was freed");
        content
    }
}

/// The nodes of one model.
pub(super) struct Pool([Node; 2]);

/// All pools. Miri does not report memory as leaked if a static refers to it.
#[cfg(not(loom))]
static POOLS: std::sync::Mutex<Vec<&'static Pool>> = std::sync::Mutex::new(Vec::new());

impl Pool {
    /// A pool that lives as long as the process, because plain pointers refer to its nodes. It is small.
    pub(super) fn new() -> &'static Self {
        let pool = Box::leak(Box::new(Self([Node::new(), Node::new()])));
        #[cfg(not(loom))]
        POOLS.lock().expect("no holder panics").push(pool);
        pool
    }

    /// A snapshot that holds `content`, if a node is free.
    pub(super) fn snapshot(&'static self, content: usize) -> Option<Reference> {
        let taken = |node: &&Node| {
            let order = (Ordering::Acquire, Ordering::Relaxed);
            node.in_use
                .compare_exchange(false, true, order.0, order.1)
                .is_ok()
        };
        let node = self.0.iter().find(taken)?;
        // The node was free, and no other thread can take it now.
        node.content.write(content);
        node.references.store(1, Ordering::Relaxed);
        Some(Reference(node))
    }

    /// Checks that every node was freed.
    pub(super) fn assert_all_free(&self) {
        for node in &self.0 {
            assert!(
                !node.in_use.load(Ordering::Acquire),
                "a snapshot was leaked"
            );
        }
    }
}

/// A counted reference to a node.
pub(super) struct Reference(&'static Node);

impl Reference {
    pub(super) fn read(&self) -> usize {
        self.0.read()
    }
}

// SAFETY: references are counted as in `std::sync::Arc`, and nodes live forever.
unsafe impl Counted for Reference {
    type Target = Node;

    fn into_raw(self) -> *mut Node {
        std::mem::ManuallyDrop::new(self).as_ptr()
    }

    unsafe fn from_raw(ptr: *mut Node) -> Self {
        // SAFETY: the pointer came from `into_raw`, and nodes live forever.
        Self(unsafe { &*ptr })
    }

    unsafe fn count(ptr: *mut Node) {
        // SAFETY: as in `from_raw`.
        let node = unsafe { &*ptr };
        let before = node.references.fetch_add(1, Ordering::Relaxed);
        assert_ne!(before, 0, "a reference to a freed snapshot was counted");
    }

    unsafe fn give_up(ptr: *mut Node) {
        // SAFETY: as in `from_raw`.
        let node = unsafe { &*ptr };
        let before = node.references.fetch_sub(1, Ordering::Release);
        assert!(before > 1, "a reader had the last reference");
    }

    fn as_ptr(&self) -> *mut Node {
        let node: *const Node = self.0;
        node.cast_mut()
    }

    fn is_last(&self) -> bool {
        self.0.references.load(Ordering::Acquire) == 1
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        // Without an acquire fence: in loom it would also acquire what earlier threads have read
        // `Relaxed`, and hide that they should have acquired it.
        let before = self.0.references.fetch_sub(1, Ordering::AcqRel);
        assert_ne!(before, 0, "a reference was given up twice");
        if before == 1 {
            assert!(!role::is_reader(), "a reader freed a snapshot");
            self.0.content.write(POISON);
            self.0.in_use.store(false, Ordering::Release);
        }
    }
}

/// The role of the current thread: readers must not free.
pub(super) mod role {
    use std::cell::Cell;

    #[cfg(loom)]
    loom::thread_local! {
        static READER: Cell<bool> = Cell::new(false);
    }
    #[cfg(not(loom))]
    thread_local! {
        static READER: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `f` as a reader.
    pub(crate) fn reader<T>(f: impl FnOnce() -> T) -> T {
        run(true, f)
    }

    /// Runs `f` as a writer, even if it interrupts a reader.
    #[cfg(loom)]
    pub(crate) fn writer<T>(f: impl FnOnce() -> T) -> T {
        run(false, f)
    }

    fn run<T>(as_reader: bool, f: impl FnOnce() -> T) -> T {
        let before = READER.with(|reader| reader.replace(as_reader));
        let result = f();
        READER.with(|reader| reader.set(before));
        result
    }

    pub(super) fn is_reader() -> bool {
        READER.with(Cell::get)
    }
}
