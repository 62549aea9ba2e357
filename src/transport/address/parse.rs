//! Reading addresses.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::Address;
use super::encoding::{decode_name, decode_path};
use super::target::{DEFAULT_ID, Host, LogLock, Priority, Target, UnixKind, UnixName};
use crate::ring::mpmc::{MAX_DELIVERIES, MAX_PRODUCERS};
use crate::segment::{Key, Name};
use crate::units::parse_duration;

/// How each scheme is written, with its own keys.
const SCHEMES: [(&str, &str, &[&str]); 17] = [
    ("shm", "shm:///name", &["ring", "producers", "max_deliveries", "wait", "perm", "persist"]),
    (
        "sysv",
        "sysv:///path?id=7 or sysv:?key=0x51",
        &["id", "key", "ring", "producers", "max_deliveries", "wait", "perm", "persist"],
    ),
    ("file", "file:///path", &["ring", "producers", "max_deliveries", "wait", "perm", "persist"]),
    ("anon", "anon:name", &["ring", "producers", "max_deliveries", "wait"]),
    ("memfd", "memfd:///path", &["ring", "producers", "max_deliveries", "wait", "perm", "connect"]),
    ("auto", "auto:///name", &["wait", "perm", "connect"]),
    ("pipe", "pipe:", &["framing"]),
    ("fd", "fd://number", &["framing"]),
    ("fifo", "fifo:///path", &["framing", "perm", "persist", "connect"]),
    ("pty", "pty:///path", &["framing", "perm", "connect"]),
    ("mq", "mq:///name", &["priority", "framing", "perm", "persist"]),
    ("sysvmq", "sysvmq:///path?id=7 or sysvmq:?key=0x51", &["id", "key", "type", "framing", "perm", "persist"]),
    ("unix", "unix:///path or unix:@name", &["type", "framing", "perm", "connect"]),
    ("tcp", "tcp://host:port", &["framing", "connect"]),
    ("udp", "udp://host:port", &["framing"]),
    ("signal", "signal://pid?sig=RTMIN+1", &["sig", "connect"]),
    ("log", "log:///path", &["lock", "reader", "perm"]),
];

/// Keys that all schemes have.
const COMMON: [&str; 2] = ["capacity", "max_message"];

/// Priorities of POSIX message queues are below this, on Linux.
const PRIORITIES: u16 = 32_768;
/// The highest real-time signal, counted from the lowest; glibc keeps two of the 33 for itself.
const LAST_SIGNAL: u8 = 30;

pub(super) fn parse(given: &str) -> Result<Address, String> {
    let (place, query) = given.split_once('?').map_or((given, None), |(place, query)| (place, Some(query)));
    let all = || SCHEMES.map(|(_, form, _)| form).join(", ");
    let (scheme, rest) = place.split_once(':').ok_or_else(|| format!("it has no scheme; allowed are {}", all()))?;
    let (scheme, form, own) = SCHEMES
        .into_iter()
        .find(|(known, _, _)| *known == scheme)
        .ok_or_else(|| format!("unknown scheme {scheme:?}; allowed are {}", all()))?;
    let allowed: Vec<&str> = own.iter().copied().chain(COMMON).collect();
    let options = Options::parse(query, &allowed)?;
    let target = target(scheme, rest, &options, &|| format!("{scheme}: is written {form}"))?;
    Ok(Address {
        target,
        ring: options.read("ring")?,
        producers: options.read_with("producers", |value| parse_count(value, "producers", MAX_PRODUCERS))?,
        max_deliveries: options
            .read_with("max_deliveries", |value| parse_count(value, "max_deliveries", MAX_DELIVERIES))?,
        capacity: options.read("capacity")?,
        max_message: options.read("max_message")?,
        wait: options.read("wait")?,
        framing: options.read("framing")?,
        perm: options.read_with("perm", parse_perm)?,
        persist: options.read_with("persist", parse_persist)?,
        connect: options
            .read_with("connect", |value| parse_duration(value).map_err(|problem| format!("connect: {problem}")))?,
    })
}

fn target(scheme: &str, rest: &str, options: &Options, form: &dyn Fn() -> String) -> Result<Target, String> {
    let name = || decode_name(rest.strip_prefix("///").ok_or_else(form)?);
    let path = || -> Result<PathBuf, String> { decode_path(rest).ok_or_else(form)? };
    let authority = || rest.strip_prefix("//").ok_or_else(form);
    Ok(match scheme {
        "shm" => Target::Segment(Name::Posix(name()?)),
        "sysv" => Target::Segment(Name::SysV(parse_key(rest, options, form)?)),
        "file" => Target::Segment(Name::File(path()?)),
        "anon" => Target::Anonymous(decode_name(rest)?),
        "memfd" => Target::Memfd(path()?),
        "auto" => Target::Auto(name()?),
        "pipe" if rest.is_empty() => Target::Pipe,
        "pipe" => return Err(form()),
        "fd" => Target::Descriptor(number(authority()?).ok_or_else(form)?),
        "fifo" => Target::Fifo(path()?),
        "pty" => Target::Terminal(path()?),
        "mq" => Target::PosixQueue {
            name: name()?,
            priority: options.read_with("priority", parse_priority)?.unwrap_or(Priority::Fixed(0)),
        },
        "sysvmq" => {
            Target::SysVQueue { key: parse_key(rest, options, form)?, kind: options.read_with("type", parse_type)? }
        }
        "unix" => {
            let name = match rest.strip_prefix('@') {
                Some(name) => UnixName::Abstract(decode_name(name)?),
                None => UnixName::Path(path()?),
            };
            Target::Unix { name, kind: options.one_of("type", &UnixKind::ALL)?.unwrap_or_default() }
        }
        "tcp" => Target::Tcp(Host::parse(authority()?)?),
        "udp" => Target::Udp(Host::parse(authority()?)?),
        "signal" => Target::Signal {
            pid: match authority()? {
                "self" => None,
                pid => Some(number(pid).filter(|&pid| pid > 0 && i32::try_from(pid).is_ok()).ok_or_else(form)?),
            },
            number: options.read_with("sig", parse_signal)?.unwrap_or(0),
        },
        _ => Target::Log {
            path: path()?,
            lock: options.one_of("lock", &LogLock::ALL)?.unwrap_or_default(),
            reader: options.read_with("reader", decode_name)?,
        },
    })
}

