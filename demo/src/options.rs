//! The options of the command line.

use std::{env::current_exe, path::PathBuf};

use anyhow::{Result, ensure};
use clap::{Parser, value_parser};

use crate::{
    contract::{MAX_CARDS, MAX_SLOTS, MAX_VCPUS},
    units::counted,
};

/// Runs an SMP virtual machine whose guests check every value that they read, while devices are
/// hot-added at addresses that the guests already poll, and others are moved and removed.
///
/// Ctrl-C ends the run early and prints the report so far.
#[derive(Clone, Debug, Parser)]
#[command(version, after_help = STATUS)]
pub(crate) struct Options {
    /// Length of the run, 1 to 3600 seconds [default: 5; with --top 300]
    #[arg(long, value_name = "N", default_value = "5", default_value_if("top", "true", "300"),
        hide_default_value = true, value_parser = value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,

    /// Number of vCPUs, a thread each, 1 to 64
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    pub(crate) vcpus: u32,

    /// Devices to hot-add per second, 0 to 16384, and at most 16384 in the whole run; 0 for none
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(0..=i64::from(MAX_SLOTS)))]
    pub(crate) adds_per_second: u32,

    /// Other changes per second, 0 to 100000, and fewer than 4194303 in the whole run: moves, removals,
    /// additions, and several at once; 0 for none
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = value_parser!(u32).range(0..=100_000))]
    pub(crate) changes_per_second: u32,

    /// Run the guests on plain threads, even where there is KVM
    #[arg(long)]
    pub(crate) threads: bool,

    /// Show the devices that the guests access most, while they run; `q` ends the run
    #[arg(long)]
    pub(crate) top: bool,

    /// The file for the plot of exits and hot-adds [default: smp.svg beside the executable]
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,

    /// Inject a fault, to show that a check detects it
    #[arg(long, value_name = "WHAT", hide = true, value_parser = Sabotage::named)]
    pub(crate) sabotage: Option<Sabotage>,
}

/// The meaning of the exit status.
const STATUS: &str = "\
Exit status: 0 all checks passed; 1 a check failed, or an error ended the run; 2 the options are refused;
3 vCPUs were starved: they had too little CPU time to finish, and nothing failed; 130 interrupted";

/// A fault to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sabotage {
    /// One of the board's.
    Board(board::Sabotage),
    /// Doorbells stay where they are when their devices move.
    Doorbell,
}

impl Sabotage {
    /// The fault, if it is one of the board's.
    pub(crate) fn of_board(self) -> Option<board::Sabotage> {
        match self {
            Self::Board(sabotage) => Some(sabotage),
            Self::Doorbell => None,
        }
    }

    /// The fault of this name.
    fn named(name: &str) -> Result<Self, String> {
        if name == "doorbell" {
            return Ok(Self::Doorbell);
        }
        let sabotage = board::Sabotage::named(name).map(Self::Board);
        sabotage.ok_or_else(|| "no fault has this name".into())
    }
}

impl Options {
    /// Fails if there are more changes than numbers for cards.
    pub(crate) fn check_changes(&self) -> Result<()> {
        let changes = self.seconds.saturating_mul(self.changes_per_second);
        ensure!(
            changes < MAX_CARDS,
            "{} a second for {} are {changes}; a run makes fewer than {MAX_CARDS}",
            counted(self.changes_per_second.into(), "change"),
            counted(self.seconds.into(), "second"),
        );
        Ok(())
    }

    /// The number of devices to hot-add in the whole run.
    pub(crate) fn adds(&self) -> Result<u32> {
        let adds = self.seconds.saturating_mul(self.adds_per_second);
        ensure!(
            adds <= MAX_SLOTS,
            "{} a second for {} are {adds}; there is room for {MAX_SLOTS}",
            counted(self.adds_per_second.into(), "hot-add"),
            counted(self.seconds.into(), "second"),
        );
        Ok(adds)
    }

    /// The path of the plot.
    pub(crate) fn plot_file(&self) -> Result<PathBuf> {
        match &self.plot {
            Some(path) => Ok(path.clone()),
            None => Ok(current_exe()?.with_file_name("smp.svg")),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn help_states_the_limits() {
        let help = Options::command().render_help().to_string();
        // Ignores line breaks.
        let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for limits in [
            "1 to 3600 seconds [default: 5; with --top 300]".into(),
            format!("1 to {MAX_VCPUS} [default: 4]"),
            format!("0 to {MAX_SLOTS}, and at most {MAX_SLOTS} in the whole run"),
            format!("0 to 100000, and fewer than {MAX_CARDS} in the whole run"),
        ] {
            assert!(help.contains(&limits), "{limits}");
        }
    }

    #[test]
    fn a_live_view_runs_longer_and_as_long_as_is_said() {
        let seconds = |options: &[&str]| {
            let options = ["demo"].iter().chain(options);
            Options::try_parse_from(options).unwrap().seconds
        };
        assert_eq!(seconds(&[]), 5);
        assert_eq!(seconds(&["--top"]), 300);
        assert_eq!(seconds(&["--top", "--seconds", "7"]), 7);
        let options = Options::try_parse_from(["demo", "--top"]).unwrap();
        options.check_changes().unwrap();
        options.adds().unwrap();
    }
}
