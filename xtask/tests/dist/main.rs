//! What `cargo xtask dist` makes can be installed, and works, where there is nothing else.

mod packages;
mod peer;
mod root;

use std::{
    collections::BTreeSet,
    env, fs,
    io::Write as _,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use packages::{Packages, dist, packages};
use peer::Peer;
use root::{BpfFs, Root};

/// What a command prints that must succeed.
#[track_caller]
fn stdout(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stdout}{stderr}");
    stdout
}

/// The names of files below `root`, directories with a slash behind them.
fn listed(command: &mut Command) -> BTreeSet<String> {
    let names = stdout(command);
    let lines = names.lines().map(|line| {
        // Mode, owner, size, date, time, name.
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert!(
            ["root/root", "0/0"].contains(&fields[1]),
            "a file is not root's: {line}"
        );
        assert_eq!(fields[3], "2001-09-09", "{line}");
        let mode = fields[0];
        let is_program = line.ends_with("/usr/sbin/demux");
        let expected = match mode.as_bytes()[0] {
            b'd' => "drwxr-xr-x",
            _ if is_program => "-rwxr-xr-x",
            _ => "-rw-r--r--",
        };
        assert_eq!(mode, expected, "{line}");
        fields[5].to_owned()
    });
    lines.collect()
}

#[test]
fn both_packages_have_what_the_other_has_and_all_of_it_is_roots() {
    let Some(packages) = packages() else { return };
    let deb = listed(Command::new("dpkg-deb").arg("-c").arg(&packages.deb));
    let tarball = listed(
        Command::new("tar")
            .arg("--numeric-owner")
            .arg("-tvzf")
            .arg(&packages.tarball),
    );
    let below = |names: &BTreeSet<String>| -> BTreeSet<String> {
        let relative = names.iter().filter_map(|name| name.split_once('/'));
        relative.map(|(_, rest)| rest.to_owned()).collect()
    };
    let (deb, tarball) = (below(&deb), below(&tarball));
    let only_in_deb: Vec<&String> = deb.difference(&tarball).collect();
    let only_in_tarball: Vec<&String> = tarball.difference(&deb).collect();
    assert_eq!(only_in_deb, ["usr/share/doc/demux/copyright"]);
    assert_eq!(
        only_in_tarball,
        ["CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT", "README.md"]
    );
    for name in [
        "etc/demux/demux.d/",
        "etc/demux/demux.toml",
        "usr/lib/systemd/system/demux-apply.service",
        "usr/lib/systemd/system/demux.service",
        "usr/lib/systemd/system/demux@.service",
        "usr/lib/sysusers.d/demux.conf",
        "usr/lib/tmpfiles.d/demux.conf",
        "usr/sbin/demux",
        "usr/share/bash-completion/completions/demux",
        "usr/share/doc/demux/README.md.gz",
        "usr/share/doc/demux/changelog.gz",
        "usr/share/doc/demux/third-party.gz",
        "usr/share/fish/vendor_completions.d/demux.fish",
        "usr/share/man/man1/demux.1.gz",
        "usr/share/zsh/vendor-completions/_demux",
    ] {
        assert!(deb.contains(name), "{name} is missing");
    }
}

#[test]
fn the_same_input_gives_the_same_packages() {
    let Some(packages) = packages() else { return };
    let again = tempfile::tempdir().unwrap();
    assert!(dist(again.path()).status.success());
    for package in [&packages.deb, &packages.tarball] {
        let other = again.path().join(package.file_name().unwrap());
        let is_same = fs::read(package).unwrap() == fs::read(other).unwrap();
        assert!(is_same, "{} differs", package.display());
    }
}

#[test]
fn the_program_needs_no_shared_library_and_names_no_directory_of_its_builder() {
    let Some(packages) = packages() else { return };
    let demux = packages.root.join("usr/sbin/demux");
    let headers = stdout(Command::new("readelf").arg("-lWd").arg(&demux));
    for wanted in ["INTERP", "NEEDED"] {
        assert!(!headers.contains(wanted), "{headers}");
    }
    let content = fs::read(&demux).unwrap();
    let contains = |text: &Path| {
        let text = text.as_os_str().as_encoded_bytes();
        content.windows(text.len()).any(|bytes| bytes == text)
    };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    assert!(!contains(workspace), "the sources' directory is in it");
    let cargo_home = env::var_os("CARGO_HOME").map_or_else(
        || Path::new(&env::var_os("HOME").unwrap()).join(".cargo"),
        PathBuf::from,
    );
    assert!(!contains(&cargo_home), "cargo's directory is in it");
}

/// Where systemd's own units are, which those of the package refer to.
const UNITS: &str = "usr/lib/systemd/system";

