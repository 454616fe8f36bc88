//! [`AxVmDeviceConfig`] and its faults.

use alloc::{string::String, vec::Vec};
use core::{error::Error, fmt};

use ax_errno::AxError;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use busmap::{BusId, Span};

use crate::refusal::Refusal;

/// The emulated devices of a VM, as its configuration lists them.
#[derive(Clone, Debug, Default)]
pub struct AxVmDeviceConfig {
    /// One entry for each device, or for each group of them.
    pub emu_configs: Vec<EmulatedDeviceConfig>,
}

impl AxVmDeviceConfig {
    /// Returns the configuration with these entries.
    pub fn new(emu_configs: Vec<EmulatedDeviceConfig>) -> Self {
        Self { emu_configs }
    }

    /// Iterates over the entries with the name of an earlier entry: the index of each, and the index of the first entry
    /// with the name.
    pub(crate) fn namesakes(&self) -> impl Iterator<Item = (usize, usize)> {
        let entries = self.emu_configs.iter().enumerate();
        entries.filter_map(|(index, entry)| {
            let of_name = |earlier: &EmulatedDeviceConfig| earlier.name == entry.name;
            let first = self.emu_configs[..index].iter().position(of_name)?;
            (!entry.name.is_empty()).then_some((index, first))
        })
    }
}

/// An entry of the configuration that cannot be built, and the fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The entry's index in [`AxVmDeviceConfig::emu_configs`], from 0. For the virtual timer, which
    /// has no entry, the number of entries.
    pub index: usize,
    /// The entry's name.
    pub name: String,
    /// The entry's type.
    pub emu_type: EmulatedDeviceType,
    /// The fault.
    pub fault: ConfigFault,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            index,
            name,
            emu_type,
            fault,
        } = self;
        write!(f, "device {index} \"{name}\" ({emu_type}): {fault}")
    }
}

impl Error for ConfigError {
    /// The [`Refusal`], if the registry refused a device. `None` for an overlap with a device of the configuration,
    /// because the caller cannot use that device's id.
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.fault {
            ConfigFault::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

impl From<ConfigError> for AxError {
    /// The error of its [`ConfigFault`].
    fn from(error: ConfigError) -> Self {
        error.fault.into()
    }
}

/// A fault of an entry of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigFault {
    /// `cfg_list` is too short.
    MissingArgument {
        /// The argument's index in `cfg_list`, from 0.
        position: usize,
        /// The meaning of the argument.
        name: &'static str,
    },
    /// The arguments reach past the end of the address space.
    DoesNotFit {
        /// The resource.
        what: &'static str,
    },
    /// The redistributor of a physical CPU would lie past the end of the host's address space.
    NoSuchCpu {
        /// The CPU.
        pcpu_id: usize,
    },
    /// More redistributors than the architecture can number.
    TooManyRedistributors {
        /// The number requested.
        cpu_num: usize,
        /// The maximum.
        at_most: usize,
    },
    /// The PLIC's range ends before its last context ends.
    PlicTooSmall {
        /// The length that the entry gives, in bytes.
        length: usize,
        /// The minimum, in bytes.
        at_least: usize,
    },
    /// An ITS for a guest that is not [trusted](crate::VmDevicesBuilder::trust_guest_its) with an ITS.
    UntrustedIts,
    /// The IVC range does not start and end on 4 KiB boundaries.
    IvcUnaligned {
        /// The range.
        range: Span,
    },
    /// The IVC range is longer than its allocator allows.
    IvcTooLong {
        /// The length that the entry gives, in bytes.
        length: usize,
        /// The maximum, in bytes.
        at_most: usize,
    },
    /// There is an IVC range already: a registry has at most one.
    SecondIvc {
        /// The name of the entry that sets it aside.
        first: String,
        /// That range.
        range: Span,
    },
    /// Neither the crate, on this architecture, nor a factory builds devices of the entry's type.
    /// [`skip_unbuilt`](crate::VmDevicesBuilder::skip_unbuilt) leaves such entries out.
    Unbuilt,
    /// Some of the addresses belong to another device, or one of the two ranges is the IVC range.
    Overlap {
        /// The bus.
        bus: BusId,
        /// The span that the entry requests.
        wanted: Span,
        /// The name of the owner's entry, which may be the same entry.
        owner: String,
        /// The owner's span, or the IVC range that the entry sets aside.
        owned: Span,
    },
    /// The registry refused a device for another reason. A factory may have recorded the device and failed with this
    /// refusal.
    Refused(Refusal),
    /// A factory failed with its own error.
    Factory(AxError),
}

impl ConfigFault {
    /// Whether 0.4.10 continued after this fault.
    pub(crate) const fn was_tolerated(&self) -> bool {
        match self {
            Self::Refused(
                Refusal::Empty { .. } | Refusal::Backwards { .. } | Refusal::Wrapping { .. },
            )
            | Self::Overlap { .. }
            | Self::SecondIvc { .. }
            | Self::Unbuilt
            | Self::NoSuchCpu { .. }
            | Self::TooManyRedistributors { .. }
            | Self::UntrustedIts
            | Self::IvcUnaligned { .. }
            | Self::IvcTooLong { .. } => true,
            Self::Refused(_)
            | Self::MissingArgument { .. }
            | Self::DoesNotFit { .. }
            | Self::PlicTooSmall { .. }
            | Self::Factory(_) => false,
        }
    }
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MissingArgument { position, name } => {
                write!(f, "argument {position} of cfg_list, {name}, is missing")
            }
            Self::DoesNotFit { what } => {
                write!(f, "{what} is too large for the address space")
            }
            Self::NoSuchCpu { pcpu_id } => {
                write!(
                    f,
                    "the redistributor of physical CPU {pcpu_id} would be past the end of the \
                     host's address space"
                )
            }
            Self::TooManyRedistributors { cpu_num, at_most } => {
                write!(
                    f,
                    "cpu_num is {cpu_num}, but there can be at most {at_most} redistributors"
                )
            }
            Self::PlicTooSmall { length, at_least } => {
                write!(
                    f,
                    "the PLIC needs {at_least:#x} bytes, but its length is {length:#x}"
                )
            }
            Self::UntrustedIts => f.write_str(
                "a guest can write to the host's memory through an ITS: see trust_guest_its",
            ),
            Self::IvcUnaligned { range } => {
                write!(f, "the IVC range {range} is not on 4 KiB boundaries")
            }
            Self::IvcTooLong { length, at_most } => {
                write!(
                    f,
                    "the IVC range has {length:#x} bytes, but can have at most {at_most:#x}"
                )
            }
            Self::SecondIvc { first, range } => {
                write!(f, "there is an IVC range already: {range} of \"{first}\"")
            }
            Self::Unbuilt => {
                f.write_str("neither the crate nor a factory builds devices of this type")
            }
            Self::Overlap {
                bus,
                wanted,
                owner,
                owned,
            } => write!(f, "on bus {bus}, {wanted} overlaps {owned} of \"{owner}\""),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Factory(error) => write!(f, "its factory failed: {error}"),
        }
    }
}

