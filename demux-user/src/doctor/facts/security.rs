//! Security modules that have a say in bpf(2).

use super::{Fact, word};

/// Security modules.
#[derive(Clone, Debug)]
pub struct SecurityFacts {
    /// The names of those that are active; `None` where securityfs is not mounted.
    pub modules: Fact<Option<Vec<String>>>,
    /// The mode of lockdown: `none`, `integrity` or `confidentiality`.
    pub lockdown: Fact<Option<String>>,
    /// Whether SELinux enforces its policy; `None` where there is none.
    pub selinux_enforces: Fact<Option<bool>>,
    /// The AppArmor profile of the caller.
    pub apparmor: Fact<Option<String>>,
}

impl SecurityFacts {
    pub(super) fn gather() -> Self {
        Self {
            modules: word("/sys/kernel/security/lsm")
                .map(|words| words.map(|words| words.split(',').map(Into::into).collect())),
            lockdown: word("/sys/kernel/security/lockdown")
                .map(|modes| modes.map(|modes| chosen(&modes).to_owned())),
            selinux_enforces: word("/sys/fs/selinux/enforce")
                .map(|word| word.map(|word| word == "1")),
            apparmor: word("/proc/self/attr/apparmor/current"),
        }
    }
}

/// The word in brackets, as in `none [integrity] confidentiality`.
pub(in crate::doctor) fn chosen(words: &str) -> &str {
    words
        .split_whitespace()
        .find_map(|word| word.strip_prefix('[')?.strip_suffix(']'))
        .unwrap_or(words)
}
