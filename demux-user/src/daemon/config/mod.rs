//! The part of the configuration file that is the daemon's: what it does, and who may own sets of AF_XDP
//! sockets.
//!
//! ```toml
//! [daemon]
//! socket = "/run/demux/demux.sock"
//! sweep = "30s"              # how often rows that have expired are swept out; or "off"
//! metrics = "127.0.0.1:9478" # serve OpenMetrics over HTTP; not at all unless given
//! metrics_public = false     # whether that may be an address that is not loopback
//! metrics_bindings = true    # whether there are series for each binding
//!
//! [[owner]]
//! user = "alice"        # a name or a number; or group = "web"
//! sets = ["web", "dns"] # names of sets, as in `--to xsk:web`; "*" is every name
//! max_queues = 64       # queues of all sets that such a user has open
//! max_memory_mib = 512  # memory of the regions of all these sets
//! ```
//!
//! Root may own every set. Where there is no file, nobody else may own any. The other sections of the file
//! are not the daemon's, and are not looked at here.

mod duration;
mod owner;
mod service;

use std::{fs, io, ops::Range, path::Path};

use serde::{Deserialize, de::IgnoredAny};
use toml::Spanned;

use self::owner::Owner;
pub use self::{owner::Limits, service::Service};
pub(crate) use self::{owner::OwnerSection, service::DaemonSection};
use super::peer::Peer;
use crate::{Error, Result};

/// Where the file is by convention.
pub const DEFAULT_PATH: &str = "/etc/demux/demux.toml";

/// What the daemon does, and who may own what.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// What the daemon does besides serving owners.
    pub service: Service,
    owners: Vec<Owner>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    daemon: Option<DaemonSection>,
    #[serde(default)]
    owner: Vec<Spanned<OwnerSection>>,
    // What `demux apply` reads.
    #[serde(rename = "version")]
    _version: Option<IgnoredAny>,
    #[serde(rename = "instance")]
    _instance: Option<IgnoredAny>,
    #[serde(rename = "settings")]
    _settings: Option<IgnoredAny>,
    #[serde(rename = "interface")]
    _interface: Option<IgnoredAny>,
    #[serde(rename = "binding")]
    _binding: Option<IgnoredAny>,
}

/// What is wrong, and where in the text.
pub(crate) type Fault = (String, Range<usize>);

impl Config {
    /// Reads the file at `path`; that of [`DEFAULT_PATH`] need not be there.
    ///
    /// # Errors
    ///
    /// [`Error::BadConfiguration`] with line and column; [`Error::Io`] where it cannot be read.
    pub fn read(path: Option<&Path>) -> Result<Self> {
        let is_optional = path.is_none();
        let path = path.unwrap_or(Path::new(DEFAULT_PATH));
        match fs::read_to_string(path) {
            Ok(text) => Self::parse(&text, path),
            Err(source) if is_optional && source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            Err(source) if source.kind() == io::ErrorKind::InvalidData => {
                Err(Error::BadConfiguration {
                    path: path.into(),
                    line: 1,
                    column: 1,
                    reason: "it is not UTF-8".into(),
                })
            }
            Err(source) => Err(Error::io(format!("read {}", path.display()), source)),
        }
    }

    /// Reads the text of the file at `path`.
    ///
    /// # Errors
    ///
    /// [`Error::BadConfiguration`].
    pub fn parse(text: &str, path: &Path) -> Result<Self> {
        let faulty = |(reason, span): Fault| {
            let (line, column) = position(text, span.start);
            Error::BadConfiguration {
                path: path.into(),
                line,
                column,
                reason,
            }
        };
        let file: File = toml::from_str(text).map_err(|error| {
            let reason = error.message().lines().collect::<Vec<_>>().join(": ");
            faulty((reason, error.span().unwrap_or(0..0)))
        })?;
        Self::from_sections(file.daemon, file.owner).map_err(faulty)
    }

    /// What the sections say.
    ///
    /// # Errors
    ///
    /// What is wrong, and where.
    pub(crate) fn from_sections(
        daemon: Option<DaemonSection>,
        owners: Vec<Spanned<OwnerSection>>,
    ) -> Result<Self, Fault> {
        Ok(Self {
            service: daemon.unwrap_or_default().read()?,
            owners: owners
                .into_iter()
                .map(Owner::read)
                .collect::<Result<_, _>>()?,
        })
    }

    /// How much a peer may have if it owns this set; `None` where it may not own it.
    ///
    /// Of several entries that allow it, each limit is the largest.
    #[must_use]
    pub fn limits(&self, peer: &Peer, set: &str) -> Option<Limits> {
        if peer.is_root() {
            return Some(Limits::NONE);
        }
        self.owners
            .iter()
            .filter_map(|owner| owner.allows(peer, set))
            .reduce(|one, other| Limits {
                queues: one.queues.max(other.queues),
                memory: one.memory.max(other.memory),
            })
    }
}