impl From<Refusal> for ConfigFault {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<ConfigFault> for AxError {
    /// `AlreadyExists` for an overlap and a second IVC range, `Unsupported` for a type without a factory, the error of
    /// a [`Refusal`] or of a factory; otherwise `InvalidInput`.
    fn from(fault: ConfigFault) -> Self {
        match fault {
            ConfigFault::Overlap { .. } | ConfigFault::SecondIvc { .. } => Self::AlreadyExists,
            ConfigFault::Unbuilt => Self::Unsupported,
            ConfigFault::Refused(refusal) => refusal.into(),
            ConfigFault::Factory(error) => error,
            _ => Self::InvalidInput,
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_entry_and_the_argument() {
        let error = ConfigError {
            index: 3,
            name: "gicr".into(),
            emu_type: EmulatedDeviceType::GPPTRedistributor,
            fault: ConfigFault::MissingArgument {
                position: 1,
                name: "stride",
            },
        };
        assert_eq!(
            error.to_string(),
            "device 3 \"gicr\" (gic partial passthrough redistributor): argument 1 of cfg_list, \
             stride, is missing"
        );
        assert!(error.source().is_none());
        assert_eq!(AxError::from(error), AxError::InvalidInput);
    }

    #[test]
    fn a_refusal_is_the_source_of_its_error() {
        let refusal = Refusal::Empty {
            bus: BusId::Mmio,
            at: 0x1000,
        };
        let error = ConfigError {
            index: 0,
            name: "com1".into(),
            emu_type: EmulatedDeviceType::Console,
            fault: refusal.into(),
        };
        let source = error.source().and_then(|source| source.downcast_ref());
        assert_eq!(source, Some(&refusal));
    }

    #[test]
    fn namesakes_are_found_with_the_first_of_the_name() {
        let entries = ["com", "", "disk", "com", "", "com"].map(|name| EmulatedDeviceConfig {
            name: name.into(),
            ..Default::default()
        });
        let config = AxVmDeviceConfig::new(entries.into());
        assert!(config.namesakes().eq([(3, 0), (5, 0)]));
    }
}
