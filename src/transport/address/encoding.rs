//! Names and paths as they are written in an address: `%XX` for what can't stand there.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A byte string as an address shows it.
pub(super) struct Encoded<'a>(pub(super) &'a [u8]);

impl fmt::Display for Encoded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|&byte| match byte {
            b'?' | b'%' | b'&' | b'#' => write!(f, "%{byte:02X}"),
            0x21..=0x7e => write!(f, "{}", char::from(byte)),
            _ => write!(f, "%{byte:02X}"),
        })
    }
}

pub(super) fn decode(text: &str) -> Result<Vec<u8>, String> {
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

/// A name is one component of a path: not empty, no slash.
pub(super) fn decode_name(text: &str) -> Result<String, String> {
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
pub(super) fn decode_path(text: &str) -> Option<Result<PathBuf, String>> {
    let text = text.strip_prefix("//").filter(|path| path.starts_with('/'))?;
    Some(decode(text).and_then(|bytes| {
        let path: PathBuf = Path::new(&OsString::from_vec(bytes)).components().collect();
        if path.file_name().is_some() { Ok(path) } else { Err(format!("the path {text:?} names no file")) }
    }))
}
