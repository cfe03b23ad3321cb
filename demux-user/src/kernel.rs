//! The version of the running kernel.

use std::fmt;

use crate::{Error, Result};

/// The first two numbers of a kernel release, which decide what it can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first number.
    pub major: u16,
    /// The second number.
    pub minor: u16,
}

impl Version {
    /// The oldest kernel demux runs on: the first with XDP programs for packets of several buffers
    /// (`BPF_F_XDP_HAS_FRAGS`, commit c2f2cdbeffda7b153c19e0f3d73149c41026c0db).
    pub const MINIMUM: Self = Self {
        major: 5,
        minor: 18,
    };

    /// The version of the running kernel, as uname(2) tells it.
    ///
    /// # Errors
    ///
    /// Where the release does not begin with two numbers.
    pub fn running() -> Result<Self> {
        let release = release();
        Self::parse(&release).ok_or_else(|| Error::Unexpected {
            operation: "understand the kernel release".into(),
            reason: format!("{release:?} does not begin with two numbers"),
        })
    }

    fn parse(release: &str) -> Option<Self> {
        let mut numbers = release.split(|character: char| !character.is_ascii_digit());
        Some(Self {
            major: numbers.next()?.parse().ok()?,
            minor: numbers.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The release of the running kernel, such as `6.12.9-amd64`.
pub fn release() -> String {
    rustix::system::uname()
        .release()
        .to_string_lossy()
        .into_owned()
}

/// Refuses kernels older than [`Version::MINIMUM`].
///
/// # Errors
///
/// [`Error::KernelTooOld`].
pub fn require_minimum() -> Result<()> {
    if Version::running()? < Version::MINIMUM {
        return Err(Error::KernelTooOld {
            found: release(),
            needed: Version::MINIMUM.to_string(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        let version = |major, minor| Some(Version { major, minor });
        assert_eq!(Version::parse("6.18.44-fc-v669"), version(6, 18));
        assert_eq!(Version::parse("5.4.0-42-generic"), version(5, 4));
        assert_eq!(Version::parse("6.1-rc1"), version(6, 1));
        assert_eq!(Version::parse("next"), None);
        assert!(version(5, 9) < version(5, 18));
        assert!(version(6, 0) > version(5, 18));
    }

    #[test]
    fn a_kernel_that_calls_itself_old_is_refused() {
        // What `setarch --uname-2.6` sets: releases read 2.6.x from then on, for this thread.
        let error = std::thread::spawn(|| {
            // SAFETY: the personality of a thread that ends here changes nothing in memory.
            assert!(unsafe { libc::personality(libc::UNAME26 as libc::c_ulong) } >= 0);
            require_minimum().unwrap_err()
        })
        .join()
        .unwrap();
        assert_eq!((error.code(), error.exit_status()), ("kernel_too_old", 6));
        require_minimum().unwrap();
    }
}
