//! Reading configuration files: each once and whole, and not while somebody writes it.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use super::{Fault, Faults};
use crate::{Error, Result};

/// The file that is meant where none is named.
pub const DEFAULT_PATH: &str = crate::daemon::config::DEFAULT_PATH;

/// The name of the file in a directory.
const FILE: &str = "demux.toml";

/// The directory beside it, whose files are read after it.
const DIRECTORY: &str = "demux.d";

/// What stands for standard input.
pub const STANDARD_INPUT: &str = "-";

/// More than any sane configuration has; a device that never ends has more.
const MAX_BYTES: u64 = 64 << 20;

/// The text of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where it was read from.
    pub path: PathBuf,
    /// All of it.
    pub text: String,
    /// Whether it is one of several in `demux.d`.
    pub is_part: bool,
}

/// Reads a configuration.
///
/// A directory stands for its `demux.toml` and the files `demux.d/*.toml`, in the order of their names;
/// `None` for those of `/etc/demux`; `-` for standard input.
///
/// # Errors
///
/// [`Error::Io`] where a file cannot be read, [`Error::FileChanged`] where it was written meanwhile, and
/// [`Error::Faulty`] where it is not UTF-8.
pub fn read(path: Option<&Path>) -> Result<Vec<Source>> {
    match path {
        Some(path) if path == Path::new(STANDARD_INPUT) => {
            let path = Path::new("<stdin>");
            let bytes = read_all(io::stdin().lock(), path)?;
            Ok(vec![source(path, bytes, false)?])
        }
        Some(path) if path.is_dir() => read_directory(path),
        Some(path) => Ok(vec![read_file(path, false)?]),
        None => {
            let directory = Path::new(DEFAULT_PATH).parent();
            read_directory(directory.unwrap_or(Path::new("/")))
        }
    }
}

fn read_directory(directory: &Path) -> Result<Vec<Source>> {
    let main = directory.join(FILE);
    let parts = parts(&directory.join(DIRECTORY))?;
    let mut sources = Vec::new();
    // One of both has to be there.
    if parts.is_empty() || main.exists() {
        sources.push(read_file(&main, false)?);
    }
    for part in parts {
        sources.push(read_file(&part, true)?);
    }
    Ok(sources)
}

/// The files of a directory, which need not exist, in the order of their names.
fn parts(directory: &Path) -> Result<Vec<PathBuf>> {
    let failed = |source| Error::io(format!("read {}", directory.display()), source);
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut parts = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        let is_hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !is_hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "toml")
        {
            parts.push(path);
        }
    }
    parts.sort_unstable();
    Ok(parts)
}

fn read_file(path: &Path, is_part: bool) -> Result<Source> {
    let bytes = read_steady(path, || {})?;
    source(path, bytes, is_part)
}

/// What tells one version of a file from another.
#[derive(PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Version {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// Reads a file, and makes sure that it is afterwards what it was before. `meanwhile` is what happens
/// in between, for tests.
fn read_steady(path: &Path, meanwhile: impl FnOnce()) -> Result<Vec<u8>> {
    let failed = |source| Error::io(format!("read {}", path.display()), source);
    let file = File::open(path).map_err(failed)?;
    let before = file.metadata().map_err(failed)?;
    let bytes = read_all(&file, path)?;
    meanwhile();
    if !before.is_file() {
        // A pipe is read once, and is nothing before and after.
        return Ok(bytes);
    }
    let after = file.metadata().map_err(failed)?;
    // Editors write another file and rename it.
    let now = fs::metadata(path);
    let is_same = Version::of(&before) == Version::of(&after)
        && now.is_ok_and(|now| Version::of(&now) == Version::of(&after))
        && bytes.len() as u64 == after.size();
    if is_same {
        Ok(bytes)
    } else {
        Err(Error::FileChanged(path.to_owned()))
    }
}

fn read_all(reader: impl io::Read, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut limited = reader.take(MAX_BYTES + 1);
    limited
        .read_to_end(&mut bytes)
        .map_err(|source| Error::io(format!("read {}", path.display()), source))?;
    if bytes.len() as u64 > MAX_BYTES {
        let source = io::Error::other(format!("it is larger than {} MiB", MAX_BYTES >> 20));
        return Err(Error::io(format!("read {}", path.display()), source));
    }
    Ok(bytes)
}

fn source(path: &Path, bytes: Vec<u8>, is_part: bool) -> Result<Source> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Source {
            path: path.to_owned(),
            text,
            is_part,
        }),
        Err(error) => {
            let at = error.utf8_error().valid_up_to();
            let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
            let fault = Fault::at(&text, path, &(at..at), "it is not UTF-8".into());
            Err(Error::Faulty(Faults(vec![fault])))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_refused() {
        let directory = directory();
        let path = directory.path().join("demux.toml");
        let other = directory.path().join("other");
        let write = |path: &Path| fs::write(path, "version = 1\n").unwrap();
        write(&path);
        assert!(read_steady(&path, || {}).is_ok());

        let append = || {
            let mut file = File::options().append(true).open(&path).unwrap();
            file.write_all(b"# more\n").unwrap();
        };
        let rename = || {
            write(&other);
            fs::rename(&other, &path).unwrap();
        };
        let remove = || fs::remove_file(&path).unwrap();
        let again = || write(&path);
        for meanwhile in [&append as &dyn Fn(), &again, &rename, &remove] {
            let result = read_steady(&path, meanwhile);
            assert!(matches!(result, Err(Error::FileChanged(_))), "{result:?}");
        }
    }

    #[test]
    fn the_parts_come_after_the_file_in_the_order_of_their_names() {
        let directory = directory();
        let path = directory.path();
        fs::create_dir(path.join(DIRECTORY)).unwrap();
        for name in [
            "demux.d/20-b.toml",
            "demux.d/10-a.toml",
            "demux.d/.hidden.toml",
            "demux.d/x.bak",
        ] {
            fs::write(path.join(name), name).unwrap();
        }
        let texts = |path| -> Vec<String> {
            let sources = read(Some(path)).unwrap();
            sources.into_iter().map(|source| source.text).collect()
        };
        let parts = ["demux.d/10-a.toml", "demux.d/20-b.toml"];
        assert_eq!(texts(path), parts, "the file itself may be missing");
        fs::write(path.join(FILE), "main").unwrap();
        assert_eq!(texts(path), ["main", parts[0], parts[1]]);
        assert_eq!(texts(&path.join(FILE)), ["main"], "a file is itself alone");
    }

    #[test]
    fn nothing_to_read_names_the_file_that_is_missing() {
        let error = read(Some(directory().path())).unwrap_err();
        assert!(error.to_string().contains("demux.toml"), "{error}");
    }
}
