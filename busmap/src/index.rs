//! [`Index`]: which few of a table's sorted first addresses an address has to be compared with.

use alloc::vec::Vec;

use crate::{
    refusal::Refusal,
    reserve::{reserve, reserved},
};

/// The most levels of nodes that a tree has.
const LEVELS: usize = 6;

/// The most children of a node that is not of the last level.
const FAN: u64 = 64;

/// About how many instructions a level takes, and how many an access in a crowded leaf takes in addition. Their
/// ratio decides how many levels a tree has.
const LEVEL_COST: usize = 14;
const CROWD_COST: usize = 120;

/// A radix tree over the first addresses of a bus's spans.
///
/// It cuts the address space into *leaves*, and knows how many spans start below each. Where at most one span
/// starts in a leaf, one comparison more gives the number of spans that start at or below an
/// address. A leaf in which more start is *crowded*: an address there needs a search among them.
///
/// All paths from the root to a leaf are equally long, so that a processor predicts every branch of a walk.
/// As in a page table whose entries skip what all addresses have in common, each node has a base and a
/// granularity of its own: clusters of spans far from each other get leaves as fine as each needs.
/// How many levels there are depends on where the spans lie: one, if they lie at even distances.
///
/// A change of one span costs a pass over the leaves' counts. The tree is built anew when too many leaves
/// have become crowded, or after as many changes as half of the spans.
///
/// Pure data.
///
/// # Invariants
///
/// *Counted*: `below` is empty, and the index knows nothing; or it has one more element than there are leaves,
/// `below[leaf]` is the number of first addresses whose leaf is lower, and the last is the number of all.
pub(crate) struct Index {
    root: Node,
    /// Levels of nodes, the root's included.
    levels: usize,
    /// All nodes but the root, level by level, the children of one side by side, ascending.
    nodes: Vec<Node>,
    below: Vec<u16>,
    /// How many spans start in crowded leaves, and how many may.
    crowded: usize,
    tolerated: usize,
    /// How many more changes the tree lasts.
    lifetime: usize,
}

/// A node: a run of children of equal size, but that the first one has all addresses below the others, and
/// the last one all above.
#[derive(Clone, Copy)]
struct Node {
    /// The lowest address of the first child that counts.
    base: u64,
    /// The size of a child, as a power of two.
    shift: u32,
    /// Where the first child is: among the nodes, or for the last level the leaves. The root's is the first there.
    children: u32,
    /// The number of children, less one.
    last: u64,
}

impl Node {
    /// A node with one child.
    const fn pass(child: usize) -> Self {
        Self {
            base: 0,
            shift: 0,
            children: child as u32,
            last: 0,
        }
    }

    /// A node with at most `fan` children for the addresses from `base` to `top`, inclusive.
    fn over(base: u64, top: u64, fan: u64, children: usize) -> Self {
        let reach = top - base;
        // The first shift that leaves fewer than `fan`.
        let mut shift = (u64::BITS - reach.leading_zeros()).saturating_sub(fan.ilog2() + 1);
        while reach >> shift >= fan {
            shift += 1;
        }
        Self {
            base,
            shift,
            children: children as u32,
            last: reach >> shift,
        }
    }

    /// Where the child with `addr` is.
    #[inline(always)]
    fn child(&self, addr: u64) -> usize {
        self.children as usize + self.nth(addr.saturating_sub(self.base))
    }

    /// The same of the root, for an address that is not below its base.
    #[inline(always)]
    fn child_of_root(&self, addr: u64) -> usize {
        self.nth(addr.wrapping_sub(self.base))
    }

    #[inline(always)]
    fn nth(&self, offset: u64) -> usize {
        (offset >> (self.shift & 63)).min(self.last) as usize
    }
}

impl Index {
    /// Of no spans.
    pub(crate) const fn new() -> Self {
        Self {
            root: Node::pass(0),
            levels: 1,
            nodes: Vec::new(),
            below: Vec::new(),
            crowded: 0,
            tolerated: 0,
            lifetime: 0,
        }
    }