/// Line and column of a byte, both from 1; columns count characters.
fn position(text: &str, byte: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(byte)];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(text: &str) -> Result<Config> {
        Config::parse(text, Path::new("/etc/demux/demux.toml"))
    }

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer {
            pid: 7,
            uid,
            groups: groups.to_vec(),
        }
    }

    #[test]
    fn owners_are_users_and_groups_with_sets_of_their_own() {
        let config = parse(
            "[daemon]\nsocket = '/run/x'\n\
             [[owner]]\nuser = 7\nsets = ['web', 'dns']\n\
             [[owner]]\nuser = 7\nsets = ['web']\nmax_queues = 100\nmax_memory_mib = 1\n\
             [[owner]]\ngroup = 'root'\nsets = ['*']\nmax_queues = 1\n",
        )
        .unwrap();
        assert_eq!(config.service.socket.as_deref(), Some(Path::new("/run/x")));
        let limits = |peer, set| config.limits(&peer, set).map(|limits| limits.queues);
        assert_eq!(limits(peer(7, &[7]), "web"), Some(100));
        assert_eq!(limits(peer(7, &[7]), "dns"), Some(64));
        assert_eq!(limits(peer(7, &[7]), "mail"), None);
        assert_eq!(limits(peer(8, &[8]), "web"), None);
        assert_eq!(limits(peer(8, &[8, 0]), "mail"), Some(1));
        assert_eq!(limits(peer(0, &[]), "mail"), Some(u32::MAX));
        let web = config.limits(&peer(7, &[]), "web").unwrap();
        assert_eq!(web.memory, Limits::DEFAULT.memory, "the larger one");
    }

    #[test]
    fn the_other_sections_are_somebody_elses() {
        let config = parse(
            "version = 1\n[daemon]\nsweep = '5m'\nmetrics = '[::1]:9478'\nmetrics_bindings = false\n\
             [instance]\nx = 1\n[settings]\ntrack = 'local'\n[[interface]]\nname = 'eth0'\n\
             [[binding]]\nname = 'web'\n",
        )
        .unwrap();
        let service = config.service;
        assert_eq!(service.sweep, Some(Duration::from_secs(300)));
        assert_eq!(service.metrics, Some("[::1]:9478".parse().unwrap()));
        assert!(!service.metrics_bindings);
        let config = parse("[daemon]\nmetrics = '0.0.0.0:1'\nmetrics_public = true\n").unwrap();
        assert!(config.service.metrics.is_some());
    }

    #[test]
    fn without_a_file_root_alone_may_own() {
        let config = Config::default();
        assert!(config.limits(&peer(0, &[0]), "web").is_some());
        assert!(config.limits(&peer(1, &[0]), "web").is_none());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, at, word) in [
            ("[daemon\n", (1, 8), "unclosed"),
            ("\n[daemon]\nsockt = '/x'\n", (3, 1), "sockt"),
            ("[daemon]\nsocket = 'x'\n", (2, 10), "begin with /"),
            ("[daemon]\nsweep = '5'\n", (2, 9), "30s"),
            ("[daemon]\nmetrics = 'x:1'\n", (2, 11), "address"),
            (
                "[daemon]\nmetrics = '0.0.0.0:9478'\n",
                (2, 11),
                "metrics_public",
            ),
            ("[daemon]\nmetrics_public = 1\n", (2, 18), "boolean"),
            ("[intrface]\n", (1, 2), "intrface"),
            ("[[owner]]\nuser = 1\n", (1, 1), "sets"),
            ("[[owner]]\nsets = ['a']\n", (1, 1), "user or a group"),
            (
                "[[owner]]\nuser = 1\ngroup = 1\nsets = ['a']\n",
                (3, 9),
                "not both",
            ),
            (
                "[[owner]]\nuser = 'no such'\nsets = ['a']\n",
                (2, 8),
                "no such",
            ),
            (
                "[[owner]]\ngroup = 'no such'\nsets = ['a']\n",
                (2, 9),
                "no such",
            ),
            (
                "[[owner]]\nuser = -1\nsets = ['a']\n",
                (2, 8),
                "a name or a number",
            ),
            ("[[owner]]\nuser = 1\nsets = []\n", (1, 1), "nothing"),
            (
                "# ä\n[[owner]]\nuser = 1\nsets = ['ä', 'a b']\n",
                (4, 9),
                "letter",
            ),
            (
                "[[owner]]\nuser = 1\nsets = ['a']\nmax_queues = 'x'\n",
                (4, 14),
                "string",
            ),
        ] {
            match parse(text) {
                Err(Error::BadConfiguration {
                    line,
                    column,
                    reason,
                    ..
                }) => {
                    assert_eq!((line, column), at, "{text}: {reason}");
                    assert!(reason.contains(word), "{text}: {reason}");
                }
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
