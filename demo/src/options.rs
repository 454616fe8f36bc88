//! The options of the command line.

use std::{env::current_exe, path::PathBuf};

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum, value_parser};

use crate::contract::{MAX_CARDS, MAX_SLOTS, MAX_VCPUS};

/// Runs an SMP virtual machine whose guests check every value that they read, while devices are
/// hot-added at addresses that the guests already poll, and others are moved and removed.
#[derive(Clone, Debug, Parser)]
#[command(version)]
pub(crate) struct Options {
    /// How long to run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=3600))]
    pub(crate) seconds: u32,

    /// How many vCPUs to run, a thread each
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u32).range(1..=i64::from(MAX_VCPUS)))]
    pub(crate) vcpus: u32,

    /// How many devices to hot-add in a second
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = value_parser!(u32).range(1..=i64::from(MAX_SLOTS)))]
    pub(crate) adds_per_second: u32,

    /// How many changes to make in a second, besides: moves, removals, additions, and several at once
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = value_parser!(u32).range(1..=100_000))]
    pub(crate) changes_per_second: u32,

    /// Run the guests' work on plain threads, even where there is KVM
    #[arg(long)]
    pub(crate) threads: bool,

    /// Where to write the plot of exits and hot-adds [default: smp.svg beside the executable]
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,

    /// Have something go wrong, to show that it is seen
    #[arg(long, value_name = "WHAT", hide = true)]
    pub(crate) sabotage: Option<Sabotage>,
}

/// What can be made to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sabotage {
    /// The first hot-added device answers wrongly.
    Slot,
    /// The new card of a shift is added after the others have moved.
    Shift,
    /// A removed card is poisoned at once.
    Poison,
    /// Devices that are to move themselves stay where they are.
    Bar,
    /// Doorbells stay where they are when their devices move.
    Doorbell,
}

impl Options {
    /// An error if there are not numbers enough for the cards of so many changes.
    pub(crate) fn check_changes(&self) -> Result<()> {
        let changes = self.seconds.saturating_mul(self.changes_per_second);
        ensure!(
            changes < MAX_CARDS,
            "{} changes a second for {} seconds are {changes}; there are numbers for {MAX_CARDS}",
            self.changes_per_second,
            self.seconds,
        );
        Ok(())
    }

    /// How many devices will be hot-added in all.
    pub(crate) fn adds(&self) -> Result<u32> {
        let adds = self.seconds.saturating_mul(self.adds_per_second);
        ensure!(
            adds <= MAX_SLOTS,
            "{} hot-adds a second for {} seconds are {adds}; there is room for {MAX_SLOTS}",
            self.adds_per_second,
            self.seconds,
        );
        Ok(adds)
    }

    /// Where to write the plot.
    pub(crate) fn plot_file(&self) -> Result<PathBuf> {
        match &self.plot {
            Some(path) => Ok(path.clone()),
            None => Ok(current_exe()?.with_file_name("smp.svg")),
        }
    }
}
