//! Addresses: one line of text that says where a channel lives and what it is made of.

use crate::{
    layout::{Ring, Wait},
    ring::mpmc::{MAX_DELIVERIES, MAX_PRODUCERS},
    segment::{Key, Name},
    units::ByteSize,
};
use std::{
    error,
    ffi::OsString,
    fmt,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
    str::FromStr,
};

/// Where a channel lives and what it is made of, as in `shm:///orders?capacity=4MiB&wait=futex`.
///
/// | address | place |
/// |---|---|
/// | `shm:///orders` | POSIX shared memory |
/// | `sysv:///run/orders?id=7` | System V shared memory, its key by `ftok` from an existing file and an id of 1 (unless said) to 255 |
/// | `sysv:?key=0x51` | System V shared memory by its key |
/// | `file:///data/orders.ring` | a mapped file, which survives a restart |
/// | `anon:orders` | memory without a name outside: for threads, or across fork |
///
/// | key | value |
/// |---|---|
/// | `ring` | `spsc` or `mpmc` |
/// | `producers` | with `mpmc`, how many it has room for: 1 to 64 |
/// | `max_deliveries` | with `mpmc`, how often a message is delivered at most: 1 to 15 |
/// | `capacity`, `max_message` | a [`ByteSize`] |
/// | `wait` | `spin`, `futex` or `sem` |
/// | `perm` | octal, at most `0777`; not with `anon:` |
/// | `persist` | `yes` or `no`; not with `anon:` |
///
/// In names and paths `%XX` stands for any byte; `?`, `%`, `&` and `#` must be written so.
///
/// Equal addresses print the same, and what is printed parses back to an equal address.
///
/// ```
/// use ringway::transport::Address;
///
/// let address: Address = "shm:///orders?wait=spin&capacity=4096KiB".parse()?;
/// assert_eq!(address.capacity(), Some(4 << 20));
/// assert_eq!(address.to_string(), "shm:///orders?capacity=4MiB&wait=spin");
/// # Ok::<(), ringway::transport::ParseAddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    target: Target,
    ring: Option<Ring>,
    producers: Option<u32>,
    max_deliveries: Option<u32>,
    capacity: Option<ByteSize>,
    max_message: Option<ByteSize>,
    wait: Option<Wait>,
    perm: Option<u32>,
    persist: Option<bool>,
}

/// The place an [`Address`] names. It prints as the address without its options.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// A segment that other processes can find.
    Segment(Name),
    /// Memory that only threads and forked children share.
    Anonymous(String),
}

impl Address {
    /// Where the channel lives.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The ring asked for.
    pub fn ring(&self) -> Option<Ring> {
        self.ring
    }

    /// How many producers the ring is to have room for.
    pub fn producers(&self) -> Option<u32> {
        self.producers
    }

    /// How often the ring is to deliver a message at most.
    pub fn max_deliveries(&self) -> Option<u32> {
        self.max_deliveries
    }

    /// The bytes the ring is to hold.
    pub fn capacity(&self) -> Option<u64> {
        self.capacity.map(|ByteSize(bytes)| bytes)
    }

    /// The largest message that is to fit, in bytes.
    pub fn max_message(&self) -> Option<u64> {
        self.max_message.map(|ByteSize(bytes)| bytes)
    }

    /// How its endpoints are to wait.
    pub fn wait(&self) -> Option<Wait> {
        self.wait
    }

    /// The permission bits of a segment that is created.
    pub fn perm(&self) -> Option<u32> {
        self.perm
    }

    /// Whether the segment is to stay when its last user leaves.
    pub fn persist(&self) -> Option<bool> {
        self.persist
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let target = self.target.to_string();
        f.write_str(&target)?;
        let options = [
            self.ring.map(|ring| format!("ring={ring}")),
            self.producers.map(|count| format!("producers={count}")),
            self.max_deliveries.map(|count| format!("max_deliveries={count}")),
            self.capacity.map(|size| format!("capacity={size}")),
            self.max_message.map(|size| format!("max_message={size}")),
            self.wait.map(|wait| format!("wait={wait}")),
            self.perm.map(|bits| format!("perm={bits:04o}")),
            self.persist.map(|stays| format!("persist={}", if stays { "yes" } else { "no" })),
        ];
        let mut separator = if target.contains('?') { '&' } else { '?' };
        for option in options.into_iter().flatten() {
            write!(f, "{separator}{option}")?;
            separator = '&';
        }
        Ok(())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(Name::Posix(name)) => write!(f, "shm:///{}", Encoded(name.as_bytes())),
            Self::Segment(Name::SysV(Key::Path { path, id })) => {
                write!(f, "sysv://{}", Encoded(path.as_os_str().as_bytes()))?;
                if *id == DEFAULT_ID { Ok(()) } else { write!(f, "?id={id}") }
            }
            Self::Segment(Name::SysV(Key::Raw(key))) => write!(f, "sysv:?key={key:#x}"),
            Self::Segment(Name::File(path)) => write!(f, "file://{}", Encoded(path.as_os_str().as_bytes())),
            Self::Anonymous(name) => write!(f, "anon:{}", Encoded(name.as_bytes())),
        }
    }
}

/// The text is no address; the message says where, why and what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseAddressError {
    given: String,
    problem: String,
}

impl fmt::Display for ParseAddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bad address {:?}: {}", self.given, self.problem)
    }
}