    /// A copy.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn try_clone(&self) -> Result<Self, Refusal> {
        let mut nodes = reserved(self.nodes.len())?;
        let mut below = reserved(self.below.len())?;
        nodes.extend_from_slice(&self.nodes);
        below.extend_from_slice(&self.below);
        Ok(Self {
            nodes,
            below,
            ..*self
        })
    }

    /// How many of the `firsts` are below the leaf of `addr`, which is not below all of them. Unless the leaf is
    /// crowded, only `firsts[that]` is left to be compared.
    #[inline(always)]
    pub(crate) fn below(&self, addr: u64) -> Option<usize> {
        let below = self.below.get(self.leaf(addr)?)?;
        Some(usize::from(*below))
    }

    /// How many of the `firsts` are at or below `addr`.
    pub(crate) fn rank(&self, firsts: &[u64], addr: u64) -> usize {
        if firsts.first().is_none_or(|&lowest| addr < lowest) {
            return 0;
        }
        let ends = self
            .leaf(addr)
            .and_then(|leaf| self.below.get(leaf..leaf + 2));
        let (from, to) = match ends {
            Some(&[from, to]) => (from.into(), to.into()),
            _ => (0, firsts.len()),
        };
        match &firsts[from..to] {
            [] => from,
            &[only] => from + usize::from(only <= addr),
            many => from + many.partition_point(|&first| first <= addr),
        }
    }

    #[inline(always)]
    fn leaf(&self, addr: u64) -> Option<usize> {
        let mut at = self.root.child_of_root(addr);
        for _ in 1..self.levels {
            at = self.nodes.get(at)?.child(addr);
        }
        Some(at)
    }

    /// Takes note of `first`, which was inserted: `firsts` are all now, and `top` is the last address that is
    /// owned.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`], for a new tree. The index is of no more use then.
    pub(crate) fn inserted(&mut self, first: u64, firsts: &[u64], top: u64) -> Result<(), Refusal> {
        let leaf = self.counted_leaf(first);
        let Some(leaf) = leaf.filter(|_| can_be_counted(firsts)) else {
            return self.rebuild(firsts, top);
        };
        // INVARIANT (Counted): it is below all leaves that come after its own.
        self.below[leaf + 1..].iter_mut().for_each(|n| *n += 1);
        self.crowded += self.crowded_by_one(leaf);
        if self.lifetime == 0 || self.crowded > self.tolerated {
            return self.rebuild(firsts, top);
        }
        self.lifetime -= 1;
        Ok(())
    }

    /// Takes note of `first`, which was removed: `firsts` are all now, and `top` is the last address that is
    /// owned, if any is.
    ///
    /// # Errors
    ///
    /// As for [`inserted`](Self::inserted).
    pub(crate) fn removed(&mut self, first: u64, firsts: &[u64], top: u64) -> Result<(), Refusal> {
        let Some(leaf) = self.counted_leaf(first) else {
            return self.rebuild(firsts, top);
        };
        self.crowded -= self.crowded_by_one(leaf);
        // INVARIANT (Counted): it was below all leaves that come after its own.
        self.below[leaf + 1..].iter_mut().for_each(|n| *n -= 1);
        if self.lifetime == 0 || firsts.is_empty() {
            return self.rebuild(firsts, top);
        }
        self.lifetime -= 1;
        Ok(())
    }

    /// The leaf of `addr`, if the index knows anything of it.
    fn counted_leaf(&self, addr: u64) -> Option<usize> {
        let leaf = self.leaf(addr).filter(|_| addr >= self.root.base)?;
        (leaf + 1 < self.below.len()).then_some(leaf)
    }

    /// How many more spans start in crowded leaves for one of those that start in this leaf.
    fn crowded_by_one(&self, leaf: usize) -> usize {
        match self.starts(leaf) {
            0 | 1 => 0,
            2 => 2,
            _ => 1,
        }
    }

    /// How many spans start in a leaf.
    fn starts(&self, leaf: usize) -> u16 {
        self.below[leaf + 1] - self.below[leaf]
    }

    /// Makes the best tree.
    fn rebuild(&mut self, firsts: &[u64], top: u64) -> Result<(), Refusal> {
        // INVARIANT (Counted): empty, or as `build` makes it.
        *self = if firsts.is_empty() || !can_be_counted(firsts) {
            Self::new()
        } else {
            Self::best(firsts, top)?
        };
        Ok(())
    }

    /// The tree that takes the fewest instructions.
    fn best(firsts: &[u64], top: u64) -> Result<Self, Refusal> {
        let n = firsts.len();
        let cost = |index: &Self| index.levels * LEVEL_COST * n + index.crowded * CROWD_COST;
        let mut best = Self::build(firsts, top, 1)?;
        for levels in 2..=LEVELS {
            if levels * LEVEL_COST * n >= cost(&best) {
                break;
            }
            let next = Self::build(firsts, top, levels)?;
            if cost(&next) < cost(&best) {
                best = next;
            }
        }
        best.tolerated = best.crowded + n / 32;
        best.lifetime = n / 2 + 2;
        Ok(best)
    }

    /// The tree with so many levels.
    fn build(firsts: &[u64], top: u64, levels: usize) -> Result<Self, Refusal> {
        let mut builder = Builder {
            firsts,
            per_span: if firsts.len() <= 128 { 8 } else { 4 },
            index: Self {
                levels,
                ..Self::new()
            },
        };
        // Room at the end for spans that are added there.
        let reach = top - firsts[0];
        let whole = Region {
            from: 0,
            to: firsts.len(),
            top: Some(top.saturating_add(reach / 2)),
        };
        builder.build(whole)?;
        Ok(builder.index)
    }
}

