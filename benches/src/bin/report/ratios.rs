//! The ratios with limits for this crate, on every layout. A cell shows the worst ratio of some sizes.

use axaddrspace::GuestPhysAddrRange as Mmio;
use benches::{
    Bus, Layout, Pattern,
    scenario::{self, SIZES},
};

use crate::{
    markdown::table,
    results::{Contestant, DISPATCHER, PLAIN_RIVAL, PUBLISHED, Results, SLOTS},
};

/// The divisor of a time.
#[derive(Clone, Copy)]
enum Over {
    /// The direct call's.
    Floor,
    /// The plain rival's.
    Plain,
    /// That of the published 0.4.10.
    Published,
    /// The contestant's own time of a random hit.
    Hit,
}

impl Over {
    const fn name(self) -> &'static str {
        match self {
            Self::Floor => "the direct call",
            Self::Plain => "the plain rival",
            Self::Published => "0.4.10",
            Self::Hit => "a random hit",
        }
    }
}

/// A column: a pattern, and the numbers of devices.
struct Ratio {
    pattern: Pattern,
    sizes: &'static [usize],
    over: Over,
    at_most: f64,
}

const ANY: &[usize] = &SIZES;

/// The limit of a random access to few devices on the layout with one large device, in direct calls.
const FEW_AND_LARGE: f64 = 2.5;

const OF_DISPATCHER: [Ratio; 7] = [
    Ratio::new(Pattern::Hot, ANY, Over::Floor, 1.4),
    Ratio::new(Pattern::Random, FEW, Over::Floor, 2.0),
    Ratio::new(Pattern::Random, &[1024], Over::Floor, 3.5),
    Ratio::new(Pattern::Random, &[4096], Over::Floor, 7.0),
    Ratio::new(Pattern::Random, ANY, Over::Plain, 1.0),
    Ratio::new(Pattern::NearMiss, ANY, Over::Plain, 1.3),
    Ratio::new(Pattern::FarMiss, ANY, Over::Plain, 1.3),
];

const FEW: &[usize] = &[8, 64];

const fn by_reference(over_published: f64) -> [Ratio; 3] {
    [
        Ratio::new(Pattern::Hot, &[8], Over::Published, over_published),
        Ratio::new(Pattern::NearMiss, ANY, Over::Hit, 1.2),
        Ratio::new(Pattern::FarMiss, ANY, Over::Hit, 1.2),
    ]
}

const ON_ARC_SWAP: [Ratio; 3] = by_reference(0.9);
const ON_SLOTS: [Ratio; 3] = by_reference(0.55);

impl Ratio {
    const fn new(pattern: Pattern, sizes: &'static [usize], over: Over, at_most: f64) -> Self {
        Self {
            pattern,
            sizes,
            over,
            at_most,
        }
    }

    /// The ratios of a contestant.
    fn of(one: &Contestant) -> &'static [Self] {
        match (one.registry, one.cell) {
            (DISPATCHER, _) => &OF_DISPATCHER,
            (_, SLOTS) => &ON_SLOTS,
            _ => &ON_ARC_SWAP,
        }
    }

    fn title(&self) -> String {
        let sizes = match self.sizes {
            ANY => String::new(),
            some => {
                let some: Vec<_> = some.iter().map(usize::to_string).collect();
                format!(" of {}", some.join(" or "))
            }
        };
        let (pattern, over, at_most) = (self.pattern.name(), self.over.name(), self.at_most);
        let of_large = match self.sizes {
            FEW => format!(" (large: {FEW_AND_LARGE})"),
            _ => String::new(),
        };
        format!("{pattern}{sizes}, over {over}: {at_most}{of_large}")
    }

    fn at_most(&self, layout: &Layout) -> f64 {
        match layout.name {
            "large" if self.sizes == FEW => FEW_AND_LARGE,
            _ => self.at_most,
        }
    }

    fn measured(
        &self,
        results: &Results,
        layout: &Layout,
        one: &Contestant,
        n: usize,
    ) -> Option<f64> {
        let scenario = |pattern| scenario::sweep::<Mmio>(layout, pattern, n);
        let same = |other: &Contestant| results.time(&scenario(self.pattern), other);
        let divisor = match self.over {
            Over::Floor => same(&one.floor()),
            Over::Plain => same(&one.beside(PLAIN_RIVAL)),
            Over::Published => same(&one.beside(PUBLISHED)),
            Over::Hit => results.time(&scenario(Pattern::Random), one),
        };
        Some(same(one)? / divisor?)
    }

    /// The worst ratio of the sizes, in bold if it exceeds the limit.
    fn cell(&self, results: &Results, layout: &Layout, one: &Contestant) -> String {
        let measured = self.sizes.iter().filter_map(|&n| {
            let ratio = self.measured(results, layout, one, n)?;
            Some((ratio, n))
        });
        let worst = measured.max_by(|(one, _), (other, _)| one.total_cmp(other));
        let Some((ratio, n)) = worst else {
            return "not measured".into();
        };
        let of = match self.sizes {
            [_] => String::new(),
            _ => format!(" (of {n})"),
        };
        if ratio <= self.at_most(layout) {
            format!("{ratio:.2}{of}")
        } else {
            format!("**{ratio:.2}**{of}")
        }
    }
}

/// A table for each of this crate's registries.
pub(crate) fn all(results: &Results) -> String {
    let ours = results.contestants.iter().filter(|one| one.ours);
    ours.map(|one| of_contestant(results, one)).collect()
}

fn of_contestant(results: &Results, one: &Contestant) -> String {
    let ratios = Ratio::of(one);
    let titles = ratios.iter().map(Ratio::title);
    let row = |layout: &Layout| {
        let cells = ratios.iter().map(|ratio| ratio.cell(results, layout, one));
        [layout.name.to_string()].into_iter().chain(cells).collect()
    };
    let head = [one.label()].into_iter().chain(titles);
    let layouts = Mmio::layouts(0);
    table(head, layouts.iter().map(row)) + "\n"
}