impl error::Error for ParseAddressError {}

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(given: &str) -> Result<Self, ParseAddressError> {
        parse(given).map_err(|problem| ParseAddressError { given: given.to_owned(), problem })
    }
}

const DEFAULT_ID: u8 = 1;
const SCHEMES: &str = "allowed are shm:///name, sysv:///path?id=7, sysv:?key=0x51, file:///path and anon:name";

fn parse(given: &str) -> Result<Address, String> {
    let (place, query) = given.split_once('?').map_or((given, None), |(place, query)| (place, Some(query)));
    let (scheme, rest) = place.split_once(':').ok_or_else(|| format!("it has no scheme; {SCHEMES}"))?;
    let allowed: &[&str] = match scheme {
        "shm" | "file" => {
            &["ring", "producers", "max_deliveries", "capacity", "max_message", "wait", "perm", "persist"]
        }
        "sysv" => {
            &["id", "key", "ring", "producers", "max_deliveries", "capacity", "max_message", "wait", "perm", "persist"]
        }
        "anon" => &["ring", "producers", "max_deliveries", "capacity", "max_message", "wait"],
        _ => return Err(format!("unknown scheme {scheme:?}; {SCHEMES}")),
    };
    let options = Options::parse(query, allowed)?;
    let target = match scheme {
        "shm" => Target::Segment(Name::Posix(decode_name(
            rest.strip_prefix("///").ok_or("POSIX shared memory is written shm:///name")?,
        )?)),
        "sysv" => Target::Segment(Name::SysV(parse_key(rest, &options)?)),
        "file" => Target::Segment(Name::File(decode_path(rest).ok_or("a mapped file is written file:///path")??)),
        _ => Target::Anonymous(decode_name(rest)?),
    };
    Ok(Address {
        target,
        ring: options.read("ring")?,
        producers: options.read_with("producers", |value| parse_count(value, "producers", MAX_PRODUCERS))?,
        max_deliveries: options
            .read_with("max_deliveries", |value| parse_count(value, "max_deliveries", MAX_DELIVERIES))?,
        capacity: options.read("capacity")?,
        max_message: options.read("max_message")?,
        wait: options.read("wait")?,
        perm: options.read_with("perm", parse_perm)?,
        persist: options.read_with("persist", parse_persist)?,
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
}

fn parse_key(rest: &str, options: &Options) -> Result<Key, String> {
    let id = options.read_with("id", parse_id)?;
    let key = options.read_with("key", parse_raw_key)?;
    match (decode_path(rest), id, key) {
        (Some(path), id, None) => Ok(Key::Path { path: path?, id: id.unwrap_or(DEFAULT_ID) }),
        (None, None, Some(key)) if rest.is_empty() => Ok(Key::Raw(key)),
        _ => Err("a System V segment is written sysv:///path?id=7 or sysv:?key=0x51, never both".to_owned()),
    }
}

fn parse_id(value: &str) -> Result<u8, String> {
    // ftok uses the low eight bits, and leaves an id of 0 undefined.
    digits_only(value, 10)
        .and_then(|digits| digits.parse().ok())
        .filter(|&id| id != 0)
        .ok_or_else(|| format!("id={value} is not a number from 1 to 255"))
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
    digits_only(value, 10)
        .and_then(|digits| digits.parse().ok())
        .filter(|count| (1..=most).contains(count))
        .ok_or_else(|| format!("{key}={value} is not a number from 1 to {most}"))
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

/// The standard parsers would also take a sign.
fn digits_only(text: &str, radix: u32) -> Option<&str> {
    text.chars().all(|c| c.is_digit(radix)).then_some(text)
}

/// A name is one component of a path: not empty, no slash.
fn decode_name(text: &str) -> Result<String, String> {
    let name = String::from_utf8(decode(text)?).map_err(|_| format!("the name {text:?} is not UTF-8"))?;
    match name.as_str() {
        "" => Err("the name is empty".to_owned()),
        "." | ".." => Err(format!("{name:?} can't be a name")),
        _ if name.contains('/') => Err(format!("the name {name:?} has a slash in it")),
        _ => Ok(name),
    }
}

/// `None` unless it starts as an absolute path behind two slashes. Doubled and closing slashes are dropped, as comparing
/// paths ignores them too.
fn decode_path(text: &str) -> Option<Result<PathBuf, String>> {
    let text = text.strip_prefix("//").filter(|path| path.starts_with('/'))?;
    Some(decode(text).and_then(|bytes| {
        let path: PathBuf = Path::new(&OsString::from_vec(bytes)).components().collect();
        if path.file_name().is_some() { Ok(path) } else { Err(format!("the path {text:?} names no file")) }
    }))
}

/// A byte string as an address shows it.
struct Encoded<'a>(&'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| match byte {
            b'?' | b'%' | b'&' | b'#' => write!(f, "%{byte:02X}"),
            0x21..=0x7e => write!(f, "{}", char::from(byte)),
            _ => write!(f, "%{byte:02X}"),
        })
    }
}

fn decode(text: &str) -> Result<Vec<u8>, String> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
                let (high, low) = digit().zip(digit()).ok_or("after % come two hexadecimal digits; % itself is %25")?;
                (high << 4 | low) as u8
            }
            b'&' | b'#' => return Err(format!("{:?} is written %{byte:02X} in a name or path", char::from(byte))),
            _ => byte,
        });
    }
    if decoded.contains(&0) { Err("a name or path can't contain a zero byte".to_owned()) } else { Ok(decoded) }
}