/// Whether the leaves' counts reach as far as the number of all.
fn can_be_counted(firsts: &[u64]) -> bool {
    firsts.len() < usize::from(u16::MAX)
}

/// The addresses of a node before it is made.
#[derive(Clone, Copy)]
struct Region {
    /// The first addresses `firsts[from..to]` are there.
    from: usize,
    to: usize,
    /// The last address that gets a child of its own; `None` for the last that a span starts at.
    top: Option<u64>,
}

struct Builder<'a> {
    firsts: &'a [u64],
    /// How many leaves there are for each span.
    per_span: u64,
    index: Index,
}

impl Builder<'_> {
    fn build(&mut self, whole: Region) -> Result<(), Refusal> {
        let mut regions = reserved(1)?;
        regions.push(whole);
        for level in 1..=self.index.levels {
            regions = self.level(&regions, level == 1, level == self.index.levels)?;
        }
        reserve(&mut self.index.below, 1)?;
        // INVARIANT (Counted): see `child`, and here the number of all.
        self.index.below.push(self.firsts.len() as u16);
        let leaves = self.index.below.windows(2);
        let starts = leaves.map(|ends| usize::from(ends[1] - ends[0]));
        self.index.crowded = starts.filter(|&starts| starts > 1).sum();
        Ok(())
    }

    /// Makes the nodes of a level, and gives the regions of their children.
    fn level(
        &mut self,
        regions: &[Region],
        is_root: bool,
        is_last: bool,
    ) -> Result<Vec<Region>, Refusal> {
        let mut children = Vec::new();
        // Where the next level begins.
        let next = self.index.nodes.len() + if is_root { 0 } else { regions.len() };
        for region in regions {
            let first_child = if is_last {
                self.index.below.len()
            } else {
                next + children.len()
            };
            let node = self.node(*region, first_child, is_last);
            if is_root {
                self.index.root = node;
            } else {
                reserve(&mut self.index.nodes, 1)?;
                self.index.nodes.push(node);
            }
            self.children(node, *region, is_last, &mut children)?;
        }
        Ok(children)
    }

    fn node(&self, region: Region, first_child: usize, is_last: bool) -> Node {
        let spans = (region.to - region.from) as u64;
        let fan = match (spans, is_last) {
            // One comparison tells.
            (0 | 1, _) => return Node::pass(first_child),
            (_, true) => spans * self.per_span,
            (_, false) => spans.clamp(2, FAN),
        };
        let base = self.firsts[region.from];
        let top = region.top.unwrap_or(self.firsts[region.to - 1]);
        Node::over(base, top, fan, first_child)
    }

    /// Appends a node's children.
    fn children(
        &mut self,
        node: Node,
        region: Region,
        is_last: bool,
        regions: &mut Vec<Region>,
    ) -> Result<(), Refusal> {
        let mut from = region.from;
        for child in 0..=node.last {
            let to = if child == node.last {
                region.to
            } else {
                let end = node.base + ((child + 1) << node.shift);
                let here = &self.firsts[from..region.to];
                from + here.iter().take_while(|&&first| first < end).count()
            };
            if is_last {
                reserve(&mut self.index.below, 1)?;
                // INVARIANT (Counted): so many are in leaves before this one.
                self.index.below.push(from as u16);
            } else {
                reserve(regions, 1)?;
                let top = None;
                regions.push(Region { from, to, top });
            }
            from = to;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::iter;

    use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

    use super::*;

    const CHANGES: usize = if cfg!(miri) { 60 } else { 3_000 };
    const SPANS: usize = if cfg!(miri) { 12 } else { 300 };

    /// First addresses, kept in order, and their index.
    struct Starts {
        firsts: Vec<u64>,
        index: Index,
    }

    impl Starts {
        fn new(firsts: impl IntoIterator<Item = u64>) -> Self {
            let mut starts = Self {
                firsts: Vec::new(),
                index: Index::new(),
            };
            firsts.into_iter().for_each(|first| starts.insert(first));
            starts
        }

        fn top(&self) -> u64 {
            self.firsts.last().map_or(0, |last| last.saturating_add(9))
        }

        fn insert(&mut self, first: u64) {
            if let Err(at) = self.firsts.binary_search(&first) {
                self.firsts.insert(at, first);
                let top = self.top();
                self.index.inserted(first, &self.firsts, top).unwrap();
            }
        }

        /// With a new tree.
        fn rebuilt(mut self) -> Self {
            let top = self.top();
            self.index.rebuild(&self.firsts, top).unwrap();
            self
        }

        fn remove(&mut self, first: u64) {
            let at = self.firsts.binary_search(&first).unwrap();
            self.firsts.remove(at);
            let top = self.top();
            self.index.removed(first, &self.firsts, top).unwrap();
        }

        /// Checks what the index tells of an address.
        fn check(&self, addr: u64) {
            let rank = self.firsts.partition_point(|&first| first <= addr);
            assert_eq!(self.index.rank(&self.firsts, addr), rank, "{addr:#x}");
            let Some(below) = self.index.below(addr) else {
                return;
            };
            if self.firsts.first().is_some_and(|&lowest| addr >= lowest) {
                assert!(below <= rank, "{addr:#x}: {below} of {rank}");
                if self.index.crowded == 0 {
                    assert!(rank <= below + 1, "{addr:#x}: {below} of {rank}");
                }
            }
        }

        /// Checks all addresses at which the answer changes, and both ends of the bus.
        fn check_all(&self) {
            let edges = self.firsts.iter().flat_map(|&first| {
                let around = [first.saturating_sub(1), first, first.saturating_add(1)];
                around.into_iter()
            });
            edges.chain([0, u64::MAX]).for_each(|addr| self.check(addr));
        }

        /// Checks the counts of the leaves against the addresses.
        fn check_counts(&self) {
            let Index { below, crowded, .. } = &self.index;
            let mut counted = vec![0; below.len().saturating_sub(1)];
            for &first in &self.firsts {
                counted[self.index.leaf(first).unwrap()] += 1;
            }
            let starts: Vec<_> = below.windows(2).map(|ends| ends[1] - ends[0]).collect();
            assert_eq!(starts, counted);
            let in_crowds = starts.iter().filter(|&&starts| starts > 1);
            assert_eq!(in_crowds.map(|&n| usize::from(n)).sum::<usize>(), *crowded);
        }
    }

    fn rng() -> SmallRng {
        SmallRng::seed_from_u64(7)
    }

    #[test]
    fn knows_nothing_of_no_spans() {
        let starts = Starts::new([]);
        assert_eq!(starts.index.below(5), None);
        starts.check_all();
    }

    #[test]
    fn even_distances_need_one_level() {
        for distance in [1, 8, 0x200, 0x1000, 0x2_0000, 1 << 40] {
            let starts = Starts::new((0..SPANS as u64).map(|i| 0x1000_0000 + i * distance));
            starts.check_all();
            let starts = starts.rebuilt();
            assert_eq!((starts.index.levels, starts.index.crowded), (1, 0));
            starts.check_all();
            starts.check_counts();
        }
    }

    /// As the `virt` machine of QEMU has them, and as many PCI windows far above.
    #[test]
    fn clusters_far_from_each_other_need_more_levels() {
        let near = [0x800_0000, 0x808_0000, 0x80a_0000, 0x900_0000, 0x901_0000];
        let virtio = (0..32).map(|i| 0xa00_0000 + i * 0x200);
        let far = (0..32).map(|i| 0x80_0000_0000 + i * 0x4000);
        let starts = Starts::new(near.into_iter().chain(virtio).chain(far));
        starts.check_all();
        let starts = starts.rebuilt();
        assert!((3..=LEVELS).contains(&starts.index.levels));
        assert_eq!(starts.index.crowded, 0);
        starts.check_all();
        starts.check_counts();
    }

    #[test]
    fn the_last_address_of_the_bus_can_be_a_first_one() {
        let starts = Starts::new([u64::MAX, 0, u64::MAX - 1, 1 << 63]);
        starts.check_all();
        starts.check_counts();
    }

    #[test]
    fn stays_right_whatever_is_inserted_and_removed() {
        let mut rng = rng();
        for bits in [8, 16, 40, 64] {
            let mut starts = Starts::new([]);
            for _ in 0..CHANGES {
                let n = starts.firsts.len();
                if n > 0 && (n > SPANS || rng.random_ratio(1, 3)) {
                    let first = *starts.firsts.choose(&mut rng).unwrap();
                    starts.remove(first);
                } else {
                    // Of all magnitudes.
                    let shift = 64 - rng.random_range(1..=bits);
                    starts.insert(rng.random::<u64>() >> shift);
                }
                starts.check(rng.random::<u64>() >> (64 - bits));
            }
            starts.check_all();
            starts.check_counts();
            while let Some(&first) = starts.firsts.first() {
                starts.remove(first);
            }
            assert!(starts.index.below.is_empty());
        }
    }

    #[test]
    fn does_not_stay_crowded() {
        let mut starts = Starts::new((0..SPANS as u64).map(|i| i << 20));
        // What comes in between, and what is appended, ever nearer to each other.
        let last = (SPANS as u64 - 1) << 20;
        for near in (1..SPANS as u64).map(|i| last + i * 16) {
            starts.insert(near);
        }
        assert!(starts.index.crowded <= starts.firsts.len() / 8);
        starts.check_all();
        starts.check_counts();
    }

    #[test]
    fn more_than_can_be_counted_are_not_indexed() {
        let many: Vec<_> = (0..u64::from(u16::MAX)).map(|i| i * 3).collect();
        let top = many[many.len() - 1];
        let mut index = Index::new();
        index.rebuild(&many, top).unwrap();
        assert_eq!(index.below(7), None);
        assert_eq!(index.rank(&many, 7), 3);
        // One fewer can.
        index.removed(top, &many[..many.len() - 1], top).unwrap();
        assert!(matches!(index.below(7), Some(2 | 3)));
        index.inserted(top, &many, top).unwrap();
        assert_eq!(index.below(7), None);
    }

    #[test]
    fn a_copy_tells_the_same() {
        let starts = Starts::new(iter::successors(Some(1_u64), |&at| at.checked_mul(3)));
        let copy = Starts {
            index: starts.index.try_clone().unwrap(),
            firsts: starts.firsts.clone(),
        };
        copy.check_all();
        copy.check_counts();
    }
}
