//! From the text of files to what they ask for, or everything that is wrong with them. The machine is not
//! asked: what depends on it is for whoever applies the configuration.

use std::collections::HashMap;

use demux_common::{binding::Binding as Stored, connection::State};

use super::{
    BindingWish, Configuration, Fault, Faults, InterfaceWish, Source,
    fault::{Places, Step},
    sections::{Binding, File, Interface, Settings, VERSION},
};
use crate::{
    Error, Result,
    bindings::{
        Pattern,
        change::{check_name, stored},
        compile,
        conflict::Index,
    },
    daemon, ports,
    settings::{Assignment, MAX_TIMEOUT},
};

/// Reads the sections of files and checks them.
///
/// # Errors
///
/// [`Error::Faulty`] with everything that is wrong, in the order of the files. Of what is no TOML, or has
/// keys that there are not, each file tells the first.
pub fn check(sources: &[Source]) -> Result<Configuration> {
    let mut checker = Checker::default();
    let mut faults = Vec::new();
    for (number, source) in sources.iter().enumerate() {
        match toml::from_str::<File>(&source.text) {
            Ok(file) => {
                faults.extend(daemon_fault(source, &file));
                checker.file(number, file);
            }
            Err(error) => faults.push(Fault::of_parser(&source.text, &source.path, &error)),
        }
    }
    checker.conflicts();
    if faults.is_empty() && checker.found.is_empty() {
        checker.overlaps();
    }
    faults.extend(checker.located(sources));
    if faults.is_empty() {
        let mut configuration = checker.configuration;
        configuration.files = sources.iter().map(|source| source.path.clone()).collect();
        return Ok(configuration);
    }
    faults.sort_by_key(|fault| {
        let file = sources.iter().position(|source| source.path == fault.file);
        (file, fault.line, fault.column)
    });
    Err(Error::Faulty(Faults(faults)))
}

/// What the daemon would find wrong with its sections.
fn daemon_fault(source: &Source, file: &File) -> Option<Fault> {
    let section = match (&file.daemon, &file.owner) {
        (Some(_), _) => "daemon",
        (None, Some(_)) => "owner",
        (None, None) => return None,
    };
    if source.is_part {
        let span = Places::of(&source.text).find(&[Step::Name(section)]);
        let message = "the sections [daemon] and [[owner]] are read from demux.toml only";
        return Some(Fault::at(&source.text, &source.path, &span, message.into()));
    }
    match daemon::config::Config::parse(&source.text, &source.path) {
        Err(Error::BadConfiguration {
            line,
            column,
            reason,
            ..
        }) => Some(Fault {
            file: source.path.clone(),
            line,
            column,
            message: reason,
            text: source.text.lines().nth(line - 1).unwrap_or("").to_owned(),
            width: 1,
            is_conflict: false,
        }),
        _ => None,
    }
}

/// Which entry of an array of which file.
#[derive(Clone, Copy)]
struct Place {
    file: usize,
    entry: usize,
}

/// Something wrong, before it is known on which line.
struct Found {
    file: usize,
    steps: Vec<Step<'static>>,
    /// The last step, where it is a key that the user made up.
    key: Option<String>,
    message: String,
    is_conflict: bool,
}

#[derive(Default)]
struct Checker {
    configuration: Configuration,
    found: Vec<Found>,
    /// Where each binding of the configuration stands, and its number for its device.
    places: Vec<(Place, u32)>,
    devices: HashMap<String, u32>,
    interface_names: HashMap<String, Place>,
    binding_names: HashMap<String, Place>,
}

impl Checker {
    fn file(&mut self, number: usize, file: File) {
        if let Some(version) = file.version.filter(|version| *version != VERSION) {
            let message = format!(
                "this is version {version} of the form; this demux reads version {VERSION}"
            );
            self.find(number, &[Step::Key("version")], message);
        }
        let instance = &mut self.configuration.instance;
        instance.max_connections = file.instance.max_connections.or(instance.max_connections);
        instance.max_bindings = file.instance.max_bindings.or(instance.max_bindings);
        self.capacities(number, &file);
        self.settings(number, &file.settings);
        for (entry, interface) in file.interface.into_iter().enumerate() {
            let place = Place {
                file: number,
                entry,
            };
            self.interface(place, interface, &file.settings);
        }
        for (entry, binding) in file.binding.into_iter().enumerate() {
            let place = Place {
                file: number,
                entry,
            };
            self.binding(place, binding);
        }
    }

