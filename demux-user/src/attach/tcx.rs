//! The hook for outgoing packets since Linux 6.6: a link, which ends with its pin.

use std::{io, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, LinkError},
    tc::TcAttachOptions,
};

use super::pin_link;
use crate::{interface::Interface, object::chain};

/// How many programs the kernel lets share one hook (`bpf_mprog_max()`).
pub(super) const MOST_PROGRAMS: usize = 63;

/// Attaches the program pinned at `program` in front of all others, because one of them may end the
/// chain, and pins the link at `link`; or says why not.
pub(super) fn attach(program: &Path, interface: &Interface, link: &Path) -> Result<(), String> {
    let mut classifier = SchedClassifier::from_pin(program).map_err(|error| chain(&error))?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = classifier
        .attach_with_options(&interface.name, TcAttachType::Egress, options)
        .map_err(refusal)?;
    let attached = classifier.take_link(id).map_err(|error| chain(&error))?;
    let fd: FdLink = attached
        .try_into()
        .map_err(|error: LinkError| chain(&error))?;
    pin_link(fd, link)
}

/// Why the kernel refused, in words that lead to the remedy.
fn refusal(error: ProgramError) -> String {
    let ProgramError::SyscallError(error) = error else {
        return chain(&error);
    };
    explain(&error.io_error)
}

fn explain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ERANGE) => full(),
        Some(libc::EINVAL | libc::EOPNOTSUPP) => "this kernel has no tcx".to_owned(),
        _ => format!("the kernel refused: {error}"),
    }
}

/// What is said of a hook that has no room left.
pub(super) fn full() -> String {
    format!("{MOST_PROGRAMS} programs are attached there, and the kernel allows no more")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_stands_in_the_way() {
        let explain = |number| explain(&io::Error::from_raw_os_error(number));
        assert!(explain(libc::ERANGE).contains("63 programs"));
        assert!(explain(libc::EINVAL).contains("no tcx"));
        assert!(
            explain(libc::EBUSY).contains("busy"),
            "{}",
            explain(libc::EBUSY)
        );
    }
}
