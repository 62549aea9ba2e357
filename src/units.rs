//! Sizes and durations as people write them: `4MiB`, `250ms`.
//!
//! Both are a whole number and a unit, without a space or a fraction. What is printed parses back to the same value.

use std::{error, fmt, str::FromStr, time::Duration};

/// A unit and what it is worth.
type Unit = (&'static str, u64);

/// Largest first.
const BINARY: [Unit; 5] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const DECIMAL: [Unit; 4] = [("kB", 1_000), ("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000)];
/// Spellings that are read and never printed: a bare number, and the capital K of habit.
const LENIENT: [Unit; 2] = [("", 1), ("KB", 1_000)];
/// In nanoseconds, largest first.
const TIME: [Unit; 5] = [("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

/// A number of bytes.
///
/// Reads `4096`, `64B`, `64KiB`, `4MiB`, `1GiB`, `1TiB` and the decimal `1kB`, `1MB`, `1GB`, `1TB`. Prints the largest
/// binary unit that divides exactly.
///
/// ```
/// use ringway::units::ByteSize;
///
/// let size: ByteSize = "4096".parse()?;
/// assert_eq!(size, ByteSize(4096));
/// assert_eq!(size.to_string(), "4KiB");
/// # Ok::<(), ringway::units::ParseUnitError>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, worth) = largest_exact(&BINARY, self.0.into()).unwrap_or(("B", 1));
        f.pad(&format!("{}{unit}", self.0 / worth))
    }
}

impl FromStr for ByteSize {
    type Err = ParseUnitError;

    fn from_str(given: &str) -> Result<Self, ParseUnitError> {
        let units = BINARY.iter().chain(&DECIMAL).chain(&LENIENT);
        let bytes = parse(given, units).and_then(|bytes| u64::try_from(bytes).map_err(|_| Problem::TooLarge));
        bytes.map(Self).map_err(|problem| ParseUnitError { given: given.to_owned(), wanted: Wanted::Size, problem })
    }
}

/// Reads `5ns`, `10us`, `250ms`, `2s` or `1m`; the unit is required.
///
/// ```
/// use ringway::units::{format_duration, parse_duration};
///
/// let slice = parse_duration("1500us")?;
/// assert_eq!(slice.as_micros(), 1500);
/// assert_eq!(format_duration(parse_duration("2000ms")?), "2s");
/// # Ok::<(), ringway::units::ParseUnitError>(())
/// ```
pub fn parse_duration(given: &str) -> Result<Duration, ParseUnitError> {
    parse(given, TIME.iter())
        .and_then(|nanos| {
            let seconds = u64::try_from(nanos / NANOS_PER_SEC).map_err(|_| Problem::TooLarge)?;
            Ok(Duration::new(seconds, (nanos % NANOS_PER_SEC) as u32))
        })
        .map_err(|problem| ParseUnitError { given: given.to_owned(), wanted: Wanted::Duration, problem })
}

/// Prints the largest unit that divides exactly, so that [`parse_duration`] gives the same value back.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (unit, worth) = largest_exact(&TIME, nanos).unwrap_or(("s", 1));
    format!("{}{unit}", nanos / u128::from(worth))
}

const NANOS_PER_SEC: u128 = 1_000_000_000;

/// `None` for zero, which every unit divides.
fn largest_exact(units: &[Unit], value: u128) -> Option<Unit> {
    units.iter().copied().find(|&(_, worth)| value != 0 && value.is_multiple_of(worth.into()))
}

fn parse<'a>(given: &str, mut units: impl Iterator<Item = &'a Unit>) -> Result<u128, Problem> {
    let digits = given.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = given.split_at(digits);
    if number.is_empty() {
        return Err(Problem::NoNumber);
    }
    let &(_, worth) = units.find(|(name, _)| *name == unit).ok_or(Problem::UnknownUnit { at: digits })?;
    let number: u128 = number.parse().map_err(|_| Problem::TooLarge)?;
    number.checked_mul(worth.into()).ok_or(Problem::TooLarge)
}

/// The text is no size or no duration; the message says what is allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseUnitError {
    given: String,
    wanted: Wanted,
    problem: Problem,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Size,
    Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Problem {
    NoNumber,
    UnknownUnit { at: usize },
    TooLarge,
}

impl fmt::Display for ParseUnitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (noun, limit, units) = match self.wanted {
            Wanted::Size => ("size", "16EiB", "no unit or one of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"),
            Wanted::Duration => ("duration", "2^64 seconds", "one of ns, us, ms, s, m"),
        };
        write!(f, "{:?} is not a {noun}: ", self.given)?;
        match self.problem {
            Problem::NoNumber => f.write_str("it does not start with a digit")?,
            Problem::UnknownUnit { at } if at == self.given.len() => f.write_str("it has no unit")?,
            Problem::UnknownUnit { at } => write!(f, "{:?} is no unit of it", &self.given[at..])?,
            Problem::TooLarge => return write!(f, "it must be below {limit}"),
        }
        write!(f, "; write a whole number and {units}")
    }
}