/// The `key=value` pairs behind the question mark: each key known and given once.
struct Options<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Options<'a> {
    fn parse(query: Option<&'a str>, allowed: &[&str]) -> Result<Self, String> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for option in query.into_iter().flat_map(|query| query.split('&')) {
            let hint = || format!("allowed here are {}", allowed.join(", "));
            let (key, value) =
                option.split_once('=').ok_or_else(|| format!("{option:?} is not a key=value; {}", hint()))?;
            if !allowed.contains(&key) {
                return Err(format!("unknown key {key:?}; {}", hint()));
            }
            if pairs.iter().any(|&(earlier, _)| earlier == key) {
                return Err(format!("{key} is given twice"));
            }
            pairs.push((key, value));
        }
        Ok(Self(pairs))
    }

    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| *name == key).map(|&(_, value)| value)
    }

    fn read<T: FromStr<Err: fmt::Display>>(&self, key: &str) -> Result<Option<T>, String> {
        self.read_with(key, |value| value.parse().map_err(|problem| format!("{key}: {problem}")))
    }

    fn read_with<T>(&self, key: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        self.get(key).map(parse).transpose()
    }

    fn one_of<T: Copy>(&self, key: &str, all: &[(T, &str)]) -> Result<Option<T>, String> {
        self.read_with(key, |value| {
            let known = all.iter().find(|(_, name)| *name == value).map(|&(known, _)| known);
            known.ok_or_else(|| {
                format!("{key}={value} is none of {}", all.iter().map(|(_, name)| *name).collect::<Vec<_>>().join(", "))
            })
        })
    }
}

fn parse_key(rest: &str, options: &Options, form: &dyn Fn() -> String) -> Result<Key, String> {
    let id = options.read_with("id", parse_id)?;
    let key = options.read_with("key", parse_raw_key)?;
    match (decode_path(rest), id, key) {
        (Some(path), id, None) => Ok(Key::Path { path: path?, id: id.unwrap_or(DEFAULT_ID) }),
        (None, None, Some(key)) if rest.is_empty() => Ok(Key::Raw(key)),
        _ => Err(format!("{}, never both", form())),
    }
}

fn parse_id(value: &str) -> Result<u8, String> {
    // ftok uses the low eight bits, and leaves an id of 0 undefined.
    number(value).filter(|&id| id != 0).ok_or_else(|| format!("id={value} is not a number from 1 to 255"))
}

fn parse_raw_key(value: &str) -> Result<i32, String> {
    let digits = value.strip_prefix("0x").unwrap_or_default();
    // 0 is IPC_PRIVATE, which no other process could find.
    match digits_only(digits, 16).and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        None | Some(0) => Err(format!("key={value} is not a hexadecimal number from 0x1 to 0xffffffff")),
        Some(key) => Ok(key.cast_signed()),
    }
}

fn parse_count(value: &str, key: &str, most: u32) -> Result<u32, String> {
    number(value)
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("{key}={value} is not a number from 1 to {most}"))
}

fn parse_priority(value: &str) -> Result<Priority, String> {
    match value {
        "tag" => Ok(Priority::Tag),
        _ => number(value)
            .filter(|&priority| priority < PRIORITIES)
            .map(Priority::Fixed)
            .ok_or_else(|| format!("priority={value} is neither tag nor a number below {PRIORITIES}")),
    }
}

fn parse_type(value: &str) -> Result<u32, String> {
    number(value)
        .filter(|kind| (1..=i32::MAX as u32).contains(kind))
        .ok_or_else(|| format!("type={value} is not a number from 1 to {}", i32::MAX))
}

fn parse_signal(value: &str) -> Result<u8, String> {
    value
        .strip_prefix("RTMIN+")
        .and_then(number)
        .filter(|&number| number <= LAST_SIGNAL)
        .ok_or_else(|| format!("sig={value} is none of RTMIN+0 to RTMIN+{LAST_SIGNAL}"))
}

fn parse_perm(value: &str) -> Result<u32, String> {
    digits_only(value, 8)
        .and_then(|digits| u32::from_str_radix(digits, 8).ok())
        .filter(|&bits| bits <= 0o777)
        .ok_or_else(|| format!("perm={value} is not an octal number of at most 0777"))
}

fn parse_persist(value: &str) -> Result<bool, String> {
    match value {
        "yes" => Ok(true),
        "no" => Ok(false),
        _ => Err(format!("persist={value} is neither persist=yes nor persist=no")),
    }
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    digits_only(text, 10).and_then(|digits| digits.parse().ok())
}

/// The standard parsers would also take a sign.
fn digits_only(text: &str, radix: u32) -> Option<&str> {
    text.chars().all(|c| c.is_digit(radix)).then_some(text)
}
