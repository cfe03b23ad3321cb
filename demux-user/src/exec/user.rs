//! As whom a command runs.

use std::{env, io, path::PathBuf};

use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};

use crate::{Error, Result, accounts::User};

/// A user to become, with all groups.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
    name: Option<String>,
    home: Option<PathBuf>,
}

impl Identity {
    /// The user who is named; else the one who called sudo; else the one who called a binary that
    /// has the rights of another; `None` where nothing is to change.
    pub(super) fn choose(named: Option<&str>) -> Result<Option<Self>> {
        if let Some(named) = named {
            return Self::named(named).map(Some);
        }
        let number = |name| env::var(name).ok()?.parse::<u32>().ok();
        if Uid::effective().is_root()
            && let (Some(uid), Some(gid)) = (number("SUDO_UID"), number("SUDO_GID"))
        {
            return Self::of(Uid::from_raw(uid), Gid::from_raw(gid)).map(Some);
        }
        if Uid::current() != Uid::effective() || Gid::current() != Gid::effective() {
            return Self::of(Uid::current(), Gid::current()).map(Some);
        }
        Ok(None)
    }

    fn named(text: &str) -> Result<Self> {
        let unknown = || Error::invalid("user", text, "there is no such user");
        let failed = |source| Error::io(format!("look for the user {text}"), source);
        if let Some(user) = User::by_name(text).map_err(failed)? {
            return Self::of_user(user);
        }
        let uid = text.parse().map_err(|_| unknown())?;
        Self::of_user(User::by_id(uid).map_err(failed)?.ok_or_else(unknown)?)
    }

    /// Whoever has the number, known by name or not.
    fn of(uid: Uid, gid: Gid) -> Result<Self> {
        match User::by_id(uid.as_raw()) {
            Ok(Some(user)) => Self::of_user(User {
                gid: gid.as_raw(),
                ..user
            }),
            _ => Ok(Self {
                uid,
                gid,
                groups: vec![gid],
                name: None,
                home: None,
            }),
        }
    }

    fn of_user(user: User) -> Result<Self> {
        let failed =
            |source: io::Error| Error::io(format!("list the groups of {}", user.name), source);
        let groups = user.groups().map_err(failed)?;
        Ok(Self {
            uid: Uid::from_raw(user.uid),
            gid: Gid::from_raw(user.gid),
            groups: groups.into_iter().map(Gid::from_raw).collect(),
            home: Some(user.home),
            name: Some(user.name),
        })
    }

    /// What the environment says of the user: sudo has made root's of it.
    pub(super) fn environment(&self) -> Vec<(&'static str, std::ffi::OsString)> {
        let mut variables = Vec::new();
        if let Some(name) = &self.name {
            variables.push(("USER", name.into()));
            variables.push(("LOGNAME", name.into()));
        }
        if let Some(home) = &self.home {
            variables.push(("HOME", home.into()));
        }
        variables
    }

    /// Becomes the user, for good.
    pub(super) fn assume(&self) -> io::Result<()> {
        // Who is no more than himself may not set groups, and need not.
        if Uid::effective().is_root() {
            setgroups(&self.groups)?;
        }
        setresgid(self.gid, self.gid, self.gid)?;
        setresuid(self.uid, self.uid, self.uid)?;
        Ok(())
    }
}