impl error::Error for ParseUnitError {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(text: &str) -> Result<u64, String> {
        text.parse().map(|ByteSize(bytes)| bytes).map_err(|e: ParseUnitError| e.to_string())
    }

    #[test]
    fn sizes_read_as_people_write_them() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64B", 64),
            ("64KiB", 65_536),
            ("4MiB", 4 << 20),
            ("1GiB", 1 << 30),
            ("3TiB", 3 << 40),
            ("1KB", 1_000),
            ("1kB", 1_000),
            ("1MB", 1_000_000),
            ("2GB", 2_000_000_000),
            ("1TB", 1_000_000_000_000),
            ("18446744073709551615B", u64::MAX),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_binary_unit_that_divides() {
        for (bytes, text) in [
            (0, "0B"),
            (1, "1B"),
            (1023, "1023B"),
            (1024, "1KiB"),
            (1025, "1025B"),
            (1_000_000, "1000000B"),
            (4 << 20, "4MiB"),
            (1536 << 10, "1536KiB"),
            (u64::MAX, "18446744073709551615B"),
        ] {
            assert_eq!(ByteSize(bytes).to_string(), text);
        }
        assert_eq!(format!("{:>8}", ByteSize(64)), "     64B", "tables align sizes");
    }

    #[test]
    fn bad_sizes_say_what_is_allowed() {
        let allowed = "write a whole number and no unit or one of B, KiB, MiB, GiB, TiB, kB, MB, GB, TB";
        for (text, problem) in [
            ("", "it does not start with a digit"),
            ("MiB", "it does not start with a digit"),
            ("-1", "it does not start with a digit"),
            ("+1", "it does not start with a digit"),
            ("4mib", "\"mib\" is no unit of it"),
            ("4 MiB", "\" MiB\" is no unit of it"),
            ("1.5MiB", "\".5MiB\" is no unit of it"),
            ("4M", "\"M\" is no unit of it"),
            ("4ms", "\"ms\" is no unit of it"),
        ] {
            assert_eq!(size(text), Err(format!("{text:?} is not a size: {problem}; {allowed}")));
        }
        for text in ["18446744073709551616", "16777216TiB", &"9".repeat(60), &format!("{}TiB", u128::MAX)] {
            assert_eq!(size(text), Err(format!("{text:?} is not a size: it must be below 16EiB")));
        }
    }

    #[test]
    fn durations_read_and_print() {
        for (text, nanos, printed) in [
            ("5ns", 5, "5ns"),
            ("10us", 10_000, "10us"),
            ("250ms", 250_000_000, "250ms"),
            ("2s", 2_000_000_000, "2s"),
            ("1m", 60_000_000_000, "1m"),
            ("90s", 90_000_000_000, "90s"),
            ("120s", 120_000_000_000, "2m"),
            ("1500us", 1_500_000, "1500us"),
            ("0ms", 0, "0s"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_nanos(nanos), "{text}");
            assert_eq!(format_duration(duration), printed);
        }
    }

    #[test]
    fn bad_durations_say_what_is_allowed() {
        for (text, message) in [
            ("5", "it has no unit; write a whole number and one of ns, us, ms, s, m"),
            ("ms", "it does not start with a digit; write a whole number and one of ns, us, ms, s, m"),
            ("5h", "\"h\" is no unit of it; write a whole number and one of ns, us, ms, s, m"),
            ("18446744073709551616s", "it must be below 2^64 seconds"),
        ] {
            assert_eq!(parse_duration(text).unwrap_err().to_string(), format!("{text:?} is not a duration: {message}"));
        }
        assert_eq!(parse_duration(&format_duration(Duration::MAX)), Ok(Duration::MAX));
    }

    proptest! {
        #[test]
        fn sizes_round_trip(bytes in any::<u64>(), shift in 0..64) {
            for size in [ByteSize(bytes), ByteSize(bytes >> shift << shift)] {
                prop_assert_eq!(size.to_string().parse(), Ok(size));
            }
        }

        #[test]
        fn durations_round_trip(seconds in any::<u64>(), nanos in 0..1_000_000_000_u32, coarse in 1..1_000_000_000_u32) {
            for duration in [Duration::new(seconds, nanos), Duration::new(0, nanos / coarse * coarse)] {
                prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
            }
        }

        #[test]
        fn arbitrary_text_never_panics(text in any::<String>(), number in any::<u128>(), unit in ".{0,4}") {
            for text in [text, format!("{number}{unit}")] {
                let size = text.parse::<ByteSize>().map_err(|e| e.to_string());
                let duration = parse_duration(&text).map_err(|e| e.to_string());
                prop_assert!(size.is_err() || duration.is_err(), "no text is both");
            }
        }
    }
}
