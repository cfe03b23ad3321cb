//! Users and groups of this system, by name and by number.
//!
//! The C library is not asked: in a static binary it would load modules, as `/etc/nsswitch.conf` wants them,
//! that belong to a C library of another version. What `/etc/passwd` and `/etc/group` do not have, getent(1)
//! is asked for, which is linked with the library that the modules belong to.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const USERS: &str = "/etc/passwd";
const GROUPS: &str = "/etc/group";

/// Where getent(1) is, if it is there; not from `PATH`, which may be the caller's of sudo.
const GETENT: &str = "/usr/bin/getent";

/// What getent ends with where there is no such entry.
const NO_ENTRY: i32 = 2;

/// A user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The number.
    pub uid: u32,
    /// The number of the first group.
    pub gid: u32,
    /// The home directory.
    pub home: PathBuf,
}

impl User {
    /// Reads a line of a passwd(5) file.
    fn of_line(line: &str) -> Option<Self> {
        let mut fields = line.trim_end().split(':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let (uid, gid) = (fields.nth(1)?, fields.next()?);
        Some(Self {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: fields.nth(1)?.into(),
        })
    }

    /// The user with this name.
    ///
    /// # Errors
    ///
    /// Where it cannot be found out whether there is one.
    pub fn by_name(name: &str) -> io::Result<Option<Self>> {
        Self::find(name, |user| user.name == name)
    }

    /// The user with this number.
    ///
    /// # Errors
    ///
    /// As for [`User::by_name`].
    pub fn by_id(uid: u32) -> io::Result<Option<Self>> {
        Self::find(&uid.to_string(), |user| user.uid == uid)
    }

    /// The name of the user with this number, if `/etc/passwd` has it: for messages, and quick.
    #[must_use]
    pub fn local_name(uid: u32) -> Option<String> {
        let text = lines(Path::new(USERS)).ok()?;
        let mut users = text.lines().filter_map(Self::of_line);
        Some(users.find(|user| user.uid == uid)?.name)
    }

    fn find(key: &str, is_it: impl Fn(&Self) -> bool) -> io::Result<Option<Self>> {
        let user = |text: &str| text.lines().filter_map(Self::of_line).find(&is_it);
        match user(&lines(Path::new(USERS))?) {
            Some(found) => Ok(Some(found)),
            None => Ok(getent("passwd", key)?.as_deref().and_then(user)),
        }
    }

    /// The numbers of all groups that the user is in, the first one included.
    ///
    /// # Errors
    ///
    /// Where they cannot be found out.
    pub fn groups(&self) -> io::Result<Vec<u32>> {
        let mut groups = vec![self.gid];
        let more = match getent("initgroups", &self.name)? {
            // The name, then numbers.
            Some(line) => numbers(&line),
            None => memberships(&lines(Path::new(GROUPS))?, &self.name),
        };
        groups.extend(more.into_iter().filter(|gid| *gid != self.gid));
        Ok(groups)
    }
}

/// The number of the group with this name.
///
/// # Errors
///
/// Where it cannot be found out whether there is one.
pub fn group_id(name: &str) -> io::Result<Option<u32>> {
    match group_in(&lines(Path::new(GROUPS))?, name) {
        Some(gid) => Ok(Some(gid)),
        None => Ok(getent("group", name)?.and_then(|line| group_in(&line, name))),
    }
}

/// The same, where only `/etc/group` counts: quick.
#[must_use]
pub fn local_group_id(name: &str) -> Option<u32> {
    group_in(&lines(Path::new(GROUPS)).ok()?, name)
}

fn group_in(groups: &str, name: &str) -> Option<u32> {
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// The numbers of the groups that name the user as a member.
fn memberships(groups: &str, user: &str) -> Vec<u32> {
    let lines = groups.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(2);
        let (gid, members) = (fields.next()?, fields.next()?);
        members
            .split(',')
            .any(|member| member == user)
            .then(|| gid.parse().ok())?
    });
    lines.collect()
}

fn numbers(line: &str) -> Vec<u32> {
    let words = line.split_whitespace().skip(1);
    words.filter_map(|word| word.parse().ok()).collect()
}

/// The text of a file that need not be there.
fn lines(path: &Path) -> io::Result<String> {
    match fs::read(path) {
        // Comments may be in any encoding.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error),
    }
}

/// What getent says of an entry; `None` where there is none, or no getent.
fn getent(database: &str, key: &str) -> io::Result<Option<String>> {
    let output = Command::new(GETENT)
        .args([database, "--", key])
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => {
            Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
        }
        Ok(output) if output.status.code() == Some(NO_ENTRY) => Ok(None),
        Ok(output) => Err(io::Error::other(format!(
            "{GETENT} {database} {key}: {}",
            output.status
        ))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_line_of_seven_fields() {
        let user = User::of_line("alice:x:1000:100:Alice,,,:/home/alice:/bin/sh\n").unwrap();
        assert_eq!(
            (user.name.as_str(), user.uid, user.gid),
            ("alice", 1000, 100)
        );
        assert_eq!(user.home, Path::new("/home/alice"));
        for line in ["", "alice", "alice:x:no:1::/:", ":x:1:1::/:", "+::::::"] {
            assert_eq!(User::of_line(line), None, "{line}");
        }
    }

    #[test]
    fn a_group_is_found_by_its_whole_name_and_its_members_by_theirs() {
        let groups = "root:x:0:\ndemuxer:x:7:alice\ndemux:x:991:bob,alice\nbroken\n";
        assert_eq!(group_in(groups, "demux"), Some(991));
        assert_eq!(group_in(groups, "broken"), None);
        assert_eq!(group_in(groups, "no"), None);
        assert_eq!(memberships(groups, "alice"), [7, 991]);
        assert_eq!(memberships(groups, "ali"), [0; 0]);
        assert_eq!(numbers("alice                 27 100\n"), [27, 100]);
        assert_eq!(numbers("alice\n"), [0; 0]);
    }

    #[test]
    fn what_this_system_says_is_what_its_c_library_says() {
        let root = User::by_name("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(User::by_id(0).unwrap(), Some(root.clone()));
        assert_eq!(User::local_name(0).as_deref(), Some("root"));
        assert_eq!(root.groups().unwrap().first(), Some(&0));
        assert_eq!(group_id("root").unwrap(), Some(0));
        assert_eq!(local_group_id("root"), Some(0));
        assert_eq!(User::by_name("no such user").unwrap(), None);
        assert_eq!(User::by_name("--help").unwrap(), None);
        assert_eq!(User::by_id(4_000_000_000).unwrap(), None);
        assert_eq!(group_id("no such group").unwrap(), None);
    }
}
