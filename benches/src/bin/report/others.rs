//! The other limits of this crate.

use benches::scenario::{self, MEMCPY, Sharing};

use crate::{
    markdown::table,
    results::{Contestant, DISPATCHER, Results},
};

/// A number that must not be greater than another.
struct Limit {
    what: &'static str,
    measured: Option<f64>,
    at_most: f64,
}

/// The table.
pub(crate) fn all(results: &Results) -> String {
    let ours = results.contestants.iter().filter(|one| one.ours);
    let rows = ours.flat_map(|one| {
        let own = match one.registry {
            DISPATCHER => shared_device(results, one),
            _ => hot_add(results, one),
        };
        [own, storm(results, one)].map(|limit| limit.row(one))
    });
    table(["", "", "measured", "at most"], rows)
}

impl Limit {
    fn row(&self, one: &Contestant) -> Vec<String> {
        let measured = match self.measured {
            None => "not measured".into(),
            Some(measured) if measured <= self.at_most => format!("{measured:.2}"),
            Some(measured) => format!("**{measured:.2}**"),
        };
        vec![
            one.label(),
            self.what.into(),
            measured,
            self.at_most.to_string(),
        ]
    }
}

fn shared_device(results: &Results, one: &Contestant) -> Limit {
    // The time of an access when two vCPUs access one device, over the time of one vCPU alone.
    let loss = |of: &Contestant| {
        let time = |vcpus| results.time(&scenario::vcpus(vcpus, Sharing::One), of);
        Some(time(2)? / time(1)?)
    };
    let (own, floors) = (loss(one), loss(&one.floor()));
    Limit {
        what: "read by 2 vCPUs of one device over a read by 1, over the same for the direct call",
        measured: own.zip(floors).map(|(own, floors)| own / floors),
        at_most: 1.15,
    }
}

fn hot_add(results: &Results, one: &Contestant) -> Limit {
    let time = |of: &Contestant| results.time(&scenario::hot_add(1024), of);
    let (hot_add, copy) = (time(one), time(&one.beside(MEMCPY)));
    Limit {
        what: "hot-add to 1024, over a memcpy of its table",
        measured: hot_add.zip(copy).map(|(hot_add, copy)| hot_add / copy),
        at_most: 3.0,
    }
}

fn storm(results: &Results, one: &Contestant) -> Limit {
    let p99 = |weather| Some(results.storm(one, weather)?.p99);
    let (storm, quiet) = (p99("storm"), p99("quiet"));
    Limit {
        what: "p99 of a read while 1,000 devices a second are added, over the p99 without changes",
        measured: storm.zip(quiet).map(|(storm, quiet)| storm / quiet),
        at_most: 3.0,
    }
}
