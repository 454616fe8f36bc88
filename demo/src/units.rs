//! Numbers as text: times in a suitable unit, counts with their noun.

use std::time::Duration;

/// The units of time, with their nanoseconds.
const UNITS: [(&str, f64); 3] = [("s", 1e9), ("ms", 1e6), ("µs", 1e3)];

/// A time in nanoseconds as text, in the largest unit that is not longer than it, to three digits.
pub(crate) fn time(nanos: u64) -> String {
    let nanos = nanos as f64;
    // A time that rounds to a whole unit uses that unit.
    let unit = UNITS.into_iter().find(|(_, size)| nanos >= 0.9995 * size);
    let Some((unit, size)) = unit else {
        return format!("{nanos} ns");
    };
    let amount = nanos / size;
    let digits = match amount {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    format!("{amount:.digits$} {unit}")
}

/// A count with a noun, of which the plural ends in `s`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let ending = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{ending}")
}

/// The rate in a second, for `count` in that time.
pub(crate) fn per_second(count: u64, time: Duration) -> u64 {
    (count as f64 / time.as_secs_f64()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_the_unit_that_suits_it() {
        for (nanos, text) in [
            (0, "0 ns"),
            (850, "850 ns"),
            (999, "999 ns"),
            (1000, "1.00 µs"),
            (4_620, "4.62 µs"),
            (46_200, "46.2 µs"),
            (99_960, "100 µs"),
            (999_499, "999 µs"),
            (999_501, "1.00 ms"),
            (9_961_500, "9.96 ms"),
            (1_200_000_000, "1.20 s"),
            (3_600_000_000_000, "3600 s"),
        ] {
            assert_eq!(time(nanos), text);
        }
    }

    #[test]
    fn one_is_singular_and_all_else_is_not() {
        let vcpus = [0, 1, 2].map(|count| counted(count, "vCPU"));
        assert_eq!(vcpus, ["0 vCPUs", "1 vCPU", "2 vCPUs"]);
    }
}
