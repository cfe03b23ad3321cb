//! Ingress: attaching the XDP program, in the driver or behind it.

use std::{io, path::Path, str::FromStr};

use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, LinkError},
    xdp::XdpError,
};
use demux_common::{config::Mode, layout::program};

use super::pin_link;
use crate::{
    Error, Result,
    interface::{Interface, XdpMode as Attachment},
    object::chain,
    state::Paths,
};

/// How a user wants the program attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeChoice {
    /// In the driver if it can, else behind it.
    #[default]
    Auto,
    /// In the driver.
    Native,
    /// Behind the driver, on socket buffers.
    Generic,
}

impl FromStr for ModeChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "native" => Ok(Self::Native),
            "generic" => Ok(Self::Generic),
            _ => Err("a mode is auto, native or generic".to_owned()),
        }
    }
}

/// How the program came to be attached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Where it runs.
    pub mode: Mode,
    /// Why it does not run in the driver, where the user left the choice.
    pub note: Option<String>,
}

/// Attaches the ingress program of an instance to an interface.
///
/// # Errors
///
/// [`Error::HookBusy`] where another program is there, [`Error::Unsupported`] with the cause where
/// the driver refuses.
pub fn attach(paths: &Paths, interface: &Interface, choice: ModeChoice) -> Result<Attached> {
    let program = paths.program(program::INGRESS);
    let link = &paths.xdp_link(interface.index);
    let mut xdp = Xdp::from_pin(&program, aya_obj::programs::XdpAttachType::Interface)
        .map_err(|error| Error::unexpected(format!("open {}", program.display()), chain(&error)))?;
    let native = match choice {
        ModeChoice::Generic => None,
        ModeChoice::Auto | ModeChoice::Native => {
            Some(attach_in(&mut xdp, interface, Mode::Native, link))
        }
    };
    let note = match native {
        None => None,
        Some(Ok(())) => {
            return Ok(Attached {
                mode: Mode::Native,
                note: None,
            });
        }
        Some(Err(Refusal::Busy)) => return Err(busy(interface)),
        Some(Err(refusal)) if choice == ModeChoice::Native => {
            return Err(refusal.into_error(interface, Mode::Native));
        }
        Some(Err(refusal)) => Some(refusal.explain(interface)),
    };
    match attach_in(&mut xdp, interface, Mode::Generic, link) {
        Ok(()) => Ok(Attached {
            mode: Mode::Generic,
            note,
        }),
        Err(Refusal::Busy) => Err(busy(interface)),
        Err(refusal) => Err(refusal.into_error(interface, Mode::Generic)),
    }
}

/// Why the program was not attached.
enum Refusal {
    /// Another program is there.
    Busy,
    /// The kernel or the driver said no.
    Kernel(io::Error),
    /// Something else went wrong.
    Other(String),
}

impl Refusal {
    /// The cause in words that lead to the remedy.
    fn explain(&self, interface: &Interface) -> String {
        match self {
            Self::Busy => "another program is attached".to_owned(),
            Self::Other(reason) => reason.clone(),
            Self::Kernel(error) => match error.raw_os_error() {
                Some(libc::ENOSPC) => "it has fewer receive queues than its peer transmit queues \
                                       (ENOSPC); see ethtool -l"
                    .to_owned(),
                Some(libc::ERANGE) => format!(
                    "its MTU of {} is too large for the driver (ERANGE)",
                    interface.mtu
                ),
                Some(libc::EOPNOTSUPP) => {
                    "its driver has no native XDP, or not with its present features (EOPNOTSUPP)"
                        .to_owned()
                }
                _ => format!("the driver refused: {error}"),
            },
        }
    }

    fn into_error(self, interface: &Interface, mode: Mode) -> Error {
        let operation = format!("attach to {} in {} mode", interface.name, mode.name());
        match &self {
            Self::Kernel(error) if error.raw_os_error() == Some(libc::EPERM) => {
                Error::io(operation, io::Error::from_raw_os_error(libc::EPERM))
            }
            _ => Error::Unsupported {
                operation,
                reason: self.explain(interface),
            },
        }
    }
}

fn attach_in(
    xdp: &mut Xdp,
    interface: &Interface,
    mode: Mode,
    link: &Path,
) -> std::result::Result<(), Refusal> {
    let flags = match mode {
        Mode::Native => XdpMode::Driver,
        Mode::Generic => XdpMode::Skb,
    };
    let id = xdp
        .attach_to_if_index(interface.index, flags)
        .map_err(refusal)?;
    let attached = xdp.take_link(id).map_err(refusal)?;
    // A link made over netlink, as aya does where the kernel refuses a BPF link, cannot be pinned
    // and would end with this process; dropping it detaches.
    let fd: FdLink = attached
        .try_into()
        .map_err(|error: LinkError| Refusal::Other(chain(&error)))?;
    pin_link(fd, link).map_err(Refusal::Other)
}

fn refusal(error: ProgramError) -> Refusal {
    let kernel = |source: io::Error| match source.raw_os_error() {
        Some(libc::EBUSY | libc::EEXIST) => Refusal::Busy,
        _ => Refusal::Kernel(source),
    };
    match error {
        ProgramError::SyscallError(error) => kernel(error.io_error),
        ProgramError::XdpError(XdpError::NetlinkError(error)) => match error.raw_os_error() {
            Some(number) => kernel(io::Error::from_raw_os_error(number)),
            None => Refusal::Other(chain(&error)),
        },
        other => Refusal::Other(chain(&other)),
    }
}

/// Another program holds the hook: names it.
pub(crate) fn busy(interface: &Interface) -> Error {
    // Asked again: it may have come since the interface was looked at.
    let current = crate::interface::by_index(interface.index)
        .ok()
        .flatten()
        .and_then(|current| current.xdp)
        .or(interface.xdp);
    Error::HookBusy {
        interface: interface.name.clone(),
        program: current
            .and_then(|xdp| xdp.program_name())
            .unwrap_or_else(|| "?".to_owned()),
        program_id: current.map_or(0, |xdp| xdp.program_id),
        mode: current.map_or("unknown", |xdp| match xdp.mode {
            Attachment::Native => "native",
            Attachment::Generic => "generic",
            Attachment::Offload => "offload",
        }),
    }
}