    fn find(&mut self, file: usize, steps: &[Step<'static>], message: String) {
        self.found.push(Found {
            file,
            steps: steps.to_vec(),
            key: None,
            message,
            is_conflict: false,
        });
    }

    fn capacities(&mut self, number: usize, file: &File) {
        use crate::object::Capacities;
        for (key, value, max) in [
            (
                "max_connections",
                file.instance.max_connections,
                Capacities::MAX_CONNECTIONS,
            ),
            (
                "max_bindings",
                file.instance.max_bindings,
                Capacities::MAX_BINDINGS,
            ),
        ] {
            if value.is_some_and(|value| !(1..=max).contains(&value)) {
                let message = format!("{key} is from 1 to {max}");
                self.find(number, &[Step::Key("instance"), Step::Key(key)], message);
            }
        }
    }

    fn settings(&mut self, file: usize, settings: &Settings) {
        let mut assignments = Vec::new();
        assignments.extend(
            settings
                .track
                .map(|track| Assignment::Track(track.meaning())),
        );
        assignments.extend(settings.kernel_sockets.map(Assignment::KernelSockets));
        let ephemeral = &settings.ephemeral;
        for (key, value) in [
            ("range", &ephemeral.range),
            ("algorithm", &ephemeral.algorithm),
            ("reserved", &ephemeral.reserved),
        ] {
            match value
                .as_deref()
                .map(|value| ports::Change::parse(key, value))
            {
                None => {}
                Some(Ok(change)) => assignments.push(Assignment::Ephemeral(change)),
                Some(Err(reason)) => {
                    let steps = [
                        Step::Key("settings"),
                        Step::Key("ephemeral"),
                        Step::Key(key),
                    ];
                    self.find(file, &steps, reason);
                }
            }
        }
        for (key, seconds) in &settings.timeout {
            let state = State::ALL
                .iter()
                .find(|state| state.name().eq_ignore_ascii_case(key));
            let reason = match state {
                Some(state) if (1..=MAX_TIMEOUT).contains(seconds) => {
                    assignments.push(Assignment::Timeout(*state, *seconds));
                    continue;
                }
                Some(_) => format!("a timeout is 1 to {MAX_TIMEOUT} seconds"),
                None => {
                    let names: Vec<_> =
                        State::ALL.iter().map(|s| s.name().to_lowercase()).collect();
                    format!("unknown state {key:?}; the states are {}", names.join(", "))
                }
            };
            self.found.push(Found {
                file,
                steps: vec![Step::Key("settings"), Step::Key("timeout")],
                key: Some(key.clone()),
                message: reason,
                is_conflict: false,
            });
        }
        // Of a setting that several files have, the last counts.
        for assignment in assignments {
            let key = assignment.key();
            let settings = &mut self.configuration.settings;
            settings.retain(|earlier| earlier.key() != key);
            settings.push(assignment);
        }
    }

    fn interface(&mut self, place: Place, section: Interface, settings: &Settings) {
        let steps = [
            Step::Key("interface"),
            Step::Index(place.entry),
            Step::Key("name"),
        ];
        if section.name.is_empty() || section.name.len() > 15 {
            let message = "the name of an interface has 1 to 15 bytes".to_owned();
            self.find(place.file, &steps, message);
        }
        if self.interface_names.contains_key(&section.name) {
            let message = format!("there is an interface {:?} already", section.name);
            self.find(place.file, &steps, message);
            return;
        }
        self.interface_names.insert(section.name.clone(), place);
        self.configuration.interfaces.push(InterfaceWish {
            name: section.name,
            mode: section.mode.map(super::sections::Mode::meaning),
            egress: section.egress.map(super::sections::Egress::meaning),
            default: section
                .default
                .or(settings.default)
                .map(super::sections::Policy::meaning),
            force: section.force,
        });
    }

    fn binding(&mut self, place: Place, section: Binding) {
        let step = |key| {
            [
                Step::Key("binding"),
                Step::Index(place.entry),
                Step::Key(key),
            ]
        };
        if let Some(name) = &section.name {
            if let Err(error) = check_name(name) {
                self.find(place.file, &step("name"), reason(error));
            } else if self.binding_names.contains_key(name) {
                let message = format!("there is a binding named {name:?} already");
                self.find(place.file, &step("name"), message);
            }
            self.binding_names.entry(name.clone()).or_insert(place);
        }
        let protocol = section.protocol.meaning();
        let pattern = match Pattern::parse(protocol, &section.local, section.v6_only) {
            Ok(pattern) => Some(pattern),
            Err(error) => {
                let message = reason(error).replace("--v6-only", "v6_only");
                let message = message.replace("--dev", "dev =");
                self.find(place.file, &step("local"), message);
                None
            }
        };
        let target = match section.to.as_deref().unwrap_or("stack").parse() {
            Ok(target) => Some(target),
            Err(error) => {
                self.find(place.file, &step("to"), reason(error));
                None
            }
        };
        let (Some(pattern), Some(target)) = (pattern, target) else {
            return;
        };
        let flags = [
            (section.reuse_addr, Stored::REUSE_ADDR),
            (section.reuse_port, Stored::REUSE_PORT),
            (section.untracked, Stored::UNTRACKED),
        ];
        let flags = flags.into_iter().filter(|(is_set, _)| *is_set);
        let device = match &section.dev {
            None => 0,
            Some(name) => {
                let next = self.devices.len() as u32 + 1;
                *self.devices.entry(name.clone()).or_insert(next)
            }
        };
        self.places.push((place, device));
        self.configuration.bindings.push(BindingWish {
            name: section.name,
            pattern,
            device: section.dev,
            target,
            fallback: section.fallback.map(super::sections::Fallback::meaning),
            flags: flags.fold(0, |flags, (_, flag)| flags | flag),
            freebind: section.freebind,
        });
    }

    /// Finds bindings that cannot exist beside an earlier one.
    fn conflicts(&mut self) {
        let mut index = Index::default();
        let mut earlier = Vec::new();
        for (wish, (place, device)) in self.configuration.bindings.iter().zip(&self.places) {
            let binding = stored(&wish.request(*device), "", 1);
            if let Some(holder) = index.holder(&binding) {
                let other: &(&BindingWish, Place) = &earlier[holder];
                let message = format!(
                    "{} {} is in use by {}",
                    wish.pattern.protocol.name(),
                    wish.pattern,
                    described(other.0, other.1),
                );
                self.found.push(Found {
                    file: place.file,
                    steps: vec![
                        Step::Key("binding"),
                        Step::Index(place.entry),
                        Step::Key("local"),
                    ],
                    key: None,
                    message,
                    is_conflict: true,
                });
            }
            index.push(&binding);
            earlier.push((wish, *place));
        }
    }

    /// Finds the binding with which there are more at one port than the tables can express.
    fn overlaps(&mut self) {
        let most = crate::object::Capacities::MAX_BINDINGS as usize;
        if let Some((place, _)) = self.places.get(most) {
            let (file, steps) = (place.file, [Step::Key("binding"), Step::Index(place.entry)]);
            self.find(
                file,
                &steps,
                format!("there may be {most} bindings at the most"),
            );
            return;
        }
        let bindings: Vec<(u16, Stored)> = (1..)
            .zip(self.configuration.bindings.iter().zip(&self.places))
            .map(|(index, (wish, (_, device)))| (index, stored(&wish.request(*device), "", 1)))
            .collect();
        let Err(error) = compile(&bindings) else {
            return;
        };
        // More bindings never need less.
        let counts: Vec<usize> = (0..=bindings.len()).collect();
        let fit = counts.partition_point(|count| compile(&bindings[..*count]).is_ok());
        let Some((place, _)) = self.places.get(fit.saturating_sub(1)) else {
            return;
        };
        let steps = [
            Step::Key("binding"),
            Step::Index(place.entry),
            Step::Key("local"),
        ];
        self.find(place.file, &steps, reason(error));
    }

    /// What was found, with its lines.
    fn located(&mut self, sources: &[Source]) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (number, source) in sources.iter().enumerate() {
            let mut found = self
                .found
                .iter()
                .filter(|found| found.file == number)
                .peekable();
            if found.peek().is_none() {
                continue;
            }
            let places = Places::of(&source.text);
            for found in found {
                let mut steps = found.steps.clone();
                steps.extend(found.key.as_deref().map(Step::Name));
                let span = places.find(&steps);
                let fault = Fault::at(&source.text, &source.path, &span, found.message.clone());
                faults.push(Fault {
                    is_conflict: found.is_conflict,
                    ..fault
                });
            }
        }
        faults
    }
}

