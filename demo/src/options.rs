//! The options of the command line.

use std::{env::current_exe, path::PathBuf};

use anyhow::{Result, ensure};
use clap::{Parser, value_parser};

use crate::contract::{MAX_SLOTS, MAX_VCPUS};

/// Runs an SMP virtual machine whose guests check every value that they read, while devices are
/// hot-added at addresses that the guests already poll.
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

    /// Run the guests' work on plain threads, even where there is KVM
    #[arg(long)]
    pub(crate) threads: bool,

    /// Where to write the plot of exits and hot-adds [default: smp.svg beside the executable]
    #[arg(long, value_name = "FILE")]
    pub(crate) plot: Option<PathBuf>,

    /// Have the first hot-added device answer wrongly, to show that the guests' check sees it
    #[arg(long, hide = true)]
    pub(crate) sabotage: bool,
}

impl Options {
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