#[test]
fn the_units_are_valid_and_may_do_little() {
    let Some(packages) = packages() else { return };
    let root = Root::new();
    root.dpkg("-i", &packages.deb);
    // Those that the units wait for, as any system has them.
    for name in ["basic.target", "shutdown.target", "sysinit.target"] {
        fs::write(root.join(UNITS).join(name), "[Unit]\n").unwrap();
    }
    let analyze = |verb: &str, unit: &str, option: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args([verb, "--no-pager", option]);
        command.arg(root.option()).arg(unit);
        command.output().expect("systemd-analyze")
    };
    for unit in ["demux.service", "demux-apply.service", "demux@eth0.service"] {
        let output = analyze("verify", unit, "--man=no");
        let stderr = String::from_utf8_lossy(&output.stderr);
        let complaints: Vec<&str> = stderr
            .lines()
            // systemd before 253 says so and keeps the line above.
            .filter(|line| !line.ends_with("Failed to parse service type, ignoring: notify-reload"))
            .collect();
        assert_eq!(complaints, [""; 0], "{unit}");

        let output = analyze("security", unit, "--offline=yes");
        let table = String::from_utf8_lossy(&output.stdout);
        let exposure = table
            .lines()
            .find_map(|line| line.split_once("Overall exposure level for "));
        let Some((_, exposure)) = exposure else {
            panic!("{output:?}");
        };
        eprintln!("exposure of {exposure}");
        let level = exposure.split_whitespace().nth(1).unwrap();
        assert!(level.parse::<f32>().unwrap() < 3.0, "{table}");
    }
    let planned = Command::new("systemd-sysusers")
        .arg("--dry-run")
        .arg(root.option())
        .arg("demux.conf")
        .output()
        .expect("systemd-sysusers");
    let planned = String::from_utf8_lossy(&planned.stderr);
    for line in ["group 'demux'", "user 'demux'"] {
        assert!(planned.contains(line), "{planned}");
    }
}

fn ip(line: &str) {
    stdout(Command::new("ip").args(line.split(' ')));
}

#[test]
fn installed_in_a_clean_root_it_works() {
    let Some(packages) = packages() else { return };
    let bpffs = BpfFs::mount();
    let root = Root::new();
    thread::scope(|scope| {
        scope
            .spawn(|| {
                root.enter_sandbox(&bpffs);
                use_installed(packages, &root, &bpffs);
            })
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn use_installed(packages: &Packages, root: &Root, bpffs: &BpfFs) {
    let peer = Peer::start();
    ip("link set lo up");
    ip("link add v0 type veth peer name v1");
    ip(&format!("link set v1 netns {}", peer.number()));
    ip("addr add 10.0.0.2/24 dev v0");
    ip("link set v0 up");
    peer.ip("addr add 10.0.0.1/24 dev v1");
    peer.ip("link set v1 up");

    root.dpkg("-i", &packages.deb);
    assert!(bpffs.has_no_pins(), "installing has attached something");
    assert_eq!(root.dpkg("--verify", "demux"), "");
    let configuration = root.join("etc/demux/demux.toml");
    let text = fs::read_to_string(&configuration).unwrap();
    let is_comment = |line: &str| line.is_empty() || line.starts_with('#');
    assert!(text.lines().all(is_comment), "it is not all comments");

    let demux = |line: &str| stdout(&mut root.command("/usr/sbin/demux", line));
    let version = concat!("demux ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(demux("--version"), version);
    demux("load v0 --max-connections 64");
    demux("bind tcp :8080 --name web");

    let listener = TcpListener::bind("10.0.0.2:8080").unwrap();
    peer.connect("10.0.0.2:8080");
    let (mut stream, _) = listener.accept().unwrap();
    let document: serde_json::Value =
        serde_json::from_str(&demux("connections lport 8080 -j")).unwrap();
    let items = document["items"].as_array().unwrap();
    assert_eq!(items.len(), 1, "{document}");
    assert_eq!(items[0]["state"], "ESTABLISHED", "{document}");
    assert_eq!(items[0]["binding"], "web", "{document}");
    stream.write_all(b"hello").unwrap();
    drop(stream);
    assert_eq!(peer.reply(), "hello");

    // Removing the package detaches nothing.
    fs::write(&configuration, "# changed\n").unwrap();
    root.dpkg("-r", "demux");
    assert!(!root.join("usr/sbin/demux").exists());
    assert!(!bpffs.has_no_pins(), "removing has detached something");
    assert!(configuration.exists(), "removing took what was changed");
    root.dpkg("-i", &packages.deb);
    assert_eq!(fs::read_to_string(&configuration).unwrap(), "# changed\n");
    demux("unload --all");
    assert!(bpffs.has_no_pins());
    root.dpkg("-P", "demux");
    assert!(!root.join("etc/demux").exists(), "purging left something");
}

#[test]
fn every_command_has_its_manual_page() {
    let Some(packages) = packages() else { return };
    let demux = packages.root.join("usr/sbin/demux");
    let help = stdout(Command::new(&demux).arg("--help"));
    let commands = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    let commands: Vec<&str> = commands
        .filter_map(|line| line.strip_prefix("  "))
        // A line that is indented further goes on with what one says.
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        let name = format!("usr/share/man/man1/demux-{command}.1.gz");
        let page = stdout(
            Command::new("gzip")
                .arg("-dc")
                .arg(packages.root.join(&name)),
        );
        assert!(page.contains(".TH "), "{name}: {page}");
    }
    let mode = fs::metadata(&demux).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
}