/// How a binding is called in the message about another one.
fn described(wish: &BindingWish, place: Place) -> String {
    match &wish.name {
        Some(name) => format!("binding {name:?}"),
        None => format!(
            "binding {} ({} {})",
            place.entry + 1,
            wish.pattern.protocol.name(),
            wish.pattern
        ),
    }
}

/// Why a value is refused, without what surrounds it on the command line.
fn reason(error: Error) -> String {
    match error {
        Error::InvalidArgument {
            what,
            value,
            reason,
        } => format!("invalid {what} {value:?}: {reason}"),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn source(path: &str, text: &str) -> Source {
        Source {
            path: path.into(),
            text: text.into(),
            is_part: path.contains("demux.d"),
        }
    }

    fn faults(sources: &[Source]) -> Vec<Fault> {
        match check(sources) {
            Err(Error::Faulty(Faults(faults))) => faults,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_file_of_the_package_is_right_with_and_without_its_comments() {
        let text = include_str!("../../../packaging/demux.toml");
        let empty = check(&[source("/demux.toml", text)]).unwrap();
        assert!(empty.interfaces.is_empty() && empty.bindings.is_empty());
        // Lines of keys and sections, that is, without a sentence.
        let all: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("# "))
            .filter(|line| line.starts_with('[') || line.contains(" = "))
            .flat_map(|line| [line, "\n"])
            .collect();
        let full = check(&[source("/demux.toml", &all)]).unwrap();
        assert_eq!((full.interfaces.len(), full.bindings.len()), (1, 1));
    }

    #[test]
    fn all_of_it_is_understood() {
        let configuration = check(&[source(
            "/demux.toml",
            "version = 1\n\
             [instance]\nmax_connections = 64\nmax_bindings = 7\n\
             [settings]\ndefault = 'drop'\ntrack = 'bound'\nkernel-sockets = false\n\
             timeout.syn-sent = 3\nephemeral.range = '5000-5999'\nephemeral.algorithm = 'random'\n\
             ephemeral.reserved = 'none'\n\
             [[interface]]\nname = 'eth0'\nmode = 'generic'\negress = 'none'\n\
             [[interface]]\nname = 'eth1'\ndefault = 'pass'\nforce = true\n\
             [[binding]]\nprotocol = 'tcp'\nlocal = ':80'\n\
             [[binding]]\nname = 'dns'\nprotocol = 'udp'\nlocal = '[::]:53'\nv6_only = true\n\
             to = 'xsk:dns'\nfallback = 'stack'\ndev = 'eth0'\nreuse_addr = true\n\
             reuse_port = true\nuntracked = true\nfreebind = true\n",
        )])
        .unwrap();
        assert_eq!(configuration.settings.len(), 6);
        assert_eq!(configuration.instance.max_bindings, Some(7));
        let defaults: Vec<_> = configuration.interfaces.iter().map(|i| i.default).collect();
        use demux_common::config::Policy::{Drop, Pass};
        assert_eq!(defaults, [Some(Drop), Some(Pass)]);
        let dns = &configuration.bindings[1];
        assert_eq!(dns.pattern.to_string(), "[::]:53");
        assert_eq!(dns.target.to_string(), "xsk:dns");
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        for (text, at, word) in [
            ("[[binding\n", (1, 10), "unclosed"),
            (
                "\n[[binding]]\nnmae = 'x'\n",
                (3, 1),
                "unknown field `nmae`",
            ),
            ("[[binding]]\nlocal = ':80'\n", (1, 1), "protocol"),
            (
                "[[binding]]\nprotocol = 'sctp'\nlocal = ':80'",
                (2, 12),
                "tcp",
            ),
            (
                "[[binding]]\nprotocol = 'tcp'\nlocal = ':http'",
                (3, 9),
                "not a port",
            ),
            (
                "[[binding]]\nprotocol = 'tcp'\nlocal = ':1'\nto = 'x'",
                (4, 6),
                "target",
            ),
            (
                "[[binding]]\nname = 'a b'\nprotocol = 'tcp'\nlocal = ':1'",
                (2, 8),
                "other characters",
            ),
            (
                "[[binding]]\nprotocol='tcp'\nlocal='1.1.1.1:1'\nv6_only=true",
                (3, 7),
                "v6_only",
            ),
            (
                "[[interface]]\nname='a'\ndefault = 'allow'",
                (3, 11),
                "pass",
            ),
            (
                "[[interface]]\nname='a'\n[[interface]]\nname = 'a'",
                (4, 8),
                "already",
            ),
            ("[settings]\ntimeout.nap = 1", (2, 9), "syn-sent"),
            ("[settings]\ntimeout.syn-sent = 0", (2, 9), "1 to"),
            ("[settings]\nephemeral.range = '9-1'", (2, 19), "reversed"),
            ("[settings]\ntrak = 'local'", (2, 1), "unknown field"),
            ("[instance]\nmax_bindings = 70000", (2, 16), "65535"),
            ("version = 2", (1, 11), "version 1"),
            ("[daemon]\nsockt = '/x'", (2, 1), "sockt"),
            ("[[owner]]\nuser = 1\nsets = []", (1, 1), "nothing"),
        ] {
            let faults = faults(&[source("/demux.toml", text)]);
            assert_eq!(faults.len(), 1, "{text}: {faults:?}");
            let fault = &faults[0];
            assert_eq!((fault.line, fault.column), at, "{text}: {fault}");
            assert!(fault.message.contains(word), "{text}: {fault}");
            assert_eq!(
                text.lines().nth(fault.line - 1),
                Some(&*fault.text),
                "{text}"
            );
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told() {
        let faults = faults(&[
            source(
                "/demux.toml",
                "[[binding]]\nname='a'\nprotocol='tcp'\nlocal=':x'\nto='y'\n\
                 [[binding]]\nname='a'\nprotocol='tcp'\nlocal=':80'\n",
            ),
            source(
                "/demux.d/a.toml",
                "[[binding]]\nprotocol='tcp'\nlocal='10.0.0.1:80'\n[daemon]\n",
            ),
        ]);
        let places: Vec<_> = faults.iter().map(|f| (f.file.clone(), f.line)).collect();
        let (main, part) = (Path::new("/demux.toml"), Path::new("/demux.d/a.toml"));
        let expected = [(main, 4), (main, 5), (main, 7), (part, 3), (part, 4)];
        let expected = expected.map(|(path, line)| (path.to_owned(), line));
        assert_eq!(places, expected, "{faults:?}");
        assert!(faults[3].is_conflict && !faults[2].is_conflict);
    }

    #[test]
    fn bindings_conflict_as_bind_2_says() {
        let two = |one: &str, other: &str| {
            let text = format!(
                "[[binding]]\nprotocol='tcp'\n{one}\n[[binding]]\nprotocol='tcp'\n{other}\n"
            );
            check(&[source("/f", &text)]).is_ok()
        };
        assert!(!two("local=':80'", "local='10.0.0.1:80'"));
        assert!(two("local='10.0.0.1:80'", "local='[fd00::1]:80'"));
        assert!(!two(
            "local='10.0.0.1:80'\nreuse_port=true",
            "local='10.0.0.1:80'"
        ));
        assert!(two(
            "local=':80'\nreuse_port=true",
            "local=':80'\nreuse_port=true"
        ));
        assert!(two("local=':80'\ndev='a'", "local=':80'\ndev='b'"));
        assert!(!two("local=':80'\ndev='a'", "local=':80'"));
        assert!(two("local=':80-90'", "local=':80'"));
        assert!(!two("local=':80-90'", "local=':80-90'"));
        assert!(!two("local='10.0.0.0/8:*'", "local='10.0.0.0/8:*'"));
    }

    #[test]
    fn more_at_a_port_than_there_is_room_for_is_told() {
        let ports = [
            ":80", ":79-80", ":78-80", ":77-80", ":76-80", ":75-80", ":74-80", ":73-80",
        ];
        let mut text: String = ports
            .map(|ports| format!("[[binding]]\nprotocol='tcp'\nlocal='10.0.0.1{ports}'\n"))
            .concat();
        assert!(check(&[source("/f", &text)]).is_ok());
        text.push_str("[[binding]]\nprotocol='tcp'\nlocal='10.0.0.1:1-99'\n");
        text.push_str("[[binding]]\nprotocol='udp'\nlocal='10.0.0.1:1-99'\n");
        let faults = faults(&[source("/f", &text)]);
        assert_eq!((faults.len(), faults[0].line), (1, 27), "{faults:?}");
        assert!(faults[0].message.contains("overlap"), "{faults:?}");
    }

    #[test]
    fn of_a_setting_in_several_files_the_last_counts() {
        let configuration = check(&[
            source("/demux.toml", "[settings]\ntrack='local'\ntimeout.listen=9"),
            source("/demux.d/a.toml", "[settings]\ntrack='bound'"),
        ])
        .unwrap();
        let track = Assignment::Track(demux_common::config::Track::Bound);
        assert_eq!(configuration.settings[1], track);
        assert_eq!(configuration.settings.len(), 2);
    }
}
